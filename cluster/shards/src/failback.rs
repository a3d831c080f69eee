//! Failback: the home gives the primary's place back to the preferred node once that has been in sync again for a while
//! (features HA-20). The decision is pure: facts and a clock go in, a verdict comes out. The handover itself is the planned one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ports::journal::EventKind;
use replica::Mode;
use topology::{EpochKind, EpochRecord, Failback as How, PrimaryBody};
use vocab::limits::T2_MS;
use vocab::{EpochId, Instant, NodeId};

use crate::engine::Engine;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Each failback within this time doubles the wait for the next one (ms): a node that fails again and again does not take the
/// primary's place with it to and fro.
const REMEMBERED_MS: u64 = 60 * 60 * 1000;
/// Longest wait (ms).
const WAIT_MAX_MS: u64 = 60 * 60 * 1000;

/// What is so now.
pub(crate) struct Facts<'a> {
    /// This node.
    pub(crate) me: NodeId,
    /// The setting and its revision.
    pub(crate) setting: Option<(u64, PrimaryBody)>,
    /// Epoch in effect.
    pub(crate) record: Option<&'a EpochRecord>,
    /// Why this is no time for it: a heal, an outage, something between.
    pub(crate) unrest: Option<String>,
    /// Why the preferred node cannot take over at this moment.
    pub(crate) hindrance: Option<&'static str>,
}

/// What to do, and what to write down about it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Hand over to this node now.
    pub(crate) hand_over: Option<NodeId>,
    /// A decision with its reason.
    pub(crate) note: Option<String>,
}

/// Of an epoch, what tells an operator's switchover from everything else.
struct Seen {
    id: EpochId,
    home: NodeId,
    whole: bool,
}

/// What is remembered between two looks.
pub(crate) struct Failback {
    hold_down_ms: u64,
    revision: Option<u64>,
    /// False once an operator's word has moved the primary away from the preferred node.
    armed: bool,
    since: Option<Instant>,
    hold_until: Instant,
    last: Option<Seen>,
    done: VecDeque<Instant>,
    said: Option<String>,
}

impl Failback {
    /// `hold_down_ms`: how long takeovers on silence are held down after a heal.
    pub(crate) const fn new(hold_down_ms: u64) -> Self {
        Self {
            hold_down_ms,
            revision: None,
            armed: true,
            since: None,
            hold_until: Instant(0),
            last: None,
            done: VecDeque::new(),
            said: None,
        }
    }

    /// The verdict for now.
    pub(crate) fn look(&mut self, facts: &Facts<'_>, now: Instant) -> Verdict {
        let ordered = self.follow(facts, now);
        let (Some((revision, setting)), Some(record)) = (&facts.setting, facts.record) else { return self.rest() };
        let Some(preferred) = setting.node.map(NodeId).filter(|_| setting.failback == How::Auto) else {
            return self.rest();
        };
        if self.revision.replace(*revision) != Some(*revision) {
            (self.armed, self.since) = (true, None);
            self.done.clear();
        } else if ordered == Some(preferred) {
            self.armed = false;
            self.since = None;
            return self.say(format!(
                "node {} is preferred, but an order made node {} the primary: it stays so until node {} was out of sync, \
                 or the preference is said again",
                preferred.0, facts.me.0, preferred.0
            ));
        }
        if record.home != facts.me || preferred == facts.me {
            return self.rest();
        }
        if !record.in_sync.contains(&preferred) {
            self.armed = true;
            return self.rest();
        }
        if !self.armed {
            return Verdict::default();
        }
        let held = (now < self.hold_until).then(|| "a hold-down after a takeover on silence".to_owned());
        let partly = (!is_whole(record)).then(|| "not all nodes are in sync".to_owned());
        if let Some(why) = partly.or_else(|| facts.unrest.clone()).or(held) {
            return self.put_off(preferred, &why);
        }
        self.settle((preferred, setting.settle_s), facts.hindrance, now)
    }

