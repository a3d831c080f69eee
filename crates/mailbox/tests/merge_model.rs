//! Random histories of two branches with clients that cache: after the merge nothing is lost, nothing comes back, and an
//! incremental resync is a full fetch. With a rule off the same histories must show it.

mod bed;

use std::collections::{BTreeMap, BTreeSet};

use bed::pair::{Pair, merge_rows, picture};
use bed::{Bed, message};
use mailbox::Applier;
use mailbox::merge::{Numbering, Rules};
use mailbox::op::{AccountOp, FlagMode, Gap, MailboxRef, Stamp};
use mailbox::read;
use mailbox::rows::Mailbox;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use vocab::{EpochId, Flags, MailboxId, MemoryRows, ModSeq, NodeId, PlacementId, Uid, UidValidity};

#[derive(Clone, Debug)]
enum Step {
    Append { mailbox: usize, count: usize },
    Store { mailbox: usize, pick: usize, add: bool, bits: u8 },
    Expunge { mailbox: usize, pick: usize },
    Move { from: usize, to: usize, pick: usize },
    Create { name: usize },
    Delete { mailbox: usize },
    Rename { mailbox: usize, name: usize },
    Document { name: bool, body: u8 },
    Sync { client: usize },
}

const NAMES: [&str; 4] = ["a", "a/b", "c", "c/d/e"];

fn step() -> impl Strategy<Value = Step> {
    let at = || prop_oneof![2 => Just(6_usize), 1 => 0..9_usize];
    prop_oneof![
        5 => (at(), 1..3_usize).prop_map(|(mailbox, count)| Step::Append { mailbox, count }),
        4 => (at(), 0..9_usize, any::<bool>(), 0..32_u8)
            .prop_map(|(mailbox, pick, add, bits)| Step::Store { mailbox, pick, add, bits }),
        3 => (at(), 0..9_usize).prop_map(|(mailbox, pick)| Step::Expunge { mailbox, pick }),
        1 => (at(), at(), 0..9_usize).prop_map(|(from, to, pick)| Step::Move { from, to, pick }),
        2 => (0..NAMES.len()).prop_map(|name| Step::Create { name }),
        1 => at().prop_map(|mailbox| Step::Delete { mailbox }),
        1 => (at(), 0..NAMES.len()).prop_map(|(mailbox, name)| Step::Rename { mailbox, name }),
        1 => (any::<bool>(), 0..3_u8).prop_map(|(name, body)| Step::Document { name, body }),
        5 => (0..6_usize).prop_map(|client| Step::Sync { client }),
    ]
}

fn mailbox_at(bed: &Bed, index: usize) -> Mailbox {
    let all = read::mailboxes(&bed.rows).expect("sound");
    all[index % all.len()].clone()
}

fn picked(bed: &Bed, mailbox: MailboxId, pick: usize) -> Vec<PlacementId> {
    let rows = read::uids(&bed.rows, mailbox).expect("sound");
    rows.get(pick % rows.len().max(1)).map(|row| row.id).into_iter().collect()
}

fn op(bed: &Bed, step: &Step) -> Option<AccountOp> {
    Some(match step {
        Step::Append { mailbox, count } => AccountOp::Append {
            mailbox: MailboxRef::Id(mailbox_at(bed, *mailbox).id),
            messages: (0..*count).map(|n| message(&format!("m{n}"))).collect(),
        },
        Step::Store { mailbox, pick, add, bits } => {
            let mailbox = mailbox_at(bed, *mailbox).id;
            let mode = if *add { FlagMode::Add } else { FlagMode::Remove };
            let flags = Flags { system: *bits, ..Flags::default() };
            AccountOp::Store { mailbox, placements: picked(bed, mailbox, *pick), mode, flags, unchanged_since: None }
        }
        Step::Expunge { mailbox, pick } => {
            let mailbox = mailbox_at(bed, *mailbox).id;
            AccountOp::Expunge { mailbox, placements: picked(bed, mailbox, *pick), only_deleted: false }
        }
        Step::Move { from, to, pick } => {
            let (from, to) = (mailbox_at(bed, *from).id, mailbox_at(bed, *to).id);
            AccountOp::Move { from, to, placements: picked(bed, from, *pick) }
        }
        Step::Create { name } => AccountOp::CreateMailbox { name: NAMES[*name].to_owned(), role: None },
        Step::Delete { mailbox } => AccountOp::DeleteMailbox { mailbox: mailbox_at(bed, *mailbox).id },
        Step::Rename { mailbox, name } => {
            AccountOp::RenameMailbox { mailbox: mailbox_at(bed, *mailbox).id, name: NAMES[*name].to_owned() }
        }
        Step::Document { name, body } => AccountOp::SetDocument {
            kind: "k".to_owned(),
            name: if *name { "x".to_owned() } else { String::new() },
            body: (*body > 0).then(|| vec![*body].into()),
        },
        Step::Sync { .. } => return None,
    })
}

