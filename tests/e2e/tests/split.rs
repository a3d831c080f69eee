//! An account changed on both sides of a true split is merged.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use e2e::watch::await_said;
use e2e::{ANSWER_LIMIT, Fixture};
use node::demo::clients::imap::{ImapClient, Selected};
use node::demo::pair::{JOINT_LIMIT, Pair, START_LIMIT};

async fn inbox(pair: &Pair, node: usize, account: usize) -> anyhow::Result<(ImapClient, Selected)> {
    let login = pair.options.accounts.get(account).context("account")?;
    let peer = SocketAddr::new(pair.node(node)?.address, pair.ports.imaps);
    let mut client = ImapClient::connect_tls(peer, &pair.trust()?, ANSWER_LIMIT).await?;
    client.login(&login.address, &login.password).await?;
    let selected = client.select("INBOX").await?;
    Ok((client, selected))
}

async fn subjects(pair: &Pair, node: usize, account: usize) -> anyhow::Result<Vec<String>> {
    let (mut client, _) = inbox(pair, node, account).await?;
    let all = client.uid_fetch("1:*", "(UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])").await?;
    let text = |body: Vec<u8>| String::from_utf8_lossy(&body).trim().trim_start_matches("Subject: ").to_owned();
    Ok(all.into_iter().filter_map(|fetched| fetched.body.map(text)).collect())
}

async fn split(pair: &mut Pair) -> anyhow::Result<()> {
    for account in 0..3 {
        e2e::mail(pair, 0, account, "before").await?;
    }
    let primary = pair.primary().await?;
    let other = 1 - primary;
    // One side goes on alone ...
    pair.kill(other).await?;
    e2e::load::await_service(pair, START_LIMIT).await?;
    e2e::mail(pair, primary, 0, "first side").await?;
    e2e::mail(pair, primary, 1, "first side").await?;
    let (_, first) = inbox(pair, primary, 0).await?;
    pair.kill_group(primary).await?;
    // ... and the other one too, on an operator's word: it waits until it is given.
    pair.start_node(other).await?;
    ensure!(
        e2e::mail(pair, other, 0, "too early").await.is_err(),
        "a node that boots alone serves without an operator"
    );
    pair.command(other, &["cluster", "start-alone"], &["--confirm", "demo"], None).await?;
    pair.await_ready(other, START_LIMIT).await?;
    e2e::mail(pair, other, 0, "second side").await?;
    e2e::mail(pair, other, 2, "second side").await?;
    let (_, second) = inbox(pair, other, 0).await?;
    ensure!(second.uid_next > first.uid_next || second.uid_validity != first.uid_validity, "the gap was not taken");

    pair.start_node(primary).await?;
    pair.await_joint(JOINT_LIMIT).await?;
    for node in [0, 1] {
        let (_, healed) = inbox(pair, node, 0).await?;
        ensure!(
            healed.uid_validity == first.uid_validity,
            "UIDVALIDITY changed: {} to {}",
            first.uid_validity,
            healed.uid_validity
        );
        // Clients of both sides look above the UIDNEXT they were told.
        let told = first.uid_next.max(second.uid_next);
        ensure!(healed.uid_next >= told, "UIDNEXT {} is below {told} at node {node}", healed.uid_next);
        let mut found = subjects(pair, node, 0).await?;
        found.sort();
        ensure!(found == ["before", "first side", "second side"], "account 0 at node {node}: {found:?}");
        // Accounts that changed on one side only lost nothing.
        ensure!(subjects(pair, node, 1).await? == ["before", "first side"], "account 1 at node {node}");
        ensure!(subjects(pair, node, 2).await? == ["before", "second side"], "account 2 at node {node}");
    }
    told(pair).await?;
    branches(pair).await
}

/// The node that merged tells of it, with what it did.
async fn told(pair: &Pair) -> anyhow::Result<()> {
    let merged = |said: &str| said.contains("1 accounts that had changed on both sides were merged");
    let said = tokio::select! {
        said = await_said(pair, 0, &["alerts"], "word of the merge", merged) => said,
        said = await_said(pair, 1, &["alerts"], "word of the merge", merged) => said,
    };
    ensure!(said.contains("messages under a new UID"), "{said}");
    Ok(())
}

