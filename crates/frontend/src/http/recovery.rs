//! What a merge kept restorable in an account: an expunge on one side of a split won over a change on the other.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use mailbox::op::{AccountOp, Outcome, Refusal};
use mailbox::recovery::RecoveryItem;
use mime::Facts;
use serde_json::{Value, json};
use topology::DocumentKind;
use vocab::ids::PLACEMENT_ID_BYTES;
use vocab::{AccountId, PlacementId};

use crate::http::cluster::date;
use crate::http::problem::Problem;
use crate::http::{Api, Shared};
use crate::submit::submit;

fn show(item: &RecoveryItem) -> Value {
    // Facts that cannot be read are no reason to hide a message.
    let facts = Facts::decode(&item.facts).ok();
    json!({
        "id": item.placement.id.to_string(),
        "mailbox": item.mailbox,
        "subject": facts.as_ref().map(|facts| facts.subject.clone()),
        "from": facts.as_ref().map(|facts| facts.from.clone()),
        "size": item.placement.size(),
        "received": date(item.placement.internal_date),
        "expunged": date(item.merged),
        "expires": date(item.expires()),
    })
}

pub(crate) async fn list(State(api): Shared, Path(address): Path<String>) -> Result<Json<Value>, Problem> {
    let (_, account) = account(&api, &address)?;
    let rows = api.context.ports.accounts.snapshot(account).await?;
    let items = mailbox::read::recovery(&*rows).map_err(|damaged| {
        tracing::error!(account = account.0, %damaged, "what can be restored cannot be read");
        Problem::unavailable("rows of this account are damaged on this node")
    })?;
    Ok(Json(json!({ "recovery": items.iter().map(show).collect::<Vec<_>>() })))
}

pub(crate) async fn restore(
    State(api): Shared,
    Path((address, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (address, account) = account(&api, &address)?;
    let missing = || Problem::not_found("restorable message", &id);
    let placement = placement_of(&id).ok_or_else(missing)?;
    match submit(&api.context.ports, account, AccountOp::Restore { ids: vec![placement] }).await? {
        Outcome::Refused(Refusal::UnknownPlacement | Refusal::NoSuchAccount) => Err(missing()),
        Outcome::Refused(refusal) => Err(Problem::unavailable(format!("the mailboxes refused it: {refusal:?}"))),
        _ => {
            tracing::info!(account = account.0, address, id, "message restored");
            Ok(StatusCode::NO_CONTENT)
        }
    }
}

fn account(api: &Api, address: &str) -> Result<(String, AccountId), Problem> {
    let (name, document) = api.document(DocumentKind::Account, address)?;
    Ok((name, AccountId(document.created)))
}

/// The id as [`show`] writes it.
pub(crate) fn placement_of(text: &str) -> Option<PlacementId> {
    if text.len() != 2 * PLACEMENT_ID_BYTES || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..text.len()).step_by(2).map(byte).collect::<Option<_>>()?;
    PlacementId::from_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_shown_and_nothing_else_is() {
        let bytes: Vec<u8> = (0..).map(|n: u8| n.wrapping_mul(11)).take(PLACEMENT_ID_BYTES).collect();
        let id = PlacementId::from_bytes(&bytes).expect("an id");
        assert_eq!(placement_of(&id.to_string()), Some(id));
        for bad in ["", "00", &"+f".repeat(PLACEMENT_ID_BYTES), &"\u{e4}".repeat(PLACEMENT_ID_BYTES)] {
            assert_eq!(placement_of(bad), None, "{bad}");
        }
    }
}
