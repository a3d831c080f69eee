//! States and changes since: a client that follows them has what is there, whatever happened in between, and one that
//! comes from another branch is told to read everything.

mod bed;

use std::collections::{BTreeMap, BTreeSet};

use bed::pair::Pair;
use bed::{Bed, message};
use mailbox::op::{AccountOp, FlagMode, Gap, MailboxRef, Outcome, Role};
use mailbox::read;
use mailbox::state::{BRANCHES_MAX, EmailChanges, State, email_changes, mailbox_changes, places_of, state};
use proptest::prelude::*;
use vocab::{EpochId, Flags, MailboxId, MemoryRows, PlacementId, Rows, SystemFlag};

/// What a JMAP client has: per EMAILID, where it is and with which flags.
type Cache = BTreeMap<PlacementId, BTreeMap<MailboxId, Vec<Flags>>>;

fn truth(rows: &dyn Rows) -> Cache {
    let mut found = Cache::new();
    for mailbox in read::mailboxes(rows).expect("sound rows") {
        for placement in read::placements(rows, mailbox.id, read::all_uids()).expect("sound rows") {
            found.entry(placement.email).or_default().entry(mailbox.id).or_default().push(placement.flags);
        }
    }
    sorted(found)
}

fn sorted(mut cache: Cache) -> Cache {
    cache.values_mut().flat_map(BTreeMap::values_mut).for_each(|flags| flags.sort_by_key(|f| f.system));
    cache
}

fn fetched(rows: &dyn Rows, email: PlacementId) -> BTreeMap<MailboxId, Vec<Flags>> {
    let mut found: BTreeMap<MailboxId, Vec<Flags>> = BTreeMap::new();
    for (mailbox, placement) in places_of(rows, email).expect("sound rows") {
        found.entry(mailbox).or_default().push(placement.flags);
    }
    found
}

/// One client with the state it was told.
#[derive(Clone)]
struct Client {
    state: State,
    cache: Cache,
}

impl Client {
    fn of(rows: &dyn Rows) -> Self {
        Self { state: state(rows).expect("sound rows"), cache: truth(rows) }
    }

    /// Follows the changes to the end; `strict`: what is created was unknown and what goes was known. False: it must read
    /// everything.
    fn follow(&mut self, rows: &dyn Rows, max: usize, strict: bool) -> bool {
        loop {
            let Some(changes) = email_changes(rows, &self.state, max).expect("sound rows") else { return false };
            let EmailChanges { created, updated, destroyed, state, more } = changes;
            assert!(created.len() + updated.len() + destroyed.len() <= max);
            if strict {
                assert!(created.iter().all(|id| !self.cache.contains_key(id)), "created is new");
                assert!(updated.iter().all(|id| self.cache.contains_key(id)), "updated is known");
            }
            for id in destroyed {
                assert!(self.cache.remove(&id).is_some() || !strict || max < usize::MAX, "destroyed was known");
            }
            for id in created.into_iter().chain(updated) {
                self.cache.insert(id, fetched(rows, id));
            }
            // On the way to a later state a message may be gone already.
            self.cache.retain(|_, places| !places.is_empty());
            self.cache = sorted(std::mem::take(&mut self.cache));
            self.state = state;
            if !more {
                return true;
            }
        }
    }
}

