//! Fan-out of accept records (DESIGN 5, H14): a message whose accounts have several homes was committed, for 250, as one
//! record in the queue; its home places it with every recipient, here or by one call to each other home, and settles the
//! record. A placement's id is made of accept id and recipient number and is remembered for ever, so it does not matter
//! how often, where and on how many branches this runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use queue::op::{AcceptRecord, LocalRecipient, QueueOp};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use vocab::{AccountId, CommandId, Damaged, EpochId, NodeId, PlacementId, SubmitError};

use crate::engine::Engine;
use crate::grace::wall;
use crate::work::{DeliveryWork, Work};

/// How often this node looks whether it has become the one that fans out (ms).
const LOOK_EVERY_MS: u64 = 250;
/// Records are read from the rows again after so many looks, be it that nothing seems to have changed.
const LOOKS_PER_READ: u64 = 20;
/// Records under way at once; those beyond it are found in the rows later.
const UNDER_WAY_MAX: usize = 1024;
/// Records that are being placed at the same moment.
const AT_ONCE: usize = 64;
/// Recipients of one batch.
const RECIPIENTS_PER_BATCH: usize = 64;
/// Pause after a first failure; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between two tries; a record is tried until it is settled, because its sender was told 250.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A record that waits longer than this is shown to the operator (ms).
pub(crate) const LATE_MS: u64 = 60_000;
/// Waiting records that are looked at for the metrics.
const COUNTED_MAX: usize = 10_000;

fn unreadable(damaged: Damaged) -> SubmitError {
    tracing::error!(%damaged, "rows are damaged");
    SubmitError::Unavailable(crate::NOT_SERVING)
}

/// What of the fan-out is in this process.
pub(crate) struct FanOut {
    fresh: mpsc::UnboundedSender<AcceptRecord>,
    under_way: Mutex<BTreeSet<CommandId>>,
    at_once: Semaphore,
    /// Waiting records, and those of them that are late, as last counted at the home of the queue.
    waiting: AtomicU64,
    late: AtomicU64,
}

impl FanOut {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<AcceptRecord>) {
        let (fresh, accepted) = mpsc::unbounded_channel();
        let fan_out = Self {
            fresh,
            under_way: Mutex::default(),
            at_once: Semaphore::new(AT_ONCE),
            waiting: AtomicU64::new(0),
            late: AtomicU64::new(0),
        };
        (fan_out, accepted)
    }

    /// A record was committed here: its fan-out begins now.
    pub(crate) fn begin(&self, record: AcceptRecord) {
        // The loop ends only with the process.
        let _ = self.fresh.send(record);
    }

    /// Records that have waited for more than [`LATE_MS`].
    pub(crate) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeSet<CommandId>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the caller is the one that fans it out in this process.
    fn claim(&self, accept: CommandId) -> bool {
        let mut under_way = self.under_way();
        under_way.len() < UNDER_WAY_MAX && under_way.insert(accept)
    }
}

impl Engine {
    /// Fans out what is accepted here at once, and what others left behind (a restart, a takeover, a heal) when this node
    /// becomes the home of the queue or a new epoch begins.
    pub(crate) async fn fan_out_forever(self: Arc<Self>, mut fresh: mpsc::UnboundedReceiver<AcceptRecord>) {
        let mut look = tokio::time::interval(Duration::from_millis(LOOK_EVERY_MS));
        let mut read: Option<(EpochId, u64)> = None;
        let mut looks = 0u64;
        loop {
            tokio::select! {
                record = fresh.recv() => match record {
                    Some(record) => self.start_fan_out(record),
                    None => return,
                },
                _ = look.tick() => {
                    looks += 1;
                    let epoch = if self.works_queue() { self.epoch() } else { None };
                    let due = |epoch| read.is_none_or(|(last, at)| last != epoch || looks >= at + LOOKS_PER_READ);
                    match epoch {
                        Some(epoch) if due(epoch) => {
                            read = self.read_accepts().await.then_some((epoch, looks));
                        }
                        Some(_) => {}
                        None => read = None,
                    }
                }
            }
        }
    }

    fn epoch(&self) -> Option<EpochId> {
        self.machine().record().map(|record| record.id)
    }

    /// Starts whatever waits in the rows; false when they cannot be read now.
    async fn read_accepts(self: &Arc<Self>) -> bool {
        let Ok(rows) = self.readable(AccountId::QUEUE).await else { return false };
        let records = match queue::read::accepts(&*rows, UNDER_WAY_MAX) {
            Ok(records) => records,
            Err(damaged) => {
                tracing::error!(%damaged, "accept records cannot be read");
                return false;
            }
        };
        records.into_iter().for_each(|record| self.start_fan_out(record));
        true
    }

    fn start_fan_out(self: &Arc<Self>, record: AcceptRecord) {
        if self.fan_out.claim(record.accept) {
            tokio::spawn(Arc::clone(self).fan_out(record));
        }
    }

