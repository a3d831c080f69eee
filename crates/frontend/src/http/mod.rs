//! The administrator's API, metrics and health on the HTTPS port. JSON in, JSON out, problem documents for errors.
//!
//! `/api/v1` and `/metrics` want the administrator's token; health and the description of the API do not. A new request
//! is one row in [`routes`] and one in `openapi.json`; a test compares the two.

mod accounts;
mod address;
mod afterwards;
mod certificates;
mod cluster;
mod documents;
mod fields;
mod import;
mod logs;
mod primary;
mod problem;
mod recovery;
mod service;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use axum::{Json, Router};
use ports::Answer;
use ports::config::ConfigError;
use serde_json::Value;

pub use certificates::{CertificateOffice, RotationOrder};
pub use problem::Problem;
pub use service::HttpService;
use vocab::log::{Access, Entry};

use crate::context::FrontendContext;

/// Longest request body (bytes); 413 above it.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Longest time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The description of the API.
const OPENAPI: &str = include_str!("openapi.json");

/// Makes tokens with which a node joins.
pub trait JoinTokens: Send + Sync {
    /// A new one-use token.
    ///
    /// # Errors
    /// As [`ports::config::Config::propose`].
    fn create(&self) -> Answer<'_, Result<String, ConfigError>>;
    /// What one made now would allow.
    fn plan(&self) -> TokenPlan;
}

/// What a join token would allow.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct TokenPlan {
    /// How long it could be used.
    pub valid_seconds: u64,
    /// Where the joiner would ask (`host:port`).
    pub addresses: Vec<String>,
    /// Id of the next node.
    pub next_node: u32,
    /// How many nodes with mail may still join.
    pub room_mail: usize,
    /// How many witnesses may still join.
    pub room_witness: usize,
    /// Tokens that were made and not used yet.
    pub unused: usize,
    /// Why none can be made now.
    pub settings_locked: Option<String>,
}

/// Makes consistent copies of this node's mail for another machine.
pub trait Checkpoints: Send + Sync {
    /// Makes one in this folder, which must not exist yet.
    ///
    /// # Errors
    /// Why there is none.
    fn create(&self, folder: std::path::PathBuf) -> Answer<'_, Result<(), String>>;
}

/// One thing found about an address the cluster is to have.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AddressCheck {
    /// Which.
    pub name: &'static str,
    /// It forbids the change.
    pub refused: bool,
    /// What was found.
    pub found: String,
    /// What to do; empty when there is nothing to do.
    pub advice: String,
}

/// Looks at addresses that the cluster is to have, from this machine.
pub trait AddressChecks: Send + Sync {
    /// Whether it is in the nodes' network, and nobody has it. `known`: the cluster has it and gets another network for it.
    fn examine(&self, address: topology::ClusterAddress, known: bool) -> Answer<'_, Vec<AddressCheck>>;
    /// Whether the certificate for clients is made by this program, which names the addresses in it.
    fn certificate_follows(&self) -> bool;
}

/// What the nodes tell of themselves.
pub trait Reports: Send + Sync {
    /// Every node with the use of its machine and the state of its functions: `{"servers": [...]}`.
    fn servers(&self) -> Answer<'_, Value>;
    /// One file (a gzipped tar) with what a stranger needs to help; without mail and secrets.
    ///
    /// # Errors
    /// Why there is none.
    fn support_bundle(&self) -> Answer<'_, Result<bytes::Bytes, String>>;
}

/// What the assembling program gives the API.
#[derive(Clone)]
pub struct Administration {
    /// The administrator's token.
    pub token: String,
    /// Renders all metrics in the text format of Prometheus.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Makes join tokens.
    pub join_tokens: Arc<dyn JoinTokens>,
    /// Makes checkpoints.
    pub checkpoints: Arc<dyn Checkpoints>,
    /// Looks at addresses.
    pub addresses: Arc<dyn AddressChecks>,
    /// What is the matter now: `{"alerts": [...]}`.
    pub alerts: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Asks the nodes how they do.
    pub reports: Arc<dyn Reports>,
    /// Certificates of all nodes.
    pub certificates: Arc<dyn CertificateOffice>,
}

