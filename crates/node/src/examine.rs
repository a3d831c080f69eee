//! What a joiner and its cluster find out about each other before anything is changed: the facts for `checks.rs`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use failover::{Found, Lease, OwnAddress, Provider};
use ports::cluster::Cluster;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use topology::{ClusterAddress, ClusterState, ConfigOp, Rejection};
use transport::proto::Range;
use transport::{ExamineReply, ExamineRequest, Neighbour, Versions};

use crate::checks::{self, Answering, Clocks, Finding, Mover, Program};
use crate::clock::wall_ms;
use crate::config::NodeConfig;
use crate::files;

/// How long somebody on the cluster address may take to answer; in a LAN it is milliseconds.
const ANSWER_WAIT: Duration = Duration::from_millis(1_000);

/// What a node of the cluster tells a joiner.
pub(crate) struct Teller {
    /// The cluster as this node sees it.
    pub(crate) cluster: Arc<dyn Cluster>,
    /// Where its mail lies.
    pub(crate) mail: PathBuf,
    /// Port of the API.
    pub(crate) https_port: u16,
    /// The certificate shown there (PEM).
    pub(crate) service_certificate: PathBuf,
    /// The cluster's CA (PEM).
    pub(crate) ca: PathBuf,
}

impl Teller {
    /// The answer; `admit` is what would be proposed, with the token already found good.
    pub(crate) async fn tell(
        &self,
        state: &ClusterState,
        (admit, locked): (&ConfigOp, bool),
        received_ms: u64,
    ) -> Result<ExamineReply, String> {
        let (mail, status) = (self.mail.clone(), self.cluster.status());
        let data_bytes = tokio::task::spawn_blocking(move || bytes_under(&mail)).await.map_err(|e| e.to_string())?;
        let (next_node, mut refusals) = match topology::apply(state, admit, 0) {
            Ok((_, given)) => (given.map_or(0, |id| id.0), Vec::new()),
            Err(Rejection::Faults(faults)) => {
                (0, faults.iter().map(|fault| format!("{}: {}", fault.place, fault.what)).collect())
            }
            Err(Rejection::Conflict(text)) => (0, vec![text]),
        };
        if locked {
            refusals.push(
                "settings are locked there: no majority of the nodes that vote answers (`twinpost status` on that node \
                 names the ways out)"
                    .to_owned(),
            );
        }
        let certificate = files::read_text(&self.service_certificate).ok();
        let certificate = certificate.and_then(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok());
        let Versions { protocol, row_format } = Versions::CURRENT;
        let range = |(min, max): (u32, u32)| Some(Range { min, max });
        let neighbour = |member: &topology::Member| Neighbour {
            node: member.id.0,
            name: member.name.clone(),
            address: member.address.clone(),
            data: member.data,
        };
        Ok(ExamineReply {
            ca_certificate: files::read_text(&self.ca).unwrap_or_default(),
            received_ms,
            program: crate::PROGRAM.to_owned(),
            protocol: range(protocol),
            row_format: range(row_format),
            node: status.node,
            in_sync: status.in_sync.contains(&status.node),
            cluster_name: state.name.clone(),
            cluster_address: state.cluster_addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            address_holder: status.address_holder.unwrap_or(0),
            data_bytes,
            members: state.members.values().map(neighbour).collect(),
            https_port: u32::from(self.https_port),
            service_hash: certificate.map(|der| blake3::hash(&der).to_hex().to_string()).unwrap_or_default(),
            refusals,
            next_node,
            answered_ms: wall_ms(),
        })
    }
}

/// Bytes of all files under a folder, at any depth; what cannot be read counts nothing.
pub(crate) fn bytes_under(folder: &Path) -> u64 {
    let mut open = vec![folder.to_owned()];
    let mut sum = 0;
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => open.push(entry.path()),
                Ok(meta) => sum += meta.len(),
                Err(_) => {}
            }
        }
    }
    sum
}

