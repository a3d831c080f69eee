//! What goes wrong, decided by the seed: kills with and without the guard's word, pauses, partitions, slow disks and
//! networks, and an operator who says that the other node is down.

use replica::{Event, Serving};

use crate::rng::Rng;
use crate::vocabulary::{Happening, Inner, Ms, node_id};
use crate::world::World;

/// The faults of one history.
pub(crate) struct Plan {
    left: u64,
    /// Whether faults begin while the second node still joins.
    early: bool,
    pub(crate) slow_disk: Option<usize>,
    /// Answers of forwarded calls that are lost (percent).
    pub(crate) lost_answers: u64,
}

impl Plan {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self { left: rng.range(5, 13), early: rng.percent(20), slow_disk: None, lost_answers: rng.range(0, 6) }
    }
}

impl World {
    pub(crate) fn begin_faults(&mut self) {
        let first = if self.plan.early { self.rng.range(100, 1_500) } else { self.rng.range(3_000, 5_000) };
        self.at(first, Happening::Fault);
    }

    pub(crate) fn next_fault(&mut self) {
        if self.plan.left == 0 {
            let last = self.rng.range(500, 4_000);
            return self.at(last, Happening::HealAll);
        }
        self.plan.left -= 1;
        self.coverage.faults += 1;
        let node = self.rng.index(self.nodes.len());
        match self.rng.range(0, 100) {
            0..30 => self.kill(node),
            30..37 => self.kill_all(),
            37..50 => self.pause(node, false),
            50..55 => self.pause(node, true),
            55..69 => self.partition(node, true),
            69..79 => self.partition(node, false),
            79..84 => self.reset_link(0, self.nodes.len() - 1),
            84..88 => self.slow_network(),
            88..92 => self.slow_disk(node),
            92..94 => self.wall_clock(node),
            94..97 => self.operator(),
            _ => self.hand_over(),
        }
        // Often at once, so that faults meet; sometimes late, so that the pair heals in between.
        let pause = if self.rng.percent(35) { self.rng.range(1, 700) } else { self.rng.range(700, 4_500) };
        self.at(pause, Happening::Fault);
    }

    fn kill(&mut self, n: usize) {
        let guard = self.rng.percent(70);
        if self.nodes[n].process.is_some() {
            self.coverage.kills += 1;
            self.end_process(n, guard);
            let down = if self.rng.percent(25) { self.rng.range(3_000, 9_000) } else { self.rng.range(30, 3_000) };
            self.at(down, Happening::Start(n));
        }
        if self.rng.percent(15) {
            let after = self.rng.range(300, 2_500);
            self.coverage.operators_hoped += 1;
            self.at(after, Happening::Fault);
            self.plan.left += 1;
        }
    }

    fn kill_all(&mut self) {
        self.coverage.group_kills += 1;
        for n in 0..self.nodes.len() {
            self.end_process(n, false);
            let down = self.rng.range(30, 5_000);
            self.at(down, Happening::Start(n));
        }
    }

