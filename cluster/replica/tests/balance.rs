//! Scripts of homes spread over the in-sync set: shards move one by one, no command fails, and whatever happens on the
//! way leaves one side to go on with everything that was acknowledged.

#![allow(clippy::unwrap_used)]

mod toy;

use std::collections::BTreeSet;

use replica::{Event, Output, Serving};
use topology::EpochKind;
use toy::{A, B, C, World};
use vocab::{AccountId, NodeId, SubmitError};

/// Accounts in several shards.
const ACCOUNTS: std::ops::Range<u64> = 16..48;

fn home(world: &World, at: NodeId, account: u64) -> NodeId {
    world.replica(at).home(AccountId(account).shard()).unwrap()
}

fn homes(world: &World, at: NodeId) -> BTreeSet<NodeId> {
    ACCOUNTS.map(|a| home(world, at, a)).collect()
}

fn spread(world: &mut World, spread: bool) {
    for id in world.ids() {
        world.event(id, Event::Spread(spread));
    }
}

fn spread_out(mut world: World) -> World {
    spread(&mut world, true);
    world.run(20_000);
    let all: BTreeSet<NodeId> = world.members.iter().copied().collect();
    for id in &all {
        assert_eq!(homes(&world, *id), all, "every node is home of something");
        assert!(!matches!(world.replica(*id).serving(world.now), Serving::Not(_)), "node {} serves", id.0);
    }
    world
}

/// Submits to each account at its home; the tokens with their place.
fn submit_all(world: &mut World) -> Vec<(NodeId, u64, u64)> {
    let one = |account: u64, world: &mut World| {
        let at = home(world, A, account);
        (at, account, world.submit(at, &[account]))
    };
    ACCOUNTS.map(|account| one(account, world)).collect()
}

fn assert_kept(world: &World, tokens: &[(NodeId, u64, u64)], at: NodeId) {
    for (_, account, token) in tokens {
        assert!(world.tokens(at, *account).contains(token), "{token} of account {account} at node {}", at.0);
    }
}

fn unknown(world: &World) -> Vec<(NodeId, u64)> {
    let unknown = |e: &SubmitError| matches!(e, SubmitError::Unknown(_));
    let all = world.nodes.iter().flat_map(|(id, n)| n.failed.iter().map(move |(token, e)| (*id, *token, e)));
    all.filter(|(_, _, e)| unknown(e)).map(|(id, token, _)| (id, token)).collect()
}

/// Observers at this node that have looked since heard that there is something new of the account.
fn is_told(world: &World, id: NodeId, since: usize, account: u64) -> bool {
    world.nodes[&id].orders.iter().skip(since).any(|order| match order {
        Output::Readable { accounts } => accounts.contains(&AccountId(account)),
        Output::ServingChanged => true,
        _ => false,
    })
}

#[test]
fn observers_hear_of_what_a_lost_home_had_not_confirmed_once_this_node_shows_it() {
    let mut world = spread_out(World::pair());
    let account = ACCOUNTS.into_iter().find(|a| home(&world, A, *a) == B).unwrap();
    world.submit(B, &[account]);
    world.run(200);
    // Written at the backup, and not where it was ordered.
    world.nodes.get_mut(&B).unwrap().slow_disk = true;
    let token = world.submit(B, &[account]);
    assert!(world.tokens(A, account).contains(&token) && !world.is_committed(B, token));
    let read = |w: &World| w.replica(A).may_read(AccountId(account), w.version(A, account), w.now);
    assert_eq!(read(&world), replica::MayRead::Wait);
    let since = world.nodes[&A].orders.len();
    world.kill(B);
    world.guard_word(B);
    world.drain();
    assert_eq!((world.kind(A), read(&world)), (EpochKind::Solo, replica::MayRead::Yes));
    assert!(is_told(&world, A, since, account));
}

