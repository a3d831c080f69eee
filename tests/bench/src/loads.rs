//! The loads: each does one thing to a server and says how fast it went.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use node::demo::clients::imap::ImapClient;
use node::demo::clients::smtp::Sent;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::floor::milliseconds;
use crate::target::Target;

/// Accounts that take mail; the one after them has the large mailbox.
pub const ACCOUNTS: usize = 10;
/// Size of a message (bytes).
pub const MESSAGE_BYTES: usize = 4096;
/// How long delivered messages may take to be visible.
const VISIBLE_LIMIT: Duration = Duration::from_secs(180);
/// How often visibility is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a delivery run gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delivery {
    /// 250s per second.
    pub accepted: f64,
    /// Messages per second until the last was visible in IMAP.
    pub visible: f64,
    /// CPU per message (ms), all processes of the server.
    pub cpu_ms: f64,
    /// Synced writes per message, all nodes.
    pub syncs: Option<f64>,
    /// Median time from the final dot to the 250 (ms).
    pub ack_ms: f64,
    /// The slowest of a hundred (ms).
    pub ack_p99_ms: f64,
}

/// A message of 4 KB with a number in it.
#[must_use]
pub fn message(number: usize) -> Vec<u8> {
    let mut text = format!(
        "From: bench@example.org\r\nTo: someone@demo.test\r\nSubject: Message {number}\r\n\
         Date: Mon, 02 Mar 2026 10:00:00 +0000\r\nMessage-ID: <{number}.bench@example.org>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\n"
    );
    while text.len() < MESSAGE_BYTES {
        text.push_str("The quick brown fox jumps over the lazy dog, again and again, until 4 KB are full.\r\n");
    }
    text.truncate(MESSAGE_BYTES - 2);
    // Cutting may leave half a line end.
    (text.trim_end().to_owned() + "\r\n").into_bytes()
}

async fn counts(clients: &mut [ImapClient]) -> anyhow::Result<Vec<u32>> {
    let mut out = Vec::new();
    for client in clients {
        client.command("NOOP").await?.ok()?;
        out.push(client.exists);
    }
    Ok(out)
}

/// `count` messages over `connections` connections, each one after the other, to ten accounts.
///
/// # Errors
/// A message was refused or not visible in time.
pub async fn deliver(target: &Target, connections: usize, count: usize) -> anyhow::Result<Delivery> {
    let mut watchers = Vec::new();
    for account in 0..ACCOUNTS {
        let mut client = target.imap(account).await?;
        client.select("INBOX").await?;
        watchers.push(client);
    }
    let before: u32 = counts(&mut watchers).await?.iter().sum();
    let (cpu, syncs) = (target.cpu(), target.synced_writes().await);
    let next = Arc::new(AtomicUsize::new(0));
    let times = Arc::new(Mutex::new(Histogram::<u64>::new(3)?));
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for connection in 0..connections {
        tasks.spawn(send_all(target.clone(), connection, count, next.clone(), times.clone()));
    }
    let mut accepted = None;
    let watch = async {
        loop {
            let now: u32 = counts(&mut watchers).await?.iter().sum();
            if (now - before) as usize >= count {
                return anyhow::Ok(start.elapsed());
            }
            if start.elapsed() > VISIBLE_LIMIT {
                bail!("{} of {count} visible after {VISIBLE_LIMIT:?}", now - before);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let send = async {
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        accepted = Some(start.elapsed());
        anyhow::Ok(())
    };
    let (visible, sent) = tokio::join!(watch, send);
    sent?;
    let visible = visible?;
    let accepted = accepted.context("not sent")?;
    let used = target.cpu() - cpu;
    let syncs = match (syncs, target.synced_writes().await) {
        (Some(before), Some(after)) => Some((after - before) as f64 / count as f64),
        _ => None,
    };
    let times = times.lock().await;
    let (ack_ms, ack_p99_ms) = (milliseconds(&times, 0.5), milliseconds(&times, 0.99));
    for watcher in watchers {
        watcher.logout().await;
    }
    Ok(Delivery {
        accepted: count as f64 / accepted.as_secs_f64(),
        visible: count as f64 / visible.as_secs_f64(),
        cpu_ms: used.as_secs_f64() * 1000.0 / count as f64,
        syncs,
        ack_ms,
        ack_p99_ms,
    })
}

async fn send_all(
    target: Target,
    connection: usize,
    count: usize,
    next: Arc<AtomicUsize>,
    times: Arc<Mutex<Histogram<u64>>>,
) -> anyhow::Result<()> {
    let mut client = target.smtp().await?;
    let to = target.accounts.get(connection % ACCOUNTS).context("no account")?.address.clone();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            client.quit().await;
            return Ok(());
        }
        let body = message(number);
        if let Some(answer) = client.open("bench@example.org", &[&to]).await? {
            bail!("{} {}", answer.code, answer.text);
        }
        client.write(&body).await?;
        let asked = Instant::now();
        match client.finish().await {
            Sent::Accepted(_) => {}
            other => bail!("{other:?}"),
        }
        times.lock().await.record(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX))?;
    }
}

