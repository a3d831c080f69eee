//! A transfer of what differs only: when the version of the asker is on the giver's chain, the rows named by the undo rows
//! behind it, as they are now, are all that differs. The chain itself goes along with every transfer, so that the taker can
//! say and restore what the giver can.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use ports::mail_store::MailStore;
use vocab::limits::PAST_BYTES_MAX;
use vocab::{
    AccountBatch, AccountHead, AccountId, BlobHash, BlobRef, Damaged, PastLink, PlacementId, RowWrite, Rows,
    SubmitError, Table, Version,
};
use wire::forward::{self as w, call, reply};

use crate::engine::Engine;
use crate::transfer::{ROWS_BYTES, Reading, refs_of, with_rows};

/// What one transfer gives beside the rows of its snapshot.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    /// The rows that differ from the asker's version, in order of table and key; `None`: all rows are given.
    pub(crate) difference: Option<Vec<RowWrite>>,
    past: Vec<Item>,
}

/// The chain as one row of items.
#[derive(Debug)]
enum Item {
    Link { version: Version, undo: bool },
    Row(RowWrite),
}

impl Offer {
    /// For an asker that has this version of the account, if any. Blocks.
    pub(crate) fn new(
        store: &dyn MailStore,
        account: AccountId,
        rows: &dyn Rows,
        (have, past): (Option<Version>, bool),
    ) -> Result<Self, Damaged> {
        let head = rows.head();
        // A chain that ends at another version was read at another moment than the rows.
        let fits = |past: &Vec<PastLink>| past.last().is_some_and(|link| link.version == head.version);
        let have = have.filter(|have| past && *have != Version::default());
        if let Some(have) = have
            && let Some(links) = store.past(account, Some(have), PAST_BYTES_MAX)?.filter(fits)
            && let Some(difference) = present(rows, &links)?
        {
            return Ok(Self { difference: Some(difference), past: items(links) });
        }
        let links = if past { store.past(account, None, PAST_BYTES_MAX)?.filter(fits) } else { None };
        Ok(Self { difference: None, past: items(links.unwrap_or_default()) })
    }

    pub(crate) fn has_past(&self) -> bool {
        !self.past.is_empty()
    }

    /// Rows of the difference behind this one, about [`ROWS_BYTES`] of them.
    pub(crate) fn rows(&self, after: Option<(u8, Bytes)>) -> Vec<RowWrite> {
        let rows = self.difference.as_deref().unwrap_or_default();
        let from = after
            .map_or(0, |(table, key)| rows.partition_point(|row| (row.table.0, &row.key[..]) <= (table, &key[..])));
        let mut bytes = 0;
        let fits = |row: &&RowWrite| {
            let full = bytes >= ROWS_BYTES;
            bytes += row.size();
            !full
        };
        rows.get(from..).unwrap_or_default().iter().take_while(fits).cloned().collect()
    }

    pub(crate) fn past(&self, position: u64) -> w::Past {
        let from = usize::try_from(position).unwrap_or(usize::MAX);
        let (mut items, mut bytes) = (Vec::new(), 0);
        for item in self.past.get(from..).unwrap_or_default() {
            if bytes >= ROWS_BYTES {
                break;
            }
            items.push(match item {
                Item::Link { version, undo } => {
                    bytes += 32;
                    w::PastItem { version: Bytes::copy_from_slice(&version.0), undo: *undo, row: None }
                }
                Item::Row(row) => {
                    bytes += row.size();
                    w::PastItem { row: Some(row_to(row.clone())), ..w::PastItem::default() }
                }
            });
        }
        w::Past { items }
    }
}

/// The rows these links have changed, as they are now; `None` when they are too many.
fn present(rows: &dyn Rows, links: &[PastLink]) -> Result<Option<Vec<RowWrite>>, Damaged> {
    let undo = links.iter().flat_map(|link| link.undo.iter().flatten());
    let names: BTreeSet<(Table, &Bytes)> = undo.map(|row| (row.table, &row.key)).collect();
    let (mut found, mut bytes) = (Vec::with_capacity(names.len()), 0);
    for (table, key) in names {
        let row = RowWrite { table, key: key.clone(), value: rows.get(table, key)? };
        bytes += row.size();
        if bytes > PAST_BYTES_MAX {
            return Ok(None);
        }
        found.push(row);
    }
    Ok(Some(found))
}

fn items(links: Vec<PastLink>) -> Vec<Item> {
    let link = |link: PastLink| {
        let first = Item::Link { version: link.version, undo: link.undo.is_some() };
        std::iter::once(first).chain(link.undo.into_iter().flatten().map(Item::Row))
    };
    links.into_iter().flat_map(link).collect()
}

