//! What came later than the kept seeds: programs that are upgraded one after the other. Chance of its own, so that
//! histories without them stay as they are.

use bytes::Bytes;
use mailbox::op::AccountOp;
use mailbox::rows::RowFormat;
use vocab::{MailboxId, PlacementId, RowWrite, StoreWrite, Table};

use crate::rng::Rng;
use crate::vocabulary::{Happening, Ms};
use crate::world::World;

/// Histories that have them (percent).
const SHARE: u64 = 70;
/// Of these, histories with a rolling upgrade (percent).
const UPGRADES: u64 = 50;
/// Makes this stream of chance another than the history's.
const STREAM: u64 = 0x4558_5452_4153_2121;

/// Something of this kind that happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extra {
    /// This node gets the newer program.
    Upgrade(usize),
}

/// The extras of one history.
pub(crate) struct Extras {
    pub(crate) rng: Rng,
    upgrades: bool,
}

impl Extras {
    /// `None` in histories without.
    pub(crate) fn of(seed: u64) -> Option<Self> {
        let mut rng = Rng::new(seed ^ STREAM);
        if !rng.percent(SHARE) {
            return None;
        }
        let upgrades = rng.percent(UPGRADES);
        Some(Self { rng, upgrades })
    }
}

impl World {
    /// Every node begins with the older program; now and then one has the newer from the start, as when a machine was
    /// replaced in the middle of an upgrade.
    pub(crate) fn begin_extras(&mut self) {
        let count = self.nodes.len();
        let Some(extras) = self.extras.as_mut().filter(|extras| extras.upgrades) else { return };
        let ahead = extras.rng.percent(20).then(|| extras.rng.index(count));
        let times: Vec<Ms> = (0..count).map(|_| extras.rng.range(2_000, 20_000)).collect();
        for (n, at) in times.into_iter().enumerate().filter(|(n, _)| ahead != Some(*n)) {
            self.nodes[n].reads_rows = RowFormat::LOWEST.number();
            self.at(at, Happening::Extra(Extra::Upgrade(n)));
        }
    }

    pub(crate) fn extra(&mut self, extra: Extra) {
        match extra {
            Extra::Upgrade(n) => self.upgrade(n),
        }
    }

    fn upgrade(&mut self, n: usize) {
        let Some(extras) = self.extras.as_mut() else { return };
        let down = extras.rng.range(30, 1_500);
        self.coverage.upgrades += 1;
        self.note(|| format!("node {} is stopped for its upgrade", n + 1));
        self.end_process(n, true);
        self.nodes[n].reads_rows = RowFormat::HIGHEST.number();
        self.at(down, Happening::Start(n));
    }

    /// A change that readers do more rarely: of the list of mailboxes, of documents, copies. `ids` are the mailboxes the
    /// client knows, `messages` those it knows in one of them.
    pub(crate) fn rare_change(
        &mut self,
        ids: &[(String, MailboxId)],
        messages: Option<(MailboxId, &[PlacementId])>,
    ) -> Option<AccountOp> {
        let rng = &mut self.extras.as_mut()?.rng;
        if ids.is_empty() || !rng.percent(14) {
            return None;
        }
        let (name, mailbox) = ids[rng.index(ids.len())].clone();
        let to = ids[rng.index(ids.len())].1;
        let other = format!("F{}", rng.range(1, 5));
        let op = match rng.range(0, 100) {
            0..25 if name != "INBOX" => {
                AccountOp::RenameMailbox { mailbox, name: format!("R{}", rng.range(0, 1_000_000)) }
            }
            40..50 => AccountOp::Subscribe { name: other, subscribed: rng.percent(60) },
            50..60 => AccountOp::CreateMailbox { name: format!("{other}/a"), role: None },
            60..75 => {
                let body = rng.percent(80).then(|| Bytes::from(format!("keep {}", rng.range(0, 1_000))));
                AccountOp::SetDocument { kind: "sieve".to_owned(), name: other, body }
            }
            _ => {
                let (from, known) = messages?;
                AccountOp::Copy { from, to, placements: vec![known[rng.index(known.len())]] }
            }
        };
        Some(op)
    }

    /// Nothing is written where the program cannot read it.
    pub(crate) fn look_at_formats(&mut self, n: usize, parts: &[StoreWrite]) {
        let reads = self.nodes[n].reads_rows;
        let mixed = self.nodes.iter().any(|node| node.reads_rows != reads);
        for part in parts {
            let rows: &[RowWrite] = match part {
                StoreWrite::Account(batch) => {
                    self.coverage.mixed_formats += u64::from(mixed);
                    &batch.rows
                }
                StoreWrite::Stage { rows, .. } => rows,
                _ => continue,
            };
            for format in rows.iter().filter_map(format_of) {
                self.coverage.newer_rows += u64::from(format > RowFormat::LOWEST.number());
                if format > reads {
                    let text = format!("node {} is sent a row of format {format} and reads up to {reads}", n + 1);
                    return self.broken("formats", text);
                }
            }
        }
    }
}

/// First byte of a row of the table whose layout grew.
fn format_of(row: &RowWrite) -> Option<u32> {
    let value = row.value.as_ref().filter(|_| row.table == Table::MAILBOXES)?;
    value.first().map(|byte| u32::from(*byte))
}
