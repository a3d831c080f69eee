//! [`Accounts`] over the engine: changes go to the home, reads are local under lease and confirmed version.

use std::sync::Arc;
use std::time::Duration;

use mailbox::op::{AccountOp, Change, Command, Outcome};
use ports::Answer;
use ports::accounts::Accounts;
use tokio::sync::broadcast;
use vocab::{AccountId, BlobHash, CommandId, InlineBody, Rows, SubmitError};
use wire::forward::{self as w, call, reply};

use crate::engine::Engine;
use crate::retry::Retry;
use crate::work::{Done, Work};

/// A waiting read looks again after this time even if nothing woke it.
const RECHECK: Duration = Duration::from_millis(250);
/// A read that waits for a merge looks again after this time.
const MERGE_RECHECK: Duration = Duration::from_millis(5);
/// How long a read waits for its version to be confirmed or for a lease.
const READ_WAIT: Duration = Duration::from_secs(5);

/// [`Accounts`] over the engine.
pub struct EngineAccounts(pub(crate) Arc<Engine>);

impl Accounts for EngineAccounts {
    fn command_id(&self) -> CommandId {
        self.0.command_id()
    }

    fn submit(&self, account: AccountId, id: CommandId, op: AccountOp) -> Answer<'_, Result<Outcome, SubmitError>> {
        Box::pin(async move {
            let bodies = self.0.small.find(blobs_of(&op));
            let command = Command { id, settled: self.0.settled(), op };
            let result = self.0.submit(account, command, &bodies).await;
            if matches!(result, Ok(Outcome::Appended { .. })) {
                self.0.small.forget(&bodies);
            }
            self.0.settle(id, &result);
            result
        })
    }

    fn snapshot(&self, account: AccountId) -> Answer<'_, Result<Arc<dyn Rows>, SubmitError>> {
        Box::pin(self.0.readable(account))
    }

    fn watch(&self, account: AccountId) -> broadcast::Receiver<Change> {
        self.0.watchers.subscribe(account)
    }
}

fn blobs_of(op: &AccountOp) -> impl Iterator<Item = BlobHash> {
    let messages = match op {
        AccountOp::Append { messages, .. } => messages.as_slice(),
        AccountOp::Import { message, .. } => std::slice::from_ref(&**message),
        _ => &[],
    };
    messages.iter().map(|m| m.blob)
}

impl Engine {
    /// Runs a command at the account's home, here or there; waits through a takeover as long as a commit may take.
    pub(crate) async fn submit(
        &self,
        account: AccountId,
        command: Command,
        bodies: &[InlineBody],
    ) -> Result<Outcome, SubmitError> {
        let mut retry = Retry::new();
        loop {
            match self.submit_once(account, &command, bodies).await {
                Err(error) => retry.pause(error).await?,
                done => return done,
            }
        }
    }

    async fn submit_once(
        &self,
        account: AccountId,
        command: &Command,
        bodies: &[InlineBody],
    ) -> Result<Outcome, SubmitError> {
        let home = self.home_of(account).ok_or(SubmitError::Unavailable(crate::NOT_SERVING))?;
        if home == self.node {
            let work = Work::Account { account, command: command.clone(), bodies: bodies.to_vec() };
            return match self.order(work).await? {
                Done::Account(outcome) => Ok(outcome),
                _ => Err(SubmitError::Unknown("an outcome of another kind")),
            };
        }
        let submit = call::Kind::Submit(w::Submit {
            account: account.0,
            command: mailbox::codec::encode_command(command),
            bodies: bodies.iter().map(|b| b.bytes.clone()).collect(),
        });
        match self.ask_home(home, account, submit).await? {
            reply::Kind::Outcome(bytes) => mailbox::codec::decode_outcome(&bytes)
                .map_err(|_| SubmitError::Unknown("the home's answer was not understood")),
            _ => Err(SubmitError::Unknown("the home answered something else")),
        }
    }

    /// The gap and the served mark of this epoch, taken at the home; on the in-sync set when it returns.
    async fn enter(&self, account: AccountId) -> Result<(), SubmitError> {
        let home = self.home_of(account).ok_or(SubmitError::Unavailable(crate::NOT_SERVING))?;
        if home == self.node {
            return self.order(Work::Enter(account)).await.map(drop);
        }
        let enter = call::Kind::Enter(w::Enter { account: account.0 });
        self.ask_home(home, account, enter).await.map(drop)
    }

    /// A snapshot this node may show (DESIGN 5): snapshot first, then ask whether its version may be read.
    pub(crate) async fn readable(&self, account: AccountId) -> Result<Arc<dyn Rows>, SubmitError> {
        let mut deadline = tokio::time::Instant::now() + READ_WAIT;
        let mut entered = None;
        loop {
            let confirmed = self.confirmed.notified();
            let rows = self.store.snapshot(account);
            if self.machine().is_behind(account) {
                self.tell(replica::Event::Wanted(account));
            }
            match self.may_read(account, rows.head().version) {
                replica::MayRead::Yes => {
                    let due = self.entry_due(account, &rows.head());
                    if due.is_none() || due == entered {
                        return Ok(rows);
                    }
                    if self.enter(account).await.is_ok() {
                        entered = due;
                        continue;
                    }
                    if tokio::time::Instant::now() >= deadline {
                        return Err(SubmitError::Unavailable(crate::NOT_SERVING));
                    }
                }
                replica::MayRead::Wait => {}
                // The machine says how long.
                replica::MayRead::Merging => {
                    deadline = tokio::time::Instant::now() + READ_WAIT;
                    tokio::time::sleep(MERGE_RECHECK).await;
                    continue;
                }
                replica::MayRead::No(reason) => {
                    tracing::debug!(account = account.0, reason, "read refused for now");
                    if tokio::time::Instant::now() >= deadline {
                        return Err(SubmitError::Unavailable(crate::NOT_SERVING));
                    }
                }
            }
            tokio::select! {
                () = confirmed => {}
                () = tokio::time::sleep(RECHECK) => {}
                () = tokio::time::sleep_until(deadline) => {
                    return Err(SubmitError::Unavailable("the newest state could not be confirmed"));
                }
            }
        }
    }
}
