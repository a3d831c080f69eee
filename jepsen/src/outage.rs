//! Measures what clients see: one fresh connection per 20 ms over the cluster address, each with a limit of 200 ms; SMTP
//! up to the 250, and IMAP login with a FETCH, each for itself (DESIGN 10).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use node::demo::clients::imap::ImapClient;
use node::demo::clients::smtp::{Sent, SmtpClient};
use tokio::task::JoinSet;

use crate::clients::{Phase, Work};
use crate::model::Outcome;

/// Time between two connections.
const EVERY: Duration = Duration::from_millis(20);
/// How long one may take from the first packet to the answer that counts.
const LIMIT: Duration = Duration::from_millis(200);
/// Messages of one probe account; then it is the next one's turn.
const PER_ACCOUNT: usize = 2_000;

/// When attempts succeeded.
#[derive(Clone, Default)]
pub struct Successes(Arc<Mutex<Vec<Instant>>>);

impl Successes {
    /// Attempts that succeeded count from the moment the answer came.
    pub fn note(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }

    /// The longest time without a success that ends after `from` and begins before `to`; what has not ended yet ends now.
    #[must_use]
    pub fn longest(&self, from: Instant, to: Instant) -> Duration {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        times.sort_unstable();
        // Before the first success there was none.
        if times.first().is_none_or(|first| *first > from) {
            times.insert(0, from);
        }
        let now = Instant::now();
        let last = times.last().copied().unwrap_or(from);
        if last < to {
            times.push(now.min(to));
        }
        let within = times.windows(2).filter(|pair| matches!(pair, [a, b] if *b > from && *a < to));
        within.filter_map(|pair| Some(*pair.get(1)? - *pair.first()?)).max().unwrap_or_default()
    }

    /// The first success after a moment.
    #[must_use]
    pub fn first_after(&self, moment: Instant) -> Option<Instant> {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.iter().filter(|time| **time > moment).min().copied()
    }
}

/// Both measurements.
#[derive(Clone, Default)]
pub struct Probes {
    /// SMTP up to the 250.
    pub smtp: Successes,
    /// IMAP login and FETCH.
    pub imap: Successes,
}

impl Probes {
    /// Runs both until the work ends.
    pub async fn run(self, work: Arc<Work>) {
        let mut tasks = JoinSet::new();
        let (mails, reads) = (work.clone(), work.clone());
        tasks.spawn(repeat(self.smtp, work.clone(), move |turn| mail(turn, mails.clone())));
        tasks.spawn(repeat(self.imap, work, move |_| fetch(reads.clone())));
        while tasks.join_next().await.is_some() {}
    }
}

async fn repeat<F>(successes: Successes, work: Arc<Work>, attempt: impl Fn(usize) -> F)
where
    F: Future<Output = bool> + Send + 'static,
{
    let mut under_way = JoinSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    for turn in 0.. {
        if *work.phase.borrow() != Phase::Work {
            break;
        }
        ticks.tick().await;
        while under_way.try_join_next().is_some() {}
        let (attempt, successes) = (attempt(turn), successes.clone());
        under_way.spawn(async move {
            if attempt.await {
                successes.note();
            }
        });
    }
    while under_way.join_next().await.is_some() {}
}

/// One message; it counts like every other: if its 250 came, it must be there at the end.
async fn mail(turn: usize, work: Arc<Work>) -> bool {
    let probes = work.accounts.len() - work.writable;
    let account = work.writable + turn / PER_ACCOUNT % probes.max(1);
    let Some(login) = work.accounts.get(account) else { return false };
    let id = work.model.begin(account);
    let bytes = work.model.bytes(id);
    // Until the dot is out, a time-out leaves nothing behind; after it nobody knows.
    let mut offered = false;
    let attempt = async {
        let mut client = SmtpClient::connect(SocketAddr::new(work.cluster, work.ports.smtp), LIMIT).await?;
        offered = true;
        anyhow::Ok(client.send("probe@example.org", &[&login.address], &bytes).await)
    };
    let (outcome, text) = match tokio::time::timeout(LIMIT, attempt).await {
        Ok(Ok(Sent::Accepted(text))) => (Outcome::Ok, text),
        Ok(Ok(Sent::Refused(text))) => (Outcome::Fail, text),
        Ok(Ok(Sent::Unknown(text))) => (Outcome::Unknown, text),
        Ok(Err(error)) => (Outcome::Fail, error.to_string()),
        Err(_) if offered => (Outcome::Unknown, "no answer in time".into()),
        Err(_) => (Outcome::Fail, "no connection in time".into()),
    };
    work.model.delivered(id, outcome, &text);
    outcome == Outcome::Ok
}

async fn fetch(work: Arc<Work>) -> bool {
    let Some(login) = work.accounts.first() else { return false };
    let attempt = async {
        let peer = SocketAddr::new(work.cluster, work.ports.imaps);
        let mut client = ImapClient::connect_tls(peer, &work.trust, LIMIT).await?;
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
    fn the_outage_is_the_longest_gap_that_touches_the_fault() {
        let start = Instant::now().checked_sub(Duration::from_secs(60)).expect("a minute ago");
        let at = |ms| start + Duration::from_millis(ms);
        let successes = Successes::default();
        // A long gap before the fault is none of its; an answer of the dying node arrives after it.
        *successes.0.lock().expect("lock") = [0, 900, 1_000, 1_005, 1_400, 1_420].map(at).to_vec();
        assert_eq!(successes.longest(at(1_001), at(1_410)), Duration::from_millis(395));
        assert_eq!(successes.first_after(at(1_001)), Some(at(1_005)));
        assert_eq!(successes.longest(at(1_410), at(5_000)), Duration::from_millis(3_580), "not over at the end");
    }
}
