//! I2: the UIDVALIDITY told for a name never decreases, whichever mailboxes have the name one after the other. The bed
//! checks it after every batch, and that the rows bound what was told for names nobody has.

mod bed;

use std::collections::BTreeMap;

use bed::pair::{Pair, picture};
use bed::{ACCOUNT, Bed, command_id, undercut};
use mailbox::former::FormerNames;
use mailbox::merge::Rules;
use mailbox::op::{AccountOp, Change, Command, MailboxRef, Outcome};
use mailbox::rows::{Mailbox, RowFormat};
use mailbox::{Applier, digest_of, read};
use vocab::limits::FORMER_NAMES_MAX;
use vocab::{RowWrite, Table, UidValidity};

fn rename(bed: &mut Bed, from: &str, to: &str) {
    let mailbox = bed.mailbox(from).id;
    let done = bed.run(AccountOp::RenameMailbox { mailbox, name: to.to_owned() });
    assert_eq!(done, Outcome::Done, "{from} to {to}");
}
fn delete(bed: &mut Bed, name: &str) {
    let mailbox = bed.mailbox(name).id;
    assert_eq!(bed.run(AccountOp::DeleteMailbox { mailbox }), Outcome::Done);
}
fn append(bed: &mut Bed, name: &str, text: &str) {
    let mailbox = MailboxRef::Id(bed.mailbox(name).id);
    bed.run(AccountOp::Append { mailbox, messages: vec![bed::message(text)] });
}
fn created(bed: &mut Bed, name: &str) -> Mailbox {
    bed.create(name);
    bed.mailbox(name)
}
fn former(bed: &Bed) -> FormerNames {
    FormerNames::read(&bed.rows).expect("sound")
}
fn names(bed: &Bed) -> Vec<String> {
    former(bed).names.into_keys().collect()
}

#[test]
fn a_mailbox_renamed_to_a_name_told_with_more_is_numbered_anew_and_keeps_the_rest() {
    let mut bed = Bed::new();
    let old = created(&mut bed, "old");
    append(&mut bed, "old", "one");
    append(&mut bed, "old", "two");
    let new = created(&mut bed, "new");
    delete(&mut bed, "new");
    assert_eq!(former(&bed).names, BTreeMap::from([("new".to_owned(), new.uid_validity)]));
    let modseq = bed.mailbox("old").modseq;
    rename(&mut bed, "old", "new");
    let now = bed.mailbox("new");
    assert!(now.uid_validity > new.uid_validity && now.uid_validity.0 == bed.rows.head.uidvalidity);
    assert_eq!((now.id, bed.uids("new"), now.uid_next.0), (old.id, vec![1, 2], 3));
    assert!(now.modseq > modseq);
    // Who has it selected hears of it.
    assert_eq!(bed.changes, [Change::Mailbox(old.id), Change::Hierarchy]);
    assert_eq!(names(&bed), ["old"]);
}

#[test]
fn a_rename_that_needs_nothing_keeps_the_uid_validity_and_so_does_the_way_back() {
    let mut bed = Bed::new();
    let old = created(&mut bed, "old");
    rename(&mut bed, "old", "new");
    assert_eq!(bed.mailbox("new").uid_validity, old.uid_validity);
    assert_eq!(bed.changes, [Change::Hierarchy]);
    rename(&mut bed, "new", "old");
    assert_eq!(bed.mailbox("old").uid_validity, old.uid_validity);
    assert_eq!(names(&bed), ["new"]);
    // A newer mailbox comes to a name that an older one had.
    created(&mut bed, "newer");
    delete(&mut bed, "old");
    let newer = bed.mailbox("newer").uid_validity;
    rename(&mut bed, "newer", "old");
    assert_eq!(bed.mailbox("old").uid_validity, newer);
}

#[test]
fn children_that_move_leave_their_names_and_come_to_others() {
    let mut bed = Bed::new();
    for name in ["a/x", "b/x"] {
        created(&mut bed, name);
    }
    let (ax, bx) = (bed.mailbox("a/x"), bed.mailbox("b/x"));
    rename(&mut bed, "b", "c");
    assert_eq!((bed.mailbox("c/x").uid_validity, names(&bed)), (bx.uid_validity, vec!["b".into(), "b/x".into()]));
    rename(&mut bed, "a", "b");
    assert!(bed.mailbox("b/x").uid_validity > bx.uid_validity && bed.mailbox("b/x").id == ax.id);
    // So does a superior name that is made along the way, and the new mailbox of a renamed INBOX.
    rename(&mut bed, "c", "d");
    created(&mut bed, "c/y");
    rename(&mut bed, "INBOX", "a");
    assert_eq!(names(&bed), ["a/x", "c/x"]);
}

#[test]
fn a_refused_rename_leaves_no_trace() {
    let mut bed = Bed::new();
    created(&mut bed, "a/x");
    created(&mut bed, "b");
    delete(&mut bed, "b");
    let rows = bed.rows.clone();
    let mailbox = bed.mailbox("a").id;
    bed.run(AccountOp::RenameMailbox { mailbox, name: "a/b".to_owned() });
    bed.run(AccountOp::RenameMailbox { mailbox, name: "Sent".to_owned() });
    assert_eq!(bed.rows, rows);
}

