//! Certificates: who has what until when, new ones by order, the exchange of the CA.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use ports::Answer;
use ports::config::ConfigError;
use serde_json::Value;

use super::fields::Fields;
use super::{Problem, Shared};

/// An order about the exchange of the cluster's CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationOrder {
    /// Begin; `hold`: wait for a word after the first step.
    Begin {
        /// Wait.
        hold: bool,
    },
    /// A held one may go on.
    GoOn,
    /// Go back; only in the first step.
    CallOff,
}

/// Certificates of all nodes, as an operator sees and orders them.
pub trait CertificateOffice: Send + Sync {
    /// What each node has until when, and how far an exchange of the CA is.
    fn list(&self) -> Answer<'_, Value>;
    /// New certificates for this node, or for all; each node's outcome is in the answer.
    ///
    /// # Errors
    /// No such node.
    fn renew(&self, node: Option<u32>) -> Answer<'_, Result<Value, ConfigError>>;
    /// Steers the exchange of the CA, or says what would happen.
    ///
    /// # Errors
    /// As [`ports::config::Config::propose`]; conflict: not at this step.
    fn rotate(&self, order: RotationOrder, dry_run: bool) -> Answer<'_, Result<Value, ConfigError>>;
}

pub(crate) async fn list(State(api): Shared) -> Json<Value> {
    Json(api.administration.certificates.list().await)
}

pub(crate) async fn renew(State(api): Shared, body: Bytes) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::parse(&body)?;
    let node: Option<u32> = fields.optional::<Option<u32>>("node").flatten();
    fields.finish()?;
    Ok(Json(api.administration.certificates.renew(node).await?))
}

pub(crate) async fn rotate(State(api): Shared, body: Bytes) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::parse(&body)?;
    let order: String = fields.required("order");
    let hold = fields.optional("hold").unwrap_or(false);
    let dry_run = fields.optional("dry_run").unwrap_or(false);
    let order = match order.as_str() {
        "go_on" => RotationOrder::GoOn,
        "call_off" => RotationOrder::CallOff,
        other => {
            if other != "begin" {
                fields.fault("order", "must be begin, go_on or call_off");
            }
            RotationOrder::Begin { hold }
        }
    };
    fields.finish()?;
    Ok(Json(api.administration.certificates.rotate(order, dry_run).await?))
}
