//! The cluster addresses of a running pair are changed: two machines and a client on one LAN, in network namespaces. Needs
//! root; without it the test says that it was skipped.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::ANSWER_LIMIT;
use node::config::Ports;
use node::demo::clients::api::Api;
use node::demo::clients::imap::ImapClient;
use node::demo::clients::smtp::{Sent, SmtpClient};
use node::demo::clients::stream::Trust;
use node::demo::node_process::NodeProcess;
use node::demo::pair::{JOINT_LIMIT, LOOK_INTERVAL, PairOptions};
use tokio::io::AsyncWriteExt as _;

const CLIENT: &str = "10.79.0.1";
const OWN: [&str; 2] = ["10.79.0.11", "10.79.0.12"];
const TO: &str = "u@demo.test";

/// Each machine has all ports of its own.
const PORTS: Ports = Ports::USUAL;

fn run(words: &str) -> String {
    let mut parts = words.split(' ');
    let output = Command::new(parts.next().expect("a program")).args(parts).output().expect("runs");
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect(address), port)
}

async fn awaited<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begin.elapsed() < JOINT_LIMIT, "never: {what}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// A machine: the process that holds its network, and what runs there.
struct Machine {
    holder: std::process::Child,
    process: NodeProcess,
    /// Runs `twinpost` there.
    wrapper: PathBuf,
}

impl Machine {
    /// On the LAN of this thread's namespace.
    fn build(options: &PairOptions, index: usize) -> anyhow::Result<Self> {
        let own = std::fs::read_link("/proc/thread-self/ns/net")?;
        let holder = Command::new("unshare").args(["-n", "sleep", "900"]).spawn()?;
        let (pid, begin) = (holder.id(), Instant::now());
        let theirs = format!("/proc/{pid}/ns/net");
        while std::fs::read_link(&theirs).is_ok_and(|link| link == own) {
            ensure!(begin.elapsed() < JOINT_LIMIT, "no namespace");
            std::thread::sleep(Duration::from_millis(5));
        }
        let (address, last) = (OWN[index], index + 11);
        run(&format!("ip link add n{index} type veth peer name eth0 netns {pid}"));
        run(&format!("ip link set n{index} master lan up"));
        let process = NodeProcess::new(options, index + 1, address.parse()?, &PORTS)?;
        let wrapper = options.dir.join(format!("machine{index}.sh"));
        let text = format!("#!/bin/sh\nexec nsenter --net={theirs} {} \"$@\"\n", options.binary.display());
        std::fs::write(&wrapper, text)?;
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
        let machine = Self { holder, process, wrapper };
        machine.there("ip link set lo up");
        machine.there(&format!("ip address add {address}/24 dev eth0"));
        machine.there(&format!("ip -6 address add fd79::{last}/64 dev eth0 nodad"));
        machine.there("ip link set eth0 up");
        Ok(machine)
    }

    fn there(&self, words: &str) -> String {
        run(&format!("nsenter --net=/proc/{}/ns/net {words}", self.holder.id()))
    }

    fn has(&self, address: &str) -> bool {
        self.there("ip address show dev eth0").contains(&format!(" {address}/"))
    }

    /// Runs a command there; what it printed, or what it refused with.
    async fn command(&self, words: &[&str], input: &str) -> Result<String, String> {
        let mut child = tokio::process::Command::new(&self.wrapper)
            .args(words)
            .arg("--config")
            .arg(self.process.config())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("runs");
        let mut pipe = child.stdin.take().expect("standard input");
        pipe.write_all(format!("{input}\n").as_bytes()).await.expect("read");
        drop(pipe);
        let output =
            tokio::time::timeout(JOINT_LIMIT, child.wait_with_output()).await.expect("in time").expect("ended");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(said) } else { Err(said) }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Both machines and the client.
struct Lan {
    machines: Vec<Machine>,
    token: String,
    /// Goes when the test ends.
    _folder: tempfile::TempDir,
}

impl Lan {
    /// A pair in sync with these cluster addresses and one account.
    async fn build(addresses: &[&str]) -> anyhow::Result<Self> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        run("ip link set lo up");
        run("ip link add lan type bridge forward_delay 0");
        run(&format!("ip address add {CLIENT}/24 dev lan"));
        run("ip -6 address add fd79::1/64 dev lan nodad");
        run("ip link set lan up");
        let folder = tempfile::tempdir()?;
        let more = "[cluster_address]\nprovider = \"netlink\"\ninterface = \"eth0\"\nprefix = [24, 64]\n\n\
                    [probe]\ntargets = [\"10.79.0.1\"]\n";
        let options = PairOptions { more: more.to_owned(), ..PairOptions::new(folder.path(), &e2e::binary(), 0) };
        let machines = vec![Machine::build(&options, 0)?, Machine::build(&options, 1)?];
        let mut lan = Self { machines, token: String::new(), _folder: folder };
        let mut init = vec!["cluster", "init", "--cluster-name", "lan"];
        addresses.iter().for_each(|address| init.extend(["--cluster-address", address]));
        lan.machines[0].command(&init, "").await.map_err(anyhow::Error::msg)?;
        let token = std::fs::read_to_string(lan.machines[0].process.data_dir().join("admin.token"))?;
        token.trim().clone_into(&mut lan.token);
        lan.start(0).await?;
        let (first, second) = (&lan.machines[0], &lan.machines[1]);
        awaited("node 1 serves", async || lan.api(0).is_ready().await.then_some(())).await;
        let token = first.command(&["cluster", "token"], "").await.map_err(anyhow::Error::msg)?;
        second.command(&["cluster", "join"], token.trim()).await.map_err(anyhow::Error::msg)?;
        lan.start(1).await?;
        lan.in_sync().await;
        lan.api(0).add_domain("demo.test").await?;
        lan.api(0).add_account(TO, "a-secret-of-u").await?;
        Ok(lan)
    }

