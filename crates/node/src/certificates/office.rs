//! The administrator's side: who has what until when, new certificates by order, and the exchange of the CA.

use std::sync::Arc;

use frontend::{CertificateOffice, RotationOrder};
use futures_util::future::join_all;
use ports::Answer;
use ports::config::{Config as _, ConfigError};
use serde_json::{Value, json};
use topology::{CertificatesBody, ClusterState, Fault, Member, Rotation, RotationRefused, RotationStep};
use transport::ca::{self, Authority};
use vocab::NodeId;

use super::keeper::Keeper;
use super::peer::{Ask, Described, ask};
use super::{CA_LIFE_S, disk};
use crate::files;

/// Answers the API.
pub(crate) struct Office(pub(crate) Arc<Keeper>);

/// What one node said, or why it said nothing.
type Said = Result<Described, String>;

impl CertificateOffice for Office {
    fn list(&self) -> Answer<'_, Value> {
        Box::pin(async move {
            let state = self.0.control.current();
            let said = self.ask_all(&state).await;
            let (_, body) = state.certificates();
            json!({
                "now": disk::now_s(),
                "nodes": said.iter().map(|(member, said)| shown(member, said)).collect::<Vec<_>>(),
                "rotation": body.rotation.as_ref().map(|rotation| under_way(rotation, &state, &said)),
                "rotations_finished": body.finished,
            })
        })
    }

    fn renew(&self, node: Option<u32>) -> Answer<'_, Result<Value, ConfigError>> {
        Box::pin(async move {
            let state = self.0.control.current();
            let wanted = |member: &&Member| node.is_none_or(|node| member.id.0 == node);
            let members: Vec<&Member> = state.members.values().filter(wanted).collect();
            if members.is_empty() {
                let what = "is not the id of a node of this cluster".to_owned();
                return Err(ConfigError::Refused(vec![Fault { place: "node".to_owned(), what }]));
            }
            let orders = members.into_iter().map(|member| async move { (member, self.renew_one(member.id).await) });
            let said: Vec<(&Member, Said)> = join_all(orders).await;
            Ok(json!({
                "now": disk::now_s(),
                "nodes": said.iter().map(|(member, said)| shown(member, said)).collect::<Vec<_>>(),
            }))
        })
    }

    fn rotate(&self, order: RotationOrder, dry_run: bool) -> Answer<'_, Result<Value, ConfigError>> {
        Box::pin(async move {
            let state = self.0.control.current();
            let (revision, body) = state.certificates();
            let refused = |why: RotationRefused| ConfigError::Conflict(why.to_string());
            if let RotationOrder::Begin { hold } = order {
                if body.rotation.is_some() {
                    return Err(refused(RotationRefused::UnderWay));
                }
                if dry_run {
                    return Ok(json!({ "dry_run": true, "then": self.plan(&state, hold).await }));
                }
                return self.begin(&state, (revision, &body), hold).await;
            }
            let (next, what) = match order {
                RotationOrder::CallOff => (body.call_off(), "called off"),
                _ => (body.go_on(), "told to go on"),
            };
            let next = next.map_err(refused)?;
            if !dry_run {
                self.0.put(revision, &next).await?;
                self.0.note(&format!("the exchange of the CA was {what} by an operator"));
            }
            Ok(json!({ "dry_run": dry_run, "then": [format!("the exchange of the CA is {what}")] }))
        })
    }
}

impl Office {
    async fn describe(&self, node: NodeId) -> Said {
        let keeper = &self.0;
        if node == keeper.node {
            return Ok(keeper.describe());
        }
        ask(&*keeper.transport, node, &Ask::Describe).await.map_err(|error| error.to_string())
    }

