//! The clients that send: each on a connection of its own, through the cluster address, one message after the other.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::clients::smtp::{Sent, SmtpClient, stuffed};
use super::clients::stream::Trust;
use super::corpus::{self, Source};
use super::ledger::Ledger;
use super::pair::{CLUSTER_ADDRESS, Login, Pair};

/// In the demo every connection sends at most one message per this time.
pub const PACE: Duration = Duration::from_millis(40);
/// How long a client waits for any answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(25);
/// How long a client waits before it connects again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Every so many messages go to several accounts.
const SEVERAL_EVERY: usize = 10;

/// What the writers do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Send.
    Send,
    /// Send nothing until something else is said.
    Pause,
    /// Every second writer stops in the middle of its next message, so that transactions are open when a node dies.
    Hold,
    /// End after the message at hand.
    End,
}

/// What all writers share.
pub struct Work {
    /// The clients' knowledge.
    pub ledger: Arc<Ledger>,
    /// What is sent.
    pub sources: Arc<Vec<Source>>,
    /// Names this run in every message.
    pub run: String,
    /// Accounts by index.
    pub accounts: Vec<Login>,
    /// Next source.
    next: AtomicUsize,
    /// Writers that stand in the middle of a message.
    pub open: AtomicUsize,
    /// Writers that send nothing because of [`Phase::Pause`].
    pub paused: AtomicUsize,
    pace: Duration,
    phase: watch::Receiver<Phase>,
    smtp: SocketAddr,
    submissions: SocketAddr,
    trust: Mutex<Trust>,
}

impl Work {
    /// Work for `pair`, steered by `phase`; every writer sends at most one message per `pace`.
    ///
    /// # Errors
    /// The CA file cannot be read.
    pub fn new(
        pair: &Pair,
        sources: Vec<Source>,
        pace: Duration,
        phase: watch::Receiver<Phase>,
    ) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            ledger: Arc::new(Ledger::default()),
            sources: Arc::new(sources),
            run: format!("{:08x}", rand::random::<u32>()),
            accounts: pair.options.accounts.clone(),
            next: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            paused: AtomicUsize::new(0),
            pace,
            phase,
            smtp: SocketAddr::new(CLUSTER_ADDRESS, pair.ports.smtp),
            submissions: SocketAddr::new(CLUSTER_ADDRESS, pair.ports.submissions),
            trust: Mutex::new(pair.trust()?),
        }))
    }

    /// Connections that begin from now on trust what this pair's CA file says now.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn learn_trust(&self, pair: &Pair) -> anyhow::Result<()> {
        *self.trust.lock().unwrap_or_else(PoisonError::into_inner) = pair.trust()?;
        Ok(())
    }

    /// The next source; large ones come once.
    fn next_source(&self) -> usize {
        loop {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let at = turn % self.sources.len().max(1);
            let large = self.sources.get(at).is_some_and(|source| source.bytes.len() > corpus::LARGE_BYTES);
            if !large || turn < self.sources.len() {
                return at;
            }
        }
    }

    /// The bytes of message `id`.
    #[must_use]
    pub fn bytes(&self, id: u64) -> Vec<u8> {
        let source = self.ledger.source(id).and_then(|at| self.sources.get(at));
        source.map(|source| corpus::message(id, &self.run, source)).unwrap_or_default()
    }
}

/// Sends until the phase says end. Odd writers submit over TLS with a login, even ones are strangers on the SMTP port.
pub async fn write(number: usize, work: Arc<Work>) {
    let mut phase = work.phase.clone();
    let mut client = None;
    // A message without a 250 is offered again, as every queue would.
    let mut waiting: Option<(u64, Vec<usize>)> = None;
    while *phase.borrow_and_update() != Phase::End || waiting.is_some() {
        if waiting.is_none() && *phase.borrow() == Phase::Pause {
            work.paused.fetch_add(1, Ordering::Relaxed);
            let _ = phase.wait_for(|phase| *phase != Phase::Pause).await;
            work.paused.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let begun = Instant::now();
        let mut session = match client.take() {
            Some(session) => session,
            None => match connect(number, &work).await {
                Ok(session) => session,
                Err(_) => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                    continue;
                }
            },
        };
        let (id, to) = waiting.take().unwrap_or_else(|| {
            let source = work.next_source();
            let to = recipients(number, source, work.accounts.len());
            (work.ledger.begin(source, &to), to)
        });
        let hold = *phase.borrow() == Phase::Hold && is_stranger(number);
        let sent = transact(&mut session, number, id, &to, &work, hold.then_some(&mut phase)).await;
        work.ledger.sent(id, &sent);
        match sent {
            Sent::Accepted(_) => client = Some(session),
            // The server does not want this message, whoever asks (RFC 5321 §4.2.1); not offered again.
            Sent::Refused(text) if text.starts_with('5') => client = Some(session),
            Sent::Refused(_) | Sent::Unknown(_) => waiting = Some((id, to)),
        }
        tokio::time::sleep_until(begun + work.pace).await;
    }
    if let Some(client) = client {
        client.quit().await;
    }
}

/// Even writers come without a login.
fn is_stranger(number: usize) -> bool {
    number.is_multiple_of(2)
}

fn recipients(number: usize, source: usize, accounts: usize) -> Vec<usize> {
    let first = (number + source) % accounts.max(1);
    if source.is_multiple_of(SEVERAL_EVERY) && accounts >= 3 {
        return vec![first, (first + 1) % accounts, (first + 2) % accounts];
    }
    vec![first]
}

async fn connect(number: usize, work: &Work) -> anyhow::Result<SmtpClient> {
    if is_stranger(number) {
        return SmtpClient::connect(work.smtp, ANSWER_LIMIT).await;
    }
    let account = work.accounts.get(number % work.accounts.len().max(1)).context("no accounts")?;
    let trust = work.trust.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut client = SmtpClient::connect_tls(work.submissions, &trust, ANSWER_LIMIT).await?;
    client.login(&account.address, &account.password).await?;
    Ok(client)
}

async fn transact(
    client: &mut SmtpClient,
    number: usize,
    id: u64,
    to: &[usize],
    work: &Work,
    hold: Option<&mut watch::Receiver<Phase>>,
) -> Sent {
    let bytes = work.bytes(id);
    let paths: Vec<&str> =
        to.iter().filter_map(|&at| work.accounts.get(at)).map(|login| login.address.as_str()).collect();
    let own = work.accounts.get(number % work.accounts.len().max(1)).map(|login| login.address.as_str());
    let from = if is_stranger(number) { "stranger@example.org" } else { own.unwrap_or_default() };
    let Some(phase) = hold else { return client.send(from, &paths, &bytes).await };
    match client.open(from, &paths).await {
        Ok(None) => {}
        Ok(Some(answer)) => return Sent::Refused(format!("{} {}", answer.code, answer.text)),
        Err(fault) => return Sent::Refused(format!("no answer before the body: {fault:#}")),
    }
    let body = stuffed(&bytes);
    let (first, second) = body.split_at(body.len() / 2);
    let begun = client.write(first).await;
    work.open.fetch_add(1, Ordering::Relaxed);
    let _ = phase.wait_for(|phase| *phase != Phase::Hold).await;
    if let Err(fault) = begun.and(client.write(second).await) {
        return Sent::Refused(format!("broken before the end of the body: {fault:#}"));
    }
    client.finish().await
}
