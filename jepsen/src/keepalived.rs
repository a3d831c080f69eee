//! The same measure for keepalived, as Debian ships it: two machines with an address moved by VRRP, a port that answers
//! on each, and the same faults. What is behind the address is no mail system: this is about the address alone.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;

use crate::monitor::Monitor;
use crate::nemesis::Chance;
use crate::net::{Net, Rule, node_name, port_name};
use crate::outage::Successes;
use crate::table::{Shot, render};

/// Port that answers.
const PORT: u16 = 2525;
/// Time between two connections, and how long one may take (DESIGN 10).
const EVERY: Duration = Duration::from_millis(20);
const ATTEMPT: Duration = Duration::from_millis(200);
/// How long a takeover and a return may take; clients that were not told keep the old hardware address for a while.
const SETTLE: Duration = Duration::from_secs(60);
/// It is over when the second machine has been without the address, and the port answered, for so long without a break of
/// [`BREAK`]; longer than the second machine waits for an advertisement.
const REST: Duration = Duration::from_secs(4);
const BREAK: Duration = Duration::from_millis(500);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Advertisements with Debian's defaults, and fast ones (s).
const DEFAULT_S: &str = "1";
const FAST_S: &str = "0.1";

/// Two machines with keepalived.
struct Pair {
    net: Arc<Net>,
    dir: std::path::PathBuf,
    /// keepalived and the answering port, by machine.
    children: Vec<[Child; 2]>,
    /// Of the second machine.
    monitor: Monitor,
}

impl Pair {
    fn configuration(&self, index: usize, interval: &str) -> String {
        let (state, priority) = if index == 0 { ("MASTER", 150) } else { ("BACKUP", 100) };
        format!(
            "global_defs {{\n  router_id n{index}\n  vrrp_garp_master_refresh 0\n}}\nvrrp_instance V {{\n  state {state}\n  interface eth0\n  \
             virtual_router_id 51\n  priority {priority}\n  advert_int {interval}\n  virtual_ipaddress {{\n    {}/{}\n  }}\n}}\n",
            self.net.cluster(),
            self.net.bits()
        )
    }

    fn start(&mut self, index: usize, interval: &str) -> anyhow::Result<[Child; 2]> {
        let file = self.dir.join(format!("keepalived{index}.conf"));
        std::fs::write(&file, self.configuration(index, interval))?;
        let inside = |words: &str| -> anyhow::Result<Child> {
            let namespace = self.net.namespace(&node_name(index));
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &namespace]).args(words.split(' '));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context(words.to_owned())
        };
        let pid = self.dir.join(format!("keepalived{index}.pid"));
        let vrrp = self.dir.join(format!("vrrp{index}.pid"));
        let keepalived =
            format!("keepalived -n -f {} -p {} -r {} --vrrp", file.display(), pid.display(), vrrp.display());
        let own = std::env::current_exe()?;
        Ok([inside(&keepalived)?, inside(&format!("{} --answer {PORT}", own.display()))?])
    }

    /// Waits until the first machine has had the address alone and answered for [`REST`]; [`SETTLE`] at most.
    async fn settle(&self, successes: &Successes) -> anyhow::Result<()> {
        let begin = Instant::now();
        let mut rests_since = begin;
        while begin.elapsed() < SETTLE && rests_since.elapsed() < REST {
            tokio::time::sleep(LOOK).await;
            let now = Instant::now();
            let (_, second_has_it) = self.monitor.gains()?;
            if second_has_it || now.checked_sub(BREAK).is_some_and(|then| successes.first_after(then).is_none()) {
                rests_since = now;
            }
        }
        Ok(())
    }

    /// keepalived's parent and its worker.
    fn pids(&self, index: usize) -> Vec<i32> {
        let files = [format!("keepalived{index}.pid"), format!("vrrp{index}.pid")];
        let read = |name: &String| std::fs::read_to_string(self.dir.join(name)).ok()?.trim().parse().ok();
        files.iter().filter_map(read).collect()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Answers every connection with one line, for ever; what stands in for the service.
///
/// # Errors
/// The port is taken.
pub async fn answer(port: u16) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let _ = stream.write_all(b"220 here\r\n").await;
        });
    }
}

