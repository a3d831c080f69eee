//! The world: virtual time, what will happen, and everything it happens to.

use std::collections::{BTreeMap, BTreeSet};

use replica::{Event, META_KEY, Mode, Saved, Timing};
use topology::{EpochKind, EpochRecord};
use vocab::{AccountId, Boot, CommandId, EpochId, Instant, PlacementId, StoreWrite};

use crate::clients::Client;
use crate::disk::Image;
use crate::extras::Extras;
use crate::faults::Plan;
use crate::heal_steps::HealStep;
use crate::invariants::{Checks, Told, View};
use crate::mishaps::Mishaps;
use crate::net::Net;
use crate::node::{Node, Process};
use crate::register::Register;
use crate::rng::Rng;
use crate::shape::Shape;
use crate::vocabulary::{After, Happening, Inner, Ms, node_id};
use crate::{Control, Coverage};

/// Wall clock at the beginning of every history (ms since 1970).
pub(crate) const WALL_START: Ms = 1_700_000_000_000;
/// Longest sleep of a node's loop (ms), as in the engine.
const TICK_MAX_MS: Ms = 50;
/// A history that runs longer than this does not come to rest (virtual ms).
const END_OF_TIME: Ms = 400_000;
/// How often equal versions are compared (ms).
const SAMPLE_MS: Ms = 700;

/// Takeover timing of the simulated nodes: the defaults, but a shorter wait after a heal and for a commit, so that a
/// history sees several splits.
pub(crate) fn timing() -> Timing {
    Timing { hold_down: 3_000, commit_wait: 4_000, ..Timing::default() }
}

/// A rule that was broken.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) text: String,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Ms,
    sequence: u64,
    future: BTreeMap<(Ms, u64), Happening>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) shape: Shape,
    pub(crate) net: Net,
    /// Cuts are made by a firewall that rejects.
    pub(crate) rejects: bool,
    pub(crate) register: Register,
    pub(crate) clients: Vec<Client>,
    pub(crate) plan: Plan,
    pub(crate) mishaps: Option<Mishaps>,
    pub(crate) extras: Option<Extras>,
    /// More kinds of clients than senders and readers (`cast`).
    pub(crate) cast: bool,
    /// Homes are spread (`spread`).
    pub(crate) spread: bool,
    pub(crate) checks: Checks,
    /// Epochs in which an item was put into the queue.
    pub(crate) taken_in: BTreeMap<CommandId, BTreeSet<EpochId>>,
    pub(crate) control: Control,
    pub(crate) coverage: Coverage,
    pub(crate) violation: Option<Violation>,
    pub(crate) trace: Option<Vec<String>>,
    /// Faults are over; the pair has to come to rest.
    pub(crate) calming: Option<Ms>,
    pub(crate) rested: bool,
    /// Both sides committed alone, and not all nodes have been joint since.
    was_split: bool,
    /// A heal of that split has begun.
    healing: bool,
    /// Accounts whose UIDVALIDITYs were raised over an archived branch, because they could not be merged.
    pub(crate) raised: BTreeSet<AccountId>,
    /// Merges without a base (M12).
    pub(crate) blind_merges: BTreeMap<AccountId, u64>,
    /// What went with a mailbox that this command deleted.
    pub(crate) covered: BTreeMap<CommandId, Vec<PlacementId>>,
}

/// What a history has besides faults, senders and readers.
pub(crate) struct More {
    pub(crate) mishaps: Option<Mishaps>,
    pub(crate) extras: Option<Extras>,
    pub(crate) cast: bool,
    /// Homes are spread (`spread`).
    pub(crate) spread: bool,
}

