//! Two machines on one cable, in network namespaces.

use std::process::Command;
use std::time::{Duration, Instant};

/// How long anything may take that the kernel does by itself.
const LIMIT: Duration = Duration::from_secs(20);

pub fn run(words: &str) -> String {
    let mut parts = words.split(' ');
    let output = Command::new(parts.next().expect("a program")).args(parts).output().expect("runs");
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Puts this thread, and so everything it starts, into a namespace with a pair of joined interfaces, `here` and
/// `there`; the latter in a namespace of its own, held by a process that ends with the returned value.
pub struct House(std::process::Child);

impl House {
    pub fn build() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: network namespaces need root");
            return None;
        }
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a namespace");
        let child = Command::new("unshare").args(["-n", "sleep", "600"]).spawn().expect("unshare");
        let house = Self(child);
        let own = std::fs::read_link("/proc/thread-self/ns/net").expect("own namespace");
        let theirs = format!("/proc/{}/ns/net", house.0.id());
        let begin = Instant::now();
        while std::fs::read_link(&theirs).is_ok_and(|link| link == own) {
            assert!(begin.elapsed() < LIMIT, "no second namespace");
            std::thread::sleep(Duration::from_millis(5));
        }
        run(&format!("ip link add here type veth peer name there netns {}", house.0.id()));
        run("ip address add 10.77.0.1/24 dev here");
        run("ip -6 address add fd77::1/64 dev here nodad");
        run("ip link set here up");
        house.there("ip address add 10.77.0.2/24 dev there");
        house.there("ip -6 address add fd77::2/64 dev there nodad");
        house.there("ip link set there up");
        Some(house)
    }

    /// Runs something on the other side.
    pub fn there(&self, words: &str) -> String {
        run(&format!("nsenter --net=/proc/{}/ns/net {words}", self.0.id()))
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub async fn awaited(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LIMIT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
