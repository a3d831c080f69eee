//! Every replication decision of one node, as a sealed machine: events in, outputs out, `now` as an argument.
//!
//! The machine orders and decides; the driver computes (`mailbox::apply` on its store) and does I/O. Rules are those of
//! DESIGN 5 to 7; where a rule has a number (X1 to X24) the comment and the test name it.

mod archive;
mod balance;
mod chains;
mod commit;
mod compare;
mod config;
mod epoch;
mod event;
mod follow;
mod guest;
mod handover;
mod heal;
mod lease;
mod link;
mod members;
mod merge;
mod message;
mod order;
mod output;
mod persist;
mod quorum;
mod rows;
mod status;
mod stream;
mod takeover;

use std::collections::{BTreeMap, VecDeque};

pub use config::{ReplicaConfig, Rule, Timing};
pub use event::Event;
pub use handover::{HANDOVER_BUSY, HANDOVER_REASONS};
pub use members::{REMOVAL_REASONS, REMOVAL_WAITS};
pub use output::{MayRead, MergeBase, Output, Serving, StampBase};
pub use persist::{META_KEY, Saved};
pub use status::{Mode, ReplicaStatus, SyncProgress};
use topology::EpochRecord;
use vocab::{AccountId, BatchId, Instant, NodeId, ShardId, StoreWrite, SubmitError, Version};

/// What a finished write means.
#[derive(Clone, Debug)]
enum Pending {
    /// A batch at the home.
    Local(BatchId),
    /// A batch on a backup or guest.
    Follow(follow::Incoming),
    /// An epoch comes into effect; these batches in flight went with it (X6).
    Epoch(Box<EpochRecord>, Vec<BatchId>),
    /// A newer epoch heard of.
    Newest,
    /// X11.
    JoinMark(vocab::EpochId),
    /// A fetched account replaces the old state.
    Switch { account: AccountId, version: Version, session: u64, peer: NodeId, asked: bool },
}

/// The epoch register as seen here.
#[derive(Clone, Debug, Default)]
struct RegisterView {
    record: Option<EpochRecord>,
    members: Vec<NodeId>,
    voters: u32,
    quorum: bool,
    /// When this record was first seen here.
    learned: Instant,
}

/// The replication machine of one node.
#[derive(Debug)]
pub struct Replica {
    config: ReplicaConfig,
    /// What the local record says or will say when the last write of it is done.
    saved: Saved,
    /// Epoch in effect.
    record: Option<EpochRecord>,
    /// Heal epoch whose join mark is durable (X11).
    join_mark: Option<vocab::EpochId>,
    /// An epoch is being written.
    entering: Option<EpochRecord>,
    /// Epoch in which this node, as home of its shards, compared versions with the whole in-sync set since boot (X3, X5).
    led: Option<vocab::EpochId>,
    /// The epoch before the one in effect, while only homes moved since (`balance`).
    previous: Option<EpochRecord>,
    /// How homes are to be spread.
    balance: balance::Balance,
    outputs: VecDeque<Output>,
    now: Instant,
    last_tick: Instant,
    /// Contact up to here does not count for leases: the clock may have stood still.
    contact_floor: Option<Instant>,
    /// Leases given before the last crash have run out then (X3).
    boot_leases_until: Instant,
    /// Silence of peers that were never heard counts from here.
    silent_since: Instant,
    /// Probe targets that answered since boot, and whether they did the last time.
    targets: BTreeMap<u32, bool>,
    /// Why this node fenced itself.
    fenced: Option<&'static str>,
    /// When a fence may end although the other node is not heard yet.
    unfence_at: Option<Instant>,
    last_beat: Instant,
    versions: Option<BTreeMap<AccountId, Version>>,
    next_number: u64,
    pending: BTreeMap<u64, Pending>,
    batches: u32,
    register: RegisterView,
    orders: order::Orders,
    flights: BTreeMap<BatchId, commit::Flight>,
    peers: BTreeMap<NodeId, link::Peer>,
    follow: follow::Follow,
    guest: guest::Guest,
    compares: BTreeMap<NodeId, compare::Compare>,
    /// Accounts that were not level with the guest yet in the heal epoch in effect, and the version it came with; `None` before
    /// it said what it has.
    apart: Option<BTreeMap<AccountId, Version>>,
    /// Accounts that clients asked for while they were not level; they go first.
    wanted: BTreeMap<AccountId, Instant>,
    /// New batches wait since then, so that the guest can become level.
    hold: Option<Instant>,
    hold_not_before: Instant,
    proposal: Option<epoch::Proposal>,
    propose_not_before: Instant,
    reduce: Option<NodeId>,
    reduced_at: Option<Instant>,
    hold_down_until: Instant,
    handover: Option<handover::Handover>,
    /// Epoch in which this node may go on alone though it has not compared in it: it only moved the home.
    entitled: Option<vocab::EpochId>,
    /// This node is about to stop.
    leaving: bool,
    disk_low: bool,
    /// Since when `disk_low` holds.
    full_since: Option<Instant>,
    disk_silent: u64,
    address_held: bool,
    last_serving: Option<Serving>,
}

