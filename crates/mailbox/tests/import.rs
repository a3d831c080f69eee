//! A message a removed node had comes back under its ids, once, and not when it was expunged here.

mod bed;

use bed::{Bed, command_id, message};
use mailbox::op::{AccountOp, NewMessage, Outcome};
use mailbox::read;
use vocab::{Flags, NodeId, PlacementId, SystemFlag};

/// A placement the removed node made.
fn theirs(counter: u64) -> PlacementId {
    let mut command = command_id(counter);
    command.origin = NodeId(7);
    PlacementId { command, index: 0 }
}

/// UIDs given.
fn import(bed: &mut Bed, id: PlacementId, email: PlacementId, message: NewMessage) -> usize {
    let mailbox = bed.mailbox("INBOX").id;
    match bed.run(AccountOp::Import { mailbox, id, email, message: Box::new(message) }) {
        Outcome::Appended { uids, .. } => uids.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ha_18_what_is_not_known_comes_back_as_it_was_and_only_once() {
    let mut bed = Bed::new();
    bed.append(&["here"]);
    let flags = Flags::of(&[SystemFlag::Flagged]);
    let (lost, next) = (NewMessage { flags: flags.clone(), ..message("lost") }, bed.mailbox("INBOX").uid_next);
    assert_eq!(import(&mut bed, theirs(1), theirs(1), lost.clone()), 1);
    let back = bed.placements("INBOX").pop().expect("placed");
    assert_eq!((back.id, back.email, back.uid), (theirs(1), theirs(1), next));
    assert_eq!((back.flags, back.internal_date, back.blob), (flags, lost.internal_date, lost.blob));
    assert_eq!(read::facts(&bed.rows, theirs(1)).expect("sound rows"), Some(lost.facts.clone()));
    assert!(bed.last.as_ref().is_some_and(|batch| batch.refs.iter().any(|r| r.placement == theirs(1) && r.present)));
    assert_eq!(import(&mut bed, theirs(1), theirs(1), lost.clone()), 0);
    assert!(bed.last.is_none(), "nothing is written for what is known");
    // A copy of what is here stays away, one of what is not comes with its facts.
    let here = bed.ids("INBOX")[0];
    assert_eq!(import(&mut bed, theirs(2), here, message("here")), 0);
    assert_eq!(import(&mut bed, theirs(3), theirs(4), message("moved")), 1);
    assert!(read::facts(&bed.rows, theirs(4)).expect("sound rows").is_some());
    // Expunged here, known for ever.
    let (mailbox, placements) = (bed.mailbox("INBOX").id, bed.ids("INBOX"));
    bed.run(AccountOp::Expunge { mailbox, placements: placements.clone(), only_deleted: false });
    for id in placements {
        assert_eq!(import(&mut bed, id, id, lost.clone()), 0);
        assert_eq!(import(&mut bed, theirs(9), id, lost.clone()), 0);
    }
    assert!(bed.ids("INBOX").is_empty());
    assert_eq!(read::emails(&bed.rows).expect("sound rows"), [], "facts went with the messages");
}
