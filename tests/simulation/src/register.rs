//! Raft as the nodes see it: one register with compare-and-set, only where most voters are up and connected; what was
//! decided is learned later, and answers may be lost. What is accepted is decided by the real `topology::apply`.

use replica::{Event, Serving};
use topology::{ClusterState, ConfigOp, EpochRecord, Member};
use vocab::{Boot, EpochId};

use crate::vocabulary::{Happening, Inner, node_id};
use crate::world::World;

/// Hash of the one token every other member joins with, one after the other.
const TOKEN: &str = "00000000000000000000000000000000000000000000000000000000000000aa";
/// Answers lost although the change was made (percent).
const LOST_PERCENT: u64 = 7;

#[derive(Debug)]
pub(crate) struct Register {
    state: ClusterState,
    index: u64,
    /// The only voter, since an operator said so and until the others are back.
    pub(crate) sole: Option<usize>,
}

fn member(index: usize) -> Member {
    let id = node_id(index);
    Member {
        id,
        name: format!("node{}", id.0),
        peer_address: format!("192.0.2.{}:6420", id.0),
        address: format!("192.0.2.{}", id.0),
        data: true,
        paths: Vec::new(),
    }
}

impl Register {
    /// The epoch it holds.
    pub(crate) fn record(&self) -> Option<EpochRecord> {
        self.state.epoch.clone()
    }

    /// A cluster of which every node is a member, and only the first is in an epoch: the others have yet to join.
    pub(crate) fn new(nodes: usize) -> Self {
        let mut register = Self { state: ClusterState::default(), index: 0, sole: None };
        register.change(&ConfigOp::Found {
            cluster_id: "simulation".to_owned(),
            name: "simulation".to_owned(),
            member: member(0),
            cluster_address: None,
        });
        for index in 1..nodes {
            register.change(&ConfigOp::AddToken { hash: TOKEN.to_owned(), expires: 10 });
            register.change(&ConfigOp::Admit { token_hash: TOKEN.to_owned(), now: 1, member: member(index) });
        }
        register
    }

    fn change(&mut self, op: &ConfigOp) -> bool {
        self.index += 1;
        match topology::apply(&self.state, op, self.index) {
            Ok((next, _)) => {
                self.state = next;
                true
            }
            Err(_) => false,
        }
    }
}

impl World {
    /// Something changed that quorum depends on: an election takes its time.
    pub(crate) fn disturb_quorum(&mut self) {
        let delay = self.rng.range(20, 700);
        self.at(delay, Happening::Reconsider);
    }

    pub(crate) fn reconsider_quorum(&mut self) {
        self.take_back_voters();
        let record = self.register.state.epoch.clone();
        for n in 0..self.nodes.len() {
            let quorum = self.has_quorum(n);
            if self.nodes[n].process.as_ref().is_some_and(|p| p.quorum != quorum) {
                let delay = self.rng.range(0, 30);
                self.to(n, delay, Inner::Quorum(quorum));
            }
            if quorum && self.nodes[n].known != record {
                let delay = self.rng.range(0, 60);
                if let Some(record) = record.clone() {
                    self.to(n, delay, Inner::Learn(record));
                }
            }
        }
    }

    /// The rescue of `cluster/shards/src/membership.rs`: a node that serves alone by right, hears nobody and has no quorum
    /// becomes the only voter. Its settings are what it knows of them; those of the others are void.
    pub(crate) fn rescue(&mut self) {
        let fits = |world: &Self, n: usize| {
            let others = (0..world.nodes.len()).filter(|other| *other != n);
            let alone = world.nodes[n].record.as_ref().is_some_and(|r| r.is_alone(node_id(n)) && r.certain);
            let now = world.clock(n);
            let serves = world.nodes[n].process.as_ref().is_some_and(|p| p.replica.serving(now) == Serving::Home);
            let unheard = others.into_iter().all(|other| world.nodes[other].process.is_none());
            alone && serves && unheard && world.nodes[n].is_awake() && !world.has_quorum(n)
        };
        if self.register.sole.is_some() || self.calming.is_some() {
            return;
        }
        let Some(n) = (0..self.nodes.len()).find(|n| fits(self, *n)) else { return };
        self.note(|| format!("an operator makes node {} the only voter", n + 1));
        self.coverage.sole_voters += 1;
        self.register.sole = Some(n);
        self.register.state.epoch.clone_from(&self.nodes[n].known);
        self.register.index += topology::LIFE_SPAN * (n as u64 + 1);
        self.disturb_quorum();
    }

    /// Whoever is back and connected with the only voter takes its settings over and votes again.
    fn take_back_voters(&mut self) {
        let Some(n) = self.register.sole else { return };
        let back = |other: usize| self.nodes[other].is_awake() && self.net.both_open(n, other);
        if self.nodes[n].is_awake() && (0..self.nodes.len()).all(|other| other == n || back(other)) {
            self.register.sole = None;
            let known = self.register.state.epoch.clone();
            self.nodes.iter_mut().for_each(|node| node.known.clone_from(&known));
            self.note(|| "every member votes again".to_owned());
            (0..self.nodes.len()).for_each(|node| self.tell_register(node));
        }
    }

    pub(crate) fn quorum_seen(&mut self, n: usize, quorum: bool) {
        if let Some(process) = self.nodes[n].process.as_mut() {
            process.quorum = quorum;
        }
        self.tell_register(n);
    }

    pub(crate) fn learn(&mut self, n: usize, record: EpochRecord) {
        if self.nodes[n].known.as_ref().is_none_or(|known| known.id < record.id) {
            self.nodes[n].known = Some(record);
        }
        self.tell_register(n);
    }

    fn tell_register(&mut self, n: usize) {
        let members = (0..self.nodes.len()).map(node_id).collect();
        let quorum = self.nodes[n].process.as_ref().is_some_and(|p| p.quorum);
        let voters = if self.register.sole.is_some() { 1 } else { self.shape.points() };
        let voters = u32::try_from(voters).unwrap_or(u32::MAX);
        self.tell(n, Event::Register { record: self.nodes[n].known.clone(), members, voters, quorum });
    }

    pub(crate) fn propose(&mut self, n: usize, expect: EpochId, record: EpochRecord) {
        let Some(boot) = self.nodes[n].boot() else { return };
        let delay = self.rng.range(2, 25);
        self.note(|| format!("node {} proposes {}", n + 1, crate::describe_record(&record)));
        self.at(delay, Happening::Decide { node: n, boot, expect, record });
    }

    pub(crate) fn decide(&mut self, n: usize, boot: Boot, expect: EpochId, record: EpochRecord) {
        // A proposal whose process died on the way may still have reached the log.
        let alive = self.nodes[n].boot() == Some(boot);
        let decided =
            self.has_quorum(n) && self.register.change(&ConfigOp::SetEpoch { expect, record: record.clone() });
        // Its number may be another than proposed: the one it is decided with counts.
        let record = self.register.record().filter(|_| decided).unwrap_or(record);
        if decided {
            self.note(|| format!("register: {}", crate::describe_record(&record)));
            self.heal_decided(&record);
            let majority: Vec<usize> = (0..self.nodes.len()).filter(|node| self.has_quorum(*node)).collect();
            for node in majority {
                let delay = self.rng.range(0, 40);
                self.to(node, delay, Inner::Learn(record.clone()));
            }
        }
        if alive && (!decided || self.rng.percent(LOST_PERCENT)) {
            let delay = self.rng.range(1, 300);
            self.to(n, delay, Inner::Event(Event::ProposeFailed));
        }
    }
}
