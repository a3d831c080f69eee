//! Every rule of `apply`, and the JSON that Raft stores and ships.
#![allow(missing_docs)]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use topology::{ClusterState, ConfigOp, DocumentKind, EpochKind, EpochRecord, Member, Rejection, apply, prepare};
use vocab::{AccountId, Address, EpochId, NodeId};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const TOKEN: &str = "aa11bb22cc33dd44ee55ff6600112233445566778899aabbccddeeff00112233";
const OTHER: &str = "bb11bb22cc33dd44ee55ff6600112233445566778899aabbccddeeff00112233";

fn member(id: u32) -> Member {
    Member {
        id: NodeId(id),
        name: format!("node{id}"),
        peer_address: format!("192.0.2.{id}:6420"),
        address: format!("192.0.2.{id}"),
        data: true,
        paths: Vec::new(),
    }
}

fn found_op() -> ConfigOp {
    ConfigOp::Found {
        cluster_id: "c1".into(),
        name: "test".into(),
        member: member(1),
        cluster_address: Some("192.0.2.10".into()),
    }
}

/// Applies operations at rising indices.
struct Run {
    state: ClusterState,
    index: u64,
}

impl Run {
    fn founded() -> Self {
        let mut run = Self { state: ClusterState::default(), index: 0 };
        run.ok(found_op());
        run
    }
    fn pair() -> Self {
        let mut run = Self::founded();
        run.ok(ConfigOp::AddToken { hash: TOKEN.into(), expires: 100 });
        assert_eq!(run.ok(admit(TOKEN, 99, member(2))), Some(TWO));
        run
    }
    fn ok(&mut self, op: ConfigOp) -> Option<NodeId> {
        self.index += 1;
        let (state, given) = apply(&self.state, &op, self.index).expect("applies");
        assert_eq!(state.revision, self.index + 16);
        self.state = state;
        given
    }
    fn rejected(&self, op: ConfigOp) -> Rejection {
        apply(&self.state, &op, self.index + 1).expect_err("is rejected")
    }
    fn places(&self, op: ConfigOp) -> Vec<String> {
        match self.rejected(op) {
            Rejection::Faults(faults) => faults.into_iter().map(|fault| fault.place).collect(),
            Rejection::Conflict(what) => panic!("conflict: {what}"),
        }
    }
    fn conflict(&self, op: ConfigOp) -> String {
        match self.rejected(op) {
            Rejection::Conflict(what) => what,
            Rejection::Faults(faults) => panic!("faults: {faults:?}"),
        }
    }
}

fn admit(token: &str, now: u64, member: Member) -> ConfigOp {
    ConfigOp::Admit { token_hash: token.into(), now, member }
}

fn put(kind: DocumentKind, name: &str, body: Value) -> ConfigOp {
    ConfigOp::put(kind, name, body, None)
}

fn expecting(kind: DocumentKind, name: &str, revision: u64) -> ConfigOp {
    ConfigOp::put(kind, name, json!({}), Some(revision))
}

fn remove(kind: DocumentKind, name: &str) -> ConfigOp {
    ConfigOp::Remove { kind, name: name.into() }
}

fn address(text: &str) -> Address {
    Address::parse(text).expect("valid")
}

#[test]
fn founding_makes_one_node_joint_with_itself_and_happens_once() {
    let run = Run::founded();
    let epoch = run.state.epoch.clone().expect("an epoch");
    assert_eq!((epoch.kind, epoch.in_sync.as_slice(), epoch.home), (EpochKind::Joint, &[ONE][..], ONE));
    assert_eq!(run.state.next_node, 2);
    assert_eq!(run.conflict(found_op()), "the cluster exists");
    let early = apply(&ClusterState::default(), &remove(DocumentKind::Domain, "x.org"), 1);
    assert!(matches!(early, Err(Rejection::Conflict(_))));
}

