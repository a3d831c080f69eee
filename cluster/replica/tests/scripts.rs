//! Scripts of two machines, one per rule, named after it.

#![allow(clippy::unwrap_used)]

mod toy;

use replica::{Event, MayRead, Output, Rule, Serving};
use topology::{EpochKind, EpochRecord};
use toy::{A, B, World};
use vocab::{AccountId, EpochId, StoreWrite, SubmitError};

#[test]
fn h01_a_single_node_founds_its_cluster_and_commits() {
    let mut world = World::single();
    assert_eq!(world.replica(A).serving(world.now), Serving::Home);
    let token = world.submit(A, &[16]);
    assert!(world.is_committed(A, token));
    assert!(world.nodes[&A].holds_address);
}

#[test]
fn h02_a_node_that_joins_becomes_a_backup_without_stopping_service() {
    let mut world = World::single();
    let before = world.submit(A, &[16]);
    world.members = vec![A, B];
    world.boot(B);
    let during = world.submit(A, &[17]);
    world.run(1000);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
    assert!(world.is_committed(A, before) && world.is_committed(A, during));
    world.assert_equal();
    assert_eq!(world.replica(B).serving(world.now), Serving::Backup);
    let after = world.submit(A, &[16, 17]);
    assert!(world.is_committed(A, after));
    world.assert_equal();
}

#[test]
fn h03_backup_first_nothing_is_answered_before_the_backup_has_it() {
    let mut world = World::pair();
    world.nodes.get_mut(&B).unwrap().slow_disk = true;
    let token = world.submit(A, &[16]);
    assert!(!world.is_committed(A, token));
    assert!(world.tokens(A, 16).is_empty(), "the home writes after the acknowledgement");
    world.release_disk(B);
    assert!(world.is_committed(A, token));
    world.assert_equal();
}

#[test]
fn x1_a_backup_reads_only_under_a_lease() {
    let mut world = World::pair();
    assert_eq!(world.replica(B).serving(world.now), Serving::Backup);
    world.mute = Some(A);
    world.run(600);
    assert!(matches!(world.replica(B).serving(world.now), Serving::Not(_)));
}

#[test]
fn x1_the_home_serves_only_while_its_backup_acknowledges() {
    let mut world = World::pair();
    world.mute = Some(B);
    world.run(600);
    assert!(matches!(world.replica(A).serving(world.now), Serving::Not(_)));
}

#[test]
fn x2_a_backup_shows_only_confirmed_versions() {
    let mut world = World::pair();
    world.submit(A, &[16]);
    world.nodes.get_mut(&A).unwrap().slow_disk = true;
    let token = world.submit(A, &[16]);
    assert!(world.tokens(B, 16).contains(&token));
    let version = world.version(B, 16);
    assert_eq!(world.replica(B).may_read(AccountId(16), version, world.now), MayRead::Wait);
    world.release_disk(A);
    assert_eq!(world.replica(B).may_read(AccountId(16), version, world.now), MayRead::Yes);
}

#[test]
fn x3_a_restarted_home_takes_the_batch_its_backup_has() {
    let mut world = World::pair();
    world.nodes.get_mut(&A).unwrap().slow_disk = true;
    let token = world.submit(A, &[16]);
    world.nodes.get_mut(&A).unwrap().slow_disk = false;
    world.kill(A);
    world.connected = false;
    world.boot(A);
    assert!(matches!(world.replica(A).serving(world.now), Serving::Not(_)), "not before it has compared");
    world.mend();
    world.run(500);
    assert_eq!(world.kind(A), EpochKind::Joint);
    assert!(world.tokens(A, 16).contains(&token));
    assert_eq!(world.replica(A).serving(world.now), Serving::Home);
    world.assert_equal();
}

#[test]
fn h22_process_gone_opens_a_certain_solo_epoch_at_once_and_the_pair_heals() {
    let mut world = World::pair();
    let before = world.submit(A, &[16]);
    world.kill(A);
    world.guard_word(A);
    world.drain();
    let record = world.replica(B).record().unwrap().clone();
    assert_eq!((record.kind, record.certain, record.gap), (EpochKind::Solo, true, true));
    assert_eq!(world.replica(B).serving(world.now), Serving::Home);
    assert!(world.nodes[&B].holds_address);
    let alone = world.submit(B, &[16]);
    assert!(world.is_committed(B, alone));
    world.boot(A);
    world.run(1000);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
    world.assert_equal();
    assert!(world.tokens(A, 16).is_superset(&[before, alone].into()));
    assert_eq!(world.replica(B).record().unwrap().home, B);
    assert_eq!(world.replica(A).serving(world.now), Serving::Backup);
    assert!(world.replica(A).stamp(AccountId(16)).gap.is_none(), "joint ends the gap");
}