    /// SIGKILL, or power: unsynced writes are lost, all or from some write on.
    pub(crate) fn end_process(&mut self, n: usize, guard: bool) {
        let now = self.clock(n);
        let Some(process) = self.nodes[n].process.take() else { return };
        self.count_heal_crash(n);
        let in_flight = process.replica.status(now).in_flight;
        self.nodes[n].had_right = process.has_right();
        self.coverage.in_flight_at_crash += u64::from(in_flight > 0);
        let queued = self.nodes[n].disk.queued();
        let keep = if self.rng.percent(50) { 0 } else { self.rng.index(queued + 1) };
        self.note(|| {
            let word = if guard { "with" } else { "without" };
            format!(
                "FAULT node {} is killed {word} guard, {in_flight} batches in flight, {keep} of {queued} writes kept",
                n + 1
            )
        });
        let mut checks = std::mem::take(&mut self.checks);
        self.nodes[n].disk.crash(keep, &mut |image, part| checks.on_landed(n, image, part));
        self.checks = checks;
        self.take_landed_faults();
        self.nodes[n].paused = false;
        self.nodes[n].asleep = None;
        self.nodes[n].pauses += 1;
        self.nodes[n].deferred.clear();
        self.epoch_landed(n);
        for job in process.jobs.values().filter(|job| job.client < crate::spread::FAN_OUT) {
            let (client, serial) = (job.client, job.serial);
            self.at(1, Happening::Told { client, serial, answer: None });
        }
        self.drop_links(n);
        self.disturb_quorum();
        if guard {
            let boot = process.boot;
            for peer in (0..self.nodes.len()).filter(|peer| *peer != n) {
                if self.net.is_open(n, peer) {
                    let delay = self.rng.range(1, 25);
                    self.to(peer, delay, Inner::Event(Event::GuardWord { peer: node_id(n), boot }));
                }
            }
        }
    }

    fn pause(&mut self, n: usize, asleep: bool) {
        if !self.nodes[n].is_awake() {
            return;
        }
        self.coverage.pauses += 1;
        self.note(|| format!("FAULT node {} {}", n + 1, if asleep { "sleeps" } else { "is stopped" }));
        let node = &mut self.nodes[n];
        node.paused = true;
        node.paused_at = self.now;
        node.pauses += 1;
        node.asleep = asleep.then_some(self.now);
        let count = node.pauses;
        let long = if self.rng.percent(60) { self.rng.range(100, 1_000) } else { self.rng.range(1_000, 5_000) };
        self.at(long, Happening::Resume(n, count));
        self.disturb_quorum();
    }

    pub(crate) fn resume(&mut self, n: usize, count: u64) {
        if !self.nodes[n].paused || self.nodes[n].pauses != count {
            return;
        }
        self.note(|| format!("node {} goes on", n + 1));
        self.nodes[n].paused = false;
        if self.now - self.nodes[n].paused_at > crate::world::timing().pause {
            self.nodes[n].woke = self.now;
        }
        let slept = self.nodes[n].asleep.take().map(|since| self.now - since);
        if let Some(slept) = slept {
            if let Some(process) = self.nodes[n].process.as_mut() {
                process.frozen += slept;
            }
            self.tell(n, Event::Paused);
        }
        for inner in std::mem::take(&mut self.nodes[n].deferred) {
            self.to(n, 0, inner);
        }
        self.disturb_quorum();
    }

    fn partition(&mut self, n: usize, both: bool) {
        self.coverage.partitions += 1;
        if self.shape.has_third() {
            return self.partition_points(n, both);
        }
        let other = (n + 1) % self.nodes.len();
        self.note(|| {
            format!("FAULT cut from node {} to node {}{}", n + 1, other + 1, if both { " and back" } else { "" })
        });
        self.net.set(n, other, true);
        if both {
            self.net.set(other, n, true);
        }
        self.net.cuts += 1;
        let count = self.net.cuts;
        let long = if self.rng.percent(35) { self.rng.range(50, 1_400) } else { self.rng.range(1_400, 6_000) };
        self.at(long, Happening::HealNet(count));
        self.disturb_quorum();
    }

    pub(crate) fn heal_net(&mut self, count: u64) {
        if self.net.cuts == count {
            self.note(|| "the network heals".to_owned());
            self.net.heal();
            self.rejects = false;
            self.disturb_quorum();
        }
    }

    fn slow_network(&mut self) {
        self.coverage.slow += 1;
        self.net.slow = self.rng.range(20, 400);
        self.net.cuts += 1;
        let (slow, count) = (self.net.slow, self.net.cuts);
        self.note(|| format!("FAULT the network takes up to {slow} ms"));
        let long = self.rng.range(300, 4_000);
        self.at(long, Happening::HealNet(count));
    }

