//! Scripts of a heal that merges, interrupted wherever it can be.

#![allow(clippy::unwrap_used)]

mod toy;

use replica::{MayRead, Output};
use topology::EpochKind;
use toy::{A, B, World};
use vocab::{AccountId, NodeId, Version, limits};

/// Both nodes were alone and changed the same accounts; connected again, nothing is exchanged yet.
fn parted() -> (World, Vec<u64>, Version) {
    let mut world = World::pair_with(true);
    world.submit(A, &[16]);
    world.cut();
    world.run(2_000);
    let mut tokens = Vec::new();
    for account in 16..20 {
        tokens.push(world.submit(A, &[account]));
        tokens.push(world.submit(B, &[account]));
    }
    assert!(tokens.iter().all(|t| world.is_committed(A, *t) || world.is_committed(B, *t)));
    let branch = world.version(B, 16);
    world.connected = true;
    world.tell_register();
    world.connect();
    (world, tokens, branch)
}

fn check(world: &mut World, tokens: &[u64], what: &str) {
    world.run(5_000);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint), "{what}");
    world.assert_equal();
    let all: Vec<u64> = (16..20).flat_map(|account| world.tokens(A, account)).collect();
    assert!(tokens.iter().all(|t| all.contains(t)), "{what}: acknowledged mail is lost");
}

#[test]
fn an_account_made_on_both_sides_comes_from_nothing_and_any_other_from_what_both_know() {
    let (mut world, tokens, _) = parted();
    check(&mut world, &tokens, "a merge");
    let orders = [A, B].into_iter().flat_map(|id| world.nodes[&id].orders.clone());
    let bases: std::collections::BTreeMap<u64, _> = orders
        .filter_map(|order| match order {
            Output::Merge { account, base, .. } => Some((account.0, base.expect("a base").version)),
            _ => None,
        })
        .collect();
    assert_eq!(bases.len(), 4);
    assert!(bases[&16] != Version::default(), "mail came before they parted");
    assert!((17..20).all(|account| bases[&account] == Version::default()));
}

/// Stops after so many steps of both nodes.
fn run_steps(world: &mut World, steps: usize) {
    for _ in 0..steps {
        world.step(A);
        world.step(B);
    }
}

fn restart(world: &mut World, id: NodeId) {
    world.kill(id);
    world.boot(id);
}

#[test]
fn h31_a_merge_survives_a_restart_of_either_node_after_every_step() {
    let mut merged_before = 0;
    for victim in [A, B] {
        for steps in 0..60 {
            let (mut world, tokens, _) = parted();
            run_steps(&mut world, steps);
            let merged =
                |w: &World| [A, B].iter().flat_map(|id| &w.nodes[id].orders).any(|o| matches!(o, Output::Merge { .. }));
            merged_before += u32::from(merged(&world));
            restart(&mut world, victim);
            check(&mut world, &tokens, &format!("node {} restarts after step {steps}", victim.0));
        }
    }
    assert!(merged_before > 0, "some restarts fall behind the merge");
}

#[test]
fn h31_a_merge_survives_a_link_that_breaks_after_every_step() {
    for steps in 0..60 {
        let (mut world, tokens, _) = parted();
        run_steps(&mut world, steps);
        world.disconnect();
        world.run(200);
        world.mend();
        check(&mut world, &tokens, &format!("the link breaks after step {steps}"));
    }
}

#[test]
fn h31_a_merge_survives_a_cut_in_which_both_go_on_alone_again() {
    for steps in (0..60).step_by(3) {
        let (mut world, mut tokens, _) = parted();
        run_steps(&mut world, steps);
        for id in [A, B] {
            world.kill(id);
        }
        world.connected = false;
        for id in [A, B] {
            world.boot(id);
            world.event(id, replica::Event::StartAlone);
            world.drain();
            let token = world.submit(id, &[16]);
            tokens.extend(Some(token).filter(|t| world.is_committed(id, *t)));
        }
        world.mend();
        check(&mut world, &tokens, &format!("parted again after step {steps}"));
    }
}

#[test]
fn a_branch_that_cannot_be_archived_now_is_archived_later() {
    for id in [A, B] {
        let (mut world, tokens, branch) = parted();
        world.nodes.get_mut(&id).unwrap().archive_full = true;
        world.run(3_000);
        world.nodes.get_mut(&id).unwrap().archive_full = false;
        check(&mut world, &tokens, "the archive has room again");
        assert!(world.nodes[&B].disk.branches.contains_key(&(AccountId(16), branch)), "kept in the archive");
    }
}

#[test]
fn what_cannot_be_merged_is_archived_and_raised() {
    let (mut world, _, branch) = parted();
    for id in [A, B] {
        world.nodes.get_mut(&id).unwrap().merges_nothing = true;
    }
    world.run(5_000);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
    world.assert_equal();
    for node in world.nodes.values() {
        assert!(node.disk.branches.contains_key(&(AccountId(16), branch)), "archived on both nodes");
        assert!(node.disk.accounts[&AccountId(16)].head.uidvalidity > 0);
    }
}

