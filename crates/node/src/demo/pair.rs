//! Two nodes on loopback as real processes: start, kill, bring back, stop. Used by the demo, the e2e tests and the
//! benchmark.
//!
//! Every process is ended by its own id, and only after its command line was seen to name this pair's files.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::clients::api::{Api, Status};
use super::clients::stream::Trust;
use super::node_process::NodeProcess;
use super::ports;
use crate::config::Ports;

/// Address of the cluster in the demo.
pub const CLUSTER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
/// Addresses of the two nodes.
pub const NODE_ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 12))];
/// How long a node may take until it serves.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a pair may take to be in sync after a start.
pub const JOINT_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks at something that is awaited.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// One account of the pair.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Login {
    /// Address.
    pub address: String,
    /// Password.
    pub password: String,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct PairOptions {
    /// Folder for everything; made when absent.
    pub dir: PathBuf,
    /// The `twinpost` binary.
    pub binary: PathBuf,
    /// Domain of the accounts; becomes the default domain.
    pub domain: String,
    /// Local parts u1 to uN with passwords.
    pub accounts: Vec<Login>,
    /// Password logins without TLS.
    pub allow_plaintext: bool,
    /// Log filter of the nodes (`info`, `debug`, ...).
    pub log: String,
    /// More tables for the node files (TOML).
    pub more: String,
    /// More keys for the node file of one node each, before the first table (TOML).
    pub keys: [String; 2],
}

impl PairOptions {
    /// A pair in `dir` with `accounts` accounts u1 to uN in `demo.test`, each with a password of its own.
    #[must_use]
    pub fn new(dir: &Path, binary: &Path, accounts: usize) -> Self {
        let domain = "demo.test".to_owned();
        let logins = (1..=accounts).map(|number| login(&format!("u{number}@{domain}"), None)).collect();
        Self {
            dir: dir.to_owned(),
            binary: binary.to_owned(),
            domain,
            accounts: logins,
            allow_plaintext: false,
            log: "info,openraft=off".into(),
            more: String::new(),
            keys: <[String; 2]>::default(),
        }
    }
}

/// A login with the given or a generated password.
#[must_use]
pub fn login(address: &str, password: Option<&str>) -> Login {
    let password = password.map_or_else(|| format!("{:016x}", rand::random::<u64>()), str::to_owned);
    Login { address: address.to_owned(), password }
}

/// A running pair. Dropping it ends its processes at once, unless [`Pair::leave_running`] was called.
pub struct Pair {
    /// What was asked for.
    pub options: PairOptions,
    /// Ports on all three addresses.
    pub ports: Ports,
    /// The nodes; index 0 was the first.
    pub nodes: Vec<NodeProcess>,
    token: String,
}

impl Pair {
    /// Starts both nodes, joins them, creates domain and accounts, and returns when both are in sync.
    ///
    /// # Errors
    /// Anything that did not come up in time; the processes are ended.
    pub async fn start(options: PairOptions) -> anyhow::Result<Self> {
        let mut pair = Self::start_single(options).await?;
        pair.join_second().await?;
        pair.create_accounts().await?;
        Ok(pair)
    }