    /// Everything is at rest: the time counts.
    fn settle(&mut self, (to, settle_s): (NodeId, u64), hindrance: Option<&str>, now: Instant) -> Verdict {
        self.done.retain(|at| now.since(*at) < REMEMBERED_MS);
        let times = u32::try_from(self.done.len()).unwrap_or(u32::MAX);
        let settle = settle_s.saturating_mul(1000);
        let wait = settle.saturating_mul(2u64.saturating_pow(times)).min(WAIT_MAX_MS.max(settle));
        let often = if times > 0 { format!(", longer after {times} within an hour") } else { String::new() };
        let Some(since) = self.since else {
            self.since = Some(now);
            let seconds = wait / 1000;
            return self.say(format!(
                "node {} is preferred and in sync: it becomes the primary when that lasts for {seconds} s{often}",
                to.0
            ));
        };
        if now.since(since) < wait {
            return Verdict::default();
        }
        if let Some(why) = hindrance {
            return self.say(format!("node {} is to become the primary, but not at this moment: {why}", to.0));
        }
        self.done.push_back(now);
        self.since = None;
        self.said = None;
        let lasted = now.since(since) / 1000;
        let note =
            format!("failback: node {} is preferred and was in sync for {lasted} s{often}: handing over to it", to.0);
        Verdict { hand_over: Some(to), note: Some(note) }
    }

    /// Keeps up with the epochs. Gives the former home, when this epoch did nothing but make this node the home of an epoch in
    /// which everybody stays in sync: only an order does that.
    fn follow(&mut self, facts: &Facts<'_>, now: Instant) -> Option<NodeId> {
        let record = facts.record?;
        let seen = Seen { id: record.id, home: record.home, whole: is_whole(record) };
        let last = self.last.replace(seen);
        if last.as_ref().is_some_and(|last| last.id == record.id) {
            return None;
        }
        if record.kind == EpochKind::Joint && record.on_silence {
            self.hold_until = now.plus_ms(self.hold_down_ms);
        }
        let last = last?;
        let moved = last.home != record.home && record.home == facts.me;
        let alone = record.parents == [last.id] && last.whole && is_whole(record);
        (moved && alone).then_some(last.home)
    }

    fn rest(&mut self) -> Verdict {
        (self.since, self.said) = (None, None);
        Verdict::default()
    }

    fn put_off(&mut self, to: NodeId, why: &str) -> Verdict {
        self.since = None;
        self.say(format!("node {} is preferred, but it does not become the primary now: {why}", to.0))
    }

    /// Each reason once, not at every look.
    fn say(&mut self, text: String) -> Verdict {
        let new = self.said.as_ref() != Some(&text);
        self.said = Some(text.clone());
        Verdict { hand_over: None, note: new.then_some(text) }
    }
}

fn is_whole(record: &EpochRecord) -> bool {
    record.kind == EpochKind::Joint && record.members == record.in_sync
}