/// Address of the client of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(pub(crate) std::net::IpAddr);

/// State of all requests.
pub(crate) struct Api {
    pub(crate) context: Arc<FrontendContext>,
    pub(crate) administration: Administration,
    token: blake3::Hash,
}

pub(crate) type Shared = State<Arc<Api>>;
pub(crate) type Created = Result<(StatusCode, Json<Value>), Problem>;

/// A path with its methods and who answers; `true`: wants the token.
type Route = (&'static str, &'static [&'static str], bool, MethodRouter<Arc<Api>>);

#[rustfmt::skip]
fn routes() -> Vec<Route> {
    use documents as d;
    vec![
        ("/api/v1/cluster", &["get"], true, get(cluster::status)),
        ("/api/v1/cluster/start-alone", &["post"], true, post(cluster::start_alone)),
        ("/api/v1/cluster/switchover", &["post"], true, post(cluster::switch_over)),
        ("/api/v1/cluster/leave", &["post"], true, post(cluster::leave)),
        ("/api/v1/cluster/remove", &["post"], true, post(cluster::remove)),
        ("/api/v1/cluster/rescue", &["post"], true, post(cluster::rescue)),
        ("/api/v1/cluster/tokens", &["post"], true, post(cluster::create_token)),
        ("/api/v1/store/checkpoint", &["post"], true, post(cluster::create_checkpoint)),
        ("/api/v1/cluster/primary", &["get", "put"], true, get(primary::show).put(primary::set)),
        ("/api/v1/cluster/address", &["get", "put"], true, get(address::show).put(address::set)),
        ("/api/v1/cluster/certificates", &["get"], true, get(certificates::list)),
        ("/api/v1/cluster/certificates/renew", &["post"], true, post(certificates::renew)),
        ("/api/v1/cluster/certificates/rotate-ca", &["post"], true, post(certificates::rotate)),
        ("/api/v1/cluster/events", &["get"], true, get(cluster::events)),
        ("/api/v1/alerts", &["get"], true, get(alerts)),
        ("/api/v1/servers", &["get"], true, get(servers)),
        ("/api/v1/support/bundle", &["get"], true, get(support_bundle)),
        ("/api/v1/logs", &["get"], true, get(logs::search)),
        ("/api/v1/branches", &["get"], true, get(cluster::branches)),
        ("/api/v1/branches/{id}", &["delete"], true, delete(cluster::delete_branch)),
        ("/api/v1/queue", &["get"], true, get(cluster::queue)),
        ("/api/v1/queue/release", &["post"], true, post(cluster::release_queue)),
        ("/api/v1/domains", &["get", "post"], true, get(d::list_domains).post(d::add_domain)),
        ("/api/v1/domains/{name}", &["get", "patch", "delete"], true,
            get(d::show_one_domain).merge(patch(d::change_domain)).merge(delete(d::remove_domain))),
        ("/api/v1/accounts", &["get", "post"], true, get(accounts::list).post(accounts::add)),
        ("/api/v1/accounts/{address}", &["get", "patch", "delete"], true,
            get(accounts::show_one).merge(patch(accounts::change)).merge(delete(accounts::remove))),
        ("/api/v1/accounts/{address}/recovery", &["get"], true, get(recovery::list)),
        ("/api/v1/accounts/{address}/recovery/{id}/restore", &["post"], true, post(recovery::restore)),
        ("/api/v1/accounts/{address}/import", &["post"], true,
            post(import::import).layer(DefaultBodyLimit::max(import::BYTES_MAX))),
        ("/api/v1/accounts/{address}/import/missing", &["post"], true, post(import::missing)),
        ("/api/v1/aliases", &["get", "post"], true, get(d::list_aliases).post(d::add_alias)),
        ("/api/v1/aliases/{address}", &["get", "patch", "delete"], true,
            get(d::show_one_alias).merge(patch(d::change_alias)).merge(delete(d::remove_alias))),
        ("/api/v1/settings", &["get"], true, get(d::list_settings)),
        ("/api/v1/settings/{name}", &["get", "put", "delete"], true,
            get(d::show_one_setting).merge(put(d::set_setting)).merge(delete(d::remove_setting))),
        ("/api/v1/openapi.json", &["get"], false, get(openapi)),
        ("/metrics", &["get"], true, get(cluster::metrics)),
        ("/health/live", &["get"], false, get(cluster::live)),
        ("/health/ready", &["get"], false, get(cluster::ready)),
        ("/health/primary", &["get"], false, get(cluster::primary)),
    ]
}

/// The whole API.
pub fn router(context: Arc<FrontendContext>, administration: Administration) -> Router {
    let token = blake3::hash(administration.token.as_bytes());
    let api = Arc::new(Api { context, administration, token });
    let (mut open, mut closed) = (Router::new(), Router::new());
    for (path, _, wants_token, methods) in routes() {
        match wants_token {
            true => closed = closed.route(path, methods),
            false => open = open.route(path, methods),
        }
    }
    let closed = closed.route_layer(axum::middleware::from_fn_with_state(api.clone(), check_token));
    open.merge(closed)
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "no such path; see /api/v1/openapi.json") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no such method here; see /api/v1/openapi.json")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn(in_time))
        .with_state(api)
}

async fn alerts(State(api): Shared) -> Json<Value> {
    Json((api.administration.alerts)())
}

async fn servers(State(api): Shared) -> Json<Value> {
    Json(api.administration.reports.servers().await)
}

async fn support_bundle(State(api): Shared) -> Result<Response, Problem> {
    let bundle = api.administration.reports.support_bundle().await;
    let bundle = bundle.map_err(|fault| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, &fault))?;
    Ok(([(header::CONTENT_TYPE, "application/gzip")], bundle).into_response())
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable("not done in time; look before you repeat it").into_response(),
    }
}

