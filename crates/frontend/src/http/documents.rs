//! Domains, aliases and settings: documents of the configuration.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use topology::{ConfigOp, Document, DocumentKind, Fault, normalise_name};

use crate::http::fields::Fields;
use crate::http::problem::Problem;
use crate::http::{Api, Created, Shared};

/// The stored form of a name in a path or body.
///
/// # Errors
/// 422: no name of this kind.
pub fn name_of(kind: DocumentKind, name: &str) -> Result<String, Problem> {
    let fault = |what| Problem::faults(vec![Fault { place: format!("{}/{name}", kind.as_str()), what }]);
    normalise_name(kind, name).map_err(fault)
}

impl Api {
    /// The document and its stored name.
    ///
    /// # Errors
    /// 422, 404.
    pub fn document(&self, kind: DocumentKind, name: &str) -> Result<(String, Document), Problem> {
        let name = name_of(kind, name)?;
        match self.context.ports.config.current().document(kind, &name) {
            Some(document) => Ok((name, document.clone())),
            None => Err(Problem::not_found(kind.as_str(), &name)),
        }
    }
    /// The address of every account, by its id.
    pub fn addresses(&self) -> BTreeMap<u64, String> {
        let state = self.context.ports.config.current();
        state.documents_of(DocumentKind::Account).map(|(name, account)| (account.created, name.to_owned())).collect()
    }
    /// All documents of a kind, each shown.
    pub fn list(&self, kind: DocumentKind, show: fn(&str, &Document) -> Value) -> Vec<Value> {
        self.context.ports.config.current().documents_of(kind).map(|(name, document)| show(name, document)).collect()
    }
    /// Writes a document.
    ///
    /// # Errors
    /// As [`ports::config::Config::propose`].
    pub async fn put(&self, kind: DocumentKind, name: &str, body: Value, expect: Option<u64>) -> Result<(), Problem> {
        let op = ConfigOp::put(kind, name, body, expect);
        let revision = self.context.ports.config.propose(op).await?.revision;
        tracing::info!(kind = kind.as_str(), name, revision, "setting changed");
        Ok(())
    }
    async fn remove(&self, kind: DocumentKind, name: &str) -> Result<StatusCode, Problem> {
        let (name, _) = self.document(kind, name)?;
        self.context.ports.config.propose(ConfigOp::Remove { kind, name: name.clone() }).await?;
        tracing::info!(kind = kind.as_str(), name, "setting removed");
        Ok(StatusCode::NO_CONTENT)
    }
}

fn show_domain(name: &str, document: &Document) -> Value {
    json!({
        "name": name,
        "default": document.body.get("default").and_then(Value::as_bool).unwrap_or(false),
        "revision": document.revision,
    })
}

pub(crate) async fn list_domains(State(api): Shared) -> Json<Value> {
    Json(json!({ "domains": api.list(DocumentKind::Domain, show_domain) }))
}

pub(crate) async fn show_one_domain(State(api): Shared, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let (name, document) = api.document(DocumentKind::Domain, &name)?;
    Ok(Json(show_domain(&name, &document)))
}

pub(crate) async fn add_domain(State(api): Shared, body: Bytes) -> Created {
    let mut fields = Fields::parse(&body)?;
    let name: String = fields.required("name");
    let default: bool = fields.optional("default").unwrap_or(false);
    fields.finish()?;
    api.put(DocumentKind::Domain, &name, json!({ "default": default }), Some(0)).await?;
    let (name, document) = api.document(DocumentKind::Domain, &name)?;
    Ok((StatusCode::CREATED, Json(show_domain(&name, &document))))
}

pub(crate) async fn change_domain(
    State(api): Shared,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let (name, mut document) = api.document(DocumentKind::Domain, &name)?;
    let mut fields = Fields::parse(&body)?;
    if let Some(default) = fields.optional::<bool>("default") {
        document.body["default"] = json!(default);
    }
    fields.finish()?;
    api.put(DocumentKind::Domain, &name, document.body, Some(document.revision)).await?;
    show_one_domain(State(api), Path(name)).await
}

pub(crate) async fn remove_domain(State(api): Shared, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    api.remove(DocumentKind::Domain, &name).await
}

fn show_alias(name: &str, document: &Document) -> Value {
    json!({ "address": name, "targets": document.body.get("targets"), "revision": document.revision })
}

pub(crate) async fn list_aliases(State(api): Shared) -> Json<Value> {
    Json(json!({ "aliases": api.list(DocumentKind::Alias, show_alias) }))
}

pub(crate) async fn show_one_alias(State(api): Shared, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let (name, document) = api.document(DocumentKind::Alias, &name)?;
    Ok(Json(show_alias(&name, &document)))
}

pub(crate) async fn add_alias(State(api): Shared, body: Bytes) -> Created {
    let mut fields = Fields::parse(&body)?;
    let address: String = fields.required("address");
    let targets: Vec<String> = fields.required("targets");
    fields.finish()?;
    api.put(DocumentKind::Alias, &address, json!({ "targets": targets }), Some(0)).await?;
    let (name, document) = api.document(DocumentKind::Alias, &address)?;
    Ok((StatusCode::CREATED, Json(show_alias(&name, &document))))
}

pub(crate) async fn change_alias(
    State(api): Shared,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let (name, document) = api.document(DocumentKind::Alias, &name)?;
    let mut fields = Fields::parse(&body)?;
    let targets: Vec<String> = fields.required("targets");
    fields.finish()?;
    api.put(DocumentKind::Alias, &name, json!({ "targets": targets }), Some(document.revision)).await?;
    show_one_alias(State(api), Path(name)).await
}

pub(crate) async fn remove_alias(State(api): Shared, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    api.remove(DocumentKind::Alias, &name).await
}

/// Why some settings are not taken.
const OWN_SETTING: &str = "the program keeps this setting itself: `twinpost cluster certificates`";

fn show_setting(name: &str, document: &Document) -> Value {
    json!({ "name": name, "value": document.body, "revision": document.revision })
}

pub(crate) async fn list_settings(State(api): Shared) -> Json<Value> {
    Json(json!({ "settings": api.list(DocumentKind::Setting, show_setting) }))
}

pub(crate) async fn show_one_setting(State(api): Shared, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let (name, document) = api.document(DocumentKind::Setting, &name)?;
    Ok(Json(show_setting(&name, &document)))
}

pub(crate) async fn set_setting(
    State(api): Shared,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::parse(&body)?;
    let value: Value = fields.required("value");
    if topology::is_own_setting(&name) {
        fields.fault("value", OWN_SETTING);
    }
    fields.finish()?;
    api.put(DocumentKind::Setting, &name, value, None).await?;
    show_one_setting(State(api), Path(name)).await
}

pub(crate) async fn remove_setting(State(api): Shared, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    if topology::is_own_setting(&name) {
        return Err(Problem::new(StatusCode::CONFLICT, OWN_SETTING));
    }
    api.remove(DocumentKind::Setting, &name).await
}
