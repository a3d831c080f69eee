//! Scripts of a pair with a witness and of three data nodes: who goes on without whom, who waits, who is fenced.

#![allow(clippy::unwrap_used)]

mod toy;

use replica::{Event, Mode, Output, Serving};
use topology::{EpochKind, EpochRecord};
use toy::{A, B, C, W, World};
use vocab::{AccountHead, AccountId, EpochId, NodeId};

fn serves(world: &World, id: NodeId) -> bool {
    world.replica(id).serving(world.now) == Serving::Home
}

fn in_sync(world: &World, id: NodeId) -> Vec<NodeId> {
    world.replica(id).record().unwrap().in_sync.clone()
}

fn all_joint(world: &World) -> bool {
    world.members.iter().all(|id| world.kind(*id) == EpochKind::Joint && in_sync(world, *id) == world.members)
}

/// A commit that reaches the backups' disks and no further: the home dies before it writes.
fn tail(world: &mut World, home: NodeId, account: u64) -> u64 {
    world.nodes.get_mut(&home).unwrap().slow_disk = true;
    let token = world.submit(home, &[account]);
    assert!(!world.is_committed(home, token));
    token
}

#[test]
fn with_a_witness_the_backup_goes_on_by_quorum_and_the_lost_home_returns_as_guest() {
    let mut world = World::with_witness();
    let before = world.submit(A, &[16]);
    world.kill(A);
    world.guard_word(A);
    world.run(100);
    let record = world.replica(B).record().unwrap().clone();
    assert_eq!((record.kind, record.home, record.gap), (EpochKind::Reduced, B, true));
    assert_eq!(record.in_sync, [B]);
    assert!(serves(&world, B) && world.nodes[&B].holds_address);
    let alone = world.submit(B, &[16]);
    assert!(world.is_committed(B, alone));
    world.boot(A);
    world.run(2_000);
    assert!(all_joint(&world));
    world.assert_equal();
    assert!(world.tokens(A, 16).is_superset(&[before, alone].into()));
}

#[test]
fn with_a_witness_nobody_goes_on_alone_without_a_quorum() {
    let mut world = World::with_witness();
    world.isolate(A);
    world.isolate(W);
    world.run(20_000);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
    for id in [A, B] {
        assert!(matches!(world.replica(id).serving(world.now), Serving::Not(_)));
        assert_eq!(world.replica(id).status(world.now).mode, Mode::Fenced);
        assert!(!world.nodes[&id].holds_address, "a fenced node drops the address");
    }
    world.event(B, Event::StartAlone);
    world.drain();
    assert_eq!(world.kind(B), EpochKind::Solo, "an operator may say so");
    assert!(serves(&world, B));
    let token = world.submit(B, &[16]);
    world.mend();
    world.run(3_000);
    assert!(all_joint(&world));
    world.assert_equal();
    assert!(world.tokens(A, 16).contains(&token));
}

#[test]
fn with_a_witness_the_side_that_is_cut_off_stops_and_the_other_goes_on() {
    let mut world = World::with_witness();
    world.submit(A, &[16]);
    world.isolate(A);
    world.run(600);
    assert!(!serves(&world, A), "the home lease has run out");
    world.run(1_400);
    assert!(serves(&world, B));
    assert_eq!(world.kind(A), EpochKind::Joint);
    assert!(!world.nodes[&A].holds_address);
    let token = world.submit(B, &[16]);
    assert!(world.is_committed(B, token));
    world.mend();
    world.run(3_000);
    assert!(all_joint(&world));
    world.assert_equal();
    assert_eq!(world.replica(A).record().unwrap().home, B);
}

/// The registers answer before the links stand: what this node knows of the epoch is from before it was cut off.
#[test]
fn with_a_witness_a_primary_that_was_cut_off_stays_fenced_when_its_quorum_is_back_first() {
    let mut world = World::with_witness();
    world.isolate(A);
    world.run(3_000);
    assert_eq!(world.replica(A).status(world.now).mode, Mode::Fenced);
    assert!(serves(&world, B) && world.nodes[&B].holds_address);
    let stale = world.replica(A).record().cloned();
    let members = world.members.clone();
    world.event(A, Event::Register { record: stale, members, voters: 3, quorum: true });
    world.run(500);
    assert!(!world.nodes[&A].holds_address, "B holds it");
    assert_eq!(world.replica(A).status(world.now).mode, Mode::Fenced);
    world.mend();
    world.run(3_000);
    assert!(all_joint(&world));
}