    fn slow_disk(&mut self, n: usize) {
        self.coverage.slow += 1;
        self.note(|| format!("FAULT the disk of node {} is slow", n + 1));
        self.plan.slow_disk = if self.plan.slow_disk.is_some() { None } else { Some(n) };
    }

    fn wall_clock(&mut self, n: usize) {
        let jump: Ms = self.rng.range(0, 7_200_000);
        self.note(|| format!("FAULT the wall clock of node {} is {jump} ms ahead", n + 1));
        self.nodes[n].wall = jump;
    }

    /// Says that the peer is down, on a node that waits for it; right or not.
    fn operator(&mut self) {
        for n in 0..self.nodes.len() {
            if self.start_alone(n) {
                return;
            }
        }
    }

    /// On this node, if it waits.
    pub(crate) fn start_alone(&mut self, n: usize) -> bool {
        let now = self.clock(n);
        let waits = self.nodes[n].process.as_ref().is_some_and(|p| matches!(p.replica.serving(now), Serving::Not(_)));
        // Nobody who has just put an old disk in would say that of the other node.
        let may = waits && self.nodes[n].is_awake() && !self.nodes[n].rolled_back;
        if may {
            self.note(|| format!("FAULT an operator starts node {} alone", n + 1));
            if let Some(process) = self.nodes[n].process.as_mut() {
                process.words += 1;
            }
            self.tell(n, Event::StartAlone);
        }
        may
    }

    /// An operator moves the home, or lets a member go before a stop that comes or does not.
    fn hand_over(&mut self) {
        let homes = |n: &usize| {
            let record = self.nodes[*n].process.as_ref().and_then(|p| p.replica.record());
            self.nodes[*n].is_awake() && record.is_some_and(|r| r.home == node_id(*n))
        };
        let Some(home) = (0..self.nodes.len()).find(homes) else { return };
        let other = (home + 1 + self.rng.index(self.nodes.len() - 1)) % self.nodes.len();
        let to = self.rng.percent(50).then(|| node_id(other));
        let leaves = self.rng.percent(30).then(|| self.rng.index(self.nodes.len()));
        self.note(|| format!("FAULT node {} hands over to {to:?}, leaving {leaves:?}", home + 1));
        if let Some(n) = leaves {
            self.tell(n, Event::Leaving(true));
        }
        self.tell(home, Event::Handover { to, leaves: leaves.map(node_id) });
        if let Some(n) = leaves {
            let delay = self.rng.range(20, 800);
            let stops = self.rng.percent(60);
            self.at(delay, Happening::Stop(n, stops));
        }
    }

    /// The stop that was planned, or that was thought better of.
    pub(crate) fn stop(&mut self, n: usize, stops: bool) {
        if stops && self.calming.is_none() {
            self.kill(n);
        } else {
            self.tell(n, Event::Leaving(false));
        }
    }

    /// The end of all faults: everything runs and is connected; now the pair must come to rest.
    pub(crate) fn heal_all(&mut self) {
        self.note(|| "all faults are over".to_owned());
        self.calming = Some(self.now);
        self.plan.slow_disk = None;
        self.plan.lost_answers = 0;
        for n in 0..self.nodes.len() {
            if self.nodes[n].full {
                self.set_full(n, false);
            }
        }
        self.net.heal();
        self.rejects = false;
        self.net.cuts += 1;
        for n in 0..self.nodes.len() {
            let delay = self.rng.range(1, 1_500);
            self.at(delay, Happening::Start(n));
            let count = self.nodes[n].pauses;
            self.at(delay, Happening::Resume(n, count));
        }
        for delay in [2_000, 4_000] {
            self.at(delay, Happening::Reconsider);
        }
        for client in 0..self.clients.len() {
            self.client_again(client);
        }
    }

    fn client_again(&mut self, client: usize) {
        let delay = self.rng.range(2_000, 6_000);
        self.at(delay, Happening::Client(client));
    }
}
