//! D3: every command id takes effect at most once, across retries, takeovers and heals.

use std::collections::{BTreeMap, BTreeSet};

use vocab::{AccountBatch, AccountId, BlobHash, MemoryRows, Table};

use super::{Invariant, Reading, Told, Verdict, name_of};
use crate::disk::Image;

/// Transactions that may have placed a body, by account.
#[derive(Default)]
pub(crate) struct Once {
    sent: BTreeMap<(AccountId, BlobHash), u64>,
    uncounted: BTreeSet<AccountId>,
}

impl Invariant for Once {
    fn name(&self) -> &'static str {
        "D3"
    }
    fn on_told(&mut self, told: &Told) -> Verdict {
        match told {
            Told::Placing { account, blob, again: false } => *self.sent.entry((*account, *blob)).or_default() += 1,
            Told::Placing { account, blob, again: true } => {
                self.sent.entry((*account, *blob)).and_modify(|count| *count += 1);
            }
            Told::InboxMoved { account } => drop(self.uncounted.insert(*account)),
            _ => {}
        }
        Ok(())
    }
    fn on_batch(&mut self, node: usize, before: &Image, batch: &AccountBatch) -> Verdict {
        let rows: Option<&MemoryRows> = before.accounts.get(&batch.account);
        for row in batch.rows.iter().filter(|row| row.table == Table::OUTCOMES && row.value.is_some()) {
            if rows.is_some_and(|rows| rows.rows.contains_key(&(row.table, row.key.to_vec()))) {
                let id = vocab::CommandId::from_bytes(&row.key).map(name_of).unwrap_or_default();
                return Err(format!(
                    "node {}: command {id} takes effect twice on account {}",
                    node + 1,
                    batch.account.0
                ));
            }
        }
        Ok(())
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        if reading.archived.is_some() {
            return Ok(());
        }
        let mut seen = BTreeSet::new();
        for placement in reading.mailboxes.iter().flat_map(|m| &m.placements) {
            if !seen.insert(placement.id) {
                let (account, id) = (reading.account.0, name_of(placement.id.command));
                return Err(format!("account {account}: the placement of command {id} is shown twice"));
            }
        }
        let mut placed: BTreeMap<BlobHash, u64> = BTreeMap::new();
        for placement in reading.mailboxes.iter().flat_map(|m| &m.placements) {
            *placed.entry(placement.blob).or_default() += 1;
        }
        for (blob, count) in placed {
            // Reports of failure are nobody's transaction (D4 counts them).
            let Some(sent) = self.sent.get(&(reading.account, blob)).copied() else { continue };
            if count > sent && !self.uncounted.contains(&reading.account) {
                let (account, node) = (reading.account.0, reading.view.node + 1);
                return Err(format!(
                    "account {account}: {blob} is there {count} times at node {node}, placed by {sent} commands at most"
                ));
            }
        }
        Ok(())
    }
}