    async fn start(&mut self, index: usize) -> anyhow::Result<()> {
        let machine = self.machines.get_mut(index).context("machine")?;
        machine.process.start(&machine.wrapper).await
    }

    fn ca(&self) -> PathBuf {
        self.machines[0].process.data_dir().join("ca.pem")
    }

    fn api(&self, index: usize) -> Api {
        Api::new(at(OWN[index], PORTS.https), &self.ca(), &self.token).expect("a client")
    }

    async fn in_sync(&self) {
        awaited("both nodes are in sync", async || {
            let first = self.api(0).status().await.ok()?;
            let second = self.api(1).status().await.ok()?;
            (first.is_joint(2) && second.is_joint(2)).then_some(())
        })
        .await;
    }

    /// Index of the machine that has this address, once exactly one has it.
    async fn holder(&self, address: &str) -> usize {
        awaited(&format!("one machine has {address}"), async || {
            match [self.machines[0].has(address), self.machines[1].has(address)] {
                [true, false] => Some(0),
                [false, true] => Some(1),
                _ => None,
            }
        })
        .await
    }

    /// Returns once this machine has the address and the other has not.
    async fn held_by(&self, index: usize, address: &str) {
        awaited(&format!("machine {index} alone has {address}"), async || {
            (self.machines[index].has(address) && !self.machines[1 - index].has(address)).then_some(())
        })
        .await;
    }

    async fn gone(&self, address: &str) {
        awaited(&format!("nobody has {address}"), async || {
            (!self.machines.iter().any(|machine| machine.has(address))).then_some(())
        })
        .await;
        let peer = at(address, PORTS.smtp);
        let connected = tokio::time::timeout(Duration::from_secs(1), tokio::net::TcpStream::connect(peer)).await;
        assert!(!matches!(connected, Ok(Ok(_))), "somebody answers on {address}");
    }

    /// Delivers a message there; the first answer in time counts.
    async fn mail(&self, address: &str, subject: &str) {
        let text = format!("From: a@example.org\r\nSubject: {subject}\r\n\r\n{subject}\r\n");
        awaited(&format!("mail is taken on {address}"), async || {
            let mut client = SmtpClient::connect(at(address, PORTS.smtp), Duration::from_secs(2)).await.ok()?;
            matches!(client.send("a@example.org", &[TO], text.as_bytes()).await, Sent::Accepted(_)).then_some(())
        })
        .await;
    }

    /// An IMAP session; the certificate must name the address.
    async fn imap(&self, address: &str) -> ImapClient {
        let trust = Trust::from_file(&self.ca()).expect("CA");
        awaited(&format!("IMAP on {address}"), async || {
            let mut client = ImapClient::connect_tls(at(address, PORTS.imaps), &trust, ANSWER_LIMIT).await.ok()?;
            client.login(TO, "a-secret-of-u").await.ok()?;
            Some(client)
        })
        .await
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.machines.iter().for_each(|machine| eprintln!("{}", machine.process.log_end()));
        }
    }
}

#[tokio::test]
async fn ha_19_the_addresses_of_a_running_pair_are_changed() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    let mut lan = Lan::build(&["10.79.0.10", "fd79::10"]).await.expect("a pair");
    change(&mut lan).await.expect("changed");
    for machine in &mut lan.machines {
        machine.process.ask_to_end();
        machine.process.await_end().await;
    }
}