#[test]
fn all_faults_of_founding_come_at_once() {
    let bad = ConfigOp::Found {
        cluster_id: String::new(),
        name: "a\nb".into(),
        member: Member {
            id: TWO,
            name: String::new(),
            peer_address: "here".into(),
            address: "x".into(),
            data: false,
            paths: vec!["there".into()],
        },
        cluster_address: Some("10.0.0.1:25".into()),
    };
    let empty = Run { state: ClusterState::default(), index: 0 };
    let places =
        ["cluster_id", "name", "member/id", "member/data", "member/name", "member/peer_address", "member/paths/0"];
    assert_eq!(empty.places(bad), [&places[..], &["member/address", "cluster_address"]].concat());
}

#[test]
fn a_token_admits_once_and_not_after_its_time() {
    let mut run = Run::founded();
    assert_eq!(run.places(admit(TOKEN, 1, member(2))), ["token"], "unknown");
    run.ok(ConfigOp::AddToken { hash: TOKEN.into(), expires: 100 });
    run.ok(ConfigOp::AddToken { hash: OTHER.into(), expires: 50 });
    assert_eq!(run.places(ConfigOp::AddToken { hash: TOKEN.into(), expires: 5 }), ["hash"], "twice");
    assert_eq!(run.places(ConfigOp::AddToken { hash: "AA".into(), expires: 0 }), ["hash", "expires"]);
    assert_eq!(run.places(admit(TOKEN, 100, member(2))), ["token"], "expired");
    assert_eq!(run.places(admit(TOKEN, 1, Member { peer_address: ":1".into(), ..member(2) })), ["member/peer_address"]);
    assert_eq!(run.ok(admit(TOKEN, 60, Member { id: NodeId(77), ..member(2) })), Some(TWO), "the id is given here");
    assert_eq!(run.state.members[&TWO], member(2));
    assert!(run.state.tokens.is_empty(), "consumed, and the expired one is gone");
    assert_eq!(run.places(admit(TOKEN, 60, member(3))), ["token"], "used");
}

#[test]
fn node_ids_are_never_reused_and_a_broken_off_join_gives_way() {
    let mut run = Run::pair();
    run.ok(ConfigOp::AddToken { hash: TOKEN.into(), expires: 100 });
    let clash = Member { name: "node1".into(), ..member(3) };
    assert_eq!(run.places(admit(TOKEN, 1, clash)), ["member/name"], "a member of the epoch keeps its name");
    assert_eq!(run.ok(admit(TOKEN, 1, member(2))), Some(NodeId(3)), "node 2 never was in an epoch");
    assert_eq!(run.state.members.keys().copied().collect::<Vec<_>>(), [ONE, NodeId(3)]);
}

#[test]
fn one_witness_and_three_nodes_with_mail_fit_in() {
    let mut run = Run::founded();
    let witness = |id| Member { data: false, ..member(id) };
    let token = || ConfigOp::AddToken { hash: TOKEN.into(), expires: 100 };
    for (id, new) in [(2, member(2)), (3, witness(3)), (4, member(4))] {
        run.ok(token());
        assert_eq!(run.ok(admit(TOKEN, 1, new)), Some(NodeId(id)));
    }
    run.ok(token());
    assert_eq!(run.places(admit(TOKEN, 1, witness(5))), ["member"], "a second witness");
    run.ok(set(1, epoch(2, EpochKind::Joint, &[ONE, TWO, NodeId(4)], &[ONE, TWO, NodeId(4)])));
    assert_eq!(run.places(admit(TOKEN, 1, member(5))), ["member"], "a fourth node with mail");
    assert_eq!(
        run.ok(admit(TOKEN, 1, witness(3))),
        Some(NodeId(5)),
        "a witness joins anew in the place of the old one"
    );
    assert!(!run.state.members.contains_key(&NodeId(3)));
}

fn epoch(number: u64, kind: EpochKind, members: &[NodeId], in_sync: &[NodeId]) -> EpochRecord {
    EpochRecord {
        id: EpochId { number, author: 0 },
        kind,
        members: members.to_vec(),
        in_sync: in_sync.to_vec(),
        home: in_sync.first().copied().unwrap_or_default(),
        homes: BTreeMap::new(),
        parents: Vec::new(),
        certain: false,
        on_silence: false,
        anchor: None,
        guest: None,
        gap: false,
    }
}