#[test]
fn x12_a_batch_in_flight_is_finished_before_its_account_is_merged() {
    for steps in 0..40 {
        let (mut world, mut tokens, _) = parted();
        run_steps(&mut world, steps);
        world.nodes.get_mut(&A).unwrap().slow_disk = true;
        let token = world.submit(A, &[16]);
        world.run(500);
        world.release_disk(A);
        world.run(5_000);
        tokens.extend(Some(token).filter(|t| world.is_committed(A, *t)));
        check(&mut world, &tokens, &format!("a batch in flight after step {steps}"));
    }
}

#[test]
fn x15_a_side_whose_marks_do_not_reach_back_to_the_base_counts_as_served() {
    for keeps in [true, false] {
        x15(keeps);
    }
}

fn x15(keeps: bool) {
    let mut world = World::pair_with(true);
    world.without = (!keeps).then_some(replica::Rule::MarksReachBack);
    world.submit(A, &[16]);
    let base = world.version(A, 16);
    // A batch of the joint epoch, where nobody marks, reaches the backup and not the home.
    world.nodes.get_mut(&A).unwrap().slow_disk = true;
    let shown = world.submit(A, &[16]);
    assert!(world.tokens(B, 16).contains(&shown));
    world.cut();
    for id in [A, B] {
        world.kill(id);
        world.nodes.get_mut(&id).unwrap().slow_disk = false;
        world.boot(id);
        world.event(id, replica::Event::StartAlone);
        world.drain();
    }
    let token = world.submit(A, &[16]);
    assert!(world.is_committed(A, token));
    world.mend();
    world.run(5_000);
    assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
    world.assert_equal();
    assert!(world.tokens(A, 16).contains(&shown) && world.tokens(A, 16).contains(&token));
    let merge = world.nodes[&A].orders.iter().find_map(|o| match o {
        Output::Merge { base, served, guest_served, .. } => Some((base.map(|b| b.version), *served, *guest_served)),
        _ => None,
    });
    assert_eq!(merge, Some((Some(base), false, keeps)));
}

#[test]
fn h28_what_the_guest_has_of_an_account_is_merged_before_anybody_is_shown_it() {
    for waits in [true, false] {
        let mut world = World::pair_with(true);
        world.without = (!waits).then_some(replica::Rule::MergedReads);
        world.kill(A);
        world.boot(A);
        world.run(1_000);
        world.cut();
        world.run(2_000);
        let (both, mine) = (AccountId(16), AccountId(17));
        world.submit(A, &[both.0]);
        world.submit(A, &[mine.0]);
        let theirs = world.submit(B, &[both.0]);
        world.connected = true;
        world.tell_register();
        world.connect();
        let (mut held, mut unheld) = (0, 0);
        let read = |w: &World, account: AccountId| w.replica(A).may_read(account, w.version(A, account.0), w.now);
        for _ in 0..3_000 {
            let guest_is_sealed = world.kind(B) == EpochKind::Heal;
            let lacks = !world.tokens(A, both.0).contains(&theirs);
            if guest_is_sealed && lacks && world.replica(A).guest_in_touch().is_some() {
                match read(&world, both) {
                    MayRead::Merging => held += 1,
                    MayRead::Yes => unheld += 1,
                    other => panic!("{other:?}"),
                }
            }
            run_steps(&mut world, 1);
        }
        world.run(5_000);
        assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
        assert_eq!((read(&world, both), read(&world, mine)), (MayRead::Yes, MayRead::Yes));
        assert_eq!((held > 0, unheld > 0), (waits, !waits), "{held} held, {unheld} shown");
    }
}

#[test]
fn h14_a_guest_takes_the_queue_over_after_the_accounts_its_accept_records_promise_mail_to() {
    for last in [true, false] {
        let mut world = World::pair_with(true);
        world.without = (!last).then_some(replica::Rule::QueueLast);
        world.kill(A);
        world.boot(A);
        world.run(1_000);
        world.kill(B);
        world.guard_word(B);
        world.drain();
        for account in [AccountId::QUEUE.0, 16, 17, 18] {
            let token = world.submit(A, &[account]);
            assert!(world.is_committed(A, token));
        }
        world.boot(B);
        world.run(2_000);
        assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
        world.assert_equal();
        let fetched = world.nodes[&B].orders.iter().filter_map(|order| match order {
            Output::Fetch { account, .. } => Some(*account),
            _ => None,
        });
        let fetched: Vec<AccountId> = fetched.collect();
        let at = fetched.iter().position(|account| *account == AccountId::QUEUE);
        assert_eq!(at, Some(if last { fetched.len() - 1 } else { 0 }), "{fetched:?}");
    }
}