    /// Starts the first node alone, without domain and accounts.
    ///
    /// # Errors
    /// As [`Pair::start`].
    pub async fn start_single(options: PairOptions) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&options.dir)?;
        let ports = ports::find_free()?;
        let nodes = NODE_ADDRESSES
            .iter()
            .enumerate()
            .map(|(at, address)| NodeProcess::new(&options, at + 1, *address, &ports))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut pair = Self { options, ports, nodes, token: String::new() };
        let cluster = CLUSTER_ADDRESS.to_string();
        pair.command(0, &["cluster", "init"], &["--cluster-name", "demo", "--cluster-address", &cluster], None).await?;
        pair.token = std::fs::read_to_string(pair.node(0)?.data_dir().join("admin.token"))?.trim().to_owned();
        pair.start_node(0).await?;
        pair.await_ready(0, START_LIMIT).await?;
        Ok(pair)
    }

    /// Makes the second node join and waits until both are in sync.
    ///
    /// # Errors
    /// As [`Pair::start`].
    pub async fn join_second(&mut self) -> anyhow::Result<()> {
        self.join_begin().await?;
        self.await_joint(JOINT_LIMIT).await?;
        self.await_ready(1, START_LIMIT).await
    }

    /// As [`Pair::join_second`], but returns as soon as the second node's processes are started.
    ///
    /// # Errors
    /// As [`Pair::start`].
    pub async fn join_begin(&mut self) -> anyhow::Result<()> {
        let token = self.api(0)?.join_token().await?;
        self.command(1, &["cluster", "join"], &[], Some(&token)).await?;
        self.start_node(1).await
    }

    /// Creates the domain and the accounts through the API of the cluster address.
    ///
    /// # Errors
    /// Refused or no answer.
    pub async fn create_accounts(&self) -> anyhow::Result<()> {
        let api = self.cluster_api()?;
        api.add_domain(&self.options.domain).await?;
        for account in &self.options.accounts {
            api.add_account(&account.address, &account.password).await?;
        }
        Ok(())
    }

    /// Node by index (0 or 1).
    ///
    /// # Errors
    /// No such index.
    pub fn node(&self, index: usize) -> anyhow::Result<&NodeProcess> {
        self.nodes.get(index).with_context(|| format!("no node {index}"))
    }

    /// Starts a stopped or killed node again; returns when its process runs, not when it serves.
    ///
    /// # Errors
    /// The process ended at once or never wrote its pid; its log's end is in the message.
    pub async fn start_node(&mut self, index: usize) -> anyhow::Result<()> {
        let binary = self.options.binary.clone();
        self.nodes.get_mut(index).with_context(|| format!("no node {index}"))?.start(&binary).await
    }

    /// SIGKILL to the serving process; its guard sees the end, reports it, and ends too.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        self.nodes.get_mut(index).with_context(|| format!("no node {index}"))?.kill().await
    }

    /// SIGKILL to guard and serving process at once.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn kill_group(&mut self, index: usize) -> anyhow::Result<()> {
        self.nodes.get_mut(index).with_context(|| format!("no node {index}"))?.kill_group().await
    }

    /// API of one node.
    ///
    /// # Errors
    /// The CA file cannot be read.
    pub fn api(&self, index: usize) -> anyhow::Result<Api> {
        let node = self.node(index)?;
        Api::new(SocketAddr::new(node.address, self.ports.https), &self.ca_file(), &self.token)
    }

    /// API at the cluster address.
    ///
    /// # Errors
    /// The CA file cannot be read.
    pub fn cluster_api(&self) -> anyhow::Result<Api> {
        Api::new(SocketAddr::new(CLUSTER_ADDRESS, self.ports.https), &self.ca_file(), &self.token)
    }

    /// The CA of the cluster (PEM).
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.nodes.first().map(|node| node.data_dir().join("ca.pem")).unwrap_or_default()
    }

    /// The administrator's token.
    #[must_use]
    pub fn admin_token(&self) -> &str {
        &self.token
    }

    /// TLS settings that trust the cluster's CA.
    ///
    /// # Errors
    /// The CA file cannot be read.
    pub fn trust(&self) -> anyhow::Result<Trust> {
        Trust::from_file(&self.ca_file())
    }

    /// Index of the node that holds the cluster address.
    ///
    /// # Errors
    /// No node says so.
    pub async fn primary(&self) -> anyhow::Result<usize> {
        for index in 0..self.nodes.len() {
            let Ok(status) = self.api(index)?.status().await else { continue };
            if let Some(holder) = status.address_holder {
                return (holder as usize).checked_sub(1).context("node id 0");
            }
        }
        bail!("no node knows who holds the cluster address")
    }

    /// Waits until a node says it serves.
    ///
    /// # Errors
    /// Not within `limit`, with the end of its log.
    pub async fn await_ready(&self, index: usize, limit: Duration) -> anyhow::Result<()> {
        let api = self.api(index)?;
        let start = Instant::now();
        while !api.is_ready().await {
            let node = self.node(index)?;
            if start.elapsed() > limit || node.live_pid().is_none() {
                bail!("{} does not serve after {:?}; its log ends:\n{}", node.name, start.elapsed(), node.log_end());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Waits until every node serves and says that all are in sync in one joint epoch; returns what the first said.
    ///
    /// # Errors
    /// Not within `limit`.
    pub async fn await_joint(&self, limit: Duration) -> anyhow::Result<Status> {
        let start = Instant::now();
        let apis = (0..self.nodes.len()).map(|index| self.api(index)).collect::<anyhow::Result<Vec<_>>>()?;
        loop {
            let mut statuses = Vec::new();
            let mut ready = true;
            for api in &apis {
                statuses.push(api.status().await);
                ready &= api.is_ready().await;
            }
            let joint = |status: &anyhow::Result<Status>| status.as_ref().is_ok_and(|s| s.is_joint(apis.len()));
            if ready
                && statuses.iter().all(joint)
                && let Some(Ok(first)) = statuses.first()
            {
                return Ok(first.clone());
            }
            if start.elapsed() > limit {
                bail!("not in sync after {limit:?}: {statuses:?}");
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Waits until every service port answers on the cluster address and on both nodes.
    ///
    /// # Errors
    /// Not within `limit`, naming the first that does not.
    pub async fn await_ports(&self, limit: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        for address in [CLUSTER_ADDRESS].into_iter().chain(NODE_ADDRESSES) {
            for (_, port) in self.ports.of_clients() {
                while tokio::net::TcpStream::connect((address, port)).await.is_err() {
                    if start.elapsed() > limit {
                        bail!("{address}:{port} does not answer after {limit:?}");
                    }
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
            }
        }
        Ok(())
    }

    /// Ends all processes: asks first, kills after ten seconds; returns when they are gone.
    pub async fn stop(&mut self) {
        for node in &self.nodes {
            node.ask_to_end();
        }
        for node in &mut self.nodes {
            node.await_end().await;
        }
    }

    /// Lets the processes outlive this program (`--detach`).
    pub fn leave_running(&mut self) {
        for node in &mut self.nodes {
            node.leave_running();
        }
    }

    /// Runs a command of the binary for a node, `text` on its standard input; returns what it printed.
    ///
    /// # Errors
    /// It cannot be run, takes too long, or does not exit with 0; what it printed is in the message.
    pub async fn command(
        &self,
        index: usize,
        words: &[&str],
        rest: &[&str],
        text: Option<&str>,
    ) -> anyhow::Result<String> {
        let node = self.node(index)?;
        let mut child = Command::new(&self.options.binary)
            .args(words)
            .arg("--config")
            .arg(node.config())
            .args(rest)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| self.options.binary.display().to_string())?;
        if let (Some(mut input), Some(text)) = (child.stdin.take(), text) {
            input.write_all(format!("{text}\n").as_bytes()).await?;
        }
        let output = tokio::time::timeout(START_LIMIT, child.wait_with_output()).await??;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            bail!("twinpost {} for {}: {}: {said}", words.join(" "), node.name, output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
