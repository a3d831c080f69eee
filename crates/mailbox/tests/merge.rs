//! The rules of the merge, one history each (DESIGN 7; X15-X24).

mod bed;

use bed::pair::{Pair, merge_rows, picture};
use bed::{ACCOUNT, Bed, command_id, message};
use bytes::Bytes;
use mailbox::merge::{Numbering, Rules};
use mailbox::op::{AccountOp, FlagMode, Gap, MailboxRef, Marks, Role, Stamp};
use mailbox::read;
use mailbox::rows::RowFormat;
use vocab::{EpochId, Flags, PlacementId, SystemFlag, Table, Timestamp, Uid};

fn store(bed: &mut Bed, name: &str, id: PlacementId, mode: FlagMode, flag: SystemFlag) {
    let mailbox = bed.mailbox(name).id;
    let flags = Flags::of(&[flag]);
    bed.run(AccountOp::Store { mailbox, placements: vec![id], mode, flags, unchanged_since: None });
}
fn expunge(bed: &mut Bed, name: &str, id: PlacementId) {
    let mailbox = bed.mailbox(name).id;
    bed.run(AccountOp::Expunge { mailbox, placements: vec![id], only_deleted: false });
}
fn append_to(bed: &mut Bed, name: &str, text: &str) -> PlacementId {
    let mailbox = MailboxRef::Id(bed.mailbox(name).id);
    bed.run(AccountOp::Append { mailbox, messages: vec![message(text)] });
    *bed.ids(name).last().expect("placed")
}
fn delete(bed: &mut Bed, name: &str) {
    let mailbox = bed.mailbox(name).id;
    bed.run(AccountOp::DeleteMailbox { mailbox });
}
fn rename(bed: &mut Bed, from: &str, to: &str) {
    let mailbox = bed.mailbox(from).id;
    bed.run(AccountOp::RenameMailbox { mailbox, name: to.to_owned() });
}
fn set(bed: &mut Bed, name: &str, body: Option<&'static str>) {
    let body = body.map(|body| Bytes::from_static(body.as_bytes()));
    bed.run(AccountOp::SetDocument { kind: "sieve".to_owned(), name: name.to_owned(), body });
}
fn symmetric(pair: &Pair) -> Bed {
    let merged = pair.merged();
    assert_eq!(picture(&merged), picture(&pair.swapped()));
    merged
}
fn three() -> Bed {
    let mut bed = Bed::new();
    bed.append(&["one", "two", "three"]);
    bed
}

#[test]
fn m5_mail_of_both_sides_stays_and_d2_expunged_stays_expunged() {
    let mut pair = Pair::from(&three());
    let ids = pair.a.ids("INBOX");
    expunge(&mut pair.a, "INBOX", ids[0]);
    expunge(&mut pair.g, "INBOX", ids[1]);
    let x = append_to(&mut pair.a, "INBOX", "at a");
    let y = append_to(&mut pair.g, "INBOX", "at g");
    let merged = symmetric(&pair);
    let mut kept = merged.ids("INBOX");
    kept.sort();
    assert_eq!(kept, [ids[2], x, y]);
}

#[test]
fn x18_born_and_expunged_since_the_base_on_one_side_is_gone_on_the_other() {
    let mut pair = Pair::from(&three());
    let append = AccountOp::Append { mailbox: MailboxRef::Role(Role::Inbox), messages: vec![message("both")] };
    pair.a.run_as(command_id(500), append.clone());
    pair.g.run_as(command_id(500), append);
    let born = *pair.g.ids("INBOX").last().expect("placed");
    expunge(&mut pair.g, "INBOX", born);
    assert!(!symmetric(&pair).ids("INBOX").contains(&born));
}