#[test]
fn control_without_the_rule_a_name_goes_back() {
    let mut bed = Bed::new();
    let old = created(&mut bed, "old").id;
    created(&mut bed, "new");
    delete(&mut bed, "new");
    let mut applier = Applier::new(&bed.rows, ACCOUNT, bed.stamp).without_growing_names();
    let op = AccountOp::RenameMailbox { mailbox: old, name: "new".to_owned() };
    applier.run(&Command { id: command_id(900), settled: 0, op }).expect("sound");
    let batch = applier.finish(vocab::BatchId::default()).expect("sound").expect("renamed");
    let mut rows = bed.rows.clone();
    rows.write(&batch.rows);
    assert!(undercut(&rows, &bed.told).is_err());
}

/// As programs before the table wrote it.
fn of_an_older_format() -> Bed {
    let mut bed = Bed::empty();
    bed.stamp.rows = RowFormat::RENAMES;
    bed.run(AccountOp::Init);
    bed.create("old");
    bed.create("new");
    delete(&mut bed, "new");
    bed
}

#[test]
fn in_an_older_row_format_nothing_is_kept_and_every_rename_numbers_anew() {
    let mut bed = of_an_older_format();
    let old = bed.mailbox("old").uid_validity;
    rename(&mut bed, "old", "new");
    assert!(bed.mailbox("new").uid_validity > old);
    let unread =
        |((table, _), value): (&(Table, Vec<u8>), &bytes::Bytes)| *table == Table::FORMER_NAMES || value[0] > 2;
    assert!(
        !bed.rows.rows.iter().any(|(key, value)| key.0 != Table::CHANGES && !value.is_empty() && unread((key, value)))
    );
}

#[test]
fn an_account_of_an_older_format_has_a_floor_from_the_first_name_that_is_left() {
    let mut bed = of_an_older_format();
    bed.stamp.rows = RowFormat::HIGHEST;
    assert_eq!(former(&bed), FormerNames::default());
    let clock = UidValidity(bed.rows.head.uidvalidity);
    let old = bed.mailbox("old").uid_validity;
    rename(&mut bed, "old", "new");
    assert_eq!(former(&bed), FormerNames { floor: Some(clock), names: BTreeMap::new() });
    let now = bed.mailbox("new").uid_validity;
    assert!(now > old);
    // Now it is above the floor.
    rename(&mut bed, "new", "newer");
    assert_eq!((bed.mailbox("newer").uid_validity, names(&bed)), (now, vec!["new".to_owned()]));
}

#[test]
fn raised_uid_validities_are_a_floor_for_every_name_nobody_has() {
    let mut bed = Bed::new();
    created(&mut bed, "gone");
    delete(&mut bed, "gone");
    let floor = UidValidity(bed.rows.head.uidvalidity + 500);
    bed.run(AccountOp::RaiseUidValidity { floor });
    assert_eq!(former(&bed), FormerNames { floor: Some(floor), names: BTreeMap::new() });
}

#[test]
fn an_account_that_was_removed_begins_above_all_it_told() {
    let mut bed = Bed::new();
    created(&mut bed, "name");
    bed.run(AccountOp::Purge);
    bed.run(AccountOp::Init);
    created(&mut bed, "other");
    rename(&mut bed, "other", "name");
}

/// A row as the golden bytes have it.
fn former_row(name: &str, value: u32) -> RowWrite {
    let varint = (0..5).map(|n| (value >> (7 * n)) as u8 & 0x7f | if n < 4 { 0x80 } else { 0 });
    let value = [3, 8].into_iter().chain(varint).collect::<Vec<u8>>();
    RowWrite { table: Table::FORMER_NAMES, key: name.to_owned().into(), value: Some(value.into()) }
}

#[test]
fn beyond_the_limit_the_lowest_go_and_the_floor_keeps_their_greatest() {
    let mut bed = Bed::new();
    let low = created(&mut bed, "low").uid_validity;
    let value = |number: usize| low.0 + 1 + number as u32;
    let rows: Vec<_> = (0..FORMER_NAMES_MAX).map(|n| former_row(&format!("n{n:05}"), value(n))).collect();
    bed.rows.write(&rows);
    bed.rows.head.uidvalidity = value(FORMER_NAMES_MAX);
    bed.rows.head.digest = digest_of(&bed.rows).expect("sound");
    for n in 0..10 {
        bed.told.insert(format!("n{n:05}"), UidValidity(value(n)));
    }
    assert_eq!(former(&bed).names.len(), FORMER_NAMES_MAX);
    for name in ["y", "z"] {
        created(&mut bed, name);
        delete(&mut bed, name);
    }
    assert_eq!((former(&bed).names.len(), former(&bed).floor), (FORMER_NAMES_MAX, Some(UidValidity(value(1)))));
    // Nobody ever had this name, but who can tell; and this one is remembered.
    rename(&mut bed, "low", "never");
    let never = bed.mailbox("never").uid_validity;
    assert!(never > low);
    rename(&mut bed, "never", "n00002");
    assert_eq!(bed.mailbox("n00002").uid_validity, never);
}

