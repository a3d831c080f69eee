//! The addresses of one family: the one that is to be held, and before it those that were changed for it and are not gone
//! yet. Pure, `now` as an argument. The new one is checked and added before the old one goes (HA-19).

use std::net::IpAddr;

use topology::ClusterAddress;
use vocab::Instant;

use crate::schedule::Schedule;

/// Why an address goes that was changed for another one.
pub(crate) const CHANGED: &str = "another address";
/// Why it is held.
pub(crate) const TAKEOVER: &str = "takeover";

/// One address, from its check to its release.
pub(crate) struct Tenure {
    pub(crate) address: ClusterAddress,
    pub(crate) schedule: Schedule,
    pub(crate) reason: &'static str,
    /// What went wrong last, until it goes well.
    pub(crate) fault: Option<String>,
}

/// Those of one family.
#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) tenures: Vec<Tenure>,
    /// Whether the last of them is the one of the configuration: else there is none.
    current: bool,
}

impl Lane {
    /// What the configuration says now. One that was changed for another before that was here is taken up as it was.
    pub(crate) fn follow(&mut self, wanted: Option<ClusterAddress>, leased: bool, now: Instant) {
        let last = self.tenures.last().filter(|_| self.current).map(|tenure| tenure.address);
        if last == wanted {
            return;
        }
        self.tenures.iter_mut().for_each(|tenure| (tenure.reason, tenure.fault) = (CHANGED, None));
        self.current = wanted.is_some();
        let Some(address) = wanted else { return };
        let known = self.tenures.iter().position(|tenure| tenure.address == address);
        let schedule = match known {
            Some(at) => self.tenures.remove(at).schedule,
            None => Schedule::new(leased, now),
        };
        self.tenures.push(Tenure { address, schedule, reason: TAKEOVER, fault: None });
    }

    /// Tells every tenure whether this node should hold it, and forgets those that are gone. An old one stays while the new
    /// one is not here; where they differ by the network alone, it goes first: a kernel has one or the other.
    pub(crate) fn want(&mut self, hold: bool, now: Instant) {
        let Some((last, old)) = self.tenures.split_last_mut() else { return };
        let waits = hold && self.current && !last.schedule.holds();
        for tenure in old.iter_mut() {
            let stays = waits && tenure.schedule.holds() && tenure.address.address != last.address.address;
            tenure.schedule.want(stays, now);
        }
        let in_the_way =
            old.iter().any(|tenure| tenure.address.address == last.address.address && tenure.schedule.holds());
        last.schedule.want(hold && self.current && !in_the_way, now);
        let (end, current) = (self.tenures.len(), self.current);
        let mut at = 0;
        self.tenures.retain(|tenure| {
            at += 1;
            (at == end && current) || tenure.schedule.holds()
        });
    }

