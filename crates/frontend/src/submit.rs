//! One intent under one command id, asked again when nobody knows what became of it.

use mailbox::op::{AccountOp, Outcome};
use vocab::{AccountId, SubmitError};

use crate::context::Ports;

/// Tries of one operation whose outcome is unknown, always under the same command id.
const TRIES_MAX: usize = 2;

/// Submits until the outcome is known, twice at most.
pub(crate) async fn submit(ports: &Ports, account: AccountId, op: AccountOp) -> Result<Outcome, SubmitError> {
    let id = ports.accounts.command_id();
    let mut tries = 1;
    loop {
        match ports.accounts.submit(account, id, op.clone()).await {
            Err(SubmitError::Unknown(_)) if tries < TRIES_MAX => tries += 1,
            other => return other,
        }
    }
}
