//! Errors of the API as problem documents (RFC 9457): what is wrong, where, and what to do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ports::cluster::MembershipError;
use ports::config::ConfigError;
use serde_json::json;
use topology::Fault;
use vocab::SubmitError;

/// One error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    faults: Vec<Fault>,
}

impl Problem {
    /// With this status and explanation.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), faults: Vec::new() }
    }
    /// 422 with every fault and its place.
    #[must_use]
    pub fn faults(faults: Vec<Fault>) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, detail: "nothing was changed".into(), faults }
    }
    /// 404 for a document.
    #[must_use]
    pub fn not_found(what: &str, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no {what} {name}"))
    }
    /// 503 with the reason.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Refused(faults) => Self::faults(faults),
            ConfigError::Conflict(text) => Self::new(StatusCode::CONFLICT, text),
            ConfigError::Locked(text) => Self::unavailable(text),
            ConfigError::Unknown(text) => {
                Self::unavailable(format!("nobody knows whether it was done ({text}): look before you repeat it"))
            }
        }
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<MembershipError> for Problem {
    fn from(error: MembershipError) -> Self {
        match error {
            MembershipError::Refused(text) => Self::new(StatusCode::CONFLICT, text),
            MembershipError::Unavailable(_) | MembershipError::Unknown(_) => Self::unavailable(error.to_string()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if !self.faults.is_empty() {
            body["faults"] = json!(self.faults);
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
