//! D3: every command id takes effect at most once, across retries, takeovers and heals.

use std::collections::BTreeSet;

use vocab::{AccountBatch, MemoryRows, Table};

use super::{Invariant, Reading, Verdict, name_of};
use crate::disk::Image;

pub(crate) struct Once;

impl Invariant for Once {
    fn name(&self) -> &'static str {
        "D3"
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
        Ok(())
    }
}