#[test]
fn x20_one_placement_in_two_mailboxes_stays_in_the_lower() {
    let mut base = three();
    base.create("later");
    let mut pair = Pair::from(&base);
    for (bed, to) in [(&mut pair.a, "later"), (&mut pair.g, "Archive")] {
        let mailbox = MailboxRef::Id(bed.mailbox(to).id);
        bed.run_as(command_id(500), AccountOp::Append { mailbox, messages: vec![message("both")] });
    }
    let merged = symmetric(&pair);
    assert_eq!((merged.ids("later").len(), merged.ids("Archive").len()), (0, 1));
    // Without the rule the rows do not agree with each other, which the bed checks.
    let rules = Rules { one_place: false, ..Rules::default() };
    let without = std::panic::AssertUnwindSafe(|| pair.merged_by(rules, Some(&pair.base)));
    assert!(std::panic::catch_unwind(without).is_err());
}

#[test]
fn m6_flags_merge_per_bit() {
    let mut base = three();
    let id = base.ids("INBOX")[0];
    store(&mut base, "INBOX", id, FlagMode::Add, SystemFlag::Flagged);
    let mut pair = Pair::from(&base);
    store(&mut pair.a, "INBOX", id, FlagMode::Add, SystemFlag::Seen);
    store(&mut pair.g, "INBOX", id, FlagMode::Remove, SystemFlag::Flagged);
    store(&mut pair.g, "INBOX", id, FlagMode::Add, SystemFlag::Deleted);
    let merged = symmetric(&pair);
    let flags = &merged.placements("INBOX")[0].flags;
    assert_eq!(*flags, Flags::of(&[SystemFlag::Seen, SystemFlag::Deleted]));
}

#[test]
fn m6_without_base_deleted_only_if_on_both() {
    let mut pair = Pair::from(&three());
    let ids = pair.a.ids("INBOX");
    store(&mut pair.a, "INBOX", ids[0], FlagMode::Add, SystemFlag::Deleted);
    store(&mut pair.g, "INBOX", ids[0], FlagMode::Add, SystemFlag::Seen);
    let (merged, made) = pair.merged_by(Rules::default(), None);
    assert_eq!(merged.placements("INBOX")[0].flags, Flags::of(&[SystemFlag::Seen]));
    assert!(merged.mailbox("INBOX").uid_validity > pair.a.mailbox("INBOX").uid_validity);
    assert_eq!((merged.uids("INBOX"), made.report.raised.is_empty()), (vec![1, 2, 3], false));
}

#[test]
fn m12_without_base_a_mailbox_the_other_side_may_have_had_gets_a_new_uid_validity() {
    let mut bed = three();
    bed.create("Old");
    let mut pair = Pair::from(&bed);
    // Its clients were told a UIDNEXT that the other side does not know; then it went.
    append_to(&mut pair.a, "Old", "more");
    let told = pair.a.mailbox("Old");
    delete(&mut pair.a, "Old");
    append_to(&mut pair.g, "Old", "kept");
    pair.g.create("New");
    let new = pair.g.mailbox("New");
    let (merged, made) = pair.merged_by(Rules::default(), None);
    let old = merged.mailbox("Old");
    assert!(old.uid_validity > told.uid_validity, "its numbers would go back to {:?}", old.uid_next);
    // What the other side's clock never came to was never there.
    assert!(new.uid_validity.0 > pair.a.rows.head.uidvalidity);
    assert_eq!(merged.mailbox("New").uid_validity, new.uid_validity);
    assert!(made.report.raised.iter().any(|why| why.starts_with("Old")));
}

#[test]
fn w_numbers_given_on_both_sides_are_retired() {
    let mut pair = Pair::from(&three());
    append_to(&mut pair.a, "INBOX", "at a");
    append_to(&mut pair.g, "INBOX", "at g");
    let merged = symmetric(&pair);
    let max = pair.a.mailbox("INBOX").uid_next.max(pair.g.mailbox("INBOX").uid_next).0;
    assert_eq!(merged.uids("INBOX"), [1, 2, 3, max, max + 1]);
    let inbox = merged.mailbox("INBOX");
    assert_eq!((inbox.uid_next.0, inbox.modseq.0), (max + 2, merged.rows.head.modseq));
    assert_eq!(inbox.vanish_floor, inbox.modseq);
    assert_eq!(merged.rows.head.modseq, pair.a.rows.head.modseq.max(pair.g.rows.head.modseq) + 1);
}

