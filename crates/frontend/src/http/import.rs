//! Bringing back what a removed node had and the cluster lacks, message by message. What is known - here, or expunged
//! here - stays as it is, so a second time changes nothing.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailbox::names::normal_name;
use mailbox::op::{AccountOp, NewMessage, Outcome, Refusal, Role};
use mailbox::read;
use mime::Facts;
use serde_json::{Value, json};
use topology::DocumentKind;
use vocab::limits::MESSAGE_SIZE_MAX;
use vocab::{AccountId, Damaged, Flags, Keyword, MailboxId, PlacementId, Rows, Timestamp};

use crate::http::fields::Fields;
use crate::http::problem::Problem;
use crate::http::recovery::placement_of;
use crate::http::{Api, Shared};
use crate::submit::submit;

/// Longest request: a message in base64, its facts and the rest.
pub(crate) const BYTES_MAX: usize = 2 * MESSAGE_SIZE_MAX;
/// Messages asked about at once.
const ASKED_MAX: usize = 5_000;
/// Tries to find or make the mailbox: somebody else may make it meanwhile.
const MAILBOX_TRIES: usize = 3;

fn damaged(account: AccountId) -> impl Fn(Damaged) -> Problem {
    move |damaged| {
        tracing::error!(account = account.0, %damaged, "an account cannot be read for an import");
        Problem::unavailable("rows of this account are damaged on this node")
    }
}

/// Whether the message is here in whatever mailbox, or was expunged here.
fn is_known(rows: &dyn Rows, id: PlacementId, email: PlacementId) -> Result<bool, Damaged> {
    for id in [id, email] {
        if read::known_place(rows, id)?.is_some() {
            return Ok(true);
        }
    }
    // A copy of it may be all that is left.
    Ok(read::facts(rows, email)?.is_some())
}

fn pair_of(value: &Value) -> Option<(PlacementId, PlacementId)> {
    Some((placement_of(value["id"].as_str()?)?, placement_of(value["email"].as_str()?)?))
}

/// Which of these messages the account lacks and never had.
pub(crate) async fn missing(
    State(api): Shared,
    Path(address): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let account = account(&api, &address)?;
    let mut fields = Fields::parse(&body)?;
    let messages: Vec<Value> = fields.required("messages");
    let ids: Option<Vec<_>> = messages.iter().map(pair_of).collect();
    if ids.is_none() || messages.len() > ASKED_MAX {
        fields
            .fault("messages", format!("must be at most {ASKED_MAX} objects with `id` and `email`, ids of placements"));
    }
    fields.finish()?;
    let rows = api.context.ports.accounts.snapshot(account).await?;
    let mut missing = Vec::new();
    for (at, (id, email)) in ids.unwrap_or_default().into_iter().enumerate() {
        if !is_known(&*rows, id, email).map_err(damaged(account))? {
            missing.push(at);
        }
    }
    Ok(Json(json!({ "missing": missing })))
}

/// One message as its node had it.
struct Imported {
    id: PlacementId,
    email: PlacementId,
    mailbox: String,
    role: Option<Role>,
    message: NewMessage,
    body: Bytes,
}

fn role_of(name: &str) -> Option<Role> {
    [Role::Inbox, Role::Drafts, Role::Sent, Role::Junk, Role::Trash, Role::Archive]
        .into_iter()
        .find(|role| format!("{role:?}").eq_ignore_ascii_case(name))
}

fn read_message(body: &Bytes) -> Result<Imported, Problem> {
    let mut fields = Fields::parse(body)?;
    let mut id = |field: &str| {
        let text: String = fields.required(field);
        placement_of(&text).unwrap_or_else(|| {
            fields.fault(field, "is not the id of a placement");
            PlacementId::default()
        })
    };
    let (id, email) = (id("id"), id("email"));
    let mut bytes = |field: &str| {
        let text: String = fields.required(field);
        Bytes::from(STANDARD.decode(text).unwrap_or_else(|error| {
            fields.fault(field, format!("is not base64: {error}"));
            Vec::new()
        }))
    };
    let (facts, prefix, body) = (bytes("facts"), bytes("prefix"), bytes("body"));
    if Facts::decode(&facts).is_err() {
        fields.fault("facts", "cannot be understood");
    }
    if body.is_empty() || body.len() > MESSAGE_SIZE_MAX {
        fields.fault("body", "is empty or larger than a message may be");
    }
    let name: String = fields.required("mailbox");
    let mailbox = normal_name(&name).unwrap_or_else(|| {
        fields.fault("mailbox", "is not the name of a mailbox");
        String::new()
    });
    let role = fields.optional::<Option<String>>("role").flatten().and_then(|role| role_of(&role));
    let system: u8 = fields.required("system_flags");
    let keywords: Vec<String> = fields.required("keywords");
    let internal_date = Timestamp(fields.required("internal_date_ms"));
    fields.finish()?;
    let flags = Flags { system, keywords: keywords.iter().filter_map(|word| Keyword::new(word)).collect() };
    let blob = vocab::BlobHash::of(&body);
    let message = NewMessage { blob, blob_size: body.len() as u64, prefix, facts, flags, internal_date };
    Ok(Imported { id, email, mailbox, role, message, body })
}

/// Places a message that is not known; says whether it was.
pub(crate) async fn import(
    State(api): Shared,
    Path(address): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let account = account(&api, &address)?;
    let Imported { id, email, mailbox, role, message, body } = read_message(&body)?;
    let rows = api.context.ports.accounts.snapshot(account).await?;
    if is_known(&*rows, id, email).map_err(damaged(account))? {
        return Ok(Json(json!({ "placed": false })));
    }
    let mailbox = api.mailbox_for(account, &mailbox, role).await?;
    api.context.ports.blobs.put(body).await?;
    let op = AccountOp::Import { mailbox, id, email, message: Box::new(message) };
    match submit(&api.context.ports, account, op).await? {
        Outcome::Appended { uids, .. } => Ok(Json(json!({ "placed": !uids.is_empty() }))),
        outcome => Err(refused(&outcome)),
    }
}

fn refused(outcome: &Outcome) -> Problem {
    Problem::unavailable(format!("the mailboxes refused it: {outcome:?}"))
}

fn account(api: &Api, address: &str) -> Result<AccountId, Problem> {
    Ok(AccountId(api.document(DocumentKind::Account, address)?.1.created))
}

impl Api {
    /// The mailbox of this name, else that with this role, else a new one.
    async fn mailbox_for(&self, account: AccountId, name: &str, role: Option<Role>) -> Result<MailboxId, Problem> {
        let ports = &self.context.ports;
        for _ in 0..MAILBOX_TRIES {
            let rows = ports.accounts.snapshot(account).await?;
            let mut found = read::mailbox_by_name(&*rows, name).map_err(damaged(account))?;
            if let (None, Some(role)) = (&found, role) {
                found = read::mailbox_by_role(&*rows, role).map_err(damaged(account))?;
            }
            if let Some(mailbox) = found {
                return Ok(mailbox.id);
            }
            let create = AccountOp::CreateMailbox { name: name.to_owned(), role: None };
            match submit(ports, account, create).await? {
                Outcome::Created { mailbox } => return Ok(mailbox),
                Outcome::Refused(Refusal::MailboxExists) => {}
                Outcome::Refused(Refusal::NoSuchAccount) => {
                    let outcome = submit(ports, account, AccountOp::Init).await?;
                    if matches!(outcome, Outcome::Refused(_)) {
                        return Err(refused(&outcome));
                    }
                }
                outcome => return Err(refused(&outcome)),
            }
        }
        Err(Problem::unavailable("the mailbox could not be made"))
    }
}