impl Engine {
    /// Looks again and again, for as long as the process lives.
    pub(crate) async fn fail_back_forever(self: Arc<Self>, hold_down_ms: u64) {
        let mut failback = Failback::new(hold_down_ms);
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let verdict = self.look_for_failback(&mut failback);
            if let Some(note) = &verdict.note {
                tracing::info!(decision = note, "failback");
                self.note(EventKind::Decision, note);
            }
            let Some(to) = verdict.hand_over else { continue };
            let text = match self.hand_over(self.node, Some(to), None, false).await {
                Ok(home) => format!("failback: node {} is the primary", home.0),
                Err(error) => format!("failback to node {} did not come about: {error}", to.0),
            };
            tracing::info!(decision = text, "failback");
            self.note(EventKind::Decision, &text);
        }
    }

    fn look_for_failback(&self, failback: &mut Failback) -> Verdict {
        let (state, now) = (self.config.current(), self.now());
        // With nothing to decide nothing is asked, four times a second.
        let setting = state.primary().filter(|(_, body)| body.failback == How::Auto && body.node.is_some());
        if setting.is_none() {
            return failback.rest();
        }
        let status = self.machine().status(now);
        let preferred = setting.as_ref().and_then(|(_, body)| body.node).map(NodeId);
        let hindrance = preferred.and_then(|to| self.machine().may_hand_over(Some(to), None).err());
        let unheard = |id: &NodeId| {
            let heard = |(node, ms): &(NodeId, Option<u64>)| node == id && ms.is_some_and(|ms| ms <= T2_MS);
            *id != self.node && !status.heard.iter().any(heard) && !self.witness_links().contains_key(id)
        };
        let unrest = if status.sync.is_some() {
            Some("a node is being brought up to date".to_owned())
        } else if status.mode != Mode::Joined {
            Some(format!("this node is {}", status.mode.name()))
        } else {
            state.members.keys().find(|id| unheard(id)).map(|id| format!("node {} is not heard", id.0))
        };
        failback.look(&Facts { me: self.node, setting, record: status.record.as_ref(), unrest, hindrance }, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFERRED: NodeId = NodeId(1);
    const ME: NodeId = NodeId(2);
    const SETTLE_MS: u64 = 60_000;

    /// The world of node 2, which looks ten times a second.
    struct World {
        machine: Failback,
        now: u64,
        revision: u64,
        how: How,
        record: EpochRecord,
        unrest: Option<String>,
        hindrance: Option<&'static str>,
        notes: Vec<String>,
    }

    impl World {
        /// Node 1 was lost, so node 2 is the home of a reduced epoch.
        fn after_a_loss() -> Self {
            let record = EpochRecord {
                id: EpochId { number: 7, author: 0 },
                kind: EpochKind::Reduced,
                members: vec![PREFERRED, ME],
                in_sync: vec![ME],
                home: ME,
                homes: std::collections::BTreeMap::new(),
                parents: vec![EpochId { number: 6, author: 0 }],
                certain: true,
                on_silence: false,
                anchor: None,
                guest: None,
                gap: false,
            };
            Self {
                machine: Failback::new(SETTLE_MS),
                now: 1_000,
                revision: 20,
                how: How::Auto,
                record,
                unrest: None,
                hindrance: None,
                notes: Vec::new(),
            }
        }

        /// The next epoch.
        fn epoch(&mut self, kind: EpochKind, in_sync: &[NodeId], home: NodeId) {
            self.record.parents = vec![self.record.id];
            self.record.id.number += 1;
            (self.record.kind, self.record.in_sync, self.record.home) = (kind, in_sync.to_vec(), home);
        }

        fn joint(&mut self) {
            self.epoch(EpochKind::Joint, &[PREFERRED, ME], ME);
        }

        /// Looks for so long; when a handover was ordered, and to whom.
        fn run(&mut self, ms: u64) -> Vec<(u64, NodeId)> {
            let mut orders = Vec::new();
            for _ in (0..ms).step_by(100) {
                self.now += 100;
                let body = PrimaryBody { node: Some(PREFERRED.0), failback: self.how, ..PrimaryBody::default() };
                let facts = Facts {
                    me: ME,
                    setting: Some((self.revision, body)),
                    record: Some(&self.record),
                    unrest: self.unrest.clone(),
                    hindrance: self.hindrance,
                };
                let verdict = self.machine.look(&facts, Instant(self.now));
                self.notes.extend(verdict.note);
                orders.extend(verdict.hand_over.map(|to| (self.now, to)));
                if verdict.hand_over.is_some() {
                    self.epoch(EpochKind::Joint, &[PREFERRED, ME], PREFERRED);
                }
            }
            orders
        }

        /// Node 1 is lost and returns; when it has the primary's place again.
        fn lose_and_return(&mut self) -> u64 {
            self.epoch(EpochKind::Reduced, &[ME], ME);
            assert!(self.run(5_000).is_empty());
            self.joint();
            let from = self.now;
            while self.run(1_000).is_empty() {
                assert!(self.now - from <= WAIT_MAX_MS, "never");
            }
            self.now - from
        }
    }

    #[test]
    fn ha_20_the_preferred_node_gets_its_place_back_when_it_was_in_sync_for_the_settle_time() {
        let mut world = World::after_a_loss();
        assert!(world.run(10 * SETTLE_MS).is_empty(), "not while it is away");
        world.epoch(EpochKind::Heal, &[ME], ME);
        assert!(world.run(10 * SETTLE_MS).is_empty(), "not while it is healed");
        world.joint();
        let from = world.now;
        assert_eq!(world.run(2 * SETTLE_MS), [(from + 100 + SETTLE_MS, PREFERRED)]);
        assert_eq!(world.notes.len(), 2, "{:?}", world.notes);
        assert!(
            world.notes[0].contains("in sync") && world.notes[1].starts_with("failback: node 1"),
            "{:?}",
            world.notes
        );
        assert!(world.run(10 * SETTLE_MS).is_empty(), "it is the primary: nothing more is to be done");
    }

    #[test]
    fn ha_20_manual_moves_nothing() {
        let mut world = World::after_a_loss();
        world.how = How::Manual;
        world.joint();
        assert!(world.run(10 * SETTLE_MS).is_empty() && world.notes.is_empty());
        (world.how, world.revision) = (How::Auto, 21);
        assert_eq!(world.run(2 * SETTLE_MS).len(), 1, "saying it is enough");
    }

    #[test]
    fn ha_20_unrest_begins_the_time_anew_and_a_hindrance_only_delays() {
        let mut world = World::after_a_loss();
        world.joint();
        assert!(world.run(SETTLE_MS - 1_000).is_empty());
        world.unrest = Some("node 3 is not heard".into());
        assert!(world.run(5 * SETTLE_MS).is_empty(), "never during an outage");
        assert!(world.notes.last().is_some_and(|note| note.contains("node 3 is not heard")), "{:?}", world.notes);
        world.unrest = None;
        assert!(world.run(SETTLE_MS).is_empty(), "from the beginning");
        world.hindrance = Some("busy");
        assert!(world.run(10_000).is_empty());
        world.hindrance = None;
        assert_eq!(world.run(200).len(), 1, "the time has passed already");
        assert!(world.notes.len() < 8, "each reason once: {:?}", world.notes);
    }

    #[test]
    fn ha_20_not_within_a_hold_down() {
        let mut world = World::after_a_loss();
        world.machine = Failback::new(3 * SETTLE_MS);
        world.record.on_silence = true;
        world.run(1_000);
        world.joint();
        let from = world.now;
        let orders = world.run(10 * SETTLE_MS);
        assert_eq!(
            orders,
            [(from + 100 + 3 * SETTLE_MS + SETTLE_MS, PREFERRED)],
            "the hold-down, then the settle time"
        );
        assert!(world.notes[0].contains("hold-down"), "{:?}", world.notes);
    }

    #[test]
    fn ha_20_an_operators_switchover_is_not_undone() {
        let mut world = World::after_a_loss();
        world.epoch(EpochKind::Joint, &[PREFERRED, ME], PREFERRED);
        world.run(1_000);
        world.epoch(EpochKind::Joint, &[PREFERRED, ME], ME);
        assert!(world.run(20 * SETTLE_MS).is_empty());
        assert!(world.notes.last().is_some_and(|note| note.contains("an order made node 2 the primary")));
        assert_eq!(world.notes.len(), 1, "said once: {:?}", world.notes);
        // Until the node was out of sync ...
        let waited = world.lose_and_return();
        assert!(waited >= SETTLE_MS, "{waited}");
        // ... or the preference is said again.
        world.run(1_000);
        world.epoch(EpochKind::Joint, &[PREFERRED, ME], ME);
        assert!(world.run(20 * SETTLE_MS).is_empty());
        world.revision += 1;
        assert_eq!(world.run(2 * SETTLE_MS).len(), 1);
    }

    #[test]
    fn ha_20_a_planned_stop_of_the_preferred_node_is_no_switchover() {
        let mut world = World::after_a_loss();
        world.epoch(EpochKind::Joint, &[PREFERRED, ME], PREFERRED);
        world.run(1_000);
        world.epoch(EpochKind::Reduced, &[ME], ME);
        world.run(1_000);
        world.joint();
        assert_eq!(world.run(2 * SETTLE_MS).len(), 1, "it only restarted");
    }

    #[test]
    fn ha_20_a_node_that_fails_again_and_again_waits_longer_each_time() {
        let mut world = World::after_a_loss();
        let mut waits: Vec<u64> = (0..5).map(|_| world.lose_and_return() / SETTLE_MS).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16]);
        // All within an hour: to and fro at most a handful of times.
        waits.push(world.lose_and_return() / SETTLE_MS);
        assert!(waits[5] >= 16 && waits[5] <= 60, "bounded: {waits:?}");
        // After an hour in peace it is as before.
        world.run(REMEMBERED_MS);
        assert_eq!(world.lose_and_return() / SETTLE_MS, 1);
    }
}
