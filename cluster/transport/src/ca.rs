//! The cluster's own certificate authority: node certificates, the service certificate for clients, the pinned check
//! of a joiner. PEM text in and out; files are the program's business.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use vocab::NodeId;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use crate::judged::judged_verifier;

/// Names below this suffix are given by the CA alone, so no host name of an operator can pass for a node.
const RESERVED_SUFFIX: &str = ".twinpost.internal";
/// A name that every node certificate carries: what a joiner checks, which knows no node id yet.
pub(crate) const JOIN_NAME: &str = "node.twinpost.internal";

/// No certificate ends later.
const LAST_YEAR: i32 = 4096;

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A name that cannot be in a certificate.
    #[error("name {0:?} cannot be in a certificate")]
    Name(String),
    /// The key is not that of the certificate.
    #[error("the key of the CA does not belong to its certificate")]
    Key,
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

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// When it ends (Unix seconds).
    pub ends: u64,
    /// Its number, in hexadecimal.
    pub serial: String,
    key: Vec<u8>,
    issuer_key: Vec<u8>,
}

impl CertificateFacts {
    /// Of the first certificate in this text.
    ///
    /// # Errors
    /// The text is no certificate.
    pub fn read(pem: &str) -> Result<Self, CertificateError> {
        let bad = || CertificateError::Pem(rcgen::Error::CouldNotParseCertificate);
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| bad())?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| bad())?;
        let mut facts = Self {
            ends: u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0),
            serial: parsed.raw_serial_as_string(),
            key: Vec::new(),
            issuer_key: Vec::new(),
        };
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => facts.key = id.0.to_vec(),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    facts.issuer_key = id.key_identifier.as_ref().map(|id| id.0.to_vec()).unwrap_or_default();
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    /// Whether it names the key of this CA as its issuer's. No proof: for certificates of one's own.
    #[must_use]
    pub fn names_issuer(&self, ca: &Self) -> bool {
        !ca.key.is_empty() && self.issuer_key == ca.key
    }
}

/// Each certificate of a text by itself, in order.
///
/// # Errors
/// The text is not PEM.
pub fn split(pem: &str) -> Result<Vec<String>, CertificateError> {
    const END: &str = "-----END CERTIFICATE-----";
    let mut all = Vec::new();
    let mut rest = pem;
    while let Some(at) = rest.find(END) {
        let (one, after) = rest.split_at(at + END.len());
        let begin = one.find("-----BEGIN CERTIFICATE-----");
        let one = begin.and_then(|begin| one.get(begin..)).ok_or(rcgen::Error::CouldNotParseCertificate)?;
        all.push(format!("{one}\n"));
        rest = after;
    }
    Ok(all)
}

/// The CA with its key.
pub struct Authority {
    /// When what it issues ends, unless it ends before itself (Unix seconds).
    until: u64,
    /// When it ends itself.
    ends: u64,
    certificate: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new CA for this cluster, which ends then (Unix seconds). What it issues ends with it, see [`Self::until`].
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn create(cluster: &str, ends: u64) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named(&format!("Twinpost CA of {cluster}"));
        params.not_after = at(ends);
        let certificate = params.self_signed(&key)?.pem();
        Self::load(&certificate, &key.serialize_pem())
    }

    /// The CA from its files. Of several certificates the one of the key counts.
    ///
    /// # Errors
    /// They are not what they should be.
    pub fn load(certificates: &str, key: &str) -> Result<Self, CertificateError> {
        let pair = KeyPair::from_pem(key)?;
        let ours = |one: &String| is_key_of(one, &pair).unwrap_or(false);
        let certificate = split(certificates)?.into_iter().find(ours).ok_or(CertificateError::Key)?;
        let ends = CertificateFacts::read(&certificate)?.ends;
        let issuer = Issuer::from_ca_cert_pem(&certificate, pair)?;
        Ok(Self { until: ends, ends, certificate, key: key.to_owned(), issuer })
    }

    /// What is issued from now on ends then (Unix seconds), or with the CA itself.
    #[must_use]
    pub fn until(self, until: u64) -> Self {
        Self { until: until.min(self.ends), ..self }
    }

    /// When what is issued ends (Unix seconds).
    #[must_use]
    pub const fn issues_until(&self) -> u64 {
        self.until
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
        request.params.not_after = at(self.until);
        Ok(request.signed_by(&self.issuer)?.pem())
    }

    /// Certificate and key for a node on this machine (the founding one).
    ///
    /// # Errors
    /// A name is bad.
    pub fn issue_node(&self, node: NodeId, names: &[String]) -> Result<Issued, CertificateError> {
        self.issue(node_params(node, names)?)
    }

    /// Certificate and key that clients see: cluster name, node names, addresses. Nodes do not take it for a node's.
    ///
    /// # Errors
    /// A name is bad, or there is none.
    pub fn issue_service(&self, names: &[String]) -> Result<Issued, CertificateError> {
        let first = names.first().ok_or_else(|| CertificateError::Name(String::new()))?;
        let mut params = leaf_params(first, names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Issued, CertificateError> {
        params.not_after = at(self.until);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

/// Unix seconds as certificates say it. What begins is left in the past: a clock that is behind keeps no node out.
fn at(seconds: u64) -> time::OffsetDateTime {
    let latest = rcgen::date_time_ymd(LAST_YEAR, 1, 1);
    rcgen::date_time_ymd(1970, 1, 1)
        .checked_add(Duration::from_secs(seconds).try_into().unwrap_or(time::Duration::MAX))
        .unwrap_or(latest)
        .min(latest)
}

/// Whether a CA's certificate is of this key.
fn is_key_of(certificate: &str, key: &KeyPair) -> Option<bool> {
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    Some(parsed.public_key().raw == key.subject_public_key_info())
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
                return Err(rustls::Error::General("the CA of this server is not the one the token names: the cluster has changed its CA since, or this is another \
                     cluster; make a new token there with `twinpost cluster token`".to_owned()));
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
