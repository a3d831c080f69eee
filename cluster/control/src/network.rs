//! Raft's messages over the calls of `ports::peers`. Addresses are the transport's business.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::BasicNode;
use openraft::error::{InstallSnapshotError, RPCError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use ports::peers::{CallError, Peers, Service};
use serde::de::DeserializeOwned;
use vocab::NodeId;

use crate::life::Lineage;
use crate::types::{Envelope, Message, RaftError, RaftId, TypeConfig};

/// Wait before an unreachable peer is tried again; short, so that its return is noticed within a heartbeat.
const RETRY: Duration = Duration::from_millis(50);

/// One question to a peer, encoded and decoded.
pub(crate) async fn ask<T: DeserializeOwned>(
    peers: &dyn Peers,
    to: NodeId,
    lineage: &Lineage,
    message: &Message,
) -> Result<T, CallError> {
    let envelope = Envelope { lineage: lineage.clone(), message };
    let body = serde_json::to_vec(&envelope).map_err(|error| CallError::NotSent(error.to_string()))?;
    let reply = peers.call(to, Service::Control, Bytes::from(body)).await?;
    serde_json::from_slice(&reply).map_err(|error| CallError::Lost(format!("unreadable answer: {error}")))
}

/// Makes clients.
pub(crate) struct Network {
    peers: Arc<dyn Peers>,
    lineage: Lineage,
}

impl Network {
    pub(crate) fn new(peers: Arc<dyn Peers>, lineage: Lineage) -> Self {
        Self { peers, lineage }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: RaftId, _node: &BasicNode) -> Client {
        Client { peers: Arc::clone(&self.peers), lineage: self.lineage.clone(), target }
    }
}

/// Asks one peer.
pub(crate) struct Client {
    peers: Arc<dyn Peers>,
    lineage: Lineage,
    target: RaftId,
}

type Failure<E = openraft::error::Infallible> = RPCError<RaftId, BasicNode, RaftError<E>>;

impl Client {
    async fn ask<T, E>(&self, message: Message) -> Result<T, Failure<E>>
    where
        T: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        // Raft's ids are made from node ids, so this never cuts.
        let to = NodeId(u32::try_from(self.target).unwrap_or(0));
        match ask::<Result<T, RaftError<E>>>(&*self.peers, to, &self.lineage, &message).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(RPCError::RemoteError(RemoteError::new(self.target, error))),
            Err(error) => Err(RPCError::Unreachable(Unreachable::new(&error))),
        }
    }
}

impl RaftNetwork<TypeConfig> for Client {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<RaftId>, Failure> {
        self.ask(Message::Append(rpc)).await
    }
    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<RaftId>, Failure<InstallSnapshotError>> {
        self.ask(Message::Snapshot(rpc)).await
    }
    async fn vote(&mut self, rpc: VoteRequest<RaftId>, _option: RPCOption) -> Result<VoteResponse<RaftId>, Failure> {
        self.ask(Message::Vote(rpc)).await
    }
    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY))
    }
}
