//! STORE (RFC 3501 §6.4.6, RFC 7162 §3.1.3).

use mailbox::op::{AccountOp, Outcome};
use mailbox::read;
use vocab::{Damaged, PlacementId, Rows, Uid};

use super::view::Positions;
use super::{ImapSession, Pending, refusal};
use crate::codec::fetch::StoreCommand;
use crate::codec::response;
use crate::codec::sequence::write_set;

/// A STORE on its way.
pub(super) struct StoreRun {
    pub(super) tag: String,
    by_uid: bool,
    silent: bool,
    conditional: bool,
    missing: bool,
}

impl ImapSession {
    /// Placement ids and UIDs of these positions as far as they are there, and whether any is not.
    pub(super) fn placements_at(
        &self,
        positions: &Positions,
        rows: &dyn Rows,
    ) -> Result<(Vec<PlacementId>, bool), Damaged> {
        let Some(selected) = &self.selected else { return Ok((Vec::new(), false)) };
        let mut found = Vec::new();
        let mut asked = 0;
        for (from, to) in positions {
            let uids = selected.view.uids(*from, *to);
            let (Some(first), Some(last)) = (uids.first(), uids.last()) else { continue };
            asked += uids.len();
            let present = read::uids_in(rows, selected.mailbox, Uid(*first)..=Uid(*last))?;
            found.extend(present.into_iter().filter(|row| uids.binary_search(&row.uid.0).is_ok()).map(|row| row.id));
        }
        let missing = found.len() < asked;
        Ok((found, missing))
    }

    pub(super) fn store(&mut self, tag: String, store: StoreCommand, rows: &dyn Rows) -> Result<(), Damaged> {
        if store.unchanged_since.is_some() {
            self.enable_condstore();
        }
        let Some(selected) = &self.selected else { return Ok(()) };
        let mailbox = selected.mailbox;
        let positions = selected.view.resolve(&store.set, store.by_uid);
        let (placements, missing) = self.placements_at(&positions, rows)?;
        let conditional = store.unchanged_since.is_some();
        let run = StoreRun { tag, by_uid: store.by_uid, silent: store.silent, conditional, missing };
        if placements.is_empty() {
            self.on_stored(run, Outcome::Stored { stored: Vec::new(), modified: Vec::new() });
            return Ok(());
        }
        let StoreCommand { mode, flags, unchanged_since, .. } = store;
        let op = AccountOp::Store { mailbox, placements, mode, flags, unchanged_since };
        self.submit(op, Pending::Stored(Box::new(run)));
        Ok(())
    }

    pub(super) fn on_stored(&mut self, run: StoreRun, outcome: Outcome) {
        let (stored, modified) = match outcome {
            Outcome::Stored { stored, modified } => (stored, modified),
            Outcome::Refused(refused) => return self.finish(&run.tag, &refusal::text_of(&refused, "NONEXISTENT")),
            _ => return self.finish(&run.tag, refusal::UNAVAILABLE),
        };
        let Some(selected) = self.selected.as_deref_mut() else { return self.finish(&run.tag, refusal::UNAVAILABLE) };
        let mut out = String::new();
        for row in stored {
            let Some(position) = selected.view.position(row.uid) else { continue };
            selected.view.note_told(row.uid, row.modseq);
            let mut items = Vec::new();
            if run.by_uid || (run.silent && self.condstore) {
                items.push(format!("UID {}", row.uid.0));
            }
            if !run.silent {
                items.push(format!("FLAGS {}", response::flags(&row.flags)));
            }
            if self.condstore {
                items.push(format!("MODSEQ ({})", row.modseq.0));
            }
            if !run.silent || self.condstore {
                out += &format!("* {} FETCH ({})\r\n", position + 1, items.join(" "));
            }
        }
        let number = |uid: Uid| if run.by_uid { Some(uid.0) } else { number_of(selected.view.position(uid)) };
        let failed = write_set(modified.into_iter().filter_map(number));
        self.say(&out);
        let text = if !failed.is_empty() {
            format!("OK [MODIFIED {failed}] some messages were changed by others")
        } else if run.missing && !run.by_uid && !run.conditional {
            "OK [EXPUNGEISSUED] STORE completed for what is still there".to_owned()
        } else {
            "OK STORE completed".to_owned()
        };
        self.finish(&run.tag, &text);
    }
}

fn number_of(position: Option<usize>) -> Option<u32> {
    u32::try_from(position? + 1).ok()
}
