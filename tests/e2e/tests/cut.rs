//! A true split: both nodes run, hear nothing of each other, and clients write on both sides. Then the cables are mended,
//! and everything is compared: through IMAP, through POP3, and row for row in both stores.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use e2e::{ANSWER_LIMIT, Cabled};
use node::demo::clients::imap::ImapClient;
use node::demo::clients::pop3::Pop3Client;
use node::demo::pair::{JOINT_LIMIT, LOOK_INTERVAL, Pair, START_LIMIT};
use ports::mail_store::MailStore as _;
use serde_json::Value;
use store::{Store, StoreOptions};

/// Accounts; both sides change all of them.
const ACCOUNTS: usize = 3;
/// Messages each account has before the split, and gets on each side.
const BEFORE: usize = 12;
const EACH: usize = 15;

async fn imap(pair: &Pair, node: usize, account: usize) -> anyhow::Result<ImapClient> {
    let login = pair.options.accounts.get(account).context("account")?;
    let peer = SocketAddr::new(pair.node(node)?.address, pair.ports.imaps);
    let mut client = ImapClient::connect_tls(peer, &pair.trust()?, ANSWER_LIMIT).await?;
    client.login(&login.address, &login.password).await?;
    Ok(client)
}

async fn kind(pair: &Pair, node: usize) -> anyhow::Result<String> {
    let status: Value = serde_json::from_str(&pair.api(node)?.get("/api/v1/cluster").await?)?;
    Ok(status["epoch_kind"].as_str().unwrap_or_default().to_owned())
}

