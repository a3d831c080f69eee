//! `twinpost cluster init`: makes this machine the first node of a new cluster. Offline; the service is started after.

use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use failover::Provider;
use topology::{ClusterAddress, ClusterState, ConfigOp, Rejection};
use transport::ca::Authority;
use vocab::NodeId;

use crate::admin::say;
use crate::certificates::{CA_LIFE_S, disk};
use crate::checks::{self, Finding, Verdict};
use crate::config::{self, NodeConfig};
use crate::examine::{self, Lan};
use crate::exit::Exit;
use crate::files::{self, DataDir, Founding, Identity};

/// Who founds a cluster.
const FIRST_NODE: NodeId = NodeId(1);
/// Bytes of the administrator's token.
const ADMIN_TOKEN_BYTES: usize = 32;

/// `twinpost cluster init`
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// Node file.
    #[arg(long, default_value = config::DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Name of the cluster, shown to people and asked for when it matters.
    #[arg(long, default_value = "twinpost")]
    pub cluster_name: String,
    /// Address that clients use and the primary holds, as ADDRESS or ADDRESS/PREFIX; twice for IPv4 and IPv6.
    #[arg(long = "cluster-address", value_name = "ADDRESS")]
    pub cluster_addresses: Vec<ClusterAddress>,
    /// Only check, and say what would be made.
    #[arg(long)]
    pub dry_run: bool,
    /// Print checks and plan as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs `twinpost cluster init`.
