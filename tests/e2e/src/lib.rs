//! Real processes, real kills: what the tests in `tests/` share.
//!
//! The binary is `TWINPOST_BIN`, or the one cargo builds beside these tests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use node::demo::clients::smtp::{Sent, SmtpClient};
use node::demo::pair::{Pair, PairOptions};
use testkit::cut_proxy::CutProxy;

pub mod load;
pub mod previous;
pub mod watch;

/// How long a client waits for any answer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(25);

/// A pair in a folder that goes when the test ends.
pub struct Fixture {
    /// The pair.
    pub pair: Pair,
    /// Its folder; dropped after the pair.
    pub folder: tempfile::TempDir,
}

/// The binary under test, built once per run.
///
/// # Panics
/// It cannot be built.
pub fn binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY
        .get_or_init(|| {
            if let Some(path) = std::env::var_os("TWINPOST_BIN") {
                return PathBuf::from(path);
            }
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let built = Command::new(cargo).args(["build", "--quiet", "-p", "node", "--bin", "twinpost"]).status();
            assert!(built.is_ok_and(|status| status.success()), "the twinpost binary does not build");
            // This test lies in target/PROFILE/deps.
            let test = std::env::current_exe().unwrap_or_default();
            test.ancestors().nth(2).map(|folder| folder.join("twinpost")).unwrap_or_default()
        })
        .clone()
}

fn options(folder: &tempfile::TempDir, accounts: usize) -> PairOptions {
    PairOptions::new(folder.path(), &binary(), accounts)
}

/// One node with `accounts` accounts.
///
/// # Errors
/// It does not start.
pub async fn single(accounts: usize) -> anyhow::Result<Fixture> {
    let folder = tempfile::tempdir()?;
    let pair = Pair::start_single(options(&folder, accounts)).await?;
    pair.create_accounts().await?;
    Ok(Fixture { pair, folder })
}

/// A pair whose nodes reach each other through cables that can be cut.
pub struct Cabled {
    /// The pair.
    pub pair: Pair,
    /// By which the others reach each node.
    pub cables: Vec<CutProxy>,
    /// Its folder; dropped after the pair.
    pub folder: tempfile::TempDir,
}

/// As [`pair`], with a cable to each node. Clients reach both nodes without them.
///
/// # Errors
/// They do not start.
pub async fn cabled(accounts: usize) -> anyhow::Result<Cabled> {
    let folder = tempfile::tempdir()?;
    let mut options = options(&folder, accounts);
    let mut cables = Vec::new();
    for keys in &mut options.keys {
        let cable = CutProxy::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        *keys = format!("peer_advertise = [\"{}\"]\n", cable.address());
        cables.push(cable);
    }
    // The mail ports are on no cable: what is cut must look cut.
    options.more.push_str("[probe]\npeer = false\n");
    let mut pair = Pair::start_single(options).await?;
    for (node, cable) in pair.nodes.iter().zip(&cables) {
        cable.lead_to(SocketAddr::new(node.address, pair.ports.peer));
    }
    pair.join_second().await?;
    pair.create_accounts().await?;
    Ok(Cabled { pair, cables, folder })
}

impl Cabled {
    /// Cuts or mends every cable: the nodes hear nothing of each other, and clients go on with both.
    pub fn cut(&self, cut: bool) {
        self.cables.iter().for_each(|cable| cable.cut(cut));
    }
}

/// Two nodes in sync with `accounts` accounts.
///
/// # Errors
/// They do not start.
pub async fn pair(accounts: usize) -> anyhow::Result<Fixture> {
    let folder = tempfile::tempdir()?;
    let pair = Pair::start(options(&folder, accounts)).await?;
    Ok(Fixture { pair, folder })
}

/// Lines of a node's log, for the end of a test that failed.
#[must_use]
pub fn logs(pair: &Pair) -> String {
    pair.nodes.iter().map(|node| format!("--- {}\n{}\n", node.name, node.log_end())).collect()
}

/// Delivers a small message to the account of this number, by the node itself.
///
/// # Errors
/// The node is not reached or does not accept it.
pub async fn mail(pair: &Pair, node: usize, account: usize, subject: &str) -> anyhow::Result<()> {
    let to = &pair.options.accounts.get(account).context("account")?.address;
    let peer = SocketAddr::new(pair.node(node)?.address, pair.ports.smtp);
    let mut client = SmtpClient::connect(peer, ANSWER_LIMIT).await?;
    let text = format!("From: a@example.org\r\nSubject: {subject}\r\n\r\n{subject}\r\n");
    match client.send("a@example.org", &[to], text.as_bytes()).await {
        Sent::Accepted(_) => Ok(()),
        other => anyhow::bail!("{subject}: {other:?}"),
    }
}

/// Copies a folder with all that is in it.
///
/// # Panics
/// Something cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("folder") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("kind").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}