#[test]
fn w_only_the_side_that_served_keeps_its_numbers() {
    let mut pair = Pair::from(&three());
    let x = append_to(&mut pair.a, "INBOX", "at a");
    let y = append_to(&mut pair.g, "INBOX", "at g");
    for (served, keeps) in [([true, false], x), ([false, true], y), ([false, false], x)] {
        pair.served = served;
        let before = if keeps == x { &pair.a } else { &pair.g };
        let uid = before.placements("INBOX").into_iter().find(|p| p.id == keeps).expect("there").uid;
        let merged = pair.merged();
        let after = merged.placements("INBOX").into_iter().find(|p| p.id == keeps).expect("there").uid;
        assert_eq!(after, uid, "{served:?}");
    }
}

#[test]
fn x24_a_mailbox_of_one_side_keeps_its_numbers() {
    let mut pair = Pair::from(&three());
    pair.served = [false, false];
    pair.g.create("fresh");
    append_to(&mut pair.g, "fresh", "x");
    append_to(&mut pair.a, "INBOX", "y");
    let (before, after) = (pair.g.mailbox("fresh"), pair.merged());
    let now = after.mailbox("fresh");
    assert_eq!((now.id, now.uid_validity, now.uid_next), (before.id, before.uid_validity, before.uid_next));
    assert_eq!(after.uids("fresh"), pair.g.uids("fresh"));
}

#[test]
fn x22_m3_a_deleted_mailbox_survives_with_the_new_mail_alone() {
    let mut base = three();
    base.create("p");
    base.create("p/box");
    append_to(&mut base, "p/box", "old");
    let mut pair = Pair::from(&base);
    delete(&mut pair.a, "p/box");
    delete(&mut pair.a, "p");
    let new = append_to(&mut pair.g, "p/box", "new");
    let clock = pair.a.rows.head.uidvalidity.max(pair.g.rows.head.uidvalidity);
    let merged = symmetric(&pair);
    let mailbox = merged.mailbox("p/box");
    assert_eq!((merged.ids("p/box"), merged.uids("p/box")), (vec![new], vec![1]));
    assert_eq!((mailbox.id, mailbox.uid_validity.0), (base.mailbox("p/box").id, clock + 1));
    assert!(merged.find("p").is_some());
}

#[test]
fn m3_a_deleted_mailbox_without_new_mail_stays_deleted() {
    let mut base = three();
    base.create("box");
    append_to(&mut base, "box", "old");
    let mut pair = Pair::from(&base);
    delete(&mut pair.a, "box");
    store(&mut pair.g, "box", base.ids("box")[0], FlagMode::Add, SystemFlag::Flagged);
    let merged = symmetric(&pair);
    assert!(merged.find("box").is_none());
    let kept = read::recovery(&merged.rows).expect("sound");
    assert_eq!((kept.len(), kept[0].placement.id, kept[0].mailbox.as_str()), (1, base.ids("box")[0], "box"));
    let refs = &merged.last.as_ref().expect("a batch").refs;
    assert!(refs.iter().any(|item| item.placement == kept[0].placement.id && item.present));
}

#[test]
fn m3_new_mail_of_a_deleted_mailbox_is_poured_into_its_successor() {
    let mut base = three();
    base.create("box");
    let mut pair = Pair::from(&base);
    delete(&mut pair.a, "box");
    pair.a.create("box");
    let new = append_to(&mut pair.g, "box", "new");
    let merged = symmetric(&pair);
    assert_eq!((merged.mailbox("box").id, merged.ids("box")), (pair.a.mailbox("box").id, vec![new]));
}

#[test]
fn m4_one_name_made_on_both_sides_is_one_mailbox() {
    let mut pair = Pair::from(&three());
    pair.a.create("new");
    pair.g.create("new");
    let x = append_to(&mut pair.a, "new", "x");
    let y = append_to(&mut pair.g, "new", "y");
    let merged = symmetric(&pair);
    let (now, keeper) = (merged.mailbox("new"), pair.g.mailbox("new"));
    assert!(keeper.uid_validity > pair.a.mailbox("new").uid_validity);
    assert_eq!((now.id, now.uid_validity), (keeper.id, keeper.uid_validity));
    assert_eq!(merged.ids("new"), [y, x]);
}

