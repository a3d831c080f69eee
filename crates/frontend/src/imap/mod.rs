//! IMAP on 143 and 993: the session's questions answered from the ports.

use std::net::IpAddr;
use std::sync::Arc;

use imap::{Answer, ImapSession, LoginAnswer, Query, Settings};
use mailbox::op::{AccountOp, Change, MailboxRef, NewMessage};
use ports::directory::Login;
use sasl::Credentials;
use tokio::sync::broadcast;
use vocab::error::NO_SPACE;
use vocab::session::Peer;
use vocab::{AccountId, Flags, MailboxId, SubmitError, Timestamp};

use crate::clock;
use crate::config::BodyPermit;
use crate::context::FrontendContext;
use crate::drive::Answerer;
use crate::listener::{Protocol, TurnedAway};
use crate::submit::submit;

/// Bodies above this size are parsed away from the threads that serve connections (bytes).
const PARSE_INLINE_BYTES: usize = 64 * 1024;

/// The IMAP door.
pub struct ImapProtocol {
    context: Arc<FrontendContext>,
    settings: Settings,
}

impl ImapProtocol {
    /// For both ports.
    #[must_use]
    pub fn new(context: Arc<FrontendContext>) -> Self {
        let settings = Settings {
            hostname: context.config.hostname.clone(),
            allow_plaintext: context.config.allow_plaintext,
            message_size_max: context.config.message_size_max,
        };
        Self { context, settings }
    }
}

impl Protocol for ImapProtocol {
    type Session = ImapSession;
    type Answerer = ImapAnswerer;

    fn name(&self) -> &'static str {
        "imap"
    }
    fn farewell(&self, why: TurnedAway) -> &'static str {
        match why {
            TurnedAway::NotServing => "* BYE [UNAVAILABLE] not serving now, come again\r\n",
            TurnedAway::TooMany => "* BYE [LIMIT] too many connections, come again\r\n",
        }
    }
    fn open(&self, peer: &Peer) -> (ImapSession, ImapAnswerer) {
        let session = ImapSession::new(self.settings.clone(), peer.tls, clock::now());
        (session, ImapAnswerer { context: self.context.clone(), peer: peer.address, changes: None, held: None })
    }
}

/// Answers one session.
pub struct ImapAnswerer {
    context: Arc<FrontendContext>,
    peer: IpAddr,
    /// Changes of the account, from the login on.
    changes: Option<broadcast::Receiver<Change>>,
    /// Memory for the message that is coming.
    held: Option<BodyPermit>,
}

/// A message on its way into a mailbox.
struct Incoming {
    account: AccountId,
    mailbox: MailboxId,
    flags: Flags,
    internal_date: Option<Timestamp>,
    message: bytes::Bytes,
}

impl ImapAnswerer {
    async fn login(&mut self, who: &Credentials) -> Answer {
        match self.context.authenticate("imap", self.peer, &who.login, &who.password).await {
            Ok(Login::Accepted(identity)) => {
                self.changes = Some(self.context.ports.accounts.watch(identity.account));
                Answer::Login(LoginAnswer::Accepted(identity.account))
            }
            Ok(Login::Refused) => Answer::Login(LoginAnswer::Refused),
            Err(_) => Answer::Unavailable,
        }
    }

    async fn submit(&self, account: AccountId, op: AccountOp) -> Answer {
        match submit(&self.context.ports, account, op).await {
            Ok(outcome) => Answer::Outcome(outcome),
            Err(error) => {
                tracing::warn!(account = account.0, %error, "IMAP change not made");
                unavailable(&error)
            }
        }
    }

    async fn append(&mut self, incoming: Incoming) -> Answer {
        let Incoming { account, mailbox, flags, internal_date, message } = incoming;
        let held = self.held.take().or_else(|| self.context.budget.take(message.len()));
        let Some(_room) = held else { return Answer::NoRoom };
        let blob_size = message.len() as u64;
        let facts = if message.len() <= PARSE_INLINE_BYTES {
            mime::facts_of(&message).encode()
        } else {
            let parsed = message.clone();
            match tokio::task::spawn_blocking(move || mime::facts_of(&parsed).encode()).await {
                Ok(facts) => facts,
                Err(_) => return Answer::Unavailable,
            }
        };
        let blob = match self.context.ports.blobs.put(message).await {
            Ok(blob) => blob,
            Err(error) => {
                tracing::warn!(account = account.0, %error, "body of APPEND not kept");
                return unavailable(&error);
            }
        };
        let internal_date = internal_date.unwrap_or_else(clock::wall);
        let message = NewMessage { blob, blob_size, prefix: bytes::Bytes::new(), facts, flags, internal_date };
        self.submit(account, AccountOp::Append { mailbox: MailboxRef::Id(mailbox), messages: vec![message] }).await
    }
}

/// A full disk is told as a limit, everything else as unavailable. `Unknown` is told as `NO [UNAVAILABLE]` too: IMAP has no word for it, and clients look before they repeat.
fn unavailable(error: &SubmitError) -> Answer {
    metrics::counter!("twinpost_imap_unanswered_total", "kind" => match error {
        SubmitError::Unavailable(_) => "unavailable",
        SubmitError::Unknown(_) => "unknown",
    })
    .increment(1);
    if *error == SubmitError::Unavailable(NO_SPACE) { Answer::NoRoom } else { Answer::Unavailable }
}

impl Answerer<ImapSession> for ImapAnswerer {
    fn answer(&mut self, query: Query) -> ports::Answer<'_, Answer> {
        Box::pin(async move {
            match query {
                Query::Login(credentials) => self.login(&credentials).await,
                Query::Snapshot(account) => match self.context.ports.accounts.snapshot(account).await {
                    Ok(rows) => Answer::Snapshot(rows),
                    Err(error) => {
                        tracing::info!(account = account.0, %error, "account not readable now");
                        Answer::Unavailable
                    }
                },
                Query::Hold(bytes) => {
                    self.held = None;
                    self.held = self.context.budget.take(bytes);
                    if self.held.is_some() { Answer::Held } else { Answer::NoRoom }
                }
                Query::Body { blob, from, to } => match self.context.ports.blobs.get(blob, from, to).await {
                    Ok(bytes) => Answer::Body(bytes),
                    Err(error) => {
                        tracing::warn!(%blob, %error, "body not available");
                        Answer::Unavailable
                    }
                },
                Query::Submit { account, op } => self.submit(account, op).await,
                Query::Append { account, mailbox, flags, internal_date, message } => {
                    self.append(Incoming { account, mailbox, flags, internal_date, message }).await
                }
            }
        })
    }

    fn watched(&mut self) -> Option<&mut broadcast::Receiver<Change>> {
        self.changes.as_mut()
    }

    fn concerns(&self, change: &Change) -> bool {
        // A backup and a change of epochs say `Hierarchy` for "look again".
        !matches!(change, Change::Document(_))
    }
}
