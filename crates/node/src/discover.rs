//! Nodes found on the LAN by mDNS (`_twinpost._tcp`). What is announced is what any neighbour may know: name, ids, version,
//! address, whether a machine could join now. Nothing is trusted for it: a join goes to whoever holds the key that the token
//! names, found or not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use control::Control;
use mdns_sd::{IfKind, ServiceDaemon, ServiceEvent, ServiceInfo};
use ports::config::Config as _;
use serde_json::json;

use crate::admin::say;
use crate::cli::ConfigArg;
use crate::config::NodeConfig;
use crate::exit::Exit;
use crate::files::Identity;

/// What is looked for.
const SERVICE: &str = "_twinpost._tcp.local.";
/// How long is looked unless said otherwise (seconds).
const SECONDS: u64 = 3;

/// `twinpost cluster discover`
#[derive(Debug, clap::Args)]
pub struct DiscoverArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// How long to look.
    #[arg(long, default_value_t = SECONDS)]
    seconds: u64,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// A node that announced itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) node: u32,
    pub(crate) cluster: String,
    pub(crate) cluster_id: String,
    pub(crate) version: String,
    /// `address:port` between nodes.
    pub(crate) address: String,
    /// It stores mail, and settings can be changed: a token can be made and used now.
    pub(crate) joinable: bool,
    pub(crate) witness: bool,
}

/// A daemon that speaks on the network of this address alone.
fn daemon(address: IpAddr) -> anyhow::Result<ServiceDaemon> {
    let daemon = ServiceDaemon::new().context("start mDNS")?;
    daemon.disable_interface(IfKind::All).context("mDNS")?;
    let wanted = match address {
        IpAddr::V4(v4) if v4.is_loopback() => IfKind::LoopbackV4,
        IpAddr::V6(v6) if v6.is_loopback() => IfKind::LoopbackV6,
        other => IfKind::Addr(other),
    };
    daemon.enable_interface(wanted).context("mDNS")?;
    Ok(daemon)
}

/// Announces this node while the process runs, if the node file says so. A network that does not let it is no reason not to
/// serve.
pub(crate) fn announce(config: &NodeConfig, identity: &Identity, control: &Arc<Control>) {
    if !config.discovery {
        return;
    }
    let (config, identity, control) = (config.clone(), identity.clone(), Arc::clone(control));
    tokio::spawn(async move {
        if let Err(error) = announce_forever(&config, &identity, &control).await {
            tracing::warn!(error = %format!("{error:#}"), "this node cannot be discovered on the LAN");
        }
    });
}

async fn announce_forever(config: &NodeConfig, identity: &Identity, control: &Control) -> anyhow::Result<()> {
    let daemon = daemon(config.address)?;
    let mut quorum = control.quorum();
    loop {
        let open = quorum.borrow_and_update().quorum;
        let cluster = control.current().name.clone();
        daemon.register(service(config, identity, &cluster, open)?).context("announce this node")?;
        tracing::info!(joinable = open && !identity.witness, "announced on the LAN");
        if quorum.wait_for(|status| status.quorum != open).await.is_err() {
            return Ok(());
        }
    }
}

fn service(config: &NodeConfig, identity: &Identity, cluster: &str, open: bool) -> anyhow::Result<ServiceInfo> {
    let yes = |it: bool| if it { "1" } else { "0" }.to_owned();
    let name = if cluster.is_empty() { &identity.cluster_name } else { cluster };
    let text = [
        ("name", config.name.clone()),
        ("node", identity.node.to_string()),
        ("cluster", name.to_owned()),
        ("id", identity.cluster_id.clone()),
        ("version", crate::PROGRAM.to_owned()),
        ("joinable", yes(open && !identity.witness)),
        ("witness", yes(identity.witness)),
        ("address", std::net::SocketAddr::new(config.address, config.ports.peer).to_string()),
    ];
    let instance = format!("twinpost-{}-{}", identity.node, identity.cluster_id);
    let host = format!("{instance}.local.");
    // An instance name has 63 bytes at most.
    let instance: String = instance.chars().take(60).collect();
    ServiceInfo::new(SERVICE, &instance, &host, config.address, config.ports.peer, &text[..]).context("mDNS")
}

fn found(service: &mdns_sd::ResolvedService) -> Option<Found> {
    let text = |key: &str| service.get_property_val_str(key).map(str::to_owned);
    let address = text("address")?;
    // Whatever a neighbour says: an address is one.
    address.parse::<std::net::SocketAddr>().ok()?;
    Some(Found {
        name: printable(&text("name")?),
        node: text("node")?.parse().ok()?,
        cluster: printable(&text("cluster")?),
        cluster_id: printable(&text("id")?),
        version: printable(&text("version").unwrap_or_default()),
        address,
        joinable: text("joinable").as_deref() == Some("1"),
        witness: text("witness").as_deref() == Some("1"),
    })
}

/// Nothing a neighbour says may steer a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// Everybody who answers on the network of this address within `wait`; by cluster and id.
pub(crate) fn look(address: IpAddr, wait: Duration) -> anyhow::Result<Vec<Found>> {
    let daemon = daemon(address)?;
    let events = daemon.browse(SERVICE).context("look for nodes")?;
    let end = Instant::now() + wait;
    let mut all = BTreeMap::new();
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        match events.recv_timeout(left) {
            Ok(ServiceEvent::ServiceResolved(service)) => {
                if let Some(one) = found(&service) {
                    all.insert((one.cluster_id.clone(), one.node), one);
                }
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    // It ends with the process at the latest.
    let _ = daemon.shutdown();
    Ok(all.into_values().collect())
}

/// Runs `twinpost cluster discover`.
///
/// # Errors
/// There is no node file, or the network cannot be asked.
pub fn run(args: &DiscoverArgs) -> anyhow::Result<Exit> {
    let config = NodeConfig::load(&args.config.config)?;
    let nodes = look(config.address, Duration::from_secs(args.seconds))?;
    if args.json {
        say!("{}", serde_json::to_string_pretty(&json!({ "nodes": nodes }))?);
        return Ok(Exit::Done);
    }
    if nodes.is_empty() {
        say!("nobody answered on the network of {}; nodes announce themselves with `discovery = true`", config.address);
    }
    for node in nodes {
        let kind = match (node.witness, node.joinable) {
            (true, _) => "witness",
            (false, true) => "member, joinable",
            (false, false) => "member, settings locked",
        };
        let Found { name, node, cluster, cluster_id, version, address, .. } = node;
        say!("{name}: node {node} of {cluster} ({cluster_id}) at {address}, version {version}, {kind}");
    }
    Ok(Exit::Done)
}

/// Where a node of the token's cluster with this name is.
///
/// # Errors
/// Nobody of this name answers, or only of other clusters.
pub(crate) fn address_of(name: &str, cluster_id: &str, config: &NodeConfig) -> anyhow::Result<String> {
    let nodes = look(config.address, Duration::from_secs(SECONDS))?;
    let named: Vec<&Found> = nodes.iter().filter(|node| node.name == name && !node.witness).collect();
    match named.iter().find(|node| node.cluster_id == cluster_id) {
        Some(node) => Ok(node.address.clone()),
        None if named.is_empty() => anyhow::bail!("no node named {name} answers on the network of {}", config.address),
        None => anyhow::bail!("the node named {name} is of another cluster than the token"),
    }
}
