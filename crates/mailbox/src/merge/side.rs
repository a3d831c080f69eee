//! One branch of the account in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use vocab::{AccountHead, Damaged, MailboxId, PlacementId, Rows, Table, Uid, UidValidity, Version};

use super::MergeInput;
use crate::former::FormerNames;
use crate::modseq::Above;
use crate::names::INBOX;
use crate::read::{self, scan_prefix};
use crate::rows::{Expunged, Mailbox, Placement, decode_name, mailbox_id, placement_id};
use vocab::ids::MAILBOX_ID_BYTES;

/// What the merge looks at.
#[derive(Default)]
pub(super) struct Side {
    pub head: AccountHead,
    pub mailboxes: BTreeMap<MailboxId, Mailbox>,
    pub placed: BTreeMap<PlacementId, (MailboxId, Placement)>,
    pub expunged: BTreeMap<PlacementId, Expunged>,
    /// Subscribed names, with or without mailbox.
    pub subscribed: BTreeSet<String>,
    /// UIDVALIDITY of the mailboxes by name, and what names that no mailbox has were told with.
    pub names: BTreeMap<String, UidValidity>,
    pub former: FormerNames,
    pub served: bool,
}

impl Side {
    fn load(rows: &dyn Rows, served: bool) -> Result<Self, Damaged> {
        let former = FormerNames::read(rows)?;
        let mut side = Self { head: rows.head(), served, former, ..Self::default() };
        for mailbox in read::mailboxes(rows)? {
            if mailbox.subscribed {
                side.subscribed.insert(mailbox.name.clone());
            }
            side.names.insert(mailbox.name.clone(), mailbox.uid_validity);
            side.mailboxes.insert(mailbox.id, mailbox);
        }
        scan_prefix(rows, Table::NAMES, &[], &mut |key, value| {
            if decode_name(value)?.is_none() {
                side.subscribed.insert(String::from_utf8_lossy(key).into_owned());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        scan_prefix(rows, Table::PLACEMENTS, &[], &mut |key, value| {
            let mailbox = mailbox_id("placement key", key.get(..MAILBOX_ID_BYTES).unwrap_or_default())?;
            let placement = Placement::decode(key, value)?;
            side.placed.insert(placement.id, (mailbox, placement));
            Ok(ControlFlow::Continue(()))
        })?;
        scan_prefix(rows, Table::EXPUNGED, &[], &mut |key, value| {
            let id = placement_id("expunged key", key)?;
            side.expunged.insert(id, Expunged::decode(id, value)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(side)
    }

    pub(super) fn place(&self, id: PlacementId) -> Option<(MailboxId, Uid)> {
        self.placed.get(&id).map(|(mailbox, placement)| (*mailbox, placement.uid))
    }

    /// The greatest UIDVALIDITY this side may have told for a name.
    pub(super) fn told(&self, name: &str) -> UidValidity {
        let known = self.names.get(name).or_else(|| self.former.names.get(name));
        known.copied().unwrap_or_else(|| self.former.bound(&self.head))
    }

    fn exists(&self) -> bool {
        self.mailboxes.values().any(|mailbox| mailbox.name == INBOX)
    }
}

/// Both branches and what they come from.
pub(super) struct Sides {
    pub base: Option<Side>,
    common: Version,
    /// What the result is numbered from.
    pub above: Above,
    pub anchor: Side,
    pub guest: Side,
}

impl Sides {
    pub(super) fn load(input: &MergeInput<'_>, base: Option<&dyn Rows>) -> Result<Self, Damaged> {
        Ok(Self {
            base: base.map(|rows| Side::load(rows, false)).transpose()?,
            common: input.common,
            above: Above(input.stamp.gap),
            anchor: Side::load(input.anchor.rows, input.anchor.served)?,
            guest: Side::load(input.guest.rows, input.guest.served)?,
        })
    }

    pub(super) fn both(&self) -> [&Side; 2] {
        [&self.anchor, &self.guest]
    }

    /// Whether this side changed nothing since both were one.
    pub(super) fn is_silent(&self, side: &Side) -> bool {
        self.base.is_some() && self.common == side.head.version
    }

    /// Whether one side removed the account, which only the cluster's configuration may order.
    pub(super) fn purged(&self) -> bool {
        self.base.as_ref().is_some_and(Side::exists) && self.both().iter().any(|side| !side.exists())
    }

    /// The greatest UIDVALIDITY either side may have told for a name.
    pub(super) fn told(&self, name: &str) -> UidValidity {
        self.anchor.told(name).max(self.guest.told(name))
    }

    /// The two rows of a mailbox, anchor first.
    pub(super) fn mailbox(&self, id: MailboxId) -> (Option<&Mailbox>, Option<&Mailbox>) {
        (self.anchor.mailboxes.get(&id), self.guest.mailboxes.get(&id))
    }

    pub(super) fn base_mailbox(&self, id: MailboxId) -> Option<&Mailbox> {
        self.base.as_ref().and_then(|base| base.mailboxes.get(&id))
    }

    /// The mailboxes of either side.
    pub(super) fn mailbox_ids(&self) -> BTreeSet<MailboxId> {
        self.both().iter().flat_map(|side| side.mailboxes.keys().copied()).collect()
    }

    /// Greatest UIDVALIDITY a mailbox has on a side: its numbers count.
    pub(super) fn uid_validity(&self, id: MailboxId) -> UidValidity {
        let of = |side: &&Side| side.mailboxes.get(&id).map(|mailbox| mailbox.uid_validity);
        self.both().iter().filter_map(of).max().unwrap_or_default()
    }
}

/// The value both sides agree on against the base; `choose` when both changed it, each differently.
pub(super) fn three_way<T: PartialEq + Clone>(
    base: Option<&T>,
    anchor: &T,
    guest: &T,
    choose: impl FnOnce(&T, &T) -> T,
) -> T {
    if anchor == guest || base == Some(guest) {
        anchor.clone()
    } else if base == Some(anchor) {
        guest.clone()
    } else {
        choose(anchor, guest)
    }
}