    async fn fan_out(self: Arc<Self>, record: AcceptRecord) {
        let accept = record.accept;
        let mut left = record.recipients.clone();
        let mut pause = PAUSE_FIRST;
        // Whoever is the home of the queue next finds the record there.
        while self.works_queue() {
            match self.fan_out_once(&record, &mut left).await {
                Ok(()) => {
                    tracing::debug!(%accept, "message fanned out");
                    break;
                }
                Err(error) if pause == PAUSE_MAX => {
                    tracing::warn!(%accept, %error, left = left.len(), "an accepted message is not placed everywhere yet");
                }
                Err(error) => tracing::debug!(%accept, %error, left = left.len(), "fan-out is tried again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.fan_out.under_way().remove(&accept);
    }

    /// Places what is left, a part per home, and settles the record when nothing is.
    async fn fan_out_once(
        self: &Arc<Self>,
        record: &AcceptRecord,
        left: &mut Vec<LocalRecipient>,
    ) -> Result<(), SubmitError> {
        // Closed never: the engine lives as long as its tasks.
        let _permit = self.fan_out.at_once.acquire().await.map_err(|_| SubmitError::Unavailable(crate::NOT_SERVING))?;
        let mut homes: BTreeMap<NodeId, Vec<LocalRecipient>> = BTreeMap::new();
        for recipient in left.iter() {
            let home = self.home_of(recipient.account).ok_or(SubmitError::Unavailable(crate::NOT_SERVING))?;
            homes.entry(home).or_default().push(recipient.clone());
        }
        let mut parts = JoinSet::new();
        for (home, recipients) in homes {
            for part in recipients.chunks(RECIPIENTS_PER_BATCH) {
                let (engine, work) = (Arc::clone(self), DeliveryWork::of_record(record, part));
                let numbers: Vec<u32> = part.iter().map(|recipient| recipient.number).collect();
                parts.spawn(async move { (numbers, engine.place_part(home, work).await) });
            }
        }
        let mut failed = Ok(());
        while let Some(part) = parts.join_next().await {
            let Ok((numbers, placed)) = part else { continue };
            match placed {
                Ok(refused) => {
                    left.retain(|r| !numbers.contains(&r.number) || refused.contains(&r.number));
                    if !refused.is_empty() {
                        failed = Err(SubmitError::Unavailable(crate::REFUSED));
                    }
                }
                Err(error) => failed = Err(error),
            }
        }
        failed?;
        if !left.is_empty() {
            return Err(SubmitError::Unknown("a part of the fan-out ended badly"));
        }
        *left = self.lacking(record)?;
        if !left.is_empty() {
            return Err(SubmitError::Unavailable(crate::PLACED_ELSEWHERE));
        }
        self.order(Work::Queue(QueueOp::Settle { accept: record.accept }, Vec::new())).await.map(drop)
    }

    /// Recipients whose placement this disk does not know. A home in this epoch has placed it on every disk in sync before it
    /// answers; one that went on alone has placed it on its own branch, and there it may stay for ever.
    fn lacking(&self, record: &AcceptRecord) -> Result<Vec<LocalRecipient>, SubmitError> {
        let mut lacking = Vec::new();
        for recipient in &record.recipients {
            if !self.is_placed_here(record.accept, recipient.number, recipient.account)? {
                lacking.push(recipient.clone());
            }
        }
        Ok(lacking)
    }

    /// Whether this disk knows the placement, or the account is gone for good.
    fn is_placed_here(&self, accept: CommandId, number: u32, account: AccountId) -> Result<bool, SubmitError> {
        let id = PlacementId { command: accept.for_recipient(number), index: 0 };
        let known = mailbox::read::known_place(&*self.store.snapshot(account), id).map_err(unreadable)?;
        Ok(known.is_some() || self.is_removed(account))
    }

    /// Whether this disk has the placement, or the record that promises it.
    pub(crate) fn is_owed_here(&self, accept: CommandId, number: u32, account: AccountId) -> Result<bool, SubmitError> {
        let record = queue::read::accept(&*self.store.snapshot(AccountId::QUEUE), accept).map_err(unreadable)?;
        let owed = record.is_some_and(|record| record.recipients.iter().any(|r| r.number == number));
        Ok(owed || self.is_placed_here(accept, number, account)?)
    }

    /// Recipients of one home; numbers of those whose mailboxes refused the message.
    async fn place_part(&self, home: NodeId, work: DeliveryWork) -> Result<Vec<u32>, SubmitError> {
        if home == self.node {
            return self.deliver_here(work).await;
        }
        let placed = self.deliver_there(home, &work.accounts(), &work, false).await;
        if matches!(placed, Err(SubmitError::Unavailable(crate::NO_BODY)))
            && let Some(body) = self.store.blob(work.hash, 0, work.size)
        {
            // It came into the in-sync set after the record: its body is sent with the next try.
            self.push_blob(home, work.hash, &body).await?;
        }
        placed
    }

    /// Tells the metrics and the status how many records wait; zero at a node that does not fan out.
    pub(crate) async fn count_accepts(self: &Arc<Self>) {
        let records = match self.works_queue() {
            true => self.readable(AccountId::QUEUE).await.ok(),
            false => None,
        };
        let records = records.and_then(|rows| queue::read::accepts(&*rows, COUNTED_MAX).ok()).unwrap_or_default();
        let now = wall();
        let late = records.iter().filter(|record| record.accepted_at.plus_ms(LATE_MS) < now).count() as u64;
        self.fan_out.waiting.store(records.len() as u64, Ordering::Relaxed);
        self.fan_out.late.store(late, Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a gauge for people")]
        let gauge = |n: u64| n as f64;
        let oldest = records.first().map_or(0, |record| now.seconds().saturating_sub(record.accepted_at.seconds()));
        metrics::gauge!("twinpost_accepts_waiting").set(gauge(records.len() as u64));
        metrics::gauge!("twinpost_accepts_oldest_seconds").set(gauge(oldest));
    }
}
