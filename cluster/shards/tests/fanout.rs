//! Messages for accounts of several homes: one accept record is the commit, the fan-out places them once whatever breaks
//! on the way. Two engines over real stores, each of them home of half of the shards.

#[allow(dead_code, reason = "shared with other tests")]
mod pair;

use std::sync::atomic::Ordering;

use bytes::Bytes;
use mailbox::op::{AccountOp, MailboxRef, Outcome, Role};
use pair::{ALICE, Node, Pair, local, message, until};
use ports::accounts::Accounts as _;
use ports::blobs::Blobs as _;
use ports::intake::{Intake as _, Recipient};
use ports::mail_store::MailStore as _;
use ports::outbox::Outbox as _;
use queue::{AcceptRecord, Accepted, AttemptResult, Failure, LocalRecipient, QueueItem, QueueOp, QueueOutcome};
use topology::{ConfigOp, DocumentKind};
use vocab::{
    AccountId, Address, BlobHash, CommandId, InlineBody, MailboxId, NodeId, PlacementId, ReversePath, StoreWrite,
    Timestamp,
};

/// An account whose home is not Alice's: shards take the nodes in turn, but for that of the queue.
fn bob() -> AccountId {
    let queue = AccountId::QUEUE.shard();
    assert_ne!(ALICE.shard(), queue);
    let fits = |id: &AccountId| (id.shard().0 + ALICE.shard().0) % 2 == 1 && id.shard() != queue;
    (100..).map(AccountId).find(fits).expect("one of many")
}

fn both() -> [AccountId; 2] {
    [ALICE, bob()]
}

fn remote(number: u32) -> Recipient {
    Recipient::Remote { number, address: Address::parse("x@elsewhere.example").expect("address"), original: None }
}

/// Alice, Bob, and somebody elsewhere.
fn everybody() -> Vec<Recipient> {
    vec![local(1, ALICE), local(2, bob()), remote(3)]
}

impl Pair {
    /// The body as the batch with the record carries it: on every disk.
    async fn keep(&self, body: &Bytes) {
        for node in &self.nodes {
            let body = InlineBody { hash: BlobHash::of(body), bytes: body.clone() };
            node.store.write(vec![StoreWrite::Bodies(vec![body])]).await;
        }
    }
}

impl Node {
    fn accepts(&self) -> Vec<AcceptRecord> {
        queue::read::accepts(&*self.store.snapshot(AccountId::QUEUE), 99).expect("rows")
    }

    fn items(&self) -> Vec<QueueItem> {
        queue::read::list(&*self.store.snapshot(AccountId::QUEUE), 99).expect("rows")
    }

    fn placed(&self) -> [usize; 2] {
        both().map(|account| self.on_disk_of(account))
    }

    /// The accept record alone, as the home of the queue has it when it dies before it hears of its own commit.
    async fn promise(&self, accept: CommandId, body: &Bytes, accounts: &[AccountId]) {
        let blob = BlobHash::of(body);
        let recipient = |(number, account): (u32, &AccountId)| LocalRecipient {
            number,
            account: *account,
            prefix: Bytes::from_static(b"X: y\r\n"),
        };
        let record = AcceptRecord {
            accept,
            reverse_path: ReversePath::Null,
            recipients: (1..).zip(accounts).map(recipient).collect(),
            blob,
            size: body.len() as u64,
            facts: mime::facts_of(body).encode(),
            smtputf8: false,
            eight_bit: false,
            accepted_at: Timestamp(1_700_000_000_000),
            owner: None,
        };
        let accepted = Accepted { accept, settled: 0, items: Vec::new(), record: Some(record) };
        let outcome = self.engine.outbox().submit(QueueOp::Accept(Box::new(accepted)), Vec::new()).await;
        assert_eq!(outcome, Ok(QueueOutcome::Done));
    }

    fn fresh(&self) -> CommandId {
        self.engine.accounts().command_id()
    }

    async fn mailbox(&self, name: &str) -> MailboxId {
        let rows = self.engine.accounts().snapshot(ALICE).await.expect("readable");
        mailbox::read::mailbox_by_name(&*rows, name).expect("rows").expect("there").id
    }

