//! The cluster addresses, and their change while the nodes run (HA-19).

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde_json::{Value, json};
use topology::{ClusterAddress, ClusterState, ConfigOp, Fault, Rejection, listed};

use crate::config::ClusterPorts;
use crate::http::fields::Fields;
use crate::http::problem::Problem;
use crate::http::{AddressCheck, Api, Shared, afterwards};

/// The addresses now, and who holds them.
pub(crate) async fn show(State(api): Shared) -> Json<Value> {
    let state = api.context.ports.config.current();
    Json(answer(&api, &state, &state.cluster_addresses, (&[], false)))
}

/// Gives the cluster these addresses and no others, or with `dry_run` says what would happen.
pub(crate) async fn set(State(api): Shared, bytes: Bytes) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::parse(&bytes)?;
    let texts: Vec<String> = fields.required("addresses");
    let dry_run: bool = fields.optional("dry_run").unwrap_or_default();
    let mut wanted = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        match text.parse::<ClusterAddress>() {
            Ok(address) => wanted.push(address),
            Err(what) => fields.fault(&format!("addresses/{number}"), what),
        }
    }
    fields.finish()?;
    let state = api.context.ports.config.current();
    let op = ConfigOp::SetAddresses { addresses: wanted.clone() };
    match topology::apply(&state, &op, 0) {
        Err(Rejection::Faults(faults)) => return Err(Problem::faults(faults)),
        Err(Rejection::Conflict(text)) => return Err(Problem::unavailable(text)),
        Ok((next, _)) if next.cluster_addresses == state.cluster_addresses => {
            return Ok(Json(answer(&api, &state, &wanted, (&[], dry_run))));
        }
        Ok(_) => {}
    }
    let checks = examine(&api, &state, &wanted).await?;
    if !dry_run {
        api.context.ports.config.propose(op).await?;
        tracing::info!(from = listed(&state.cluster_addresses), to = listed(&wanted), "the cluster addresses change");
    }
    Ok(Json(answer(&api, &state, &wanted, (&checks, dry_run))))
}

/// What was found about those that are new; one that forbids the change is a fault with its place.
async fn examine(api: &Api, state: &ClusterState, wanted: &[ClusterAddress]) -> Result<Vec<AddressCheck>, Problem> {
    let (mut all, mut faults) = (Vec::new(), Vec::new());
    for (number, address) in wanted.iter().enumerate().filter(|(_, one)| !state.cluster_addresses.contains(one)) {
        // Only its network changes: those who answer there are the nodes.
        let known = state.cluster_addresses.iter().any(|old| old.address == address.address);
        let found = api.administration.addresses.examine(*address, known).await;
        for check in &found {
            if check.refused {
                let what = format!("{}; {}", check.found, check.advice);
                faults.push(Fault { place: format!("addresses/{number}"), what });
            }
        }
        all.extend(found);
    }
    if faults.is_empty() { Ok(all) } else { Err(Problem::faults(faults)) }
}

fn answer(
    api: &Api,
    state: &ClusterState,
    wanted: &[ClusterAddress],
    (checks, dry_run): (&[AddressCheck], bool),
) -> Value {
    let holder = api.context.ports.cluster.status().address_holder;
    let before = &state.cluster_addresses;
    let text = |all: &[ClusterAddress]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "addresses": text(wanted),
        "before": text(before),
        "holder": holder,
        "dry_run": dry_run,
        "checks": checks,
        "then": then(api, (before, wanted), holder),
        "look_at": afterwards::look_at_addresses(state, wanted, &api.context.config.ports),
    })
}

/// What happens, in the order in which it does; nothing when nothing changes.
fn then(api: &Api, (before, wanted): (&[ClusterAddress], &[ClusterAddress]), holder: Option<u32>) -> Vec<String> {
    let without = |all: &[ClusterAddress], those: &[ClusterAddress]| -> Vec<ClusterAddress> {
        all.iter().filter(|one| !those.contains(one)).copied().collect()
    };
    let (new, gone) = (without(wanted, before), without(before, wanted));
    if new.is_empty() && gone.is_empty() {
        return Vec::new();
    }
    let who = holder.map_or_else(|| "the node that becomes primary".to_owned(), |id| format!("node {id} (primary)"));
    let mut then = Vec::new();
    match (new.is_empty(), &api.context.config.cluster_ports) {
        (true, _) => {}
        (false, ClusterPorts::WhileHeld) => then.push(format!("{who} opens its ports on {}", listed(&new))),
        (false, ClusterPorts::Always(_)) => then.push(format!(
            "{who} asks whether anybody has {}, adds it and tells the network; while somebody has it, what is held now stays",
            listed(&new)
        )),
    }
    if !gone.is_empty() {
        then.push(format!(
            "then it lets {} go: connections there end, and clients must connect to the new address",
            listed(&gone)
        ));
    }
    if api.administration.addresses.certificate_follows() {
        then.push("each node makes a certificate for clients that names the addresses, if its own does not".to_owned());
    }
    then.push("a node that is away follows when it returns".to_owned());
    then
}