#[test]
fn m2_renames_three_way_and_a_clash_gets_a_suffix() {
    let mut base = three();
    base.create("one");
    base.create("two");
    let mut pair = Pair::from(&base);
    rename(&mut pair.a, "one", "same");
    rename(&mut pair.g, "two", "same");
    let merged = symmetric(&pair);
    let conflict = |m: &&mailbox::rows::Mailbox| m.name.starts_with("same");
    let all = read::mailboxes(&merged.rows).expect("sound");
    assert_eq!(all.iter().filter(conflict).count(), 2);
    let mut pair = Pair::from(&base);
    rename(&mut pair.a, "one", "two/one");
    rename(&mut pair.g, "two", "one/two");
    let merged = symmetric(&pair);
    assert!(merged.find("two/one").is_some() && merged.find("one/two").is_some());
}

#[test]
fn m2_the_later_of_two_renames_wins_and_in_older_rows_the_last_change() {
    for (format, expected) in [(RowFormat::HIGHEST, "Later"), (RowFormat::LOWEST, "Busier")] {
        let mut pair = Pair::from(&three());
        (pair.a.stamp.rows, pair.g.stamp.rows) = (format, format);
        pair.a.stamp.at = Timestamp(5_000_000);
        rename(&mut pair.a, "Archive", "Later");
        pair.g.stamp.at = Timestamp(4_000_000);
        rename(&mut pair.g, "Archive", "Busier");
        // More changes on this side: its modseq is the greater one.
        for text in ["one", "two", "three"] {
            append_to(&mut pair.g, "Busier", text);
        }
        let merged = symmetric(&pair);
        let names: Vec<String> = read::mailboxes(&merged.rows).unwrap().into_iter().map(|m| m.name).collect();
        assert!(names.contains(&expected.to_owned()), "{format:?}: {names:?}");
    }
}

#[test]
fn rows_of_a_newer_format_are_merged_by_who_writes_the_older_one() {
    let mut pair = Pair::from(&three());
    rename(&mut pair.a, "Archive", "Kept");
    append_to(&mut pair.g, "INBOX", "new");
    let row = |bed: &Bed, name: &str| bed.mailbox(name).encode(RowFormat::HIGHEST)[0];
    assert_eq!(row(&pair.a, "Kept"), 2, "the rename is in a row of the newer format");
    let stamp = Stamp { rows: RowFormat::LOWEST, ..pair.stamp() };
    let (a, g) = (&pair.a.rows, &pair.g.rows);
    let (merged, _) = merge_rows(a, g, [true, true], Some(&pair.base), (Rules::default(), stamp));
    let versions = merged.rows.rows.iter().filter(|((table, _), _)| *table == Table::MAILBOXES);
    assert!(versions.clone().count() > 3 && versions.into_iter().all(|(_, value)| value[0] == 1));
    assert_eq!(merged.mailbox("Kept").renamed, Timestamp(0));
}

#[test]
fn m2_a_name_given_later_stays_without_a_base_too() {
    let mut bed = three();
    bed.create("Zoo");
    let mut pair = Pair::from(&bed);
    rename(&mut pair.a, "Zoo", "Ape");
    let (merged, _) = pair.merged_by(Rules::default(), None);
    assert!(merged.find("Ape").is_some() && merged.find("Zoo").is_none());
}

#[test]
fn m2_one_mailbox_per_role() {
    let mut base = three();
    delete(&mut base, "Junk");
    let mut pair = Pair::from(&base);
    for (bed, name) in [(&mut pair.a, "Spam"), (&mut pair.g, "Bulk")] {
        bed.run(AccountOp::CreateMailbox { name: name.to_owned(), role: Some(Role::Junk) });
    }
    let merged = symmetric(&pair);
    let roles = [merged.mailbox("Spam").role, merged.mailbox("Bulk").role];
    assert_eq!(roles.iter().flatten().count(), 1);
}

