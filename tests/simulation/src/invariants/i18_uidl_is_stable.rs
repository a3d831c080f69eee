//! I18: a UIDL names one content for ever, and stays while nobody asked for the end of its message.

use std::collections::{BTreeMap, BTreeSet};

use vocab::{AccountId, BlobHash, MailboxId, PlacementId};

use super::{Invariant, Maildrop, Told, Verdict, name_of};

#[derive(Default)]
pub(crate) struct Uidl {
    known: BTreeMap<AccountId, BTreeMap<PlacementId, (BlobHash, Option<usize>)>>,
    removing: BTreeSet<(AccountId, PlacementId)>,
    emptying: BTreeSet<(AccountId, MailboxId)>,
    /// Accounts whose INBOX was renamed, on whatever branch: both sides may have had one of their own.
    moved: BTreeSet<AccountId>,
}

impl Invariant for Uidl {
    fn name(&self) -> &'static str {
        "I18"
    }
    fn on_told(&mut self, told: &Told) -> Verdict {
        match told {
            Told::RemovalAsked { account, placements } => {
                self.removing.extend(placements.iter().map(|id| (*account, *id)));
            }
            Told::InboxMoved { account } => drop(self.moved.insert(*account)),
            Told::EmptyAsked { account, mailbox } => drop(self.emptying.insert((*account, *mailbox))),
            _ => {}
        }
        Ok(())
    }
    fn on_maildrop(&mut self, drop: &Maildrop<'_>) -> Verdict {
        let (account, node) = (drop.account, drop.view.node + 1);
        let known = self.known.entry(account).or_default();
        let now: BTreeMap<PlacementId, BlobHash> = drop.uidls.iter().copied().collect();
        if now.len() < drop.uidls.len() {
            return Err(format!("account {}: a UIDL is there twice at node {node}", account.0));
        }
        let emptied = self.emptying.contains(&(account, drop.inbox)) || self.moved.contains(&account);
        for (id, (blob, side)) in known.iter() {
            let name = name_of(id.command);
            match now.get(id) {
                Some(other) if other != blob => {
                    return Err(format!("account {}: UIDL {name} names another content at node {node}", account.0));
                }
                None if drop.view.must_know(*side) && !emptied && !self.removing.contains(&(account, *id)) => {
                    return Err(format!("account {}: UIDL {name} is missing at node {node}", account.0));
                }
                _ => {}
            }
        }
        for (id, blob) in now {
            let (_, side) = known.entry(id).or_insert((blob, drop.view.side));
            if drop.view.side.is_none() {
                *side = None;
            }
        }
        Ok(())
    }
    fn on_joint(&mut self) {
        self.known.values_mut().flat_map(BTreeMap::values_mut).for_each(|(_, side)| *side = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::View;
    use crate::invariants::tests::{blob, id};

    #[test]
    fn another_content_and_a_missing_uidl_are_noticed() {
        let account = AccountId(40);
        let view = View { node: 0, side: None, excused: false, heard_out: None, elsewhere: None };
        let inbox = MailboxId::default();
        let mut check = Uidl::default();
        let look = |uidls: &[(PlacementId, BlobHash)], check: &mut Uidl| {
            check.on_maildrop(&Maildrop { account, view, inbox, uidls })
        };
        assert_eq!(look(&[(id(1), blob(1)), (id(2), blob(2))], &mut check), Ok(()));
        assert!(look(&[(id(1), blob(3)), (id(2), blob(2))], &mut check).is_err());
        assert!(look(&[(id(2), blob(2))], &mut check).is_err());
        assert_eq!(check.on_told(&Told::RemovalAsked { account, placements: vec![id(1)] }), Ok(()));
        assert_eq!(look(&[(id(2), blob(2))], &mut check), Ok(()));
    }
}