fn symmetric(pair: &Pair) -> Bed {
    let merged = pair.merged();
    assert_eq!(picture(&merged), picture(&pair.swapped()));
    merged
}

#[test]
fn merge_of_a_name_that_one_side_made_and_deleted_is_above_what_it_told() {
    for low_at_guest in [false, true] {
        let mut pair = Pair::from(&Bed::new());
        let (low, high) = if low_at_guest { (&mut pair.g, &mut pair.a) } else { (&mut pair.a, &mut pair.g) };
        created(low, "name");
        append(low, "name", "mail");
        let uids = low.uids("name");
        // Above the other side's, whichever window that is in.
        let mut told = created(high, "name");
        while told.uid_validity <= low.mailbox("name").uid_validity {
            delete(high, "name");
            told = created(high, "name");
        }
        delete(high, "name");
        let merged = symmetric(&pair);
        assert!(merged.mailbox("name").uid_validity > told.uid_validity);
        assert_eq!(merged.uids("name"), uids);
        assert_eq!(names(&merged), Vec::<String>::new());
    }
}

#[test]
fn merge_keeps_what_either_side_told_for_names_that_nobody_has_now() {
    let mut base = Bed::new();
    base.create("kept");
    base.create("left");
    let mut pair = Pair::from(&base);
    let here = created(&mut pair.a, "both").uid_validity;
    delete(&mut pair.a, "both");
    let there = created(&mut pair.g, "both").uid_validity;
    delete(&mut pair.g, "both");
    rename(&mut pair.a, "left", "there");
    let mut merged = symmetric(&pair);
    let left = base.mailbox("left").uid_validity;
    let wanted = BTreeMap::from([("both".to_owned(), here.max(there)), ("left".to_owned(), left)]);
    assert_eq!(former(&merged).names, wanted);
    rename(&mut merged, "kept", "both");
    assert!(merged.mailbox("both").uid_validity > here.max(there));
}

#[test]
fn merge_of_sides_that_dropped_different_rows_forgets_nothing() {
    let mut base = Bed::new();
    base.create("old");
    let mut pair = Pair::from(&base);
    created(&mut pair.a, "only here");
    delete(&mut pair.a, "only here");
    // The guest's table is full of others, and whatever is lower has no row there.
    created(&mut pair.g, "only there");
    delete(&mut pair.g, "only there");
    pair.g.run(AccountOp::RaiseUidValidity { floor: UidValidity(base.rows.head.uidvalidity + 5_000) });
    let merged = symmetric(&pair);
    assert_eq!(former(&merged), former(&pair.g));
}

#[test]
fn merge_with_a_side_of_an_older_format_takes_its_clock_for_all_it_may_have_told() {
    let mut pair = Pair::from(&of_an_older_format());
    (pair.a.stamp.rows, pair.g.stamp.rows) = (RowFormat::RENAMES, RowFormat::RENAMES);
    created(&mut pair.a, "name");
    created(&mut pair.g, "name");
    delete(&mut pair.g, "name");
    // Neither knows: both stay unknown.
    assert_eq!(former(&symmetric(&pair)), FormerNames::default());
    pair.a.stamp.rows = RowFormat::HIGHEST;
    created(&mut pair.a, "x");
    delete(&mut pair.a, "x");
    let clocks = [&pair.a, &pair.g].map(|bed| bed.rows.head.uidvalidity);
    let merged = symmetric(&pair);
    assert_eq!(former(&merged).floor, former(&pair.a).floor.max(Some(UidValidity(clocks[1]))));
    // In a format without the table nothing of it is left.
    let stamp = mailbox::op::Stamp { rows: RowFormat::RENAMES, ..pair.stamp() };
    let (older, _) = bed::pair::merge_rows(&pair.a.rows, &pair.g.rows, [true, true], None, (Rules::default(), stamp));
    assert_eq!(former(&older), FormerNames::default());
    let mailboxes = read::mailboxes(&older.rows).expect("sound");
    assert_eq!((undercut(&older.rows, &pair.told()), mailboxes.is_empty()), (Ok(()), false));
}

#[test]
fn merge_of_an_account_of_an_older_format_leaves_what_one_side_made_since_the_split_alone() {
    let mut pair = Pair::from(&of_an_older_format());
    let (here, there) = (created(&mut pair.a, "here"), created(&mut pair.g, "there"));
    let merged = symmetric(&pair);
    assert_eq!(
        (merged.mailbox("here").uid_validity, merged.mailbox("there").uid_validity),
        (here.uid_validity, there.uid_validity)
    );
}

#[test]
fn control_merging_without_the_rule_leaves_the_lower_value() {
    let mut pair = Pair::from(&Bed::new());
    created(&mut pair.a, "name");
    for _ in 0..3 {
        created(&mut pair.g, "name");
        delete(&mut pair.g, "name");
    }
    let rules = Rules { names_grow: false, ..Rules::default() };
    let (merged, _) = pair.merged_by(rules, Some(&pair.base));
    assert!(undercut(&merged.rows, &pair.told()).is_err());
}