#[test]
fn m10_documents_and_subscriptions() {
    let mut base = three();
    set(&mut base, "gone", Some("1"));
    set(&mut base, "both", Some("1"));
    let mut pair = Pair::from(&base);
    set(&mut pair.a, "gone", None);
    set(&mut pair.a, "both", Some("at a"));
    set(&mut pair.g, "both", Some("at g"));
    pair.a.run(AccountOp::Subscribe { name: "Sent".to_owned(), subscribed: false });
    pair.g.run(AccountOp::Subscribe { name: "nowhere".to_owned(), subscribed: true });
    let merged = symmetric(&pair);
    assert_eq!(read::document(&merged.rows, "sieve", "gone").expect("sound"), None);
    let both = read::document(&merged.rows, "sieve", "both").expect("sound").expect("there");
    assert_eq!(both.body, "at g", "the later clock");
    let names = read::document_names(&merged.rows, "sieve").expect("sound");
    let loser = format!("both (conflict {})", &pair.a.rows.head.version.to_string()[..8]);
    assert_eq!(names, ["both".to_owned(), loser]);
    let subscribed = read::subscriptions(&merged.rows).expect("sound");
    assert!(subscribed.contains(&"nowhere".to_owned()) && !subscribed.contains(&"Sent".to_owned()));
}

#[test]
fn m5_moved_on_one_side_is_moved() {
    let mut pair = Pair::from(&three());
    let id = pair.a.ids("INBOX")[0];
    let (from, to) = (pair.a.mailbox("INBOX").id, pair.a.mailbox("Archive").id);
    pair.a.run(AccountOp::Move { from, to, placements: vec![id] });
    store(&mut pair.g, "INBOX", id, FlagMode::Add, SystemFlag::Seen);
    let merged = symmetric(&pair);
    assert!(!merged.ids("INBOX").contains(&id));
    assert_eq!(merged.placements("Archive")[0].email, id);
}

#[test]
fn nested_heal_greater_uidvalidity_stays_with_its_numbers() {
    let mut base = three();
    base.create("box");
    let mut pair = Pair::from(&base);
    delete(&mut pair.a, "box");
    append_to(&mut pair.g, "box", "new");
    let first = pair.merged();
    let guest = pair.g.rows.clone();
    let more = append_to(&mut pair.g, "box", "more");
    let with = (Rules::default(), pair.stamp());
    let (second, _) = merge_rows(&first.rows, &pair.g.rows, [true, true], Some(&guest), with);
    assert_eq!(second.mailbox("box").uid_validity, first.mailbox("box").uid_validity);
    assert_eq!((second.uids("box")[0], second.ids("box")[1]), (1, more));
}

#[test]
fn a_silent_guest_changes_nothing_and_has_no_branch() {
    let mut pair = Pair::from(&three());
    append_to(&mut pair.a, "INBOX", "x");
    pair.a.create("y");
    pair.served = [true, false];
    let merged = pair.merged();
    assert_eq!(picture(&merged), picture(&pair.a));
    let with = (Rules::default(), pair.stamp());
    let (again, _) = merge_rows(&merged.rows, &pair.g.rows, [true, false], Some(&pair.base), with);
    assert_eq!(picture(&again), picture(&merged));
    // Its version is one of the anchor's chain.
    assert!(!again.rows.head.lineage.contains(&pair.g.rows.head.version));
}

#[test]
fn a_branch_that_was_merged_changes_nothing_again() {
    let mut pair = Pair::from(&three());
    append_to(&mut pair.a, "INBOX", "x");
    append_to(&mut pair.g, "INBOX", "y");
    let merged = pair.merged();
    let with = (Rules::default(), pair.stamp());
    let (again, made) = merge_rows(&merged.rows, &pair.g.rows, [true, true], Some(&pair.base), with);
    assert_eq!((again.rows.rows, made.batch.rows.len()), (merged.rows.rows, 0));
    assert!(again.rows.head.lineage.contains(&pair.g.rows.head.version));
    assert_eq!(made.batch.account, ACCOUNT);
}

