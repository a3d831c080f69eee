//! I21: of two documents written on both sides of a split, the one that loses is kept under a conflict name; and one that
//! nobody else wrote to is as it was written.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vocab::{AccountId, CommandId};

use super::{Invariant, Told, Verdict};
use crate::disk::Image;

/// One write of a document.
#[derive(Clone, Debug)]
struct Written {
    id: CommandId,
    body: Option<Bytes>,
    /// Order in which it was asked for and acknowledged.
    asked: u64,
    kept: Option<(u64, Option<usize>)>,
    /// Heals and joint epochs before it was asked for, and before it was acknowledged: it took effect in one of these.
    era: u64,
    last_era: u64,
}

#[derive(Default)]
pub(crate) struct Conflicts {
    notes: BTreeMap<(AccountId, String), Vec<Written>>,
    /// Sides begun by a node out of another side, and when: what that had written until then is theirs too.
    begun: Vec<(usize, usize, u64)>,
    clock: u64,
    era: u64,
}

/// Whether `other` may have come over `one` in the ordinary way: on the same side, or where both were one.
fn may_follow(other: &Written, one: &Written, begun: &[(usize, usize, u64)]) -> bool {
    let Some((_, side)) = one.kept else { return true };
    // It took effect at some time since it was asked for: the answer may have been that of a repetition.
    let later = other.kept.is_none_or(|(when, _)| when > one.asked);
    let apart = match (side, other.kept) {
        (Some(mine), Some((_, Some(its)))) => {
            let carried = begun.iter().any(|(side, from, when)| (*side, *from) == (its, mine) && *when > one.asked);
            mine != its && !carried && other.last_era <= one.era
        }
        _ => false,
    };
    other.id != one.id && later && !apart
}

impl Invariant for Conflicts {
    fn name(&self) -> &'static str {
        "I21"
    }
    fn on_told(&mut self, told: &Told) -> Verdict {
        self.clock += 1;
        match told {
            Told::NoteAsked { account, id, name, body } => {
                let written = Written {
                    id: *id,
                    body: body.clone(),
                    asked: self.clock,
                    kept: None,
                    era: self.era,
                    last_era: self.era,
                };
                self.notes.entry((*account, name.clone())).or_default().push(written);
            }
            Told::NoteKept { account, id, side } => {
                let all = self.notes.iter_mut().filter(|((of, _), _)| of == account);
                if let Some(written) = all.flat_map(|(_, list)| list).find(|written| written.id == *id) {
                    written.kept = Some((self.clock, *side));
                    written.last_era = self.era;
                }
            }
            // From now on what the anchor writes may come over what it took in from its guest.
            Told::HealBegins => self.era += 1,
            Told::SideBegins { side, from } => self.begun.push((*side, *from, self.clock)),
            _ => {}
        }
        Ok(())
    }
    fn on_joint(&mut self) {
        self.era += 1;
    }
    fn at_end(&mut self, images: &[&Image]) -> Verdict {
        let Some(image) = images.first() else { return Ok(()) };
        for ((account, name), list) in &self.notes {
            let Some(rows) = image.accounts.get(account) else { continue };
            let damaged = |damaged: vocab::Damaged| damaged.to_string();
            let mut there = BTreeSet::new();
            for kept in mailbox::read::document_names(rows, "note").map_err(damaged)? {
                if kept == *name || kept.starts_with(&format!("{name} (conflict")) {
                    there.extend(mailbox::read::document(rows, "note", &kept).map_err(damaged)?.map(|d| d.body));
                }
            }
            for one in list.iter().filter(|one| one.kept.is_some()) {
                let Some(body) = &one.body else { continue };
                let followed = list.iter().any(|other| may_follow(other, one, &self.begun));
                if !followed && !there.contains(body) {
                    let (account, asked) = (account.0, one.asked);
                    return Err(format!("account {account}: document {name} of write {asked} is nowhere: {body:?}"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::tests::id;

    fn writes(sides: [Option<usize>; 2]) -> Conflicts {
        let mut check = Conflicts::default();
        for (number, side) in (1..).zip(sides) {
            let (account, id) = (AccountId(40), id(number).command);
            let body = Some(Bytes::from(format!("{number}")));
            let told =
                [Told::NoteAsked { account, id, name: "note".to_owned(), body }, Told::NoteKept { account, id, side }];
            assert!(told.iter().all(|told| check.on_told(told).is_ok()));
        }
        check
    }

    #[test]
    fn a_value_lost_in_a_conflict_is_noticed_and_one_written_over_is_not() {
        let mut image = Image::default();
        image.accounts.insert(AccountId(40), crate::invariants::tests::noted("2"));
        assert_eq!(writes([None, None]).at_end(&[&image]), Ok(()));
        assert_eq!(writes([Some(0), Some(0)]).at_end(&[&image]), Ok(()));
        assert!(writes([Some(0), Some(1)]).at_end(&[&image]).is_err());
        let mut check = writes([Some(0), Some(1)]);
        check.begun.push((1, 0, 2));
        assert_eq!(check.at_end(&[&image]), Ok(()), "side 1 went on from what side 0 had written");
        image.accounts.insert(AccountId(40), crate::invariants::tests::noted("1"));
        assert!(writes([None, None]).at_end(&[&image]).is_err());
    }
}