/// A cut takes the frames, the connection stands for a while: who was left out for its silence is no guest until it is heard.
#[test]
fn with_a_witness_a_node_left_out_for_its_silence_is_no_guest_until_it_is_heard() {
    let mut world = World::with_witness();
    world.mute = Some(A);
    world.run(3_000);
    let record = world.replica(B).record().unwrap();
    assert_eq!((record.kind, record.home, record.guest), (EpochKind::Reduced, B, None));
    world.mute = None;
    world.run(3_000);
    assert!(all_joint(&world));
}

#[test]
fn a_lost_witness_stops_nobody() {
    let mut world = World::with_witness();
    world.isolate(W);
    world.run(5_000);
    assert!(serves(&world, A));
    let token = world.submit(A, &[16]);
    assert!(world.is_committed(A, token));
}

#[test]
fn x4_a_new_home_waits_out_the_lease_of_the_old_one() {
    // A firewall that starts to reject looks like a dead process: the old home may serve for one lease yet.
    for waits in [true, false] {
        let mut world = World::with_witness();
        world.without = (!waits).then_some(replica::Rule::LeaseWaits);
        world.kill(B);
        world.boot(B);
        world.run(500);
        world.isolate(A);
        world.event(B, Event::ResetEvidence { peer: A });
        world.drain();
        let both = |w: &World| serves(w, A) && serves(w, B);
        let mut seen = both(&world);
        for _ in 0..12 {
            world.run(50);
            seen |= both(&world);
        }
        assert_eq!(seen, !waits, "both serve as home");
        world.run(500);
        assert!(serves(&world, B));
    }
}

#[test]
fn x4_nobody_waits_for_a_process_that_has_surely_ended() {
    let mut world = World::with_witness();
    world.kill(A);
    world.guard_word(A);
    world.drain();
    assert!(serves(&world, B));
}

#[test]
fn x3_a_restarted_home_waits_one_lease_before_it_leaves_a_backup_out() {
    for waits in [true, false] {
        let mut world = World::with_witness();
        world.without = (!waits).then_some(replica::Rule::LeaseWaits);
        // Left out for space by agreement, while it still has a lease. The home dies before it enters.
        world.event(B, Event::DiskLow(true));
        world.nodes.get_mut(&A).unwrap().slow_disk = true;
        world.submit(A, &[16]);
        assert_eq!(world.register.as_ref().unwrap().in_sync, [A], "decided");
        world.kill(A);
        world.nodes.get_mut(&A).unwrap().slow_disk = false;
        world.isolate(B);
        world.boot(A);
        world.run(100);
        assert_eq!(world.kind(A) == EpochKind::Reduced, !waits, "leases from before the crash still hold");
        world.run(1_000);
        assert_eq!(world.kind(A), EpochKind::Reduced);
        assert!(serves(&world, A));
    }
}

#[test]
fn x3_a_restarted_home_goes_on_by_quorum_without_a_backup_it_never_hears() {
    let mut world = World::with_witness();
    world.submit(A, &[16]);
    world.kill(A);
    world.kill(B);
    world.boot(A);
    world.run(500);
    assert!(!serves(&world, A));
    world.run(2_000);
    assert!(serves(&world, A));
    assert!(world.replica(A).record().unwrap().gap, "the backup was not heard out");
    world.boot(B);
    world.run(2_000);
    assert!(all_joint(&world));
    world.assert_equal();
}

#[test]
fn x14_a_batch_that_was_never_acknowledged_is_archived_and_dropped() {
    for (operator, keeps) in [(false, true), (true, true), (false, false)] {
        let mut world = World::pair_with(true);
        world.witness = true;
        world.without = (!keeps).then_some(replica::Rule::DropsTail);
        world.tell_register();
        world.run(100);
        world.submit(A, &[16]);
        let token = tail(&mut world, A, 16);
        assert!(world.tokens(B, 16).contains(&token));
        let branch = world.version(B, 16);
        world.kill(A);
        world.nodes.get_mut(&A).unwrap().slow_disk = false;
        world.isolate(B);
        world.boot(A);
        world.run(3_000);
        assert!(serves(&world, A));
        if operator {
            world.event(B, Event::StartAlone);
            world.drain();
            assert_eq!(world.kind(B), EpochKind::Solo);
        }
        let other = world.submit(A, &[16]);
        assert!(world.is_committed(A, other));
        world.mend();
        world.run(5_000);
        assert!(all_joint(&world));
        world.assert_equal();
        assert!(world.tokens(A, 16).contains(&other));
        let merges = operator || !keeps;
        assert_eq!(world.tokens(A, 16).contains(&token), merges, "started alone it may have been shown: merged");
        assert!(world.nodes[&B].disk.branches.contains_key(&(AccountId(16), branch)), "kept in the archive");
        let merged = world.nodes[&A].orders.iter().any(|o| matches!(o, Output::Merge { .. }));
        assert_eq!(merged, merges);
    }
}

