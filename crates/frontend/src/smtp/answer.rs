//! Questions of one SMTP session to the ports.

use std::net::IpAddr;
use std::sync::Arc;

use ports::directory::{self, AddressClass, Login};
use sasl::Credentials;
use smtp::session::{Answer, Class, Identity, Incoming, Query, Role, Target};
use vocab::error::NO_SPACE;
use vocab::log::{self, Entry, Security, SecurityType};
use vocab::{Address, ForwardPath, SubmitError};

use crate::clock;
use crate::config::BodyPermit;
use crate::context::FrontendContext;
use crate::drive::Answerer;
use crate::smtp::LoggedSession;
use crate::smtp::accept::accept_message;

/// Answers one session; holds the memory of the message that is coming in.
pub struct SmtpAnswerer {
    context: Arc<FrontendContext>,
    door: &'static str,
    peer: IpAddr,
    held: usize,
    permits: Vec<BodyPermit>,
}

impl SmtpAnswerer {
    /// For one connection through `door` from `peer`.
    #[must_use]
    pub const fn new(context: Arc<FrontendContext>, door: &'static str, peer: IpAddr) -> Self {
        Self { context, door, peer, held: 0, permits: Vec::new() }
    }

    async fn classify(&self, path: &ForwardPath) -> Answer {
        let class = match self.context.ports.directory.classify(path).await {
            Ok(class) => class,
            Err(error) => {
                tracing::warn!(recipient = %path, %error, "recipient could not be looked up");
                return Answer::Unavailable;
            }
        };
        self.note_refusal(path, &class);
        let target = |target| match target {
            directory::Target::Local(account) => Target::Local(account),
            directory::Target::Remote(address) => Target::Remote(address),
        };
        Answer::Class(match class {
            AddressClass::Own(targets) => Class::Own(targets.into_iter().map(target).collect()),
            AddressClass::NoSuchUser => Class::NoSuchUser,
            AddressClass::Disabled => Class::Disabled,
            AddressClass::NotOurs => Class::NotOurs,
        })
    }

    /// A recipient that the client is refused, for the security log (LOG-05). Addresses elsewhere are for who has logged in.
    fn note_refusal(&self, path: &ForwardPath, class: &AddressClass) {
        let event = match class {
            AddressClass::NoSuchUser => "no such recipient",
            AddressClass::Disabled => "the recipient is disabled",
            AddressClass::NotOurs if self.door == super::role_name(Role::Mx) => "not for this server: relaying denied",
            AddressClass::NotOurs | AddressClass::Own(_) => return,
        };
        self.context.ports.log.note(Entry::Security(Security {
            kind: SecurityType::Rejected.into(),
            source: self.peer.to_string(),
            recipient: log::text(&path.to_string()),
            event: event.to_owned(),
            ..Security::default()
        }));
    }

    async fn authenticate(&self, credentials: &Credentials) -> Answer {
        match self.context.authenticate(self.door, self.peer, &credentials.login, &credentials.password).await {
            Ok(Login::Accepted(identity)) => {
                Answer::Login(Some(Identity { account: identity.account, address: identity.address }))
            }
            Ok(Login::Refused) => Answer::Login(None),
            Err(_) => Answer::Unavailable,
        }
    }

    fn may_send_as(&self, identity: Identity, address: &Address) -> bool {
        let identity = directory::Identity { account: identity.account, address: identity.address };
        self.context.ports.directory.may_send_as(&identity, address)
    }

    fn hold(&mut self, bytes: usize) -> bool {
        if bytes < self.held {
            self.release();
        }
        let Some(permit) = self.context.budget.take(bytes - self.held) else {
            metrics::counter!("twinpost_message_memory_refusals_total").increment(1);
            return false;
        };
        self.permits.push(permit);
        self.held = bytes;
        true
    }

    fn release(&mut self) {
        self.permits.clear();
        self.held = 0;
    }

    async fn accept(&mut self, incoming: Incoming) -> Answer {
        let context = self.context.clone();
        let result = accept_message(&context.ports, &context.config.hostname, incoming, clock::wall()).await;
        self.release();
        match result {
            Ok(accept) => {
                metrics::counter!("twinpost_messages_accepted_total", "door" => self.door).increment(1);
                Answer::Accepted(accept)
            }
            Err(SubmitError::Unavailable(NO_SPACE)) => Answer::NoSpace,
            Err(_) => Answer::Unavailable,
        }
    }
}

impl Answerer<LoggedSession> for SmtpAnswerer {
    fn answer(&mut self, query: Query) -> ports::Answer<'_, Answer> {
        Box::pin(async move {
            match query {
                Query::Classify(path) => self.classify(&path).await,
                Query::Authenticate(credentials) => self.authenticate(&credentials).await,
                Query::MaySendAs(identity, address) => Answer::Allowed(self.may_send_as(identity, &address)),
                Query::Hold(bytes) => Answer::Allowed(self.hold(bytes)),
                Query::Accept(incoming) => self.accept(*incoming).await,
            }
        })
    }
}