#[test]
fn refused_connections_act_at_once_and_leave_the_solo_epoch_uncertain() {
    let mut world = World::pair();
    world.kill(A);
    world.event(B, Event::ResetEvidence { peer: A });
    world.drain();
    let record = world.replica(B).record().unwrap().clone();
    assert_eq!((record.kind, record.certain, record.on_silence), (EpochKind::Solo, false, false));
    assert_eq!(world.replica(B).serving(world.now), Serving::Home);
    // The guard's word often comes a moment later; it lasts through a restart.
    world.guard_word(A);
    world.drain();
    assert!(world.replica(B).record().unwrap().certain);
    world.kill(B);
    world.boot(B);
    assert!(world.replica(B).record().unwrap().certain);
    world.boot(A);
    world.run(1000);
    let joint = world.replica(B).record().unwrap().clone();
    assert_eq!((joint.kind, joint.on_silence), (EpochKind::Joint, false), "no hold-down after it");
}

#[test]
fn the_guards_word_counts_while_the_solo_epoch_is_being_written() {
    let mut world = World::pair();
    world.kill(A);
    world.nodes.get_mut(&B).unwrap().slow_disk = true;
    world.event(B, Event::ResetEvidence { peer: A });
    world.drain();
    assert_eq!(world.kind(B), EpochKind::Joint, "still being written");
    world.guard_word(A);
    world.release_disk(B);
    let record = world.replica(B).record().unwrap();
    assert_eq!((record.kind, record.certain), (EpochKind::Solo, true));
}

#[test]
fn h22_the_dead_backup_is_left_and_taken_back() {
    let mut world = World::pair();
    world.kill(B);
    let waits = world.submit(A, &[16]);
    assert!(!world.is_committed(A, waits));
    world.guard_word(B);
    world.drain();
    assert!(world.is_committed(A, waits));
    world.boot(B);
    world.run(1000);
    assert_eq!(world.kind(B), EpochKind::Joint);
    world.assert_equal();
}

#[test]
fn h23_the_word_of_an_older_boots_guard_means_nothing() {
    let mut world = World::pair();
    world.event(B, Event::GuardWord { peer: A, boot: vocab::Boot(77) });
    world.run(200);
    assert_eq!(world.kind(B), EpochKind::Joint);
}

#[test]
fn h24_silence_needs_the_full_window_and_the_address_holder_goes_first() {
    let mut world = World::pair();
    world.cut();
    world.run(1000);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
    world.run(300);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Solo, EpochKind::Joint));
    world.run(300);
    assert_eq!(world.kind(B), EpochKind::Solo);
    let record = world.replica(B).record().unwrap();
    assert_eq!((record.certain, record.on_silence), (false, true));
}

#[test]
fn h24_a_host_that_dies_under_a_standing_link_is_left_in_time() {
    for silent in [A, B] {
        let mut world = World::pair();
        let other = if silent == A { B } else { A };
        // Its switch is dead: nothing arrives any more, and no connection breaks.
        world.mute = Some(silent);
        world.run(1_000);
        assert_eq!(world.kind(other), EpochKind::Joint);
        world.run(800);
        assert_eq!(world.replica(other).record().unwrap().in_sync, [other], "without node {}", silent.0);
        let token = world.submit(other, &[16]);
        assert!(world.is_committed(other, token));
    }
}

#[test]
fn h25_a_pause_of_our_own_is_no_silence_of_the_peer() {
    let mut world = World::pair();
    world.now = world.now.plus_ms(5_000);
    world.event(B, Event::Tick);
    world.drain();
    assert_eq!(world.kind(B), EpochKind::Joint);
}

#[test]
fn h25_whatever_comes_first_after_a_pause_of_our_own_is_no_silence_of_the_peer() {
    for keeps in [true, false] {
        let mut world = World::pair();
        world.without = (!keeps).then_some(Rule::OwnPause);
        world.kill(B);
        world.boot(B);
        world.run(500);
        // The link broke while this node did not run; it hears of that before its own clock ticks.
        let link = world.nodes[&B].links[&A];
        world.now = world.now.plus_ms(5_000);
        world.event(B, Event::LinkDown { peer: A, link });
        world.drain();
        assert_eq!(world.kind(B) == EpochKind::Joint, keeps);
    }
}

