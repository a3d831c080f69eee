//! I10: an incremental resynchronisation of any kind gives exactly what a full fetch gives.

use std::collections::BTreeMap;

use super::{Invariant, Reading, Verdict};

pub(crate) struct Resync;

impl Invariant for Resync {
    fn name(&self) -> &'static str {
        "I10"
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        for shown in reading.mailboxes {
            let name = &shown.mailbox.name;
            let Some(after) = reading.after.get(name) else {
                return Err(format!("account {}: the client does not know {name}", reading.account.0));
            };
            let full: BTreeMap<_, _> = shown.placements.iter().map(|p| (p.uid, (p.id, p.flags.clone()))).collect();
            if after.messages != full {
                let differs = |uid: &&vocab::Uid| after.messages.get(*uid) != full.get(*uid);
                let uids: Vec<u32> = full.keys().chain(after.messages.keys()).filter(differs).map(|u| u.0).collect();
                return Err(format!("account {} {name}: the client's cache differs at {uids:?}", reading.account.0));
            }
        }
        Ok(())
    }
}