#[test]
fn observers_hear_of_what_is_taken_from_a_guest() {
    let mut world = World::pair_with(true);
    world.submit(A, &[16]);
    world.cut();
    world.run(2_000);
    let token = world.submit(B, &[16]);
    world.submit(A, &[17]);
    let anchored = |w: &World| w.kind(A) == EpochKind::Heal && w.replica(A).record().unwrap().home == A;
    world.connected = true;
    world.tell_register();
    world.connect();
    let mut since = None;
    for _ in 0..20_000 {
        if world.tokens(A, 16).contains(&token) {
            break;
        }
        let orders = &world.nodes[&A].orders;
        since = since.or_else(|| anchored(&world).then_some(orders.len()));
        [A, B].into_iter().for_each(|id| world.step(id));
    }
    world.drain();
    assert!(world.tokens(A, 16).contains(&token));
    let since = since.expect("A is the anchor");
    let orders = world.nodes[&A].orders.iter().skip(since);
    assert!(!orders.clone().any(|o| matches!(o, Output::ServingChanged)), "clients of the anchor stay");
    assert!(is_told(&world, A, since, 16));
}

#[test]
fn every_node_orders_its_shards_and_shows_all_of_them() {
    for world in [World::pair(), World::three()] {
        let mut world = spread_out(world);
        let tokens = submit_all(&mut world);
        world.run(200);
        for (at, _, token) in &tokens {
            assert!(world.is_committed(*at, *token));
        }
        world.assert_equal();
        for id in world.members.clone() {
            for account in ACCOUNTS {
                let version = world.version(id, account);
                let read = world.replica(id).may_read(AccountId(account), version, world.now);
                assert_eq!(read, replica::MayRead::Yes, "account {account} at node {}", id.0);
            }
        }
        let foreign = ACCOUNTS.into_iter().find(|a| home(&world, A, *a) != A).unwrap();
        let token = world.submit(A, &[foreign]);
        assert!(world.nodes[&A].failed.contains_key(&token), "no node orders another's shards");
        spread(&mut world, false);
        world.run(20_000);
        assert_eq!(homes(&world, B), BTreeSet::from([A]), "and all of it comes back");
        assert_kept(&world, &tokens, B);
    }
}

#[test]
fn no_command_fails_while_shards_move() {
    let mut world = World::pair();
    spread(&mut world, true);
    let mut tokens = Vec::new();
    for round in 0..240 {
        if round == 120 {
            spread(&mut world, false);
        }
        for account in ACCOUNTS {
            let at = home(&world, A, account);
            tokens.push((at, account, world.submit(at, &[account])));
        }
        world.run(50);
    }
    world.run(2_000);
    // What was refused because the home had just moved comes again at the new one; nothing is ever in doubt.
    assert_eq!(unknown(&world), []);
    let lets_go = |o: &replica::Output| matches!(o, replica::Output::AddressHeld(false));
    let orders = &world.nodes[&A].orders;
    let first = orders.iter().position(|o| matches!(o, replica::Output::AddressHeld(true))).unwrap();
    assert!(!orders.iter().skip(first).any(lets_go), "the leader holds the address all the time");
    let done: Vec<_> = tokens.iter().filter(|(at, _, token)| world.is_committed(*at, *token)).copied().collect();
    assert!(done.len() * 10 > tokens.len() * 9, "most went through at once: {} of {}", done.len(), tokens.len());
    world.assert_equal();
    assert_kept(&world, &done, B);
}

#[test]
fn a_batch_in_flight_of_a_shard_that_moves_is_finished_by_its_old_home() {
    let mut world = spread_out(World::pair());
    let account = ACCOUNTS.into_iter().find(|a| home(&world, A, *a) == B).unwrap();
    // B has sent it, and A takes its time with the disk.
    world.nodes.get_mut(&A).unwrap().slow_disk = true;
    let token = world.submit(B, &[account]);
    spread(&mut world, false);
    world.run(300);
    assert!(!world.is_committed(B, token));
    world.release_disk(A);
    world.run(20_000);
    assert!(world.is_committed(B, token), "{:?}", world.nodes[&B].failed.get(&token));
    assert_eq!(homes(&world, A), BTreeSet::from([A]));
    world.assert_equal();
}

#[test]
fn a_link_that_breaks_under_batches_of_both_homes_finishes_them() {
    let mut world = spread_out(World::pair());
    for id in [A, B] {
        world.nodes.get_mut(&id).unwrap().slow_disk = true;
    }
    let tokens = submit_all(&mut world);
    world.disconnect();
    for id in [A, B] {
        world.release_disk(id);
    }
    world.connect();
    world.run(1_000);
    for (at, _, token) in &tokens {
        assert!(world.is_committed(*at, *token), "{:?}", world.nodes[at].failed.get(token));
    }
    assert_eq!(unknown(&world), []);
    world.assert_equal();
}

