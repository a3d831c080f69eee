//! The setting of the log.

use serde::{Deserialize, Serialize};

use crate::apply::Faults;

/// Name of the setting of the log.
pub const LOG_SETTING: &str = "log";
/// Days the log may be told to keep.
const DAYS_MAX: u32 = 36_500;

/// How much of the log is kept: whatever is reached first. 0 days, records or megabytes: that does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Keep {
    /// Days.
    pub days: u32,
    /// Records (LOG-14).
    pub records: u64,
    /// Megabytes on disk.
    pub megabytes: u64,
}

impl Default for Keep {
    fn default() -> Self {
        Self { days: 365, records: 400_000_000, megabytes: 20_000 }
    }
}

/// Of the protocol log.
const KEEP_PROTOCOL: Keep = Keep { days: 7, records: 50_000_000, megabytes: 4_000 };

const fn keep_protocol() -> Keep {
    KEEP_PROTOCOL
}

/// Where records go besides (RFC 5424).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyslogBody {
    /// Name or address, and port.
    pub server: String,
    /// TLS (RFC 5425); else plain TCP (RFC 6587, octet counting).
    #[serde(default)]
    pub tls: bool,
    /// CA certificates of the server, PEM; none: the well-known ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Kinds that go there; none: all but `protocol`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
}

/// Body of the setting [`LOG_SETTING`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogBody {
    /// Mail, security, access, admin and cluster log.
    pub keep: Keep,
    /// Every line of SMTP is noted, but bodies and credentials.
    pub protocol: bool,
    /// Of the protocol log.
    #[serde(default = "keep_protocol")]
    pub keep_protocol: Keep,
    /// The secondaries keep a copy of what is made from now on (LOG-12).
    pub copy: bool,
    /// Forwarding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syslog: Option<SyslogBody>,
}

impl Default for LogBody {
    fn default() -> Self {
        Self { keep: Keep::default(), protocol: false, keep_protocol: KEEP_PROTOCOL, copy: false, syslog: None }
    }
}

pub(crate) fn check(body: &LogBody, place: &str, faults: &mut Faults) {
    for (name, keep) in [("keep", &body.keep), ("keep_protocol", &body.keep_protocol)] {
        let limited = keep.days > 0 || keep.records > 0 || keep.megabytes > 0;
        faults.require(limited, format!("{place}/body/{name}"), "needs a limit: days, records or megabytes");
        let days = format!("{place}/body/{name}/days");
        faults.require(keep.days <= DAYS_MAX, days, format!("is above {DAYS_MAX}"));
    }
    if let Some(syslog) = &body.syslog {
        let port = syslog.server.rsplit_once(':').and_then(|(host, port)| {
            let host = !host.is_empty() && !host.chars().any(char::is_whitespace);
            port.parse::<u16>().ok().filter(|port| host && *port > 0)
        });
        faults.require(port.is_some(), format!("{place}/body/syslog/server"), "must be NAME:PORT");
        let ca = syslog.ca.as_ref().is_none_or(|ca| ca.contains("-----BEGIN CERTIFICATE-----"));
        faults.require(ca, format!("{place}/body/syslog/ca"), "must be certificates in PEM");
    }
}
