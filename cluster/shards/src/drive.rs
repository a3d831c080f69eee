//! The loop: events into the machine, its orders out, in order.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use mailbox::op::Change;
use ports::journal::EventKind;
use ports::outbox::Outbox as _;
use replica::{Event, Output, Serving};
use tokio::sync::mpsc;
use vocab::limits::{DISK_DEAD_MS, DISK_RESERVE_BYTES, PAUSE_MS};
use vocab::{AccountId, Instant, NodeId, StoreWrite, SubmitError};

use crate::engine::Engine;
use crate::fetches::Purpose;
use crate::merge::MergeOrder;

/// Longest sleep of the loop (ms): ticks come at least this often.
const TICK_MAX_MS: u64 = 50;
/// Events taken at once, so orders of neighbours share frames and syncs.
const EVENTS_AT_ONCE: usize = 256;
/// Items of the queue that are looked at to count those of the other side.
const HELD_COUNTED_MAX: usize = 10_000;
/// Archived branches are counted every so many looks at the disk.
const BRANCHES_EVERY: u64 = 20;
/// Clients are sent away only when this node could not serve for so long (ms): a takeover is shorter.
const NOT_SERVING_MS: u64 = 3_000;

/// How often the disk is looked at (ms).
const DISK_LOOK_MS: u64 = 500;

/// Silence of the disk that is not a pause of this process: one that was stopped for long and goes on has a write under way
/// since before, and must not take its own sleep for a hanging disk (H25).
struct OwnPause {
    last: Instant,
    awake_since: Instant,
}

impl OwnPause {
    const fn new(now: Instant) -> Self {
        Self { last: now, awake_since: now }
    }

    /// The silence (ms), as far as this process was awake for all of it. Called at every look.
    fn without(&mut self, silent_ms: u64, now: Instant) -> u64 {
        if now.since(self.last) > 3 * DISK_LOOK_MS {
            self.awake_since = now;
        }
        self.last = now;
        silent_ms.min(now.since(self.awake_since))
    }
}

impl Engine {
    pub(crate) async fn run(self: Arc<Self>, mut inbox: mpsc::UnboundedReceiver<Event>) {
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        let mut not_serving_since = None;
        let mut last_tick = self.now();
        let mut clocks = (self.now(), std::time::SystemTime::now());
        loop {
            let now = self.now();
            let wake = self.machine().deadline().map_or(TICK_MAX_MS, |d| d.since(now)).clamp(1, TICK_MAX_MS);
            let taken = tokio::time::timeout(Duration::from_millis(wake), inbox.recv_many(&mut events, EVENTS_AT_ONCE));
            if taken.await == Ok(0) {
                return;
            }
            // Also under load, when the inbox is never empty: heartbeats and leases must not starve.
            if events.is_empty() || self.now().since(last_tick) >= TICK_MAX_MS {
                events.extend(self.slept(&mut clocks).then_some(Event::Paused));
                events.push(Event::Tick);
                last_tick = self.now();
            }
            let outputs = {
                let mut machine = self.machine();
                for event in events.drain(..) {
                    machine.on(event, self.now());
                }
                std::iter::from_fn(|| machine.next_output()).collect::<Vec<_>>()
            };
            for output in outputs {
                self.carry_out(output);
            }
            self.show_serving(&mut not_serving_since);
            self.turned.store(self.now().0, Ordering::Relaxed);
        }
    }

    /// Whether the machine slept since the last look: its monotonic clock stands still then, the wall clock does not.
    /// A wall clock that was set forward looks the same and costs no more than a fresh lease.
    fn slept(&self, clocks: &mut (vocab::Instant, std::time::SystemTime)) -> bool {
        let now = (self.now(), std::time::SystemTime::now());
        let before = std::mem::replace(clocks, now);
        let wall = now.1.duration_since(before.1).unwrap_or_default().as_millis();
        wall > u128::from(now.0.since(before.0) + PAUSE_MS)
    }

