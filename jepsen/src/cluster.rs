//! The nodes: real processes, each in its namespace, on its disk, with its guard.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use node::config::Ports;
use node::demo::clients::api::{Api, Status};
use node::demo::clients::stream::Trust;
use node::demo::node_process::NodeProcess;
use node::demo::pair::{Login, PairOptions, login};
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::disk::{Disk, LOG_BYTES, MAIL_BYTES};
use crate::net::{Net, node_name};

/// How long anything may take that must happen by itself.
pub const LIMIT: Duration = Duration::from_secs(120);
/// Pause between two looks.
pub const LOOK: Duration = Duration::from_millis(50);
/// Domain of all accounts.
pub const DOMAIN: &str = "lab.test";

/// What to build.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Nodes with mail, two or three.
    pub data_nodes: usize,
    /// One more that votes.
    pub witness: bool,
    /// Accounts for the workload, and as many more for the probes as are needed.
    pub accounts: usize,
    /// After a heal of a split (ms).
    pub hold_down_ms: u64,
    /// Whether clocks can be set (needs libfaketime).
    pub clocks: bool,
    /// More environment for the nodes.
    pub environment: Vec<(String, String)>,
}

/// The disks of a machine.
pub struct Disks {
    /// Everything but the log.
    pub mail: Disk,
    /// The log's database.
    pub log: Disk,
}

impl Disks {
    fn make(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let mail = Disk::make(dir, name, MAIL_BYTES)?;
        match Disk::make(dir, &format!("{name}log"), LOG_BYTES) {
            Ok(log) => Ok(Self { mail, log }),
            Err(error) => {
                mail.destroy();
                Err(error)
            }
        }
    }

    fn destroy(&self) {
        self.mail.destroy();
        self.log.destroy();
    }
}

/// One machine.
pub struct Machine {
    /// Its processes.
    pub process: Mutex<NodeProcess>,
    /// Runs `twinpost` inside.
    pub wrapper: PathBuf,
    /// Its disks; folders of this machine when there are none to spare.
    pub disks: Option<Disks>,
    /// Own address.
    pub address: IpAddr,
    /// File with what its clock is off by, as libfaketime reads it.
    pub clock: PathBuf,
}

/// All of them.
pub struct Cluster {
    /// Machines; a witness comes last.
    pub machines: Vec<Machine>,
    /// Network.
    pub net: Arc<Net>,
    /// Shape.
    pub shape: Shape,
    /// Ports.
    pub ports: Ports,
    /// Logins of the workload's accounts.
    pub accounts: Vec<Login>,
    /// Logins of the probes' accounts.
    pub probes: Vec<Login>,
    /// Why there are no disks of their own.
    pub no_disks: Option<String>,
    token: String,
    dir: PathBuf,
}

impl Cluster {
    /// Disks and node files; nothing runs.
    ///
    /// # Errors
    /// They cannot be written.
    pub async fn build(net: Arc<Net>, shape: Shape, binary: &Path, dir: &Path, probes: usize) -> anyhow::Result<Self> {
        let logins = |name: &str, count| (1..=count).map(|n| login(&format!("{name}{n}@{DOMAIN}"), None)).collect();
        let mut cluster = Self {
            machines: Vec::new(),
            net,
            ports: Ports::USUAL,
            accounts: logins("u", shape.accounts),
            probes: logins("probe", probes),
            shape,
            no_disks: None,
            token: String::new(),
            dir: dir.to_owned(),
        };
        for index in 0..cluster.shape.data_nodes + usize::from(cluster.shape.witness) {
            let machine = cluster.machine(index, binary)?;
            cluster.machines.push(machine);
        }
        Ok(cluster)
    }