impl Replica {
    /// A machine that knows what the disk knows. It asks for the versions first; nothing is served before they came.
    #[must_use]
    pub fn new(config: ReplicaConfig, saved: Saved, now: Instant) -> Self {
        Self {
            config,
            record: saved.record.clone(),
            join_mark: saved.join_mark,
            saved,
            entering: None,
            led: None,
            previous: None,
            balance: balance::Balance::default(),
            outputs: VecDeque::from([Output::ReadVersions]),
            now,
            last_tick: now,
            contact_floor: None,
            boot_leases_until: now.plus_ms(config.timing.lease),
            silent_since: now,
            targets: BTreeMap::new(),
            fenced: None,
            unfence_at: None,
            last_beat: now,
            versions: None,
            next_number: 0,
            pending: BTreeMap::new(),
            batches: 0,
            register: RegisterView::default(),
            orders: order::Orders::default(),
            flights: BTreeMap::new(),
            peers: BTreeMap::new(),
            follow: follow::Follow::default(),
            guest: guest::Guest::default(),
            compares: BTreeMap::new(),
            apart: None,
            wanted: BTreeMap::new(),
            hold: None,
            hold_not_before: now,
            proposal: None,
            propose_not_before: now,
            reduce: None,
            reduced_at: None,
            hold_down_until: Instant(0),
            handover: None,
            entitled: None,
            leaving: false,
            disk_low: false,
            full_since: None,
            disk_silent: 0,
            address_held: false,
            last_serving: None,
        }
    }

    /// Takes one event. `now` never goes back.
    pub fn on(&mut self, event: Event, now: Instant) {
        self.now = now.max(self.now);
        // Whatever comes first after a pause of our own: the silence in it may be ours (H25).
        if self.now.since(self.last_tick) > self.config.timing.pause {
            self.on_pause();
        }
        match event {
            Event::Tick => self.on_tick(),
            Event::Paused => self.on_sleep(),
            Event::LinkUp { peer, boot, link } => self.on_link_up(peer, boot, link),
            Event::LinkDown { peer, link } => self.on_link_down(peer, link),
            Event::Frame { peer, link, bytes } => self.on_frame(peer, link, &bytes),
            Event::Submit { token, accounts } => self.on_submit(token, accounts),
            Event::Wanted(account) => self.want(account),
            Event::Computed { batch, result } => self.on_computed(batch, result),
            Event::Written { token } => self.on_written(token),
            Event::BlobsChecked { token, missing } => self.on_blobs_checked(token, missing),
            Event::Versions(list) => self.versions = Some(list.into_iter().collect()),
            Event::Chain { account, links, head } => self.on_own_chain(account, links, head),
            Event::Register { record, members, voters, quorum } => self.on_register(record, members, voters, quorum),
            Event::Target { target, answered } => self.on_target(target, answered),
            Event::Heard(record) => self.hear(&record),
            Event::ProposeFailed => self.on_propose_failed(),
            Event::GuardWord { peer, boot } => self.on_guard_word(peer, boot),
            Event::Answers { peer } => self.on_answers(peer),
            Event::ResetEvidence { peer } => self.on_reset_evidence(peer),
            Event::StartAlone => self.on_start_alone(),
            Event::Handover { to, leaves } => self.on_handover(to, leaves),
            Event::Leaving(leaving) => self.on_leaving(leaving),
            Event::Spread(spread) => self.balance.spread = spread,
            Event::Fetched { fetch, head, delta, past } => self.on_fetched(fetch, head, delta, past),
            Event::FetchFailed { fetch } => self.on_fetch_failed(fetch),
            Event::BranchArchived { archive, head } => self.on_archived(archive, head),
            Event::ArchiveFailed { archive } => self.on_archive_failed(archive),
            Event::DiskLow(low) => {
                self.disk_low = low;
                self.full_since = low.then(|| self.full_since.unwrap_or(self.now));
            }
            Event::DiskSilent(ms) => self.disk_silent = ms,
        }
        self.settle();
    }

