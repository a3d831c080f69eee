//! Random histories: what must hold after every command, and a client cache that syncs by CONDSTORE and tombstones.

mod bed;

use std::collections::BTreeMap;

use bed::{Bed, command_id, message};
use mailbox::op::{AccountOp, FlagMode, MailboxRef, Outcome};
use mailbox::read;
use mailbox::rows::{Counts, Mailbox};
use proptest::prelude::*;
use vocab::{Flags, Keyword, MailboxId, ModSeq, PlacementId, SystemFlag, Uid};

#[derive(Clone, Debug)]
enum Step {
    Append { mailbox: usize, count: usize },
    Store { mailbox: usize, picks: Vec<usize>, mode: u8, bits: u8 },
    Expunge { mailbox: usize, picks: Vec<usize>, only_deleted: bool },
    Copy { from: usize, to: usize, picks: Vec<usize> },
    Move { from: usize, to: usize, picks: Vec<usize> },
    Create { name: usize },
    Delete { mailbox: usize },
    Rename { mailbox: usize, name: usize },
    Repeat { back: usize },
    Settle,
    Sync { mailbox: usize },
}

const NAMES: [&str; 5] = ["a", "a/b", "c", "INBOX/x", "c/d/e"];

fn step() -> impl Strategy<Value = Step> {
    let picks = || prop::collection::vec(0..20_usize, 0..4);
    let mailbox = || 0..8_usize;
    prop_oneof![
        5 => (mailbox(), 1..4_usize).prop_map(|(mailbox, count)| Step::Append { mailbox, count }),
        5 => (mailbox(), picks(), 0..3_u8, 0..32_u8)
            .prop_map(|(mailbox, picks, mode, bits)| Step::Store { mailbox, picks, mode, bits }),
        3 => (mailbox(), picks(), any::<bool>())
            .prop_map(|(mailbox, picks, only_deleted)| Step::Expunge { mailbox, picks, only_deleted }),
        2 => (mailbox(), mailbox(), picks()).prop_map(|(from, to, picks)| Step::Copy { from, to, picks }),
        2 => (mailbox(), mailbox(), picks()).prop_map(|(from, to, picks)| Step::Move { from, to, picks }),
        1 => (0..NAMES.len()).prop_map(|name| Step::Create { name }),
        1 => mailbox().prop_map(|mailbox| Step::Delete { mailbox }),
        1 => (mailbox(), 0..NAMES.len()).prop_map(|(mailbox, name)| Step::Rename { mailbox, name }),
        2 => (0..5_usize).prop_map(|back| Step::Repeat { back }),
        1 => Just(Step::Settle),
        3 => mailbox().prop_map(|mailbox| Step::Sync { mailbox }),
    ]
}

/// What a CONDSTORE client keeps of a mailbox.
#[derive(Default)]
struct Cache {
    modseq: ModSeq,
    flags: BTreeMap<Uid, Flags>,
}

struct History {
    bed: Bed,
    ran: Vec<(u64, AccountOp, Outcome)>,
    caches: BTreeMap<MailboxId, Cache>,
    seen: BTreeMap<MailboxId, (Uid, ModSeq)>,
    /// (mailbox, UID) -> placement, for ever.
    named: BTreeMap<(MailboxId, Uid), PlacementId>,
}

