//! The network: nodes, clients and a router in network namespaces, joined by bridges in one more, where frames are
//! dropped.
//!
//! ```text
//! n1 n2 n3 w   (lan: 10.80.0.0/24)   client, router r   (far: 10.81.0.0/24)   far client
//! n1 n2 n3 w   (private: 10.82.0.0/24)
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};

/// Last part of the addresses.
const CLUSTER: u8 = 10;
const FIRST_NODE: u8 = 11;
const CLIENT: u8 = 100;
const ROUTER: u8 = 1;
/// The far client is so far away.
const FAR: [u8; 3] = [10, 81, 0];
const LAN: [u8; 3] = [10, 80, 0];
const PRIVATE: [u8; 3] = [10, 82, 0];
/// The LAN in IPv6.
const LAN6: u16 = 0xfd80;

/// Runs a program to its end.
///
/// # Errors
/// It cannot be run or fails; what it said is in the message.
pub fn run(words: &str) -> anyhow::Result<String> {
    let mut parts = words.split_whitespace();
    let output = Command::new(parts.next().context("no program")?).args(parts).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{words}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What is done to frames on their way through a bridge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// None that come from this port of the bridge.
    From(String),
    /// None that go to it.
    To(String),
    /// None between these two.
    Between(String, String),
    /// So many of a thousand that come from it are lost.
    Lossy(String, u32),
}

impl Rule {
    fn text(&self) -> String {
        match self {
            Self::From(port) => format!("iifname \"{port}\" drop"),
            Self::To(port) => format!("oifname \"{port}\" drop"),
            Self::Between(a, b) => format!("iifname \"{a}\" oifname \"{b}\" drop"),
            Self::Lossy(port, per_mille) => format!("iifname \"{port}\" numgen random mod 1000 < {per_mille} drop"),
        }
    }
}

/// The namespaces of one lab.
pub struct Net {
    prefix: String,
    ipv6: bool,
    hosts: Vec<String>,
    rules: Mutex<BTreeMap<Rule, usize>>,
}

