//! What goes wrong with disks and with what a node asks besides its peers: full disks, failing syncs, disks that are
//! rolled back or replaced, probe targets that lie. Chance of its own, so that histories without them stay as they are.

use replica::{Event, META_KEY, Saved};

use crate::disk::Image;
use crate::rng::Rng;
use crate::vocabulary::{Happening, Ms, index_of, node_id};
use crate::world::World;

/// Histories that have them (percent).
const SHARE: u64 = 35;
/// The one probe target every node has.
const TARGET: u32 = 1;
/// Makes this stream of chance another than the history's.
const STREAM: u64 = 0x4d49_5348_4150_5321;

/// Something of this kind that happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mishap {
    /// Somebody copies the disks, as a snapshot of a machine does.
    Copy,
    /// The next one of those below.
    Strike,
    /// The disk of this node has room again.
    Room(usize),
    /// The probe target of this node answers again.
    Truth(usize),
}

/// The mishaps of one history.
pub(crate) struct Mishaps {
    rng: Rng,
    copies: u64,
    strikes: u64,
}

impl Mishaps {
    /// `None` in histories without.
    pub(crate) fn of(seed: u64) -> Option<Self> {
        let mut rng = Rng::new(seed ^ STREAM);
        if !rng.percent(SHARE) {
            return None;
        }
        let (copies, strikes) = (rng.range(2, 6), rng.range(1, 5));
        Some(Self { rng, copies, strikes })
    }
}

impl World {
    pub(crate) fn begin_mishaps(&mut self) {
        let Some(mishaps) = self.mishaps.as_mut() else { return };
        let copies: Vec<Ms> = (0..mishaps.copies).map(|_| mishaps.rng.range(500, 14_000)).collect();
        let strikes: Vec<Ms> = (0..mishaps.strikes).map(|_| mishaps.rng.range(3_000, 18_000)).collect();
        copies.into_iter().for_each(|at| self.at(at, Happening::Mishap(Mishap::Copy)));
        strikes.into_iter().for_each(|at| self.at(at, Happening::Mishap(Mishap::Strike)));
    }

    pub(crate) fn mishap(&mut self, mishap: Mishap) {
        match mishap {
            Mishap::Copy => {
                for node in &mut self.nodes {
                    node.copies.push(node.disk.image.clone());
                }
            }
            Mishap::Room(n) => self.set_full(n, false),
            Mishap::Truth(n) => self.tell(n, Event::Target { target: TARGET, answered: true }),
            // The end of all faults is the end of these too.
            Mishap::Strike if self.calming.is_some() => {}
            Mishap::Strike => self.strike(),
        }
    }

    fn strike(&mut self) {
        let count = self.nodes.len();
        let Some(mishaps) = self.mishaps.as_mut() else { return };
        let (n, kind, long) = (mishaps.rng.index(count), mishaps.rng.range(0, 100), mishaps.rng.range(300, 5_000));
        match kind {
            0..25 => {
                self.coverage.full_disks += 1;
                self.set_full(n, true);
                self.at(long, Happening::Mishap(Mishap::Room(n)));
            }
            25..45 => self.fail_sync(n, long),
            45..90 => self.roll_back(n, long),
            _ => self.lie(n, long),
        }
    }

    pub(crate) fn set_full(&mut self, n: usize, full: bool) {
        self.note(|| format!("FAULT the disk of node {} {}", n + 1, if full { "is full" } else { "has room" }));
        self.nodes[n].full = full;
        self.tell(n, Event::DiskLow(full));
    }

    /// A sync that fails ends the process; its guard says so.
    fn fail_sync(&mut self, n: usize, long: Ms) {
        if self.nodes[n].process.is_none() {
            return;
        }
        self.coverage.failed_syncs += 1;
        self.note(|| format!("FAULT a sync of node {} fails", n + 1));
        self.end_process(n, true);
        self.at(long, Happening::Start(n));
    }

    /// The target of this node is silent although the network is well, or answers although the node is cut off.
    fn lie(&mut self, n: usize, long: Ms) {
        self.coverage.lying_targets += 1;
        self.note(|| format!("FAULT the probe target of node {} is silent", n + 1));
        self.tell(n, Event::Target { target: TARGET, answered: true });
        self.tell(n, Event::Target { target: TARGET, answered: false });
        self.at(long, Happening::Mishap(Mishap::Truth(n)));
    }

    /// The machine comes back with an older disk, or an empty one.
    fn roll_back(&mut self, n: usize, long: Ms) {
        let Some(mishaps) = self.mishaps.as_mut() else { return };
        let (which, guard, empty) =
            (mishaps.rng.index(self.nodes[n].copies.len()), mishaps.rng.percent(50), mishaps.rng.percent(30));
        let image = if empty { Some(Image::default()) } else { self.nodes[n].copies.get(which).cloned() };
        let Some(image) = image.filter(|image| self.may_roll_back(n, image)) else { return };
        self.coverage.replaced_disks += u64::from(empty);
        self.coverage.rolled_back_disks += u64::from(!empty);
        self.end_process(n, guard);
        self.note(|| format!("FAULT the disk of node {} is {}", n + 1, if empty { "replaced" } else { "rolled back" }));
        self.nodes[n].disk.image = image;
        // What it held as a copy is older than what it holds now, whatever that is.
        self.nodes[n].rolled_back = true;
        self.epoch_landed(n);
        self.at(long, Happening::Start(n));
    }

    /// Disks that were rolled back hold again what the others in sync hold.
    pub(crate) fn look_at_old_disks(&mut self) {
        for n in 0..self.nodes.len() {
            let Some(record) = self.nodes[n].record.as_ref().filter(|_| self.nodes[n].rolled_back) else { continue };
            let versions = self.nodes[n].disk.image.versions();
            let level = record.in_sync.contains(&node_id(n))
                && record.in_sync.iter().all(|id| self.nodes[index_of(*id)].disk.image.versions() == versions);
            self.nodes[n].rolled_back = !level;
        }
    }

    /// Everything this node acknowledged is on another disk too, one that is as it should be; and the old disk does not
    /// say that its node serves alone by right. Known limits: that needs a restore, which takes the gap; and with a third
    /// voter a node with an old disk goes on by quorum when all others in sync are away.
    fn may_roll_back(&self, n: usize, image: &Image) -> bool {
        let me = node_id(n);
        let record_of = |image: &Image| {
            Saved::from_meta(image.meta.get(META_KEY).map(|b| &b[..])).ok().and_then(|saved| saved.record)
        };
        let Some(now) = record_of(&self.nodes[n].disk.image) else { return false };
        let with_others = now.in_sync.contains(&me) && now.in_sync.len() > 1;
        let settled = self.nodes.iter().all(|node| !node.rolled_back);
        // Left alone by an epoch it has not heard of, it would enter that and serve.
        let known = self.nodes.iter().map(|node| record_of(&node.disk.image)).chain([self.register.record()]);
        let chosen = known.flatten().any(|record| record.id > now.id && record.is_alone(me));
        let was_alone = chosen || record_of(image).is_some_and(|old| old.is_alone(me));
        !self.shape.has_third() && with_others && settled && !was_alone
    }
}