#[test]
fn when_one_of_two_homes_dies_the_other_goes_on_with_all_shards_and_they_spread_again() {
    for dead in [A, B] {
        let mut world = spread_out(World::pair());
        let before = submit_all(&mut world);
        world.run(200);
        let other = if dead == A { B } else { A };
        world.kill(dead);
        world.guard_word(dead);
        world.run(100);
        assert_eq!(world.kind(other), EpochKind::Solo);
        assert_kept(&world, &before, other);
        let alone: Vec<_> = ACCOUNTS.map(|a| (other, a, world.submit(other, &[a]))).collect();
        world.run(100);
        assert!(alone.iter().all(|(at, _, token)| world.is_committed(*at, *token)));
        world.boot(dead);
        world.event(dead, Event::Spread(true));
        world.run(30_000);
        assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
        assert_eq!(homes(&world, A), BTreeSet::from([A, B]), "spread again");
        world.assert_equal();
        assert_kept(&world, &alone, dead);
    }
}

#[test]
fn x5_a_home_of_some_shards_that_restarts_takes_over_what_the_other_wrote_of_its_batch() {
    let mut world = spread_out(World::pair());
    let account = ACCOUNTS.into_iter().find(|a| home(&world, A, *a) == B).unwrap();
    // The leader has written it, B has not.
    world.nodes.get_mut(&B).unwrap().slow_disk = true;
    let token = world.submit(B, &[account]);
    assert!(world.tokens(A, account).contains(&token));
    world.kill(B);
    world.nodes.get_mut(&B).unwrap().slow_disk = false;
    world.boot(B);
    world.event(B, Event::Spread(true));
    world.run(5_000);
    assert!(world.tokens(B, account).contains(&token));
    world.assert_equal();
}

#[test]
fn a_node_that_leaves_first_gives_its_shards_back_and_nothing_is_in_doubt() {
    for leaver in [A, B] {
        let mut world = spread_out(World::pair());
        world.event(leaver, Event::Leaving(true));
        world.event(A, Event::Handover { to: None, leaves: Some(leaver) });
        let tokens = submit_all(&mut world);
        world.run(1_000);
        let stays = if leaver == A { B } else { A };
        assert_eq!(world.kind(stays), EpochKind::Reduced);
        assert_eq!(world.replica(stays).record().unwrap().in_sync, [stays]);
        assert_eq!(unknown(&world), []);
        let done: Vec<_> = tokens.into_iter().filter(|(at, _, t)| world.is_committed(*at, *t)).collect();
        assert_kept(&world, &done, stays);
    }
}

#[test]
fn h40_a_home_whose_disk_is_full_lets_the_other_go_on() {
    for wide in [false, true] {
        let mut world = if wide { spread_out(World::pair()) } else { World::pair() };
        world.event(A, Event::DiskLow(true));
        world.run(5_000);
        assert_eq!(world.kind(B), EpochKind::Reduced);
        assert_eq!(world.replica(B).record().unwrap().in_sync, [B]);
        let token = world.submit(B, &[16]);
        assert!(world.is_committed(B, token), "one full disk does not stop two nodes");
        world.event(A, Event::DiskLow(false));
        world.run(60_000);
        assert_eq!(world.kind(A), EpochKind::Joint, "taken back when there is room");
        world.assert_equal();
    }
}

#[test]
fn third_node_one_of_three_homes_dies_and_the_others_go_on_by_quorum() {
    let mut world = spread_out(World::three());
    let before = submit_all(&mut world);
    world.run(200);
    world.kill(A);
    world.guard_word(A);
    world.run(3_000);
    for id in [B, C] {
        assert_eq!(world.kind(id), EpochKind::Reduced);
        assert_kept(&world, &before, id);
    }
    world.boot(A);
    world.event(A, Event::Spread(true));
    world.run(40_000);
    assert_eq!(homes(&world, B), BTreeSet::from([A, B, C]));
    world.assert_equal();
}