fn set(expect: u64, record: EpochRecord) -> ConfigOp {
    ConfigOp::SetEpoch { expect: EpochId { number: expect, author: 0 }, record }
}

#[test]
fn the_register_is_compare_and_set() {
    let mut run = Run::pair();
    let heal = EpochRecord { anchor: Some(ONE), guest: Some(TWO), ..epoch(2, EpochKind::Heal, &[ONE, TWO], &[ONE]) };
    run.ok(set(1, heal.clone()));
    let late = EpochRecord { id: EpochId { number: 9, author: 0 }, ..heal };
    assert_eq!(run.conflict(set(1, late)), "the register holds epoch 2.0, not 1.0");
    run.ok(set(2, epoch(3, EpochKind::Joint, &[ONE, TWO], &[ONE, TWO])));
    assert_eq!(run.state.epoch.as_ref().map(|epoch| epoch.in_sync.len()), Some(2));
}

#[test]
fn epochs_of_two_lives_of_the_settings_never_have_one_id() {
    let mut run = Run::pair();
    run.ok(set(1, epoch(2, EpochKind::Joint, &[ONE, TWO], &[ONE, TWO])));
    // Decided by the lost voters, and proposed by the survivor that was made the only one.
    let next = |node: NodeId| epoch(3, EpochKind::Reduced, &[ONE, TWO], &[node]);
    let index = |life: u64| life * topology::LIFE_SPAN + 900;
    let first = topology::apply(&run.state, &set(2, next(TWO)), index(0)).expect("decided").0;
    let later = topology::apply(&run.state, &set(2, next(ONE)), index(1)).expect("decided").0;
    let id = |state: &ClusterState| state.epoch.as_ref().map(|r| r.id.number).expect("an epoch");
    assert_eq!((id(&first), id(&later)), (3, topology::LIFE_SPAN + 3));
    let after = topology::apply(
        &later,
        &set(id(&later), epoch(id(&later) + 1, EpochKind::Joint, &[ONE, TWO], &[ONE, TWO])),
        index(1),
    );
    assert_eq!(id(&after.expect("decided").0), topology::LIFE_SPAN + 4, "once is enough");
}

#[test]
fn an_epoch_is_above_the_register_and_every_parent() {
    let run = Run::pair();
    assert_eq!(run.places(set(1, epoch(1, EpochKind::Joint, &[ONE], &[ONE]))), ["epoch/id"]);
    let parents = vec![EpochId { number: 5, author: 2 }, EpochId { number: 1, author: 0 }];
    let below = EpochRecord { parents: parents.clone(), ..epoch(5, EpochKind::Joint, &[ONE], &[ONE]) };
    assert_eq!(run.places(set(1, below)), ["epoch/id"]);
    let above = EpochRecord { parents, ..epoch(6, EpochKind::Joint, &[ONE], &[ONE]) };
    assert!(apply(&run.state, &set(1, above), 9).is_ok());
}

#[test]
fn the_sets_of_an_epoch_fit_each_other() {
    let mut run = Run::pair();
    let faults = |record| run.places(set(1, record));
    let nine = NodeId(9);
    assert_eq!(faults(epoch(2, EpochKind::Joint, &[ONE, nine], &[ONE, nine])), ["epoch/members"]);
    assert_eq!(faults(epoch(2, EpochKind::Reduced, &[ONE], &[])), ["epoch/in_sync", "epoch/home"]);
    assert_eq!(faults(epoch(2, EpochKind::Reduced, &[ONE], &[ONE, TWO])), ["epoch/in_sync"]);
    assert_eq!(faults(epoch(2, EpochKind::Reduced, &[TWO, ONE], &[ONE])), ["epoch/members"]);
    assert_eq!(faults(epoch(2, EpochKind::Joint, &[ONE, TWO], &[ONE])), ["epoch/in_sync"]);
    assert_eq!(faults(epoch(2, EpochKind::Solo, &[ONE, TWO], &[ONE, TWO])), ["epoch/in_sync"]);
    assert_eq!(faults(epoch(2, EpochKind::Heal, &[ONE, TWO], &[ONE])), ["epoch/anchor", "epoch/guest"]);
    let homes = BTreeMap::from([(3, TWO), (64, ONE)]);
    let odd = EpochRecord { homes, ..epoch(2, EpochKind::Reduced, &[ONE, TWO], &[ONE]) };
    assert_eq!(faults(odd), ["epoch/homes/3", "epoch/homes/64"]);
    run.ok(ConfigOp::AddToken { hash: TOKEN.into(), expires: 100 });
    run.ok(admit(TOKEN, 1, Member { data: false, ..member(3) }));
    let witness = epoch(2, EpochKind::Joint, &[ONE, NodeId(3)], &[ONE, NodeId(3)]);
    assert_eq!(run.places(set(1, witness)), ["epoch/members"], "a witness stores no mail");
}