impl World {
    pub(crate) fn new(seed: u64, control: Control, traced: bool, more: More) -> Self {
        let mut rng = Rng::new(seed);
        let More { mishaps, extras, cast, spread } = more;
        let shape = Shape::of(seed);
        let nodes = (0..shape.nodes()).map(|_| Node::new(&mut rng)).collect();
        let plan = Plan::new(&mut rng);
        let mut world = Self {
            nodes,
            now: 0,
            sequence: 0,
            future: BTreeMap::new(),
            net: Net::new(shape.points()),
            register: Register::new(shape.nodes()),
            shape,
            rejects: false,
            clients: Vec::new(),
            plan,
            mishaps,
            extras,
            cast,
            spread,
            checks: Checks::default(),
            taken_in: BTreeMap::new(),
            control,
            coverage: Coverage::default(),
            violation: None,
            trace: traced.then(Vec::new),
            calming: None,
            rested: false,
            was_split: false,
            healing: false,
            raised: BTreeSet::new(),
            blind_merges: BTreeMap::new(),
            covered: BTreeMap::new(),
            rng,
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        for node in 0..self.nodes.len() {
            self.at(1 + node as u64, Happening::Start(node));
            for other in 0..node {
                self.at(5, Happening::Connect(other, node));
            }
        }
        self.make_clients();
        self.begin_faults();
        self.begin_mishaps();
        self.begin_extras();
        self.at(SAMPLE_MS, Happening::Sample);
    }

    /// Runs to the end, or to the first broken rule.
    pub(crate) fn run(&mut self) {
        while self.violation.is_none() && !self.rested {
            let Some(((at, _), happening)) = self.future.pop_first() else { break };
            self.now = at;
            if at > END_OF_TIME || self.calming.is_some_and(|since| at > since + 120_000) {
                let states: Vec<String> = (0..self.nodes.len()).map(|n| self.describe(n)).collect();
                self.broken("rest", format!("the pair does not become joint and level: {}", states.join("; ")));
                break;
            }
            self.happen(happening);
        }
        if self.violation.is_none() {
            self.check_end();
        }
    }

    pub(crate) fn at(&mut self, delay: Ms, happening: Happening) {
        self.sequence += 1;
        self.future.insert((self.now + delay, self.sequence), happening);
    }

    /// Later, in this process.
    pub(crate) fn to(&mut self, node: usize, delay: Ms, inner: Inner) {
        if let Some(boot) = self.nodes[node].boot() {
            self.at(delay, Happening::To(node, boot, inner));
        }
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>7} {}", self.now, text()));
        }
    }

    pub(crate) fn broken(&mut self, rule: &'static str, text: String) {
        self.note(|| format!("BROKEN {rule}: {text}"));
        if self.violation.is_none() {
            self.violation = Some(Violation { rule, text });
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::To(node, boot, inner) => self.inside(node, boot, inner),
            Happening::Synced { node, generation } => self.on_synced(node, generation),
            Happening::Connect(a, b) => self.connect(a, b),
            Happening::Decide { node, boot, expect, record } => self.decide(node, boot, expect, record),
            Happening::Reconsider => self.reconsider_quorum(),
            Happening::Client(client) => self.client_acts(client),
            Happening::Told { client, serial, answer } => self.client_told(client, serial, answer),
            Happening::Fault => self.next_fault(),
            Happening::Start(node) => self.start(node),
            Happening::Resume(node, count) => self.resume(node, count),
            Happening::Mishap(mishap) => self.mishap(mishap),
            Happening::Extra(extra) => self.extra(extra),
            Happening::Stop(node, stops) => self.stop(node, stops),
            Happening::HealNet(count) => self.heal_net(count),
            Happening::Sample => self.sample(),
            Happening::HealAll => self.heal_all(),
            Happening::Impatience(node, boot) => self.impatience(node, boot),
        }
    }

    fn inside(&mut self, node: usize, boot: Boot, inner: Inner) {
        if self.nodes[node].boot() != Some(boot) {
            return;
        }
        if self.nodes[node].paused {
            self.nodes[node].deferred.push(inner);
            return;
        }
        self.handle(node, inner);
    }

    /// Own clock of a process.
    pub(crate) fn clock(&self, node: usize) -> Instant {
        self.nodes[node].process.as_ref().map_or(Instant(0), |p| Instant(self.now - p.started - p.frozen))
    }

    /// One event into the machine, its orders out.
    pub(crate) fn tell(&mut self, node: usize, event: Event) {
        let now = self.clock(node);
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        process.replica.on(event, now);
        while let Some(output) = self.nodes[node].process.as_mut().and_then(|p| p.replica.next_output()) {
            self.carry_out(node, output);
        }
        if let Some(process) = self.nodes[node].process.as_mut().filter(|p| !p.compared) {
            process.compared = !matches!(
                process.replica.status(now).mode,
                Mode::Unformed | Mode::Waiting | Mode::Comparing | Mode::Fenced
            );
        }
        if let Some(process) = self.nodes[node].process.as_mut().filter(|_| self.shape.has_third()) {
            let fenced = process.replica.status(now).mode == Mode::Fenced;
            self.coverage.fenced += u64::from(fenced && !process.fenced);
            process.fenced = fenced;
        }
    }

    pub(crate) fn write(&mut self, node: usize, parts: Vec<StoreWrite>, after: After) {
        self.look_at_formats(node, &parts);
        let after = match after {
            After::Event(event) if self.control == Control::AcknowledgesUnsynced => {
                self.to(node, 0, Inner::Event(event));
                After::Nothing
            }
            after => after,
        };
        if self.nodes[node].disk.write(parts, after) {
            self.begin_sync(node);
        }
    }

    fn begin_sync(&mut self, node: usize) {
        let slow = self.plan.slow_disk == Some(node);
        let delay = if slow { self.rng.range(20, 400) } else { self.rng.range(1, 9) };
        let generation = self.nodes[node].disk.generation;
        self.at(delay, Happening::Synced { node, generation });
    }

    fn on_synced(&mut self, node: usize, generation: u64) {
        if self.nodes[node].disk.generation != generation {
            return;
        }
        let mut checks = std::mem::take(&mut self.checks);
        let mut switched = false;
        let (done, more) = self.nodes[node].disk.synced(&mut |image, part| {
            switched |= matches!(part, StoreWrite::Switch { .. } | StoreWrite::Account(_));
            checks.on_landed(node, image, part);
        });
        self.checks = checks;
        if switched && self.nodes[node].heal == Some(HealStep::Sealed) {
            self.reach(node, HealStep::Switched);
        }
        self.take_landed_faults();
        if more {
            self.begin_sync(node);
        }
        self.epoch_landed(node);
        for after in done {
            match after {
                After::Nothing => {}
                After::Event(event) => self.to(node, 0, Inner::Event(event)),
                After::Kept { node: caller, boot, job, attempt } => self.kept(node, caller, boot, job, attempt),
                After::Spread { job, attempt } => self.to(node, 0, Inner::Kept { job, attempt, by: node }),
            }
        }
    }

    pub(crate) fn take_landed_faults(&mut self) {
        if let Some((rule, text)) = self.checks.landed_fault.take() {
            self.broken(rule, text);
        }
    }

    /// Epoch on the disk of a node, and whether its join mark is written.
    fn durable_record(&self, node: usize) -> (Option<EpochRecord>, bool) {
        let saved = Saved::from_meta(self.nodes[node].disk.image.meta.get(META_KEY).map(|b| &b[..]));
        let Ok(saved) = saved else { return (None, false) };
        let marked = saved.join_mark.is_some() && saved.join_mark == saved.record.as_ref().map(|r| r.id);
        (saved.record, marked)
    }

    /// After a write: has the epoch in effect changed, and what does that mean for the checks?
    pub(crate) fn epoch_landed(&mut self, node: usize) {
        let (record, marked) = self.durable_record(node);
        if marked && self.nodes[node].heal.is_some_and(|step| step < HealStep::Marked) {
            self.reach(node, HealStep::Marked);
        }
        if self.nodes[node].record == record {
            return;
        }
        let before = std::mem::replace(&mut self.nodes[node].record, record.clone());
        let Some(record) = record else { return };
        self.note(|| format!("node {} enters {}", node + 1, crate::describe_record(&record)));
        self.coverage.epoch(&record);
        self.heal_entered(node, &record);
        self.healing |= record.kind == EpochKind::Heal && self.was_split;
        if record.kind == EpochKind::Heal {
            self.checks.on_told(&Told::HealBegins);
        }
        self.count_takeover(node, before.as_ref(), &record);
        self.check_alone(node, before.as_ref(), &record);
        let (from, side) = (self.nodes[node].apart, self.side_after(node, before.as_ref(), &record));
        self.nodes[node].apart = side;
        let was_in = before.as_ref().is_some_and(|b| b.in_sync.contains(&node_id(node)));
        if let (Some(from), Some(side), true) = (from, side, was_in && record.kind == EpochKind::Solo && from != side) {
            self.checks.on_told(&Told::SideBegins { side, from });
        }
        let me = node_id(node);
        if record.is_alone(me) {
            let was_alone = before.is_some_and(|b| b.is_alone(me));
            // While one is the only voter the others are to it as in a pair without a witness.
            let pair = self.register.sole.is_some();
            let has_right = |p: &Process| p.has_right() || (p.compared && pair);
            let by_right = self.nodes[node].process.as_ref().map_or(self.nodes[node].had_right, has_right);
            if record.author_is(me) {
                self.nodes[node].alone_by_right = by_right || (was_alone && self.nodes[node].alone_by_right);
            } else if !was_alone {
                // Agreed, unlike a heal, whose anchor has heard its guest out or was alone by right before.
                self.nodes[node].alone_by_right = record.kind == EpochKind::Reduced;
            }
        } else if self.nodes[node].apart != Some(node) {
            self.nodes[node].alone_by_right = false;
        }
        let all = (0..self.nodes.len()).all(|n| {
            self.nodes[n].record.as_ref().is_some_and(|r| r.id == record.id && r.in_sync.len() == self.nodes.len())
        });
        if all {
            (self.was_split, self.healing) = (false, false);
            self.checks.on_joint();
            self.clients.iter_mut().for_each(|client| (client.side, client.wanders) = (None, false));
        }
        if (0..self.nodes.len()).filter(|n| self.side(*n).is_some() && self.nodes[*n].alone_by_right).count() > 1 {
            self.coverage.splits += 1;
            self.coverage.nested_splits += u64::from(self.healing);
            (self.was_split, self.healing) = (true, false);
        }
    }

    /// The side of a node that commits alone; facts it tells are not known to the others until joint.
    pub(crate) fn side(&self, node: usize) -> Option<usize> {
        if self.shape.has_third() {
            return self.nodes[node].apart;
        }
        self.nodes[node].record.as_ref().filter(|r| r.is_alone(node_id(node))).map(|_| node)
    }

    /// What a reader at this node may be held to.
    pub(crate) fn view(&self, node: usize) -> View {
        if self.shape.has_third() {
            return self.view_apart(node);
        }
        let side = self.side(node);
        let excused = side.is_some() && self.nodes[node].alone_by_right;
        View { node, side, excused, heard_out: self.heard_out(node), elsewhere: None }
    }

    /// The guest of the heal this node leads, once it has entered it and so serves nobody any more.
    fn heard_out(&self, node: usize) -> Option<usize> {
        let guest = self.nodes[node].process.as_ref()?.replica.guest_in_touch()?;
        let guest = crate::vocabulary::index_of(guest);
        let epoch = |n: usize| self.nodes[n].record.as_ref().map(|r| r.id);
        (epoch(guest) == epoch(node)).then_some(guest)
    }

    /// Ticks come at least this often, and at the machine's deadline.
    pub(crate) fn tick(&mut self, node: usize) {
        self.tell(node, Event::Tick);
        let now = self.clock(node);
        let deadline = self.nodes[node].process.as_ref().and_then(|p: &Process| p.replica.deadline());
        let wake = deadline.map_or(TICK_MAX_MS, |d| d.since(now)).clamp(1, TICK_MAX_MS);
        self.to(node, wake, Inner::Tick);
    }

    fn sample(&mut self) {
        self.look_at_old_disks();
        self.look_at_watchers();
        let images: Vec<&Image> = self.nodes.iter().map(|n| &n.disk.image).collect();
        let verdict = self.checks.on_sample(&images);
        if let Err((rule, text)) = verdict {
            self.broken(rule, text);
        }
        if self.calming.is_some() && self.is_at_rest() {
            self.rested = true;
        }
        self.at(SAMPLE_MS, Happening::Sample);
    }

    /// Joint, level, and no client waits for anything.
    fn is_at_rest(&self) -> bool {
        let joint = |n: &Node| {
            let record = n.process.as_ref().and_then(|p| p.replica.record());
            record.is_some_and(|r| r.kind == EpochKind::Joint && r.in_sync.len() == self.nodes.len())
        };
        let quiet = self.clients.iter().all(Client::is_done) && self.nodes.iter().all(|n| n.disk.queued() == 0);
        let level = self.nodes.windows(2).all(|w| w[0].disk.image.versions() == w[1].disk.image.versions());
        quiet && level && self.all_fanned_out() && self.nodes.iter().all(joint)
    }

    fn check_end(&mut self) {
        let images: Vec<&Image> = self.nodes.iter().map(|n| &n.disk.image).collect();
        if let Err((rule, text)) = self.checks.at_end(&images) {
            self.broken(rule, text);
        }
    }

    fn describe(&self, node: usize) -> String {
        let now = self.clock(node);
        let Some(process) = &self.nodes[node].process else { return format!("node {} is dead", node + 1) };
        let status = process.replica.status(now);
        let record = status.record.as_ref().map_or_else(|| "no epoch".to_owned(), crate::describe_record);
        let waiting = self.clients.iter().filter(|c| !c.is_done()).count();
        format!(
            "node {} {} in {record}, {:?}, {} in flight, {} waiting, {waiting} clients busy, {} writes queued",
            node + 1,
            status.mode.name(),
            status.serving,
            status.in_flight,
            status.waiting,
            self.nodes[node].disk.queued(),
        )
    }
}

/// Who wrote a record.
trait Author {
    fn author_is(&self, node: vocab::NodeId) -> bool;
}
impl Author for EpochRecord {
    fn author_is(&self, node: vocab::NodeId) -> bool {
        self.id.author == node.0
    }
}