#[test]
fn h26_after_a_heal_of_a_silent_solo_the_next_one_waits() {
    let mut world = World::pair();
    world.cut();
    world.run(1300);
    assert_eq!(world.kind(A), EpochKind::Solo);
    world.mend();
    world.run(1000);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
    world.cut();
    world.run(10_000);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
    world.run(60_000);
    assert_eq!(world.kind(A), EpochKind::Solo);
}

#[test]
fn x5_a_node_that_boots_alone_waits_for_its_peer() {
    let mut world = World::pair();
    world.submit(A, &[16]);
    world.kill(A);
    world.kill(B);
    world.boot(B);
    world.run(10_000);
    assert_eq!(world.kind(B), EpochKind::Joint);
    assert!(matches!(world.replica(B).serving(world.now), Serving::Not(_)));
    world.boot(A);
    world.run(500);
    assert_eq!(world.replica(A).serving(world.now), Serving::Home);
    assert_eq!(world.replica(B).serving(world.now), Serving::Backup);
}

#[test]
fn x5_an_operator_may_start_it() {
    let mut world = World::pair();
    world.event(B, Event::StartAlone);
    world.drain();
    let answers = |w: &World| -> Vec<bool> {
        let answer = |o: &Output| if let Output::StartAlone(a) = o { Some(a.is_ok()) } else { None };
        w.nodes[&B].orders.iter().filter_map(answer).collect()
    };
    assert_eq!(answers(&world), [false], "the peer is heard");
    world.kill(A);
    world.kill(B);
    world.boot(B);
    world.event(B, Event::StartAlone);
    world.drain();
    assert_eq!(answers(&world), [false, true]);
    assert_eq!(world.replica(B).serving(world.now), Serving::Home);
    assert!(world.replica(B).stamp(AccountId(16)).gap.is_some());
}

#[test]
fn x6_the_solo_record_and_the_batches_in_flight_are_one_write() {
    for keeps in [true, false] {
        let mut world = World::pair();
        world.without = (!keeps).then_some(Rule::SoloInOneWrite);
        world.kill(A);
        world.boot(A);
        world.run(500);
        world.nodes.get_mut(&B).unwrap().slow_disk = true;
        let tokens = [world.submit(A, &[16]), world.submit(A, &[17])];
        world.kill(B);
        world.guard_word(B);
        world.drain();
        let meta = |parts: &&Vec<StoreWrite>| parts.iter().any(|p| matches!(p, StoreWrite::Meta { .. }));
        let solo = world.nodes[&A].disk.writes.iter().rev().find(meta).unwrap();
        let count = |f: fn(&StoreWrite) -> bool| solo.iter().filter(|p| f(p)).count();
        assert_eq!(count(|p| matches!(p, StoreWrite::Meta { .. })), 1);
        assert_eq!(count(|p| matches!(p, StoreWrite::Account(_))), if keeps { 2 } else { 0 });
        assert!(tokens.iter().all(|t| world.is_committed(A, *t)));
    }
}

#[test]
fn x7_a_node_that_heard_of_a_newer_epoch_does_not_start_from_the_old_one() {
    for keeps in [true, false] {
        x7(keeps);
    }
}

fn x7(keeps: bool) {
    let mut world = World::pair();
    world.without = (!keeps).then_some(Rule::NewestEpoch);
    world.kill(A);
    world.guard_word(A);
    world.drain();
    world.submit(B, &[16]);
    // A meets B just long enough to hear of the solo epoch; nothing is decided.
    world.no_quorum = true;
    world.boot(A);
    world.run(100);
    world.kill(B);
    world.guard_word(B);
    world.run(5_000);
    let newest = |w: &World| w.replica(A).status(w.now).newest.map(|id| id.number);
    let waits = |w: &World| matches!(w.replica(A).serving(w.now), Serving::Not(_));
    assert!(waits(&world));
    assert_eq!(newest(&world) == Some(world.replica(A).record().unwrap().id.number), !keeps);
    world.kill(A);
    world.boot(A);
    world.run(5_000);
    assert!(waits(&world), "it is remembered on disk");
    assert_eq!(newest(&world) == Some(world.replica(A).record().unwrap().id.number), !keeps);
}