/// A row as a word between nodes.
pub(crate) fn row_to(row: RowWrite) -> w::Row {
    w::Row {
        table: u32::from(row.table.0),
        key: row.key,
        absent: row.value.is_none(),
        value: row.value.unwrap_or_default(),
    }
}

/// The row in a word between nodes.
pub(crate) fn row_from(row: w::Row) -> RowWrite {
    RowWrite {
        table: Table(u8::try_from(row.table).unwrap_or(u8::MAX)),
        key: row.key,
        value: (!row.absent).then_some(row.value),
    }
}

impl Engine {
    /// The offered chain up to `head`; empty when there is none or it does not lead there.
    pub(crate) async fn read_past(&self, reading: &Reading) -> Result<Vec<PastLink>, SubmitError> {
        let senseless = SubmitError::Unavailable("the peer gave a version chain that makes no sense");
        let (mut past, mut position, mut bytes) = (Vec::<PastLink>::new(), 0, 0);
        while reading.has_past() {
            let read = w::ReadPast { transfer: reading.transfer(), position };
            let reply::Kind::Past(part) = self.ask(reading.from, call::Kind::Past(read)).await? else {
                return Err(senseless);
            };
            if part.items.is_empty() {
                break;
            }
            position += part.items.len() as u64;
            for item in part.items {
                match item.row.map(row_from) {
                    Some(row) => {
                        bytes += row.size();
                        let undo = past.last_mut().and_then(|link| link.undo.as_mut()).ok_or(senseless.clone())?;
                        undo.push(row);
                    }
                    None => {
                        bytes += 32;
                        let version = Version::from_bytes(&item.version).ok_or(senseless.clone())?;
                        past.push(PastLink { version, undo: item.undo.then(Vec::new) });
                    }
                }
            }
            if bytes > 2 * PAST_BYTES_MAX {
                return Err(senseless);
            }
        }
        let leads = past.last().is_some_and(|link| link.version == reading.head.version);
        Ok(if leads { past } else { Vec::new() })
    }

    /// Takes the difference to the version here with the bodies it needs; `None` when it does not lead to what the
    /// peer's head says.
    pub(crate) async fn read_difference(
        &self,
        account: AccountId,
        reading: &mut Reading,
    ) -> Result<Option<AccountBatch>, SubmitError> {
        let damaged = |_: Damaged| SubmitError::Unavailable(crate::DAMAGED);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(part) = self.read_next(reading).await? {
            bytes += part.iter().map(RowWrite::size).sum::<usize>();
            if bytes > 2 * PAST_BYTES_MAX {
                return Ok(None);
            }
            let refs = refs_of(&part);
            reading.bytes += self.fetch_missing(reading.from, refs.iter().map(|r| r.hash).collect()).await?;
            rows.extend(part);
        }
        let (store, head) = (Arc::clone(&self.store), reading.head.clone());
        let batch = tokio::task::spawn_blocking(move || {
            let mine = store.snapshot(account);
            batch(&*mine, account, head, rows)
        });
        batch.await.map_err(|_| SubmitError::Unavailable("a transfer ended badly"))?.map_err(damaged)
    }
}

/// What leads from `mine` to `head` by these rows; `None` when the digest says that it does not.
fn batch(
    mine: &dyn Rows,
    account: AccountId,
    head: AccountHead,
    rows: Vec<RowWrite>,
) -> Result<Option<AccountBatch>, Damaged> {
    let before = mine.head();
    let mut old = Vec::with_capacity(rows.len());
    for row in &rows {
        old.push(RowWrite { table: row.table, key: row.key.clone(), value: mine.get(row.table, &row.key)? });
    }
    let digest = old.iter().fold(before.digest, |sum, row| sum.wrapping_sub(mailbox::row_digest(row)));
    let digest = with_rows(digest, &rows);
    if digest != head.digest {
        return Ok(None);
    }
    let refs = changed_refs(&old, &rows);
    Ok(Some(AccountBatch { account, expected: before.version, head, rows, refs, undo: Vec::new() }))
}

/// References that go and come; one that only moves from row to row stays.
fn changed_refs(old: &[RowWrite], new: &[RowWrite]) -> Vec<BlobRef> {
    let name = |r: BlobRef| (r.hash, r.placement);
    let set = |rows: &[RowWrite]| refs_of(rows).into_iter().map(name).collect::<BTreeSet<(BlobHash, PlacementId)>>();
    let (gone, come) = (set(old), set(new));
    let blob_ref = |present: bool| {
        move |(hash, placement): &(BlobHash, PlacementId)| BlobRef { hash: *hash, placement: *placement, present }
    };
    gone.difference(&come).map(blob_ref(false)).chain(come.iter().map(blob_ref(true))).collect()
}
