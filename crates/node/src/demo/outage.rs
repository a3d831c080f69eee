//! Measures the outage as clients see it: one fresh connection to the cluster address per 20 ms, each with a limit of
//! 200 ms, from the last success before the kill to the first success after it; SMTP up to the 250, and IMAP login with
//! a FETCH, each for itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::clients::imap::ImapClient;
use super::clients::smtp::{Sent, SmtpClient};
use super::clients::stream::Trust;
use super::pair::{CLUSTER_ADDRESS, Pair};
use super::writers::Work;

/// Time between two connections.
const EVERY: Duration = Duration::from_millis(20);
/// How long one may take from the first packet to the answer that counts.
const LIMIT: Duration = Duration::from_millis(200);

/// When attempts succeeded.
#[derive(Clone, Default)]
pub struct Successes {
    times: Arc<Mutex<Vec<Instant>>>,
}

impl Successes {
    fn note(&self) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }

    /// Whether anything succeeded after `moment`.
    #[must_use]
    pub fn since(&self, moment: Instant) -> usize {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.iter().filter(|time| **time > moment).count()
    }

    /// From the last success before the outage that began at `kill` to the first after it: the longest time without
    /// success among those that end after `kill`. An answer may still arrive from the dying node, so the one that
    /// spans `kill` need not be it.
    #[must_use]
    pub fn outage(&self, kill: Instant) -> Option<Duration> {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner).clone();
        times.sort_unstable();
        times.windows(2).filter(|pair| pair[1] > kill).map(|pair| pair[1] - pair[0]).max()
    }
}

/// The two measurements, running until told to stop.
pub struct Probes {
    /// SMTP up to the 250.
    pub smtp: Successes,
    /// IMAP login and FETCH.
    pub imap: Successes,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Probes {
    /// Starts both.
    ///
    /// # Errors
    /// The CA file cannot be read.
    pub fn start(pair: &Pair, work: &Arc<Work>) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut probes = Self { smtp: Successes::default(), imap: Successes::default(), stop, tasks: JoinSet::new() };
        let smtp = SocketAddr::new(CLUSTER_ADDRESS, pair.ports.smtp);
        let imaps = SocketAddr::new(CLUSTER_ADDRESS, pair.ports.imaps);
        let trust = pair.trust()?;
        let (mails, reads) = (work.clone(), work.clone());
        probes.tasks.spawn(repeat(probes.smtp.clone(), stopped.clone(), move || mail(smtp, mails.clone())));
        probes.tasks.spawn(repeat(probes.imap.clone(), stopped, move || fetch(imaps, trust.clone(), reads.clone())));
        Ok(probes)
    }

    /// Ends both and waits for the attempts under way.
    pub async fn stop(&mut self) {
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn repeat<F>(successes: Successes, stop: watch::Receiver<bool>, attempt: impl Fn() -> F)
where
    F: Future<Output = bool> + Send + 'static,
{
    let mut under_way = JoinSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    while !*stop.borrow() {
        ticks.tick().await;
        while under_way.try_join_next().is_some() {}
        let attempt = attempt();
        let successes = successes.clone();
        under_way.spawn(async move {
            if attempt.await {
                successes.note();
            }
        });
    }
    while under_way.join_next().await.is_some() {}
}

/// One message; it counts like every other: if its 250 came, it must be there at the end.
async fn mail(peer: SocketAddr, work: Arc<Work>) -> bool {
    let Some(login) = work.accounts.first() else { return false };
    let Some(source) = work.sources.iter().position(|source| source.name.starts_with("generated plain")) else {
        return false;
    };
    let id = work.ledger.begin(source, &[0]);
    let bytes = work.bytes(id);
    // Until the dot is out, a time-out leaves nothing behind; after it nobody knows.
    let mut offered = false;
    let attempt = async {
        let mut client = SmtpClient::connect(peer, LIMIT).await?;
        offered = true;
        anyhow::Ok(client.send("probe@example.org", &[&login.address], &bytes).await)
    };
    let outcome = tokio::time::timeout(LIMIT, attempt).await;
    let sent = match outcome {
        Ok(Ok(sent)) => sent,
        Ok(Err(fault)) => Sent::Refused(format!("{fault:#}")),
        Err(_) if offered => Sent::Unknown("no answer in time".into()),
        Err(_) => Sent::Refused("no connection in time".into()),
    };
    work.ledger.sent(id, &sent);
    matches!(sent, Sent::Accepted(_))
}

async fn fetch(peer: SocketAddr, trust: Trust, work: Arc<Work>) -> bool {
    let Some(login) = work.accounts.first() else { return false };
    let attempt = async {
        let mut client = ImapClient::connect_tls(peer, &trust, LIMIT).await?;
        client.login(&login.address, &login.password).await?;
        client.command("EXAMINE INBOX").await?.ok()?;
        let answer = client.command("FETCH * (UID FLAGS)").await?.ok()?;
        anyhow::Ok(!answer.fetched().is_empty())
    };
    matches!(tokio::time::timeout(LIMIT, attempt).await, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outage_is_the_longest_gap_that_ends_after_the_kill() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let successes = Successes::default();
        // A long gap before the kill is none of ours; an answer of the dying node arrives after it.
        *successes.times.lock().expect("lock") = [0, 900, 1000, 1005, 1400, 1420].map(at).to_vec();
        assert_eq!(successes.outage(at(1001)), Some(Duration::from_millis(395)));
        assert_eq!(successes.since(at(1001)), 3);
    }
}
