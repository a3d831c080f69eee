//! One test per rule of the account state machine.

mod bed;

use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicUsize, Ordering};

use bed::{ACCOUNT, Bed, SECONDS, command_id, message};
use bytes::Bytes;
use mailbox::op::{AccountOp, Change, Command, FlagMode, Gap, MailboxRef, Outcome, Refusal, Role, StoredFlags};
use mailbox::{Applier, gap_batch, read};
use vocab::{
    AccountHead, Boot, CommandId, Damaged, EpochId, Flags, MemoryRows, ModSeq, NodeId, PlacementId, Rows, SystemFlag,
    Table, Uid, UidValidity,
};

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

fn store(bed: &Bed, placements: Vec<PlacementId>, mode: FlagMode, flags: &[SystemFlag]) -> AccountOp {
    let mailbox = bed.mailbox("INBOX").id;
    AccountOp::Store { mailbox, placements, mode, flags: Flags::of(flags), unchanged_since: None }
}

fn expunge(bed: &Bed, placements: Vec<PlacementId>) -> AccountOp {
    AccountOp::Expunge { mailbox: bed.mailbox("INBOX").id, placements, only_deleted: false }
}

#[test]
fn init_makes_the_six_mailboxes_once() {
    let mut bed = Bed::new();
    let mailboxes = read::mailboxes(&bed.rows).expect("sound");
    let names: Vec<_> = mailboxes.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash"]);
    assert!(mailboxes.iter().all(|m| m.subscribed && m.role.is_some() && m.uid_next == Uid(1)));
    assert_eq!(bed.mailbox("inbox").uid_validity, UidValidity(SECONDS));
    let head = bed.rows.head.clone();
    assert_eq!(bed.run(AccountOp::Init), Outcome::Done);
    assert_eq!((&bed.last, &bed.rows.head), (&None, &head));
}

#[test]
fn an_account_without_state_refuses_everything_but_init() {
    let mut bed = Bed::empty();
    assert_eq!(bed.append(&["a"]), refused(Refusal::NoSuchAccount));
    assert!(bed.last.is_none());
}

#[test]
fn append_gives_ascending_uids_under_one_modseq() {
    let mut bed = Bed::new();
    let before = bed.rows.head.modseq;
    let inbox = bed.mailbox("INBOX");
    let (mailbox, uid_validity) = (inbox.id, inbox.uid_validity);
    assert_eq!(bed.append(&["a", "b"]), Outcome::Appended { mailbox, uid_validity, uids: vec![Uid(1), Uid(2)] });
    assert_eq!(bed.changes, [Change::Mailbox(mailbox)]);
    assert_eq!(bed.append(&["c"]), Outcome::Appended { mailbox, uid_validity, uids: vec![Uid(3)] });
    assert_eq!(bed.rows.head.modseq, before + 2);
    let placed = bed.placements("INBOX");
    assert_eq!(placed[0].modseq, placed[1].modseq);
    assert_eq!(placed[2].modseq, bed.mailbox("INBOX").modseq);
    assert_eq!(placed[0].email, placed[0].id);
    let counts = bed.mailbox("INBOX").counts;
    assert_eq!((counts.messages, counts.unseen), (3, 3));
    assert_eq!(counts.bytes, placed.iter().map(|p| p.size()).sum::<u64>());
    assert!(read::facts(&bed.rows, placed[0].email).expect("sound").is_some());
    let batch = bed.last.clone().expect("changed");
    assert_eq!(batch.refs.len(), 1);
    assert!(batch.refs[0].present);
}

#[test]
fn a_missing_role_falls_back_to_inbox() {
    let mut bed = Bed::new();
    let junk = bed.mailbox("Junk").id;
    assert_eq!(bed.run(AccountOp::DeleteMailbox { mailbox: junk }), Outcome::Done);
    let op = AccountOp::Append { mailbox: MailboxRef::Role(Role::Junk), messages: vec![message("x")] };
    assert!(matches!(bed.run(op), Outcome::Appended { mailbox, .. } if mailbox == bed.mailbox("INBOX").id));
}

/// Counts what is read.
struct Counting<'a> {
    rows: &'a MemoryRows,
    reads: AtomicUsize,
}

impl Rows for Counting<'_> {
    fn head(&self) -> AccountHead {
        self.rows.head()
    }
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Damaged> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.rows.get(table, key)
    }
    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Damaged> {
        self.rows.scan(table, range, reverse, &mut |key, value| {
            self.reads.fetch_add(1, Ordering::Relaxed);
            visit(key, value)
        })
    }
}