/// One random command of a client.
fn act(bed: &mut Bed, (what, which, other): (u8, u8, u8)) {
    let mailboxes = read::mailboxes(&bed.rows).expect("sound rows");
    let at = |n: u8| mailboxes[usize::from(n) % mailboxes.len()].clone();
    let (from, to) = (at(which), at(other));
    let ids = bed.ids(&from.name);
    let some: Vec<PlacementId> =
        ids.iter().copied().filter(|id| (id.command.counter + u64::from(other)) % 2 == 0).collect();
    match what % 9 {
        0 | 1 => {
            let messages = (0..=other % 3).map(|n| message(&format!("m{}-{n}", bed.counter))).collect();
            bed.run(AccountOp::Append { mailbox: MailboxRef::Id(from.id), messages });
        }
        2 | 3 => {
            let flags = Flags::of(&[SystemFlag::ALL[usize::from(other) % 5]]);
            let mode = [FlagMode::Add, FlagMode::Remove][usize::from(which) % 2];
            bed.run(AccountOp::Store { mailbox: from.id, placements: some, mode, flags, unchanged_since: None });
        }
        4 => drop(bed.run(AccountOp::Copy { from: from.id, to: to.id, placements: some })),
        5 => drop(bed.run(AccountOp::Move { from: from.id, to: to.id, placements: some })),
        6 => drop(bed.run(AccountOp::Expunge { mailbox: from.id, placements: some, only_deleted: false })),
        7 if other % 2 == 0 => drop(bed.create(&format!("F{}", which % 4))),
        7 => drop(bed.run(AccountOp::RenameMailbox { mailbox: to.id, name: format!("F{}", which % 4) })),
        _ => drop(bed.run(AccountOp::DeleteMailbox { mailbox: to.id })),
    }
}

