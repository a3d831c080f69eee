//! Free ports that are the same on all three addresses.

use std::net::{IpAddr, TcpListener};

use anyhow::bail;

use super::pair::{CLUSTER_ADDRESS, NODE_ADDRESSES};
use crate::config::Ports;

/// Below the range from which Linux takes the local ports of outgoing connections, so that none steals ours.
const FIRST: u16 = 20_000;
/// End of the range.
const LAST: u16 = 32_000;
/// How many starting points are tried.
const TRIES: usize = 200;
/// Ports of a node.
const COUNT: u16 = 9;

/// Finds ports that are free on the cluster address and on both nodes.
///
/// # Errors
/// None found; the machine's loopback addresses do not work or everything is taken.
pub fn find_free() -> anyhow::Result<Ports> {
    for _ in 0..TRIES {
        let base = rand::random_range(FIRST..LAST - COUNT);
        if (base..base + COUNT).all(is_free) {
            return Ok(Ports {
                smtp: base,
                submission: base + 1,
                submissions: base + 2,
                imap: base + 3,
                imaps: base + 4,
                pop3: base + 5,
                pop3s: base + 6,
                https: base + 7,
                peer: base + 8,
            });
        }
    }
    bail!("no free ports on {CLUSTER_ADDRESS} and {NODE_ADDRESSES:?}")
}

fn is_free(port: u16) -> bool {
    let free = |address: IpAddr| TcpListener::bind((address, port)).is_ok();
    free(CLUSTER_ADDRESS) && NODE_ADDRESSES.into_iter().all(free)
}
