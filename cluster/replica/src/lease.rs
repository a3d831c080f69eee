//! Who may serve what now: home lease, read lease, confirmed versions (DESIGN 5; X1, X2, X3).

use mailbox::op::{Gap, Marks};
use topology::{EpochKind, EpochRecord};
use vocab::{AccountId, Instant, NodeId, Version};

use crate::Replica;
use crate::config::Rule;
use crate::epoch::is_full;
use crate::output::{MayRead, Output, Serving, StampBase};
use crate::status::{Mode, ReplicaStatus, SyncProgress};

impl Replica {
    /// Whether and how this node serves clients.
    #[must_use]
    pub fn serving(&self, now: Instant) -> Serving {
        let now = now.max(self.now);
        let Some(record) = &self.record else { return Serving::Not("not in an epoch yet") };
        if self.versions.is_none() {
            return Serving::Not("starting");
        }
        if let Some(why) = self.fenced {
            return Serving::Not(why);
        }
        if self.is_superseded() || self.is_sealing() {
            return Serving::Not("a newer epoch is being entered");
        }
        let me = self.me();
        if !record.in_sync.contains(&me) {
            return Serving::Not("this node is being brought up to date");
        }
        // H28: only the home knows of which accounts the guest may have a branch that is not merged yet. Who asks here is
        // passed on to it.
        if !record.is_home(me) && record.guest.is_some() && self.keeps(Rule::MergedReads) {
            return Serving::Not("a node is being brought up to date: the home shows what it brings");
        }
        if record.is_home(me) {
            let serving = self.home_serving(now);
            if serving != Serving::Home {
                return serving;
            }
        }
        for home in record.all_homes().into_iter().filter(|home| *home != me) {
            if !self.follow.compared.contains(&home) {
                return Serving::Not("not compared with the home yet");
            }
            // X1: only under a lease of the home's present boot.
            let over = self.follow.leases.get(&home).is_none_or(|until| now >= *until);
            if over && self.keeps(Rule::ReadLease) {
                return Serving::Not("no read lease from the home");
            }
        }
        if record.home == me { Serving::Home } else { Serving::Backup }
    }

    /// Whether versions were compared in this epoch since boot: as home with the whole in-sync set, and with every
    /// other home (X5).
    pub(crate) fn is_compared(&self, record: &EpochRecord) -> bool {
        let me = self.me();
        let led = !record.is_home(me) || self.led == Some(record.id);
        let in_effect = self.record.as_ref().is_some_and(|r| r.id == record.id);
        let others = record.all_homes();
        let mut others = others.iter().filter(|home| **home != me);
        in_effect && led && others.all(|home| self.follow.compared.contains(home))
    }

    fn home_serving(&self, now: Instant) -> Serving {
        let Some(id) = self.record.as_ref().map(|r| r.id) else { return Serving::Not("not in an epoch yet") };
        let peers = self.commit_peers();
        if peers.is_empty() {
            return Serving::Home;
        }
        // X3: nothing is served before versions were compared with the whole in-sync set since boot.
        if self.led != Some(id) {
            return Serving::Not("not compared with the other node yet");
        }
        // X4: who went on in another epoch, without this node, renews nothing.
        let me = self.me();
        let with_us = |r: &EpochRecord| r.id <= id || (self.moves_on(r) && r.in_sync.contains(&me));
        let renews = |p: &NodeId| {
            let with = self.peers.get(p).is_some_and(|p| p.record.as_ref().is_none_or(with_us));
            with && self.heard_of_us(*p, now)
        };
        if peers.iter().all(renews) || !self.keeps(Rule::HomeLease) {
            Serving::Home
        } else {
            Serving::Not("no contact with the other node")
        }
    }

    /// Whether a member acknowledged a heartbeat of this node within the lease that ends at `now` or later.
    fn heard_of_us(&self, id: NodeId, now: Instant) -> bool {
        let echoed = self.peers.get(&id).and_then(|p| p.echoed);
        echoed.is_some_and(|at| self.counts(at) && now < at.plus_ms(self.config.timing.lease))
    }

    /// The same, now.
    pub(crate) fn in_contact(&self, id: NodeId) -> bool {
        self.heard_of_us(id, self.now)
    }