    async fn ask_all<'a>(&self, state: &'a ClusterState) -> Vec<(&'a Member, Said)> {
        join_all(state.members.values().map(|member| async move { (member, self.describe(member.id).await) })).await
    }

    async fn renew_one(&self, node: NodeId) -> Said {
        let keeper = &self.0;
        if node != keeper.node {
            return ask(&*keeper.transport, node, &Ask::Renew).await.map_err(|error| error.to_string());
        }
        keeper.renew("an operator ordered it").await.map_err(|error| format!("{error:#}"))?;
        Ok(keeper.describe())
    }

    /// What an exchange begun now would do.
    async fn plan(&self, state: &ClusterState, hold: bool) -> Vec<String> {
        let own_pems = self.0.config.tls.is_some();
        let mut then = vec![
            "a new CA is made; every node trusts both, and every node that stores mail gets its key".to_owned(),
            "every node gets a certificate of the new CA; connections that stand go on".to_owned(),
            "the old CA is trusted no more and its key is deleted; links between nodes move to new connections".to_owned(),
            "each step begins when every node has confirmed the one before; join tokens of before are void, and nobody \
             joins meanwhile"
                .to_owned(),
        ];
        if !own_pems {
            then.push(
                "clients that trust the cluster's CA must trust the new one before the second step (`ca.pem` in the data \
                 folder holds both then): `--hold` waits for your word"
                    .to_owned(),
            );
        }
        if hold {
            then.push("after the first step it waits for `twinpost cluster certificates rotate-ca --go-on`".to_owned());
        }
        for (member, said) in self.ask_all(state).await {
            if let Err(reason) = said {
                then.push(format!(
                    "node {} ({}) does not answer and would hold it up: {reason}",
                    member.id.0, member.name
                ));
            }
        }
        then
    }

    async fn begin(
        &self,
        state: &ClusterState,
        (revision, body): (u64, &CertificatesBody),
        hold: bool,
    ) -> Result<Value, ConfigError> {
        let keeper = &self.0;
        let failed = |error: &dyn std::fmt::Display| ConfigError::Locked(format!("no new CA was made: {error}"));
        let old = disk::issuing(&keeper.data).map_err(|error| failed(&error))?;
        let new = Authority::create(&state.name, disk::now_s() + CA_LIFE_S).map_err(|error| failed(&error))?;
        // Durable before anybody hears of it.
        files::write_private(&keeper.data.ca_next_key(), new.key().as_bytes()).map_err(|error| failed(&error))?;
        let next = body.begin((&old, new.certificate()), keeper.node, hold);
        let next = next.map_err(|why| ConfigError::Conflict(why.to_string()))?;
        keeper.put(revision, &next).await?;
        let names = [&old, new.certificate()].map(|pem| short(&ca::ca_hash(pem).unwrap_or_default()));
        let text = format!("an operator has begun to exchange the CA {} for {}", names[0], names[1]);
        keeper.note(&text);
        Ok(json!({ "dry_run": false, "then": [text, "`twinpost cluster certificates` says how far it is"] }))
    }
}

/// The start of a hash, for people.
pub(super) fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

fn shown(member: &Member, said: &Said) -> Value {
    let mut shown = json!({ "id": member.id.0, "name": member.name, "stores_mail": member.data });
    match said {
        Err(reason) => shown["unreachable"] = json!(reason),
        Ok(said) => {
            let trusts = said.trusts.iter().map(|(hash, ends)| json!({ "hash": hash, "ends": ends }));
            shown["certificate"] = json!({ "ends": said.ends, "serial": said.serial, "ca": said.ca });
            shown["trusts"] = trusts.collect();
            shown["fault"] = json!(said.fault);
            if let Some(ends) = said.clients_end {
                shown["clients"] = json!({ "ends": ends, "own": said.clients_own });
            }
        }
    }
    shown
}

fn under_way(rotation: &Rotation, state: &ClusterState, said: &[(&Member, Said)]) -> Value {
    let waits = rotation.waits_for(&state.members).into_iter().map(|node| {
        let why = said.iter().find(|(member, _)| member.id == node).map(|(_, said)| match said {
            Err(reason) => format!("it does not answer: {reason}"),
            Ok(Described { fault: Some(fault), .. }) => fault.clone(),
            Ok(_) => "it has not confirmed yet".to_owned(),
        });
        json!({ "node": node.0, "why": why })
    });
    json!({
        "step": rotation.step,
        "held": rotation.hold && rotation.step == RotationStep::Trust,
        "by": rotation.by.0,
        "old": ca::ca_hash(&rotation.old).unwrap_or_default(),
        "new": ca::ca_hash(&rotation.new).unwrap_or_default(),
        "waits_for": waits.collect::<Vec<_>>(),
    })
}