#[test]
fn three_nodes_commit_on_all_and_lose_one_without_losing_anything() {
    let mut world = World::three();
    assert!(all_joint(&world));
    let before = world.submit(A, &[16]);
    world.assert_equal();
    world.kill(A);
    world.guard_word(A);
    world.run(1_000);
    let home = [B, C].into_iter().find(|id| serves(&world, *id)).expect("one goes on");
    assert_eq!(in_sync(&world, home), [B, C]);
    let token = world.submit(home, &[16]);
    assert!(world.is_committed(home, token));
    assert!(world.tokens(B, 16).contains(&token) && world.tokens(C, 16).contains(&token));
    world.boot(A);
    world.run(3_000);
    assert!(all_joint(&world), "{:?}", world.register);
    world.assert_equal();
    assert!(world.tokens(A, 16).is_superset(&[before, token].into()));
}

#[test]
fn three_nodes_the_minority_is_fenced_and_comes_back() {
    let mut world = World::three();
    world.isolate(A);
    world.run(3_000);
    assert_eq!(world.replica(A).status(world.now).mode, Mode::Fenced);
    assert!(!world.nodes[&A].holds_address);
    let home = [B, C].into_iter().find(|id| serves(&world, *id)).expect("the majority goes on");
    let token = world.submit(home, &[16]);
    world.mend();
    world.run(3_000);
    assert!(all_joint(&world));
    world.assert_equal();
    assert!(world.tokens(A, 16).contains(&token));
}

#[test]
fn three_nodes_the_new_home_takes_the_longest_chain_and_brings_the_others_to_it() {
    for ahead in [B, C] {
        let behind = if ahead == B { C } else { B };
        let mut world = World::three();
        world.submit(A, &[16]);
        world.nodes.get_mut(&behind).unwrap().slow_disk = true;
        let token = world.submit(A, &[16]);
        assert!(world.tokens(ahead, 16).contains(&token) && !world.tokens(behind, 16).contains(&token));
        // The one that lacks it loses what it had not written.
        world.kill(behind);
        world.nodes.get_mut(&behind).unwrap().slow_disk = false;
        world.kill(A);
        world.boot(behind);
        world.guard_word(A);
        world.run(3_000);
        let home = [B, C].into_iter().find(|id| serves(&world, *id)).expect("one goes on");
        assert_eq!(in_sync(&world, home), [B, C]);
        assert_eq!(world.version(B, 16), world.version(C, 16));
        assert!(world.tokens(behind, 16).contains(&token));
        world.boot(A);
        world.run(3_000);
        assert!(all_joint(&world));
        world.assert_equal();
    }
}

#[test]
fn three_nodes_two_are_lost_one_after_the_other_and_taken_back_one_at_a_time() {
    let mut world = World::three();
    world.submit(A, &[16]);
    world.kill(A);
    world.guard_word(A);
    world.run(2_000);
    let home = [B, C].into_iter().find(|id| serves(&world, *id)).unwrap();
    let rest = if home == B { C } else { B };
    world.kill(rest);
    world.guard_word(rest);
    world.run(3_000);
    assert!(!serves(&world, home), "one of three is no quorum");
    world.event(home, Event::StartAlone);
    world.drain();
    let token = world.submit(home, &[16]);
    assert!(world.is_committed(home, token));
    world.boot(A);
    world.boot(rest);
    world.run(5_000);
    assert!(all_joint(&world), "{:?}", world.register);
    world.assert_equal();
    assert!(world.tokens(A, 16).contains(&token));
}

