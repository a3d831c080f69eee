//! Golden bytes: a row written by this release must stay readable, so its bytes may not change unnoticed.

use bytes::Bytes;
use mime::ThreadId;
use vocab::{
    BlobHash, Boot, CommandId, EpochId, Flags, Keyword, MailboxId, ModSeq, NodeId, PlacementId, SystemFlag, Timestamp,
    Uid, UidValidity,
};

use crate::former::{FLOOR_KEY, decode_former, encode_former};
use crate::op::{Outcome, Refusal, Role, StoredFlags};
use crate::rows::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn mailbox_id() -> MailboxId {
    MailboxId { epoch: EpochId { number: 1, author: 2 }, home: NodeId(3), counter: 4 }
}

fn id(counter: u64) -> PlacementId {
    let command = CommandId { origin: NodeId(1), boot: Boot(2), counter, recipient: 0 };
    PlacementId { command, index: 5 }
}

fn flags() -> Flags {
    let mut flags = Flags::of(&[SystemFlag::Seen, SystemFlag::Draft]);
    flags.keywords.extend(Keyword::new("$Junk"));
    flags
}

#[test]
fn mailbox_row() {
    let row = Mailbox {
        id: mailbox_id(),
        name: "Sent".to_owned(),
        uid_validity: UidValidity(1_700_000_000),
        uid_next: Uid(9),
        vanish_floor: ModSeq(3),
        role: Some(Role::Sent),
        subscribed: true,
        modseq: ModSeq(300),
        counts: Counts { messages: 4, unseen: 3, deleted: 2, bytes: 70_000 },
        renamed: Timestamp(0),
    };
    let key = mailbox_id().to_bytes();
    let fields = "0a0453656e741080e2cfaa06180920032803300138ac0240044803500258f0a204";
    // A row without news is one that the first release reads, whatever the format.
    for format in [RowFormat::LOWEST, RowFormat::HIGHEST] {
        let bytes = row.encode(format);
        assert_eq!(hex(&bytes), format!("01{fields}"));
        assert_eq!(Mailbox::decode(&key, &bytes), Ok(row.clone()));
        assert!(Mailbox::decode(&[1, 2], &bytes).is_err());
    }
    let renamed = Mailbox { renamed: Timestamp(1_700_000_000_123), ..row.clone() };
    let bytes = renamed.encode(RowFormat::RENAMES);
    assert_eq!(hex(&bytes), format!("02{fields}60fbd095ffbc31"));
    assert_eq!(Mailbox::decode(&key, &bytes), Ok(renamed.clone()));
    // For a member that reads only the first format what it has no field for is left out.
    let bytes = renamed.encode(RowFormat::LOWEST);
    assert_eq!(hex(&bytes), format!("01{fields}"));
    assert_eq!(Mailbox::decode(&key, &bytes), Ok(row));
    assert!(Mailbox::decode(&key, &[3, 0]).is_err(), "an unknown version is refused");
    assert!(Mailbox::decode(&key, &[2, 0]).is_err());
    assert!(Mailbox::decode(&key, &[]).is_err());
}

#[test]
fn former_name_row() {
    let bytes = encode_former(UidValidity(1_700_000_000));
    assert_eq!(hex(&bytes), "030880e2cfaa06");
    assert_eq!(decode_former(&bytes), Ok(UidValidity(1_700_000_000)));
    assert_eq!((hex(FLOOR_KEY), hex(&encode_former(UidValidity(0)))), ("00".to_owned(), "03".to_owned()));
    for broken in [&bytes[1..], &[1, 8, 1], &[3, 0], &[]] {
        assert!(decode_former(broken).is_err());
    }
}

#[test]
fn placement_row() {
    let mut row = Placement {
        uid: Uid(7),
        id: id(1),
        flags: flags(),
        modseq: ModSeq(11),
        created: ModSeq(10),
        email: id(2),
        thread: ThreadId([9; 16]),
        internal_date: Timestamp(1_700_000_000_000),
        blob: BlobHash([8; 32]),
        blob_size: 4000,
        prefix: Bytes::from_static(b"A: b\r\n"),
    };
    let key = placement_key(mailbox_id(), Uid(7));
    let bytes = row.encode();
    assert_eq!(
        hex(&bytes),
        "010a1800000001000000020000000000000001000000000000000510111a05244a756e6b200b280a32180000000100000002\
         000000000000000200000000000000053a10090909090909090909090909090909094080d095ffbc314a2008080808080808\
         0808080808080808080808080808080808080808080808080850a01f5a06413a20620d0a"
    );
    let short = UidRow { uid: row.uid, id: row.id, flags: row.flags.clone(), modseq: row.modseq };
    assert_eq!(UidRow::decode(&key, &bytes), Ok(short));
    assert_eq!(Placement::decode(&key, &bytes), Ok(row.clone()));
    // The first placement of a message names itself once.
    row.email = row.id;
    assert_eq!(Placement::decode(&key, &row.encode()), Ok(row));
}

