//! The network of the nodes: one link per pair with ordered frames, cut in each direction by itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use replica::Event;
use vocab::Boot;

use crate::vocabulary::{Happening, Inner, Ms, node_id};
use crate::world::World;

/// One connection, both directions.
#[derive(Clone, Debug)]
struct Link {
    number: u64,
    boots: (Option<Boot>, Option<Boot>),
    /// Frames of this direction were lost: nothing more arrives on this link.
    broken: [bool; 2],
    /// When the last frame of each direction arrives: order is kept.
    arrival: [Ms; 2],
}

#[derive(Debug)]
pub(crate) struct Net {
    nodes: usize,
    cut: Vec<bool>,
    links: BTreeMap<(usize, usize), Link>,
    numbers: u64,
    /// Added to every delay while the network is slow (ms).
    pub(crate) slow: Ms,
    /// Counts cuts, so that an old repair does nothing.
    pub(crate) cuts: u64,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Net {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { nodes, cut: vec![false; nodes * nodes], links: BTreeMap::new(), numbers: 0, slow: 0, cuts: 0 }
    }
    pub(crate) fn is_open(&self, from: usize, to: usize) -> bool {
        !self.cut[from * self.nodes + to]
    }
    pub(crate) fn both_open(&self, a: usize, b: usize) -> bool {
        self.is_open(a, b) && self.is_open(b, a)
    }
    pub(crate) fn set(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from * self.nodes + to] = cut;
    }
    pub(crate) fn heal(&mut self) {
        self.cut.fill(false);
        self.slow = 0;
    }
}

impl World {
    pub(crate) fn delay(&mut self) -> Ms {
        let slow = self.net.slow;
        self.rng.range(0, 3) + if slow > 0 { self.rng.range(0, slow) } else { 0 }
    }

    pub(crate) fn send(&mut self, from: usize, to: usize, bytes: Bytes) {
        let delay = self.delay();
        let open = self.net.is_open(from, to);
        let now = self.now;
        let Some(number) = self.nodes[from].process.as_ref().and_then(|p| p.links.get(&to)).copied() else { return };
        let Some(link) = self.net.links.get_mut(&pair(from, to)).filter(|l| l.number == number) else { return };
        let direction = usize::from(from > to);
        if !open {
            link.broken[direction] = true;
        }
        if link.broken[direction] {
            return;
        }
        let at = (now + delay).max(link.arrival[direction]);
        link.arrival[direction] = at;
        self.to(to, at - now, Inner::Frame { peer: from, link: number, bytes });
    }

    /// The transport of a pair looks at its link every so often.
    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        let again = self.rng.range(40, 160);
        self.at(again, Happening::Connect(a, b));
        if !self.nodes[a].is_awake() || !self.nodes[b].is_awake() || !self.net.both_open(a, b) {
            return;
        }
        let boots = (self.nodes[a].boot(), self.nodes[b].boot());
        let now = self.now;
        let good = |l: &Link| l.boots == boots && l.broken == [false, false];
        if self.net.links.get(&(a, b)).is_some_and(good) {
            return;
        }
        self.net.numbers += 1;
        let number = self.net.numbers;
        let (to_a, to_b) = (self.rng.range(0, 6), self.rng.range(0, 6));
        let arrival = [now + to_b, now + to_a];
        self.net.links.insert((a, b), Link { number, boots, broken: [false; 2], arrival });
        if let (Some(boot_a), Some(boot_b)) = boots {
            self.to(a, to_a, Inner::Connected { peer: b, boot: boot_b, link: number });
            self.to(b, to_b, Inner::Connected { peer: a, boot: boot_a, link: number });
        }
    }

    pub(crate) fn connected(&mut self, n: usize, peer: usize, boot: Boot, link: u64) {
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        if process.links.get(&peer).is_some_and(|have| *have > link) {
            return;
        }
        if let Some(old) = process.links.insert(peer, link) {
            self.tell(n, Event::LinkDown { peer: node_id(peer), link: old });
        }
        self.tell(n, Event::LinkUp { peer: node_id(peer), boot, link });
    }

    pub(crate) fn disconnected(&mut self, n: usize, peer: usize, link: u64) {
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        if process.links.get(&peer) == Some(&link) {
            process.links.remove(&peer);
            self.tell(n, Event::LinkDown { peer: node_id(peer), link });
        }
    }

    /// The kernel of a dead process closes its connections; who can be reached hears of it.
    pub(crate) fn drop_links(&mut self, n: usize) {
        for peer in (0..self.nodes.len()).filter(|p| *p != n) {
            let Some(link) = self.net.links.remove(&pair(n, peer)) else { continue };
            if self.net.is_open(n, peer) {
                let now = self.now;
                let at = (now + self.rng.range(0, 5)).max(link.arrival[usize::from(n > peer)]);
                self.to(peer, at - now, Inner::Disconnected { peer: n, link: link.number });
            }
        }
    }

    /// A connection breaks by itself: both ends hear of it, sooner or later.
    pub(crate) fn reset_link(&mut self, a: usize, b: usize) {
        if let Some(link) = self.net.links.remove(&pair(a, b)) {
            for (n, peer) in [(a, b), (b, a)] {
                let delay = self.rng.range(0, 60);
                self.to(n, delay, Inner::Disconnected { peer, link: link.number });
            }
        }
    }
}