/// How a client finds out what changed.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Qresync,
    UidList,
    UidNext,
}

#[derive(Clone, Debug, Default)]
struct Cache {
    uid_validity: UidValidity,
    uid_next: Uid,
    modseq: ModSeq,
    messages: BTreeMap<Uid, (PlacementId, Flags)>,
}

/// Fetches a body once per UID and new mail only from the UIDNEXT it was told last.
#[derive(Clone, Debug)]
struct Client {
    kind: Kind,
    caches: BTreeMap<String, Cache>,
}

impl Client {
    fn sync(&mut self, rows: &MemoryRows) {
        let all = read::mailboxes(rows).expect("sound");
        self.caches.retain(|name, _| all.iter().any(|m| m.name == *name));
        for mailbox in &all {
            let cache = self.caches.entry(mailbox.name.clone()).or_default();
            if cache.uid_validity != mailbox.uid_validity {
                *cache = Cache { uid_validity: mailbox.uid_validity, ..Cache::default() };
            }
            sync_mailbox(self.kind, cache, rows, mailbox);
        }
    }

    /// The cache against a full fetch.
    fn check(&self, rows: &MemoryRows) -> Result<(), String> {
        for mailbox in read::mailboxes(rows).expect("sound") {
            let full: BTreeMap<_, _> = read::uids(rows, mailbox.id)
                .expect("sound")
                .into_iter()
                .map(|row| (row.uid, (row.id, row.flags)))
                .collect();
            let cache = &self.caches[&mailbox.name];
            if cache.messages != full {
                return Err(format!("{:?} in {}: {:?} is not {full:?}", self.kind, mailbox.name, cache.messages));
            }
        }
        Ok(())
    }
}

fn sync_mailbox(kind: Kind, cache: &mut Cache, rows: &MemoryRows, mailbox: &Mailbox) {
    let all = read::uids(rows, mailbox.id).expect("sound");
    if matches!(kind, Kind::Qresync) {
        let known: Vec<_> = cache.messages.keys().map(|uid| *uid..=*uid).collect();
        for uid in read::vanished_since(rows, mailbox, cache.modseq, &known).expect("sound") {
            cache.messages.remove(&uid);
        }
    } else {
        let there: BTreeSet<Uid> = all.iter().map(|row| row.uid).collect();
        cache.messages.retain(|uid, _| there.contains(uid));
    }
    let changed = match kind {
        Kind::UidNext => all.clone(),
        _ => read::changed_since(rows, mailbox.id, cache.modseq).expect("sound"),
    };
    for row in changed {
        if let Some((_, flags)) = cache.messages.get_mut(&row.uid) {
            *flags = row.flags;
        }
    }
    for row in all.into_iter().filter(|row| row.uid >= cache.uid_next) {
        cache.messages.entry(row.uid).or_insert((row.id, row.flags));
    }
    cache.uid_next = mailbox.uid_next;
    cache.modseq = mailbox.modseq;
}

/// Clients 0-2 stay on their side (by parity), 3-5 alternate.
fn run(bed: &mut Bed, clients: &mut [Client], side: usize, steps: &[Step]) -> bool {
    let mut served = false;
    for step in steps {
        match step {
            Step::Sync { client } => {
                if *client < 3 && client % 2 != side {
                    continue;
                }
                let view = bed.rows.clone();
                let mut applier = Applier::new(&view, bed::ACCOUNT, bed.stamp);
                applier.enter().expect("sound");
                let id = bed.batch_id();
                bed.take(applier.finish(id).expect("sound"));
                clients[*client].sync(&bed.rows);
                served = true;
            }
            _ => {
                let op = op(bed, step).expect("an operation");
                bed.run(op);
            }
        }
    }
    served
}

