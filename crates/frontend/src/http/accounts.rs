//! Accounts: a document of the configuration for who it is, and the account's own rows for its mail and password.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use mailbox::op::{AccountOp, Outcome};
use ports::config::ConfigError;
use ports::directory::PASSWORD_DOCUMENT;
use serde_json::{Map, Value, json};
use topology::{ConfigOp, Document, DocumentKind};
use vocab::{AccountId, Version};

use crate::http::documents::name_of;
use crate::http::fields::Fields;
use crate::http::problem::Problem;
use crate::http::{Api, Created, Shared};
use crate::submit::submit;

fn show(name: &str, document: &Document) -> Value {
    let field = |key: &str| document.body.get(key).cloned();
    json!({
        "address": name,
        "id": document.created,
        "name": field("name").unwrap_or_else(|| json!("")),
        "enabled": field("enabled").unwrap_or(json!(true)),
        "quota_bytes": field("quota_bytes"),
        "revision": document.revision,
    })
}

pub(crate) async fn list(State(api): Shared) -> Json<Value> {
    Json(json!({ "accounts": api.list(DocumentKind::Account, show) }))
}

pub(crate) async fn show_one(State(api): Shared, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let (name, document) = api.document(DocumentKind::Account, &name)?;
    Ok(Json(show(&name, &document)))
}

/// Reads what belongs into the document; fields that are not named stay as they are.
fn read_body(fields: &mut Fields, body: &mut Map<String, Value>) {
    if let Some(name) = fields.optional::<String>("name") {
        body.insert("name".into(), json!(name));
    }
    if let Some(enabled) = fields.optional::<bool>("enabled") {
        body.insert("enabled".into(), json!(enabled));
    }
    if let Some(quota) = fields.optional::<Option<u64>>("quota_bytes") {
        body.insert("quota_bytes".into(), json!(quota));
    }
}

fn check_password(fields: &mut Fields, password: &str) {
    if password.is_empty() || password.contains('\0') {
        fields.fault("password", "must not be empty and hold no NUL");
    }
    if password.len() > sasl::FIELD_BYTES_MAX {
        fields.fault("password", format!("is longer than {} bytes", sasl::FIELD_BYTES_MAX));
    }
}

/// The document first, then the account's rows. When the second step fails the account exists without a password; the
/// same request again completes it.
pub(crate) async fn add(State(api): Shared, body: Bytes) -> Created {
    let mut fields = Fields::parse(&body)?;
    let address: String = fields.required("address");
    let password: String = fields.required("password");
    let mut document = Map::new();
    read_body(&mut fields, &mut document);
    if !password.is_empty() {
        check_password(&mut fields, &password);
    }
    fields.finish()?;
    let name = name_of(DocumentKind::Account, &address)?;
    let op = ConfigOp::put(DocumentKind::Account, name.clone(), document.into(), Some(0));
    match api.context.ports.config.propose(op).await {
        Ok(_) => {}
        Err(error @ ConfigError::Conflict(_)) => api.unless_half_made(&name, error).await?,
        Err(error) => return Err(error.into()),
    }
    let (name, document) = api.document(DocumentKind::Account, &name)?;
    let account = AccountId(document.created);
    api.apply(account, AccountOp::Init).await?;
    api.set_password(account, &password).await?;
    tracing::info!(account = account.0, address = name, "account made");
    Ok((StatusCode::CREATED, Json(show(&name, &document))))
}

pub(crate) async fn change(State(api): Shared, Path(name): Path<String>, body: Bytes) -> Result<Json<Value>, Problem> {
    let (name, document) = api.document(DocumentKind::Account, &name)?;
    let mut fields = Fields::parse(&body)?;
    let old = document.body.as_object().cloned().unwrap_or_default();
    let mut new = old.clone();
    read_body(&mut fields, &mut new);
    let password: Option<String> = fields.optional("password");
    if let Some(password) = &password {
        check_password(&mut fields, password);
    }
    fields.finish()?;
    if new != old {
        api.put(DocumentKind::Account, &name, new.into(), Some(document.revision)).await?;
    }
    if let Some(password) = password {
        // An account whose creation broke off gets its mailboxes here; for all others this changes nothing.
        let account = AccountId(document.created);
        api.apply(account, AccountOp::Init).await?;
        api.set_password(account, &password).await?;
        tracing::info!(account = document.created, address = name, "password changed");
    }
    show_one(State(api), Path(name)).await
}

/// The document first: from then on nobody logs in or gets mail. Its rows follow.
pub(crate) async fn remove(State(api): Shared, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    let (name, document) = api.document(DocumentKind::Account, &name)?;
    let account = AccountId(document.created);
    let op = ConfigOp::Remove { kind: DocumentKind::Account, name: name.clone() };
    api.context.ports.config.propose(op).await?;
    tracing::info!(account = account.0, address = name, "account removed");
    if let Err(error) = submit(&api.context.ports, account, AccountOp::Purge).await {
        tracing::error!(account = account.0, %error, "mail of a removed account is still stored");
    }
    Ok(StatusCode::NO_CONTENT)
}

impl Api {
    /// An account that exists but never got its rows may be made again; any other stays as it is.
    async fn unless_half_made(&self, name: &str, error: ConfigError) -> Result<(), Problem> {
        let Ok((_, document)) = self.document(DocumentKind::Account, name) else { return Err(error.into()) };
        let rows = self.context.ports.accounts.snapshot(AccountId(document.created)).await?;
        if rows.head().version == Version::default() { Ok(()) } else { Err(error.into()) }
    }

    async fn apply(&self, account: AccountId, op: AccountOp) -> Result<(), Problem> {
        match submit(&self.context.ports, account, op).await? {
            Outcome::Refused(refusal) => Err(Problem::unavailable(format!("the mailboxes refused it: {refusal:?}"))),
            _ => Ok(()),
        }
    }

    async fn set_password(&self, account: AccountId, password: &str) -> Result<(), Problem> {
        let document = self.context.ports.directory.hash_password(password).await;
        if document.is_empty() {
            return Err(Problem::unavailable("the password could not be hashed; set it again"));
        }
        let kind = PASSWORD_DOCUMENT.to_owned();
        self.apply(account, AccountOp::SetDocument { kind, name: String::new(), body: Some(document) }).await
    }
}