#[test]
fn the_cost_of_append_does_not_grow_with_the_mailbox() {
    let cost = |bed: &Bed| {
        let rows = Counting { rows: &bed.rows, reads: AtomicUsize::new(0) };
        let mut applier = Applier::new(&rows, ACCOUNT, bed.stamp);
        let op = AccountOp::Append { mailbox: MailboxRef::Role(Role::Inbox), messages: vec![message("x")] };
        let command = Command { id: command_id(bed.counter + 1), settled: 0, op };
        assert!(matches!(applier.run(&command), Ok((Outcome::Appended { .. }, _))));
        rows.reads.load(Ordering::Relaxed)
    };
    let mut bed = Bed::new();
    let small = cost(&bed);
    let texts: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    bed.append(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(cost(&bed), small);
}

#[test]
fn a_repeated_command_returns_its_outcome_and_changes_nothing() {
    let mut bed = Bed::new();
    let first = bed.append(&["a"]);
    let head = bed.rows.head.clone();
    let id = command_id(bed.counter);
    let op = AccountOp::Append { mailbox: MailboxRef::Role(Role::Inbox), messages: vec![message("a")] };
    assert_eq!(bed.run_as(id, op), first);
    assert_eq!((&bed.last, &bed.rows.head), (&None, &head));
}

#[test]
fn a_repeated_fan_out_delivery_is_found_by_its_placement() {
    let mut bed = Bed::new();
    let id = command_id(900).for_recipient(3);
    let op = AccountOp::Append { mailbox: MailboxRef::Role(Role::Inbox), messages: vec![message("a")] };
    let first = bed.run_as(id, op.clone());
    assert!(bed.rows.rows.keys().all(|(table, key)| *table != Table::OUTCOMES || key[..] != id.to_bytes()));
    assert_eq!(bed.run_as(id, op.clone()), first);
    assert!(bed.last.is_none());
    // Also when the message is gone meanwhile: it must not rise again.
    let gone = expunge(&bed, bed.ids("INBOX"));
    bed.run(gone);
    assert_eq!(bed.run_as(id, op), first);
    assert_eq!(bed.uids("INBOX"), [0; 0]);
}

#[test]
fn settled_outcomes_are_dropped_and_settled_commands_refused() {
    let mut bed = Bed::new();
    bed.append(&["a"]);
    let old = command_id(bed.counter);
    bed.settled = bed.counter;
    bed.append(&["b"]);
    assert_eq!(mailbox::outcomes::stored(&bed.rows, old).expect("sound"), None);
    let again = AccountOp::Append { mailbox: MailboxRef::Role(Role::Inbox), messages: vec![message("a")] };
    assert_eq!(bed.run_as(old, again.clone()), refused(Refusal::Settled));
    // A newer boot settles everything of the older one.
    let newer = CommandId { origin: NodeId(1), boot: Boot(2), counter: 1, recipient: 0 };
    let op = AccountOp::Append { mailbox: MailboxRef::Role(Role::Inbox), messages: vec![message("c")] };
    assert!(matches!(bed.command(&Command { id: newer, settled: 0, op }), Outcome::Appended { .. }));
    assert_eq!(bed.run_as(command_id(5000), again.clone()), refused(Refusal::Settled));
    // Fan-out of an old boot is not a ghost, and other origins are not concerned.
    assert!(matches!(bed.run_as(command_id(2).for_recipient(1), again.clone()), Outcome::Appended { .. }));
    let other = CommandId { origin: NodeId(2), boot: Boot(1), counter: 1, recipient: 0 };
    assert!(matches!(bed.run_as(other, again), Outcome::Appended { .. }));
}

#[test]
fn store_replaces_adds_and_removes() {
    let mut bed = Bed::new();
    bed.append(&["a", "b"]);
    let ids = bed.ids("INBOX");
    bed.run(store(&bed, ids.clone(), FlagMode::Add, &[SystemFlag::Seen, SystemFlag::Deleted]));
    let counts = bed.mailbox("INBOX").counts;
    assert_eq!((counts.unseen, counts.deleted), (0, 2));
    bed.run(store(&bed, ids[..1].to_vec(), FlagMode::Remove, &[SystemFlag::Deleted]));
    let outcome = bed.run(store(&bed, ids.clone(), FlagMode::Replace, &[SystemFlag::Seen]));
    let Outcome::Stored { stored, .. } = outcome else { panic!("{outcome:?}") };
    // The first had it already: told, but not changed.
    let modseq = ModSeq(bed.rows.head.modseq);
    let flags = Flags::of(&[SystemFlag::Seen]);
    assert_eq!(stored[1], StoredFlags { uid: Uid(2), flags: flags.clone(), modseq });
    assert_eq!(stored[0], StoredFlags { uid: Uid(1), flags, modseq: ModSeq(modseq.0 - 1) });
}

#[test]
fn unchanged_since_leaves_changed_messages_alone() {
    let mut bed = Bed::new();
    bed.append(&["a", "b"]);
    let since = bed.mailbox("INBOX").modseq;
    let ids = bed.ids("INBOX");
    bed.run(store(&bed, ids[..1].to_vec(), FlagMode::Add, &[SystemFlag::Seen]));
    let op = AccountOp::Store {
        mailbox: bed.mailbox("INBOX").id,
        placements: ids,
        mode: FlagMode::Add,
        flags: Flags::of(&[SystemFlag::Flagged]),
        unchanged_since: Some(since),
    };
    let outcome = bed.run(op);
    let Outcome::Stored { stored, modified } = outcome else { panic!("{outcome:?}") };
    assert_eq!(modified, [Uid(1)]);
    assert_eq!(stored.len(), 1);
    assert!(!bed.placements("INBOX")[0].flags.has(SystemFlag::Flagged));
}

#[test]
fn expunge_takes_only_deleted_ones_when_asked() {
    let mut bed = Bed::new();
    bed.append(&["a", "b", "c"]);
    let ids = bed.ids("INBOX");
    bed.run(store(&bed, vec![ids[1]], FlagMode::Add, &[SystemFlag::Deleted]));
    let mailbox = bed.mailbox("INBOX").id;
    let outcome = bed.run(AccountOp::Expunge { mailbox, placements: ids.clone(), only_deleted: true });
    let modseq = ModSeq(bed.rows.head.modseq);
    assert_eq!(outcome, Outcome::Expunged { uids: vec![Uid(2)], modseq });
    assert_eq!(bed.uids("INBOX"), [1, 3]);
    assert_eq!(bed.last.as_ref().map(|b| b.refs[0].present), Some(false));
    assert!(read::facts(&bed.rows, ids[1]).expect("sound").is_none());
    // Gone and remembered: fine. Never heard of: refused, and nothing else is done (X21).
    let outcome = bed.run(expunge(&bed, vec![ids[1]]));
    assert_eq!(outcome, Outcome::Expunged { uids: vec![], modseq });
    let unknown = PlacementId { command: command_id(777), index: 0 };
    assert_eq!(bed.run(expunge(&bed, vec![ids[0], unknown])), refused(Refusal::UnknownPlacement));
    assert_eq!(bed.uids("INBOX"), [1, 3]);
}

#[test]
fn uids_are_not_given_twice() {
    let mut bed = Bed::new();
    bed.append(&["a", "b"]);
    bed.run(expunge(&bed, bed.ids("INBOX")));
    bed.append(&["c"]);
    assert_eq!(bed.uids("INBOX"), [3]);
}

#[test]
fn copies_keep_identity_and_share_facts() {
    let mut bed = Bed::new();
    bed.append(&["a", "b"]);
    let source = bed.placements("INBOX");
    bed.run(store(&bed, vec![source[0].id], FlagMode::Add, &[SystemFlag::Flagged]));
    let source = bed.placements("INBOX");
    let (from, to) = (bed.mailbox("INBOX").id, bed.mailbox("Archive").id);
    // Asked in the wrong order; placed by source UID.
    let op = AccountOp::Copy { from, to, placements: vec![source[1].id, source[0].id] };
    let uid_validity = bed.mailbox("Archive").uid_validity;
    assert_eq!(bed.run(op), Outcome::Copied { uid_validity, uids: vec![(Uid(1), Uid(1)), (Uid(2), Uid(2))] });
    let copies = bed.placements("Archive");
    for (copy, original) in copies.iter().zip(&source) {
        assert_ne!(copy.id, original.id);
        assert_eq!((copy.email, copy.thread), (original.email, original.thread));
        assert_eq!((&copy.flags, copy.internal_date), (&original.flags, original.internal_date));
    }
    // The index is that of the request, the same on every branch.
    assert_eq!(copies[0].id.index, 1);
    bed.run(expunge(&bed, bed.ids("INBOX")));
    assert!(read::facts(&bed.rows, copies[0].email).expect("sound").is_some());
    bed.run(AccountOp::Expunge { mailbox: to, placements: bed.ids("Archive"), only_deleted: false });
    assert!(read::emails(&bed.rows).expect("sound").is_empty());
    assert!(!bed.rows.rows.keys().any(|(table, _)| *table == Table::FACTS));
}

#[test]
fn move_is_one_operation() {
    let mut bed = Bed::new();
    bed.append(&["a", "b"]);
    let ids = bed.ids("INBOX");
    let (from, to) = (bed.mailbox("INBOX").id, bed.mailbox("Trash").id);
    let before = bed.rows.head.modseq;
    bed.run(AccountOp::Move { from, to, placements: vec![ids[0]] });
    assert_eq!(bed.rows.head.modseq, before + 1);
    assert_eq!((bed.uids("INBOX"), bed.uids("Trash")), (vec![2], vec![1]));
    let target_missing = AccountOp::Move { from, to: vocab::MailboxId::default(), placements: vec![ids[1]] };
    assert_eq!(bed.run(target_missing), refused(Refusal::NoSuchMailbox));
    assert_eq!(bed.uids("INBOX"), [2]);
    // Into itself: a new UID.
    bed.run(AccountOp::Move { from, to: from, placements: vec![ids[1]] });
    assert_eq!(bed.uids("INBOX"), [3]);
    assert_eq!(bed.mailbox("INBOX").counts.messages, 1);
}

#[test]
fn create_makes_superiors_and_refuses_what_it_must() {
    let mut bed = Bed::new();
    assert!(matches!(bed.create("a/b/c/"), Outcome::Created { .. }));
    assert!(bed.find("a").is_some() && bed.find("a/b").is_some());
    assert_eq!(bed.create("a/b"), refused(Refusal::MailboxExists));
    assert_eq!(bed.create("InBox"), refused(Refusal::MailboxExists));
    assert!(matches!(bed.create("inbox/sub"), Outcome::Created { .. }));
    assert!(bed.find("INBOX/sub").is_some());
    assert_eq!(bed.create("a//b"), refused(Refusal::BadName));
    let op = |role| AccountOp::CreateMailbox { name: "x".to_owned(), role: Some(role) };
    assert_eq!(bed.run(op(Role::Sent)), refused(Refusal::NotAllowed));
    assert!(bed.find("x").is_none());
}

#[test]
fn uid_validity_grows_and_is_never_reused_for_a_name() {
    let mut bed = Bed::new();
    let mut last = UidValidity(0);
    for _ in 0..3 {
        bed.create("n");
        let mailbox = bed.mailbox("n");
        assert!(mailbox.uid_validity > last);
        last = mailbox.uid_validity;
        bed.run(AccountOp::DeleteMailbox { mailbox: mailbox.id });
    }
    // Outside a joint epoch the clock does not count.
    bed.stamp.joint = false;
    bed.stamp.at.0 += 1_000_000_000;
    bed.create("n");
    assert_eq!(bed.mailbox("n").uid_validity, UidValidity(last.0 + 1));
    bed.stamp.joint = true;
    bed.create("m");
    assert_eq!(bed.mailbox("m").uid_validity, UidValidity(SECONDS + 1_000_000));
}

#[test]
fn delete_refuses_inbox_and_parents_and_remembers_what_went() {
    let mut bed = Bed::new();
    bed.create("a/b");
    let op = |bed: &Bed, name| AccountOp::DeleteMailbox { mailbox: bed.mailbox(name).id };
    assert_eq!(bed.run(op(&bed, "INBOX")), refused(Refusal::NotAllowed));
    assert_eq!(bed.run(op(&bed, "a")), refused(Refusal::HasChildren));
    let mailbox = MailboxRef::Id(bed.mailbox("a/b").id);
    bed.run(AccountOp::Append { mailbox, messages: vec![message("x")] });
    let id = bed.ids("a/b")[0];
    bed.run(AccountOp::Subscribe { name: "a/b".to_owned(), subscribed: true });
    assert_eq!(bed.run(op(&bed, "a/b")), Outcome::Done);
    assert!(read::expunged(&bed.rows, id).expect("sound").is_some());
    assert_eq!(bed.last.as_ref().map(|b| b.refs.len()), Some(1));
    assert!(bed.find("a/b").is_none());
    // Still subscribed; taken up again by a new mailbox of that name.
    assert!(read::subscriptions(&bed.rows).expect("sound").contains(&"a/b".to_owned()));
    bed.create("a/b");
    assert!(bed.mailbox("a/b").subscribed);
}

#[test]
fn rename_takes_children_along() {
    let mut bed = Bed::new();
    bed.create("a/b");
    let (a, b) = (bed.mailbox("a"), bed.mailbox("a/b"));
    let op = |id, name: &str| AccountOp::RenameMailbox { mailbox: id, name: name.to_owned() };
    assert_eq!(bed.run(op(a.id, "a/x")), refused(Refusal::NotAllowed));
    assert_eq!(bed.run(op(a.id, "Sent")), refused(Refusal::MailboxExists));
    assert_eq!(bed.run(op(a.id, &"y/".repeat(32))), refused(Refusal::BadName));
    assert_eq!(bed.run(op(a.id, "c/d")), Outcome::Done);
    assert!(bed.find("a").is_none() && bed.find("a/b").is_none());
    assert_eq!((bed.mailbox("c/d").id, bed.mailbox("c/d/b").id), (a.id, b.id));
    assert_eq!(bed.mailbox("c/d").uid_validity, a.uid_validity);
}

#[test]
fn rename_of_inbox_moves_its_messages() {
    let mut bed = Bed::new();
    bed.append(&["a", "b"]);
    let inbox = bed.mailbox("INBOX");
    bed.run(AccountOp::RenameMailbox { mailbox: inbox.id, name: "old".to_owned() });
    assert_eq!((bed.uids("INBOX"), bed.uids("old")), (vec![], vec![1, 2]));
    assert_eq!(bed.mailbox("INBOX").uid_validity, inbox.uid_validity);
}

#[test]
fn documents_are_set_replaced_and_removed() {
    let mut bed = Bed::new();
    let op = |body: Option<&'static str>| AccountOp::SetDocument {
        kind: "script".to_owned(),
        name: "n".to_owned(),
        body: body.map(|b| Bytes::from_static(b.as_bytes())),
    };
    bed.run(op(Some("1")));
    assert_eq!(bed.changes, [Change::Document("script".to_owned())]);
    assert_eq!(read::document_names(&bed.rows, "script").expect("sound"), ["n"]);
    bed.run(op(Some("1")));
    assert!(bed.last.is_none());
    bed.run(op(None));
    assert!(read::document(&bed.rows, "script", "n").expect("sound").is_none());
}