#[test]
fn account_ids_are_above_the_system_accounts_and_stay() {
    let mut run = Run::founded();
    run.ok(put(DocumentKind::Domain, "Exämple.ORG.", json!({"default": true})));
    run.ok(put(DocumentKind::Account, "Bob@exämple.org", json!({"name": "Bob"})));
    let id = run.state.account_id(&address("BOB+news@xn--exmple-cua.org")).expect("found by any spelling");
    assert_eq!(id, AccountId(3 + 16));
    run.ok(put(DocumentKind::Account, "bob@exämple.org", json!({"enabled": false})));
    let account = run.state.account_by_id(id).expect("by id");
    assert_eq!((account.id, account.body.enabled), (id, false), "a change keeps the id");
    assert_eq!(account.address.to_string(), "bob@xn--exmple-cua.org");
    assert_eq!(run.state.accounts().count(), 1);
    run.ok(remove(DocumentKind::Account, "bob@exämple.org"));
    run.ok(put(DocumentKind::Account, "bob@exämple.org", json!({})));
    assert_ne!(run.state.account_id(&account.address), Some(id), "a new account is another one");
    let default = run.state.default_domain().map(|domain| domain.to_string());
    assert_eq!(default.as_deref(), Some("xn--exmple-cua.org"));
    run.ok(put(DocumentKind::Account, "\"A b\\\"\"@exämple.org", json!({})));
    assert!(run.state.account_id(&address("\"a B\\\"\"@exämple.org")).is_some(), "quoted local parts too");
}

#[test]
fn documents_refer_to_what_exists() {
    let mut run = Run::founded();
    assert_eq!(run.places(put(DocumentKind::Account, "a@x.org", json!({}))), ["account/a@x.org"]);
    run.ok(put(DocumentKind::Domain, "x.org", json!({})));
    run.ok(put(DocumentKind::Account, "a@x.org", json!({})));
    let alias = put(DocumentKind::Alias, "A@X.org", json!({"targets": ["b@y.org"]}));
    assert_eq!(run.places(alias), ["alias/a@x.org"], "an account has this name");
    run.ok(put(DocumentKind::Alias, "info@x.org", json!({"targets": ["a@x.org", "b@elsewhere.org"]})));
    assert_eq!(run.places(put(DocumentKind::Account, "info@x.org", json!({}))), ["account/info@x.org"]);
    assert_eq!(run.places(remove(DocumentKind::Domain, "x.org")), ["domain/x.org", "domain/x.org"]);
    assert_eq!(run.state.alias(&address("Info@x.org")).map(|targets| targets.len()), Some(2));
    run.ok(remove(DocumentKind::Alias, "INFO@x.org"));
    run.ok(remove(DocumentKind::Account, "a@x.org"));
    run.ok(remove(DocumentKind::Domain, "X.org"));
    assert_eq!(run.places(remove(DocumentKind::Domain, "x.org")), ["domain/x.org"], "does not exist");
}

