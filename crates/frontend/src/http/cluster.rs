//! The cluster, its queue and its health, for operators and for what watches it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use ports::cluster::{BranchStatus, ClusterStatus, Departure, Others, Rescue, Switchover};
use queue::op::{AcceptRecord, QueueItem};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vocab::{NodeId, Timestamp};

use crate::http::afterwards::{self, LookAt};
use crate::http::fields::Fields;
use crate::http::problem::Problem;
use crate::http::{Api, Created, Shared};
use crate::proxy::ProxyStatus;

/// Events in one answer, unless said and at most.
const EVENTS_LIST: usize = 100;
const EVENTS_LIST_MAX: usize = 2_000;
/// Items of the queue in one answer.
const QUEUE_LIST_MAX: usize = 10_000;

/// The cluster as this node sees it, and what its doors pass on.
#[derive(Serialize)]
pub(crate) struct Status {
    #[serde(flatten)]
    cluster: ClusterStatus,
    proxied: ProxyStatus,
}

pub(crate) async fn status(State(api): Shared) -> Json<Status> {
    Json(Status { cluster: api.context.ports.cluster.status(), proxied: api.context.proxy.status() })
}

/// Which events are wanted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsWanted {
    limit: Option<usize>,
    /// Only later ones (Unix milliseconds).
    after: Option<u64>,
}

pub(crate) async fn events(State(api): Shared, Query(wanted): Query<EventsWanted>) -> Json<Value> {
    let limit = wanted.limit.unwrap_or(EVENTS_LIST).min(EVENTS_LIST_MAX);
    let mut events = api.context.ports.cluster.events(limit);
    events.retain(|event| wanted.after.is_none_or(|after| event.at_ms > after));
    Json(json!({ "events": events }))
}

/// Archived branches on this node.
pub(crate) async fn branches(State(api): Shared) -> Result<Json<Value>, Problem> {
    let all = api.context.ports.cluster.branches().await?;
    let addresses = api.addresses();
    let show = |branch: &BranchStatus| {
        json!({
            "id": branch.id,
            "account": branch.account,
            "address": addresses.get(&branch.account),
            "archived": date(Timestamp(branch.archived_ms)),
            "expires": date(Timestamp(branch.expires_ms)),
            "bytes": branch.bytes,
            "bodies": branch.bodies,
        })
    };
    Ok(Json(json!({ "branches": all.iter().map(show).collect::<Vec<_>>() })))
}