#[test]
fn the_gap_is_taken_once_per_epoch_before_anything_is_numbered() {
    let mut bed = Bed::new();
    bed.append(&["a"]);
    let clock = bed.rows.head.uidvalidity;
    bed.stamp.epoch = EpochId { number: 2, author: 1 };
    bed.stamp.joint = false;
    bed.stamp.gap = Some(Gap { k: 3, of: 16, epoch: bed.stamp.epoch });
    bed.append(&["b"]);
    assert_eq!(bed.uids("INBOX"), [1, 3 * 65_536]);
    assert_eq!(bed.rows.head.modseq, (3 << 32) + 1);
    bed.append(&["c"]);
    assert_eq!(bed.mailbox("INBOX").uid_next.0, 3 * 65_536 + 2);
    bed.create("n");
    let window = bed.mailbox("n").uid_validity.0 / 100;
    assert!(window > clock / 100 && window % 16 == 3);
    // One that is late in the round goes on in the next round.
    bed.stamp.epoch.number = 3;
    bed.stamp.gap = Some(Gap { k: 2, of: 16, epoch: bed.stamp.epoch });
    bed.append(&["d"]);
    assert_eq!(bed.mailbox("INBOX").uid_next.0, 18 * 65_536 + 1);
}

#[test]
fn x8_gaps_do_not_add_up() {
    // Of three nodes one went on in epoch 6 with another, which then went on without it in epoch 8; the third was started
    // alone from before all this. Strides of 19 and 2 were as long as one of 21.
    let gap = |node: u64, number: u64| {
        let epoch = EpochId { number, author: 0 };
        Some(Gap { k: 1 + node + 3 * (number % 8), of: 24, epoch })
    };
    let appended = |gaps: &[Option<Gap>]| {
        let mut bed = Bed::new();
        for gap in gaps {
            bed.stamp.gap = *gap;
            bed.append(&["mail"]);
        }
        let inbox = bed.mailbox("INBOX");
        (inbox.uid_next.0 >> 16, bed.rows.head.modseq >> 32, bed.rows.head.uidvalidity / 100 % 24)
    };
    let (quorum, alone) = (appended(&[gap(0, 6), gap(1, 8)]), appended(&[gap(2, 6)]));
    assert!(quorum.0 != alone.0 && quorum.1 != alone.1 && quorum.2 != alone.2, "{quorum:?} {alone:?}");
}