#[test]
fn bodies_are_checked_with_all_faults() {
    let mut run = Run::founded();
    run.ok(put(DocumentKind::Domain, "x.org", json!({"default": true})));
    let both = put(DocumentKind::Account, "a@y.org", json!({"quota_bytes": 0, "name": "a\u{7}"}));
    let place = "account/a@y.org";
    assert_eq!(run.places(both), [place, "account/a@y.org/body/quota_bytes", "account/a@y.org/body/name"]);
    let unknown = put(DocumentKind::Account, "a@x.org", json!({"password": "no"}));
    assert!(matches!(run.rejected(unknown), Rejection::Faults(faults) if faults[0].place.ends_with("password")));
    let second = put(DocumentKind::Domain, "y.org", json!({"default": true}));
    assert_eq!(run.places(second), ["domain/y.org/body/default"]);
    run.ok(put(DocumentKind::Domain, "x.org", json!({"default": true})));
    assert_eq!(run.places(put(DocumentKind::Alias, "i@x.org", json!({"targets": []}))), ["alias/i@x.org/body/targets"]);
    let bad = put(DocumentKind::Alias, "i@x.org", json!({"targets": ["ok@z.org", "nope", "I+a@x.org"]}));
    assert_eq!(run.places(bad), ["alias/i@x.org/body/targets/2", "alias/i@x.org/body/targets/1"]);
    run.ok(put(DocumentKind::Alias, "i@x.org", json!({"targets": ["j@x.org"]})));
    let circle = put(DocumentKind::Alias, "j@x.org", json!({"targets": ["i@x.org"]}));
    assert_eq!(run.places(circle), ["alias/j@x.org/body/targets/0"]);
    for (kind, name) in [
        (DocumentKind::Domain, "[192.0.2.1]"),
        (DocumentKind::Account, "a+b@x.org"),
        (DocumentKind::Alias, "x.org"),
        (DocumentKind::Setting, "Relay Host"),
    ] {
        assert_eq!(run.places(put(kind, name, json!({}))), [format!("{}/{name}", kind.as_str())]);
    }
}

#[test]
fn settings_are_read_by_name() {
    let mut run = Run::founded();
    run.ok(put(DocumentKind::Setting, "relay_host", json!("smtp.example.net:587")));
    assert_eq!(run.state.setting("relay_host"), Some(&json!("smtp.example.net:587")));
    assert_eq!(run.state.setting("other"), None);
    assert_eq!(run.places(put(DocumentKind::Setting, "relay_host", json!(null))), ["setting/relay_host/body"]);
}

#[test]
fn a_put_can_compare() {
    let mut run = Run::founded();
    run.ok(expecting(DocumentKind::Domain, "x.org", 0));
    assert_eq!(run.conflict(expecting(DocumentKind::Domain, "x.org", 0)), "domain x.org exists already");
    let revision = run.state.document(DocumentKind::Domain, "x.org").expect("there").revision;
    assert_eq!(revision, run.state.revision);
    run.ok(expecting(DocumentKind::Domain, "x.org", revision));
    let stale = run.conflict(expecting(DocumentKind::Domain, "x.org", revision));
    assert_eq!(stale, "domain x.org is at revision 19, not 18");
    assert_eq!(run.conflict(expecting(DocumentKind::Domain, "y.org", 5)), "domain y.org does not exist any more");
}

fn addresses(all: &[&str]) -> ConfigOp {
    ConfigOp::SetAddresses { addresses: all.iter().map(|text| text.parse().expect(text)).collect() }
}

#[test]
fn ha_19_the_cluster_addresses_are_one_of_each_family_and_no_nodes_own() {
    let mut run = Run::pair();
    run.ok(addresses(&["2001:db8::20/64", "192.0.2.20/24"]));
    assert_eq!(topology::listed(&run.state.cluster_addresses), "192.0.2.20/24 and 2001:db8::20/64");
    let bad = addresses(&["192.0.2.2/24", "192.0.2.21", "ff02::1", "0.0.0.0"]);
    let places = run.places(bad);
    assert_eq!(places, ["addresses/0", "addresses/1", "addresses/2", "addresses/3", "addresses/3"]);
    let shared = |id| Member { address: "192.0.2.20".into(), ..member(id) };
    assert_eq!(run.places(ConfigOp::Readdress { member: shared(2) }), ["member/address"]);
    run.ok(ConfigOp::AddToken { hash: OTHER.into(), expires: 100 });
    assert_eq!(run.places(admit(OTHER, 99, shared(3))), ["member/address"]);
    run.ok(addresses(&[]));
    assert!(run.state.cluster_addresses.is_empty());
    for text in ["192.0.2.20/33", "192.0.2.20/0", "192.0.2.20/", "2001:db8::20/129", "192.0.2.20:25", "host"] {
        assert!(text.parse::<topology::ClusterAddress>().is_err(), "{text}");
    }
}