    /// Whether a snapshot of `account` at `version` may be shown to a client (X1, X2). Ask after taking it.
    #[must_use]
    pub fn may_read(&self, account: AccountId, version: Version, now: Instant) -> MayRead {
        match self.serving(now) {
            Serving::Not(reason) => MayRead::No(reason),
            _ if self.reads_wait(account, now) => MayRead::Merging,
            _ if self.home(account.shard()) == Some(self.me()) => MayRead::Yes,
            Serving::Home | Serving::Backup => {
                let confirmed = self.follow.confirmed.get(&account).copied().unwrap_or_default();
                if confirmed == version || !self.keeps(Rule::ConfirmedReads) { MayRead::Yes } else { MayRead::Wait }
            }
        }
    }

    /// Other nodes that serve clients as well as this one, which leads the epoch: in sync, compared, under leases, and
    /// heard. None while a node is being brought up to date: it takes what the others can spare.
    #[must_use]
    pub fn partners(&self) -> Vec<NodeId> {
        let leads = |r: &&EpochRecord| r.home == self.me() && r.guest.is_none();
        if self.record.as_ref().filter(leads).is_none() {
            return Vec::new();
        }
        let peers = self.commit_peers();
        peers
            .into_iter()
            .filter(|peer| self.may_grant(*peer) && self.peers.get(peer).is_some_and(|p| p.disk_ok))
            .collect()
    }

    /// A home drops a backup only after the last lease it gave has run out, so it gives none to who is silent: on a link
    /// that stands though nothing travels any more, leases would be given for ever.
    pub(crate) fn may_grant(&self, peer: NodeId) -> bool {
        let Some(record) = &self.record else { return false };
        let newer = self.register.record.as_ref().is_some_and(|r| r.id > record.id);
        let id = Some(record.id);
        record.is_home(self.me())
            && !newer
            && self.entering.is_none()
            && !self.is_superseded()
            && self.led == id
            && self.peers.get(&peer).is_some_and(|p| p.level && p.told == id && p.epoch() == id && self.is_heard(p))
    }

    /// Whether anything came from it within the time of a lease.
    pub(crate) fn is_heard(&self, peer: &crate::link::Peer) -> bool {
        peer.heard.is_some_and(|at| self.now.since(at) < self.config.timing.lease)
    }

    /// The lease counts from when we sent what the home had heard when it gave it: never longer than the home thinks.
    pub(crate) fn on_grant(&mut self, from: NodeId, sent: Instant) {
        let taken = self.record.as_ref().is_some_and(|r| r.is_home(from) && r.in_sync.contains(&self.config.node));
        if taken && self.counts(sent) {
            let until = sent.plus_ms(self.config.timing.lease);
            let lease = self.follow.leases.entry(from).or_default();
            *lease = until.max(*lease);
        }
    }

    /// The machine slept and its clock may have stood still: others waited out our leases meanwhile, so none is left.
    pub(crate) fn on_sleep(&mut self) {
        self.contact_floor = Some(self.now);
        self.follow.leases.clear();
        self.on_pause();
    }

    /// Contact of this time counts for a lease.
    fn counts(&self, at: Instant) -> bool {
        self.contact_floor.is_none_or(|floor| at > floor)
    }

    /// A newer epoch is known in which this node has no say of its own (X7).
    pub(crate) fn is_superseded(&self) -> bool {
        let Some(record) = &self.record else { return false };
        let Some(newest) = self.newest().filter(|n| n.id > record.id) else { return false };
        let stays = newest.home == record.home && newest.in_sync.contains(&self.me());
        let leaves_others_out = newest.home == self.me();
        !stays && !leaves_others_out
    }

    /// The epoch that is being written takes this node's right to serve.
    fn is_sealing(&self) -> bool {
        self.entering.as_ref().is_some_and(|e| !e.in_sync.contains(&self.me()))
    }

    pub(crate) fn should_hold_address(&self) -> bool {
        let Some(record) = &self.record else { return false };
        // An epoch that only moves homes away from its leader takes nothing from it: clients stay where they are.
        let keeps = self.address_held && self.entitled == Some(record.id);
        self.versions.is_some()
            && record.home == self.me()
            && self.fenced.is_none()
            && !self.is_superseded()
            && !self.is_sealing()
            && (self.commit_peers().is_empty() || keeps || self.is_compared(record))
    }

