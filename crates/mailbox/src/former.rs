//! Former names (ADR 0013): the UIDVALIDITY that a client is told for a name never decreases (I2), whichever mailboxes have
//! the name one after the other.
//!
//! A mailbox that has a name was told for it with at least what every earlier one was. So only names that no mailbox has
//! need rows: name -> the greatest value told for it, where that is above the floor. Whatever has no row was told with the
//! floor at most. An account without floor row comes from before this table: any name may have been told with anything up to
//! its UIDVALIDITY clock.
//!
//! A value equal to a mailbox's own was told by that very mailbox (I13): it comes back to its name and keeps its number.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message;
use vocab::limits::FORMER_NAMES_MAX;
use vocab::{AccountHead, Damaged, Rows, Table, UidValidity};

use crate::modseq::next_uid_validity;
use crate::op::Change;
use crate::read::scan_prefix;
use crate::rows::{Mailbox, RowFormat, damaged, versioned_as};
use crate::work::{Fail, Work};

/// Key of the floor: no name of a mailbox has control characters.
pub(crate) const FLOOR_KEY: &[u8] = &[0];

#[derive(Clone, PartialEq, Message)]
struct FormerV3 {
    #[prost(uint32, tag = "1")]
    uid_validity: u32,
}

/// Value of a row, the floor's too.
pub(crate) fn encode_former(value: UidValidity) -> Bytes {
    versioned_as(RowFormat::FORMER_NAMES, &FormerV3 { uid_validity: value.0 })
}

pub(crate) fn decode_former(value: &[u8]) -> Result<UidValidity, Damaged> {
    let what = "former name row";
    match value.split_first() {
        Some((&version, rest)) if u32::from(version) == RowFormat::FORMER_NAMES.number() => {
            let row = FormerV3::decode(rest).map_err(|e| damaged(what, &e.to_string()))?;
            Ok(UidValidity(row.uid_validity))
        }
        _ => Err(damaged(what, "unknown row version")),
    }
}

/// What is remembered of names that no mailbox has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FormerNames {
    /// What a name without entry was told with at most; `None`: not known, so with anything up to the account's clock.
    pub floor: Option<UidValidity>,
    /// Greatest UIDVALIDITY told for a name, above the floor.
    pub names: BTreeMap<String, UidValidity>,
}

