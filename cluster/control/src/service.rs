//! Questions of other nodes to this one.

use bytes::Bytes;
use ports::Answer;
use ports::peers::PeerService;
use serde::Serialize;
use vocab::NodeId;

use crate::Control;
use crate::types::{AppendReply, Envelope, Message, ProposeReply, SnapshotReply, VoteReply};

fn encode<T: Serialize>(reply: &T) -> Result<Bytes, String> {
    serde_json::to_vec(reply).map(Bytes::from).map_err(|error| error.to_string())
}

impl PeerService for Control {
    fn serve(&self, from: NodeId, body: Bytes) -> Answer<'_, Result<Bytes, String>> {
        Box::pin(async move {
            let Envelope { lineage, message } =
                serde_json::from_slice(&body).map_err(|error| format!("unreadable question: {error}"))?;
            self.judge(from, lineage, &message).await?;
            let raft = self.raft();
            match message {
                Message::Append(rpc) => {
                    let reply: AppendReply = raft.append_entries(rpc).await;
                    if reply.is_ok() {
                        self.heard.note(from);
                    }
                    encode(&reply)
                }
                Message::Vote(rpc) => {
                    let reply: VoteReply = raft.vote(rpc).await;
                    encode(&reply)
                }
                Message::Snapshot(rpc) => {
                    let reply: SnapshotReply = raft.install_snapshot(rpc).await;
                    if reply.is_ok() {
                        self.heard.note(from);
                    }
                    encode(&reply)
                }
                Message::Propose(op) => {
                    let reply: ProposeReply = self.commit_here(op).await;
                    encode(&reply)
                }
                Message::AddVoter { node, peer_address } => {
                    let reply: ProposeReply = self.add_voter_here(node, peer_address).await;
                    encode(&reply)
                }
            }
        })
    }
}