    /// Stamp of a batch of this account now.
    #[must_use]
    pub fn stamp(&self, account: AccountId) -> StampBase {
        let _ = account;
        let node = self.me();
        let Some(record) = &self.record else {
            let epoch = vocab::EpochId::default();
            return StampBase { epoch, home: node, joint: false, gap: None, marks: None, rows: self.row_format() };
        };
        let due = record.gap_epoch().filter(|epoch| *epoch == record.id || self.keeps(Rule::GapUntilJoint));
        let gap = due.map(|epoch| Gap { k: record.gap_k(node), of: record.gap_round(), epoch });
        // Who took a gap, or was not in the epoch before, may have missed a joint epoch that others entered, and then marks
        // from before it tell them nothing.
        let anew = record.gap_epoch().max(self.saved.marks_anew).unwrap_or_default();
        let from = anew.max(self.saved.marks_from());
        let marks = (!is_full(record)).then_some(Marks { from });
        let joint = record.kind == EpochKind::Joint;
        StampBase { epoch: record.id, home: node, joint, gap, marks, rows: self.row_format() }
    }

    fn mode(&self) -> Mode {
        let Some(record) = &self.record else { return Mode::Unformed };
        let me = self.me();
        if self.fenced.is_some() {
            return Mode::Fenced;
        }
        if record.kind == EpochKind::Heal && record.guest == Some(me) {
            return Mode::Syncing;
        }
        if self.is_superseded() {
            return Mode::Waiting;
        }
        if record.home == me && self.commit_peers().is_empty() {
            return match record.kind {
                EpochKind::Solo => Mode::Solo,
                EpochKind::Heal => Mode::Anchor,
                _ => Mode::Joined,
            };
        }
        if self.is_compared(record) {
            return if record.kind == EpochKind::Heal { Mode::Anchor } else { Mode::Joined };
        }
        if self.peers.values().any(|p| p.hello) { Mode::Comparing } else { Mode::Waiting }
    }

    /// Two sides of a split each hold the cluster address, and the network sends clients to whoever announced it last. The one
    /// that keeps it claims it anew when the other lets go. While both hold it neither does: they would fight for ever.
    pub(crate) fn claim_address(&mut self) {
        if self.address_held {
            self.outputs.push_back(Output::AddressHeld(true));
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        out.extend(self.fenced.map(|why| format!("fenced: {why}")));
        let lacking =
            |r: &EpochRecord| r.members.iter().filter(|m| !r.in_sync.contains(m)).copied().collect::<Vec<_>>();
        for node in self.record.as_ref().map(lacking).unwrap_or_default() {
            out.push(format!("node {} is not in sync: mail has one copy less", node.0));
        }
        if self.disk_low {
            out.push("free space is below the reserve".to_owned());
        }
        if self.disk_silent > vocab::limits::DISK_SILENT_MS {
            out.push(format!("the disk has not synced anything for {} ms", self.disk_silent));
        }
        out
    }

    /// Accounts that the guest of a heal does not have yet, as its anchor knows; for sizes, which the machine does not.
    #[must_use]
    pub fn accounts_left(&self) -> Vec<vocab::AccountId> {
        let guest = self.record.as_ref().filter(|r| r.home == self.me()).and_then(|r| r.guest);
        guest.and_then(|node| self.compares.get(&node)).map(|c| c.todo_accounts().collect()).unwrap_or_default()
    }

    /// Everything at a glance.
    #[must_use]
    pub fn status(&self, now: Instant) -> ReplicaStatus {
        let guest = self.record.as_ref().filter(|r| r.home == self.me()).and_then(|r| r.guest);
        let left = |node: NodeId| self.compares.get(&node).map_or(0, |c| c.left());
        ReplicaStatus {
            mode: self.mode(),
            record: self.record.clone(),
            newest: self.newest().map(|r| r.id),
            serving: self.serving(now),
            in_flight: self.flights.len() as u64,
            oldest_ms: self.flights.values().map(|f| now.since(f.since)).max().unwrap_or(0),
            waiting: self.orders.waiting() as u64,
            sync: guest.map(|node| SyncProgress { node, accounts_left: left(node) }),
            heard: self.peers.iter().map(|(id, p)| (*id, p.heard.map(|at| now.since(at)))).collect(),
            holds_address: self.address_held,
            warnings: self.warnings(),
            rows: self.saved.rows,
            unreadable: self.peers.iter().filter(|(_, p)| p.unreadable).map(|(id, p)| (*id, p.reads_rows)).collect(),
        }
    }
}
