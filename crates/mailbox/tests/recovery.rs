//! What a merge kept restorable: put back, forgotten, expired.

mod bed;

use bed::pair::Pair;
use bed::{Bed, command_id};
use mailbox::op::{AccountOp, FlagMode, Outcome, Refusal};
use mailbox::read;
use mailbox::recovery::RECOVERY_KEEP_MS;
use vocab::{Flags, PlacementId, SystemFlag, Timestamp};

/// One message flagged (and marked deleted) on one side, expunged on the other, merged.
fn lost_from(name: &str) -> (Bed, PlacementId) {
    let mut base = Bed::new();
    base.append(&["kept", "lost"]);
    if name != "INBOX" {
        base.create(name);
        let (from, to) = (base.mailbox("INBOX").id, base.mailbox(name).id);
        let placements = vec![base.ids("INBOX")[1]];
        base.run(AccountOp::Move { from, to, placements });
    }
    let (mailbox, id) = (base.mailbox(name).id, *base.ids(name).last().expect("a message"));
    let mut pair = Pair::from(&base);
    let flags = Flags::of(&[SystemFlag::Flagged, SystemFlag::Deleted]);
    let (mode, placements) = (FlagMode::Add, vec![id]);
    pair.g.run(AccountOp::Store { mailbox, placements, mode, flags, unchanged_since: None });
    pair.a.run(AccountOp::Expunge { mailbox, placements: vec![id], only_deleted: false });
    let mut merged = pair.merged();
    // Command ids of both sides lie behind.
    merged.counter = merged.counter.max(pair.a.counter).max(pair.g.counter) + 1000;
    assert_eq!(recovery_ids(&merged), [id]);
    (merged, id)
}

fn recovery_ids(bed: &Bed) -> Vec<PlacementId> {
    read::recovery(&bed.rows).expect("sound rows").iter().map(|item| item.placement.id).collect()
}

/// (placement, present) of the last batch's references.
fn references(bed: &Bed) -> Vec<(PlacementId, bool)> {
    bed.last.as_ref().expect("a batch").refs.iter().map(|item| (item.placement, item.present)).collect()
}

#[test]
fn ha_17_a_lost_message_comes_back_once_as_a_new_one() {
    let (mut bed, id) = lost_from("INBOX");
    let lost = read::recoverable(&bed.rows, id).expect("sound rows").expect("is there");
    let (before, command) = (bed.mailbox("INBOX"), command_id(5000));
    assert_eq!(bed.run_as(command, AccountOp::Restore { ids: vec![id, id] }), Outcome::Done);
    assert!(recovery_ids(&bed).is_empty());
    let placements = bed.placements("INBOX");
    let back = placements.last().expect("placed");
    assert_eq!((placements.len(), back.uid), (2, before.uid_next));
    assert_ne!(back.id, id);
    assert_eq!((back.email, back.thread), (lost.placement.email, lost.placement.thread));
    assert_eq!((back.blob, back.internal_date), (lost.placement.blob, lost.placement.internal_date));
    assert_eq!(back.flags, Flags::of(&[SystemFlag::Flagged]));
    assert!(read::facts(&bed.rows, back.email).expect("sound rows").is_some());
    let references = references(&bed);
    assert!(references.contains(&(id, false)) && references.contains(&(back.id, true)), "{references:?}");
    // A retry under the same id finds the outcome, another command finds nothing.
    assert_eq!(bed.run_as(command, AccountOp::Restore { ids: vec![id] }), Outcome::Done);
    assert_eq!(bed.ids("INBOX").len(), 2);
    let again = bed.run_as(command_id(5001), AccountOp::Restore { ids: vec![id] });
    assert_eq!(again, Outcome::Refused(Refusal::UnknownPlacement));
}

#[test]
fn a_restored_message_goes_for_good_with_its_facts() {
    let (mut bed, id) = lost_from("INBOX");
    bed.run(AccountOp::Restore { ids: vec![id] });
    let back = bed.placements("INBOX").pop().expect("placed");
    let mailbox = bed.mailbox("INBOX").id;
    bed.run(AccountOp::Expunge { mailbox, placements: vec![back.id], only_deleted: false });
    assert!(read::facts(&bed.rows, back.email).expect("sound rows").is_none());
    assert_eq!(references(&bed), [(back.id, false)]);
}

#[test]
fn it_comes_back_into_its_own_mailbox_or_into_inbox() {
    let (mut bed, id) = lost_from("box");
    bed.run(AccountOp::Restore { ids: vec![id] });
    assert_eq!((bed.ids("INBOX").len(), bed.ids("box").len()), (1, 1));
    let (mut bed, id) = lost_from("box");
    let mailbox = bed.mailbox("box").id;
    bed.run(AccountOp::DeleteMailbox { mailbox });
    bed.run(AccountOp::Restore { ids: vec![id] });
    assert_eq!(bed.ids("INBOX").len(), 2);
}

#[test]
fn one_unknown_id_refuses_all_and_changes_nothing() {
    let (mut bed, id) = lost_from("INBOX");
    let ids = vec![id, PlacementId { command: command_id(9), index: 9 }];
    assert_eq!(bed.run(AccountOp::Restore { ids }), Outcome::Refused(Refusal::UnknownPlacement));
    assert_eq!((recovery_ids(&bed), bed.ids("INBOX").len()), (vec![id], 1));
    assert!(bed.last.is_none());
}

#[test]
fn what_is_older_is_forgotten_with_its_reference() {
    let (mut bed, id) = lost_from("INBOX");
    let merged = bed.stamp.at;
    bed.run(AccountOp::ForgetRecovered { older_than: merged });
    assert!(bed.last.is_none(), "nothing was older, yet something was written");
    bed.run(AccountOp::ForgetRecovered { older_than: Timestamp(merged.0 + 1) });
    assert!(recovery_ids(&bed).is_empty());
    assert_eq!(references(&bed), [(id, false)]);
}

#[test]
fn after_14_days_the_next_change_of_the_account_drops_it() {
    let (mut bed, id) = lost_from("INBOX");
    bed.stamp.at = bed.stamp.at.plus_ms(RECOVERY_KEEP_MS);
    bed.append(&["in time"]);
    assert_eq!(recovery_ids(&bed), [id]);
    bed.stamp.at = bed.stamp.at.plus_ms(1);
    bed.run(AccountOp::Restore { ids: Vec::new() });
    assert!(bed.last.is_none(), "an account without change is not written to");
    bed.append(&["too late"]);
    assert!(recovery_ids(&bed).is_empty());
    assert!(references(&bed).contains(&(id, false)));
}
