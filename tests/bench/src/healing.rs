//! How long a machine takes to be level again: a first join, a heal with accounts changed on both sides, a rejoin.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use node::demo::clients::imap::ImapClient;
use node::demo::clients::smtp::{Sent, SmtpClient};
use node::demo::pair::{Pair, PairOptions, START_LIMIT};
use tokio::task::JoinSet;

use crate::loads::{MESSAGE_BYTES, message};
use crate::table::Table;
use crate::target::ANSWER_LIMIT;

/// How long a pair may take to be level.
const LEVEL_LIMIT: Duration = Duration::from_secs(900);
/// Clients that create and deliver.
const CLIENTS: usize = 10;
/// Accounts whose mail is counted afterwards, on both nodes.
const CHECKED: usize = 20;

/// How much is done.
#[derive(Clone, Copy)]
pub struct Amounts {
    /// Accounts.
    pub accounts: usize,
    /// Of which changed on both sides of the split.
    pub touched: usize,
    /// Messages of 4 KB that a new and a returning node lack.
    pub messages: usize,
}

/// Measures all three and checks that both nodes show all mail.
///
/// # Errors
/// A node does not come up, a message is refused, or mail is missing.
pub async fn measure(folder: &Path, binary: &Path, amounts: Amounts, table: &mut Table) -> anyhow::Result<()> {
    let mut pair = Pair::start_single(PairOptions::new(&folder.join("healing"), binary, amounts.accounts)).await?;
    let outcome = run(&mut pair, amounts, table).await;
    pair.stop().await;
    outcome
}

async fn run(pair: &mut Pair, amounts: Amounts, table: &mut Table) -> anyhow::Result<()> {
    create_accounts(pair).await?;
    deliver(pair, 0, amounts.messages, amounts.accounts).await?;
    let start = Instant::now();
    pair.join_begin().await?;
    pair.await_joint(LEVEL_LIMIT).await?;
    rates(table, "join of a new node", amounts.messages, start.elapsed());

    let took = heal(pair, amounts).await?;
    let name = format!("heal: {} accounts, {} changed on both sides", amounts.accounts, amounts.touched);
    table.add(&name, "s", 0, took.as_secs_f64());

    let primary = pair.primary().await?;
    pair.kill(1 - primary).await?;
    pair.await_ready(primary, START_LIMIT).await?;
    deliver(pair, primary, amounts.messages, amounts.accounts).await?;
    let start = Instant::now();
    pair.start_node(1 - primary).await?;
    pair.await_joint(LEVEL_LIMIT).await?;
    rates(table, "rejoin after an outage", amounts.messages, start.elapsed());
    check(pair, amounts).await
}

fn rates(table: &mut Table, what: &str, messages: usize, took: Duration) {
    table.add(&format!("{what}: {messages} messages of 4 KB, from process start to joint"), "s", 0, took.as_secs_f64());
    let rate = messages as f64 / took.as_secs_f64();
    table.add(&format!("{what}: rate"), "messages/s", 0, rate);
    table.add(&format!("{what}: bodies"), "MB/s", 0, rate * MESSAGE_BYTES as f64 / 1e6);
}

/// From the start of the returning node's process until both are in one joint epoch.
async fn heal(pair: &mut Pair, amounts: Amounts) -> anyhow::Result<Duration> {
    let first = pair.primary().await?;
    let second = 1 - first;
    pair.kill(second).await?;
    pair.await_ready(first, START_LIMIT).await?;
    deliver(pair, first, amounts.touched, amounts.touched).await?;
    pair.kill_group(first).await?;
    pair.start_node(second).await?;
    pair.command(second, &["cluster", "start-alone"], &["--confirm", "demo"], None).await?;
    pair.await_ready(second, START_LIMIT).await?;
    deliver(pair, second, amounts.touched, amounts.touched).await?;
    let start = Instant::now();
    pair.start_node(first).await?;
    pair.await_joint(LEVEL_LIMIT).await?;
    Ok(start.elapsed())
}

async fn create_accounts(pair: &Pair) -> anyhow::Result<()> {
    pair.api(0)?.add_domain(&pair.options.domain).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let logins = Arc::new(pair.options.accounts.clone());
    let mut tasks = JoinSet::new();
    for _ in 0..CLIENTS {
        let (api, next, logins) = (pair.api(0)?, next.clone(), logins.clone());
        tasks.spawn(async move {
            while let Some(login) = logins.get(next.fetch_add(1, Ordering::Relaxed)) {
                api.add_account(&login.address, &login.password).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// `count` messages to a node, to the first `accounts` accounts in turn.
async fn deliver(pair: &Pair, node: usize, count: usize, accounts: usize) -> anyhow::Result<()> {
    let peer = SocketAddr::new(pair.node(node)?.address, pair.ports.smtp);
    let next = Arc::new(AtomicUsize::new(0));
    let logins = Arc::new(pair.options.accounts.clone());
    let mut tasks = JoinSet::new();
    for _ in 0..CLIENTS {
        let (next, logins) = (next.clone(), logins.clone());
        tasks.spawn(async move {
            let mut client = SmtpClient::connect(peer, ANSWER_LIMIT).await?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    client.quit().await;
                    return anyhow::Ok(());
                }
                let to = &logins.get(number % accounts).context("account")?.address;
                match client.send("bench@example.org", &[to], &message(number)).await {
                    Sent::Accepted(_) => {}
                    other => bail!("{to}: {other:?}"),
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Both nodes show every message in the first accounts.
async fn check(pair: &Pair, amounts: Amounts) -> anyhow::Result<()> {
    let share = |account: usize, total: usize, of: usize| (account..total).step_by(of).count();
    for (account, login) in pair.options.accounts.iter().enumerate().take(CHECKED.min(amounts.touched)) {
        let expected = 2 * share(account, amounts.messages, amounts.accounts) + 2;
        for node in 0..2 {
            let peer = SocketAddr::new(pair.node(node)?.address, pair.ports.imaps);
            let mut client = ImapClient::connect_tls(peer, &pair.trust()?, ANSWER_LIMIT).await?;
            client.login(&login.address, &login.password).await?;
            let exists = client.select("INBOX").await?.exists as usize;
            ensure!(exists == expected, "{} has {exists} messages at node {node}, not {expected}", login.address);
            client.logout().await;
        }
    }
    Ok(())
}