#[test]
fn x10_both_sides_changed_different_accounts_and_nothing_is_lost() {
    let mut world = World::pair();
    world.submit(A, &[16]);
    world.cut();
    world.run(2000);
    let (a, b) = (world.submit(A, &[17]), world.submit(B, &[18]));
    assert!(world.is_committed(A, a) && world.is_committed(B, b));
    world.mend();
    world.run(1000);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
    world.assert_equal();
    assert!(world.tokens(A, 17).contains(&a) && world.tokens(A, 18).contains(&b));
    assert!(world.nodes.values().all(|n| n.disk.branches.is_empty()));
    assert_eq!(world.replica(A).record().unwrap().home, A, "both were solo: the lower id is the anchor");
}

#[test]
fn who_keeps_the_address_after_a_split_claims_it_anew_once_the_other_lets_go() {
    let mut world = World::pair();
    world.cut();
    world.run(3000);
    assert!(world.nodes[&A].holds_address && world.nodes[&B].holds_address, "both serve whom they reach");
    let claims =
        |world: &World, id| world.nodes[&id].orders.iter().filter(|o| matches!(o, Output::AddressHeld(true))).count();
    let before = (claims(&world, A), claims(&world, B));
    world.mend();
    world.run(3000);
    assert!(world.nodes[&A].holds_address && !world.nodes[&B].holds_address);
    // The network still sends clients to the other one: it announced the address last.
    assert!(claims(&world, A) > before.0 && claims(&world, B) == before.1);
    let orders = &world.nodes[&A].orders;
    assert!(!orders.iter().any(|o| matches!(o, Output::AddressHeld(false))), "it never let go itself");
}

#[test]
fn the_address_is_claimed_anew_also_when_the_others_letting_go_was_not_heard() {
    let mut world = World::pair();
    world.cut();
    world.run(3000);
    let claims =
        |world: &World| world.nodes[&A].orders.iter().filter(|o| matches!(o, Output::AddressHeld(true))).count();
    let before = claims(&world);
    // Heartbeats of the other one stop short once its link has come up, as behind lost packets.
    world.connected = true;
    world.connect();
    world.tell_register();
    world.mute = Some(B);
    world.run(3000);
    world.unmute();
    world.mend();
    world.run(5000);
    assert!(world.nodes[&A].holds_address && !world.nodes[&B].holds_address);
    assert!(claims(&world) > before);
}

#[test]
fn x10_out_of_its_own_solo_epoch_a_node_enters_another_only_as_guest() {
    for keeps in [true, false] {
        let mut world = World::pair();
        world.without = (!keeps).then_some(Rule::GuestOnly);
        world.kill(A);
        world.boot(A);
        world.run(500);
        let joint = world.register.clone().unwrap();
        world.cut();
        world.run(2_000);
        let token = world.submit(A, &[16]);
        assert!(world.is_committed(A, token), "on its own");
        // A proposal of the other side that was committed late: both in sync, the other one home.
        let number = world.replica(A).record().unwrap().id.number + 1;
        let id = EpochId { number, author: 0 };
        world.register = Some(EpochRecord { id, home: B, in_sync: vec![A, B], parents: vec![joint.id], ..joint });
        world.connected = true;
        world.tell_register();
        world.drain();
        assert_eq!(world.replica(A).record().unwrap().id != id, keeps, "its mail would be followed over");
    }
}

#[test]
fn x8_the_gap_of_a_solo_epoch_stays_due_in_the_heal_that_ends_it() {
    for keeps in [true, false] {
        let mut world = World::pair();
        world.without = (!keeps).then_some(Rule::GapUntilJoint);
        world.kill(A);
        world.boot(A);
        world.run(500);
        world.kill(B);
        world.guard_word(B);
        world.drain();
        let solo = world.replica(A).record().unwrap().id;
        // Nothing changed and nobody looked yet; the other is back, and its disk is slow.
        world.nodes.get_mut(&B).unwrap().slow_disk = true;
        world.boot(B);
        world.run(300);
        assert_eq!(world.kind(A), EpochKind::Heal);
        let gap = world.replica(A).stamp(AccountId(16)).gap;
        assert_eq!(gap.map(|gap| gap.epoch), keeps.then_some(solo));
    }
}

