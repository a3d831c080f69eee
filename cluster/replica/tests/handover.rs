//! Scripts of planned handovers: nothing fails, nothing forks, and a crash in the middle leaves one side to go on.

#![allow(clippy::unwrap_used)]

mod toy;

use replica::{Event, Output, Serving};
use topology::EpochKind;
use toy::{A, B, C, World};
use vocab::{NodeId, SubmitError};

fn answers(world: &World, id: NodeId) -> Vec<Result<NodeId, SubmitError>> {
    let answer = |o: &Output| if let Output::HandedOver(result) = o { Some(result.clone()) } else { None };
    world.nodes[&id].orders.iter().filter_map(answer).collect()
}

fn hand_over(world: &mut World, at: NodeId, to: Option<NodeId>, leaves: Option<NodeId>) {
    world.event(at, Event::Handover { to, leaves });
    world.drain();
}

fn home(world: &World, id: NodeId) -> NodeId {
    world.replica(id).record().unwrap().home
}

#[test]
fn ha_20_a_planned_switchover_moves_the_home_and_back_and_nothing_fails() {
    let mut world = World::pair();
    let mut tokens = vec![world.submit(A, &[16])];
    for (from, to) in [(A, B), (B, A), (A, B)] {
        hand_over(&mut world, from, Some(to), None);
        world.run(200);
        assert_eq!(answers(&world, from).last(), Some(&Ok(to)));
        assert_eq!((home(&world, A), home(&world, B)), (to, to));
        assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
        assert!(world.nodes[&to].holds_address && !world.nodes[&from].holds_address);
        assert_eq!(world.replica(to).serving(world.now), Serving::Home);
        world.run(200);
        assert_eq!(world.replica(from).serving(world.now), Serving::Backup);
        let token = world.submit(to, &[16]);
        assert!(world.is_committed(to, token));
        tokens.push(token);
    }
    world.assert_equal();
    assert!(world.tokens(A, 16).is_superset(&tokens.into_iter().collect()));
}

#[test]
fn what_is_in_flight_is_finished_first_and_if_it_is_not_nothing_changes() {
    let mut world = World::pair();
    world.nodes.get_mut(&A).unwrap().slow_disk = true;
    let token = world.submit(A, &[16]);
    hand_over(&mut world, A, Some(B), None);
    world.run(500);
    assert_eq!(home(&world, B), A, "it waits");
    let waits = world.submit(A, &[17]);
    world.run(1_500);
    let refused = matches!(answers(&world, A).last(), Some(Err(SubmitError::Unavailable(_))));
    assert!(refused, "given up: {:?}", answers(&world, A));
    world.release_disk(A);
    world.run(200);
    assert!(world.is_committed(A, token) && world.is_committed(A, waits));
    assert_eq!(home(&world, B), A);
    hand_over(&mut world, A, None, None);
    world.run(200);
    assert_eq!(home(&world, A), B, "without a name whoever fits");
    world.assert_equal();
}

#[test]
fn x5_a_crash_in_the_middle_leaves_the_other_its_right_to_go_on_alone() {
    let mut world = World::pair();
    let token = world.submit(A, &[16]);
    world.nodes.get_mut(&B).unwrap().slow_disk = true;
    hand_over(&mut world, A, Some(B), None);
    assert_eq!(home(&world, A), B, "the old home has entered, the new one has not");
    world.kill(B);
    world.guard_word(B);
    world.run(100);
    assert_eq!(world.kind(A), EpochKind::Solo);
    let alone = world.submit(A, &[16]);
    assert!(world.is_committed(A, alone));
    world.nodes.get_mut(&B).unwrap().slow_disk = false;
    world.boot(B);
    world.run(2_000);
    assert_eq!(world.kind(B), EpochKind::Joint);
    world.assert_equal();
    assert!(world.tokens(B, 16).is_superset(&[token, alone].into()));
}

#[test]
fn a_home_that_is_about_to_stop_leaves_without_a_fork_and_is_not_taken_back_before_it_did() {
    let mut world = World::pair();
    let token = world.submit(A, &[16]);
    world.event(A, Event::Leaving(true));
    hand_over(&mut world, A, None, Some(A));
    world.run(500);
    assert_eq!(answers(&world, A).last(), Some(&Ok(B)));
    let record = world.replica(B).record().unwrap().clone();
    assert_eq!((record.kind, record.home, record.gap), (EpochKind::Reduced, B, false), "no gap: A was heard out");
    assert_eq!(record.in_sync, [B]);
    assert!(matches!(world.replica(A).serving(world.now), Serving::Not(_)));
    let alone = world.submit(B, &[16]);
    assert!(world.is_committed(B, alone));
    world.run(40_000);
    assert_eq!(world.kind(B), EpochKind::Reduced, "not taken back as long as it is stopping");
    world.kill(A);
    world.guard_word(A);
    world.run(1_000);
    assert_eq!(world.kind(B), EpochKind::Reduced);
    world.boot(A);
    world.run(2_000);
    assert_eq!(world.kind(A), EpochKind::Joint);
    world.assert_equal();
    assert!(world.tokens(A, 16).is_superset(&[token, alone].into()));
}