#[test]
fn ha_19_a_state_with_one_address_reads_and_writes_as_before_there_were_two() {
    let mut run = Run::pair();
    for (all, text) in [
        (&[][..], "null"),
        (&["192.0.2.10"], "\"192.0.2.10\""),
        (&["192.0.2.10/24"], "[\"192.0.2.10/24\"]"),
        (&["192.0.2.10", "2001:db8::1/64"], "[\"192.0.2.10\",\"2001:db8::1/64\"]"),
    ] {
        run.ok(addresses(all));
        let written = serde_json::to_string(&run.state).expect("json");
        assert!(written.contains(&format!("\"cluster_address\":{text},")), "{written}");
        assert_eq!(serde_json::from_str::<ClusterState>(&written).expect("reads"), run.state);
    }
}

/// What Raft stores must be readable for ever: one sample of each operation, byte for byte.
#[test]
fn golden_json_of_every_operation() {
    let heal = EpochRecord {
        homes: BTreeMap::from([(3, ONE)]),
        parents: vec![EpochId { number: 1, author: 0 }, EpochId { number: 2, author: 1 }],
        anchor: Some(ONE),
        guest: Some(TWO),
        gap: true,
        ..epoch(3, EpochKind::Heal, &[ONE, TWO], &[ONE])
    };
    let samples = [
        found_op(),
        ConfigOp::AddToken { hash: TOKEN.into(), expires: 100 },
        admit(TOKEN, 99, member(2)),
        set(1, heal),
        ConfigOp::put(DocumentKind::Account, "a@x.org", json!({"enabled": true, "quota_bytes": 5}), Some(0)),
        put(DocumentKind::Alias, "i@x.org", json!({"targets": ["a@x.org"]})),
        remove(DocumentKind::Setting, "relay_host"),
        addresses(&["192.0.2.20/24", "2001:db8::20"]),
        ConfigOp::Put {
            kind: DocumentKind::Setting,
            name: "log".into(),
            body: json!({"copy": true}),
            expect: None,
            judged: true,
        },
    ];
    let golden: Vec<&str> = include_str!("golden/operations.json").lines().collect();
    let written: Vec<String> = samples.iter().map(|op| serde_json::to_string(op).expect("json")).collect();
    assert_eq!(written, golden, "{}", written.join("\n"));
    for (line, sample) in golden.iter().zip(samples) {
        assert_eq!(serde_json::from_str::<ConfigOp>(line).expect("reads"), sample);
    }
}

#[test]
fn golden_json_of_the_state() {
    let mut run = Run::pair();
    run.ok(ConfigOp::AddToken { hash: OTHER.into(), expires: 100 });
    run.ok(put(DocumentKind::Domain, "x.org", json!({"default": true})));
    run.ok(put(DocumentKind::Account, "a@x.org", json!({})));
    let golden = include_str!("golden/state.json").trim_end();
    let written = serde_json::to_string(&run.state).expect("json");
    assert_eq!(written, golden, "{written}");
    assert_eq!(serde_json::from_str::<ClusterState>(golden).expect("reads"), run.state);
}