async fn change(lan: &mut Lan) -> anyhow::Result<()> {
    refused_without_a_change(lan).await;
    let holder = lan.holder("10.79.0.10").await;
    lan.held_by(holder, "fd79::10").await;
    for address in ["10.79.0.10", "fd79::10"] {
        lan.mail(address, "before").await;
    }
    let mut old = lan.imap("10.79.0.10").await;
    let mut other = lan.imap("fd79::10").await;

    // Any node takes the order.
    let order = ["cluster", "address", "10.79.0.20/24", "fd79::10"];
    let said = lan.machines[1 - holder].command(&order, "").await.map_err(anyhow::Error::msg)?;
    ensure!(said.contains("10.79.0.20/24 and fd79::10 instead of 10.79.0.10 and fd79::10"), "{said}");
    lan.mail("10.79.0.20", "after").await;
    lan.held_by(holder, "10.79.0.20").await;
    lan.gone("10.79.0.10").await;
    ensure!(old.command("NOOP").await.is_err(), "a session on the old address ends");
    ensure!(other.command("NOOP").await?.ok().is_ok(), "one on the address that stays goes on");
    for machine in &lan.machines {
        let said = machine.command(&["cluster", "events"], "").await.map_err(anyhow::Error::msg)?;
        ensure!(said.contains("from 10.79.0.10 and fd79::10 to 10.79.0.20/24 and fd79::10"), "{said}");
        let said = machine.command(&["status"], "").await.map_err(anyhow::Error::msg)?;
        ensure!(said.contains(&format!("10.79.0.20/24 and fd79::10, held by node {}", holder + 1)), "{said}");
    }
    let events = lan.machines[holder].command(&["cluster", "events"], "").await.map_err(anyhow::Error::msg)?;
    let place = |text: &str| events.find(text).with_context(|| format!("{text}: {events}"));
    let (here, gone) = (place("10.79.0.20/24 is here")?, place("10.79.0.10 is not here any more: another address")?);
    ensure!(here < gone, "{events}");
    // Its certificate names the address.
    lan.imap("10.79.0.20").await;

    // The other node brings up the new addresses, and no old one.
    lan.machines[holder].process.kill().await?;
    lan.mail("10.79.0.20", "after a kill").await;
    lan.mail("fd79::10", "after a kill").await;
    lan.imap("10.79.0.20").await;
    lan.held_by(1 - holder, "10.79.0.20").await;
    lan.gone("10.79.0.10").await;
    change_while_one_is_away(lan, holder).await
}

/// What cannot be is refused with its place, and a dry run changes nothing.
async fn refused_without_a_change(lan: &Lan) {
    let node = &lan.machines[0];
    for (wanted, reason) in [
        (CLIENT, "in use by a machine that is no node"),
        (OWN[1], "own address of node 2"),
        ("10.79.0.20/25", "24 bits on eth0, not 25"),
        ("192.0.2.20", "in no network on eth0"),
        ("fd79::1", "in use by a machine that is no node"),
    ] {
        let said = node.command(&["cluster", "address", wanted], "").await.expect_err(wanted);
        assert!(said.contains("addresses/0") && said.contains(reason), "{wanted}: {said}");
    }
    let dry = ["cluster", "address", "--dry-run", "10.79.0.20/24"];
    let said = node.command(&dry, "").await.expect("looked at");
    for part in ["10.79.0.20/24 instead of 10.79.0.10 and fd79::10", "demo.test: A ", "PTR", "nothing was changed"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let shown = node.command(&["cluster", "address"], "").await.expect("shown");
    assert!(shown.contains("10.79.0.10 and fd79::10"), "{shown}");
}

/// A node that was away never brings up what was changed meanwhile.
async fn change_while_one_is_away(lan: &mut Lan, away: usize) -> anyhow::Result<()> {
    let stays = &lan.machines[1 - away];
    stays.command(&["cluster", "rescue", "--confirm", "lan"], "").await.map_err(anyhow::Error::msg)?;
    let order = ["cluster", "address", "10.79.0.30/24"];
    awaited("settings can be changed", async || stays.command(&order, "").await.ok()).await;
    lan.mail("10.79.0.30", "after a rescue").await;
    for address in ["10.79.0.20", "fd79::10"] {
        lan.gone(address).await;
    }
    lan.start(away).await?;
    let returned = &lan.machines[away];
    awaited("both nodes are in sync", async || {
        assert!(!returned.has("10.79.0.20") && !returned.has("fd79::10"), "the old address is back");
        // The one that stayed knows; the other begins with what it knew before.
        lan.api(1 - away).status().await.ok()?.is_joint(2).then_some(())
    })
    .await;
    let to = (away + 1).to_string();
    awaited("a switchover", async || returned.command(&["cluster", "switchover", &to], "").await.ok()).await;
    lan.mail("10.79.0.30", "after the return").await;
    lan.held_by(away, "10.79.0.30").await;
    lan.gone("10.79.0.20").await;
    Ok(())
}