/// A is guest and cut off when the joint epoch is decided, which it never enters; a mark that it made before.
fn missed_joint() -> (World, AccountHead, EpochId) {
    let mut world = World::three();
    world.submit(A, &[16]);
    for id in [A, C] {
        world.kill(id);
        world.guard_word(id);
        world.run(1_000);
        if id == A {
            world.boot(A);
            world.run(3_000);
            assert!(all_joint(&world) && serves(&world, B));
        }
    }
    let reduced = world.replica(B).record().unwrap().id;
    assert_eq!(in_sync(&world, A), [A, B]);
    let mut shown = world.nodes[&A].disk.accounts[&AccountId(16)].head.clone();
    shown.served = Some(reduced);
    world.boot(C);
    let mut steps = 0;
    while world.register.as_ref().unwrap().kind != EpochKind::Joint {
        // A keeps its links, and hears nothing of the register.
        if world.kind(A) == EpochKind::Heal {
            world.isolated.insert(A);
        }
        [A, B, C].into_iter().for_each(|id| world.step(id));
        steps += 1;
        if steps % 100 == 0 {
            world.now = world.now.plus_ms(50);
            [A, B, C].into_iter().for_each(|id| world.event(id, Event::Tick));
        }
    }
    world.isolate(A);
    world.run(100);
    let joint = world.replica(B).record().unwrap().id;
    assert_eq!((world.kind(B), world.kind(A)), (EpochKind::Joint, EpochKind::Heal));
    (world, shown, joint)
}

#[test]
fn ha_16_a_register_older_than_what_was_decided_keeps_nobody_out() {
    let (mut world, _, joint) = missed_joint();
    // A was made the only voter: its copy of the settings counts now, which knows nothing of the last epoch.
    world.register = world.replica(A).record().cloned();
    assert!(world.register.as_ref().unwrap().id < joint);
    world.mend();
    world.run(10_000);
    assert!(all_joint(&world), "{:?} {:?} {:?}", world.register, world.kind(A), world.kind(B));
    assert!(world.register.as_ref().unwrap().id > joint);
    let home = world.replica(B).record().unwrap().home;
    let token = world.submit(home, &[16]);
    assert!(world.is_committed(home, token));
    world.assert_equal();
}

fn due(world: &World, id: NodeId, head: &AccountHead) -> bool {
    world.replica(id).stamp(AccountId(16)).entry_due(head)
}

/// What A showed before a joint epoch that it never entered says nothing about what it shows after it, alone.
#[test]
fn x16_marks_from_before_a_joint_epoch_that_a_node_missed_are_made_again() {
    let (mut world, mut shown, joint) = missed_joint();
    world.event(A, Event::StartAlone);
    world.drain();
    let solo = world.replica(A).record().unwrap().id;
    assert_eq!((solo.number, solo.author), (joint.number, A.0));
    shown.gap_taken = Some(solo);
    assert!(due(&world, A, &shown), "a mark that B does not count");
    shown.served = Some(solo);
    assert!(!due(&world, A, &shown));
}

/// Nor what it shows after it as home of an epoch without a third node, which has no gap.
#[test]
fn x16_who_missed_a_joint_epoch_makes_its_marks_again_as_home_of_a_reduced_one_too() {
    let (mut world, mut shown, joint) = missed_joint();
    let reduced = EpochRecord {
        id: EpochId { number: joint.number + 1, author: B.0 },
        kind: EpochKind::Reduced,
        in_sync: vec![A, B],
        home: A,
        parents: vec![joint],
        ..world.register.clone().unwrap()
    };
    world.isolate(C);
    world.register = Some(reduced.clone());
    world.isolated.remove(&A);
    world.tell_register();
    world.connect();
    world.drain();
    world.run(2_000);
    assert_eq!(world.replica(A).record(), Some(&reduced));
    assert!(due(&world, A, &shown), "a mark that B does not count");
    shown.served = Some(reduced.id);
    assert!(!due(&world, A, &shown));
}

/// A node that was started alone brings mail of its own back to two others.
fn x13(keeps: bool) -> (World, [u64; 2], u64) {
    let mut world = World::three();
    world.without = (!keeps).then_some(replica::Rule::LevelOthers);
    for id in [B, C] {
        world.kill(id);
        world.boot(id);
        world.run(3_000);
    }
    assert!(all_joint(&world));
    world.submit(A, &[16]);
    world.isolate(A);
    world.event(A, Event::StartAlone);
    world.drain();
    let there = [world.submit(A, &[17]), world.submit(A, &[16])];
    assert!(there.iter().all(|t| world.is_committed(A, *t)));
    world.run(3_000);
    let home = [B, C].into_iter().find(|id| serves(&world, *id)).unwrap();
    let here = world.submit(home, &[18]);
    world.mend();
    world.run(5_000);
    assert!(all_joint(&world));
    (world, there, here)
}