/// What the other side had is kept, said with its size and whose it is, and goes when an operator says so.
async fn branches(pair: &Pair) -> anyhow::Result<()> {
    let address = &pair.options.accounts.first().context("account")?.address;
    let mut deleted = 0;
    for node in [0, 1] {
        let listed = pair.command(node, &["cluster", "branches"], &["--json"], None).await?;
        let listed: serde_json::Value = serde_json::from_str(&listed)?;
        for branch in listed["branches"].as_array().context("branches")? {
            ensure!(branch["bytes"].as_u64() > Some(100) && branch["archived"].is_string(), "{branch}");
            deleted += u32::from(branch["address"] == address.as_str());
            let id = branch["id"].as_str().context("id")?;
            pair.command(node, &["cluster", "branches"], &["--delete", id], None).await?;
            let again = pair.command(node, &["cluster", "branches"], &["--delete", id], None).await;
            ensure!(again.is_err_and(|e| format!("{e:#}").contains("no archived branch")), "{id} was deleted twice");
        }
        let left = pair.command(node, &["cluster", "branches"], &[], None).await?;
        ensure!(left.contains("no archived branches on this node"), "{left}");
    }
    ensure!(deleted > 0, "the branch of {address} is not listed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_15_an_account_changed_on_both_sides_is_merged_and_nothing_is_lost() {
    let Fixture { mut pair, folder } = e2e::pair(3).await.expect("a pair");
    let outcome = split(&mut pair).await;
    if let Err(fault) = outcome {
        panic!("{fault:#}\n{}", e2e::logs(&pair));
    }
    pair.stop().await;
    drop(folder);
}

/// One account, a true split: flagged on the first side, expunged on the second.
async fn expunge_against_change(pair: &mut Pair) -> anyhow::Result<()> {
    e2e::mail(pair, 0, 0, "kept").await?;
    e2e::mail(pair, 0, 0, "lost").await?;
    let primary = pair.primary().await?;
    let other = 1 - primary;
    pair.kill(other).await?;
    e2e::load::await_service(pair, START_LIMIT).await?;
    let (mut client, _) = inbox(pair, primary, 0).await?;
    client.command("STORE 2 +FLAGS (\\Flagged)").await?;
    client.logout().await;
    pair.kill_group(primary).await?;
    pair.start_node(other).await?;
    pair.command(other, &["cluster", "start-alone"], &["--confirm", "demo"], None).await?;
    pair.await_ready(other, START_LIMIT).await?;
    let (mut client, _) = inbox(pair, other, 0).await?;
    client.command("STORE 2 +FLAGS (\\Deleted)").await?;
    client.command("EXPUNGE").await?;
    client.logout().await;
    pair.start_node(primary).await?;
    pair.await_joint(JOINT_LIMIT).await.map(drop)
}

async fn recover(pair: &mut Pair) -> anyhow::Result<()> {
    expunge_against_change(pair).await?;
    let address = pair.options.accounts.first().context("account")?.address.clone();
    for node in [0, 1] {
        ensure!(subjects(pair, node, 0).await? == ["kept"], "the expunge did not win at node {node}");
        let listed = pair.command(node, &["account", "recover"], &[&address, "--json"], None).await?;
        ensure!(listed.contains("\"subject\": \"lost\""), "not listed at node {node}: {listed}");
    }
    // Not at the home: it is forwarded.
    let away = 1 - pair.primary().await?;
    let said = pair.command(away, &["account", "recover"], &[&address, "--all"], None).await?;
    ensure!(said.contains("restored: 1"), "{said}");
    for node in [0, 1] {
        let found = subjects(pair, node, 0).await?;
        ensure!(found == ["kept", "lost"], "at node {node}: {found:?}");
        let (mut client, _) = inbox(pair, node, 0).await?;
        let body = client.uid_fetch("2:*", "(UID BODY.PEEK[])").await?;
        let text = body.last().and_then(|fetched| fetched.body.clone()).context("a body")?;
        ensure!(String::from_utf8_lossy(&text).ends_with("\r\n\r\nlost\r\n"), "another body at node {node}");
        let listed = pair.command(node, &["account", "recover"], &[&address, "--list"], None).await?;
        ensure!(listed.contains("nothing to restore"), "still listed at node {node}: {listed}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_17_what_an_expunge_won_over_a_change_is_restored_on_both_nodes() {
    let Fixture { mut pair, folder } = e2e::pair(1).await.expect("a pair");
    let outcome = recover(&mut pair).await;
    if let Err(fault) = outcome {
        panic!("{fault:#}\n{}", e2e::logs(&pair));
    }
    pair.stop().await;
    drop(folder);
}