#[test]
fn ha_16_a_member_goes_only_when_nothing_hangs_on_it() {
    let run = Run::pair();
    let first = run.state.epoch.clone().expect("an epoch").id;
    let gone = |node: u32, epoch| ConfigOp::RemoveMember { node: NodeId(node), epoch };
    assert_eq!(run.places(gone(9, first)), ["node"], "nobody has this id");
    assert_eq!(run.places(gone(1, first)), ["node"], "in sync");
    let mut removed = Run { state: run.state.clone(), index: run.index };
    removed.ok(gone(2, first));
    assert_eq!(removed.state.members.keys().copied().collect::<Vec<_>>(), [ONE]);
    assert_eq!(removed.places(gone(1, EpochId { number: 9, author: 1 })), ["node"], "the last one that stores mail");
    removed.ok(ConfigOp::AddToken { hash: OTHER.into(), expires: 100 });
    assert_eq!(removed.ok(admit(OTHER, 99, member(2))), Some(NodeId(3)), "under its name, never under its id");
    // An epoch of the home's own, newer than the register: nobody else is in sync in it.
    let mut alone = Run { state: run.state.clone(), index: run.index };
    let joint = EpochRecord {
        id: EpochId { number: 2, author: 0 },
        members: vec![ONE, TWO],
        in_sync: vec![ONE, TWO],
        parents: vec![first],
        ..alone.state.epoch.clone().expect("an epoch")
    };
    alone.ok(ConfigOp::SetEpoch { expect: first, record: joint });
    assert!(alone.conflict(gone(2, first)).contains("ask again"), "an epoch the home did not know yet");
    assert_eq!(alone.places(gone(2, EpochId { number: 2, author: 0 })), ["node"]);
    alone.ok(gone(2, EpochId { number: 3, author: 1 }));
    // A witness holds nothing.
    let mut voted = Run::pair();
    voted.ok(ConfigOp::AddToken { hash: OTHER.into(), expires: 100 });
    voted.ok(admit(OTHER, 99, Member { data: false, ..member(3) }));
    voted.ok(gone(3, EpochId::default()));
    assert_eq!(voted.state.members.len(), 2);
}

#[test]
fn homes_are_spread_by_a_setting_that_says_so() {
    let mut run = Run::pair();
    assert!(!run.state.spreads_homes(), "together unless said");
    let homes = |body| put(DocumentKind::Setting, topology::HOMES_SETTING, body);
    assert_eq!(run.places(homes(json!({ "spread": "yes" }))), ["setting/homes/body"]);
    assert_eq!(run.places(homes(json!({ "spread": true, "by": 2 }))), ["setting/homes/body/by"]);
    run.ok(homes(json!({ "spread": true })));
    assert!(run.state.spreads_homes());
    run.ok(homes(json!({ "spread": false })));
    assert!(!run.state.spreads_homes());
}

#[test]
fn ha_20_a_primary_is_preferred_by_a_setting_that_names_a_node_with_mail() {
    let mut run = Run::pair();
    assert_eq!(run.state.primary(), None);
    let primary = |body| put(DocumentKind::Setting, topology::PRIMARY_SETTING, body);
    assert_eq!(run.places(primary(json!({ "node": 9 }))), ["setting/primary/body/node"]);
    assert_eq!(run.places(primary(json!({ "failback": "often" }))), ["setting/primary/body"]);
    for settle in [0, topology::SETTLE_S_MAX + 1] {
        assert_eq!(run.places(primary(json!({ "settle_s": settle }))), ["setting/primary/body/settle_s"]);
    }
    run.ok(primary(json!({ "node": 1, "failback": "auto" })));
    let (revision, body) = run.state.primary().expect("said");
    assert_eq!((body.node, body.failback, body.settle_s), (Some(1), topology::Failback::Auto, topology::SETTLE_S));
    run.ok(primary(json!({ "node": 1, "failback": "auto" })));
    assert!(run.state.primary().is_some_and(|(again, _)| again > revision), "said again is said anew");
    run.state.members.remove(&NodeId(1));
    assert_eq!(run.state.primary(), None, "a node that is gone is not preferred");
}