    /// Front-ends hear "not serving" only when it lasts; the machine itself refuses at once.
    fn show_serving(&self, since: &mut Option<vocab::Instant>) {
        let now = self.now();
        let serving = !matches!(self.machine().serving(now), Serving::Not(_));
        if serving {
            *since = None;
        } else if since.is_none() {
            *since = Some(now);
        }
        let lasted = since.is_some_and(|since| now.since(since) >= NOT_SERVING_MS);
        let shown = *self.serving.borrow();
        if serving && !shown {
            tracing::info!("this node serves clients");
            self.serving.send_replace(true);
        } else if lasted && shown {
            tracing::warn!("this node does not serve clients any more");
            self.serving.send_replace(false);
        }
    }

    fn carry_out(self: &Arc<Self>, output: Output) {
        match output {
            Output::Send { to, frame } => {
                if !self.peers.send(to, frame) {
                    tracing::trace!(to = to.0, "no link for a frame");
                }
            }
            Output::Write { token, parts } => {
                let switched = parts.iter().find_map(|part| match part {
                    StoreWrite::Switch { account, .. } => Some(*account),
                    StoreWrite::Advance { batch, .. } => Some(batch.account),
                    _ => None,
                });
                let written = self.store.write(parts);
                self.ordered(token, written);
                if let Some(account) = switched {
                    self.fetches.switched(account);
                }
            }
            Output::Compute { batch, work, stamp } => {
                let engine = Arc::clone(self);
                tokio::task::spawn_blocking(move || engine.compute(batch, &work, stamp));
            }
            Output::Raise { batch, account, floor, branch, stamp } => {
                let engine = Arc::clone(self);
                tokio::task::spawn_blocking(move || engine.raise(batch, account, floor, branch, stamp));
            }
            Output::Committed { batch } => self.committed(batch),
            Output::Dropped { batch } => {
                self.computed.lock().unwrap_or_else(PoisonError::into_inner).remove(&batch);
            }
            Output::Failed { tokens, error } => tokens.into_iter().for_each(|t| self.answer(t, Err(error.clone()))),
            Output::Readable { accounts } => self.readable_now(accounts),
            other => self.carry_out_rarely(other),
        }
    }

    fn carry_out_rarely(self: &Arc<Self>, output: Output) {
        match output {
            Output::CheckBlobs { token, hashes } => {
                let missing = hashes.into_iter().filter(|hash| !self.store.has_blob(*hash)).collect();
                self.tell(Event::BlobsChecked { token, missing });
            }
            Output::ReadVersions => match self.store.versions() {
                Ok(versions) => self.tell(Event::Versions(versions)),
                Err(damaged) => fatal(&format!("account heads cannot be read: {damaged}")),
            },
            Output::Fetch { fetch, account, from } => self.start_fetch(fetch, account, from, Purpose::Switch),
            Output::FetchBranch { fetch, account, from } => self.start_fetch(fetch, account, from, Purpose::Merge),
            Output::Merge { batch, account, fetch, base, between, served, guest_served, stamp } => {
                let order = MergeOrder { batch, account, fetch, base, between, served, guest_served, stamp };
                tokio::spawn(Arc::clone(self).merge(order));
            }
            Output::StopFetch { fetch } => self.stop_fetch(fetch),
            Output::ReadChain { account } => self.read_chain(account),
            Output::AddressHeld(held) => {
                let what = match (*self.holds_address.borrow(), held) {
                    (true, true) => "this node claims the cluster address anew",
                    (false, true) => "this node holds the cluster address",
                    (_, false) => "the cluster address is let go",
                };
                tracing::info!(held, what, "cluster address");
                self.note(EventKind::Address, what);
                self.holds_address.send_replace(held);
            }
            Output::ServingChanged => {
                self.confirmed.notify_waiters();
                self.queue_changed.notify_waiters();
                self.watchers.tell_all();
            }
            Output::StartAlone(result) => {
                let waiting = std::mem::take(&mut *self.start_alone.lock().unwrap_or_else(PoisonError::into_inner));
                for answer in waiting {
                    // Whoever asked may have gone.
                    let _ = answer.send(result);
                }
            }
            Output::HandedOver(result) => self.handed_over(&result),
            Output::Alert(text) => {
                metrics::counter!("twinpost_alerts_total").increment(1);
                tracing::error!(alert = text, "alert");
                self.note(EventKind::Alert, &text);
            }
            Output::Log(text) => {
                tracing::info!(decision = text, "replica");
                self.note(EventKind::Decision, &text);
            }
            other => {
                tokio::spawn(Arc::clone(self).carry_out_slowly(other));
            }
        }
    }

