//! Which cluster a history has: mostly a pair, sometimes a pair with a witness or three data nodes; what can be cut, who
//! has a quorum, and whose words count for whom while nodes are apart.

use topology::{EpochKind, EpochRecord};

use crate::invariants::View;
use crate::vocabulary::{Happening, node_id};
use crate::world::World;

/// The side of whoever goes on by quorum while a member is left out; forks have the place of the node that began them.
const BY_QUORUM: usize = 100;
/// Cuts whose firewall rejects instead of dropping (percent): it looks like a dead process.
const REJECTS_PERCENT: u64 = 30;

/// Nodes and voters of one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Pair,
    /// And a voter without mail.
    Witness,
    Three,
}

impl Shape {
    /// One history in five is no pair.
    pub(crate) fn of(seed: u64) -> Self {
        match (seed % 5, seed / 5 % 2) {
            (1, 0) => Self::Witness,
            (1, _) => Self::Three,
            _ => Self::Pair,
        }
    }
    pub(crate) fn nodes(self) -> usize {
        if self == Self::Three { 3 } else { 2 }
    }
    /// What the network connects: the nodes, then the witness.
    pub(crate) fn points(self) -> usize {
        if self == Self::Pair { 2 } else { 3 }
    }
    /// Who goes on is decided by a quorum, not by each node for itself.
    pub(crate) fn has_third(self) -> bool {
        self != Self::Pair
    }
}

/// Added to the side of a node that goes on alone while others go on from what it did alone before.
const FORKED: usize = 10;

impl World {
    fn is_up(&self, point: usize) -> bool {
        self.nodes.get(point).is_none_or(crate::node::Node::is_awake)
    }

    /// Up, and connected with most voters, itself among them.
    pub(crate) fn has_quorum(&self, n: usize) -> bool {
        if let Some(sole) = self.register.sole {
            return self.is_up(n) && (n == sole || (self.is_up(sole) && self.net.both_open(n, sole)));
        }
        let points = self.shape.points();
        let reached = (0..points).filter(|p| *p == n || (self.is_up(*p) && self.net.both_open(n, *p))).count();
        self.is_up(n) && reached * 2 > points
    }

    /// With a third voter: one point is cut off, or two from each other.
    pub(crate) fn partition_points(&mut self, n: usize, both: bool) {
        let points = self.shape.points();
        let alone = self.rng.percent(60);
        let point = if self.rng.percent(25) { points - 1 } else { n };
        let other = (point + 1 + self.rng.index(points - 1)) % points;
        self.rejects = self.rng.percent(REJECTS_PERCENT);
        let rejects = if self.rejects { ", rejecting" } else { "" };
        let from = if alone { "all".to_owned() } else { format!("point {}", other + 1) };
        self.note(|| {
            format!("FAULT point {} is cut from {from}{}{rejects}", point + 1, if both { " and back" } else { "" })
        });
        for peer in (0..points).filter(|p| *p != point && (alone || *p == other)) {
            self.net.set(point, peer, true);
            if both {
                self.net.set(peer, point, true);
            }
        }
        self.net.cuts += 1;
        let count = self.net.cuts;
        let long = if self.rng.percent(35) { self.rng.range(50, 1_400) } else { self.rng.range(1_400, 6_000) };
        self.at(long, Happening::HealNet(count));
        self.disturb_quorum();
    }

    /// Whether a probe of this peer finds that it refuses on every path.
    pub(crate) fn seems_gone(&self, n: usize, peer: usize) -> bool {
        let dead = self.nodes[peer].process.is_none() && self.net.both_open(n, peer);
        dead || (self.rejects && !self.net.is_open(n, peer))
    }

    /// The side a node is on after it entered this epoch.
    pub(crate) fn side_after(&self, n: usize, before: Option<&EpochRecord>, record: &EpochRecord) -> Option<usize> {
        let (me, home) = (node_id(n), crate::vocabulary::index_of(record.home));
        if record.kind == EpochKind::Joint && record.in_sync.len() == self.nodes.len() {
            return None;
        }
        if record.kind == EpochKind::Solo && record.home == me {
            let carried = (0..self.nodes.len()).any(|other| other != n && self.nodes[other].apart == Some(n));
            return Some(if carried { FORKED + n } else { n });
        }
        // Before the second node has joined there are no sides.
        if before.is_none_or(|b| b.members.len() < self.nodes.len()) && self.nodes[n].apart.is_none() {
            return None;
        }
        // A home that an operator has started alone since does not lead this epoch any more.
        let left = self.nodes[home].record.as_ref().is_some_and(|r| r.kind == EpochKind::Solo && r.id > record.id);
        let leader = if record.in_sync.contains(&me) && !left { home } else { n };
        Some(self.nodes[leader].apart.unwrap_or(BY_QUORUM))
    }

    /// H25: a node that went on alone on silence had listened long enough since it was itself away.
    pub(crate) fn check_alone(&mut self, n: usize, before: Option<&EpochRecord>, record: &EpochRecord) {
        let me = node_id(n);
        let opened = record.kind == EpochKind::Solo && record.home == me && before.is_some_and(|b| b.id < record.id);
        let operator = self.nodes[n].process.as_ref().is_some_and(|p| p.operator);
        let heard = self.now - self.nodes[n].woke;
        if opened && record.on_silence && !operator && heard < crate::world::timing().t1 {
            self.broken("H25", format!("node {} went on alone {heard} ms after a pause of its own", n + 1));
        }
    }

    /// What a reader at this node may be held to while some are apart.
    pub(crate) fn view_apart(&self, node: usize) -> View {
        let side = self.nodes[node].apart.or_else(|| self.side_of_home(node));
        let by_right = |s: usize| self.nodes.get(s).is_none_or(|n| n.alone_by_right);
        let started = |n: usize| self.nodes[n].record.as_ref().is_some_and(|r| r.kind == EpochKind::Solo);
        let alone = |n: &usize| {
            [*n, FORKED + *n].map(Some).contains(&self.nodes[*n].apart) && self.nodes[*n].alone_by_right && started(*n)
        };
        let elsewhere = (0..self.nodes.len()).filter(|n| *n != node && Some(*n) != side).find(alone);
        View { node, side, excused: side.is_some_and(by_right), heard_out: None, elsewhere }
    }

    /// The side a home of this backup has gone to already, and takes it along: what the home confirms is shown before the
    /// backup has written the epoch, and was told by that side.
    fn side_of_home(&self, node: usize) -> Option<usize> {
        let me = node_id(node);
        let homes = self.nodes[node].record.as_ref()?.all_homes();
        let ahead = homes.into_iter().map(|home| &self.nodes[crate::vocabulary::index_of(home)]);
        ahead.filter(|home| home.record.as_ref().is_some_and(|r| r.in_sync.contains(&me))).find_map(|home| home.apart)
    }

    /// Counts who went on by quorum, and who was left alone by an operator's word.
    pub(crate) fn count_takeover(&mut self, n: usize, before: Option<&EpochRecord>, record: &EpochRecord) {
        let took = record.kind == EpochKind::Reduced && record.home == node_id(n) && record.parents.len() == 1;
        if took && record.gap && before.is_some_and(|b| b.home != record.home) {
            match self.shape {
                Shape::Witness => self.coverage.witness_takeovers += 1,
                Shape::Three => self.coverage.third_node_takeovers += 1,
                Shape::Pair => {}
            }
        }
    }
}
