//! POP3 on 110 and 995: the session's questions answered from the ports.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

use mailbox::op::{AccountOp, Outcome, Role};
use mailbox::read;
use pop3::{Answer, Listed, Opened, Query, Session, Settings};
use ports::directory::Login;
use sasl::Credentials;
use vocab::session::Peer;
use vocab::{AccountId, Damaged, MailboxId, PlacementId, Rows};

use crate::clock;
use crate::context::FrontendContext;
use crate::drive::Answerer;
use crate::listener::{Protocol, TurnedAway};
use crate::submit::submit;

/// Messages removed by one operation at QUIT; more are split.
const EXPUNGE_MAX: usize = 5_000;

/// The POP3 door.
pub struct Pop3Protocol {
    context: Arc<FrontendContext>,
    settings: Settings,
}

impl Pop3Protocol {
    /// For both ports.
    #[must_use]
    pub fn new(context: Arc<FrontendContext>) -> Self {
        let settings =
            Settings { hostname: context.config.hostname.clone(), allow_plaintext: context.config.allow_plaintext };
        Self { context, settings }
    }
}

impl Protocol for Pop3Protocol {
    type Session = Session;
    type Answerer = Pop3Answerer;

    fn name(&self) -> &'static str {
        "pop3"
    }
    fn farewell(&self, why: TurnedAway) -> &'static str {
        match why {
            TurnedAway::NotServing => "-ERR [SYS/TEMP] not serving now, come again\r\n",
            TurnedAway::TooMany => "-ERR [SYS/TEMP] too many connections, come again\r\n",
        }
    }
    fn open(&self, peer: &Peer) -> (Session, Pop3Answerer) {
        let session = Session::new(self.settings.clone(), peer.tls, clock::now());
        (session, Pop3Answerer { context: self.context.clone(), peer: peer.address, inbox: None })
    }
}

/// The INBOX of the login as it was then.
struct Inbox {
    account: AccountId,
    mailbox: MailboxId,
    rows: Arc<dyn Rows>,
}

/// Answers one session; holds its snapshot.
pub struct Pop3Answerer {
    context: Arc<FrontendContext>,
    peer: IpAddr,
    inbox: Option<Inbox>,
}

impl Pop3Answerer {
    async fn login(&mut self, who: &Credentials) -> Answer {
        let login = self.context.authenticate("pop3", self.peer, &who.login, &who.password).await;
        let account = match login {
            Ok(Login::Accepted(identity)) => identity.account,
            Ok(Login::Refused) => return Answer::Refused,
            Err(_) => return Answer::Unavailable,
        };
        let rows = match self.context.ports.accounts.snapshot(account).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::info!(account = account.0, %error, "INBOX not readable now");
                return Answer::Unavailable;
            }
        };
        // A large INBOX takes a while to read.
        let reader = rows.clone();
        match tokio::task::spawn_blocking(move || listing(reader.as_ref())).await {
            Ok(Ok(Some((mailbox, messages)))) => {
                self.inbox = Some(Inbox { account, mailbox, rows });
                Answer::LoggedIn(messages)
            }
            Ok(Ok(None)) => Answer::Unavailable,
            Ok(Err(damaged)) => {
                tracing::error!(account = account.0, %damaged, "INBOX cannot be read");
                Answer::Unavailable
            }
            Err(_) => Answer::Unavailable,
        }
    }

    fn opened(&self, id: PlacementId) -> Answer {
        let Some(inbox) = &self.inbox else { return Answer::Unavailable };
        match read::placement_by_id(inbox.rows.as_ref(), id) {
            Ok(Some((_, p))) => Answer::Opened(Opened { prefix: p.prefix, blob: p.blob, blob_size: p.blob_size }),
            Ok(None) => Answer::Unavailable,
            Err(damaged) => {
                tracing::error!(account = inbox.account.0, %damaged, "message cannot be read");
                Answer::Unavailable
            }
        }
    }

    async fn expunge(&self, ids: Vec<PlacementId>) -> Answer {
        let Some(inbox) = &self.inbox else { return Answer::Unavailable };
        for part in ids.chunks(EXPUNGE_MAX) {
            let op = AccountOp::Expunge { mailbox: inbox.mailbox, placements: part.to_vec(), only_deleted: false };
            match submit(&self.context.ports, inbox.account, op).await {
                Ok(Outcome::Expunged { .. } | Outcome::Done) => {}
                Ok(other) => {
                    tracing::warn!(account = inbox.account.0, outcome = ?other, "messages not removed");
                    return Answer::Unavailable;
                }
                Err(error) => {
                    tracing::warn!(account = inbox.account.0, %error, "messages not removed");
                    return Answer::Unavailable;
                }
            }
        }
        Answer::Done
    }
}

fn listing(rows: &dyn Rows) -> Result<Option<(MailboxId, Vec<Listed>)>, Damaged> {
    let Some(inbox) = read::mailbox_by_role(rows, Role::Inbox)? else { return Ok(None) };
    let mut messages = Vec::new();
    read::visit_placements(rows, inbox.id, read::all_uids(), &mut |placement| {
        messages.push(Listed { id: placement.id, size: placement.size() });
        ControlFlow::Continue(())
    })?;
    Ok(Some((inbox.id, messages)))
}

impl Answerer<Session> for Pop3Answerer {
    fn answer(&mut self, query: Query) -> ports::Answer<'_, Answer> {
        Box::pin(async move {
            match query {
                Query::Login(credentials) => self.login(&credentials).await,
                Query::Open(id) => self.opened(id),
                Query::Read { blob, from, to } => match self.context.ports.blobs.get(blob, from, to).await {
                    Ok(bytes) => Answer::Bytes(bytes),
                    Err(error) => {
                        tracing::warn!(%blob, %error, "body not available");
                        Answer::Unavailable
                    }
                },
                Query::Expunge(ids) => self.expunge(ids).await,
            }
        })
    }
}
