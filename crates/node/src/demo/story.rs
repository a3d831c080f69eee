//! The story the demo tells: mail flows, the primary dies in the middle, mail goes on, the dead node returns, and every
//! acknowledged message is compared on both nodes.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::corpus;
use super::outage::Probes;
use super::pair::{LOOK_INTERVAL, Pair};
use super::readers::{self, Place};
use super::timeline::Timeline;
use super::verify::{self, Verdict};
use super::writers::{self, Phase, Work};

/// Sending connections.
const WRITERS: usize = 8;
/// Acknowledged messages at least.
const MESSAGES_MIN: usize = 2_000;
/// Acknowledged before the kill.
const BEFORE_KILL: usize = 700;
/// Acknowledged before the dead node returns.
const BEFORE_RETURN: usize = 1_400;
/// How long the outage is measured before the kill.
const PROBE_BEFORE: Duration = Duration::from_secs(1);
/// Successes of each measurement after the kill that end it.
const PROBE_AFTER: usize = 25;
/// Longest outage.
const OUTAGE_MAX: Duration = Duration::from_secs(5);
/// Longest time from a 250 until a reader sees the message.
const READABLE_MAX: Duration = Duration::from_secs(5);
/// Longest time from the return of the dead node until both agree.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);
/// How long any one step may take before the demo gives up.
const STEP_MAX: Duration = Duration::from_secs(180);
/// Faults that are printed.
const FAULTS_SHOWN: usize = 20;

/// Clients at work.
struct Clients {
    work: Arc<Work>,
    phase: watch::Sender<Phase>,
    stop_reading: watch::Sender<bool>,
    writers: JoinSet<()>,
    readers: JoinSet<()>,
}

/// Tells it; success only if nothing was lost, duplicated beyond SMTP's ambiguity, or late.
///
/// # Errors
/// The story could not be told to its end.
pub async fn tell(pair: &mut Pair, timeline: &Timeline) -> anyhow::Result<ExitCode> {
    let mut clients = Clients::start(pair)?;
    let work = clients.work.clone();
    timeline.say(&format!("{WRITERS} connections send to {}", super::pair::CLUSTER_ADDRESS));
    clients.await_accepted(BEFORE_KILL).await?;

    let primary = pair.primary().await?;
    let mut probes = Probes::start(pair, &work)?;
    tokio::time::sleep(PROBE_BEFORE).await;
    let open = clients.hold().await?;
    let kill = Instant::now();
    pair.kill(primary).await?;
    let name = pair.node(primary)?.name.clone();
    timeline.say(&format!(
        "{name}, the primary, killed: {} acknowledged, {open} transactions open",
        work.ledger.accepted()
    ));
    let _ = clients.phase.send(Phase::Send);
    await_probes(&probes, kill).await?;
    probes.stop().await;
    let smtp = probes.smtp.outage(kill).context("no mail after the kill")?;
    let imap = probes.imap.outage(kill).context("no reading after the kill")?;
    let outage = smtp.max(imap);
    timeline.say(&format!("mail goes on; outage {} ms for SMTP, {} ms for IMAP", smtp.as_millis(), imap.as_millis()));

    clients.await_accepted(BEFORE_RETURN).await?;
    let back = Instant::now();
    pair.start_node(primary).await?;
    timeline.say(&format!("{name} is back: {} acknowledged", work.ledger.accepted()));
    let status = pair.await_joint(STEP_MAX).await?;
    let catch_up = back.elapsed();
    timeline.say(&format!("both agree again after {} ms: epoch {}", catch_up.as_millis(), status.epoch));
    clients.await_accepted(MESSAGES_MIN).await?;
    clients.end().await?;
    let (sight, slowest) = work.ledger.slowest_sight();
    timeline.say(&format!(
        "{} acknowledged, {} refused by rule, {} never answered; slowest to be readable {} ms",
        work.ledger.accepted(),
        work.ledger.refused().len(),
        work.ledger.unanswered(),
        sight.as_millis()
    ));
    pair.await_joint(CATCH_UP_MAX).await?;
    let mut verdict = verify::judge(&work, &Place::all(pair)?).await?;
    timeline.say(&format!(
        "compared on both nodes: {} whole, {} copies expunged, {} stored without an answer",
        verdict.whole, verdict.expunged, verdict.unanswered_stored
    ));
    for (what, took, most) in [
        ("outage", outage, OUTAGE_MAX),
        ("catch-up", catch_up, CATCH_UP_MAX),
        ("readable after 250", sight, READABLE_MAX),
    ] {
        if took > most {
            let of = if what.starts_with("readable") { format!(" (message {slowest})") } else { String::new() };
            verdict.faults.push(format!("late: {what} took {} ms{of}", took.as_millis()));
        }
    }
    Ok(report(&work, verdict, outage))
}