    async fn carry_out_slowly(self: Arc<Self>, output: Output) {
        match output {
            Output::FetchBlobs { token, from, hashes } => {
                for hash in &hashes {
                    if let Err(error) = self.fetch_blob(from, *hash).await {
                        tracing::warn!(%hash, %error, "a body could not be fetched");
                    }
                }
                let missing = hashes.into_iter().filter(|hash| !self.store.has_blob(*hash)).collect();
                self.tell(Event::BlobsChecked { token, missing });
            }
            Output::Propose { expect, record } => {
                let op = topology::ConfigOp::SetEpoch { expect, record };
                if let Err(error) = self.config.propose(op).await {
                    tracing::info!(%error, "an epoch was not set");
                    self.tell(Event::ProposeFailed);
                }
            }
            Output::ArchiveBranch { archive, account, from } => {
                match self.archive(account, from.unwrap_or(self.node)).await {
                    Ok(head) => self.tell(Event::BranchArchived { archive, head }),
                    Err(error) => {
                        tracing::warn!(account = account.0, %error, "a branch could not be archived");
                        self.tell(Event::ArchiveFailed { archive });
                    }
                }
            }
            Output::Probe { peer } => {
                if self.evidence.process_gone(peer).await {
                    self.tell(Event::ResetEvidence { peer });
                }
            }
            Output::Look { peer } => {
                if self.evidence.serves(peer).await {
                    self.tell(Event::Answers { peer });
                }
            }
            other => tracing::error!(?other, "an order without a hand"),
        }
    }

    fn read_chain(&self, account: AccountId) {
        match self.store.chain(account).and_then(|links| Ok((links, self.store.head(account)?))) {
            Ok((links, head)) => self.tell(Event::Chain { account, links, head }),
            Err(damaged) => fatal(&format!("the version chain of account {} cannot be read: {damaged}", account.0)),
        }
    }

    fn committed(&self, batch: vocab::BatchId) {
        let computed = self.computed.lock().unwrap_or_else(PoisonError::into_inner).remove(&batch);
        self.confirmed.notify_waiters();
        let Some(computed) = computed else { return };
        for (token, done) in computed.answers {
            self.answer(token, done);
        }
        for (account, changes) in computed.changes {
            if account == AccountId::QUEUE {
                self.queue_changed.notify_waiters();
            }
            self.watchers.tell(account, changes);
        }
    }

    /// A backup does not know what changed, only that something did.
    fn readable_now(&self, accounts: Vec<AccountId>) {
        self.confirmed.notify_waiters();
        for account in accounts {
            self.watchers.tell(account, [Change::Hierarchy]);
        }
    }

