//! Accounts in memory that know documents only: enough for logins and the API.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use mailbox::op::{AccountOp, Change, Outcome, Refusal};
use ports::Answer;
use ports::accounts::Accounts;
use tokio::sync::broadcast;
use vocab::{AccountHead, AccountId, CommandId, MemoryRows, NodeId, RowWrite, Rows, SubmitError, Table, Version};

/// Takes Init, SetDocument and Purge; everything else is refused.
#[derive(Default)]
pub struct FakeAccounts {
    rows: Mutex<BTreeMap<AccountId, MemoryRows>>,
    counter: AtomicU64,
    unavailable: AtomicBool,
}

impl FakeAccounts {
    /// From now on neither reads nor changes work, or they do again.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.unavailable.store(unavailable, Ordering::SeqCst);
    }
    /// Whether the account has state.
    #[must_use]
    pub fn exists(&self, account: AccountId) -> bool {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&account)
    }
    fn check(&self) -> Result<(), SubmitError> {
        match self.unavailable.load(Ordering::SeqCst) {
            true => Err(SubmitError::Unavailable("switched off by the test")),
            false => Ok(()),
        }
    }
    fn apply(&self, account: AccountId, op: AccountOp) -> Result<Outcome, SubmitError> {
        self.check()?;
        let mut all = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        match op {
            AccountOp::Init => drop(all.entry(account).or_insert_with(born)),
            AccountOp::Purge => drop(all.remove(&account)),
            AccountOp::SetDocument { kind, name, body } => {
                let Some(rows) = all.get_mut(&account) else { return Ok(Outcome::Refused(Refusal::NoSuchAccount)) };
                let key = Bytes::from(format!("{kind}\0{name}"));
                rows.write(&[RowWrite { table: Table::DOCUMENTS, key, value: body.map(|body| document_row(&body)) }]);
            }
            _ => return Ok(Outcome::Refused(Refusal::NotAllowed)),
        }
        Ok(Outcome::Done)
    }
}

/// An account with state has a version.
fn born() -> MemoryRows {
    let head = AccountHead { version: Version([1; 16]), ..AccountHead::default() };
    MemoryRows { head, ..MemoryRows::default() }
}

/// Row version 1, then protobuf with the body as field 1.
fn document_row(body: &[u8]) -> Bytes {
    let mut row = vec![1, 0x0a];
    let mut length = body.len();
    while length > 0x7f {
        row.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    row.push(length as u8);
    row.extend_from_slice(body);
    row.into()
}

impl Accounts for FakeAccounts {
    fn command_id(&self) -> CommandId {
        let counter = 1 + self.counter.fetch_add(1, Ordering::SeqCst);
        CommandId { origin: NodeId(1), counter, ..CommandId::default() }
    }
    fn submit(&self, account: AccountId, _: CommandId, op: AccountOp) -> Answer<'_, Result<Outcome, SubmitError>> {
        let result = self.apply(account, op);
        Box::pin(async move { result })
    }
    fn snapshot(&self, account: AccountId) -> Answer<'_, Result<Arc<dyn Rows>, SubmitError>> {
        let result = self.check().map(|()| {
            let all = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::new(all.get(&account).cloned().unwrap_or_default()) as Arc<dyn Rows>
        });
        Box::pin(async move { result })
    }
    fn watch(&self, _: AccountId) -> broadcast::Receiver<Change> {
        // The sender stays alive with the test.
        let (sender, receiver) = broadcast::channel(1);
        std::mem::forget(sender);
        receiver
    }
}