/// From a 250 to EXISTS in the IDLE of another client: median of `count` (ms).
///
/// # Errors
/// A message was refused or never announced.
pub async fn announce(target: &Target, count: usize) -> anyhow::Result<f64> {
    let mut reader = target.imap(0).await?;
    reader.select("INBOX").await?;
    let mut writer = target.smtp().await?;
    let to = target.accounts.first().context("no account")?.address.clone();
    let mut times = Vec::new();
    for number in 0..count {
        let tag = reader.idle().await?;
        let heard = async {
            loop {
                if reader.idle_line().await?.ends_with(b"EXISTS") {
                    return anyhow::Ok(Instant::now());
                }
            }
        };
        let sent = async {
            match writer.send("bench@example.org", &[&to], &message(number)).await {
                Sent::Accepted(_) => Ok(Instant::now()),
                other => bail!("{other:?}"),
            }
        };
        let (heard, sent) = tokio::try_join!(heard, sent)?;
        times.push(heard.saturating_duration_since(sent).as_secs_f64() * 1000.0);
        reader.done(&tag).await?;
    }
    Ok(median(times))
}

/// LOGIN and LOGOUT on fresh connections by ten clients for `time`: per second.
///
/// # Errors
/// A login was refused.
pub async fn login(target: &Target, time: Duration) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for account in 0..ACCOUNTS {
        let target = target.clone();
        tasks.spawn(async move {
            let mut count = 0_usize;
            while start.elapsed() < time {
                target.imap(account).await?.logout().await;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(done) = tasks.join_next().await {
        count += done??;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// APPEND of 4 KB by ten sessions to ten accounts: per second.
///
/// # Errors
/// An APPEND was refused.
pub async fn append(target: &Target, count: usize) -> anyhow::Result<f64> {
    append_to(target, count, &(0..ACCOUNTS).collect::<Vec<_>>(), "Appended").await
}

/// Fills INBOX of the last account up to `count` messages.
///
/// # Errors
/// An APPEND was refused.
pub async fn fill(target: &Target, count: usize) -> anyhow::Result<()> {
    append_to(target, count, &[ACCOUNTS; ACCOUNTS], "INBOX").await.map(drop)
}

async fn append_to(target: &Target, count: usize, accounts: &[usize], mailbox: &'static str) -> anyhow::Result<f64> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for &account in accounts {
        let mut client = target.imap(account).await?;
        // It may be there from an earlier round.
        let _ = client.command(&format!("CREATE {mailbox}")).await?;
        clients.push(client);
    }
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let next = next.clone();
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    client.logout().await;
                    return anyhow::Ok(());
                }
                client.append(mailbox, &message(number)).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// FETCH of the whole large mailbox, warm: thousand messages per second.
///
/// # Errors
/// Refused, or not all messages came.
pub async fn fetch(target: &Target, items: &str) -> anyhow::Result<f64> {
    let mut client = target.imap(ACCOUNTS).await?;
    let exists = client.select("INBOX").await?.exists;
    let mut rates = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let (lines, _) = client.drain(&format!("FETCH 1:* {items}")).await?;
        if lines < u64::from(exists) {
            bail!("{lines} of {exists} fetched");
        }
        rates.push(f64::from(exists) / 1000.0 / start.elapsed().as_secs_f64());
    }
    client.logout().await;
    // The first one fills caches.
    rates.remove(0);
    Ok(median(rates))
}

/// SELECT of the large mailbox: median (ms).
///
/// # Errors
/// Refused.
pub async fn select(target: &Target, count: usize) -> anyhow::Result<f64> {
    let mut client = target.imap(ACCOUNTS).await?;
    client.select("INBOX").await?;
    let mut times = Vec::new();
    for _ in 0..count {
        client.command("UNSELECT").await?.ok()?;
        let start = Instant::now();
        client.select("INBOX").await?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    client.logout().await;
    Ok(median(times))
}

/// CPU that the server takes when nobody wants anything of it, over so long a time (percent of one core).
pub async fn idle_cpu(target: &Target, time: Duration) -> f64 {
    let (before, begun) = (target.cpu(), Instant::now());
    tokio::time::sleep(time).await;
    (target.cpu() - before).as_secs_f64() * 100.0 / begun.elapsed().as_secs_f64()
}

/// Memory per idle IMAP session with TLS, `sessions` of them in IDLE on ten accounts (KiB).
///
/// # Errors
/// A session was refused.
pub async fn idle_memory(target: &Target, sessions: usize) -> anyhow::Result<f64> {
    // Libraries, caches and login processes that exist once are not the sessions' doing.
    let first = idler(target, 0).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = target.memory();
    let mut open = Vec::new();
    for number in 0..sessions {
        open.push(idler(target, number % ACCOUNTS).await?);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = target.memory();
    drop((first, open));
    Ok(after.saturating_sub(before) as f64 / 1024.0 / sessions as f64)
}

async fn idler(target: &Target, account: usize) -> anyhow::Result<(ImapClient, String)> {
    let mut client = target.imaps(account).await?;
    client.select("INBOX").await?;
    let tag = client.idle().await?;
    Ok((client, tag))
}

/// The middle one.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