    async fn run(&self, op: AccountOp) -> Outcome {
        self.engine.accounts().submit(ALICE, self.fresh(), op).await.expect("done")
    }
}

async fn until_settled(pair: &Pair) {
    until("no accept record waits", || pair.nodes.iter().all(|node| node.accepts().is_empty())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h14_a_message_for_several_homes_is_placed_with_everybody_once() {
    let pair = Pair::spread().await;
    for (n, from) in [(1, 0), (2, 1)] {
        let (node, body) = (&pair.nodes[from], message(&format!("number {n}")));
        let accept = node.fresh();
        node.send_to(accept, everybody(), &body).await.expect("accepted");
        // From here on two disks owe it to everybody.
        let owed = |node: &Node| node.accepts().len() == 1 || node.placed() == [n, n];
        assert!(pair.nodes.iter().all(owed));
        until_settled(&pair).await;
        let own = pair.nodes.iter().map(Node::placed);
        assert!(own.eq([[n, n]; 2]), "{:?}", pair.nodes[0].placed());
        node.send_to(accept, everybody(), &body).await.expect("accepted again");
        until_settled(&pair).await;
        for node in &pair.nodes {
            assert_eq!((node.placed(), node.items().len()), ([n, n], n));
            assert!(node.store.is_blob_sound(BlobHash::of(&body)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h14_a_large_body_is_kept_while_its_record_waits_and_placed_from_it() {
    let pair = Pair::spread().await;
    let body = Bytes::from([b"Subject: large\r\n\r\n".to_vec(), b"0123456789abcdef\r\n".repeat(60_000)].concat());
    let accept = pair.nodes[1].fresh();
    pair.nodes[1].send_to(accept, everybody(), &body).await.expect("accepted");
    until_settled(&pair).await;
    for node in &pair.nodes {
        assert_eq!(node.placed(), [1, 1]);
        assert_eq!(node.store.blob(BlobHash::of(&body), 0, u64::MAX).as_ref(), Some(&body));
    }
}

/// What the home of the queue has done of the fan-out when it dies: nothing, a part, all but the settling.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h14_whoever_takes_over_finishes_what_was_begun() {
    for done in [&[][..], &both()[..1], &both()[..]] {
        let mut pair = Pair::spread().await;
        let (body, accept) = (message("promised"), pair.nodes[0].fresh());
        for (number, account) in (1..).zip(done) {
            let recipients = vec![local(number, *account)];
            pair.nodes[0].send_to(accept, recipients, &body).await.expect("placed");
        }
        pair.keep(&body).await;
        pair.nodes[0].promise(accept, &body, &both()).await;
        pair.kill(0);
        until("the survivor has fanned it out", || pair.nodes[1].accepts().is_empty()).await;
        assert_eq!(pair.nodes[1].placed(), [1, 1], "{} were placed before", done.len());
        pair.restart(0).await;
        pair.until_joint().await;
        until_settled(&pair).await;
        assert_eq!((pair.nodes[0].placed(), pair.nodes[1].placed()), ([1, 1], [1, 1]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h14_a_home_that_comes_back_finishes_what_it_promised() {
    let mut pair = Pair::spread().await;
    let (body, accept) = (message("promised"), pair.nodes[0].fresh());
    pair.kill(1);
    until("the home goes on alone", || pair.nodes[0].status().epoch_kind == "solo").await;
    pair.keep(&body).await;
    pair.nodes[0].promise(accept, &body, &both()).await;
    pair.restart(1).await;
    pair.until_joint().await;
    until_settled(&pair).await;
    assert_eq!((pair.nodes[0].placed(), pair.nodes[1].placed()), ([1, 1], [1, 1]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h14_the_home_is_killed_while_messages_come_in_and_none_is_lost_or_doubled() {
    let mut pair = Pair::spread().await;
    let mut sent = 0;
    for round in 0..3 {
        let (home, other) = if pair.nodes[0].engine.outbox().is_worker() { (0, 1) } else { (1, 0) };
        // Killed at once after the answer, so anywhere in the fan-out.
        for n in 0..=round * 3 {
            let accept = pair.nodes[other].fresh();
            let body = message(&format!("round {round} number {n}"));
            pair.nodes[other].send_to(accept, everybody(), &body).await.expect("accepted");
            sent += 1;
        }
        pair.kill(home);
        until("the survivor has fanned out", || {
            pair.nodes[other].engine.outbox().is_worker() && pair.nodes[other].accepts().is_empty()
        })
        .await;
        assert_eq!((pair.nodes[other].placed(), pair.nodes[other].items().len()), ([sent, sent], sent));
        pair.restart(home).await;
        pair.until_spread().await;
    }
    until_settled(&pair).await;
    assert_eq!((pair.nodes[0].placed(), pair.nodes[1].placed()), ([sent, sent], [sent, sent]));
}

/// A placement is remembered however it went: the client moved the message and deleted the mailbox it was in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h14_a_fan_out_that_runs_again_brings_nothing_back() {
    let pair = Pair::spread().await;
    let node = &pair.nodes[0];
    for delete in [false, true] {
        let (body, accept) = (message("gone"), node.fresh());
        node.send_to(accept, vec![local(1, ALICE)], &body).await.expect("placed");
        let placements = vec![PlacementId { command: accept.for_recipient(1), index: 0 }];
        let made = node.run(AccountOp::CreateMailbox { name: "Work".into(), role: None }).await;
        assert!(matches!(made, Outcome::Created { .. }), "{made:?}");
        let (from, to) = (node.mailbox("INBOX").await, node.mailbox("Work").await);
        let moved = node.run(AccountOp::Move { from, to, placements: placements.clone() }).await;
        assert!(matches!(moved, Outcome::Copied { .. }), "{moved:?}");
        if delete {
            let gone = node.run(AccountOp::DeleteMailbox { mailbox: to }).await;
            assert!(!matches!(gone, Outcome::Refused(_)), "{gone:?}");
        }
        pair.keep(&body).await;
        node.promise(accept, &body, &both()).await;
        until_settled(&pair).await;
        assert_eq!(pair.nodes[1].placed(), [0, 1 + usize::from(delete)]);
        if !delete {
            node.run(AccountOp::DeleteMailbox { mailbox: to }).await;
        }
    }
}

/// It was placed in a mailbox that is gone with it: that is no refusal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h14_a_placement_in_a_deleted_mailbox_settles() {
    let pair = Pair::spread().await;
    let node = &pair.nodes[0];
    let (body, accept) = (message("filed"), node.fresh());
    node.run(AccountOp::CreateMailbox { name: "Filed".into(), role: None }).await;
    let filed = node.mailbox("Filed").await;
    // As on another branch, where a rule filed it.
    let append = AccountOp::Append {
        mailbox: MailboxRef::Id(filed),
        messages: vec![mailbox::op::NewMessage {
            blob: node.engine.blobs().put(body.clone()).await.expect("stored"),
            blob_size: body.len() as u64,
            prefix: Bytes::new(),
            facts: mime::facts_of(&body).encode(),
            flags: Default::default(),
            internal_date: Timestamp(1),
        }],
    };
    let placed = node.engine.accounts().submit(ALICE, accept.for_recipient(1), append).await;
    assert!(matches!(placed, Ok(Outcome::Appended { .. })), "{placed:?}");
    node.run(AccountOp::DeleteMailbox { mailbox: filed }).await;
    pair.keep(&body).await;
    node.promise(accept, &body, &both()).await;
    until_settled(&pair).await;
    assert_eq!(pair.nodes[1].placed(), [0, 1]);
}

/// The call to the other home is served when that has gone on alone, so on its branch, and this one goes on alone later: what both owe is settled by
/// what this disk holds, or the other's disk alone would have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h14_what_the_other_side_of_a_split_placed_settles_nothing_here() {
    let pair = Pair::spread().await;
    let worker = usize::from(!pair.nodes[0].engine.outbox().is_worker());
    let (home, other) = (&pair.nodes[worker], &pair.nodes[1 - worker]);
    let (accept, body) = (home.fresh(), message("owed by both"));
    pair.net.held.store(true, Ordering::SeqCst);
    home.send_to(accept, vec![local(1, ALICE), local(2, bob())], &body).await.expect("accepted");
    pair.register.set_quorum(false);
    pair.net.cut();
    other.engine.guard_word(home.id, home.boot);
    until("the other goes on alone", || other.status().epoch_kind == "solo").await;
    assert_eq!(home.status().epoch_kind, "joint", "it has not noticed");
    pair.net.held.store(false, Ordering::SeqCst);
    until("it is settled here", || home.accepts().is_empty()).await;
    assert_eq!(home.placed(), [1, 1], "what is settled is here");
}

/// A queue item ends with its report: one that only the other side has ends nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d4_a_report_that_the_other_side_of_a_split_took_is_not_here() {
    let pair = Pair::spread().await;
    let [home, other] = [&pair.nodes[0], &pair.nodes[1]];
    pair.register.set_quorum(false);
    pair.net.cut();
    other.engine.guard_word(home.id, home.boot);
    until("the other goes on alone", || other.status().epoch_kind == "solo").await;
    assert_eq!(home.status().epoch_kind, "joint", "it has not noticed");
    let ids = [home.fresh(), home.fresh()];
    let report = |n: usize| {
        let delivery = pair::delivery(ids[n], vec![local(1, both()[n])], message("a report"));
        let engine = home.engine.clone();
        async move { engine.intake().accept_here(delivery).await }
    };
    let first = tokio::join!(report(0), report(1));
    let first = [first.0, first.1];
    let there = first.iter().position(Result::is_err).unwrap_or_else(|| panic!("one has its home there: {first:?}"));
    assert!(first[1 - there].is_ok(), "{first:?}");
    assert_eq!((other.placed()[there], home.placed()[there]), (1, 0));
    until("this side goes on alone", || home.status().epoch_kind == "solo").await;
    report(there).await.expect("accepted");
    assert_eq!(home.placed(), [1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h14_an_account_that_was_removed_meanwhile_is_not_made_again() {
    let pair = Pair::spread().await;
    let name = || "carol@example.org".to_owned();
    let put = |kind, name, body| ConfigOp::put(kind, name, body, None);
    let document = |kind, name| put(kind, name, serde_json::json!({}));
    pair.register.apply(&document(DocumentKind::Domain, "example.org".into())).expect("a domain");
    let made = pair.register.apply(&document(DocumentKind::Account, name())).expect("an account");
    let carol = AccountId(made.revision);
    let node = &pair.nodes[0];
    let (first, accept) = (node.fresh(), node.fresh());
    node.send_to(first, vec![local(1, bob()), local(2, carol)], &message("there")).await.expect("accepted");
    until_settled(&pair).await;
    assert_eq!(node.on_disk_of(carol), 1, "mail makes an account");
    pair.register.apply(&ConfigOp::Remove { kind: DocumentKind::Account, name: name() }).expect("removed");
    let accounts = node.engine.accounts();
    assert_eq!(accounts.submit(carol, accounts.command_id(), AccountOp::Purge).await, Ok(Outcome::Done));
    pair.keep(&message("late")).await;
    node.promise(accept, &message("late"), &[bob(), carol]).await;
    until_settled(&pair).await;
    assert_eq!((node.on_disk_of(bob()), node.on_disk_of(carol)), (2, 0));
    let rows = node.store.snapshot(carol);
    assert!(mailbox::read::mailbox_by_role(&*rows, Role::Inbox).expect("rows").is_none(), "no account again");
}

/// Forwards from node 2 whose answers are all lost, until the home dies: node 2 tries again and is the home by then.
async fn across_a_takeover<T: Send + 'static>(
    pair: &mut Pair,
    forward: impl Future<Output = T> + Send + 'static,
    took_effect: impl Fn(&Node) -> bool,
) -> T {
    pair.net.lose.store(u32::MAX, Ordering::SeqCst);
    let task = tokio::spawn(forward);
    until("the home has committed", || took_effect(&pair.nodes[1]) && took_effect(&pair.nodes[0])).await;
    assert!(!task.is_finished(), "answered although every answer is lost");
    pair.kill(0);
    pair.net.lose.store(0, Ordering::SeqCst);
    task.await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h13_a_forwarded_change_takes_effect_once_across_a_takeover() {
    let mut pair = Pair::joint().await;
    let body = message("appended");
    let engine = pair.nodes[1].engine.clone();
    let blob = engine.blobs().put(body.clone()).await.expect("stored");
    let append = AccountOp::Append {
        mailbox: MailboxRef::Role(Role::Inbox),
        messages: vec![mailbox::op::NewMessage {
            blob,
            blob_size: body.len() as u64,
            prefix: Bytes::new(),
            facts: mime::facts_of(&body).encode(),
            flags: Default::default(),
            internal_date: Timestamp(1),
        }],
    };
    let id = pair.nodes[1].fresh();
    let forward = async move { engine.accounts().submit(ALICE, id, append).await };
    let outcome = across_a_takeover(&mut pair, forward, |node| node.on_disk() == 1).await;
    assert!(matches!(outcome, Ok(Outcome::Appended { ref uids, .. }) if uids.len() == 1), "{outcome:?}");
    assert_eq!((pair.nodes[1].on_disk(), pair.nodes[1].count().await), (1, 1));
}

/// The message leaves the cluster before its sender's front-end asks again: it must not leave twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h13_a_forwarded_delivery_is_placed_and_sent_once_across_a_takeover() {
    for spread in [false, true] {
        let mut pair = if spread { Pair::spread().await } else { Pair::joint().await };
        let (accept, body) = (pair.nodes[1].fresh(), message("once"));
        let first = pair.nodes[0].engine.clone();
        let sent = tokio::spawn(async move {
            let outbox = first.outbox();
            let id = accept.for_recipient(3);
            let (node, at) = (NodeId(1), Timestamp(5));
            let start = QueueOp::AttemptStart { id, node, at, attempts: 0 };
            while outbox.submit(start.clone(), Vec::new()).await != Ok(QueueOutcome::Done) {
                tokio::task::yield_now().await;
            }
            let result = AttemptResult::Delivered;
            assert_eq!(
                outbox.submit(QueueOp::AttemptEnd { id, attempt: (node, at), result }, Vec::new()).await,
                Ok(QueueOutcome::Done)
            );
        });
        let forward = pair::deliver(pair.nodes[1].engine.clone(), accept, everybody(), body);
        let done = |node: &Node| sent.is_finished() && node.placed() == [1, 1] && node.items().is_empty();
        assert_eq!(across_a_takeover(&mut pair, forward, done).await, Ok(()));
        until("nothing waits", || pair.nodes[1].accepts().is_empty()).await;
        assert_eq!((pair.nodes[1].placed(), pair.nodes[1].items().len()), ([1, 1], 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h13_starts_and_ends_of_attempts_count_once_across_a_takeover() {
    let failure = || Failure { status: "4.4.1".into(), diagnostic: "no".into(), remote: None };
    let (node, at) = (NodeId(2), Timestamp(5));
    for (ends, expected) in [(false, Some((node, at))), (true, None)] {
        let mut pair = Pair::joint().await;
        let accept = pair.nodes[1].fresh();
        pair.nodes[1].send_to(accept, vec![remote(1)], &message("out")).await.expect("accepted");
        let id = accept.for_recipient(1);
        let start = QueueOp::AttemptStart { id, node, at, attempts: 0 };
        let outbox = pair.nodes[1].engine.outbox();
        let op = if ends {
            assert_eq!(outbox.submit(start, Vec::new()).await, Ok(QueueOutcome::Done));
            let result = AttemptResult::Deferred(failure(), Timestamp(99));
            QueueOp::AttemptEnd { id, attempt: (node, at), result }
        } else {
            start
        };
        let forward = async move { outbox.submit(op, Vec::new()).await };
        let took_effect = |node: &Node| node.items()[0].attempts == 1 && node.items()[0].attempt == expected;
        let outcome = across_a_takeover(&mut pair, forward, took_effect).await;
        // An end that is repeated finds its attempt ended.
        assert_eq!(outcome, Ok(if ends { QueueOutcome::Gone } else { QueueOutcome::Done }));
        let item = pair.nodes[1].items().remove(0);
        assert_eq!((item.attempts, item.attempt), (1, expected));
    }
}