impl FormerNames {
    /// All rows of an account.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn read(rows: &dyn Rows) -> Result<Self, Damaged> {
        let mut found = Self::default();
        scan_prefix(rows, Table::FORMER_NAMES, &[], &mut |key, value| {
            let value = decode_former(value)?;
            if key == FLOOR_KEY {
                found.floor = Some(value);
            } else {
                let name = std::str::from_utf8(key).map_err(|_| damaged("former name row", "key"))?;
                found.names.insert(name.to_owned(), value);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// The floor in force: a name without entry was told with no more.
    pub(crate) fn bound(&self, head: &AccountHead) -> UidValidity {
        self.floor.unwrap_or(UidValidity(head.uidvalidity))
    }

    /// Keeps at most `most` names: those with the lowest values go, and the floor takes their greatest.
    pub(crate) fn shorten(&mut self, most: usize) {
        let Some(excess) = self.names.len().checked_sub(most).filter(|excess| *excess > 0) else { return };
        let mut values: Vec<UidValidity> = self.names.values().copied().collect();
        values.sort_unstable();
        let raised = values.get(excess - 1).copied();
        self.floor = self.floor.max(raised);
        // Equal ones go too: below or at the floor no entry says more than it.
        self.names.retain(|_, value| Some(*value) > raised);
    }

    /// As rows by key.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Vec<u8>, Bytes)> {
        let floor = self.floor.map(|floor| (FLOOR_KEY.to_vec(), encode_former(floor)));
        let names = self.names.iter().map(|(name, value)| (name.as_bytes().to_vec(), encode_former(*value)));
        floor.into_iter().chain(names)
    }
}

fn row(work: &Work<'_>, key: &[u8]) -> Result<Option<UidValidity>, Damaged> {
    work.rows.get(Table::FORMER_NAMES, key)?.map(|value| decode_former(&value)).transpose()
}

/// An account begins: nothing was told for any name but what its clock has passed (one that was removed before).
pub(crate) fn begin(work: &mut Work<'_>) -> Result<(), Damaged> {
    raise_floor(work, UidValidity(work.rows.head.uidvalidity))
}

/// Before the numbers of a side of a split begin: what was told so far is bounded by the clock. Else whatever the other side
/// makes would count as told here, too.
pub(crate) fn before_gap(work: &mut Work<'_>) -> Result<(), Damaged> {
    match row(work, FLOOR_KEY)? {
        Some(_) => Ok(()),
        None => begin(work),
    }
}

/// Whatever any name was told with is at or below `floor`; so are the entries there are, which go.
pub(crate) fn raise_floor(work: &mut Work<'_>, floor: UidValidity) -> Result<(), Damaged> {
    if work.stamp.rows < RowFormat::FORMER_NAMES {
        return Ok(());
    }
    forget(work)?;
    work.write(Table::FORMER_NAMES, FLOOR_KEY, encode_former(floor))
}

fn forget(work: &mut Work<'_>) -> Result<(), Damaged> {
    for name in FormerNames::read(&work.rows)?.names.into_keys() {
        work.delete(Table::FORMER_NAMES, name)?;
    }
    work.delete(Table::FORMER_NAMES, FLOOR_KEY)
}

/// The mailbox has its name no more; [`shorten`] follows. In a row format without the table nothing is kept, so the floor is
/// unknown from then on.
pub(crate) fn leave(work: &mut Work<'_>, mailbox: &Mailbox) -> Result<(), Damaged> {
    let floor = row(work, FLOOR_KEY)?;
    if work.stamp.rows < RowFormat::FORMER_NAMES {
        return if floor.is_some() { forget(work) } else { Ok(()) };
    }
    let Some(floor) = floor else {
        return raise_floor(work, UidValidity(work.rows.head.uidvalidity));
    };
    if mailbox.uid_validity > floor {
        work.write(Table::FORMER_NAMES, mailbox.name.as_bytes(), encode_former(mailbox.uid_validity))?;
    }
    Ok(())
}

/// Keeps the table within its limit after names were left.
pub(crate) fn shorten(work: &mut Work<'_>) -> Result<(), Damaged> {
    let before = FormerNames::read(&work.rows)?;
    if before.names.len() <= FORMER_NAMES_MAX {
        return Ok(());
    }
    let mut after = before.clone();
    after.shorten(FORMER_NAMES_MAX);
    for name in before.names.into_keys().filter(|name| !after.names.contains_key(name)) {
        work.delete(Table::FORMER_NAMES, name)?;
    }
    work.write(Table::FORMER_NAMES, FLOOR_KEY, encode_former(after.floor.unwrap_or_default()))
}

/// A mailbox came to its name: a new UIDVALIDITY if a greater one was told for it. UIDs and id stay; the caller saves it.
///
/// # Errors
/// A refusal when the numbers are used up; [`Damaged`].
pub(crate) fn come(work: &mut Work<'_>, mailbox: &mut Mailbox) -> Result<(), Fail> {
    let told = match row(work, mailbox.name.as_bytes())? {
        Some(told) => told,
        None => row(work, FLOOR_KEY)?.unwrap_or(UidValidity(work.rows.head.uidvalidity)),
    };
    work.delete(Table::FORMER_NAMES, mailbox.name.as_bytes())?;
    if work.names_grow && mailbox.uid_validity < told {
        mailbox.uid_validity = next_uid_validity(work)?;
        // Sessions that have it selected end, and begin anew with what is told now.
        work.announce(Change::Mailbox(mailbox.id));
    }
    Ok(())
}
