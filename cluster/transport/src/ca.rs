//! The cluster's own certificate authority: node certificates, the service certificate for clients, the pinned check
//! of a joiner. PEM text in and out; files are the program's business.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use vocab::NodeId;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::judged::judged_verifier;

/// Names below this suffix are given by the CA alone, so no host name of an operator can pass for a node.
const RESERVED_SUFFIX: &str = ".twinpost.internal";
/// A name that every node certificate carries: what a joiner checks, which knows no node id yet.
pub(crate) const JOIN_NAME: &str = "node.twinpost.internal";

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A name that cannot be in a certificate.
    #[error("name {0:?} cannot be in a certificate")]
    Name(String),
    /// PEM text that is no certificate, key or request.
    #[error("certificates: {0}")]
    Pem(#[from] rcgen::Error),
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Issued {
    /// Certificate (PEM), without the CA.
    pub certificate: String,
    /// Private key (PEM).
    pub key: String,
}

/// The TLS name of a node.
#[must_use]
pub fn node_name(node: NodeId) -> String {
    format!("node-{}{RESERVED_SUFFIX}", node.0)
}

/// The node a certificate was issued to; the caller has checked that the CA signed it.
pub(crate) fn node_of(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => {
            let number = name.strip_prefix("node-")?.strip_suffix(RESERVED_SUFFIX)?;
            number.parse().ok().map(NodeId)
        }
        _ => None,
    })
}

/// The hash that a join token carries: BLAKE3 of the CA certificate, in hexadecimal.
///
/// # Errors
/// The text is no certificate.
pub fn ca_hash(ca_pem: &str) -> Result<String, CertificateError> {
    let der = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
    Ok(blake3::hash(&der).to_hex().to_string())
}

/// A joiner's fresh key and the request that travels.
#[derive(Clone)]
pub struct NodeRequest {
    /// Certificate request (PEM).
    pub request: String,
    /// Private key (PEM); stays here.
    pub key: String,
}

/// Makes the key of a node that is about to join.
///
/// # Errors
/// The system gives no randomness.
pub fn request_node() -> Result<NodeRequest, CertificateError> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    Ok(NodeRequest { request: request.pem()?, key: key.serialize_pem() })
}

/// The CA with its key.
pub struct Authority {
    certificate: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new CA for this cluster.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn create(cluster: &str) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named(&format!("Twinpost CA of {cluster}"));
        let certificate = params.self_signed(&key)?.pem();
        Self::load(&certificate, &key.serialize_pem())
    }

    /// The CA from its files.
    ///
    /// # Errors
    /// They are not what they should be.
    pub fn load(certificate: &str, key: &str) -> Result<Self, CertificateError> {
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?;
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), issuer })
    }

    /// Certificate (PEM).
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Private key (PEM); lies on data nodes only, never in Raft.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Certificate for the node that made this request; of the request only the public key is taken. `names` are host
    /// names and addresses of the node.
    ///
    /// # Errors
    /// The request or a name is bad.
    pub fn sign_node(&self, request: &str, node: NodeId, names: &[String]) -> Result<String, CertificateError> {
        let mut request = CertificateSigningRequestParams::from_pem(request)?;
        request.params = node_params(node, names)?;
        Ok(request.signed_by(&self.issuer)?.pem())
    }

    /// Certificate and key for a node on this machine (the founding one).
    ///
    /// # Errors
    /// A name is bad.
    pub fn issue_node(&self, node: NodeId, names: &[String]) -> Result<Issued, CertificateError> {
        self.issue(&node_params(node, names)?)
    }

    /// Certificate and key that clients see: cluster name, node names, addresses. Nodes do not take it for a node's.
    ///
    /// # Errors
    /// A name is bad, or there is none.
    pub fn issue_service(&self, names: &[String]) -> Result<Issued, CertificateError> {
        let first = names.first().ok_or_else(|| CertificateError::Name(String::new()))?;
        let mut params = leaf_params(first, names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params)
    }

    fn issue(&self, params: &CertificateParams) -> Result<Issued, CertificateError> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn node_params(node: NodeId, names: &[String]) -> Result<CertificateParams, CertificateError> {
    let mut params = leaf_params(&format!("node-{}", node.0), names)?;
    for name in [node_name(node), JOIN_NAME.to_owned()] {
        params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn leaf_params(common_name: &str, names: &[String]) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    for name in names {
        let san = match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) if is_host_name(name) => SanType::DnsName(name.as_str().try_into()?),
            Err(_) => return Err(CertificateError::Name(name.clone())),
        };
        if !params.subject_alt_names.contains(&san) {
            params.subject_alt_names.push(san);
        }
    }
    Ok(params)
}

fn is_host_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'*' || b == b'_';
    let lower = name.to_ascii_lowercase();
    !name.is_empty() && name.len() <= 253 && name.bytes().all(plain) && !lower.ends_with(RESERVED_SUFFIX)
}

/// Accepts a server whose chain holds the CA with this hash and whose certificate that CA signed for a node.
pub(crate) fn pinned_verifier(ca_hash: &str) -> Arc<dyn ServerCertVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (hash, known) = (ca_hash.to_ascii_lowercase(), Arc::clone(&provider));
    judged_verifier(
        provider,
        Box::new(move |end_entity, intermediates, server_name, ocsp_response, now| {
            let pinned = |der: &&CertificateDer<'_>| *blake3::hash(der).to_hex() == *hash;
            let Some(ca) = intermediates.iter().find(pinned) else {
                return Err(rustls::Error::General("the CA of this server is not the one the token names".to_owned()));
            };
            let mut roots = RootCertStore::empty();
            roots.add(ca.clone().into_owned())?;
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&known))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        }),
    )
}