#[test]
fn a_node_says_where_it_is_to_be_found() {
    let mut run = Run::pair();
    let moved = Member { address: "192.0.2.22".into(), peer_address: "10.0.0.2:6420".into(), ..member(2) };
    let paths = vec!["192.0.2.22:6420".to_owned()];
    let moved = Member { paths, name: "other".into(), data: false, ..moved };
    let readdress = |member: &Member| ConfigOp::Readdress { member: member.clone() };
    run.ok(readdress(&moved));
    let now = &run.state.members[&TWO];
    assert_eq!(now.peer_addresses(), ["10.0.0.2:6420", "192.0.2.22:6420"]);
    assert!(now.name == "node2" && now.data, "name and kind stay");
    assert_eq!(run.places(readdress(&Member { id: NodeId(7), ..moved.clone() })), ["member/id"]);
    let taken = Member { paths: vec!["192.0.2.1:6420".into()], ..moved.clone() };
    assert_eq!(run.places(readdress(&taken)), ["member/peer_address"], "the other node's");
    let many = vec!["10.0.0.9:1".to_owned(); 4];
    assert_eq!(run.places(readdress(&Member { paths: many, ..moved })), ["member/paths"]);
}

#[test]
fn ha_14_a_program_that_knows_less_than_the_leader_keeps_the_same_state_and_reads_what_it_knows() {
    let mut run = Run::founded();
    run.ok(put(DocumentKind::Domain, "x.org", json!({})));
    // Of a newer leader: a field and a value that this program would refuse.
    let newer = |kind, name: &str, body| ConfigOp::Put { kind, name: name.into(), body, expect: None, judged: true };
    let body = json!({ "name": "Ann", "quota_bytes": 0, "colour": { "of": "hat" } });
    run.ok(newer(DocumentKind::Account, "ann@x.org", body.clone()));
    let account = run.state.account(&Address::parse("ann@x.org").expect("address")).expect("is still there");
    assert_eq!((account.body.name.as_str(), account.body.enabled), ("Ann", true));
    assert_eq!(run.state.document(DocumentKind::Account, "ann@x.org").expect("kept").body, body);
    run.ok(newer(DocumentKind::Setting, "log", json!({ "copy": true, "shelf": 3 })));
    assert!(run.state.log().copy);
    // What depends on other documents is judged when it is applied: another change may have come before.
    assert!(matches!(run.rejected(newer(DocumentKind::Account, "ann@gone.org", json!({}))), Rejection::Faults(_)));
    assert!(matches!(
        run.rejected(newer(DocumentKind::Alias, "ann@x.org", json!({ "targets": ["b@x.org"] }))),
        Rejection::Faults(_)
    ));
    // Proposed here, the same is refused, with the place of each fault.
    let refused = prepare(&run.state, &put(DocumentKind::Account, "bob@x.org", body)).expect_err("refused");
    let text = refused.to_string();
    assert!(text.contains("account/bob@x.org/body/colour: is unknown"), "{text}");
    assert!(text.contains("account/bob@x.org/body/quota_bytes"), "{text}");
    let nested = json!({ "keep": { "days": 3, "shelves": 1 } });
    let text = prepare(&run.state, &put(DocumentKind::Setting, "log", nested)).expect_err("refused").to_string();
    assert!(text.contains("setting/log/body/keep/shelves"), "{text}");
}

#[test]
fn what_the_leader_prepares_is_in_stored_form_and_judged_by_it_alone() {
    let mut run = Run::founded();
    run.ok(put(DocumentKind::Domain, "x.org", json!({})));
    let op = prepare(&run.state, &put(DocumentKind::Account, "Ann@X.org", json!({}))).expect("good");
    let ConfigOp::Put { name, judged, .. } = &op else { panic!("{op:?}") };
    assert_eq!((name.as_str(), *judged), ("ann@x.org", true));
    run.ok(op);
    assert!(run.state.account(&Address::parse("ANN@x.org").expect("address")).is_some());
    // A proposer cannot say that it was judged.
    let claimed = ConfigOp::Put {
        kind: DocumentKind::Account,
        name: "b@x.org".into(),
        body: json!(7),
        expect: None,
        judged: true,
    };
    assert!(prepare(&run.state, &claimed).is_err());
}
