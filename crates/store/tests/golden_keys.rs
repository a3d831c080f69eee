//! The key layout is part of the format: these bytes never change within a format version.

use vocab::{AccountId, BlobHash, Boot, CommandId, NodeId, PlacementId, Table};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn keys_and_families_are_frozen() {
    let account = AccountId(0x0102_0304_0506_0708);
    let hash = BlobHash([0xab; 32]);
    let command = CommandId { origin: NodeId(2), boot: Boot(3), counter: 4, recipient: 5 };
    let placement = PlacementId { command, index: 6 };
    let lines = [
        format!("account {}", hex(&store::keys::account(account))),
        format!("generation {}", hex(&store::keys::generation(account, 9))),
        format!("table {}", hex(&store::keys::table(account, 9, Table::PLACEMENTS))),
        format!("row {}", hex(&store::keys::row(account, 9, Table::OUTCOMES, b"key"))),
        format!("link {}", hex(&store::keys::link(account, 10))),
        format!("undo {}", hex(&store::keys::undo_row(account, 10, Table::PLACEMENTS, b"key"))),
        format!("chunk {}", hex(&store::keys::chunk(hash, 11))),
        format!("blob_ref {}", hex(&store::keys::blob_ref(hash, account, 9, placement))),
        format!("archive {}", hex(&store::keys::archive("b1", b"key"))),
        format!("branch {}", hex(&store::keys::branch("b1"))),
        format!("record {}", hex(&store::keys::record("epoch"))),
        format!("stage {}", hex(&store::keys::stage(account))),
        format!("seed {}", hex(&store::keys::seed(account))),
        format!("format {} {}", hex(store::keys::FORMAT), hex(store::FORMAT_VERSION)),
        format!("families {}", store::families::ALL.join(" ")),
    ];
    assert_eq!(lines.join("\n"), include_str!("golden/keys.txt").trim_end());
}

#[test]
fn keys_give_back_what_went_in() {
    let (account, hash) = (AccountId(77), BlobHash([3; 32]));
    assert_eq!(store::keys::account_of(&store::keys::account(account)), Some(account));
    assert_eq!(store::keys::sequence_of(&store::keys::link(account, 5)), Some(5));
    assert_eq!(store::keys::chunk_of(&store::keys::chunk(hash, 6)), Some(6));
    let undo = store::keys::undo_row(account, 4, Table::FACTS, b"k");
    assert_eq!(store::keys::undone(&undo), Some((Table::FACTS, &b"k"[..])));
    let reference = store::keys::blob_ref(hash, account, 8, PlacementId::default());
    assert_eq!(store::keys::ref_owner(&reference), Some((hash, account, 8)));
    for short in [&[][..], &[1, 2, 3]] {
        assert_eq!(store::keys::account_of(short), None);
        assert_eq!(store::keys::sequence_of(short), None);
        assert_eq!(store::keys::chunk_of(short), None);
        assert_eq!(store::keys::undone(short), None);
        assert_eq!(store::keys::ref_owner(short), None);
    }
}