    /// Keeps the machine's view of the register, the members and the quorum up to date.
    pub(crate) async fn follow_register(self: Arc<Self>) {
        let mut revision = self.config.watch();
        let mut quorum = self.config.quorum();
        loop {
            let state = self.config.current();
            let members: Vec<NodeId> = state.members.values().filter(|m| m.data).map(|m| m.id).collect();
            let (has_quorum, voters) = {
                let now = quorum.borrow_and_update();
                (now.quorum, u32::try_from(now.voters.len()).unwrap_or(u32::MAX))
            };
            self.tell(Event::Spread(state.spreads_homes()));
            self.tell(Event::Register { record: state.epoch.clone(), members, voters, quorum: has_quorum });
            tokio::select! {
                changed = revision.changed() => if changed.is_err() { return },
                changed = quorum.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Tells the machine how the disk does, and ends a process whose disk hangs: it must look dead.
    pub(crate) async fn watch_disk(self: Arc<Self>) {
        let mut every = tokio::time::interval(Duration::from_millis(DISK_LOOK_MS));
        let mut rounds = 0u64;
        let mut own = OwnPause::new(self.now());
        loop {
            every.tick().await;
            let silent = own.without(self.store.disk_silent_ms(), self.now());
            if silent > DISK_DEAD_MS {
                fatal(&format!("the disk has not synced anything for {silent} ms"));
            }
            self.tell(Event::DiskSilent(silent));
            let low = self.store.free_bytes() < DISK_RESERVE_BYTES;
            if self.disk_low.swap(low, Ordering::Relaxed) != low {
                if low {
                    tracing::error!(
                        reserve = DISK_RESERVE_BYTES,
                        "free space is below the reserve: changes are refused"
                    );
                } else {
                    tracing::info!("free space is above the reserve again");
                }
                self.tell(Event::DiskLow(low));
            }
            self.small.sweep();
            self.publish_metrics();
            if rounds.is_multiple_of(BRANCHES_EVERY) {
                #[expect(clippy::cast_precision_loss, reason = "a gauge for people")]
                metrics::gauge!("twinpost_archived_branches").set(self.store.branches().len() as f64);
                self.publish_rarely().await;
            }
            rounds = rounds.wrapping_add(1);
        }
    }

    /// What takes more than a look at the machine.
    async fn publish_rarely(self: &Arc<Self>) {
        self.count_accepts().await;
        let now = self.now();
        // Two statements: the machine is asked again for the status of the sync, and its lock is not reentrant.
        let sync = self.machine().status(now).sync;
        let sync = sync.map(|sync| self.sync_status(sync)).unwrap_or_default();
        let held = match self.queue_hold() {
            Some(hold) => {
                let items = crate::EngineOutbox(Arc::clone(self)).list(HELD_COUNTED_MAX).await.unwrap_or_default();
                items.iter().filter(|item| item.owner.is_some_and(|owner| owner != hold.node)).count() as u64
            }
            None => 0,
        };
        self.held.store(held, Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a gauge for people")]
        let gauge = |n: u64| n as f64;
        metrics::gauge!("twinpost_sync_left_bytes").set(gauge(sync.bytes_left));
        metrics::gauge!("twinpost_sync_left_seconds").set(gauge(sync.seconds_left.unwrap_or(0)));
        metrics::gauge!("twinpost_queue_held").set(gauge(held));
    }

    fn publish_metrics(&self) {
        let now = self.now();
        let status = self.machine().status(now);
        #[expect(clippy::cast_precision_loss, reason = "a gauge for people")]
        let gauge = |n: u64| n as f64;
        metrics::gauge!("twinpost_batches_in_flight").set(gauge(status.in_flight));
        metrics::gauge!("twinpost_oldest_batch_seconds").set(gauge(status.oldest_ms) / 1000.0);
        metrics::gauge!("twinpost_commands_waiting").set(gauge(status.waiting));
        metrics::gauge!("twinpost_in_sync_nodes").set(gauge(status.record.map_or(0, |r| r.in_sync.len() as u64)));
        self.progress.look(status.sync, now);
        metrics::gauge!("twinpost_sync_accounts_left").set(gauge(status.sync.map_or(0, |s| s.accounts_left)));
    }
}

/// Ends the process: going on would break a promise. The guard tells the peer.
pub(crate) fn fatal(reason: &str) {
    tracing::error!(reason, "the process ends");
    eprintln!("twinpost: {reason}");
    std::process::exit(70);
}

/// A change that cannot be computed because rows are damaged.
pub(crate) fn damaged_error() -> SubmitError {
    SubmitError::Unavailable(crate::DAMAGED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h25_a_pause_of_ones_own_is_no_silence_of_the_disk() {
        let mut own = OwnPause::new(Instant(0));
        // The disk hangs: that counts in full, however long the looks go on.
        let hangs: Vec<u64> = (1..=30).map(|n| own.without(n * DISK_LOOK_MS, Instant(n * DISK_LOOK_MS))).collect();
        assert_eq!(hangs.last(), Some(&15_000));
        let mut own = OwnPause::new(Instant(0));
        assert_eq!(own.without(100, Instant(500)), 100);
        // Stopped for a minute in the middle of a write.
        assert_eq!(own.without(60_100, Instant(60_500)), 0);
        assert_eq!(own.without(60_600, Instant(61_000)), 500);
        assert!(own.without(71_100, Instant(61_500)) < DISK_DEAD_MS);
    }
}
