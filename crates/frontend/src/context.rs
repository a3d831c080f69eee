//! What every protocol's answerer has at hand: the ports, the settings, and the check of passwords with its delay.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ports::directory::Login;
use vocab::SubmitError;
use vocab::log::{self, Access, Admin, Entry};

use crate::clock;
use crate::config::{BodyBudget, FrontendConfig};
use crate::listener::network_of;
use crate::proxy::Proxy;

/// First delay of a wrong password (ms); doubles with each failure of the same network.
const DELAY_FIRST_MS: u64 = 500;
/// Longest delay (ms).
const DELAY_MAX_MS: u64 = 4_000;
/// Failures are forgotten after this time without a new one (ms).
const FORGET_MS: u64 = 10 * 60 * 1000;
/// Networks remembered at once; the oldest are forgotten first.
const NETWORKS_MAX: usize = 10_000;

/// The seams a front-end works through.
#[derive(Clone)]
pub struct Ports {
    /// Mailboxes.
    pub accounts: Arc<dyn ports::accounts::Accounts>,
    /// Bodies.
    pub blobs: Arc<dyn ports::blobs::Blobs>,
    /// Configuration.
    pub config: Arc<dyn ports::config::Config>,
    /// Who exists and who may.
    pub directory: Arc<dyn ports::directory::Directory>,
    /// Accepting messages.
    pub intake: Arc<dyn ports::intake::Intake>,
    /// The queue.
    pub outbox: Arc<dyn ports::outbox::Outbox>,
    /// The cluster.
    pub cluster: Arc<dyn ports::cluster::Cluster>,
    /// Streams to other nodes.
    pub streams: Arc<dyn ports::streams::Streams>,
    /// Takes notes for the log.
    pub log: Arc<dyn ports::log::Log>,
    /// Asks the log.
    pub logs: Arc<dyn ports::log::Logs>,
}

/// Shared by all connections.
pub struct FrontendContext {
    /// Seams.
    pub ports: Ports,
    /// Settings.
    pub config: FrontendConfig,
    /// Memory for messages.
    pub budget: BodyBudget,
    /// Connections that one node accepted and another serves.
    pub proxy: Arc<Proxy>,
    failures: Failures,
}

impl FrontendContext {
    /// Shared state of a front-end.
    #[must_use]
    pub fn new(ports: Ports, config: FrontendConfig) -> Arc<Self> {
        let budget = BodyBudget::new(config.limits.message_memory_bytes);
        let proxy = Arc::new(Proxy::new(ports.cluster.clone(), ports.streams.clone(), ports.config.clone()));
        Arc::new(Self { ports, config, budget, proxy, failures: Failures::default() })
    }

    /// Checks a login, counts it, and delays the answer to a wrong one, the longer the more there were from the same
    /// network.
    ///
    /// # Errors
    /// Unavailable: the check could not be made; never told as "refused".
    pub async fn authenticate(
        &self,
        protocol: &'static str,
        from: IpAddr,
        login: &str,
        password: &str,
    ) -> Result<Login, SubmitError> {
        let result = self.ports.directory.authenticate(login, password).await;
        self.note_login(protocol, from, login, &result);
        match &result {
            Ok(Login::Accepted(identity)) => {
                self.failures.forget(from);
                metrics::counter!("twinpost_logins_total", "protocol" => protocol, "result" => "accepted").increment(1);
                tracing::debug!(protocol, %from, account = %identity.address, "login");
            }
            Ok(Login::Refused) => {
                metrics::counter!("twinpost_logins_total", "protocol" => protocol, "result" => "refused").increment(1);
                let delay = self.failures.count(from);
                tracing::warn!(protocol, %from, login, delay_ms = delay, "login refused");
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
            Err(error) => {
                metrics::counter!("twinpost_logins_total", "protocol" => protocol, "result" => "unavailable")
                    .increment(1);
                tracing::warn!(protocol, %from, %error, "login could not be checked");
            }
        }
        result
    }
}

impl FrontendContext {
    fn note_login(&self, protocol: &str, from: IpAddr, login: &str, result: &Result<Login, SubmitError>) {
        let (success, reason) = match result {
            Ok(Login::Accepted(_)) => (true, String::new()),
            Ok(Login::Refused) => (false, "name or password is wrong, or the account may not log in".to_owned()),
            Err(error) => (false, format!("could not be checked: {error}")),
        };
        self.ports.log.note(Entry::Access(Access {
            protocol: protocol.to_owned(),
            user: log::text(login),
            host: from.to_string(),
            success,
            reason,
        }));
    }

    /// Notes what a change of settings by an administrator was.
    pub(crate) fn note_change(&self, event: &str, kind: &str, from: &str) {
        self.ports.log.note(Entry::Admin(Admin {
            event: log::text(event),
            kind: log::text(kind),
            user: "administrator".to_owned(),
            host: from.to_owned(),
        }));
    }
}

/// Failed logins by network: how many, and when the last one was (ms).
#[derive(Default)]
struct Failures(Mutex<HashMap<IpAddr, (u32, u64)>>);

impl Failures {
    fn count(&self, from: IpAddr) -> u64 {
        let now = clock::now().0;
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= NETWORKS_MAX {
            failures.retain(|_, (_, at)| now.saturating_sub(*at) < FORGET_MS);
            if failures.len() >= NETWORKS_MAX {
                failures.clear();
            }
        }
        let (count, at) = failures.entry(network_of(from)).or_insert((0, now));
        if now.saturating_sub(*at) >= FORGET_MS {
            *count = 0;
        }
        *count = count.saturating_add(1);
        *at = now;
        DELAY_FIRST_MS.saturating_mul(1 << (*count - 1).min(10)).min(DELAY_MAX_MS)
    }
    fn forget(&self, from: IpAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&network_of(from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_are_forgotten_by_success() {
        let failures = Failures::default();
        let from = IpAddr::from([192, 0, 2, 1]);
        assert_eq!([failures.count(from), failures.count(from), failures.count(from)], [500, 1000, 2000]);
        assert_eq!(failures.count(IpAddr::from([192, 0, 2, 2])), 500);
        failures.forget(from);
        assert_eq!(failures.count(from), 500);
        (0..50).for_each(|_| assert!(failures.count(from) <= DELAY_MAX_MS));
    }
}