/// What a joiner has found out.
pub(crate) struct Examined {
    pub(crate) findings: Vec<Finding>,
    pub(crate) home: ExamineReply,
}

/// Asks the nodes of the token, one that is in sync if there is one, and judges.
///
/// # Errors
/// Nobody answered, with each reason.
pub(crate) async fn examine(
    config: &NodeConfig,
    (addresses, ca_hash): (&[String], &str),
    request: &ExamineRequest,
) -> Result<Examined, String> {
    let (mut reasons, mut heard) = (Vec::new(), None);
    for address in addresses {
        match transport::examine_call(address, ca_hash, request.clone(), wall_ms).await {
            Ok((home, around)) => {
                let in_sync = home.in_sync;
                heard = Some((home, around));
                if in_sync {
                    break;
                }
            }
            Err(reason) => reasons.push(format!("{address}: {reason}")),
        }
    }
    let Some((home, around)) = heard else { return Err(reasons.join("; ")) };
    let findings = judge(config, &home, around, request.witness).await;
    Ok(Examined { findings, home })
}

async fn judge(config: &NodeConfig, home: &ExamineReply, (asked, heard): (u64, u64), witness: bool) -> Vec<Finding> {
    let pair = |range: Option<&Range>| range.map_or((0, 0), |range| (range.min, range.max));
    let theirs = Program {
        version: home.program.clone(),
        protocol: pair(home.protocol.as_ref()),
        rows: pair(home.row_format.as_ref()),
    };
    let mut findings = vec![checks::admission(&home.refusals, home.next_node)];
    findings.extend(checks::versions(&own_program(), &theirs));
    findings.push(checks::clock(Clocks { asked, received: home.received_ms, answered: home.answered_ms, heard }));
    // What a seed has brought already is not copied again.
    let seed = files::DataDir(config.data_dir.clone()).seed();
    let mail = (!witness).then(|| home.data_bytes.saturating_sub(bytes_under(&seed)));
    findings.push(free_disk(config, mail, witness || home.in_sync));
    if !witness {
        findings.push(free_ports(config));
    }
    let others = home.members.iter().filter(|member| member.data).filter_map(|member| member.address.parse().ok());
    let told = home.cluster_address.split(", ");
    let lan = Lan {
        cluster: if witness { Vec::new() } else { told.filter_map(|text| text.parse().ok()).collect() },
        others: if witness { Vec::new() } else { others.collect() },
        holder: holder(home),
        shown: u16::try_from(home.https_port).ok().map(|port| Shown {
            port,
            hash: &home.service_hash,
            ca: &home.ca_certificate,
        }),
    };
    findings.extend(lan.judge(config).await);
    findings
}

/// This program and what it speaks.
pub(crate) fn own_program() -> Program {
    let Versions { protocol, row_format } = Versions::CURRENT;
    Program { version: crate::PROGRAM.to_owned(), protocol, rows: row_format }
}

/// Room on the disk of the data folder, which need not be there yet.
pub(crate) fn free_disk(config: &NodeConfig, mail: Option<u64>, whole: bool) -> Finding {
    let folder = config.data_dir.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    match files::room(folder) {
        Ok((free, _)) => checks::disk(free, mail, whole),
        Err(error) => Finding::refuse("disk", format!("{}: {error}", folder.display()), "look at that folder"),
    }
}

/// Whether the ports of the node file can be bound on its own address now.
pub(crate) fn free_ports(config: &NodeConfig) -> Finding {
    let bind = |(name, port): (&'static str, u16)| {
        let fault = std::net::TcpListener::bind((config.address, port)).err()?;
        Some((name, port, fault.kind()))
    };
    let faults: Vec<_> = config.ports.named().filter_map(bind).collect();
    let all = format!("{}, {} (between nodes)", config.ports.services(), config.ports.peer);
    checks::ports(config.address, &faults, &all)
}

/// Who holds the cluster address, with its own address.
fn holder(home: &ExamineReply) -> Option<Holder> {
    let member = home.members.iter().find(|member| home.address_holder != 0 && member.node == home.address_holder)?;
    Some(Holder { node: member.node, address: member.address.parse().ok()? })
}

