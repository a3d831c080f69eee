//! The load under which nodes are killed: 50 deliveries and 10 flag changes a second, IDLE and POP3 sessions; and what
//! must never fall while it runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use node::demo::clients::imap::{ImapClient, Selected};
use node::demo::clients::smtp::SmtpClient;
use node::demo::clients::stream::Trust;
use node::demo::corpus::{self, Source};
use node::demo::pair::{CLUSTER_ADDRESS, LOOK_INTERVAL, Pair};
use node::demo::readers::{self, Place};
use node::demo::verify;
use node::demo::writers::{self, Phase, Work};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Sending connections.
const WRITERS: usize = 5;
/// Each sends so often: 50 deliveries a second together.
const PACE: Duration = Duration::from_millis(100);
/// Two sessions change flags so often: 10 changes a second together.
const FLAG_PACE: Duration = Duration::from_millis(200);
/// Larger messages would make the judge slow without showing more.
const SOURCE_BYTES_MAX: usize = 20_000;
/// How long a client waits for any answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(25);
/// How long writers may take to come to rest, and readers to end.
const REST_LIMIT: Duration = Duration::from_secs(60);

/// One run of a session.
type Session = std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;
/// Numbers of one account that only grow while UIDVALIDITY stays.
type Floors = BTreeMap<(IpAddr, usize), Selected>;

/// Clients at work.
pub struct Load {
    /// What they know.
    pub work: Arc<Work>,
    phase: watch::Sender<Phase>,
    writers: JoinSet<()>,
    stop: watch::Sender<bool>,
    readers: JoinSet<()>,
    floors: Floors,
}

