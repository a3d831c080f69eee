//! Free ports that are the same on all three addresses.

use std::net::{IpAddr, TcpListener};

use anyhow::bail;
use serde::{Deserialize, Serialize};

use super::pair::{CLUSTER_ADDRESS, NODE_ADDRESSES};

/// Below the range from which Linux takes the local ports of outgoing connections, so that none steals ours.
const FIRST: u16 = 20_000;
/// End of the range.
const LAST: u16 = 32_000;
/// How many starting points are tried.
const TRIES: usize = 200;
/// Ports of a node.
const COUNT: u16 = 9;

/// Ports of the services, and the one between the nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairPorts {
    /// Mail from strangers.
    pub smtp: u16,
    /// Submission with STARTTLS.
    pub submission: u16,
    /// Submission with implicit TLS.
    pub submissions: u16,
    /// IMAP with STARTTLS.
    pub imap: u16,
    /// IMAP with implicit TLS.
    pub imaps: u16,
    /// POP3 with STLS.
    pub pop3: u16,
    /// POP3 with implicit TLS.
    pub pop3s: u16,
    /// API.
    pub https: u16,
    /// Between the nodes; not for clients.
    #[serde(skip)]
    pub peer: u16,
}

impl PairPorts {
    /// The usual ones, where each machine has all ports of its own.
    pub const USUAL: Self = Self {
        smtp: 25,
        submission: 587,
        submissions: 465,
        imap: 143,
        imaps: 993,
        pop3: 110,
        pop3s: 995,
        https: 443,
        peer: 6420,
    };

    /// The ports clients use.
    #[must_use]
    pub fn services(&self) -> [u16; 8] {
        [self.smtp, self.submission, self.submissions, self.imap, self.imaps, self.pop3, self.pop3s, self.https]
    }

    /// As the `[ports]` table of a node file.
    #[must_use]
    pub fn as_toml(&self) -> String {
        format!(
            "[ports]\nsmtp = {}\nsubmission = {}\nsubmissions = {}\nimap = {}\nimaps = {}\npop3 = {}\npop3s = {}\n\
             https = {}\npeer = {}\n",
            self.smtp,
            self.submission,
            self.submissions,
            self.imap,
            self.imaps,
            self.pop3,
            self.pop3s,
            self.https,
            self.peer
        )
    }
}

/// Finds ports that are free on the cluster address and on both nodes.
///
/// # Errors
/// None found; the machine's loopback addresses do not work or everything is taken.
pub fn find_free() -> anyhow::Result<PairPorts> {
    for _ in 0..TRIES {
        let base = rand::random_range(FIRST..LAST - COUNT);
        if (base..base + COUNT).all(is_free) {
            return Ok(PairPorts {
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