#[test]
fn small_rows() {
    let expunged = Expunged { mailbox: mailbox_id(), uid: Uid(7), modseq: ModSeq(8), email: id(2), created: ModSeq(5) };
    let document = Document { body: Bytes::from_static(b"body"), changed: Timestamp(77) };
    let settled = Settled { boot: Boot(2), counter: 300 };
    let rows = [
        ("name", encode_name(Some(mailbox_id()))),
        ("subscribed name", encode_name(None)),
        ("place", encode_place(mailbox_id(), Uid(7))),
        ("tombstone", encode_tombstone(id(1))),
        ("expunged", expunged.encode(id(1))),
        ("document", document.encode()),
        ("settled", settled.encode()),
    ];
    let shown: Vec<String> = rows.iter().map(|(what, bytes)| format!("{what} {}", hex(bytes))).collect();
    assert_eq!(
        shown,
        [
            "name 010a18000000000000000100000002000000030000000000000004",
            "subscribed name 01",
            "place 010a180000000000000001000000020000000300000000000000041007",
            "tombstone 010a18000000010000000200000000000000010000000000000005",
            "expunged 010a1800000000000000010000000200000003000000000000000410071808221800000001000000020000000000000002\
             00000000000000052805",
            "document 010a04626f6479104d",
            "settled 01080210ac02"
        ]
    );
    assert_eq!(decode_name(&rows[0].1), Ok(Some(mailbox_id())));
    assert_eq!(decode_name(&rows[1].1), Ok(None));
    assert_eq!(decode_place(&rows[2].1), Ok((mailbox_id(), Uid(7))));
    assert_eq!(Expunged::decode(id(1), &rows[4].1), Ok(expunged));
    // As builds before states wrote it.
    let short = rows[4].1.slice(..31);
    assert_eq!(Expunged::decode(id(1), &short), Ok(Expunged { email: id(1), created: ModSeq(0), ..expunged }));
    assert_eq!(Document::decode(&rows[5].1), Ok(document));
    assert_eq!(Settled::decode(&rows[6].1), Ok(settled));
}

#[test]
fn keys() {
    let shown = [
        hex(&placement_key(mailbox_id(), Uid(7))),
        hex(&modseq_key(mailbox_id(), ModSeq(8), Uid(7))),
        hex(&facts_user_key(id(1), id(2))),
        hex(&document_key("k", "n")),
        hex(&settled_key(NodeId(5))),
    ];
    assert_eq!(
        shown.to_vec(),
        [
            "00000000000000010000000200000003000000000000000400000007",
            "000000000000000100000002000000030000000000000004000000000000000800000007",
            "000000010000000200000000000000010000000000000005000000010000000200000000000000020000000000000005",
            "6b006e",
            "00000005"
        ]
    );
    assert_eq!(uid_of_key(&modseq_key(mailbox_id(), ModSeq(8), Uid(7))), Ok(Uid(7)));
    assert!(uid_of_key(b"short").is_err());
}

#[test]
fn outcomes() {
    let uids = vec![Uid(1), Uid(300)];
    let all = [
        Outcome::Done,
        Outcome::Appended { mailbox: mailbox_id(), uid_validity: UidValidity(9), uids: uids.clone() },
        Outcome::Stored {
            stored: vec![StoredFlags { uid: Uid(1), flags: flags(), modseq: ModSeq(4) }],
            modified: uids.clone(),
        },
        Outcome::Expunged { uids, modseq: ModSeq(5) },
        Outcome::Copied { uid_validity: UidValidity(9), uids: vec![(Uid(1), Uid(2))] },
        Outcome::Created { mailbox: mailbox_id() },
        Outcome::Refused(Refusal::Limit("x".to_owned())),
    ];
    let shown: Vec<String> = all.iter().map(|o| hex(&crate::codec::encode_outcome(o))).collect();
    assert_eq!(
        shown,
        [
            "010a00",
            "0112210a1800000000000000010000000200000003000000000000000410091a0301ac02",
            "011a160a0f0801120908111205244a756e6b1804120301ac02",
            "0122070a0301ac021005",
            "012a0808091201011a0102",
            "013218000000000000000100000002000000030000000000000004",
            "013a050806120178"
        ]
    );
    for outcome in all {
        assert_eq!(crate::codec::decode_outcome(&crate::codec::encode_outcome(&outcome)), Ok(outcome));
    }
}
