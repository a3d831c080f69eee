//! `twinpost serve` on a witness: a node that votes on settings and on who goes on, and knows nothing else. It opens no
//! mail store and no port for clients; it listens for other nodes only.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use control::Control;
use ports::Answer;
use ports::config::{Config as _, QuorumStatus};
use ports::peers::{LinkUp, PeerEvents, Service};
use transport::{ExamineReply, ExamineRequest, Handlers, JoinHandler, JoinReply, JoinRequest};
use vocab::{Boot, NodeId};

use crate::certificates::{self, Keeper};
use crate::config::NodeConfig;
use crate::files::{self, DataDir, Identity};
use crate::notify::{Notifier, Pulse};
use crate::servers::Answers;
use crate::{init, serve};

/// Runs a witness until it is told to stop.
///
/// # Errors
/// Anything that keeps it from starting, in words for the operator.
pub(crate) async fn serve(
    config: &NodeConfig,
    data: &DataDir,
    identity: &Identity,
    notifier: &Notifier,
) -> anyhow::Result<ExitCode> {
    let node = NodeId(identity.node);
    let boot = raise_boot(&data.boot())?;
    tracing::info!(node = node.0, boot = boot.0, name = config.name, "starting as a witness");
    let (transport, members) = serve::open_transport(config, data, identity, boot)?;
    let control = Control::open(&data.raft(), node, transport.clone()).await.context("open the configuration")?;
    let votes = Arc::clone(&control);
    let reporter = serve::reporter(config, (node, boot, data.raft()), &control, &transport);
    let certificates = Keeper::new((config, data), (node, false), (&control, &transport), None);
    let bound = transport
        .start(Handlers {
            events: Arc::new(Deaf),
            services: vec![
                (Service::Control, control.clone()),
                (Service::Report, Arc::new(Answers(reporter))),
                (Service::Certificates, Arc::new(certificates::Answers(Arc::clone(&certificates)))),
            ],
            join: Arc::new(Closed),
            on_guard_word: Arc::new(move |peer, _| votes.process_ended(peer)),
        })
        .await?;
    tracing::info!(?bound, "listening for other nodes");
    tokio::spawn(serve::follow_members(control.clone(), members, data.clone(), node, boot));
    tokio::spawn(serve::follow_voters(control.clone(), node));
    tokio::spawn(serve::follow_own_address(control.clone(), init::member(config, node, false)));
    tokio::spawn(report_quorum(control.clone()));
    tokio::spawn(certificates.run());
    crate::discover::announce(config, identity, &control);
    serve::write_pid(data)?;
    let quorum = control.quorum();
    // It has no engine and no mail whose disk could hang; that this is asked at all is its pulse.
    notifier.ready(move || (Pulse::default(), line(node, &quorum.borrow())));
    serve::await_end(&control, node, data, identity.clone()).await?;
    notifier.stopping();
    transport.stop();
    control.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// How a witness does, in one line.
fn line(node: NodeId, now: &QuorumStatus) -> String {
    let vote = if now.voters.contains(&node) { "votes" } else { "has no vote yet" };
    let quorum = if now.quorum { "quorum" } else { "no quorum" };
    format!("witness, {vote}, {quorum}")
}

/// Raises the boot counter durably; before anything is said to a peer.
fn raise_boot(path: &Path) -> anyhow::Result<Boot> {
    let last: u32 = match path.exists() {
        false => 0,
        true => files::read_text(path)?.trim().parse().with_context(|| format!("understand {}", path.display()))?,
    };
    let next = last.checked_add(1).context("the boot counter is at its end")?;
    files::write_private(path, format!("{next}\n").as_bytes())?;
    Ok(Boot(next))
}

/// Who looks at a witness reads its log: whether its vote counts now.
async fn report_quorum(control: Arc<Control>) {
    let mut quorum = control.quorum();
    loop {
        let now = quorum.borrow_and_update().clone();
        let leader = now.leader.map(|leader| leader.0);
        tracing::info!(quorum = now.quorum, leader, voters = ?now.voters, "state of the vote");
        if quorum.changed().await.is_err() {
            return;
        }
    }
}

/// Hears of links and takes nothing from them: nodes with mail put nothing on a link to a witness.
struct Deaf;

impl PeerEvents for Deaf {
    fn link_up(&self, up: LinkUp) {
        tracing::info!(peer = up.peer.0, boot = up.boot.0, link = up.link, "link up");
    }
    fn link_down(&self, peer: NodeId, link: u64, reset: bool) {
        tracing::info!(peer = peer.0, link, reset, "link down");
    }
    fn frame(&self, _: NodeId, _: u64, _: Bytes) {}
}

/// Admits nobody: it has no CA to sign with.
struct Closed;

/// What it says instead.
const ASK_ANOTHER: &str = "this is a witness; ask a node that stores mail";

impl JoinHandler for Closed {
    fn join(&self, _: JoinRequest) -> Answer<'_, Result<JoinReply, String>> {
        Box::pin(async { Err(ASK_ANOTHER.to_owned()) })
    }
    fn examine(&self, _: ExamineRequest) -> Answer<'_, Result<ExamineReply, String>> {
        Box::pin(async { Err(ASK_ANOTHER.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_of_a_witness_rises_and_is_never_guessed() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("boot");
        assert_eq!(raise_boot(&path).expect("first"), Boot(1));
        assert_eq!(raise_boot(&path).expect("second"), Boot(2));
        std::fs::write(&path, "x").expect("written");
        assert!(raise_boot(&path).is_err(), "a damaged counter is no reason to begin anew");
    }
}
