//! SMTP on port 25 and submission on 465 and 587: the session's questions answered from the ports.

mod accept;
mod answer;
mod logged;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smtp::session::{Config, Role, SmtpSession};
use vocab::limits;
use vocab::session::Peer;

pub use answer::SmtpAnswerer;
pub use logged::LoggedSession;

use crate::clock;
use crate::context::FrontendContext;
use crate::listener::{Protocol, TurnedAway};

/// Sessions whose lines were noted, to tell them apart.
static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// One of the two doors; submission serves both its ports.
pub struct SmtpProtocol {
    context: Arc<FrontendContext>,
    config: Arc<Config>,
}

impl SmtpProtocol {
    /// A door in this role.
    #[must_use]
    pub fn new(context: Arc<FrontendContext>, role: Role) -> Self {
        let config = Config {
            role,
            host: context.config.hostname.clone(),
            tls_offered: true,
            allow_plaintext: context.config.allow_plaintext,
            message_size_max: context.config.message_size_max,
            recipients_max: limits::RECIPIENTS_MAX,
        };
        Self { context, config: Arc::new(config) }
    }
}

/// The door's name in logs and metrics.
const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Mx => "smtp",
        Role::Submission => "submission",
    }
}

impl Protocol for SmtpProtocol {
    type Session = LoggedSession;
    type Answerer = SmtpAnswerer;

    fn name(&self) -> &'static str {
        role_name(self.config.role)
    }
    fn farewell(&self, why: TurnedAway) -> &'static str {
        match why {
            TurnedAway::NotServing => "421 4.3.2 service not available, try again\r\n",
            TurnedAway::TooMany => "421 4.7.0 too many connections, try again\r\n",
        }
    }
    fn open(&self, peer: &Peer) -> (LoggedSession, SmtpAnswerer) {
        let session = SmtpSession::new(self.config.clone(), peer.clone(), clock::now());
        let name = || format!("{:x}-{}", clock::wall().0, SESSIONS.fetch_add(1, Ordering::Relaxed));
        let session = LoggedSession::new(session, &self.context.ports.log, name, &peer.address.to_string());
        (session, SmtpAnswerer::new(self.context.clone(), role_name(self.config.role), peer.address))
    }
}

#[cfg(test)]
mod tests;