#[derive(Clone, Debug)]
struct History {
    before: Vec<Step>,
    rounds: Vec<(bool, Vec<Step>)>,
}

fn history() -> impl Strategy<Value = History> {
    let steps = |most| prop::collection::vec(step(), 0..most);
    (steps(14), prop::collection::vec((any::<bool>(), steps(8)), 1..5))
        .prop_map(|(before, rounds)| History { before, rounds })
}

/// The two branches at the end of a split, and the clients.
fn split(history: &History) -> (Pair, Vec<Client>) {
    let kinds = [Kind::Qresync, Kind::UidList, Kind::UidNext];
    let mut clients: Vec<_> = (0..6).map(|n| Client { kind: kinds[n % 3], caches: BTreeMap::new() }).collect();
    let mut base = Bed::new();
    base.append(&["one", "two"]);
    let [early, late] = [Step::Sync { client: 0 }, Step::Sync { client: 3 }];
    run(&mut base, &mut clients, 0, &[early, late]);
    run(&mut base, &mut clients, 0, &history.before);
    let mut pair = Pair::from(&base);
    pair.served = [false, false];
    for (at_guest, steps) in &history.rounds {
        let (bed, side) = if *at_guest { (&mut pair.g, 1) } else { (&mut pair.a, 0) };
        pair.served[side] |= run(bed, &mut clients, side, steps);
    }
    (pair, clients)
}

fn clients_hold(history: &History, rules: Rules) -> Result<(), String> {
    let (pair, mut clients) = split(history);
    if pair.a.rows.head.version == pair.g.rows.head.version {
        return Ok(());
    }
    let (merged, _) = pair.merged_by(rules, Some(&pair.base));
    merged.holds_what_was_told()?;
    clients.iter_mut().try_for_each(|client| {
        client.sync(&merged.rows);
        client.check(&merged.rows)
    })
}

fn placed(rows: &MemoryRows) -> BTreeSet<PlacementId> {
    let all = read::mailboxes(rows).expect("sound");
    all.iter().flat_map(|m| read::uids(rows, m.id).expect("sound")).map(|row| row.id).collect()
}

/// D1 and D2: exactly the mail no side gave up.
fn nothing_lost_nothing_back(pair: &Pair, merged: &MemoryRows) {
    let [base, a, g] = [&pair.base, &pair.a.rows, &pair.g.rows].map(placed);
    let gone = |rows: &MemoryRows, id| read::expunged(rows, id).expect("sound").is_some();
    let stays = |id: &PlacementId| {
        let both = a.contains(id) && g.contains(id);
        both || (!base.contains(id) && !gone(&pair.a.rows, *id) && !gone(&pair.g.rows, *id))
    };
    let wanted: BTreeSet<_> = a.union(&g).copied().filter(stays).collect();
    assert_eq!(placed(merged), wanted);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn d1_d2_merges_keep_mail_are_symmetric_and_idempotent(history in history()) {
        let (pair, _) = split(&history);
        if pair.a.rows.head.version != pair.g.rows.head.version {
            let merged = pair.merged();
            nothing_lost_nothing_back(&pair, &merged.rows);
            if pair.served != [false, false] {
                prop_assert_eq!(picture(&merged), picture(&pair.swapped()));
            }
            let with = (Rules::default(), pair.stamp());
            let (again, made) = merge_rows(&merged.rows, &pair.g.rows, pair.served, Some(&pair.base), with);
            if pair.g.rows.head.version != pair.base.head.version {
                prop_assert_eq!((made.batch.rows.len(), again.rows.rows), (0, merged.rows.rows));
            }
            // Checks I2, too.
            let (blind, _) = pair.merged_by(Rules::default(), None);
            let both: BTreeSet<_> = placed(&pair.a.rows).intersection(&placed(&pair.g.rows)).copied().collect();
            prop_assert!(both.is_subset(&placed(&blind.rows)));
        }
    }

    #[test]
    fn i1_to_i10_an_incremental_resync_is_a_full_fetch(history in history()) {
        prop_assert_eq!(clients_hold(&history, Rules::default()), Ok(()));
    }

    #[test]
    fn a_heal_that_breaks_off_is_healed_later(history in history(), more in history()) {
        prop_assert_eq!(nested_holds(&history, &more), Ok(()));
    }

    #[test]
    fn a_silent_side_is_a_fast_forward(history in history()) {
        let (mut pair, _) = split(&history);
        pair.g.rows = pair.base.clone();
        pair.g.told.clear();
        pair.served = [true, false];
        if pair.a.rows.head.version != pair.base.head.version {
            prop_assert_eq!(picture(&pair.merged()), picture(&pair.a));
            pair.served = [false, false];
            prop_assert_eq!(picture(&pair.merged()), picture(&pair.swapped()));
        }
    }
}

