//! When the address is checked, added, renewed, announced and removed: a pure machine, `now` as an argument.
//!
//! The kernel removes an address whose lifetime ran out. So holding it is a lease that only a process that lives renews.

use std::collections::VecDeque;

use vocab::Instant;
use vocab::limits::PAUSE_MS;

/// Lifetime the kernel is given with each renewal (s); it counts in whole seconds.
pub const LIFETIME_S: u32 = 2;
/// Between two renewals (ms).
pub const RENEW_MS: u64 = 200;
/// A renewal that comes later finds the address gone, or nearly: it counts as a takeover and is announced (ms).
const LAPSED_MS: u64 = 1_000;
/// Times of the announcements after a takeover (ms).
const ANNOUNCE_MS: [u64; 5] = [0, 100, 500, 2_000, 5_000];
/// What a step that failed waits before it is tried again (ms).
const AGAIN_MS: u64 = 200;
/// What a check that failed or found somebody waits before the next (ms).
const CHECK_AGAIN_MS: u64 = 2_000;
/// The address outlives its tenure by this, so that what is said to clients on leaving still has a sender (ms).
const GOODBYE_MS: u64 = 100;
/// The engine's loop turns every 50 ms; above this it hangs and the lease is left to run out (ms).
const HANGING_MS: u64 = 1_000;

/// One step for the hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Does somebody else have the address?
    Check,
    /// Add it.
    Acquire,
    /// Renew its lifetime.
    Renew,
    /// Tell the network where it is.
    Announce,
    /// Take it away.
    Release,
}

/// The process as the machine must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Milliseconds since the engine's loop turned.
    pub idle_ms: u64,
    /// Whether the engine orders changes right now.
    pub orders: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Schedule {
    leased: bool,
    checked: bool,
    /// Another node holds it by right: what a check finds keeps nobody from adding it.
    excused: bool,
    wanted: bool,
    /// Last time the address was added or renewed.
    held: Option<Instant>,
    /// Nothing is added before.
    not_before: Instant,
    check_at: Instant,
    release_at: Option<Instant>,
    announce_at: VecDeque<Instant>,
    /// It is held and to be added again.
    claims: bool,
    /// This process stood still: until the engine orders again it may have been superseded.
    paused: bool,
    looked: Instant,
}

impl Schedule {
    /// Unchecked and not wanted. `leased`: the address runs out unless it is renewed.
    #[must_use]
    pub fn new(leased: bool, now: Instant) -> Self {
        Self {
            leased,
            checked: false,
            excused: false,
            wanted: false,
            held: None,
            not_before: now,
            check_at: now,
            release_at: None,
            announce_at: VecDeque::new(),
            claims: false,
            paused: false,
            looked: now,
        }
    }

    /// This node should hold the address, or not.
    pub fn want(&mut self, wanted: bool, now: Instant) {
        if wanted == self.wanted {
            return;
        }
        self.wanted = wanted;
        if wanted {
            self.not_before = now;
            // It was not taken away yet: the other node may have announced it meanwhile.
            if self.release_at.take().is_some() && self.held.is_some() {
                self.announce_from(now);
            }
        } else {
            self.claims = false;
            self.announce_at.clear();
            self.release_at = self.held.map(|_| now.plus_ms(GOODBYE_MS));
        }
    }

    /// Another node held the address too and let it go: what is told to the network is told anew. Without effect while it is not
    /// held here.
    pub fn claim(&mut self, now: Instant) {
        if self.wanted && self.held.is_some() {
            self.claims = true;
            self.not_before = now;
        }
    }

    /// The process is about to end: no goodbye is waited for.
    pub fn stop(&mut self, now: Instant) {
        self.wanted = false;
        self.announce_at.clear();
        self.release_at = self.held.map(|_| now);
    }

    /// The check that was due is under way: nothing is due for it until [`Self::done`] says how it ended.
    pub fn asked(&mut self) {
        self.check_at = Instant(u64::MAX);
    }

    /// Whether a takeover goes on what another node held by right, whatever the check finds: one that finds somebody is then
    /// repeated only while this node should not hold the address.
    pub fn excuse(&mut self, excused: bool) {
        self.excused = excused;
    }

