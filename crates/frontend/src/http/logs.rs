//! The log, asked by operators at any node; the primary answers.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use ports::log::{Filter, Page, SearchError};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::http::Shared;
use crate::http::problem::Problem;

/// What is asked for, as words of the query.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Kinds, separated by commas.
    kind: Option<String>,
    /// RFC 3339, or Unix milliseconds.
    from: Option<String>,
    to: Option<String>,
    sender: Option<String>,
    recipient: Option<String>,
    id: Option<String>,
    host: Option<String>,
    outcome: Option<String>,
    user: Option<String>,
    text: Option<String>,
    within: bool,
    limit: Option<usize>,
    page: Option<String>,
    since: Option<u64>,
}

fn time(name: &str, text: Option<&String>) -> Result<Option<u64>, SearchError> {
    let Some(text) = text else { return Ok(None) };
    if let Ok(ms) = text.parse() {
        return Ok(Some(ms));
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).ok();
    let ms = at.and_then(|at| u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok());
    ms.map(Some).ok_or_else(|| SearchError::Bad(format!("`{name}` is no time: RFC 3339, or Unix milliseconds")))
}

impl Wanted {
    fn filter(self) -> Result<Filter, SearchError> {
        let kinds = self.kind.as_deref().unwrap_or_default().split(',').map(str::trim);
        Ok(Filter {
            kinds: kinds.filter(|kind| !kind.is_empty()).map(ToOwned::to_owned).collect(),
            from_ms: time("from", self.from.as_ref())?,
            to_ms: time("to", self.to.as_ref())?,
            sender: self.sender,
            recipient: self.recipient,
            id: self.id,
            host: self.host,
            outcome: self.outcome,
            user: self.user,
            text: self.text,
            within: self.within,
            limit: self.limit,
            page: self.page,
            since: self.since,
        })
    }
}

impl From<SearchError> for Problem {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Bad(what) => Self::new(StatusCode::BAD_REQUEST, &what),
            SearchError::Unavailable(what) => Self::unavailable(&what),
        }
    }
}

pub(crate) async fn search(State(api): Shared, Query(wanted): Query<Wanted>) -> Result<Json<Page>, Problem> {
    Ok(Json(api.context.ports.logs.search(wanted.filter()?).await?))
}