impl Load {
    /// Starts all clients.
    ///
    /// # Errors
    /// The CA file cannot be read.
    pub fn start(pair: &Pair) -> anyhow::Result<Self> {
        let (phase, phases) = watch::channel(Phase::Send);
        let sources: Vec<Source> =
            corpus::sources().into_iter().filter(|source| source.bytes.len() < SOURCE_BYTES_MAX).collect();
        let work = Work::new(pair, sources, PACE, phases)?;
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            writers.spawn(writers::write(number, work.clone()));
        }
        let (stop, _) = watch::channel(false);
        let mut load = Self { work, phase, writers, stop, readers: JoinSet::new(), floors: Floors::new() };
        load.start_readers(pair)?;
        Ok(load)
    }

    fn start_readers(&mut self, pair: &Pair) -> anyhow::Result<()> {
        let (stop, stopped) = watch::channel(false);
        self.stop = stop;
        let work = &self.work;
        for place in Place::all(pair)? {
            for account in 0..work.accounts.len() {
                self.readers.spawn(readers::read(place.clone(), account, work.clone(), stopped.clone()));
            }
            self.readers.spawn(readers::read_pop3(place.clone(), work.clone(), stopped.clone()));
            self.readers.spawn(repeat(stopped.clone(), flag(place, work.clone())));
        }
        let cluster = SocketAddr::new(CLUSTER_ADDRESS, pair.ports.imaps);
        for account in 0..work.accounts.len().min(2) {
            self.readers.spawn(repeat(stopped.clone(), idle(cluster, pair.trust()?, account, work.clone())));
        }
        Ok(())
    }

    async fn end_readers(&mut self) -> anyhow::Result<()> {
        let _ = self.stop.send(true);
        let all = async { while self.readers.join_next().await.is_some() {} };
        tokio::time::timeout(REST_LIMIT, all).await.context("the readers do not end")
    }

    /// All clients trust what the pair's CA file says now; readers begin anew with it.
    ///
    /// # Errors
    /// The file cannot be read, or the readers do not end.
    pub async fn learn_trust(&mut self, pair: &Pair) -> anyhow::Result<()> {
        self.end_readers().await?;
        self.work.learn_trust(pair)?;
        self.start_readers(pair)
    }

    /// Waits until `count` more messages are acknowledged.
    ///
    /// # Errors
    /// Not within `limit`.
    pub async fn await_more(&self, count: usize, limit: Duration) -> anyhow::Result<()> {
        let (start, before) = (Instant::now(), self.work.ledger.accepted());
        while self.work.ledger.accepted() < before + count {
            if start.elapsed() > limit {
                bail!("{} of {count} acknowledged in {limit:?}", self.work.ledger.accepted() - before);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Lets all clients rest, compares every acknowledged message on both nodes, and sends on.
    ///
    /// # Errors
    /// Something was lost, doubled, renumbered; or a node could not be read.
    pub async fn judge(&mut self, pair: &Pair) -> anyhow::Result<usize> {
        let _ = self.phase.send(Phase::Pause);
        let start = Instant::now();
        while self.work.paused.load(Ordering::Relaxed) < WRITERS || self.work.ledger.unseen() > 0 {
            if start.elapsed() > REST_LIMIT {
                let unseen = self.work.ledger.unseen();
                bail!(
                    "{} of {WRITERS} writers rest, {unseen} messages unseen",
                    self.work.paused.load(Ordering::Relaxed)
                );
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        // What a reader expunges while the judge reads would look lost.
        self.end_readers().await?;
        let verdict = verify::judge(&self.work, &Place::all(pair)?).await?;
        let mut faults = self.work.ledger.faults();
        faults.extend(verdict.lost);
        faults.extend(verdict.faults);
        if !faults.is_empty() {
            faults.truncate(30);
            bail!("{}", faults.join("\n"));
        }
        self.start_readers(pair)?;
        let _ = self.phase.send(Phase::Send);
        Ok(verdict.whole)
    }

    /// UIDNEXT and HIGHESTMODSEQ of every account on every node, compared with the last time.
    ///
    /// # Errors
    /// One fell although UIDVALIDITY stayed, or UIDVALIDITY fell; or a node could not be read.
    pub async fn check_floors(&mut self, pair: &Pair) -> anyhow::Result<()> {
        for place in Place::all(pair)? {
            for account in 0..self.work.accounts.len() {
                let mut client = place.imap(&self.work, account).await?;
                let now = client.select("INBOX").await?;
                client.logout().await;
                // Whichever node was asked last, the other may not say less.
                for ((_, other), before) in &self.floors {
                    let same = *other == account && before.uid_validity == now.uid_validity;
                    let fell = now.uid_next < before.uid_next || now.highest_modseq < before.highest_modseq;
                    if (same && fell) || (*other == account && now.uid_validity < before.uid_validity) {
                        bail!("account {account} at {}: {before:?} became {now:?}", place.address);
                    }
                }
                self.floors.insert((place.address, account), now);
            }
        }
        Ok(())
    }

    /// Ends all clients.
    ///
    /// # Errors
    /// They do not end.
    pub async fn end(mut self) -> anyhow::Result<()> {
        let _ = self.phase.send(Phase::End);
        self.end_readers().await?;
        let all = async { while self.writers.join_next().await.is_some() {} };
        tokio::time::timeout(REST_LIMIT, all).await.context("the writers do not end")
    }
}

/// Waits until a message is accepted at the cluster address; how long it took.
///
/// # Errors
/// Not within `limit`.
pub async fn await_service(pair: &Pair, limit: Duration) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let peer = SocketAddr::new(CLUSTER_ADDRESS, pair.ports.smtp);
    let try_limit = Duration::from_millis(300);
    loop {
        let attempt = async {
            let mut client = SmtpClient::connect(peer, try_limit).await?;
            let to = pair.options.accounts.first().context("no account")?;
            let answer = client.command("MAIL FROM:<>").await?;
            let taken = client.command(&format!("RCPT TO:<{}>", to.address)).await?;
            client.quit().await;
            anyhow::Ok(answer.code == 250 && taken.code == 250)
        };
        if matches!(attempt.await, Ok(true)) {
            return Ok(start.elapsed());
        }
        if start.elapsed() > limit {
            bail!("no service at {peer} after {limit:?}");
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Runs a session again and again until told to stop.
async fn repeat<F>(mut stop: watch::Receiver<bool>, mut session: impl FnMut() -> F)
where
    F: Future<Output = anyhow::Result<()>>,
{
    while !*stop.borrow() {
        tokio::select! {
            _ = session() => {}
            _ = stop.changed() => return,
        }
        // A session that ended was broken by a kill; the next connects a little later.
        let _ = tokio::time::timeout(FLAG_PACE, stop.changed()).await;
    }
}

/// Sets and clears a flag of the newest message of the first account.
fn flag(place: Place, work: Arc<Work>) -> impl FnMut() -> Session {
    move || {
        let (place, work) = (place.clone(), work.clone());
        Box::pin(async move {
            let mut client = place.imap(&work, 0).await?;
            client.select("INBOX").await?;
            for sign in ["+", "-"].iter().cycle() {
                client.command("NOOP").await?.ok()?;
                // NO and BAD are answers too: the mailbox may be empty.
                let _ = client.command(&format!("STORE * {sign}FLAGS (\\Answered)")).await?;
                tokio::time::sleep(FLAG_PACE).await;
            }
            Ok(())
        })
    }
}

/// Idles; what it is told must be a line it understands.
fn idle(peer: SocketAddr, trust: Trust, account: usize, work: Arc<Work>) -> impl FnMut() -> Session {
    move || {
        let (trust, work) = (trust.clone(), work.clone());
        Box::pin(async move {
            let login = work.accounts.get(account).context("no account")?;
            let mut client = ImapClient::connect_tls(peer, &trust, ANSWER_LIMIT).await?;
            client.login(&login.address, &login.password).await?;
            client.select("INBOX").await?;
            let mut exists = client.exists;
            let tag = client.idle().await?;
            loop {
                let line = client.idle_line().await?;
                if line.ends_with(b" EXPUNGE") {
                    exists = exists.saturating_sub(1);
                } else if line.ends_with(b" EXISTS") {
                    if client.exists < exists {
                        work.ledger.fault(format!("IDLE of account {account}: EXISTS fell without EXPUNGE"));
                    }
                    exists = client.exists;
                }
                if line.starts_with(b"* BYE") {
                    let _ = client.done(&tag).await;
                    return Ok(());
                }
            }
        })
    }
}
