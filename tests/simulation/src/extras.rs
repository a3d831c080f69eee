//! What came later than the kept seeds: programs that are upgraded one after the other. Chance of its own, so that
//! histories without them stay as they are.

use bytes::Bytes;
use mailbox::op::AccountOp;
use mailbox::rows::RowFormat;
use vocab::{MailboxId, PlacementId, RowWrite, StoreWrite, Table};

use crate::heal_steps::HealStep;
use crate::rng::Rng;
use crate::vocabulary::{Happening, Ms};
use crate::world::World;

/// Histories that have them (percent).
const SHARE: u64 = 70;
/// Of these, histories with a rolling upgrade (percent).
const UPGRADES: u64 = 50;
/// Of these, histories with a split more (percent).
const SPLITS: u64 = 15;
/// Of these, histories in which an operator looks for a survivor now and then (percent).
const RESCUES: u64 = 40;
/// Makes this stream of chance another than the history's.
const STREAM: u64 = 0x4558_5452_4153_2121;

/// Something of this kind that happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extra {
    /// This node gets the newer program.
    Upgrade(usize),
    /// A crash aimed at a step of a heal; with the word of the guard or not.
    Crash(usize, bool),
    /// An operator starts this node alone, if it does not serve.
    Start(usize),
    /// A cut that is long enough for both sides to go on alone.
    Split,
    /// An operator makes a survivor the only voter, if there is one.
    Rescue,
}

/// The extras of one history.
pub(crate) struct Extras {
    pub(crate) rng: Rng,
    upgrades: bool,
    /// Step of a heal after which nodes crash, and how often yet.
    pub(crate) aims_at: Option<HealStep>,
    pub(crate) shots: u32,
}

impl Extras {
    /// `None` in histories without.
    pub(crate) fn of(seed: u64) -> Option<Self> {
        let mut rng = Rng::new(seed ^ STREAM);
        if !rng.percent(SHARE) {
            return None;
        }
        let upgrades = rng.percent(UPGRADES);
        let aims_at = rng.percent(60).then(|| HealStep::ALL[rng.index(HealStep::ALL.len())]);
        let shots = if rng.percent(50) { 1 } else { 2 };
        Some(Self { rng, upgrades, aims_at, shots })
    }
}

impl World {
    /// Every node begins with the older program; now and then one has the newer from the start, as when a machine was
    /// replaced in the middle of an upgrade.
    pub(crate) fn begin_extras(&mut self) {
        let count = self.nodes.len();
        let merges = self.extras.as_ref().is_some_and(|extras| {
            [HealStep::BranchSent, HealStep::MergeWritten, HealStep::Pushed].map(Some).contains(&extras.aims_at)
        });
        let Some(extras) = self.extras.as_mut() else { return };
        if merges || extras.rng.percent(SPLITS) {
            let at = extras.rng.range(4_500, 9_000);
            self.at(at, Happening::Extra(Extra::Split));
        }
        let Some(extras) = self.extras.as_mut() else { return };
        if extras.rng.percent(RESCUES) {
            let times: Vec<Ms> = (0..6).map(|_| extras.rng.range(4_000, 22_000)).collect();
            times.into_iter().for_each(|at| self.at(at, Happening::Extra(Extra::Rescue)));
        }
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
            Extra::Crash(n, guard) => self.crash(n, guard),
            Extra::Rescue => self.rescue(),
            Extra::Split => self.split(),
            Extra::Start(n) => {
                self.start_alone(n);
            }
        }
    }

    /// Between two nodes; a third voter goes with the one that is not cut off, and an operator starts that one.
    fn split(&mut self) {
        let count = self.nodes.len();
        let Some(extras) = self.extras.as_mut() else { return };
        let (n, long) = (extras.rng.index(count), extras.rng.range(3_000, 6_000));
        self.coverage.partitions += 1;
        self.note(|| format!("FAULT node {} is cut off for {long} ms", n + 1));
        for other in (0..self.shape.points()).filter(|other| *other != n) {
            self.net.set(n, other, true);
            self.net.set(other, n, true);
        }
        self.net.cuts += 1;
        let cuts = self.net.cuts;
        self.at(long, Happening::HealNet(cuts));
        self.disturb_quorum();
        if self.shape.has_third() {
            self.at(long / 2, Happening::Extra(Extra::Start(n)));
        }
    }

    fn crash(&mut self, n: usize, guard: bool) {
        let Some(extras) = self.extras.as_mut() else { return };
        let down = extras.rng.range(30, 2_500);
        if self.nodes[n].process.is_some() && self.calming.is_none() {
            self.coverage.kills += 1;
            self.end_process(n, guard);
            self.at(down, Happening::Start(n));
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
        let apart = (0..self.nodes.len()).filter(|n| self.side(*n).is_some()).count() > 1;
        let rng = &mut self.extras.as_mut()?.rng;
        if ids.is_empty() || !rng.percent(if apart { 40 } else { 18 }) {
            return None;
        }
        // Few of them, so that mailboxes come to names that others had (I2).
        let fresh = format!("R{}", rng.range(0, 12));
        let own: Vec<&(String, MailboxId)> = ids.iter().filter(|(name, _)| name.starts_with('R')).collect();
        let mine = if own.is_empty() { None } else { Some(own[rng.index(own.len())].1) };
        let to = mine.filter(|_| rng.percent(60)).unwrap_or(ids[rng.index(ids.len())].1);
        let other = format!("F{}", rng.range(1, 5));
        let op = match (rng.range(0, 100), mine) {
            (0..20, Some(mailbox)) => AccountOp::RenameMailbox { mailbox, name: fresh },
            (20..32, Some(mailbox)) if apart || rng.percent(40) => AccountOp::DeleteMailbox { mailbox },
            (0..37, _) => AccountOp::CreateMailbox { name: fresh, role: None },
            (37..42, _) => AccountOp::CreateMailbox { name: format!("{other}/a"), role: None },
            (42..50, _) => AccountOp::Subscribe { name: other, subscribed: rng.percent(60) },
            (50..62, _) => {
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

/// First byte of a row of the tables whose layout grew, or that are new.
fn format_of(row: &RowWrite) -> Option<u32> {
    let value = row.value.as_ref().filter(|_| [Table::MAILBOXES, Table::FORMER_NAMES].contains(&row.table))?;
    value.first().map(|byte| u32::from(*byte))
}