fn history() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    prop::collection::vec(any::<(u8, u8, u8)>(), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn i19_following_the_changes_gives_what_is_there(history in history(), max in 1_usize..9) {
        let mut bed = Bed::new();
        let mut clients = Vec::new();
        for step in history {
            clients.push(Client::of(&bed.rows));
            act(&mut bed, step);
        }
        for mut client in clients {
            let mut whole = client.clone();
            prop_assert!(whole.follow(&bed.rows, usize::MAX, true));
            prop_assert_eq!(&whole.cache, &truth(&bed.rows));
            prop_assert_eq!(whole.state, state(&bed.rows).expect("sound rows"));
            if client.follow(&bed.rows, max, true) {
                prop_assert_eq!(&client.cache, &truth(&bed.rows));
            }
        }
    }

    #[test]
    fn i19_states_of_both_branches_lead_to_the_merge_and_not_into_the_other(
        before in history(), here in history(), there in history(), after in history(), (known, gap) in any::<(bool, bool)>(),
    ) {
        let mut bed = Bed::new();
        let mut clients = Vec::new();
        for step in before {
            act(&mut bed, step);
            clients.push(Client::of(&bed.rows));
        }
        let mut pair = Pair::from(&bed);
        if !gap {
            // An agreed epoch skips no numbers; whoever is started alone against it does.
            pair.a.stamp.gap = None;
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for (steps, branch, seen) in [(here, &mut pair.a, &mut ours), (there, &mut pair.g, &mut theirs)] {
            // The gap comes before anything is shown.
            branch.append(&["first"]);
            for step in steps {
                seen.push(Client::of(&branch.rows));
                act(branch, step);
            }
        }
        for client in &ours {
            prop_assert_eq!(email_changes(&pair.g.rows, &client.state, 100), Ok(None));
            prop_assert_eq!(mailbox_changes(&pair.g.rows, &client.state), Ok(None));
        }
        for client in &theirs {
            prop_assert_eq!(email_changes(&pair.a.rows, &client.state, 100), Ok(None));
        }
        let base = known.then_some(&pair.base);
        let mut merged = pair.merged_by(mailbox::merge::Rules::default(), base).0;
        merged.stamp = pair.stamp();
        for step in after {
            act(&mut merged, step);
        }
        for mut client in clients.into_iter().chain(ours).chain(theirs) {
            prop_assert!(client.follow(&merged.rows, usize::MAX, false));
            prop_assert_eq!(&client.cache, &truth(&merged.rows));
        }
    }
}

fn changes(rows: &MemoryRows, since: &State) -> EmailChanges {
    email_changes(rows, since, 100).expect("sound rows").expect("known")
}

#[test]
fn a_copy_that_goes_is_a_change_of_its_message() {
    let mut bed = Bed::new();
    bed.append(&["one"]);
    let id = bed.ids("INBOX")[0];
    let (inbox, trash, archive) = (bed.mailbox("INBOX").id, bed.mailbox("Trash").id, bed.mailbox("Archive").id);
    bed.run(AccountOp::Copy { from: inbox, to: trash, placements: vec![id] });
    bed.run(AccountOp::Move { from: inbox, to: archive, placements: vec![id] });
    let known = state(&bed.rows).expect("sound rows");
    let gone = bed.ids("Trash");
    bed.run(AccountOp::Expunge { mailbox: trash, placements: gone, only_deleted: false });
    assert_eq!(changes(&bed.rows, &known).updated, [id]);
    let gone = bed.ids("Archive");
    bed.run(AccountOp::Expunge { mailbox: archive, placements: gone, only_deleted: false });
    assert_eq!(changes(&bed.rows, &known).destroyed, [id]);
    let now = changes(&bed.rows, &known).state;
    assert_eq!(changes(&bed.rows, &now).state, now);
}

#[test]
fn one_command_larger_than_the_limit_cannot_be_answered_in_parts() {
    let mut bed = Bed::new();
    let known = state(&bed.rows).expect("sound rows");
    bed.append(&["one", "two", "three"]);
    assert_eq!(email_changes(&bed.rows, &known, 2), Ok(None));
    assert_eq!(changes(&bed.rows, &known).created.len(), 3);
}

#[test]
fn mailboxes_are_listed_only_while_the_tree_is_the_same() {
    let mut bed = Bed::new();
    let known = state(&bed.rows).expect("sound rows");
    bed.append(&["one"]);
    let inbox = bed.mailbox("INBOX").id;
    let updated = mailbox_changes(&bed.rows, &known).expect("sound rows").expect("known").updated;
    assert_eq!(updated, [inbox]);
    bed.create("New");
    assert_eq!(mailbox_changes(&bed.rows, &known), Ok(None));
    assert_eq!(changes(&bed.rows, &known).created.len(), 1);
}

#[test]
fn states_of_branches_that_are_long_past_are_not_answered() {
    let mut bed = Bed::new();
    let first = state(&bed.rows).expect("sound rows");
    let mut seen = BTreeSet::from([first]);
    for number in 2..=BRANCHES_MAX as u64 + 2 {
        bed.stamp.epoch = EpochId { number, author: 1 };
        bed.stamp.gap = Some(Gap { k: 1, of: 16, epoch: bed.stamp.epoch });
        assert!(matches!(bed.append(&["one"]), Outcome::Appended { .. }));
        assert!(seen.insert(state(&bed.rows).expect("sound rows")));
    }
    let answered = |state: &State| email_changes(&bed.rows, state, 1_000).expect("sound rows").is_some();
    assert_eq!(seen.iter().filter(|state| answered(state)).count(), BRANCHES_MAX);
    assert!(!answered(&first));
}

#[test]
fn a_state_is_one_text() {
    let mut bed = Bed::new();
    bed.append(&["one"]);
    let state = state(&bed.rows).expect("sound rows");
    assert_eq!(state.to_string().parse(), Ok(state));
    let text = state.to_string();
    for bad in ["", "0", "1.2", "1.2.3.4", "01.2.3", "x.1.2", "+1.2.3", &format!("{text} ")] {
        assert!(bad.parse::<State>().is_err(), "{bad}");
    }
    assert_eq!(read::mailbox_by_role(&bed.rows, Role::Inbox).expect("sound rows").map(|m| m.counts.messages), Some(1));
}

#[test]
fn a_state_of_a_side_that_went_on_without_a_gap_is_not_answered_by_the_one_that_took_it() {
    let mut bed = Bed::new();
    bed.append(&["one"]);
    let before = Client::of(&bed.rows);
    // The other side goes on with the same numbers: it let this one go by agreement, and this one is started alone.
    let mut other = Bed { rows: bed.rows.clone(), counter: 500, ..Bed::empty() };
    other.append(&["two", "three"]);
    let client = Client::of(&other.rows);
    bed.stamp.epoch = EpochId { number: 5, author: 2 };
    bed.stamp.gap = Some(Gap { k: 1, of: 16, epoch: bed.stamp.epoch });
    bed.append(&["four"]);
    assert_eq!(email_changes(&bed.rows, &client.state, usize::MAX), Ok(None), "it has what is not here");
    assert!(before.clone().follow(&bed.rows, usize::MAX, true), "what both come from is answered");
    let ours = Client::of(&bed.rows);
    bed.append(&["five"]);
    assert!(ours.clone().follow(&bed.rows, usize::MAX, true));
}