impl Net {
    /// Builds everything for `nodes` machines (data nodes and perhaps a witness).
    ///
    /// # Errors
    /// Not root, or the kernel lacks something; what is missing is named.
    pub fn build(nodes: usize, ipv6: bool) -> anyhow::Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("the lab makes network namespaces and needs root");
        }
        let prefix = format!("tpl{}-", std::process::id());
        let mut net = Self { prefix, ipv6, hosts: Vec::new(), rules: Mutex::default() };
        let made = net.make(nodes);
        if made.is_err() {
            net.destroy();
        }
        made.map(|()| net)
    }

    fn make(&mut self, nodes: usize) -> anyhow::Result<()> {
        let net = self;
        net.add_namespace("sw")?;
        for bridge in ["lan", "priv", "far"] {
            net.inside("sw", &format!("ip link add {bridge} type bridge forward_delay 0"))?;
            net.inside("sw", &format!("ip link set {bridge} up"))?;
        }
        for index in 0..nodes {
            let name = node_name(index);
            net.add_namespace(&name)?;
            net.plug(&name, "eth0", "lan", &[net.address(index)])?;
            net.plug(&name, "eth1", "priv", &[v4(PRIVATE, node_part(index))])?;
        }
        net.add_namespace("cl")?;
        net.plug("cl", "eth0", "lan", &[net.on_lan(CLIENT)])?;
        net.add_namespace("r")?;
        net.plug("r", "eth0", "lan", &[net.on_lan(ROUTER)])?;
        net.plug("r", "eth1", "far", &[v4(FAR, ROUTER), IpAddr::V6(Ipv6Addr::new(LAN6 + 1, 0, 0, 0, 0, 0, 0, 1))])?;
        net.add_namespace("far")?;
        net.plug(
            "far",
            "eth0",
            "far",
            &[v4(FAR, CLIENT), IpAddr::V6(Ipv6Addr::new(LAN6 + 1, 0, 0, 0, 0, 0, 0, 0x64))],
        )?;
        net.routes(nodes)?;
        net.switch(
            "add table bridge lab\nadd chain bridge lab f { type filter hook forward priority 0; policy accept; }\n",
        )
        .context("nftables in the bridge")
    }

    fn add_namespace(&mut self, name: &str) -> anyhow::Result<()> {
        run(&format!("ip netns add {}{name}", self.prefix))?;
        self.hosts.push(name.to_owned());
        self.inside(name, "ip link set lo up").map(drop)
    }

    /// A cable from a namespace to a bridge. The port is named after both.
    fn plug(&self, host: &str, interface: &str, bridge: &str, addresses: &[IpAddr]) -> anyhow::Result<()> {
        let (port, prefix) = (port_name(host, interface), &self.prefix);
        self.inside("sw", &format!("ip link add {port} type veth peer name {interface} netns {prefix}{host}"))?;
        self.inside("sw", &format!("ip link set {port} master {bridge} up"))?;
        for address in addresses {
            let (bits, nodad) = if address.is_ipv4() { (24, "") } else { (64, "nodad") };
            self.inside(host, &format!("ip address add {address}/{bits} dev {interface} {nodad}"))?;
        }
        self.inside(host, &format!("ip link set {interface} up")).map(drop)
    }

    fn routes(&self, nodes: usize) -> anyhow::Result<()> {
        for host in (0..nodes).map(node_name).chain(["cl".to_owned()]) {
            self.inside(&host, &format!("ip route add default via {}", self.on_lan(ROUTER)))?;
        }
        let far = if self.ipv6 { format!("fd81::{ROUTER}") } else { v4(FAR, ROUTER).to_string() };
        self.inside("far", &format!("ip route add default via {far}"))?;
        self.inside("r", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1").map(drop)
    }

    fn on_lan(&self, part: u8) -> IpAddr {
        if self.ipv6 { Ipv6Addr::new(LAN6, 0, 0, 0, 0, 0, 0, part.into()).into() } else { v4(LAN, part) }
    }

    /// The cluster address.
    #[must_use]
    pub fn cluster(&self) -> IpAddr {
        self.on_lan(CLUSTER)
    }

    /// Bits of its network.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        if self.ipv6 { 64 } else { 24 }
    }

    /// A node's own address.
    #[must_use]
    pub fn address(&self, index: usize) -> IpAddr {
        self.on_lan(node_part(index))
    }

    /// Its address on the private link.
    #[must_use]
    pub fn private(index: usize) -> IpAddr {
        v4(PRIVATE, node_part(index))
    }

    /// The router, as the nodes see it.
    #[must_use]
    pub fn router(&self) -> IpAddr {
        self.on_lan(ROUTER)
    }

    /// Name of a namespace for `ip netns`.
    #[must_use]
    pub fn namespace(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    /// Runs a program in a namespace.
    ///
    /// # Errors
    /// As [`run`].
    pub fn inside(&self, host: &str, words: &str) -> anyhow::Result<String> {
        run(&format!("ip netns exec {}{host} {words}", self.prefix))
    }

    /// Puts this thread, and all that it starts later, into a namespace.
    ///
    /// # Errors
    /// There is none.
    pub fn enter(&self, host: &str) -> anyhow::Result<()> {
        let file = std::fs::File::open(format!("/run/netns/{}{host}", self.prefix))?;
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).context("enter a namespace")
    }

    fn switch(&self, script: &str) -> anyhow::Result<()> {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.namespace("sw"), "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        std::io::Write::write_all(child.stdin.as_mut().context("no input")?, script.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("nft: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Adds rules, all at the same moment. Each counts how often it was added.
    ///
    /// # Errors
    /// They were not.
    pub fn add(&self, more: &[Rule]) -> anyhow::Result<()> {
        self.change(|rules| more.iter().for_each(|rule| *rules.entry(rule.clone()).or_default() += 1))
    }

    /// Removes rules again.
    ///
    /// # Errors
    /// They are still there.
    pub fn remove(&self, less: &[Rule]) -> anyhow::Result<()> {
        self.change(|rules| {
            for rule in less {
                match rules.get_mut(rule) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => drop(rules.remove(rule)),
                }
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Rule, usize>)) -> anyhow::Result<()> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut rules);
        let mut script = "flush chain bridge lab f\n".to_owned();
        for rule in rules.keys() {
            let _ = writeln!(script, "add rule bridge lab f {}", rule.text());
        }
        self.switch(&script)
    }
}

impl Net {
    /// Takes everything down; processes inside must have ended.
    pub fn destroy(&self) {
        for host in &self.hosts {
            let _ = run(&format!("ip netns delete {}{host}", self.prefix));
        }
    }
}

/// Name of a machine that runs a node.
#[must_use]
pub fn node_name(index: usize) -> String {
    format!("n{}", index + 1)
}

/// Port of a bridge.
#[must_use]
pub fn port_name(host: &str, interface: &str) -> String {
    format!("{host}-{interface}")
}

fn node_part(index: usize) -> u8 {
    FIRST_NODE.saturating_add(u8::try_from(index).unwrap_or(u8::MAX))
}

fn v4([a, b, c]: [u8; 3], d: u8) -> IpAddr {
    Ipv4Addr::new(a, b, c, d).into()
}