#[test]
fn x13_what_a_guest_brings_is_on_every_node_in_sync_before_it_counts() {
    let (world, there, here) = x13(true);
    world.assert_equal();
    assert!(world.tokens(A, 18).contains(&here));
    assert!(world.tokens(B, 17).contains(&there[0]) && world.tokens(B, 16).contains(&there[1]));
    let (world, there, _) = x13(false);
    let has = [B, C].map(|id| world.tokens(id, 17).contains(&there[0]));
    assert_ne!(has[0], has[1], "without the rule only one of them has it");
}

#[test]
fn a_node_whose_peer_and_targets_are_silent_fences_itself() {
    let mut world = World::pair();
    world.event(A, Event::Target { target: 1, answered: true });
    world.event(A, Event::Target { target: 2, answered: false });
    world.cut();
    world.event(A, Event::Target { target: 1, answered: false });
    world.run(5_000);
    assert_eq!(world.kind(A), EpochKind::Joint, "it is the isolated one");
    assert_eq!(world.replica(A).status(world.now).mode, Mode::Fenced);
    assert!(!world.nodes[&A].holds_address);
    assert_eq!(world.kind(B), EpochKind::Solo, "no target of B ever answered: the rule is off there");
    world.mend();
    world.run(2_000);
    assert!(all_joint(&world));
    assert_ne!(world.replica(A).status(world.now).mode, Mode::Fenced);
}

#[test]
fn a_target_that_answers_ends_the_fence_and_one_that_is_silent_matters_only_without_the_peer() {
    let mut world = World::pair();
    world.event(A, Event::Target { target: 1, answered: true });
    world.event(A, Event::Target { target: 1, answered: false });
    world.run(5_000);
    assert!(serves(&world, A), "the peer is heard");
    world.cut();
    world.run(2_000);
    assert_eq!(world.replica(A).status(world.now).mode, Mode::Fenced);
    world.event(A, Event::Target { target: 1, answered: true });
    world.run(5_000);
    assert_eq!(world.kind(A), EpochKind::Solo);
    assert!(serves(&world, A));
}

#[test]
fn a_node_that_was_isolated_does_not_go_on_alone_the_moment_its_network_is_back() {
    let mut world = World::pair();
    world.event(A, Event::Target { target: 1, answered: true });
    world.cut();
    world.event(A, Event::Target { target: 1, answered: false });
    world.run(5_000);
    assert_eq!(world.replica(A).status(world.now).mode, Mode::Fenced);
    assert_eq!(world.kind(B), EpochKind::Solo);
    // The gateway answers before the link to the other node stands: the silence so far was this node's own.
    world.event(A, Event::Target { target: 1, answered: true });
    world.run(2_000);
    assert_eq!(world.kind(A), EpochKind::Joint, "a second solo epoch would be a split made by the way back");
    assert!(!world.nodes[&A].holds_address || serves(&world, A));
    world.mend();
    world.run(2_000);
    assert!(all_joint(&world));
}

/// How many versions of A's branch were to be remembered when it was merged while C was away.
fn way_of_a_branch(keeps: bool) -> Option<usize> {
    let mut world = World::three_with(true);
    world.without = (!keeps).then_some(replica::Rule::RemembersWay);
    for id in [A, B, C] {
        world.kill(id);
        world.boot(id);
        world.run(3_000);
    }
    assert!(all_joint(&world));
    let home = world.replica(A).record().unwrap().home;
    world.submit(home, &[16]);
    world.isolate(A);
    world.event(A, Event::StartAlone);
    world.drain();
    for _ in 0..3 {
        let token = world.submit(A, &[16]);
        assert!(world.is_committed(A, token));
    }
    world.run(3_000);
    let home = [B, C].into_iter().find(|id| serves(&world, *id)).unwrap();
    let token = world.submit(home, &[16]);
    assert!(world.is_committed(home, token));
    let lost = if home == B { C } else { B };
    world.kill(lost);
    world.guard_word(lost);
    world.run(1_000);
    world.mend();
    world.run(5_000);
    let between = |o: &Output| match o {
        Output::Merge { account: AccountId(16), between, .. } => Some(between.len()),
        _ => None,
    };
    [A, B, C].iter().flat_map(|id| &world.nodes[id].orders).find_map(between)
}

#[test]
fn what_a_branch_went_through_is_remembered_while_a_node_is_away() {
    assert_eq!(way_of_a_branch(true), Some(2), "all but the last");
    assert_eq!(way_of_a_branch(false), Some(0));
}
