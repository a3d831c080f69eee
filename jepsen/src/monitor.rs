//! What a machine's kernel says of its addresses, change by change: nothing is sampled, so nothing is missed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use crate::net::Net;

/// Writes down every change of a machine's addresses until it is dropped.
pub struct Monitor {
    child: Child,
    file: PathBuf,
    address: IpAddr,
}

impl Monitor {
    /// Begins to write into `dir`; the cluster address is what is asked for later.
    ///
    /// # Errors
    /// No `ip`, or the file cannot be made.
    pub fn begin(net: &Net, host: &str, dir: &Path) -> anyhow::Result<Self> {
        let file = dir.join(format!("{host}.addresses"));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &net.namespace(host), "ip", "-o", "-ts", "monitor", "address"]);
        command.stdin(Stdio::null()).stdout(std::fs::File::create(&file)?).stderr(Stdio::null());
        Ok(Self { child: command.spawn().context("ip monitor")?, file, address: net.cluster() })
    }

    /// When the machine got the address, and whether it has it now. The times are text that sorts.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn gains(&self) -> anyhow::Result<(Vec<String>, bool)> {
        Ok(gains(&std::fs::read_to_string(&self.file)?, self.address))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // It may have ended with its namespace.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A lease that is renewed is told like an address that comes, so only one that was not there is a gain.
fn gains(text: &str, address: IpAddr) -> (Vec<String>, bool) {
    let (mut gains, mut there) = (Vec::new(), false);
    let address = format!(" {address}/");
    for line in text.lines().filter(|line| line.contains(&address)) {
        let (at, what) = line.split_once(' ').unwrap_or(("", line));
        let comes = !what.starts_with("Deleted");
        if comes && !there {
            gains.push(at.to_owned());
        }
        there = comes;
    }
    (gains, there)
}

/// How often the address came to another machine than the one that got it last; `gains` by machine.
#[must_use]
pub fn moves(gains: &[Vec<String>]) -> usize {
    let by_machine = gains.iter().enumerate();
    let mut all: Vec<(&String, usize)> =
        by_machine.flat_map(|(index, times)| times.iter().map(move |at| (at, index))).collect();
    all.sort_unstable();
    all.windows(2).filter(|pair| matches!(pair, [(_, a), (_, b)] if a != b)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_renewed_is_no_gain_and_what_expires_is_gone() {
        let text = "[2026-01-01T00:00:01.000001] 2: eth0    inet 10.80.0.11/24 scope global eth0\\ valid_lft forever\n\
                    [2026-01-01T00:00:02.000001] 2: eth0    inet 10.80.0.10/24 scope global dynamic eth0\\ valid_lft 2sec\n\
                    [2026-01-01T00:00:02.200001] 2: eth0    inet 10.80.0.10/24 scope global dynamic eth0\\ valid_lft 2sec\n\
                    [2026-01-01T00:00:04.200001] Deleted 2: eth0    inet 10.80.0.10/24 scope global dynamic eth0\\ valid_lft 0sec\n";
        let address = "10.80.0.10".parse().expect("address");
        let (first, there) = gains(text, address);
        assert_eq!((first.as_slice(), there), (["[2026-01-01T00:00:02.000001]".to_owned()].as_slice(), false));
        let again = format!("{text}[2026-01-01T00:00:05.000001] 2: eth0    inet 10.80.0.10/24 scope global eth0\n");
        let (both, there) = gains(&again, address);
        assert_eq!((both.len(), there), (2, true));
    }

    #[test]
    fn the_address_moves_when_another_machine_gets_it() {
        let at = |times: &[&str]| times.iter().map(|at| (*at).to_owned()).collect::<Vec<_>>();
        assert_eq!(moves(&[at(&["1"]), at(&[])]), 0, "the first holder");
        assert_eq!(moves(&[at(&["1", "2"]), at(&[])]), 0, "lost and taken again");
        assert_eq!(moves(&[at(&["1", "3"]), at(&["2"])]), 2, "there and back between two looks");
    }
}