    /// Addresses that are held or to be held: their ports are open.
    pub(crate) fn kept(&self) -> impl Iterator<Item = IpAddr> {
        let end = self.tenures.len();
        let kept = self
            .tenures
            .iter()
            .enumerate()
            .filter(move |(at, tenure)| (at + 1 == end && self.current) || tenure.schedule.is_wanted());
        kept.map(|(_, tenure)| tenure.address.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Health, Step};

    const WELL: Health = Health { idle_ms: 10, orders: true };

    fn address(text: &str) -> ClusterAddress {
        text.parse().expect(text)
    }

    /// A lane, what the world does, and what was done.
    struct World {
        lane: Lane,
        ms: u64,
        hold: bool,
        /// Whoever has this address answers the check.
        taken: &'static str,
        done: Vec<(String, Step)>,
    }

    impl World {
        /// Holds this address.
        fn holding(text: &str) -> Self {
            let mut world = Self { lane: Lane::default(), ms: 0, hold: true, taken: "", done: Vec::new() };
            world.change(text);
            assert!(world.run(500).contains(&(text.to_owned(), Step::Acquire)));
            world
        }
        fn change(&mut self, text: &str) {
            let wanted = if text.is_empty() { None } else { Some(address(text)) };
            self.lane.follow(wanted, true, Instant(self.ms));
        }
        /// What is done in this time, without renewals and announcements.
        fn run(&mut self, ms: u64) -> Vec<(String, Step)> {
            self.done.clear();
            for _ in 0..ms / 10 {
                self.ms += 10;
                let now = Instant(self.ms);
                self.lane.want(self.hold, now);
                for tenure in &mut self.lane.tenures {
                    while let Some(step) = tenure.schedule.due(WELL, now) {
                        let well = step != Step::Check || tenure.address.to_string() != self.taken;
                        tenure.schedule.done(step, well, now);
                        if !matches!(step, Step::Renew | Step::Announce) {
                            self.done.push((tenure.address.to_string(), step));
                        }
                    }
                }
                self.lane.want(self.hold, now);
            }
            self.done.clone()
        }
        fn held(&self) -> Vec<String> {
            let held = self.lane.tenures.iter().filter(|tenure| tenure.schedule.holds());
            held.map(|tenure| tenure.address.to_string()).collect()
        }
    }

    fn steps(all: &[(&str, Step)]) -> Vec<(String, Step)> {
        all.iter().map(|(text, step)| ((*text).to_owned(), *step)).collect()
    }

    const OLD: &str = "192.0.2.10";
    const NEW: &str = "192.0.2.20/24";

    #[test]
    fn ha_19_the_new_address_is_checked_and_added_before_the_old_one_goes() {
        let mut world = World::holding(OLD);
        world.change(NEW);
        assert_eq!(world.run(1_000), steps(&[(NEW, Step::Check), (NEW, Step::Acquire), (OLD, Step::Release)]));
        assert_eq!((world.held(), world.lane.tenures.len()), (vec![NEW.to_owned()], 1));
    }

    #[test]
    fn ha_19_while_a_stranger_has_the_new_address_the_old_one_stays() {
        let mut world = World::holding(OLD);
        world.taken = NEW;
        world.change(NEW);
        let done = world.run(9_000);
        assert!(done.iter().all(|(of, step)| of == NEW && *step == Step::Check), "{done:?}");
        assert_eq!(world.held(), [OLD], "renewed all the time");
        assert_eq!(world.lane.kept().count(), 2);
        // It is given up, or the stranger goes.
        world.taken = "";
        world.run(3_000);
        assert_eq!(world.held(), [NEW]);
    }

    #[test]
    fn ha_19_a_change_that_is_taken_back_leaves_the_address_where_it_is() {
        let mut world = World::holding(OLD);
        world.taken = NEW;
        world.change(NEW);
        world.run(500);
        world.change(OLD);
        assert_eq!(world.run(3_000), []);
        assert_eq!((world.held(), world.lane.tenures.len()), (vec![OLD.to_owned()], 1));
    }

    #[test]
    fn ha_19_a_node_that_does_not_hold_it_never_brings_up_the_old_one() {
        let mut world = World::holding(OLD);
        world.hold = false;
        assert_eq!(world.run(500), steps(&[(OLD, Step::Release)]));
        world.change(NEW);
        assert_eq!(world.run(500), steps(&[(NEW, Step::Check)]));
        world.hold = true;
        assert_eq!(world.run(500), steps(&[(NEW, Step::Acquire)]));
        // Nor does one that loses its place while the new one is not here yet.
        world.taken = OLD;
        world.change(OLD);
        world.run(100);
        world.hold = false;
        assert_eq!(world.run(500), steps(&[(NEW, Step::Release)]));
        world.hold = true;
        world.run(500);
        assert_eq!(world.held(), Vec::<String>::new());
    }

    #[test]
    fn ha_19_another_network_of_the_same_address_replaces_it() {
        let mut world = World::holding("192.0.2.10");
        world.change("192.0.2.10/24");
        let wanted = [("192.0.2.10/24", Step::Check), ("192.0.2.10", Step::Release), ("192.0.2.10/24", Step::Acquire)];
        assert_eq!(world.run(1_000), steps(&wanted));
    }

    #[test]
    fn ha_19_without_an_address_the_old_one_goes() {
        let mut world = World::holding(OLD);
        world.change("");
        assert_eq!(world.lane.kept().count(), 1, "until it is told to go");
        assert_eq!(world.run(500), steps(&[(OLD, Step::Release)]));
        assert_eq!((world.lane.tenures.len(), world.lane.kept().count()), (0, 0));
    }
}