#[test]
fn h28_a_merge_that_does_not_come_about_takes_no_account_away() {
    let mut world = World::pair_with(true);
    world.cut();
    world.run(2_000);
    world.submit(A, &[16]);
    world.submit(B, &[16]);
    world.connected = true;
    world.tell_register();
    world.connect();
    for _ in 0..20_000 {
        if world.replica(A).is_behind(AccountId(16)) && world.kind(A) == EpochKind::Heal {
            break;
        }
        run_steps(&mut world, 1);
    }
    world.event(A, replica::Event::Wanted(AccountId(16)));
    let read = |w: &World, later: u64| w.replica(A).may_read(AccountId(16), Default::default(), w.now.plus_ms(later));
    assert_eq!(read(&world, 0), MayRead::Merging);
    assert_eq!(read(&world, limits::HEAL_READ_WAIT_MAX_MS), MayRead::Yes);
}

#[test]
fn an_account_that_a_client_asks_for_is_merged_before_others() {
    let order = |asks: bool| {
        let mut world = World::pair_with(true);
        world.cut();
        world.run(2_000);
        for account in 16..216 {
            world.submit(A, &[account]);
            world.submit(B, &[account]);
        }
        world.connected = true;
        world.tell_register();
        world.connect();
        let last = AccountId(215);
        for _ in 0..10_000 {
            if world.replica(A).is_behind(last) {
                break;
            }
            run_steps(&mut world, 1);
        }
        assert!(world.replica(A).is_behind(last), "compared");
        if asks {
            world.event(A, replica::Event::Wanted(last));
            assert!(!world.replica(A).is_behind(last), "once is enough");
        }
        world.run(5_000);
        assert_eq!((world.kind(A), world.kind(B)), (EpochKind::Joint, EpochKind::Joint));
        world.assert_equal();
        let merges = world.nodes[&A].orders.iter().filter_map(|o| match o {
            Output::Merge { account, .. } => Some(*account),
            _ => None,
        });
        merges.into_iter().position(|account| account == last).unwrap()
    };
    let (asked, unasked) = (order(true), order(false));
    assert_eq!(unasked, 199, "else in order");
    assert!(asked <= 40, "behind those that were under way: {asked}");
}

/// One side has changed nothing since they parted but was shown to clients; the other is ahead.
fn shown_behind(behind: NodeId, keeps: bool) -> Vec<(NodeId, bool, bool)> {
    let mut world = World::pair_with(true);
    world.without = (!keeps).then_some(replica::Rule::MergesShown);
    for id in [A, B] {
        world.kill(id);
        world.boot(id);
        world.run(1_000);
    }
    world.submit(A, &[16]);
    world.cut();
    world.run(2_000);
    let alone = world.replica(behind).record().unwrap().id;
    world.nodes.get_mut(&behind).unwrap().disk.accounts.get_mut(&AccountId(16)).unwrap().head.served = Some(alone);
    let ahead = if behind == A { B } else { A };
    let token = world.submit(ahead, &[16]);
    assert!(world.is_committed(ahead, token));
    world.mend();
    check(&mut world, &[], "a side that was shown");
    assert!(world.tokens(behind, 16).contains(&token));
    let merges = |id: NodeId| {
        world.nodes[&id].orders.iter().filter_map(move |o| match o {
            Output::Merge { account: AccountId(16), served, guest_served, .. } => Some((id, *served, *guest_served)),
            _ => None,
        })
    };
    [A, B].into_iter().flat_map(merges).collect()
}

#[test]
fn rule_w_a_side_that_is_behind_but_was_shown_is_merged() {
    let mut anchors = std::collections::BTreeSet::new();
    for behind in [A, B] {
        let merged = shown_behind(behind, true);
        let [(anchor, served, guest_served)] = merged[..] else { panic!("{merged:?}") };
        anchors.insert(anchor == behind);
        assert!(if anchor == behind { served } else { guest_served }, "{merged:?}");
        assert_eq!(shown_behind(behind, false), []);
    }
    assert_eq!(anchors.len(), 2, "once it is the anchor that is behind, once the guest");
}

/// A guest that was level in this heal epoch shows nothing by itself: what it lacks after a broken link it fetches.
#[test]
fn a_guest_that_was_level_in_the_heal_is_only_behind_after_its_link_broke() {
    let mut fetched = 0;
    for steps in 0..80 {
        let (mut world, tokens, _) = parted();
        for id in [A, B] {
            let alone = world.replica(id).record().unwrap().id;
            for state in world.nodes.get_mut(&id).unwrap().disk.accounts.values_mut() {
                state.head.served = Some(alone);
            }
        }
        run_steps(&mut world, steps);
        let anchor =
            if world.kind(A) == EpochKind::Heal && world.replica(A).record().unwrap().home == A { A } else { B };
        let guest = if anchor == A { B } else { A };
        let was_level = world.kind(anchor) == EpochKind::Heal && world.version(anchor, 16) == world.version(guest, 16);
        world.disconnect();
        let late = world.submit(anchor, &[16]);
        let before = world.nodes[&anchor].orders.len();
        world.mend();
        check(&mut world, &tokens, &format!("the link breaks after step {steps}"));
        let merged = world.nodes[&anchor].orders[before..]
            .iter()
            .any(|o| matches!(o, Output::Merge { account: AccountId(16), .. }));
        if was_level && world.is_committed(anchor, late) {
            fetched += 1;
            assert!(!merged, "after step {steps}");
        }
    }
    assert!(fetched > 0, "some links break after the account was level");
}