#[test]
fn h30_an_account_changed_on_both_sides_is_archived_on_both_and_raised() {
    let mut world = World::pair();
    world.submit(A, &[16]);
    world.cut();
    world.run(2000);
    let (a, b) = (world.submit(A, &[16]), world.submit(B, &[16]));
    let branch = world.version(B, 16);
    world.mend();
    world.run(1000);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
    world.assert_equal();
    assert!(world.tokens(B, 16).contains(&a));
    for node in world.nodes.values() {
        let kept = node.disk.branches.get(&(AccountId(16), branch)).expect("archived on both nodes");
        assert!(kept.tokens.contains(&b));
        assert!(node.disk.accounts[&AccountId(16)].head.uidvalidity > 0);
        assert_eq!(node.disk.accounts[&AccountId(16)].head.lineage, [branch]);
    }
}

#[test]
fn an_account_changed_on_both_sides_is_merged_and_the_guests_branch_kept() {
    let mut world = World::pair_with(true);
    world.submit(A, &[16]);
    let parted = world.version(A, 16);
    world.cut();
    world.run(2000);
    let (a, b) = (world.submit(A, &[16]), world.submit(B, &[16]));
    let branch = world.version(B, 16);
    world.mend();
    world.run(1000);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
    world.assert_equal();
    assert!(world.tokens(A, 16).contains(&a) && world.tokens(A, 16).contains(&b));
    let merge = world.nodes[&A].orders.iter().find_map(|o| match o {
        Output::Merge { base, .. } => *base,
        _ => None,
    });
    assert_eq!(merge.map(|base| (base.version, base.at_guest)), Some((parted, false)));
    assert!(world.nodes[&A].disk.branches.is_empty());
    assert!(world.nodes[&B].disk.branches.contains_key(&(AccountId(16), branch)));
}

#[test]
fn what_was_committed_while_the_others_chain_was_asked_for_is_not_overwritten() {
    // The other is found ahead; before the account is locked for the fetch, a change of it is committed here.
    for pause in 0..12 {
        let mut world = World::pair_with(true);
        world.submit(A, &[16]);
        world.cut();
        world.run(2000);
        let there = world.submit(B, &[16]);
        world.mend();
        for _ in 0..pause {
            world.step(A);
            world.step(B);
        }
        let here = world.submit(A, &[16]);
        world.run(2000);
        world.assert_equal();
        assert!(world.tokens(A, 16).contains(&there));
        assert!(!world.is_committed(A, here) || world.tokens(A, 16).contains(&here), "pause {pause}");
    }
}

#[test]
fn h31_a_heal_that_is_interrupted_begins_again_from_comparing() {
    let mut world = World::pair();
    world.submit(A, &[16]);
    world.cut();
    world.run(2000);
    for account in 16..30 {
        world.submit(A, &[account]);
        world.submit(B, &[account, account + 100]);
    }
    for round in 0..12 {
        world.connected = true;
        world.tell_register();
        world.connect();
        for _ in 0..3 + round {
            for id in [A, B] {
                world.step(id);
            }
        }
        let victim = if round % 2 == 0 { B } else { A };
        world.kill(victim);
        world.guard_word(victim);
        world.drain();
        world.boot(victim);
    }
    world.run(5_000);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
    world.assert_equal();
}

#[test]
fn h32_the_anchor_goes_on_committing_while_the_guest_catches_up() {
    let mut world = World::pair();
    world.kill(B);
    world.guard_word(B);
    world.drain();
    for account in 16..80 {
        world.submit(A, &[account]);
    }
    world.nodes.get_mut(&B).unwrap().slow_disk = true;
    world.boot(B);
    world.run(200);
    world.nodes.get_mut(&B).unwrap().kept_epoch();
    let mut tokens = Vec::new();
    for round in 0..40 {
        tokens.push(world.submit(A, &[16 + round, 16]));
        world.run(50);
    }
    assert!(tokens.iter().all(|t| world.is_committed(A, *t)));
    world.release_disk(B);
    world.run(2_000);
    assert_eq!(world.kind(B), EpochKind::Joint);
    world.assert_equal();
}

#[test]
fn x11_after_the_join_mark_nothing_is_committed_without_the_guest() {
    let mut world = World::pair();
    world.kill(B);
    world.guard_word(B);
    world.drain();
    world.submit(A, &[16]);
    world.boot(B);
    // The anchor marks; the register's next decision is lost.
    for _ in 0..20 {
        if world.nodes[&A].orders.iter().any(|o| matches!(o, Output::Log(t) if t.contains("join mark"))) {
            break;
        }
        world.step(A);
        world.step(B);
    }
    world.no_quorum = true;
    world.tell_register();
    world.run(300);
    if world.kind(A) == EpochKind::Heal {
        world.nodes.get_mut(&B).unwrap().slow_disk = true;
        let token = world.submit(A, &[16]);
        assert!(!world.is_committed(A, token));
        world.release_disk(B);
        assert!(world.is_committed(A, token));
    }
    world.no_quorum = false;
    world.tell_register();
    world.run(1000);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
    world.assert_equal();
}

