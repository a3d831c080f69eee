//! Random scripts of two machines: kills, cuts, mute links, slow disks, cold boots. Whatever was acknowledged is on both
//! nodes in the end, or in a branch both have archived; no account is ever written on another version than it has.

#![allow(clippy::unwrap_used)]

mod toy;

use std::collections::BTreeSet;

use replica::{Event, META_KEY, MayRead, Saved, Serving};
use topology::EpochKind;
use toy::{A, B, World};
use vocab::{AccountId, NodeId};

struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn up(world: &World, id: NodeId) -> bool {
    world.nodes[&id].replica.is_some()
}

/// Both going on alone is a true fork, also when one of them is down now.
fn alone_on_disk(world: &World, id: NodeId) -> bool {
    let saved = Saved::from_meta(world.nodes[&id].disk.meta.get(META_KEY).map(|b| &b[..])).unwrap();
    saved.record.is_some_and(|r| r.is_alone(id))
}

/// What a backup shows is what the home has acknowledged or could still acknowledge, never less than acknowledged.
fn check_reads(world: &World, acknowledged: &BTreeSet<(u64, u64)>, forked: bool) {
    if forked {
        return;
    }
    for id in [A, B].into_iter().filter(|id| up(world, *id)) {
        for account in 16..20 {
            let version = world.version(id, account);
            if world.replica(id).may_read(AccountId(account), version, world.now) != MayRead::Yes {
                continue;
            }
            let shown = world.tokens(id, account);
            for (_, token) in acknowledged.iter().filter(|(a, _)| *a == account) {
                assert!(shown.contains(token), "node {} shows account {account} without {token}", id.0);
            }
        }
    }
}

/// Where this account is ordered, if anybody who may serve says so.
fn home_of(world: &World, account: u64) -> Option<NodeId> {
    let at = |id: &NodeId| {
        let replica = world.replica(*id);
        replica.home(AccountId(account).shard()) == Some(*id) && !matches!(replica.serving(world.now), Serving::Not(_))
    };
    [A, B].into_iter().filter(|id| up(world, *id)).find(at)
}

/// True when homes were spread at some time.
fn run(seed: u64, spread: bool) -> bool {
    println!("seed {seed} {spread}");
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    // Machines that merge, and those that archive.
    let mut world = World::pair_with(!seed.is_multiple_of(3));
    let mut asked: Vec<(NodeId, u64, u64)> = Vec::new();
    let mut acknowledged = BTreeSet::new();
    let (mut forked, mut was_spread) = (false, false);
    for _ in 0..60 {
        for id in [A, B].into_iter().filter(|_| spread) {
            world.event(id, Event::Spread(dice.roll(8) > 0));
        }
        let id = if dice.roll(2) == 0 { A } else { B };
        match dice.roll(20) {
            0 | 1 if up(&world, id) => {
                world.kill(id);
                if dice.roll(2) == 0 {
                    world.guard_word(id);
                }
            }
            2..=4 if !up(&world, id) => world.boot(id),
            5 => world.cut(),
            6 | 7 => world.mend(),
            8 if world.mute.is_none() => world.mute = Some(id),
            9 => world.unmute(),
            10 if up(&world, id) => world.nodes.get_mut(&id).unwrap().slow_disk = true,
            11 | 12 => world.release_disk(id),
            13 => {
                for _ in 0..dice.roll(20) {
                    world.step(id);
                }
            }
            14 => world.run(dice.roll(if spread { 12_000 } else { 3_000 })),
            15 if up(&world, id) => world.event(id, Event::DiskLow(dice.roll(3) == 0)),
            _ => {
                let (account, more, two) = (16 + dice.roll(4), 16 + dice.roll(4), dice.roll(3) == 0);
                if let Some(home) = home_of(&world, account) {
                    let both = two && home_of(&world, more) == Some(home);
                    let accounts = if both { vec![account, more] } else { vec![account] };
                    let token = world.submit(home, &accounts);
                    asked.extend(accounts.iter().map(|a| (home, *a, token)));
                }
                world.run(50);
            }
        }
        let spread_at =
            |id: &NodeId| up(&world, *id) && world.replica(*id).record().is_some_and(|r| !r.homes.is_empty());
        was_spread |= [A, B].iter().any(spread_at);
        forked |= [A, B].into_iter().all(|id| alone_on_disk(&world, id));
        for (home, account, token) in &asked {
            if world.is_committed(*home, *token) {
                acknowledged.insert((*account, *token));
            }
        }
        check_reads(&world, &acknowledged, forked);
    }
    settle(&mut world);
    for (home, account, token) in asked {
        if world.is_committed(home, token) {
            let branch = |n: NodeId| {
                let branches = world.nodes[&n].disk.branches.iter();
                branches.filter(|((a, _), _)| a.0 == account).any(|(_, kept)| kept.tokens.contains(&token))
            };
            let kept = world.tokens(A, account).contains(&token) || (branch(A) && branch(B));
            assert!(kept, "acknowledged {token} of account {account} is lost");
        }
    }
    was_spread
}

fn settle(world: &mut World) {
    world.unmute();
    for id in [A, B] {
        world.release_disk(id);
        if !up(world, id) {
            world.boot(id);
        }
        world.event(id, Event::DiskLow(false));
    }
    world.mend();
    world.run(120_000);
    let states = [A, B].map(|id| (world.kind(id), world.replica(id).status(world.now).mode));
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint), "stuck: {states:?}");
    world.assert_equal();
    for account in 16..20 {
        let home = home_of(world, account).expect("somebody serves");
        let token = world.submit(home, &[account]);
        world.run(100);
        assert!(world.is_committed(home, token));
    }
}

#[test]
fn nothing_acknowledged_is_lost_in_random_histories() {
    for seed in 1..=150 {
        assert!(!run(seed, false));
    }
}

#[test]
fn nothing_acknowledged_is_lost_while_homes_are_spread() {
    let spread = (1..=60).filter(|seed| run(*seed, true)).count();
    assert!(spread > 30, "only {spread} of 60 histories had spread homes");
}
