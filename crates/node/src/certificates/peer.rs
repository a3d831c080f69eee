//! What nodes ask each other about certificates, over the connection on which each has shown its own: who has what, a
//! certificate for a node that cannot issue, the key of a new CA. JSON; rare and small.

use std::sync::Arc;

use bytes::Bytes;
use ports::Answer;
use ports::config::Config as _;
use ports::peers::{CallError, PeerService, Peers, Service};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use transport::ca::Authority;
use vocab::NodeId;

use super::disk;
use super::keeper::Keeper;
use crate::files;
use crate::init;

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Which certificates do you have? Answer: [`Described`].
    Describe,
    /// Make new ones. Answer: [`Described`].
    Renew,
    /// Sign this request (PEM) by this CA (PEM), for the node that asks. Answer: the certificate (PEM).
    Sign { request: String, ca: String },
    /// The key of this CA (PEM), for a member that stores mail. Answer: the key (PEM).
    Key { ca: String },
}

/// Which certificates a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Described {
    /// Its certificate towards the others: end (Unix seconds), number, hash of its CA.
    pub(super) ends: u64,
    pub(super) serial: String,
    pub(super) ca: String,
    /// Its certificate for clients: end (Unix seconds); nothing on a witness.
    pub(super) clients_end: Option<u64>,
    /// That one is by the operator.
    pub(super) clients_own: bool,
    /// Hashes of the CAs it trusts, each with its end (Unix seconds).
    pub(super) trusts: Vec<(String, u64)>,
    /// Why it could not do what it must do.
    pub(super) fault: Option<String>,
}

/// One question.
pub(super) async fn ask<T: DeserializeOwned>(peers: &dyn Peers, to: NodeId, ask: &Ask) -> Result<T, CallError> {
    let body = serde_json::to_vec(ask).map_err(|error| CallError::NotSent(error.to_string()))?;
    let reply = peers.call(to, Service::Certificates, Bytes::from(body)).await?;
    serde_json::from_slice(&reply).map_err(|error| CallError::Lost(format!("unreadable answer: {error}")))
}

/// Answers the others.
pub(crate) struct Answers(pub(crate) Arc<Keeper>);

impl PeerService for Answers {
    fn serve(&self, from: NodeId, body: Bytes) -> Answer<'_, Result<Bytes, String>> {
        Box::pin(async move {
            let ask: Ask = serde_json::from_slice(&body).map_err(|error| format!("not understood: {error}"))?;
            let answer = match ask {
                Ask::Describe => serde_json::to_vec(&self.0.describe()),
                Ask::Renew => {
                    self.0
                        .renew(&format!("node {} asked for it", from.0))
                        .await
                        .map_err(|error| format!("{error:#}"))?;
                    serde_json::to_vec(&self.0.describe())
                }
                Ask::Sign { request, ca } => serde_json::to_vec(&self.sign(from, &request, &ca)?),
                Ask::Key { ca } => serde_json::to_vec(&self.key(from, &ca)?),
            };
            answer.map(Bytes::from).map_err(|error| error.to_string())
        })
    }
}

impl Answers {
    /// Of the request only the public key is taken: who asks gets its own name and no other.
    fn sign(&self, from: NodeId, request: &str, ca: &str) -> Result<String, String> {
        let keeper = &self.0;
        let state = keeper.control.current();
        let member = state.members.get(&from).ok_or_else(|| format!("node {} is no member", from.0))?;
        let key = files::read_text(&keeper.data.ca_key()).map_err(|_| "this node has no key of a CA".to_owned())?;
        let authority = Authority::load(ca, &key).map_err(|_| "that CA does not issue here now".to_owned())?;
        let names = init::node_names(&member.name, &member.name, &member.address);
        let signed = authority.until(disk::ends(&keeper.config)).sign_node(request, from, &names);
        let certificate = signed.map_err(|error| error.to_string())?;
        keeper.note(&format!("a new certificate was issued to node {} ({})", from.0, member.name));
        Ok(certificate)
    }

    /// The key goes where mail is stored, as at a join, and only while that CA is one that the nodes must have.
    fn key(&self, from: NodeId, ca: &str) -> Result<String, String> {
        let keeper = &self.0;
        let state = keeper.control.current();
        let (_, body) = state.certificates();
        if !state.members.get(&from).is_some_and(|member| member.data) {
            return Err(format!("node {} stores no mail and gets no key", from.0));
        }
        if !body.rotation.as_ref().is_some_and(|rotation| rotation.duty().keys.contains(&ca)) {
            return Err("the cluster is not changing to that CA".to_owned());
        }
        let key = disk::key_of(&keeper.data, ca).ok_or("this node has not that key")?;
        keeper.note(&format!("node {} was given the key of the new CA", from.0));
        Ok(key)
    }
}