#[test]
fn the_gap_can_come_alone() {
    let mut bed = Bed::new();
    bed.stamp.gap = Some(Gap { k: 1, of: 16, epoch: bed.stamp.epoch });
    let id = bed.batch_id();
    let batch = gap_batch(&bed.rows, ACCOUNT, bed.stamp, id).expect("sound");
    assert!(batch.is_some());
    bed.take(batch);
    assert_eq!(bed.mailbox("INBOX").uid_next, Uid(65_536));
    assert_eq!(gap_batch(&bed.rows, ACCOUNT, bed.stamp, id).expect("sound"), None);
    assert_eq!(gap_batch(&Bed::empty().rows, ACCOUNT, bed.stamp, id).expect("sound"), None);
    // A refused command takes no gap with it.
    bed.stamp.epoch.number = 9;
    bed.stamp.gap = Some(Gap { k: 1, of: 16, epoch: bed.stamp.epoch });
    assert_eq!(bed.create("INBOX"), refused(Refusal::MailboxExists));
    assert!(bed.last.is_none());
}

#[test]
fn raised_uid_validity_is_above_floor_and_clock() {
    let mut bed = Bed::new();
    bed.append(&["a"]);
    let floor = UidValidity(SECONDS + 50_000);
    bed.run(AccountOp::RaiseUidValidity { floor });
    let mailboxes = read::mailboxes(&bed.rows).expect("sound");
    assert!(mailboxes.iter().all(|m| m.uid_validity > floor && m.vanish_floor.0 == bed.rows.head.modseq));
    assert_eq!(bed.uids("INBOX"), [1]);
}