    /// What follows from the state, whatever the event was.
    fn settle(&mut self) {
        if self.versions.is_some() {
            self.consider_rows();
            self.consider_register();
            self.consider_fence();
            self.consider_solo();
            self.answer_versions();
            self.start_compares();
            self.step_compares();
            // A fetch of this node's own may have ended, and with it what a pull waited for.
            self.step_pulls();
            self.tell_compared();
            self.consider_join_mark();
            self.consider_space();
            self.consider_handover();
            self.consider_balance();
            self.consider_proposals();
            self.dispatch();
        }
        let held = self.should_hold_address();
        if held != self.address_held {
            self.address_held = held;
            self.outputs.push_back(Output::AddressHeld(held));
            // Whoever handed over waits to hear it.
            self.beat_all();
        }
        self.flush();
        let serving = Some(self.serving(self.now));
        if serving != self.last_serving {
            self.last_serving = serving;
            self.outputs.push_back(Output::ServingChanged);
        }
    }

    /// The next order; drained until `None` after every event.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to send `Tick` at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.last_tick.plus_ms(self.config.timing.heartbeat))
    }

    /// The node that orders changes of this shard, by the epoch in effect.
    #[must_use]
    pub fn home(&self, shard: ShardId) -> Option<NodeId> {
        self.record.as_ref().map(|r| r.home_of(shard))
    }

    /// Home of the newest epoch known here, whether it is in effect here or not.
    #[must_use]
    pub fn newest_home(&self) -> Option<NodeId> {
        self.newest().map(|record| record.home)
    }

    /// The epoch in effect.
    #[must_use]
    pub fn record(&self) -> Option<&EpochRecord> {
        self.record.as_ref()
    }

    /// Peers that must hold a large body durably before the change that names it is submitted.
    #[must_use]
    pub fn body_peers(&self) -> Vec<NodeId> {
        self.commit_peers()
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn write(&mut self, parts: Vec<StoreWrite>, pending: Pending) {
        let token = self.number();
        self.pending.insert(token, pending);
        self.outputs.push_back(Output::Write { token, parts });
    }

    fn on_written(&mut self, token: u64) {
        match self.pending.remove(&token) {
            None | Some(Pending::Newest) => {}
            Some(Pending::Local(id)) => self.on_local_written(id),
            Some(Pending::Follow(incoming)) => self.on_follow_written(incoming),
            Some(Pending::Epoch(record, flights)) => self.on_entered(*record, &flights),
            Some(Pending::JoinMark(id)) => self.on_join_marked(id),
            Some(Pending::Switch { account, version, session, peer, asked }) => {
                self.set_version(account, version);
                self.guest.switched(account);
                if asked {
                    self.say_now(peer, session, account);
                } else {
                    self.on_own_switch(peer, session, account);
                    self.outputs.push_back(Output::Readable { accounts: vec![account] });
                }
            }
        }
    }

    fn fail(&mut self, tokens: Vec<u64>, error: SubmitError) {
        if !tokens.is_empty() {
            self.outputs.push_back(Output::Failed { tokens, error });
        }
    }

    fn log(&mut self, text: String) {
        self.outputs.push_back(Output::Log(text));
    }

    fn me(&self) -> NodeId {
        self.config.node
    }

    /// Version as written on this disk.
    fn version(&self, account: AccountId) -> Version {
        self.versions.as_ref().and_then(|v| v.get(&account)).copied().unwrap_or_default()
    }

    fn set_version(&mut self, account: AccountId, version: Version) {
        if let Some(versions) = self.versions.as_mut() {
            versions.insert(account, version);
        }
    }
}