fn report(work: &Work, mut verdict: Verdict, outage: Duration) -> ExitCode {
    verdict.faults.extend(work.ledger.faults());
    let refused = work.ledger.refused();
    // The corpus has messages a server may refuse (too many Received fields), but only few.
    if refused.len() * 20 > work.ledger.accepted() {
        verdict.faults.push(format!("{} messages refused, the first: {:?}", refused.len(), refused.first()));
    }
    for text in verdict.lost.iter().chain(&verdict.faults).take(FAULTS_SHOWN) {
        println!("            ! {text}");
    }
    let good = verdict.lost.is_empty() && verdict.faults.is_empty();
    let word = if good { "ok" } else { "FAILED" };
    println!(
        "demo: {word}, {} acknowledged, {} lost, outage {} ms",
        work.ledger.accepted(),
        verdict.lost.len(),
        outage.as_millis()
    );
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn await_probes(probes: &Probes, kill: Instant) -> anyhow::Result<()> {
    while probes.smtp.since(kill) < PROBE_AFTER || probes.imap.since(kill) < PROBE_AFTER {
        if kill.elapsed() > STEP_MAX {
            bail!(
                "no service after the kill: {} mails, {} reads in {STEP_MAX:?}",
                probes.smtp.since(kill),
                probes.imap.since(kill)
            );
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

impl Clients {
    fn start(pair: &Pair) -> anyhow::Result<Self> {
        let (phase, phases) = watch::channel(Phase::Send);
        let (stop_reading, stop) = watch::channel(false);
        let work = Work::new(pair, corpus::sources(), writers::PACE, phases)?;
        let mut clients =
            Self { work: work.clone(), phase, stop_reading, writers: JoinSet::new(), readers: JoinSet::new() };
        for number in 0..WRITERS {
            clients.writers.spawn(writers::write(number, work.clone()));
        }
        for place in Place::all(pair)? {
            for account in 0..work.accounts.len() {
                clients.readers.spawn(readers::read(place.clone(), account, work.clone(), stop.clone()));
            }
            clients.readers.spawn(readers::read_pop3(place, work.clone(), stop.clone()));
        }
        Ok(clients)
    }

    async fn await_accepted(&self, count: usize) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.work.ledger.accepted() < count {
            if start.elapsed() > STEP_MAX {
                bail!("only {} of {count} acknowledged in {STEP_MAX:?}", self.work.ledger.accepted());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Waits until half of the writers stand in the middle of a message; how many do.
    async fn hold(&self) -> anyhow::Result<usize> {
        let _ = self.phase.send(Phase::Hold);
        let start = Instant::now();
        while self.work.open.load(Ordering::Relaxed) < WRITERS / 2 {
            if start.elapsed() > STEP_MAX {
                bail!("no transactions open in {STEP_MAX:?}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(self.work.open.load(Ordering::Relaxed))
    }

    /// Ends the writers, lets the readers see the last messages, and ends them.
    async fn end(&mut self) -> anyhow::Result<()> {
        let _ = self.phase.send(Phase::End);
        let writers = async { while self.writers.join_next().await.is_some() {} };
        tokio::time::timeout(STEP_MAX, writers).await.context("the writers do not end")?;
        let start = Instant::now();
        while start.elapsed() <= READABLE_MAX && self.work.ledger.unseen() > 0 {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let _ = self.stop_reading.send(true);
        let readers = async { while self.readers.join_next().await.is_some() {} };
        tokio::time::timeout(STEP_MAX, readers).await.context("the readers do not end")
    }
}