    /// Starts all nodes and waits until they are in sync, with accounts. This thread must be in the clients' namespace.
    ///
    /// # Errors
    /// Anything that did not come up in time.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let cluster = self;
        let address = cluster.net.cluster().to_string();
        cluster
            .command(0, &["cluster", "init"], &["--cluster-name", "lab", "--cluster-address", &address], None)
            .await?;
        let token =
            std::fs::read_to_string(cluster.machine_at(0)?.process.lock().await.data_dir().join("admin.token"))?;
        token.trim().clone_into(&mut cluster.token);
        cluster.place_log(0).await?;
        cluster.start_node(0).await?;
        cluster.await_ready(0).await?;
        for index in 1..cluster.machines.len() {
            cluster.join(index).await?;
        }
        cluster.await_joint(LIMIT).await?;
        cluster.add_accounts().await
    }

    fn machine(&mut self, index: usize, binary: &Path) -> anyhow::Result<Machine> {
        let name = node_name(index);
        let disks = Disks::make(&self.dir, &name);
        if let Err(error) = &disks {
            self.no_disks = Some(format!("{error:#}"));
        }
        let options =
            PairOptions { more: self.tables(), domain: DOMAIN.into(), ..PairOptions::new(&self.dir, binary, 0) };
        let address = self.net.address(index);
        let process = NodeProcess::new(&options, index + 1, address, &self.ports)?;
        // Keys without a table come first.
        let text = std::fs::read_to_string(process.config())?;
        std::fs::write(process.config(), format!("private_address = \"{}\"\n{text}", Net::private(index)))?;
        let (wrapper, clock) = (self.dir.join(format!("{name}.sh")), self.dir.join(format!("{name}.clock")));
        std::fs::write(&clock, "+0\n")?;
        std::fs::write(&wrapper, self.script(&name, binary, &clock))?;
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
        Ok(Machine { process: Mutex::new(process), wrapper, disks: disks.ok(), address, clock })
    }

    /// Puts the log of a node that was just made on the disk for it.
    async fn place_log(&self, index: usize) -> anyhow::Result<()> {
        let machine = self.machine_at(index)?;
        let Some(disks) = &machine.disks else { return Ok(()) };
        let place = machine.process.lock().await.data_dir().join("logs");
        std::os::unix::fs::symlink(&disks.log.folder, &place).with_context(|| place.display().to_string())
    }

    fn tables(&self) -> String {
        format!(
            "[cluster_address]\nprovider = \"netlink\"\ninterface = \"eth0\"\nprefix = {}\n\n\
             [probe]\ntargets = [\"{}\"]\n\n[timing]\nhold_down_ms = {}\n",
            self.net.bits(),
            self.net.router(),
            self.shape.hold_down_ms
        )
    }

    fn script(&self, name: &str, binary: &Path, clock: &Path) -> String {
        let mut text = "#!/bin/sh\n".to_owned();
        let mut export = |key: &str, value: &str| text.push_str(&format!("export {key}='{value}'\n"));
        for (key, value) in &self.shape.environment {
            export(key, value);
        }
        if self.shape.clocks {
            export("LD_PRELOAD", FAKETIME);
            export("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string());
            export("FAKETIME_CACHE_DURATION", "1");
            export("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        text + &format!("exec ip netns exec {} {} \"$@\"\n", self.net.namespace(name), binary.display())
    }

    async fn join(&self, index: usize) -> anyhow::Result<()> {
        let token = self.api(0)?.join_token().await?;
        let witness = index >= self.shape.data_nodes;
        self.command(index, &["cluster", "join"], if witness { &["--witness"] } else { &[] }, Some(&token)).await?;
        self.place_log(index).await?;
        self.start_node(index).await?;
        if witness {
            return self.await_status(0, "the witness votes", |status| status.contains("\"witness\"")).await;
        }
        self.await_ready(index).await
    }

    async fn add_accounts(&self) -> anyhow::Result<()> {
        let api = self.api(0)?;
        api.add_domain(DOMAIN).await?;
        for account in self.accounts.iter().chain(&self.probes) {
            api.add_account(&account.address, &account.password).await?;
        }
        Ok(())
    }

    /// A machine by index.
    ///
    /// # Errors
    /// No such index.
    pub fn machine_at(&self, index: usize) -> anyhow::Result<&Machine> {
        self.machines.get(index).with_context(|| format!("no machine {index}"))
    }

    /// Starts guard and daemon.
    ///
    /// # Errors
    /// It ended at once.
    pub async fn start_node(&self, index: usize) -> anyhow::Result<()> {
        let machine = self.machine_at(index)?;
        machine.process.lock().await.start(&machine.wrapper).await
    }

    /// Runs a command of the binary inside a machine; returns what it printed.
    ///
    /// # Errors
    /// It fails or takes too long.
    pub async fn command(
        &self,
        index: usize,
        words: &[&str],
        rest: &[&str],
        input: Option<&str>,
    ) -> anyhow::Result<String> {
        let machine = self.machine_at(index)?;
        let config = machine.process.lock().await.config();
        let mut child = Command::new(&machine.wrapper)
            .args(words)
            .arg("--config")
            .arg(config)
            .args(rest)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            tokio::io::AsyncWriteExt::write_all(&mut pipe, format!("{}\n", input.unwrap_or_default()).as_bytes())
                .await?;
        }
        let output = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await??;
        if !output.status.success() {
            bail!(
                "{words:?} at {index}: {}{}",
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(&output.stdout)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The CA (PEM).
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("n1").join("data").join("ca.pem")
    }

    /// Trusts it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn trust(&self) -> anyhow::Result<Trust> {
        Trust::from_file(&self.ca_file())
    }

    /// API at a node's own address.
    ///
    /// # Errors
    /// No such node.
    pub fn api(&self, index: usize) -> anyhow::Result<Api> {
        Api::new(SocketAddr::new(self.machine_at(index)?.address, self.ports.https), &self.ca_file(), &self.token)
    }

    /// API at the cluster address.
    ///
    /// # Errors
    /// The CA cannot be read.
    pub fn cluster_api(&self) -> anyhow::Result<Api> {
        Api::new(SocketAddr::new(self.net.cluster(), self.ports.https), &self.ca_file(), &self.token)
    }

    async fn await_status(&self, index: usize, what: &str, wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        let (api, begin) = (self.api(index)?, Instant::now());
        loop {
            let said = api.get("/api/v1/cluster").await.unwrap_or_default();
            if wanted(&said) {
                return Ok(());
            }
            if begin.elapsed() > LIMIT {
                bail!("never: {what}: {said}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn await_ready(&self, index: usize) -> anyhow::Result<()> {
        let (api, begin) = (self.api(index)?, Instant::now());
        while !api.is_ready().await {
            if begin.elapsed() > LIMIT {
                let log = self.machine_at(index)?.process.lock().await.log_end();
                bail!("node {} does not serve; its log ends:\n{log}", index + 1);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until all nodes say that all are in sync in one joint epoch; what they said.
    ///
    /// # Errors
    /// Not within `limit`.
    pub async fn await_joint(&self, limit: Duration) -> anyhow::Result<Vec<Status>> {
        let nodes = self.shape.data_nodes;
        let apis = (0..nodes).map(|index| self.api(index)).collect::<anyhow::Result<Vec<_>>>()?;
        let begin = Instant::now();
        loop {
            let said = futures_util::future::join_all(apis.iter().map(Api::status)).await;
            let good = |status: &anyhow::Result<Status>| {
                status.as_ref().is_ok_and(|s| s.is_joint(nodes) && s.mode == "joined")
            };
            let ready = futures_util::future::join_all(apis.iter().map(Api::is_ready)).await;
            if said.iter().all(good) && ready.iter().all(|ready| *ready) {
                let now: Vec<Status> = said.iter().flatten().cloned().collect();
                if now.windows(2).all(|pair| matches!(pair, [a, b] if a.epoch == b.epoch)) {
                    return Ok(now);
                }
            }
            if begin.elapsed() > limit {
                bail!("not in sync after {limit:?}: {said:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Who holds the cluster address, by what the nodes say.
    ///
    /// # Errors
    /// Nobody says so.
    pub async fn primary(&self) -> anyhow::Result<usize> {
        for index in 0..self.shape.data_nodes {
            if let Ok(status) = self.api(index)?.status().await
                && let Some(holder) = status.address_holder
            {
                return (holder as usize).checked_sub(1).context("node id 0");
            }
        }
        bail!("no node knows who holds the cluster address")
    }

    /// Ends all processes, keeps their logs in the folder, and takes disks and network down.
    pub async fn destroy(&self) {
        for machine in &self.machines {
            let process = machine.process.lock().await;
            process.pause(false);
            process.ask_to_end();
        }
        for (index, machine) in self.machines.iter().enumerate() {
            let mut process = machine.process.lock().await;
            process.await_end().await;
            // A node that never started has no log.
            let _ = std::fs::copy(process.log_file(), self.dir.join(format!("{}.log", node_name(index))));
            if let Some(disks) = &machine.disks {
                disks.destroy();
            }
        }
        self.net.destroy();
    }
}

/// Where Debian puts it.
pub const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