#[test]
fn h29_marks_are_inherited_until_every_branch_has_the_result() {
    for inherited in [true, false] {
        let mut pair = Pair::from(&three());
        let epoch = EpochId { number: 2, author: 2 };
        pair.g.stamp.marks = Some(Marks { from: EpochId { number: 1, author: 1 } });
        append_to(&mut pair.a, "INBOX", "here");
        append_to(&mut pair.g, "INBOX", "there");
        pair.g.rows.head.served = Some(epoch);
        let (merged, _) = pair.merged_by(Rules { marks_inherited: inherited, ..Rules::default() }, Some(&pair.base));
        assert_eq!(
            merged.rows.head.served == Some(epoch),
            inherited,
            "a heal that breaks off would forget its clients"
        );
    }
}

#[test]
fn x22_a_survivor_that_kept_its_numbers_would_give_one_twice() {
    for anew in [true, false] {
        let mut pair = Pair::from(&three());
        let before = pair.a.mailbox("Archive").uid_validity;
        delete(&mut pair.a, "Archive");
        append_to(&mut pair.g, "Archive", "new");
        let rules = Rules { survivor_anew: anew, ..Rules::default() };
        let (merged, _) = pair.merged_by(rules, Some(&pair.base));
        let clock = pair.a.rows.head.uidvalidity.max(pair.g.rows.head.uidvalidity);
        let after = merged.mailbox("Archive");
        assert_eq!(after.uid_validity.0 > clock && after.uid_next == Uid(2), anew);
        assert_eq!(after.uid_validity == before, !anew);
    }
}

#[test]
fn x23_two_sides_that_number_by_the_clock_give_one_uid_validity_twice() {
    for joint in [false, true] {
        let mut pair = Pair::from(&three());
        let at = Timestamp(2_000_000_000_000);
        for side in [&mut pair.a, &mut pair.g] {
            (side.stamp.joint, side.stamp.at) = (joint, at);
            side.create("new");
        }
        let same = pair.a.mailbox("new").uid_validity == pair.g.mailbox("new").uid_validity;
        assert_eq!(same, joint, "outside a joint epoch the clock is not looked at");
    }
}

#[test]
fn h3_what_one_side_numbered_above_the_others_uidnext_is_below_what_its_own_clients_were_told() {
    for (numbering, holds) in [(Numbering::RuleW, true), (Numbering::AboveUidNext, false)] {
        let mut pair = Pair::from(&three());
        append_to(&mut pair.a, "INBOX", "here");
        append_to(&mut pair.g, "INBOX", "there");
        // A client of both was told of one side's message, then saw the other, which lacks it: both UIDNEXTs bind.
        let told = pair.a.mailbox("INBOX").uid_next.max(pair.g.mailbox("INBOX").uid_next);
        let (merged, _) = pair.merged_by(Rules { numbering, ..Rules::default() }, Some(&pair.base));
        assert_eq!(merged.uids("INBOX").into_iter().skip(3).all(|uid| Uid(uid) >= told), holds, "{numbering:?}");
    }
}

/// The guest brings numbers of a node that is not here and may have gone on from them.
#[test]
fn x8_a_merge_while_a_third_node_is_away_numbers_in_a_window_of_its_own() {
    let mut pair = Pair::from(&three());
    append_to(&mut pair.a, "INBOX", "x");
    append_to(&mut pair.g, "INBOX", "y");
    let [a, g] = [&pair.a, &pair.g].map(|side| side.mailbox("INBOX").uid_next.0);
    let gap = Gap { k: 5, of: 24, epoch: EpochId { number: 9, author: 1 } };
    let merge = |gap: Option<Gap>| {
        let with = (Rules::default(), Stamp { gap, ..pair.stamp() });
        merge_rows(&pair.a.rows, &pair.g.rows, [true, true], Some(&pair.base), with).0
    };
    let (here, apart) = (merge(None), merge(Some(gap)));
    assert_eq!(here.uids("INBOX").last(), Some(&(a.max(g) + 1)), "both numbered alike: both are numbered anew");
    let window = |n: u64, size: u64| n / size % 24;
    let last = u64::from(*apart.uids("INBOX").last().expect("mail"));
    assert!(last > u64::from(a.max(g)));
    assert_eq!((window(last, 65_536), window(apart.rows.head.modseq, 1 << 32)), (5, 5));
}
