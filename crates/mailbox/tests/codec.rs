//! Commands and outcomes survive their bytes; strangers' bytes never panic.

use bytes::Bytes;
use mailbox::codec::{decode_command, decode_op, decode_outcome, encode_command, encode_op, encode_outcome};
use mailbox::op::{AccountOp, Command, FlagMode, MailboxRef, NewMessage, Outcome, Refusal, Role};
use proptest::prelude::*;
use vocab::{
    BlobHash, Boot, CommandId, EpochId, Flags, Keyword, MailboxId, ModSeq, NodeId, PlacementId, Timestamp, UidValidity,
};

fn command_id() -> impl Strategy<Value = CommandId> {
    (any::<u32>(), any::<u32>(), any::<u64>(), any::<u32>()).prop_map(|(origin, boot, counter, recipient)| CommandId {
        origin: NodeId(origin),
        boot: Boot(boot),
        counter,
        recipient,
    })
}

fn mailbox_id() -> impl Strategy<Value = MailboxId> {
    (any::<u64>(), any::<u32>(), any::<u32>(), any::<u64>()).prop_map(|(number, author, home, counter)| MailboxId {
        epoch: EpochId { number, author },
        home: NodeId(home),
        counter,
    })
}

fn placements() -> impl Strategy<Value = Vec<PlacementId>> {
    prop::collection::vec(
        (command_id(), any::<u32>()).prop_map(|(command, index)| PlacementId { command, index }),
        0..4,
    )
}

fn flags() -> impl Strategy<Value = Flags> {
    (0..32_u8, prop::collection::vec("[a-z$]{1,8}", 0..3))
        .prop_map(|(system, words)| Flags { system, keywords: words.iter().filter_map(|w| Keyword::new(w)).collect() })
}

fn role() -> impl Strategy<Value = Role> {
    prop::sample::select(vec![Role::Inbox, Role::Drafts, Role::Sent, Role::Junk, Role::Trash, Role::Archive])
}

fn new_message() -> impl Strategy<Value = NewMessage> {
    (any::<[u8; 32]>(), any::<u64>(), any::<Vec<u8>>(), any::<Vec<u8>>(), flags(), any::<u64>()).prop_map(
        |(blob, blob_size, prefix, facts, flags, date)| NewMessage {
            blob: BlobHash(blob),
            blob_size,
            prefix: prefix.into(),
            facts: facts.into(),
            flags,
            internal_date: Timestamp(date),
        },
    )
}

fn op() -> impl Strategy<Value = AccountOp> {
    let target = prop_oneof![mailbox_id().prop_map(MailboxRef::Id), role().prop_map(MailboxRef::Role)];
    let mode = prop::sample::select(vec![FlagMode::Replace, FlagMode::Add, FlagMode::Remove]);
    prop_oneof![
        Just(AccountOp::Init),
        Just(AccountOp::Purge),
        (target, prop::collection::vec(new_message(), 0..3))
            .prop_map(|(mailbox, messages)| AccountOp::Append { mailbox, messages }),
        (mailbox_id(), placements(), mode, flags(), any::<Option<u64>>()).prop_map(
            |(mailbox, placements, mode, flags, since)| AccountOp::Store {
                mailbox,
                placements,
                mode,
                flags,
                unchanged_since: since.map(ModSeq),
            }
        ),
        (mailbox_id(), placements(), any::<bool>())
            .prop_map(|(mailbox, placements, only_deleted)| AccountOp::Expunge { mailbox, placements, only_deleted }),
        (mailbox_id(), mailbox_id(), placements()).prop_map(|(from, to, placements)| AccountOp::Copy {
            from,
            to,
            placements
        }),
        (mailbox_id(), mailbox_id(), placements()).prop_map(|(from, to, placements)| AccountOp::Move {
            from,
            to,
            placements
        }),
        (any::<String>(), prop::option::of(role())).prop_map(|(name, role)| AccountOp::CreateMailbox { name, role }),
        mailbox_id().prop_map(|mailbox| AccountOp::DeleteMailbox { mailbox }),
        (mailbox_id(), any::<String>()).prop_map(|(mailbox, name)| AccountOp::RenameMailbox { mailbox, name }),
        (any::<String>(), any::<bool>()).prop_map(|(name, subscribed)| AccountOp::Subscribe { name, subscribed }),
        (any::<String>(), any::<String>(), any::<Option<Vec<u8>>>())
            .prop_map(|(kind, name, body)| AccountOp::SetDocument { kind, name, body: body.map(Bytes::from) }),
        placements().prop_map(|ids| AccountOp::Restore { ids }),
        (mailbox_id(), placements(), new_message()).prop_map(|(mailbox, ids, message)| {
            let id = ids.first().copied().unwrap_or_default();
            let email = ids.last().copied().unwrap_or_default();
            AccountOp::Import { mailbox, id, email, message: Box::new(message) }
        }),
        any::<u64>().prop_map(|at| AccountOp::ForgetRecovered { older_than: Timestamp(at) }),
        any::<u32>().prop_map(|floor| AccountOp::RaiseUidValidity { floor: UidValidity(floor) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn commands_survive_their_bytes(id in command_id(), settled in any::<u64>(), op in op()) {
        prop_assert_eq!(decode_op(&encode_op(&op)), Ok(op.clone()));
        let command = Command { id, settled, op };
        prop_assert_eq!(decode_command(&encode_command(&command)), Ok(command));
    }

    #[test]
    fn any_bytes_are_read_without_panic(mut bytes in any::<Vec<u8>>()) {
        bytes.insert(0, 1);
        let _ = (decode_op(&bytes), decode_command(&bytes), decode_outcome(&bytes));
        bytes[0] = 2;
        prop_assert!(decode_op(&bytes).is_err() && decode_command(&bytes).is_err() && decode_outcome(&bytes).is_err());
    }
}

#[test]
fn every_refusal_survives_its_bytes() {
    for refusal in [
        Refusal::NoSuchMailbox,
        Refusal::MailboxExists,
        Refusal::BadName,
        Refusal::NotAllowed,
        Refusal::HasChildren,
        Refusal::Limit("batch bytes".to_owned()),
        Refusal::UnknownPlacement,
        Refusal::Settled,
        Refusal::NoSuchAccount,
    ] {
        let outcome = Outcome::Refused(refusal);
        assert_eq!(decode_outcome(&encode_outcome(&outcome)), Ok(outcome));
    }
}