/// The guest never hears of the first merge and goes on alone; so does the anchor with the result. Served marks are
/// inherited.
fn nested_holds(history: &History, more: &History) -> Result<(), String> {
    let (mut pair, mut clients) = split(history);
    if pair.a.rows.head.version == pair.g.rows.head.version {
        return Ok(());
    }
    let (first, _) = pair.merged_by(Rules::default(), Some(&pair.base));
    pair.base = pair.g.rows.clone();
    pair.served[0] |= pair.served[1];
    pair.a = first;
    for (bed, node) in [(&mut pair.a, 1), (&mut pair.g, 2)] {
        let epoch = EpochId { number: 12, author: node };
        bed.counter = u64::from(node) * 100_000;
        bed.batches = 100;
        let gap = Some(Gap { k: u64::from(node) + 5, of: 16, epoch });
        bed.stamp = Stamp { epoch, home: NodeId(node), gap, mailbox_counter: 1, ..bed.stamp };
    }
    for (at_guest, steps) in &more.rounds {
        let (bed, side) = if *at_guest { (&mut pair.g, 1) } else { (&mut pair.a, 0) };
        pair.served[side] |= run(bed, &mut clients, side, steps);
    }
    if pair.a.rows.head.lineage.contains(&pair.g.rows.head.version) {
        return Ok(());
    }
    let epoch = EpochId { number: 15, author: 1 };
    let stamp = Stamp { epoch, ..pair.stamp() };
    let with = (Rules::default(), stamp);
    let (mut second, _) = merge_rows(&pair.a.rows, &pair.g.rows, pair.served, Some(&pair.base), with);
    second.told = pair.told();
    second.holds_what_was_told()?;
    nothing_lost_nothing_back(&pair, &second.rows);
    clients.iter_mut().try_for_each(|client| {
        client.sync(&second.rows);
        client.check(&second.rows)
    })
}

/// How many of so many histories show that these rules are wrong.
fn noticed(rules: Rules) -> usize {
    let mut runner = TestRunner::deterministic();
    let one = |runner: &mut TestRunner| history().new_tree(runner).expect("a history").current();
    (0..400).filter(|_| clients_hold(&one(&mut runner), rules).is_err()).count()
}

#[test]
fn control_the_histories_notice_a_rule_that_is_off() {
    assert_eq!(noticed(Rules::default()), 0);
    let rule_w = noticed(Rules { numbering: Numbering::AnchorFirst, ..Rules::default() });
    let floor = noticed(Rules { floor: false, ..Rules::default() });
    let restamp = noticed(Rules { restamp: false, ..Rules::default() });
    let names_grow = noticed(Rules { names_grow: false, ..Rules::default() });
    assert!(rule_w > 0 && floor > 0 && restamp > 0 && names_grow > 0, "{rule_w} {floor} {restamp} {names_grow}");
    // H1 and H2; H3 needs a client that remembers the UIDNEXT of both sides (`merge.rs`).
    for numbering in [Numbering::Colliding, Numbering::Unassigned] {
        let count = noticed(Rules { numbering, ..Rules::default() });
        assert!(count > 0, "{numbering:?} is not noticed");
    }
}
