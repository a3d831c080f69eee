//! D2: what was expunged, and said so, never becomes visible again.

use std::collections::BTreeMap;

use vocab::{AccountId, PlacementId};

use super::{Invariant, Reading, Told, Verdict, keep, name_of};

#[derive(Default)]
pub(crate) struct Resurrection {
    gone: BTreeMap<(AccountId, PlacementId), Option<usize>>,
}

impl Invariant for Resurrection {
    fn name(&self) -> &'static str {
        "D2"
    }
    fn on_told(&mut self, told: &Told) -> Verdict {
        if let Told::Expunged { account, placements, side } = told {
            placements.iter().for_each(|placement| keep(&mut self.gone, (*account, *placement), *side));
        }
        Ok(())
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        if reading.archived.is_some() {
            return Ok(());
        }
        for placement in reading.mailboxes.iter().flat_map(|m| &m.placements) {
            let side = self.gone.get(&(reading.account, placement.id));
            if side.is_some_and(|side| reading.view.must_know(*side)) {
                let (node, id) = (reading.view.node + 1, name_of(placement.id.command));
                return Err(format!("account {}: expunged {id} is shown at node {node}", reading.account.0));
            }
        }
        Ok(())
    }
    fn on_joint(&mut self) {
        self.gone.values_mut().for_each(|side| *side = None);
    }
}