/// The node that holds the cluster address by right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its id.
    pub(crate) node: u32,
    /// Its own address.
    pub(crate) address: IpAddr,
}

/// By what a node is known.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    /// Port of the API.
    pub(crate) port: u16,
    /// Hash of the certificate of the node that was asked.
    pub(crate) hash: &'a str,
    /// CA of what the other nodes show (PEM), or empty.
    pub(crate) ca: &'a str,
}

/// The network a node is to live in.
pub(crate) struct Lan<'a> {
    /// Cluster addresses.
    pub(crate) cluster: Vec<ClusterAddress>,
    /// Addresses of the other nodes with mail.
    pub(crate) others: Vec<IpAddr>,
    /// Who holds the cluster address.
    pub(crate) holder: Option<Holder>,
    /// What the API shows there.
    pub(crate) shown: Option<Shown<'a>>,
}

impl Lan<'_> {
    /// Address, network, and who answers on the cluster address.
    pub(crate) async fn judge(&self, config: &NodeConfig) -> Vec<Finding> {
        let all = match failover::own_addresses().await {
            Ok(all) => all,
            Err(why) => return vec![Finding::warn("static-address", why, "look at the addresses by hand")],
        };
        let mut findings = vec![checks::static_address(&all, config.address)];
        findings.extend(self.in_networks(config, &all));
        for cluster in &self.cluster {
            let answering = self.who_answers(config, *cluster, &all).await;
            findings.push(checks::cluster_free(cluster.address, &answering, self.holder.map(|holder| holder.node)));
        }
        findings
    }

    /// Networks alone; nobody is asked.
    pub(crate) async fn networks(&self, config: &NodeConfig) -> Vec<Finding> {
        match failover::own_addresses().await {
            Ok(all) => self.in_networks(config, &all),
            Err(why) => vec![Finding::warn("cluster-network", why, "look at the addresses by hand")],
        }
    }

    fn in_networks(&self, config: &NodeConfig, all: &[OwnAddress]) -> Vec<Finding> {
        let mover = match &config.provider {
            Some(Provider::Exec(_)) => Mover::Hooks,
            Some(Provider::Netlink(link)) => Mover::Interface(&link.interface),
            None => Mover::Lan,
        };
        checks::same_lan(all, (config.address, &self.cluster), &self.others, mover)
    }

    async fn who_answers(&self, config: &NodeConfig, cluster: ClusterAddress, all: &[OwnAddress]) -> Answering {
        let lease = Lease { others: self.others.clone(), ..Lease::of(cluster, "check") };
        let cluster = cluster.address;
        let link = match &config.provider {
            Some(Provider::Netlink(link)) => link,
            // While a node holds it, a hook may find that node.
            Some(hooks @ Provider::Exec(_)) if self.holder.is_none() => {
                return match failover::Device::open(hooks.clone()) {
                    Ok(device) => device.check(&lease).await.map_or_else(Answering::Stranger, |_| Answering::Nobody),
                    Err(why) => Answering::NotAsked(why),
                };
            }
            _ => return self.who_serves(config, cluster).await,
        };
        if let Some(own) = all.iter().find(|own| own.address == cluster) {
            return Answering::Stranger(format!("this machine itself, on {}", own.interface));
        }
        match failover::look(link, &lease).await {
            Ok(found) => self.who_has_it(config, cluster, &found).await,
            Err(why) => match self.who_serves(config, cluster).await {
                Answering::Nobody => Answering::NotAsked(why),
                found => found,
            },
        }
    }

    /// By hardware addresses, and by the certificate where these do not tell the holder from a stranger.
    async fn who_has_it(&self, config: &NodeConfig, cluster: IpAddr, found: &Found) -> Answering {
        let strangers = found.strangers(self.holder.map(|holder| holder.address));
        if !strangers.is_empty() {
            return Answering::Stranger(strangers.join(", "));
        }
        if found.others.is_empty() {
            return if found.node { Answering::Node } else { Answering::Nobody };
        }
        match self.who_serves(config, cluster).await {
            Answering::Nobody => Answering::Stranger("a machine that has it and serves nothing there".to_owned()),
            served => served,
        }
    }

    /// By its services: the API's certificate tells a node from a stranger.
    async fn who_serves(&self, config: &NodeConfig, cluster: IpAddr) -> Answering {
        let shown = self.shown.unwrap_or(Shown { port: config.ports.https, hash: "", ca: "" });
        let port = shown.port;
        if let Some(stream) = connect(cluster, port).await {
            return match shows(stream, cluster, shown).await {
                Ok(()) => Answering::Node,
                Err(why) => Answering::Stranger(format!("port {port} answers, not as this cluster: {why}")),
            };
        }
        match connect(cluster, config.ports.smtp).await {
            Some(_) => Answering::Stranger(format!("port {} answers", config.ports.smtp)),
            None => Answering::Nobody,
        }
    }
}