///
/// # Errors
/// As [`found`]; a dry run: when nothing can be checked.
pub fn run(args: &InitArgs) -> anyhow::Result<Exit> {
    if !args.dry_run {
        return found(args).map(|()| Exit::Done);
    }
    let config = NodeConfig::load(&args.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(check(args, &config));
    let refused = checks::worst(&findings) == Verdict::Refuse;
    let will = if refused { Vec::new() } else { plan(args, &config) };
    if args.json {
        let shown = serde_json::json!({ "refused": refused, "checks": findings, "will": will });
        say!("{}", serde_json::to_string_pretty(&shown)?);
    } else {
        findings.iter().for_each(|finding| say!("{}", finding.lines()));
        will.iter().for_each(|line| say!("{line}"));
        say!("nothing was changed");
    }
    Ok(if refused { Exit::Refused } else { Exit::Done })
}

async fn check(args: &InitArgs, config: &NodeConfig) -> Vec<Finding> {
    let folder = match refuse_second(&DataDir(config.data_dir.clone())) {
        Ok(()) => Finding::ok("data-folder", format!("{} belongs to no cluster", config.data_dir.display())),
        Err(fault) => Finding::refuse("data-folder", fault.to_string(), "name another folder under `data_dir`"),
    };
    let settings = match would_found(args, config, "dry run") {
        Ok(()) => Finding::ok("settings", format!("the cluster {} can be founded with these", args.cluster_name)),
        Err(fault) => Finding::refuse("settings", fault.to_string(), "correct it in the command or the node file"),
    };
    let mut findings = vec![folder, settings, examine::free_disk(config, None, true), examine::free_ports(config)];
    let lan = Lan { cluster: args.cluster_addresses.clone(), others: Vec::new(), holder: None, shown: None };
    findings.extend(lan.judge(config).await);
    if args.cluster_addresses.is_empty() {
        findings.push(Finding::warn(
            "cluster-address",
            "none: each node is reached by its own address only",
            "name one with --cluster-address, so that clients need not know which node is primary",
        ));
    }
    findings
}

/// What would be made, one line each.
fn plan(args: &InitArgs, config: &NodeConfig) -> Vec<String> {
    let mut will = vec![
        format!("{} would be node 1, alone, of the new cluster {}", config.name, args.cluster_name),
        format!(
            "written into {}: this node's identity, the CA and its key, certificates and keys, the administrator's token",
            config.data_dir.display()
        ),
        format!("clients would reach it at {} {}", config.address, config.ports.services()),
        format!("other nodes would find it at {}", peer_addresses(config).join(", ")),
    ];
    if !args.cluster_addresses.is_empty() {
        let how = match &config.provider {
            None => "bound while it is primary; nobody adds it to an interface (provider listen)".to_owned(),
            Some(Provider::Netlink(link)) => format!("added to {} by this program (provider netlink)", link.interface),
            Some(Provider::Exec(_)) => "moved by the hooks of the node file (provider exec)".to_owned(),
        };
        will.push(format!("the cluster address {} is {how}", topology::listed(&args.cluster_addresses)));
    }
    will
}

/// Makes data folder, CA, certificates and token.
///
/// # Errors
/// When the folder belongs to a cluster already or cannot be written, or the settings would not be taken: with each fault.
pub fn found(args: &InitArgs) -> anyhow::Result<()> {
    let config = NodeConfig::load(&args.config)?;
    let data = DataDir(config.data_dir.clone());
    refuse_second(&data)?;
    let cluster_id = secret(16);
    would_found(args, &config, &cluster_id)?;
    data.create()?;
    let node = FIRST_NODE;
    let ca = Authority::create(&args.cluster_name, disk::now_s() + CA_LIFE_S).context("make the cluster's CA")?;
    let ca = ca.until(disk::ends(&config));
    let names = node_names(&config.name, &config.hostname, &config.address.to_string());
    let issued = ca.issue_node(node, &names).context("issue the node's certificate")?;
    let mut service_names = vec!["localhost".to_owned()];
    service_names.extend(args.cluster_addresses.iter().map(|one| one.address.to_string()));
    service_names.extend(names);
    let service = ca.issue_service(&dedup(service_names)).context("issue the certificate for clients")?;
    write_certificates(&data, ca.certificate(), ca.key(), &issued.certificate, &issued.key)?;
    disk::write_service(&data, &service.certificate, &service.key)?;
    files::write_private(&data.admin_token(), format!("{}\n", secret(ADMIN_TOKEN_BYTES)).as_bytes())?;
    let identity = Identity {
        cluster_id,
        cluster_name: args.cluster_name.clone(),
        node: node.0,
        peers: peer_addresses(&config).into_iter().map(|address| (node.0, address)).collect(),
        witness: false,
        left: false,
        found: Some(Founding { cluster_addresses: args.cluster_addresses.clone() }),
    };
    // Last: from now on the folder belongs to a cluster.
    identity.save(&data)?;
    println!("cluster {} founded in {}; start the service now", args.cluster_name, data.0.display());
    Ok(())
}

/// What the first start of the first node asks of the configuration, in this order.
pub(crate) fn founding_ops(
    config: &NodeConfig,
    (cluster_id, name): (&str, &str),
    addresses: &[ClusterAddress],
) -> Vec<ConfigOp> {
    let member = member(config, FIRST_NODE, true);
    let (cluster_id, name) = (cluster_id.to_owned(), name.to_owned());
    let mut ops = vec![ConfigOp::Found { cluster_id, name, member, cluster_address: None }];
    if !addresses.is_empty() {
        ops.push(ConfigOp::SetAddresses { addresses: addresses.to_vec() });
    }
    ops
}

/// Whether the configuration will take it.
fn would_found(args: &InitArgs, config: &NodeConfig, cluster_id: &str) -> Result<(), Rejection> {
    let mut state = ClusterState::default();
    for op in founding_ops(config, (cluster_id, &args.cluster_name), &args.cluster_addresses) {
        (state, _) = topology::apply(&state, &op, 0)?;
    }
    Ok(())
}

/// A data folder is founded or joined once.
pub(crate) fn refuse_second(data: &DataDir) -> anyhow::Result<()> {
    anyhow::ensure!(
        !data.identity().exists(),
        "{} belongs to a cluster already; a new one needs an empty folder",
        data.0.display()
    );
    Ok(())
}

/// Random bytes as URL-safe text.
pub(crate) fn secret(bytes: usize) -> String {
    let mut raw = vec![0u8; bytes];
    rand::fill(&mut raw[..]);
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(raw)
}

/// Names and addresses in certificates of a node.
pub(crate) fn node_names(name: &str, hostname: &str, address: &str) -> Vec<String> {
    dedup(vec![name.to_owned(), hostname.to_owned(), address.to_owned()])
}

/// Each name once, in order, empty ones dropped.
pub(crate) fn dedup(names: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    names.into_iter().filter(|n| !n.is_empty() && seen.insert(n.clone())).collect()
}

/// Where this node listens for others: on the private link, if it has one, and on its own address.
pub(crate) fn peer_listeners(config: &NodeConfig) -> Vec<std::net::SocketAddr> {
    let addresses = config.private_address.into_iter().chain([config.address]);
    addresses.map(|address| std::net::SocketAddr::new(address, config.ports.peer)).collect()
}

/// Where the others find it, as `address:port`, the one to be used while it works first.
pub(crate) fn peer_addresses(config: &NodeConfig) -> Vec<String> {
    match config.peer_advertise.as_slice() {
        [] => peer_listeners(config).iter().map(ToString::to_string).collect(),
        told => told.to_vec(),
    }
}

/// This node as the configuration should know it.
pub(crate) fn member(config: &NodeConfig, id: NodeId, data: bool) -> topology::Member {
    let mut addresses = peer_addresses(config).into_iter();
    topology::Member {
        id,
        name: config.name.clone(),
        peer_address: addresses.next().unwrap_or_default(),
        address: config.address.to_string(),
        data,
        paths: addresses.collect(),
    }
}

/// Writes what identifies this node to the others.
pub(crate) fn write_certificates(data: &DataDir, ca: &str, ca_key: &str, node: &str, key: &str) -> anyhow::Result<()> {
    files::write_private(&data.ca(), ca.as_bytes())?;
    if !ca_key.is_empty() {
        files::write_private(&data.ca_key(), ca_key.as_bytes())?;
    }
    disk::write_node(data, node, key)
}