async fn await_alone(pair: &Pair, node: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    while kind(pair, node).await? != "solo" {
        ensure!(start.elapsed() < START_LIMIT, "node {node} does not go on alone");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// One message as a client sees it: UID, subject, flags.
type Seen = (u32, String, BTreeSet<String>);

async fn read(client: &mut ImapClient, mailbox: &str) -> anyhow::Result<(u32, u32, Vec<Seen>)> {
    let selected = client.select(mailbox).await?;
    let all = client.uid_fetch("1:*", "(UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])").await?;
    let subject = |body: Option<Vec<u8>>| {
        String::from_utf8_lossy(&body.unwrap_or_default()).trim().trim_start_matches("Subject: ").to_owned()
    };
    let flags = |flags: Option<Vec<String>>| {
        flags.unwrap_or_default().into_iter().filter(|flag| !flag.eq_ignore_ascii_case("\\Recent")).collect()
    };
    let seen = all.into_iter().map(|found| (found.uid, subject(found.body), flags(found.flags)));
    Ok((selected.uid_validity, selected.uid_next, seen.collect()))
}

/// What the clients of one side were told.
#[derive(Default)]
struct Side {
    /// UIDVALIDITY and UIDNEXT of INBOX, by account.
    told: BTreeMap<usize, (u32, u32)>,
}

/// One side's clients: mail arrives, messages are flagged, expunged, copied, moved, a mailbox is made.
async fn write(pair: &Pair, node: usize, name: &str) -> anyhow::Result<Side> {
    let mut side = Side::default();
    for account in 0..ACCOUNTS {
        let mut client = imap(pair, node, account).await?;
        client.select("INBOX").await?;
        for number in 0..EACH {
            e2e::mail(pair, node, account, &format!("{name} {number}")).await?;
        }
        // Each side has messages of its own to change; one of them both change: the first.
        let first = if name == "left" { 2 } else { 6 };
        let label = format!("${name}");
        client.command(&format!("UID STORE 1,{first} +FLAGS ({label})")).await?.ok()?;
        client.command(&format!("UID STORE {} +FLAGS (\\Deleted)", first + 1)).await?.ok()?;
        client.command("EXPUNGE").await?.ok()?;
        client.command(&format!("CREATE {name}")).await?.ok()?;
        client.command("CREATE both").await?.ok()?;
        client.command(&format!("UID COPY {first} {name}")).await?.ok()?;
        client.command(&format!("UID MOVE {} both", first + 2)).await?.ok()?;
        let (validity, next, seen) = read(&mut client, "INBOX").await?;
        ensure!(seen.len() == BEFORE + EACH - 2, "account {account} at node {node} alone: {}", seen.len());
        side.told.insert(account, (validity, next));
        client.logout().await;
    }
    Ok(side)
}

async fn check_account(pair: &Pair, node: usize, account: usize, sides: &[Side]) -> anyhow::Result<()> {
    let mut client = imap(pair, node, account).await?;
    let (validity, next, seen) = read(&mut client, "INBOX").await?;
    for side in sides {
        let (told, least) = side.told.get(&account).copied().context("told")?;
        ensure!(told == validity, "UIDVALIDITY was {told} and is {validity}");
        ensure!(next >= least, "UIDNEXT was {least} and is {next}");
    }
    let mut wanted: BTreeSet<String> = (1..=BEFORE).map(|n| format!("before {n}")).collect();
    // Expunged and moved away: on either side.
    for uid in [3, 4, 7, 8] {
        wanted.remove(&format!("before {uid}"));
    }
    for name in ["left", "right"] {
        wanted.extend((0..EACH).map(|number| format!("{name} {number}")));
    }
    let subjects: BTreeSet<String> = seen.iter().map(|(_, subject, _)| subject.clone()).collect();
    ensure!(subjects == wanted && seen.len() == wanted.len(), "INBOX: {subjects:?}");
    let flags = |uid: u32| {
        let subject = format!("before {uid}");
        seen.iter().find(|(_, s, _)| *s == subject).map(|(_, _, flags)| flags.clone()).unwrap_or_default()
    };
    let both = BTreeSet::from(["$left".to_owned(), "$right".to_owned()]);
    ensure!(flags(1) == both, "changed on both sides: {:?}", flags(1));
    ensure!(flags(2).contains("$left") && flags(6).contains("$right"), "{:?} {:?}", flags(2), flags(6));
    let mailboxes: BTreeSet<String> = client.mailboxes().await?.into_iter().collect();
    for (name, subject) in [("left", "before 2"), ("right", "before 6")] {
        ensure!(mailboxes.contains(name), "{mailboxes:?}");
        let (_, _, copies) = read(&mut client, name).await?;
        ensure!(copies.len() == 1 && copies.iter().all(|(_, s, _)| s == subject), "{name}: {copies:?}");
    }
    // Made on both sides under one name: one mailbox with the mail of both.
    let (_, _, moved) = read(&mut client, "both").await?;
    let moved: BTreeSet<String> = moved.into_iter().map(|(_, subject, _)| subject).collect();
    ensure!(moved == BTreeSet::from(["before 4".to_owned(), "before 8".to_owned()]), "both: {moved:?}");
    client.logout().await;
    Ok(())
}

/// Unique ids and messages as POP3 shows them.
async fn maildrop(pair: &Pair, node: usize, account: usize) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let login = pair.options.accounts.get(account).context("account")?;
    let peer = SocketAddr::new(pair.node(node)?.address, pair.ports.pop3s);
    let mut client = Pop3Client::connect_tls(peer, &pair.trust()?, ANSWER_LIMIT).await?;
    client.login(&login.address, &login.password).await?;
    let mut all = Vec::new();
    for (number, id) in (1..).zip(client.unique_ids().await?) {
        all.push((id, client.lines(&format!("RETR {number}")).await?));
    }
    client.quit().await?;
    Ok(all)
}

async fn everything(
    pair: &Pair,
    node: usize,
    account: usize,
) -> anyhow::Result<BTreeMap<String, (u32, u32, Vec<Seen>)>> {
    let mut client = imap(pair, node, account).await?;
    let mut all = BTreeMap::new();
    for mailbox in client.mailboxes().await? {
        let contents = read(&mut client, &mailbox).await?;
        all.insert(mailbox, contents);
    }
    client.logout().await;
    Ok(all)
}

async fn story(cabled: &Cabled) -> anyhow::Result<()> {
    let pair = &cabled.pair;
    for account in 0..ACCOUNTS {
        for number in 1..=BEFORE {
            e2e::mail(pair, 0, account, &format!("before {number}")).await?;
        }
    }
    cabled.cut(true);
    for node in [0, 1] {
        await_alone(pair, node).await?;
    }
    let (left, right) = tokio::try_join!(write(pair, 0, "left"), write(pair, 1, "right"))?;
    for node in [0, 1] {
        ensure!(kind(pair, node).await? == "solo", "node {node} heard of the other one");
    }
    cabled.cut(false);
    pair.await_joint(JOINT_LIMIT).await?;
    let sides = [left, right];
    for account in 0..ACCOUNTS {
        for node in [0, 1] {
            let place = || format!("account {account} at node {node}");
            check_account(pair, node, account, &sides).await.with_context(place)?;
        }
        ensure!(everything(pair, 0, account).await? == everything(pair, 1, account).await?, "account {account}: IMAP");
        let drops = (maildrop(pair, 0, account).await?, maildrop(pair, 1, account).await?);
        ensure!(drops.0 == drops.1 && drops.0.len() == BEFORE - 4 + 2 * EACH, "account {account}: POP3");
    }
    Ok(())
}

/// Every row of both stores; the nodes have ended.
fn compare_stores(pair: &Pair) -> anyhow::Result<usize> {
    let open = |node: usize| {
        let folder = pair.node(node)?.data_dir().join("mail");
        Store::open(&folder, StoreOptions::default()).with_context(|| folder.display().to_string())
    };
    let (one, two) = (open(0)?, open(1)?);
    let versions = one.versions()?;
    ensure!(versions == two.versions()?, "accounts and their versions");
    let mut rows = 0;
    for (account, _) in &versions {
        ensure!(one.head(*account)? == two.head(*account)?, "head of account {}", account.0);
        let (first, second) = (one.snapshot(*account), two.snapshot(*account));
        let mut after = None;
        loop {
            let part = one.export(&first, after.clone(), 1 << 20)?;
            ensure!(part == two.export(&second, after.take(), 1 << 20)?, "rows of account {}", account.0);
            let Some(last) = part.last() else { break };
            after = Some((last.table.0, last.key.clone()));
            rows += part.len();
            for hash in part.iter().filter_map(mailbox::blob_ref_of).map(|named| named.hash) {
                ensure!(one.is_blob_sound(hash) && two.is_blob_sound(hash), "body {hash}");
            }
        }
    }
    Ok(rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_17_clients_write_on_both_sides_of_a_true_split_and_nothing_is_lost() {
    let mut cabled = e2e::cabled(ACCOUNTS).await.expect("a pair");
    if let Err(fault) = story(&cabled).await {
        panic!("{fault:#}\n{}", e2e::logs(&cabled.pair));
    }
    cabled.pair.stop().await;
    let rows = compare_stores(&cabled.pair).expect("equal stores");
    println!("{rows} rows are the same on both nodes");
    assert!(rows > ACCOUNTS * (BEFORE + 2 * EACH), "all mail was compared");
}
