//! Calls to other nodes: single questions, joining, the guard's word.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use ports::peers::{CallError, Service};
use tokio::time::error::Elapsed;
use tonic::transport::{Channel, ClientTlsConfig};
use tonic::{Code, Response, Status};
use vocab::{Boot, NodeId};

use crate::TlsPems;
use crate::ca::{self, JOIN_NAME};
use crate::dial::{self, describe, dial};
use crate::handshake::range;
use crate::paths;
use crate::peer_table::{PAYLOAD_BYTES_MAX, PeerTable};
use crate::proto::admission_client::AdmissionClient;
use crate::proto::peer_client::PeerClient;
use crate::proto::{CallRequest, ExamineReply, ExamineRequest, GuardWordRequest, JoinReply, JoinRequest, call_reply};

/// How long a call waits for its answer.
const CALL_WAIT: Duration = Duration::from_secs(20);
/// How long a joiner waits: admission is a change of the configuration.
const JOIN_WAIT: Duration = Duration::from_secs(60);
/// How long a guard tries; later its word is worth nothing.
const GUARD_WAIT: Duration = Duration::from_secs(1);

/// Number of a service on the wire.
pub(crate) const fn service_number(service: Service) -> u32 {
    match service {
        Service::Control => 1,
        Service::Shards => 2,
        Service::Watch => 3,
        Service::Log => 4,
        Service::Report => 5,
        Service::Certificates => 6,
    }
}

/// The cached channel, or a new one. Dialling goes on when the caller gives up, so that callers with short patience
/// (Raft heartbeats) still get a channel in the end.
async fn channel(table: &Arc<PeerTable>, to: NodeId) -> Result<Channel, CallError> {
    let slot = table.slot(to);
    if let Some(channel) = slot.channel() {
        return Ok(channel);
    }
    let table = Arc::clone(table);
    let dialling = tokio::spawn(async move {
        let _turn = slot.dialling.lock().await;
        if let Some(channel) = slot.channel() {
            return Ok(channel);
        }
        let channel = paths::dial_any(&table, to).await?;
        slot.set_channel(Some(channel.clone()));
        Ok(channel)
    });
    match dialling.await {
        Ok(result) => result.map_err(CallError::NotSent),
        Err(_) => Err(CallError::NotSent("this node is stopping".to_owned())),
    }
}

/// One question, one answer.
pub(crate) async fn call(
    table: &Arc<PeerTable>,
    to: NodeId,
    service: Service,
    body: Bytes,
) -> Result<Bytes, CallError> {
    if body.len() > PAYLOAD_BYTES_MAX {
        return Err(CallError::NotSent(format!("{} bytes are above the limit of a call", body.len())));
    }
    let mut again = true;
    loop {
        let channel = channel(table, to).await?;
        let mut client = PeerClient::new(channel)
            .max_decoding_message_size(2 * PAYLOAD_BYTES_MAX)
            .max_encoding_message_size(2 * PAYLOAD_BYTES_MAX);
        let protocol = Some(range(table.config.versions.protocol));
        let request = CallRequest { service: service_number(service), body: body.clone(), protocol };
        match tokio::time::timeout(CALL_WAIT, client.call(request)).await {
            Ok(Ok(reply)) => {
                return match reply.into_inner().answer {
                    Some(call_reply::Answer::Body(body)) => Ok(body),
                    Some(call_reply::Answer::Refused(reason)) => Err(CallError::Refused(reason)),
                    None => Err(CallError::Lost("empty answer".to_owned())),
                };
            }
            // Nothing was done. The connection may be older than the certificate this node has now.
            Ok(Err(status)) if status.code() == Code::Unauthenticated => {
                table.slot(to).set_channel(None);
                if !std::mem::take(&mut again) {
                    return Err(CallError::Refused(status.message().to_owned()));
                }
            }
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                return Err(CallError::Refused(status.message().to_owned()));
            }
            Ok(Err(status)) => {
                table.slot(to).set_channel(None);
                return Err(CallError::Lost(describe(&status)));
            }
            Err(_) => {
                table.slot(to).set_channel(None);
                return Err(CallError::Lost(format!("no answer within {} s", CALL_WAIT.as_secs())));
            }
        }
    }
}

/// Asks the node at `address` for admission. The server is trusted only if its CA has the hash from the join token
/// (see [`ca::ca_hash`]); before that nothing of the request is sent.
///
/// # Errors
/// The reason for the operator; after "no answer" the token may be used up.
pub async fn join_call(address: &str, ca_hash: &str, request: JoinRequest) -> Result<JoinReply, String> {
    let channel = pinned_channel(address, ca_hash).await?;
    let answered = tokio::time::timeout(JOIN_WAIT, AdmissionClient::new(channel).join(request)).await;
    admission_answer(answered)
}

/// As [`join_call`], for what a joiner judges before; the token stays unused. Gives the answer, and the wall clock of this
/// machine around the question (Unix ms): right before it went and right after it was answered.
///
/// # Errors
/// The reason for the operator.
pub async fn examine_call(
    address: &str,
    ca_hash: &str,
    request: ExamineRequest,
    wall_ms: fn() -> u64,
) -> Result<(ExamineReply, (u64, u64)), String> {
    let channel = pinned_channel(address, ca_hash).await?;
    let asked = wall_ms();
    let answered = tokio::time::timeout(JOIN_WAIT, AdmissionClient::new(channel).examine(request)).await;
    let heard = wall_ms();
    Ok((admission_answer(answered)?, (asked, heard)))
}

async fn pinned_channel(address: &str, ca_hash: &str) -> Result<Channel, String> {
    let tls = ClientTlsConfig::new().domain_name(JOIN_NAME);
    let endpoint = dial::endpoint(address)?
        .tls_config_with_verifier(tls, ca::pinned_verifier(ca_hash))
        .map_err(|error| describe(&error))?;
    let connected = tokio::time::timeout(dial::DIAL_WAIT, endpoint.connect()).await;
    connected.map_err(|_| format!("{address} does not answer"))?.map_err(|error| describe(&error))
}

fn admission_answer<T>(answered: Result<Result<Response<T>, Status>, Elapsed>) -> Result<T, String> {
    match answered {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) if status.code() == Code::PermissionDenied => Err(status.message().to_owned()),
        Ok(Err(status)) => Err(format!("no answer: {}", describe(&status))),
        Err(_) => Err(format!("no answer within {} s", JOIN_WAIT.as_secs())),
    }
}

/// Says to the peer at these addresses, one for each path, that the process of this boot of this node has ended. For the
/// guard, which holds the node's certificate. All paths are used at once: the first that carries the word ends it.
///
/// # Errors
/// The reasons for the guard's log; there is no second try worth its time.
pub async fn send_guard_word(tls: &TlsPems, to: NodeId, addresses: &[String], ended: Boot) -> Result<(), String> {
    let one = |address: &String| {
        let address = address.clone();
        async move {
            let channel = dial(tls, to, &address, false).await.map_err(|fault| fault.reason)?;
            let reply = PeerClient::new(channel).guard_word(GuardWordRequest { boot: ended.0 }).await;
            reply.map(drop).map_err(|status| describe(&status))
        }
    };
    let work = async {
        let mut tries: FuturesUnordered<_> = addresses.iter().map(one).collect();
        let mut reasons = Vec::new();
        while let Some(told) = tries.next().await {
            match told {
                Ok(()) => return Ok(()),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(reasons.join("; "))
    };
    tokio::time::timeout(GUARD_WAIT, work).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}