    /// Whether this node should hold it.
    #[must_use]
    pub const fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether the address is on the interface, as far as known.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// The step that is due, if any; one at a time, each followed by [`Self::done`].
    pub fn due(&mut self, health: Health, now: Instant) -> Option<Step> {
        let gap = now.since(self.looked);
        self.looked = now;
        self.paused = (self.paused || gap > PAUSE_MS) && !health.orders && self.wanted;
        if self.release_at.is_some_and(|at| now >= at) {
            return Some(Step::Release);
        }
        let may_add = self.checked || self.held.is_some() || (self.excused && self.wanted);
        if !may_add {
            return (now >= self.check_at).then_some(Step::Check);
        }
        if !self.wanted || self.paused || health.idle_ms >= HANGING_MS {
            return None;
        }
        match self.held {
            None if now >= self.not_before => Some(Step::Acquire),
            Some(_) if self.claims && now >= self.not_before => Some(Step::Acquire),
            Some(last) if self.leased && now.since(last) >= LAPSED_MS && now >= self.not_before => Some(Step::Acquire),
            Some(_) if self.announce_at.front().is_some_and(|at| now >= *at) => Some(Step::Announce),
            Some(last) if self.leased && now.since(last) >= RENEW_MS && now >= self.not_before => Some(Step::Renew),
            _ => None,
        }
    }

    /// How long until something may be due (ms), if nothing happens before.
    #[must_use]
    pub fn wait_ms(&self, now: Instant) -> u64 {
        let renew = self.held.map(|last| last.plus_ms(RENEW_MS));
        let check = (!self.checked).then_some(self.check_at);
        let again = self.wanted.then_some(self.not_before).filter(|at| *at > now);
        let times = [renew, check, again, self.release_at, self.announce_at.front().copied()];
        let next = times.into_iter().flatten().min().unwrap_or(Instant(u64::MAX));
        // Looked at often in any case: a pause is seen by its gap.
        next.since(now).clamp(1, PAUSE_MS / 3)
    }

    /// How a step ended.
    pub fn done(&mut self, step: Step, well: bool, now: Instant) {
        // A step that took long is no pause. A check is not waited for: what stood still meanwhile is one.
        if step != Step::Check {
            self.looked = now;
        }
        match (step, well) {
            (Step::Check, true) => self.checked = true,
            (Step::Check, false) => self.check_at = now.plus_ms(CHECK_AGAIN_MS),
            (Step::Acquire, true) => {
                self.held = Some(now);
                self.claims = false;
                self.announce_from(now);
            }
            (Step::Renew, true) => self.held = Some(now),
            (Step::Acquire | Step::Renew, false) => self.not_before = now.plus_ms(AGAIN_MS),
            // Sent or not, the next one comes in time.
            (Step::Announce, _) => drop(self.announce_at.pop_front()),
            (Step::Release, true) => (self.held, self.release_at) = (None, None),
            (Step::Release, false) => self.release_at = Some(now.plus_ms(AGAIN_MS)),
        }
    }

