//! The setting of alerts.

use serde::{Deserialize, Serialize};
use vocab::Address;

use crate::apply::Faults;

/// Name of the setting of alerts.
pub const ALERTS_SETTING: &str = "alerts";
/// Addresses that are told.
const ADDRESSES_MAX: usize = 20;

/// Body of the setting [`ALERTS_SETTING`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertsBody {
    /// Who is told by mail; own addresses are told even while the way out is closed.
    pub mail: Vec<String>,
    /// Where a JSON document is posted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// Matters that are good to know are told too.
    pub info: bool,
}

pub(crate) fn check(body: &AlertsBody, place: &str, faults: &mut Faults) {
    for (number, address) in body.mail.iter().enumerate() {
        if let Err(what) = Address::parse(address) {
            faults.add(format!("{place}/body/mail/{number}"), format!("{address} is no address: {what}"));
        }
    }
    let count = format!("more than {ADDRESSES_MAX} addresses");
    faults.require(body.mail.len() <= ADDRESSES_MAX, format!("{place}/body/mail"), count);
    let url = body.webhook.as_ref().is_none_or(|url| url.starts_with("https://") || url.starts_with("http://"));
    faults.require(url, format!("{place}/body/webhook"), "must begin with https:// or http://");
}