#[test]
fn h40_a_backup_without_space_leaves_by_agreement_and_returns() {
    let mut world = World::pair();
    world.event(B, Event::DiskLow(true));
    world.drain();
    let token = world.submit(A, &[16]);
    world.run(1500);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Reduced, EpochKind::Reduced));
    assert!(world.is_committed(A, token));
    assert!(matches!(world.replica(B).serving(world.now), Serving::Not(_)));
    world.event(B, Event::DiskLow(false));
    world.run(40_000);
    assert_eq!(world.kind(B), EpochKind::Joint);
    world.assert_equal();
}

#[test]
fn h41_a_commit_that_takes_too_long_is_unknown_never_unavailable() {
    let mut world = World::pair();
    world.nodes.get_mut(&B).unwrap().slow_disk = true;
    let token = world.submit(A, &[16]);
    let waits = world.submit(A, &[16]);
    world.run(21_000);
    assert!(matches!(world.nodes[&A].failed[&token], SubmitError::Unknown(_)));
    assert!(matches!(world.nodes[&A].failed[&waits], SubmitError::Unavailable(_)));
}

#[test]
fn h42_a_link_that_breaks_under_batches_in_flight_finishes_them() {
    let mut world = World::pair();
    world.nodes.get_mut(&B).unwrap().slow_disk = true;
    let tokens: Vec<u64> = (0..20).map(|n| world.submit(A, &[16 + n])).collect();
    world.cut();
    world.release_disk(B);
    let more: Vec<u64> = (0..20).map(|n| world.submit(A, &[16 + n])).collect();
    world.mend();
    world.run(300);
    assert!(tokens.iter().chain(&more).all(|t| world.is_committed(A, *t)));
    assert_eq!(world.kind(A), EpochKind::Joint);
    world.assert_equal();
}

#[test]
fn bad_frames_change_nothing() {
    let mut world = World::pair();
    let link = world.nodes[&A].links[&B];
    for bytes in [&b"\xff\xff\xff"[..], b"", b"\x0a\x02\x08\x01", b"\x0a\x80\x80\x80\x80\x08"] {
        world.event(A, Event::Frame { peer: B, link, bytes: bytes::Bytes::from_static(bytes) });
    }
    world.run(200);
    let token = world.submit(A, &[16]);
    assert!(world.is_committed(A, token));
}

/// The link is dead on every path, and the home goes on alone; the other node finds it serving and does not make a second side.
#[test]
fn a_home_that_is_silent_but_serves_clients_is_not_left() {
    let mut world = World::pair();
    for id in [A, B] {
        world.kill(id);
        world.boot(id);
        world.run(1_000);
    }
    let home = if world.replica(A).record().unwrap().home == A { A } else { B };
    let other = if home == A { B } else { A };
    world.cut();
    let mut looks = 0;
    for _ in 0..100 {
        let seen = world.nodes[&other].orders.len();
        world.run(50);
        if world.nodes[&other].orders[seen..].iter().any(|order| *order == Output::Look { peer: home }) {
            looks += 1;
            world.event(other, Event::Answers { peer: home });
            world.drain();
        }
    }
    assert_eq!((world.kind(home), world.kind(other)), (EpochKind::Solo, EpochKind::Joint));
    assert!(looks > 10, "{looks} looks");
    assert!(
        !world.nodes[&home].orders.iter().any(|order| matches!(order, Output::Look { .. })),
        "the home asks nobody"
    );
    world.run(1_000);
    assert_eq!(world.kind(other), EpochKind::Solo, "it serves no more");
}

#[test]
fn a_backup_that_had_no_room_for_less_than_a_heartbeat_gets_what_it_refused_again() {
    let mut world = World::pair();
    world.run(200);
    // Nobody can decide that it leaves. No time passes, so no heartbeat says that the disk is full; the refusal does.
    world.no_quorum = true;
    world.tell_register();
    world.event(B, Event::DiskLow(true));
    let token = world.submit(A, &[16]);
    assert!(!world.is_committed(A, token));
    world.event(B, Event::DiskLow(false));
    world.run(1_000);
    assert!(world.is_committed(A, token), "what was refused never goes out again");
    world.assert_equal();
    assert_eq!(world.kind(A), EpochKind::Joint);
}