    fn announce_from(&mut self, now: Instant) {
        self.announce_at = ANNOUNCE_MS.into_iter().map(|ms| now.plus_ms(ms)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Health = Health { idle_ms: 10, orders: true };
    const NO_LEASE: Health = Health { idle_ms: 10, orders: false };

    #[test]
    fn a_step_that_fails_is_tried_again_in_its_time_also_when_the_lease_has_lapsed() {
        // The interface is gone while the address was held.
        let mut schedule = checked();
        schedule.want(true, Instant(0));
        run(&mut schedule, 0, 1_000, WELL);
        let mut tries = Vec::new();
        for ms in (1_000..6_000).step_by(10) {
            for _ in 0..3 {
                let Some(step) = schedule.due(WELL, Instant(ms)) else { break };
                schedule.done(step, false, Instant(ms));
                tries.push(ms);
            }
        }
        assert!((20..40).contains(&tries.len()), "{} tries in 5 s", tries.len());
    }

    /// Runs to `until` in steps of 10 ms; every step goes well. What was done, when.
    fn run(schedule: &mut Schedule, from: u64, until: u64, health: Health) -> Vec<(u64, Step)> {
        let mut done = Vec::new();
        for ms in (from..until).step_by(10) {
            while let Some(step) = schedule.due(health, Instant(ms)) {
                schedule.done(step, true, Instant(ms));
                done.push((ms, step));
            }
        }
        done
    }

    fn checked() -> Schedule {
        let mut schedule = Schedule::new(true, Instant(0));
        assert_eq!(run(&mut schedule, 0, 20, WELL), [(0, Step::Check)]);
        schedule
    }

    fn times(done: &[(u64, Step)], of: Step) -> Vec<u64> {
        done.iter().filter(|(_, step)| *step == of).map(|(ms, _)| *ms).collect()
    }

    #[test]
    fn a_takeover_adds_at_once_and_announces_five_times() {
        let mut schedule = checked();
        schedule.want(true, Instant(100));
        let done = run(&mut schedule, 100, 7_000, WELL);
        assert_eq!(done[..2], [(100, Step::Acquire), (100, Step::Announce)]);
        assert_eq!(times(&done, Step::Announce), [100, 200, 600, 2_100, 5_100]);
        let renewals = times(&done, Step::Renew);
        assert!(renewals.windows(2).all(|pair| pair[1] - pair[0] <= RENEW_MS + 10), "{renewals:?}");
        assert!(times(&done, Step::Check).is_empty(), "no check at a takeover");
    }

    #[test]
    fn nothing_is_added_before_a_check_found_nobody() {
        let mut schedule = Schedule::new(true, Instant(0));
        schedule.want(true, Instant(0));
        assert_eq!(schedule.due(WELL, Instant(0)), Some(Step::Check));
        schedule.done(Step::Check, false, Instant(400));
        assert_eq!(schedule.due(WELL, Instant(410)), None);
        let done = run(&mut schedule, 2_400, 2_420, WELL);
        assert_eq!(done[..2], [(2_400, Step::Check), (2_400, Step::Acquire)]);
    }

    #[test]
    fn ha_09_whoever_is_found_keeps_nobody_from_a_takeover_and_is_looked_for_again() {
        let mut schedule = Schedule::new(true, Instant(0));
        let check = |schedule: &mut Schedule, ms, well| {
            assert_eq!(schedule.due(WELL, Instant(ms)), Some(Step::Check), "at {ms}");
            schedule.asked();
            schedule.excuse(true);
            schedule.done(Step::Check, well, Instant(ms));
        };
        check(&mut schedule, 0, false);
        check(&mut schedule, 2_000, false);
        schedule.want(true, Instant(2_100));
        let done = run(&mut schedule, 2_100, 8_000, WELL);
        assert_eq!((done[0], times(&done, Step::Check).len()), ((2_100, Step::Acquire), 0));
        // The answer to a question from before the takeover, when nobody else holds it any more.
        schedule.excuse(false);
        schedule.done(Step::Check, false, Instant(8_000));
        assert!(times(&run(&mut schedule, 8_000, 9_000, WELL), Step::Renew).len() >= 4, "what is held is kept");
        schedule.want(false, Instant(9_000));
        assert_eq!(run(&mut schedule, 9_000, 10_050, WELL), [(9_100, Step::Release), (10_000, Step::Check)]);
    }

    #[test]
    fn goodbyes_come_before_the_release() {
        let mut schedule = checked();
        schedule.want(true, Instant(0));
        run(&mut schedule, 0, 1_000, WELL);
        schedule.want(false, Instant(1_000));
        assert_eq!(run(&mut schedule, 1_000, 3_000, WELL), [(1_100, Step::Release)]);
        assert!(!schedule.holds());
        schedule.want(true, Instant(3_000));
        run(&mut schedule, 3_000, 3_010, WELL);
        schedule.stop(Instant(3_010));
        assert_eq!(schedule.due(WELL, Instant(3_010)), Some(Step::Release), "at once when the process ends");
    }

    #[test]
    fn wanted_again_before_the_release_is_announced_anew() {
        let mut schedule = checked();
        schedule.want(true, Instant(0));
        run(&mut schedule, 0, 8_000, WELL);
        schedule.want(false, Instant(8_000));
        schedule.want(true, Instant(8_050));
        let done = run(&mut schedule, 8_050, 8_300, WELL);
        assert!(times(&done, Step::Release).is_empty());
        assert_eq!(times(&done, Step::Announce), [8_050, 8_150]);
    }

    #[test]
    fn what_another_node_held_too_is_claimed_anew() {
        let mut schedule = checked();
        schedule.claim(Instant(50));
        schedule.want(true, Instant(100));
        run(&mut schedule, 100, 8_000, WELL);
        schedule.claim(Instant(8_000));
        let done = run(&mut schedule, 8_000, 14_000, WELL);
        assert_eq!(times(&done, Step::Acquire), [8_000], "hooks move an address by this alone");
        assert_eq!(times(&done, Step::Announce), [8_000, 8_100, 8_500, 10_000, 13_000]);
        schedule.claim(Instant(14_000));
        schedule.want(false, Instant(14_000));
        assert_eq!(run(&mut schedule, 14_000, 15_000, WELL), [(14_100, Step::Release)], "not any more");
    }

    #[test]
    fn a_hanging_engine_lets_the_lease_run_out() {
        let mut schedule = checked();
        schedule.want(true, Instant(0));
        run(&mut schedule, 0, 8_000, WELL);
        assert!(run(&mut schedule, 8_000, 9_900, Health { idle_ms: HANGING_MS, orders: true }).is_empty());
        // It turns again: the address may be gone, and somebody else's.
        let done = run(&mut schedule, 9_900, 10_200, WELL);
        assert_eq!(done[..2], [(9_900, Step::Acquire), (9_900, Step::Announce)]);
    }

    #[test]
    fn after_a_pause_nothing_is_renewed_until_the_engine_orders_again() {
        let mut schedule = checked();
        schedule.want(true, Instant(0));
        run(&mut schedule, 0, 8_000, WELL);
        // Stopped for 4 s; the other node went on meanwhile, and this one has not heard of it yet.
        assert!(run(&mut schedule, 12_000, 12_500, NO_LEASE).is_empty());
        schedule.want(false, Instant(12_500));
        assert_eq!(run(&mut schedule, 12_500, 12_700, NO_LEASE), [(12_600, Step::Release)]);
        // Or nobody went on: it orders again and takes the address back.
        let mut schedule = checked();
        schedule.want(true, Instant(0));
        run(&mut schedule, 0, 8_000, WELL);
        assert!(run(&mut schedule, 8_500, 8_550, NO_LEASE).is_empty());
        assert_eq!(run(&mut schedule, 8_550, 8_600, WELL)[0], (8_550, Step::Renew));
    }

    #[test]
    fn silence_of_the_other_node_costs_no_renewal() {
        let mut schedule = checked();
        schedule.want(true, Instant(0));
        run(&mut schedule, 0, 8_000, WELL);
        let renewals = times(&run(&mut schedule, 8_000, 9_500, NO_LEASE), Step::Renew);
        assert!(renewals.len() >= 6, "{renewals:?}");
    }

    #[test]
    fn what_fails_is_tried_again_a_little_later() {
        let mut schedule = checked();
        schedule.want(true, Instant(100));
        assert_eq!(schedule.due(WELL, Instant(100)), Some(Step::Acquire));
        schedule.done(Step::Acquire, false, Instant(100));
        assert_eq!(schedule.due(WELL, Instant(110)), None);
        assert_eq!(schedule.wait_ms(Instant(110)), PAUSE_MS / 3);
        assert_eq!(schedule.due(WELL, Instant(300)), Some(Step::Acquire));
        schedule.done(Step::Acquire, true, Instant(300));
        schedule.stop(Instant(310));
        assert_eq!(schedule.due(WELL, Instant(310)), Some(Step::Release));
        schedule.done(Step::Release, false, Instant(310));
        assert!(schedule.holds());
        assert_eq!(schedule.due(WELL, Instant(510)), Some(Step::Release));
    }

    #[test]
    fn an_address_without_a_lease_is_not_renewed() {
        let mut schedule = Schedule::new(false, Instant(0));
        schedule.want(true, Instant(0));
        let done = run(&mut schedule, 0, 9_000, WELL);
        assert_eq!(times(&done, Step::Acquire), [0]);
        assert!(times(&done, Step::Renew).is_empty());
    }
}