async fn probe(at: SocketAddr, successes: Successes) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        let successes = successes.clone();
        tokio::spawn(async move {
            let attempt = async {
                let mut stream = tokio::net::TcpStream::connect(at).await?;
                let mut byte = [0; 1];
                tokio::io::AsyncReadExt::read_exact(&mut stream, &mut byte).await
            };
            if matches!(tokio::time::timeout(ATTEMPT, attempt).await, Ok(Ok(_))) {
                successes.note();
            }
        });
    }
}

/// Runs `times` of each fault with `default` or `fast` advertisements; says each at once and prints the table at the end.
///
/// # Errors
/// keepalived is not installed or does not work here.
pub async fn measure(net: Arc<Net>, dir: &std::path::Path, speed: &str, times: u32, seed: u64) -> anyhow::Result<()> {
    crate::net::run("keepalived --version").context("package keepalived")?;
    let interval = if speed == "fast" { FAST_S } else { DEFAULT_S };
    let monitor = Monitor::begin(&net, &node_name(1), dir)?;
    let mut pair = Pair { net: net.clone(), dir: dir.to_owned(), children: Vec::new(), monitor };
    for index in 0..2 {
        let started = pair.start(index, interval)?;
        pair.children.push(started);
    }
    let successes = Successes::default();
    let probes = tokio::spawn(probe(SocketAddr::new(net.cluster(), PORT), successes.clone()));
    pair.settle(&successes).await?;
    let (mut shots, mut chance, start) = (Vec::new(), Chance::new(seed), Instant::now());
    for name in ["pause-short", "kill", "cut", "pause-long"] {
        for _ in 0..times {
            let begin = Instant::now();
            let (before, _) = pair.monitor.gains()?;
            strike(&mut pair, name, interval, &mut chance).await?;
            let mended = Instant::now();
            pair.settle(&successes).await?;
            let outage = successes.longest(begin, Instant::now());
            let moves = pair.monitor.gains()?.0.len().saturating_sub(before.len());
            let shot = Shot::new(format!("{name} ({speed})"), name == "pause-short", false);
            let shot = Shot { smtp: outage, imap: outage, joint: mended.elapsed().saturating_sub(REST), moves, ..shot };
            eprintln!("{:>7.1} s  {}", begin.duration_since(start).as_secs_f64(), shot.line());
            shots.push(shot);
        }
    }
    probes.abort();
    println!("keepalived, advertisements every {interval} s, connections to one port:\n{}", render(&shots, &[]));
    Ok(())
}

async fn strike(pair: &mut Pair, name: &str, interval: &str, chance: &mut Chance) -> anyhow::Result<()> {
    match name {
        "kill" => {
            signal(&pair.pids(0), rustix::process::Signal::KILL);
            for child in pair.children.first_mut().into_iter().flatten() {
                let _ = child.kill();
                let _ = child.wait();
            }
            tokio::time::sleep(chance.between(4_000, 6_000)).await;
            let started = pair.start(0, interval)?;
            if let Some(place) = pair.children.first_mut() {
                *place = started;
            }
        }
        "cut" => {
            let port = port_name(&node_name(0), "eth0");
            let rules = [Rule::From(port.clone()), Rule::To(port)];
            pair.net.add(&rules)?;
            tokio::time::sleep(chance.between(4_000, 7_000)).await;
            pair.net.remove(&rules)?;
        }
        _ => {
            let hold = if name == "pause-short" { chance.between(100, 800) } else { chance.between(5_000, 9_000) };
            let pids = pair.pids(0);
            signal(&pids, rustix::process::Signal::STOP);
            tokio::time::sleep(hold).await;
            signal(&pids, rustix::process::Signal::CONT);
        }
    }
    Ok(())
}

fn signal(pids: &[i32], signal: rustix::process::Signal) {
    for pid in pids.iter().filter_map(|pid| rustix::process::Pid::from_raw(*pid)) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