#[test]
fn a_backup_that_is_about_to_stop_leaves_and_the_home_stays() {
    let mut world = World::three();
    world.event(C, Event::Leaving(true));
    hand_over(&mut world, A, None, Some(C));
    world.run(300);
    assert_eq!(answers(&world, A).last(), Some(&Ok(A)));
    assert_eq!(world.replica(B).record().unwrap().in_sync, [A, B]);
    let token = world.submit(A, &[16]);
    assert!(world.is_committed(A, token));
    world.event(C, Event::Leaving(false));
    world.run(3_000);
    assert_eq!(world.kind(C), EpochKind::Joint, "it stays after all");
    world.assert_equal();
}

#[test]
fn a_handover_that_cannot_be_is_refused_and_nothing_changes() {
    let mut world = World::pair();
    for (at, to, leaves) in [(B, Some(A), None), (A, Some(C), None), (A, Some(A), Some(A)), (A, None, Some(C))] {
        hand_over(&mut world, at, to, leaves);
        let last = answers(&world, at).pop();
        assert!(matches!(last, Some(Err(SubmitError::Unavailable(_)))), "{last:?}");
    }
    hand_over(&mut world, A, Some(A), None);
    assert_eq!(answers(&world, A).pop(), Some(Ok(A)), "nothing to do");
    world.kill(B);
    world.guard_word(B);
    world.run(200);
    hand_over(&mut world, A, None, Some(A));
    assert!(matches!(answers(&world, A).pop(), Some(Err(SubmitError::Unavailable(_)))), "the only one");
    assert_eq!(home(&world, A), A);
}

#[test]
fn ha_20_an_epoch_from_before_an_absence_is_no_answer() {
    let mut world = World::pair();
    world.kill(A);
    world.guard_word(A);
    world.run(200);
    assert_eq!((world.kind(B), home(&world, B)), (EpochKind::Solo, B));
    hand_over(&mut world, B, Some(B), None);
    assert_eq!(answers(&world, B).pop(), Some(Ok(B)), "who serves alone knows it");
    world.nodes.get_mut(&A).unwrap().slow_disk = true;
    world.boot(A);
    assert_eq!(home(&world, A), A, "what it knows of before");
    hand_over(&mut world, A, Some(A), None);
    let last = answers(&world, A).pop();
    assert!(matches!(last, Some(Err(SubmitError::Unavailable(_)))), "{last:?}");
    world.release_disk(A);
    world.run(2_000);
    assert_eq!((world.kind(A), home(&world, A)), (EpochKind::Joint, B));
}

/// As the control plane does it: the register's members without this one.
fn forget(world: &mut World, gone: NodeId) {
    world.members.retain(|id| *id != gone);
    world.tell_register();
    world.drain();
}

#[test]
fn ha_16_a_member_that_left_is_forgotten_and_the_other_is_joint_alone() {
    let mut world = World::pair();
    let token = world.submit(A, &[16]);
    assert!(world.replica(A).may_remove(B, true).is_err(), "in sync");
    assert!(world.replica(B).may_remove(A, false).is_err(), "the home itself");
    world.event(A, Event::Leaving(true));
    hand_over(&mut world, A, None, Some(A));
    world.run(500);
    assert!(world.replica(B).may_remove(A, false).is_err(), "it is heard");
    let epoch = world.replica(B).may_remove(A, true).unwrap();
    assert_eq!(Some(epoch), world.replica(B).record().map(|r| r.id));
    forget(&mut world, A);
    world.run(500);
    let record = world.replica(B).record().unwrap().clone();
    assert_eq!((record.kind, record.members, record.in_sync, record.gap), (EpochKind::Joint, vec![B], vec![B], false));
    world.kill(A);
    world.run(5_000);
    assert_eq!(world.replica(B).serving(world.now), Serving::Home);
    let alone = world.submit(B, &[16]);
    assert!(world.is_committed(B, token) || world.tokens(B, 16).contains(&token));
    assert!(world.is_committed(B, alone));
}

#[test]
fn ha_16_a_guest_that_is_lost_before_it_is_up_to_date_can_be_removed() {
    let mut world = World::with_witness();
    world.kill(B);
    world.guard_word(B);
    world.run(500);
    world.nodes.get_mut(&B).unwrap().slow_disk = true;
    world.boot(B);
    for _ in 0..40 {
        world.run(50);
        if world.kind(A) == EpochKind::Heal {
            break;
        }
    }
    assert_eq!(world.kind(A), EpochKind::Heal);
    assert!(world.replica(A).may_remove(B, false).is_err(), "it is heard");
    world.kill(B);
    world.guard_word(B);
    world.run(2_500);
    assert!(world.replica(A).may_remove(B, false).is_ok());
    forget(&mut world, B);
    world.run(1_000);
    let record = world.replica(A).record().unwrap().clone();
    assert_eq!((record.kind, record.in_sync), (EpochKind::Joint, vec![A]));
    let alone = world.submit(A, &[16]);
    assert!(world.is_committed(A, alone));
}

#[test]
fn a_home_that_slept_hands_over_to_nobody_before_it_has_heard_of_them_again() {
    let mut world = World::pair();
    world.submit(A, &[16]);
    world.run(200);
    // The other one may have died and come back with an older disk meanwhile: what is known of it is from before.
    world.now = world.now.plus_ms(2_000);
    world.event(A, Event::Tick);
    for leaves in [None, Some(A)] {
        assert!(world.replica(A).may_hand_over(Some(B), leaves).is_err());
    }
    world.run(1_000);
    for leaves in [None, Some(A)] {
        assert_eq!(world.replica(A).may_hand_over(Some(B), leaves), Ok(B));
    }
}