async fn connect(address: IpAddr, port: u16) -> Option<TcpStream> {
    let connected = tokio::time::timeout(ANSWER_WAIT, TcpStream::connect(SocketAddr::new(address, port))).await;
    connected.ok()?.ok()
}

/// Whether who answers holds the key of the certificate with this hash, or of one by this CA.
async fn shows(stream: TcpStream, address: IpAddr, shown: Shown<'_>) -> anyhow::Result<()> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    if let Ok(ca) = CertificateDer::from_pem_slice(shown.ca.as_bytes()) {
        roots.add(ca)?;
    }
    let by_ca = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().ok();
    let verifier = one_certificate(shown.hash.to_owned(), by_ca, Arc::clone(&provider));
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let handshake = connector.connect(ServerName::IpAddress(address.into()), stream);
    tokio::time::timeout(ANSWER_WAIT, handshake).await.context("no TLS in time")??;
    Ok(())
}

/// Accepts the one certificate that was told beforehand, whatever names it carries, and what the cluster's CA has signed for
/// clients.
fn one_certificate(
    hash: String,
    by_ca: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
) -> Arc<dyn ServerCertVerifier> {
    transport::judged_verifier(
        provider,
        Box::new(move |end_entity, chain, _, ocsp, now| {
            if *blake3::hash(end_entity).to_hex() == *hash {
                return Ok(ServerCertVerified::assertion());
            }
            // Every certificate for clients that this program makes has this name.
            let (name, other) =
                (ServerName::try_from("localhost"), || rustls::Error::General("another certificate".to_owned()));
            let (Some(by_ca), Ok(name)) = (&by_ca, name) else { return Err(other()) };
            by_ca.verify_server_cert(end_entity, chain, &name, ocsp, now).map_err(|_| other())
        }),
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;
    use transport::ca::Authority;

    use super::*;

    fn config() -> NodeConfig {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("twinpost.toml");
        // A port nobody listens on: it was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let ports = format!("[ports]\nsmtp = {free}");
        std::fs::write(&file, format!("address = \"127.0.0.1\"\n{ports}\n")).expect("written");
        NodeConfig::load(&file).expect("good")
    }

    fn lan((port, hash): (u16, &str)) -> Lan<'_> {
        lan_by((port, hash, ""))
    }

    fn lan_by<'a>((port, hash, ca): (u16, &'a str, &'a str)) -> Lan<'a> {
        let shown = Shown { port, hash, ca };
        let holder = Holder { node: 1, address: "127.0.0.1".parse().expect("address") };
        Lan { cluster: Vec::new(), others: Vec::new(), holder: Some(holder), shown: Some(shown) }
    }

    /// Shows a certificate of this CA on a port; both, the certificate as its hash.
    async fn shown_by(here: IpAddr, ca: &Authority) -> (u16, String) {
        let issued = ca.issue_service(&["localhost".to_owned()]).expect("issued");
        let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("certificate");
        let hash = blake3::hash(&der).to_hex().to_string();
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("key");
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![der], key)
            .expect("usable");
        let listener = TcpListener::bind((here, 0)).await.expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let accepting = acceptor.accept(socket);
                tokio::spawn(async move {
                    if let Ok(mut stream) = accepting.await {
                        let _ = stream.read(&mut [0u8; 1]).await;
                    }
                });
            }
        });
        (port, hash)
    }

    #[tokio::test]
    async fn ha_09_whoever_shows_the_clusters_certificate_is_no_stranger() {
        let here: IpAddr = "127.0.0.1".parse().expect("address");
        let config = config();
        let ca = Authority::create("test", u64::MAX).expect("CA");
        let (port, hash) = shown_by(here, &ca).await;
        assert_eq!(lan((port, &hash)).who_serves(&config, here).await, Answering::Node);
        let other = lan((port, "00")).who_serves(&config, here).await;
        assert!(matches!(&other, Answering::Stranger(why) if why.contains("another certificate")), "{other:?}");
        // Each node may show one of its own.
        let by_ca = lan_by((port, "00", ca.certificate())).who_serves(&config, here).await;
        assert_eq!(by_ca, Answering::Node);
        let foreign = Authority::create("test", u64::MAX).expect("CA");
        let by_other = lan_by((port, "00", foreign.certificate())).who_serves(&config, here).await;
        assert!(matches!(by_other, Answering::Stranger(_)), "{by_other:?}");
        // A listener that speaks no TLS, and nobody at all.
        let plain = TcpListener::bind((here, 0)).await.expect("bound");
        let port = plain.local_addr().expect("bound").port();
        let found = lan((port, &hash)).who_serves(&config, here).await;
        assert!(matches!(found, Answering::Stranger(_)), "{found:?}");
        drop(plain);
        assert_eq!(lan((port, &hash)).who_serves(&config, here).await, Answering::Nobody);
    }

    #[tokio::test]
    async fn ha_09_a_holder_that_its_own_address_does_not_prove_is_known_by_its_certificate() {
        let here: IpAddr = "127.0.0.1".parse().expect("address");
        let (own, holder, stranger) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]);
        let (config, ca) = (config(), Authority::create("test", u64::MAX).expect("CA"));
        let (port, hash) = shown_by(here, &ca).await;
        let theirs: IpAddr = "127.0.0.1".parse().expect("address");
        let lease = Lease { others: vec![theirs], ..Lease::of("127.0.0.10".parse().expect("address"), "check") };
        let found = |claims: &[(IpAddr, [u8; 6])]| Found::among(&lease, own, claims);
        let judge = async |hash: &str, found: Found| lan((port, hash)).who_has_it(&config, here, &found).await;
        let unheard = found(&[(lease.address, holder)]);
        assert_eq!(judge(&hash, unheard.clone()).await, Answering::Node);
        assert!(matches!(judge("00", unheard).await, Answering::Stranger(_)), "another certificate");
        // Whatever the certificate says: of two one is a stranger, and so is who is not the node that was heard.
        for claims in [
            vec![(lease.address, holder), (lease.address, stranger)],
            vec![(lease.address, stranger), (theirs, holder)],
        ] {
            let judged = judge(&hash, found(&claims)).await;
            assert!(matches!(&judged, Answering::Stranger(who) if who.contains("02:00:00:00:00:03")), "{judged:?}");
        }
        assert_eq!(judge("00", found(&[(lease.address, holder), (theirs, holder)])).await, Answering::Node);
        assert_eq!(judge(&hash, found(&[])).await, Answering::Nobody);
    }

    #[test]
    fn the_bytes_of_a_folder_are_counted_at_any_depth() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::create_dir_all(folder.path().join("a/b")).expect("made");
        std::fs::write(folder.path().join("x"), [0; 10]).expect("written");
        std::fs::write(folder.path().join("a/b/y"), [0; 7]).expect("written");
        assert_eq!(bytes_under(folder.path()), 17);
        assert_eq!(bytes_under(&folder.path().join("nowhere")), 0);
    }
}
