//! The preferred primary, and whether it gets its place back by itself.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde_json::{Value, json};
use topology::{DocumentKind, Failback, PRIMARY_SETTING, PrimaryBody};

use crate::http::fields::Fields;
use crate::http::problem::Problem;
use crate::http::{Api, Shared};

/// The preference, who is the primary now, and what follows from both.
pub(crate) async fn show(State(api): Shared) -> Json<Value> {
    let body = api.context.ports.config.current().primary().map(|(_, body)| body).unwrap_or_default();
    Json(answer(&api, body, false))
}

/// Says a preference, or with `dry_run` what would follow from it. What is absent stays as it is.
pub(crate) async fn set(State(api): Shared, bytes: Bytes) -> Result<Json<Value>, Problem> {
    let state = api.context.ports.config.current();
    let mut body = state.primary().map(|(_, body)| body).unwrap_or_default();
    let mut fields = Fields::parse(&bytes)?;
    if let Some(node) = fields.optional::<Value>("node") {
        body.node = node.as_u64().and_then(|id| u32::try_from(id).ok());
        if body.node.is_none() && !node.is_null() {
            fields.fault("node", "must be the id of a node, or null for none");
        }
    }
    body.failback = fields.optional("failback").unwrap_or(body.failback);
    body.settle_s = fields.optional("settle_s").unwrap_or(body.settle_s);
    let dry_run: bool = fields.optional("dry_run").unwrap_or_default();
    fields.finish()?;
    let value = json!(body);
    if dry_run {
        let put = topology::ConfigOp::put(DocumentKind::Setting, PRIMARY_SETTING, value, None);
        if let Err(topology::Rejection::Faults(faults)) = topology::apply(&state, &put, 0) {
            return Err(Problem::faults(faults));
        }
    } else {
        api.put(DocumentKind::Setting, PRIMARY_SETTING, value, None).await?;
    }
    Ok(Json(answer(&api, body, dry_run)))
}

fn answer(api: &Api, body: PrimaryBody, dry_run: bool) -> Value {
    let status = api.context.ports.cluster.status();
    json!({
        "node": body.node,
        "failback": body.failback,
        "settle_s": body.settle_s,
        "primary": status.home,
        "dry_run": dry_run,
        "then": then(body, status.home, &status.in_sync),
    })
}

/// What follows, in words.
fn then(body: PrimaryBody, home: u32, in_sync: &[u32]) -> String {
    let Some(node) = body.node else {
        return "no node is preferred: the primary stays where it is until it is lost, or told to hand over".to_owned();
    };
    match (body.failback, node == home) {
        (Failback::Manual, true) => {
            format!("node {node} is the primary; when it is lost and returns it stays secondary")
        }
        (Failback::Manual, false) => {
            format!("nothing moves by itself: `twinpost cluster switchover {node}` makes node {node} the primary")
        }
        (Failback::Auto, true) => format!(
            "node {node} is the primary; when it was lost and has been in sync again for {} s, it becomes it again",
            body.settle_s
        ),
        (Failback::Auto, false) if in_sync.contains(&node) => format!(
            "node {node} becomes the primary once all has been at rest for {} s, by a planned switchover: changes in \
             flight are finished, and clients on the cluster address reconnect",
            body.settle_s
        ),
        (Failback::Auto, false) => format!(
            "node {node} becomes the primary once it has been in sync for {} s, by a planned switchover",
            body.settle_s
        ),
    }
}