#[test]
fn purge_leaves_nothing_but_marks_against_ghosts() {
    let mut bed = Bed::new();
    bed.append(&["a", "b"]);
    bed.settled = 1;
    assert_eq!(bed.run(AccountOp::Purge), Outcome::Done);
    assert_eq!(bed.last.as_ref().map(|b| b.refs.iter().filter(|r| !r.present).count()), Some(2));
    assert_eq!(bed.rows.head.digest, 0);
    assert!(bed.rows.rows.keys().all(|(table, _)| !table.is_core()));
    assert_eq!(bed.append(&["c"]), refused(Refusal::NoSuchAccount));
}

#[test]
fn several_commands_make_one_batch_and_a_refused_one_leaves_no_trace() {
    let mut bed = Bed::new();
    let base = bed.rows.clone();
    let mut applier = Applier::new(&base, ACCOUNT, bed.stamp);
    let mut run = |counter, op| applier.run(&Command { id: command_id(counter), settled: 0, op }).expect("sound").0;
    let create = |name: &str| AccountOp::CreateMailbox { name: name.to_owned(), role: None };
    run(10, create("a"));
    // Fails at its last component, after superiors were made.
    assert_eq!(
        run(11, AccountOp::RenameMailbox { mailbox: bed.mailbox("Sent").id, name: "Sent/x".into() }),
        refused(Refusal::NotAllowed)
    );
    assert_eq!(run(12, create("a")), refused(Refusal::MailboxExists));
    run(13, create("a/b"));
    let id = bed.batch_id();
    bed.take(applier.finish(id).expect("sound"));
    assert!(bed.find("a/b").is_some());
    assert_ne!(bed.mailbox("a").id, bed.mailbox("a/b").id);
}

#[test]
fn vanished_answers_from_tombstones_or_from_what_is_there() {
    let mut bed = Bed::new();
    bed.append(&["a", "b", "c"]);
    let since = bed.mailbox("INBOX").modseq;
    bed.run(expunge(&bed, bed.ids("INBOX")[..2].to_vec()));
    let mut inbox = bed.mailbox("INBOX");
    let all = [Uid(1)..=Uid(u32::MAX)];
    let vanished = |inbox: &_, since| read::vanished_since(&bed.rows, inbox, since, &all).expect("sound");
    assert_eq!(vanished(&inbox, since), [Uid(1), Uid(2)]);
    assert_eq!(vanished(&inbox, inbox.modseq), []);
    inbox.vanish_floor = inbox.modseq;
    assert_eq!(vanished(&inbox, since), [Uid(1), Uid(2)]);
}