impl History {
    fn mailboxes(&self) -> Vec<Mailbox> {
        read::mailboxes(&self.bed.rows).expect("sound")
    }
    fn pick_mailbox(&self, index: usize) -> Mailbox {
        let all = self.mailboxes();
        all[index % all.len()].clone()
    }
    fn pick(&self, mailbox: MailboxId, picks: &[usize]) -> Vec<PlacementId> {
        let rows = read::uids(&self.bed.rows, mailbox).expect("sound");
        if rows.is_empty() {
            return Vec::new();
        }
        picks.iter().map(|p| rows[p % rows.len()].id).collect()
    }
    fn op(&self, step: &Step) -> Option<AccountOp> {
        Some(match step {
            Step::Append { mailbox, count } => AccountOp::Append {
                mailbox: MailboxRef::Id(self.pick_mailbox(*mailbox).id),
                messages: (0..*count).map(|n| message(&format!("m{n}"))).collect(),
            },
            Step::Store { mailbox, picks, mode, bits } => {
                let mailbox = self.pick_mailbox(*mailbox).id;
                let mut flags = Flags { system: *bits, ..Flags::default() };
                flags.keywords.extend((bits & 1 == 1).then(|| Keyword::new("$Label1").expect("atom")));
                let mode = [FlagMode::Replace, FlagMode::Add, FlagMode::Remove][usize::from(*mode)];
                AccountOp::Store { mailbox, placements: self.pick(mailbox, picks), mode, flags, unchanged_since: None }
            }
            Step::Expunge { mailbox, picks, only_deleted } => {
                let mailbox = self.pick_mailbox(*mailbox).id;
                AccountOp::Expunge { mailbox, placements: self.pick(mailbox, picks), only_deleted: *only_deleted }
            }
            Step::Copy { from, to, picks } => {
                let (from, to) = (self.pick_mailbox(*from).id, self.pick_mailbox(*to).id);
                AccountOp::Copy { from, to, placements: self.pick(from, picks) }
            }
            Step::Move { from, to, picks } => {
                let (from, to) = (self.pick_mailbox(*from).id, self.pick_mailbox(*to).id);
                AccountOp::Move { from, to, placements: self.pick(from, picks) }
            }
            Step::Create { name } => AccountOp::CreateMailbox { name: NAMES[*name].to_owned(), role: None },
            Step::Delete { mailbox } => AccountOp::DeleteMailbox { mailbox: self.pick_mailbox(*mailbox).id },
            Step::Rename { mailbox, name } => {
                let mailbox = self.pick_mailbox(*mailbox).id;
                AccountOp::RenameMailbox { mailbox, name: NAMES[*name].to_owned() }
            }
            Step::Repeat { .. } | Step::Settle | Step::Sync { .. } => return None,
        })
    }
    fn run(&mut self, step: &Step) {
        match step {
            Step::Repeat { back } => self.repeat(*back),
            Step::Settle => {
                self.bed.settled = self.bed.counter;
                self.ran.clear();
            }
            Step::Sync { mailbox } => self.sync(&self.pick_mailbox(*mailbox)),
            _ => {
                let op = self.op(step).expect("an operation");
                let outcome = self.bed.run(op.clone());
                if self.bed.last.is_some() {
                    self.ran.push((self.bed.counter, op, outcome));
                }
            }
        }
    }
    /// A repeated command changes nothing and answers the same.
    fn repeat(&mut self, back: usize) {
        let Some((counter, op, outcome)) = self.ran.iter().rev().nth(back).cloned() else { return };
        let head = self.bed.rows.head.clone();
        assert_eq!(self.bed.run_as(command_id(counter), op), outcome);
        assert_eq!(self.bed.rows.head, head);
    }
    /// An older cache with the answers to CHANGEDSINCE and VANISHED is the newest state.
    fn sync(&mut self, mailbox: &Mailbox) {
        let cache = self.caches.entry(mailbox.id).or_default();
        let known: Vec<_> = cache.flags.keys().map(|uid| *uid..=*uid).collect();
        let rows = &self.bed.rows;
        for uid in read::vanished_since(rows, mailbox, cache.modseq, &known).expect("sound") {
            cache.flags.remove(&uid);
        }
        for row in read::changed_since(rows, mailbox.id, cache.modseq).expect("sound") {
            cache.flags.insert(row.uid, row.flags);
        }
        cache.modseq = mailbox.modseq;
        let fresh: BTreeMap<_, _> =
            read::uids(rows, mailbox.id).expect("sound").into_iter().map(|row| (row.uid, row.flags)).collect();
        assert_eq!(cache.flags, fresh);
    }
    fn check(&mut self) {
        for mailbox in self.mailboxes() {
            let placements = read::placements(&self.bed.rows, mailbox.id, read::all_uids()).expect("sound");
            let mut counts = Counts::default();
            for placement in &placements {
                counts.messages += 1;
                counts.unseen += u32::from(!placement.flags.has(SystemFlag::Seen));
                counts.deleted += u32::from(placement.flags.has(SystemFlag::Deleted));
                counts.bytes += placement.size();
                assert!(placement.modseq <= mailbox.modseq && placement.uid < mailbox.uid_next);
                let named = self.named.entry((mailbox.id, placement.uid)).or_insert(placement.id);
                assert_eq!(*named, placement.id, "one UID, two contents");
                let by_id = read::placement_by_id(&self.bed.rows, placement.id).expect("sound");
                assert_eq!(by_id, Some((mailbox.id, placement.clone())));
                assert!(read::facts(&self.bed.rows, placement.email).expect("sound").is_some());
            }
            assert_eq!(mailbox.counts, counts);
            let seen = self.seen.entry(mailbox.id).or_insert((mailbox.uid_next, mailbox.modseq));
            assert!(mailbox.uid_next >= seen.0 && mailbox.modseq >= seen.1);
            *seen = (mailbox.uid_next, mailbox.modseq);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_histories_keep_the_rules(steps in prop::collection::vec(step(), 1..60)) {
        let mut history = History {
            bed: Bed::new(), ran: Vec::new(), caches: BTreeMap::new(), seen: BTreeMap::new(), named: BTreeMap::new(),
        };
        for step in &steps {
            history.run(step);
            history.check();
        }
        for mailbox in history.mailboxes() {
            history.sync(&mailbox);
        }
    }
}