/// Deletes one on this node before its time.
pub(crate) async fn delete_branch(State(api): Shared, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    if !api.context.ports.cluster.delete_branch(id.clone()).await? {
        return Err(Problem::not_found("archived branch on this node", &id));
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn start_alone(State(api): Shared, body: Bytes) -> Result<StatusCode, Problem> {
    let mut fields = Fields::parse(&body)?;
    let confirm: String = fields.required("confirm");
    if confirm != api.context.ports.cluster.status().cluster {
        fields.fault("confirm", "must be the name of the cluster");
    }
    fields.finish()?;
    api.context.ports.cluster.start_alone().await?;
    tracing::warn!("starting alone by an operator's word");
    Ok(StatusCode::NO_CONTENT)
}

/// Who the home is afterwards, or would be; `to` absent: whoever fits.
pub(crate) async fn switch_over(State(api): Shared, body: Bytes) -> Result<Json<Switchover>, Problem> {
    let mut fields = Fields::parse(&body)?;
    let to: Option<u32> = fields.optional("to");
    let dry_run: bool = fields.optional("dry_run").unwrap_or_default();
    let cluster = &api.context.ports.cluster;
    if to.is_some_and(|to| cluster.status().nodes.iter().all(|node| node.id != to)) {
        fields.fault("to", "is not the id of a node of this cluster");
    }
    fields.finish()?;
    Ok(Json(cluster.switch_over(to.map(NodeId), dry_run).await?))
}

/// Says the cluster's name unless it only asks what would happen.
fn confirmed(api: &Api, fields: &mut Fields) -> bool {
    let dry_run: bool = fields.optional("dry_run").unwrap_or_default();
    let confirm: Option<String> = fields.optional("confirm");
    if !dry_run && confirm.as_deref() != Some(&*api.context.ports.cluster.status().cluster) {
        fields.fault("confirm", "must be the name of the cluster");
    }
    dry_run
}

/// Who goes, and what outside may still lead there.
#[derive(Serialize)]
pub(crate) struct Gone {
    #[serde(flatten)]
    departure: Departure,
    look_at: Vec<LookAt>,
}

/// What may lead to this node, as long as it is known.
fn leads_to(api: &Api, node: NodeId) -> Vec<LookAt> {
    afterwards::look_at(&api.context.ports.config.current(), node, &api.context.config.ports)
}

/// This node leaves for good; its process ends after the answer.
pub(crate) async fn leave(State(api): Shared, body: Bytes) -> Result<Json<Gone>, Problem> {
    let mut fields = Fields::parse(&body)?;
    let dry_run = confirmed(&api, &mut fields);
    fields.finish()?;
    let look_at = leads_to(&api, api.context.ports.cluster.node());
    Ok(Json(Gone { departure: api.context.ports.cluster.leave(dry_run).await?, look_at }))
}

/// Takes a lost node off the list of members.
pub(crate) async fn remove(State(api): Shared, body: Bytes) -> Result<Json<Gone>, Problem> {
    let mut fields = Fields::parse(&body)?;
    let node: u32 = fields.required("node");
    let dry_run = confirmed(&api, &mut fields);
    if api.context.ports.cluster.status().nodes.iter().all(|known| known.id != node) {
        fields.fault("node", "is not the id of a node of this cluster");
    }
    fields.finish()?;
    let look_at = leads_to(&api, NodeId(node));
    Ok(Json(Gone { departure: api.context.ports.cluster.remove(NodeId(node), dry_run).await?, look_at }))
}

/// The node that serves alone votes alone from now on.
pub(crate) async fn rescue(State(api): Shared, body: Bytes) -> Result<Json<Rescue>, Problem> {
    let mut fields = Fields::parse(&body)?;
    let down: bool = fields.optional("others_are_down").unwrap_or_default();
    let others = if down { Others::Down } else { Others::Unheard };
    let dry_run = confirmed(&api, &mut fields);
    fields.finish()?;
    Ok(Json(api.context.ports.cluster.rescue(others, dry_run).await?))
}

pub(crate) async fn create_token(State(api): Shared, body: Bytes) -> Created {
    let mut fields = Fields::parse(&body)?;
    let dry_run: bool = fields.optional("dry_run").unwrap_or_default();
    fields.finish()?;
    if dry_run {
        return Ok((StatusCode::OK, Json(json!(api.administration.join_tokens.plan()))));
    }
    let token = api.administration.join_tokens.create().await?;
    tracing::info!("join token made");
    Ok((StatusCode::CREATED, Json(json!({ "token": token }))))
}

/// A copy of this node's mail in a folder of this machine.
pub(crate) async fn create_checkpoint(State(api): Shared, body: Bytes) -> Created {
    let mut fields = Fields::parse(&body)?;
    let folder: std::path::PathBuf = fields.required("folder");
    if !folder.is_absolute() {
        fields.fault("folder", "must be an absolute path on this node's machine");
    }
    fields.finish()?;
    let made = api.administration.checkpoints.create(folder.clone()).await;
    made.map_err(|text| Problem::new(StatusCode::CONFLICT, text))?;
    tracing::info!(folder = %folder.display(), "checkpoint made");
    Ok((StatusCode::CREATED, Json(json!({ "folder": folder }))))
}

pub(crate) async fn queue(State(api): Shared) -> Result<Json<Value>, Problem> {
    let items = api.context.ports.outbox.list(QUEUE_LIST_MAX).await?;
    let held = api.context.ports.outbox.hold().map(|hold| date(hold.until));
    let accepts = api.context.ports.outbox.accepts(QUEUE_LIST_MAX).await?;
    Ok(Json(json!({
        "queue": items.iter().map(show_item).collect::<Vec<_>>(),
        "accepts": accepts.iter().map(show_accept).collect::<Vec<_>>(),
        "held_until": held,
    })))
}

/// An operator's word that the other node sends nothing.
pub(crate) async fn release_queue(State(api): Shared, body: Bytes) -> Result<StatusCode, Problem> {
    Fields::parse(&body)?.finish()?;
    if !api.context.ports.outbox.release() {
        return Err(Problem::new(StatusCode::CONFLICT, "no item of the other node waits here"));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A message that was accepted and still has to be placed with some of its recipients.
fn show_accept(record: &AcceptRecord) -> Value {
    json!({
        "id": record.accept.to_string(),
        "sender": record.reverse_path.address().map(ToString::to_string).unwrap_or_default(),
        "accounts": record.recipients.iter().map(|recipient| recipient.account.0).collect::<Vec<_>>(),
        "size": record.size,
        "accepted_at": date(record.accepted_at),
        "owner_node": record.owner.map(|node| node.0),
    })
}

fn show_item(item: &QueueItem) -> Value {
    json!({
        "id": item.id.to_string(),
        "sender": item.reverse_path.address().map(ToString::to_string).unwrap_or_default(),
        "recipient": item.recipient.to_string(),
        "original_recipient": item.original_recipient.as_ref().map(ToString::to_string),
        "size": item.size,
        "accepted_at": date(item.accepted_at),
        "attempts": item.attempts,
        "due": date(item.due),
        "owner_node": item.owner.map(|node| node.0),
        "trying_on_node": item.attempt.map(|(node, _)| node.0),
        "status": item.last_status.as_ref().map(|failure| failure.status.clone()),
        "diagnostic": item.last_status.as_ref().map(|failure| failure.diagnostic.clone()),
    })
}

/// RFC 3339, in seconds.
pub(crate) fn date(at: Timestamp) -> String {
    let seconds = i64::try_from(at.seconds()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|d| d.format(&Rfc3339).ok()).unwrap_or_default()
}

pub(crate) async fn metrics(State(api): Shared) -> Response {
    let text = (api.administration.metrics)();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

pub(crate) async fn live() -> &'static str {
    "live\n"
}

/// 200 while clients are served here.
pub(crate) async fn ready(State(api): Shared) -> (StatusCode, &'static str) {
    yes_or_no(*api.context.ports.cluster.serving().borrow(), ("ready\n", "not serving\n"))
}

/// 200 on the node that holds the cluster address.
pub(crate) async fn primary(State(api): Shared) -> (StatusCode, &'static str) {
    yes_or_no(*api.context.ports.cluster.holds_address().borrow(), ("primary\n", "not primary\n"))
}

fn yes_or_no(yes: bool, (good, bad): (&'static str, &'static str)) -> (StatusCode, &'static str) {
    if yes { (StatusCode::OK, good) } else { (StatusCode::SERVICE_UNAVAILABLE, bad) }
}