async fn check_token(State(api): Shared, headers: HeaderMap, request: Request, next: Next) -> Response {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given =
        given.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    // Hashes of this type are compared in constant time.
    if given.is_some_and(|(_, token)| blake3::hash(token.trim().as_bytes()) == api.token) {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let from = caller(&request);
        let response = next.run(request).await;
        if method != Method::GET {
            note_change(&api, (&method, &path), &from, response.status());
        }
        return response;
    }
    metrics::counter!("twinpost_api_refused_total").increment(1);
    api.context.ports.log.note(Entry::Access(Access {
        protocol: "api".to_owned(),
        user: "administrator".to_owned(),
        host: caller(&request),
        success: false,
        reason: "no token, or a wrong one".to_owned(),
    }));
    Problem::new(StatusCode::UNAUTHORIZED, "wants \"Authorization: Bearer\" with the administrator's token")
        .into_response()
}

/// Address of who asks.
fn caller(request: &Request) -> String {
    request.extensions().get::<Caller>().map(|caller| caller.0.to_string()).unwrap_or_default()
}

/// What was changed, by whom, and whether it was (LOG-06); bodies may hold passwords and are not noted.
fn note_change(api: &Api, (method, path): (&Method, &str), from: &str, status: StatusCode) {
    let rest = path.trim_start_matches("/api/v1/");
    let kind = rest.split('/').next().unwrap_or_default();
    let verb = match *method {
        Method::POST => "add or do",
        Method::PUT => "set",
        Method::PATCH => "change",
        Method::DELETE => "remove",
        _ => method.as_str(),
    };
    let done = if status.is_success() { "done" } else { "not done" };
    api.context.note_change(&format!("{verb} {rest}: {done} ({})", status.as_u16()), kind, from);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_description_names_every_route_and_no_other() {
        let described: Value = serde_json::from_str(OPENAPI).expect("openapi.json");
        let paths = described["paths"].as_object().expect("paths");
        let methods = |object: &Value| {
            object.as_object().expect("methods").keys().filter(|k| *k != "parameters").cloned().collect::<Vec<_>>()
        };
        let said: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, object)| methods(object).into_iter().map(move |m| (path.clone(), m)))
            .collect();
        let real: BTreeSet<(String, String)> = routes()
            .into_iter()
            .flat_map(|(path, methods, _, _)| methods.iter().map(move |m| (path.to_owned(), (*m).to_owned())))
            .collect();
        assert_eq!(said, real);
    }
}
