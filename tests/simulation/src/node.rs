//! One node: a disk that stays, a process that comes and goes, and the hands that carry out the machine's orders.

use std::collections::{BTreeMap, BTreeSet};

use replica::{Event, Output, Replica, ReplicaConfig, Saved};
use topology::EpochRecord;
use vocab::{AccountId, BatchId, Boot, CommandId, Instant, StoreWrite, SubmitError};

use crate::Control;
use crate::disk::{Disk, Image};
use crate::outbound::Worker;
use crate::rng::Rng;
use crate::spread::Fans;
use crate::vocabulary::{
    After, Answer, Branch, Done, Happening, Inner, Job, Merge, Ms, Pull, Waiter, Work, index_of, node_id,
};
use crate::world::{World, timing};

/// Name of the boot counter on the disk.
const BOOT_KEY: &str = "boot";
/// What the machine says of a commit that takes too long.
const LATE: &str = "no commit in time";
/// With the second control: how long a node waits for its peer before it goes on by itself (ms).
const IMPATIENCE_MS: Ms = 2_500;

/// What outlives the process.
pub(crate) struct Node {
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    pub(crate) paused: bool,
    /// Since when.
    pub(crate) paused_at: Ms,
    /// When the last pause ended that is long enough to be noticed.
    pub(crate) woke: Ms,
    /// Counts pauses, so that an old wake-up does nothing.
    pub(crate) pauses: u64,
    pub(crate) deferred: Vec<Inner>,
    /// Whether the pause stops the monotonic clock too (a machine that sleeps), and since when it lasts.
    pub(crate) asleep: Option<Ms>,
    /// The register as this node's Raft log has applied it; durable.
    pub(crate) known: Option<EpochRecord>,
    /// Epoch on the disk, for the checks.
    pub(crate) record: Option<EpochRecord>,
    /// Its epoch alone was opened by a node that had compared since boot, or by an operator.
    pub(crate) alone_by_right: bool,
    /// Its side while members are left out (with a third voter).
    pub(crate) apart: Option<usize>,
    /// Whether the last process that died might have gone on alone: its last write may say so.
    pub(crate) had_right: bool,
    /// How wrong the wall clock is (ms, added).
    pub(crate) wall: Ms,
    last_boot: u32,
    /// Copies somebody made of its disk.
    pub(crate) copies: Vec<Image>,
    /// Its disk was rolled back or replaced, and not all nodes have been joint since.
    pub(crate) rolled_back: bool,
    /// Where it stands in a heal.
    pub(crate) heal: Option<crate::heal_steps::HealStep>,
    /// Its disk has no room.
    pub(crate) full: bool,
    /// Greatest row format its program reads.
    pub(crate) reads_rows: u32,
}

/// What a kill takes away.
pub(crate) struct Process {
    pub(crate) boot: Boot,
    pub(crate) replica: Replica,
    pub(crate) started: Ms,
    pub(crate) frozen: Ms,
    /// Has compared with its peer since boot, or may do without: only then it may go on alone.
    pub(crate) compared: bool,
    pub(crate) operator: bool,
    /// A quorum decides, so only an operator gives that right.
    pub(crate) has_third: bool,
    pub(crate) fenced: bool,
    /// Words of an operator that are not answered yet.
    pub(crate) words: u32,
    pub(crate) holds_address: bool,
    pub(crate) quorum: bool,
    /// Link by peer, as this process sees it.
    pub(crate) links: BTreeMap<usize, u64>,
    pub(crate) jobs: BTreeMap<u64, Job>,
    pub(crate) waiting: BTreeMap<u64, (Work, Waiter)>,
    pub(crate) computed: BTreeMap<BatchId, Vec<(u64, Done)>>,
    /// Accounts whose observers hear of a batch when it is committed.
    pub(crate) changed: BTreeMap<BatchId, Vec<AccountId>>,
    pub(crate) tokens: u64,
    pub(crate) next_job: u64,
    last_command: u64,
    outstanding: BTreeMap<u64, ()>,
    /// Pulls that wait for the peer.
    pub(crate) pulls: Vec<Pull>,
    /// Branches of a peer that wait for their merge, by fetch.
    pub(crate) branches: BTreeMap<u64, Branch>,
    pub(crate) worker: Worker,
    pub(crate) fans: Fans,
    /// Merges that are not written yet.
    pub(crate) merging: BTreeSet<BatchId>,
}

impl Node {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self {
            disk: Disk::default(),
            process: None,
            paused: false,
            paused_at: 0,
            woke: 0,
            pauses: 0,
            deferred: Vec::new(),
            asleep: None,
            known: None,
            record: None,
            alone_by_right: false,
            apart: None,
            had_right: false,
            wall: rng.range(0, 5_000),
            last_boot: 0,
            copies: Vec::new(),
            rolled_back: false,
            heal: None,
            full: false,
            reads_rows: mailbox::rows::RowFormat::HIGHEST.number(),
        }
    }

    pub(crate) fn boot(&self) -> Option<Boot> {
        self.process.as_ref().map(|p| p.boot)
    }

    /// Up and not stopped.
    pub(crate) fn is_awake(&self) -> bool {
        self.process.is_some() && !self.paused
    }
}

impl Process {
    /// Whether it may go on alone: it has compared, or an operator said so.
    pub(crate) fn has_right(&self) -> bool {
        (self.compared && !self.has_third) || self.operator
    }

    /// A fresh command id of this node and boot.
    pub(crate) fn command_id(&mut self, node: usize) -> CommandId {
        self.last_command += 1;
        self.outstanding.insert(self.last_command, ());
        CommandId { origin: node_id(node), boot: self.boot, counter: self.last_command, recipient: 0 }
    }

    /// Commands up to this one are settled.
    pub(crate) fn settled(&self) -> u64 {
        self.outstanding.first_key_value().map_or(self.last_command, |(first, ())| first - 1)
    }

    pub(crate) fn settle(&mut self, node: usize, id: CommandId, answer: &Answer) {
        let own = id.origin == node_id(node) && id.boot == self.boot;
        if own && !matches!(answer, Err(SubmitError::Unknown(_))) {
            self.outstanding.remove(&id.counter);
        }
    }
}

impl World {
    pub(crate) fn start(&mut self, n: usize) {
        if self.nodes[n].process.is_some() {
            return;
        }
        let now = self.now;
        let alone = self.nodes.iter().all(|node| node.process.is_none());
        self.coverage.cold_boots += u64::from(alone && self.nodes[n].last_boot > 0);
        let node = &mut self.nodes[n];
        node.last_boot += 1;
        let boot = Boot(node.last_boot);
        // Raised durably before anything is said to a peer: the start waits for this sync.
        node.disk.image.meta.insert(BOOT_KEY.to_owned(), boot.0.to_be_bytes().to_vec().into());
        let saved = match Saved::from_meta(node.disk.image.meta.get(replica::META_KEY).map(|b| &b[..])) {
            Ok(saved) => saved,
            Err(damaged) => return self.broken("start", format!("node {}: {damaged}", n + 1)),
        };
        let config = ReplicaConfig {
            node: node_id(n),
            boot,
            timing: timing(),
            merge: true,
            rows: node.reads_rows,
            without: self.control.rule(),
        };
        node.process = Some(Process {
            boot,
            replica: Replica::new(config, saved, Instant(0)),
            started: now,
            frozen: 0,
            compared: false,
            operator: false,
            has_third: self.shape.has_third(),
            fenced: false,
            words: 0,
            holds_address: false,
            quorum: false,
            links: BTreeMap::new(),
            jobs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            computed: BTreeMap::new(),
            changed: BTreeMap::new(),
            tokens: 0,
            next_job: 0,
            last_command: 0,
            outstanding: BTreeMap::new(),
            pulls: Vec::new(),
            branches: BTreeMap::new(),
            worker: Worker::default(),
            fans: Fans::default(),
            merging: BTreeSet::new(),
        });
        if self.cast {
            self.to(n, 100, Inner::RelayTick);
        }
        self.tell_spread(n);
        self.note(|| format!("node {} starts, boot {}", n + 1, boot.0));
        self.to(n, 0, Inner::Quorum(false));
        self.to(n, 0, Inner::Tick);
        if self.nodes[n].full {
            self.to(n, 0, Inner::LookAtDisk);
        }
        if self.control == Control::StartsAloneByItself {
            self.at(IMPATIENCE_MS, Happening::Impatience(n, boot));
        }
        let delay = self.rng.range(50, 400);
        self.at(delay, Happening::Reconsider);
    }

    /// H22: a node that waits takes its own silence for the peer's death. Only with that control.
    pub(crate) fn impatience(&mut self, n: usize, boot: Boot) {
        if self.nodes[n].boot() == Some(boot) && self.calming.is_none() {
            if self.nodes[n].is_awake() && self.nodes[n].process.as_ref().is_some_and(|p| !p.compared) {
                self.tell(n, Event::StartAlone);
            }
            self.at(IMPATIENCE_MS, Happening::Impatience(n, boot));
        }
    }

    pub(crate) fn handle(&mut self, n: usize, inner: Inner) {
        match inner {
            Inner::Event(event) => self.tell(n, event),
            Inner::Tick => self.tick(n),
            Inner::Connected { peer, boot, link } => self.connected(n, peer, boot, link),
            Inner::Disconnected { peer, link } => self.disconnected(n, peer, link),
            Inner::Frame { peer, link, bytes } => {
                if self.nodes[n].process.as_ref().is_some_and(|p| p.links.get(&peer) == Some(&link)) {
                    self.tell(n, Event::Frame { peer: node_id(peer), link, bytes });
                }
            }
            Inner::Compute { batch, work, stamp } => self.compute(n, batch, &work, stamp),
            Inner::Merge(order) => self.merge(n, &order),
            Inner::Raise { batch, account, floor, branch, stamp } => {
                self.raise(n, batch, account, (floor, branch), stamp);
            }
            Inner::Step(job) => self.step(n, job),
            Inner::Forwarded { from, boot, job, attempt, work } => {
                self.forwarded(n, Waiter::Remote { node: from, boot, job, attempt }, work);
            }
            Inner::Keep { from, boot, job, attempt, body } => {
                let after = After::Kept { node: from, boot, job, attempt };
                self.write(n, vec![chunk(body)], after);
            }
            Inner::Result { job, attempt, answer } => self.result(n, job, attempt, answer),
            Inner::Kept { job, attempt, by } => self.body_kept(n, job, attempt, by),
            other => self.handle_rarely(n, other),
        }
    }

    fn handle_rarely(&mut self, n: usize, inner: Inner) {
        match inner {
            Inner::Give { to, boot, pull, account, have } => self.give(n, (to, boot), pull, account, have),
            Inner::Given(given) => self.given(n, *given),
            Inner::PullLost(pull) => self.pull_lost(n, pull),
            Inner::GiveBlobs { to, boot, token, hashes } => self.give_blobs(n, (to, boot), token, hashes),
            Inner::GivenBlobs { token, hashes, bodies } => self.given_blobs(n, token, hashes, bodies),
            // Refused on every path: the machine is there, its process is not.
            Inner::ProbeEnds { peer } if self.seems_gone(n, peer) => {
                self.tell(n, Event::ResetEvidence { peer: node_id(peer) });
            }
            Inner::Learn(record) => self.learn(n, record),
            Inner::LookAtDisk => self.tell(n, Event::DiskLow(self.nodes[n].full)),
            Inner::Quorum(quorum) => self.quorum_seen(n, quorum),
            Inner::WatchLook(client) => self.watch_look(n, client),
            Inner::RelayTick => self.relay_ticks(n),
            Inner::EndAgain(number) => self.end_again(n, number),
            Inner::FanOutLook => self.fan_out_look(n),
            Inner::Dialogue(number) => self.dialogue(n, number),
            _ => {}
        }
    }

    pub(crate) fn carry_out(&mut self, n: usize, output: Output) {
        match output {
            Output::Send { to, frame } => self.send(n, index_of(to), frame),
            Output::Write { token, parts } => self.write(n, parts, After::Event(Event::Written { token })),
            Output::Compute { batch, work, stamp } => {
                let delay = self.rng.range(0, 3);
                self.to(n, delay, Inner::Compute { batch, work, stamp });
            }
            Output::Raise { batch, account, floor, branch, stamp } => {
                self.coverage.raised += 1;
                self.raised.insert(account);
                let delay = self.rng.range(0, 3);
                self.to(n, delay, Inner::Raise { batch, account, floor, branch, stamp });
            }
            Output::Committed { batch } => {
                if self.nodes[n].process.as_mut().is_some_and(|p| p.merging.remove(&batch)) {
                    self.merge_written(n);
                }
                let computed = self.nodes[n].process.as_mut().and_then(|p| p.computed.remove(&batch));
                let changed = self.nodes[n].process.as_mut().and_then(|p| p.changed.remove(&batch));
                self.hint(n, Some(&changed.unwrap_or_default()));
                let side = self.side(n);
                for (token, done) in computed.unwrap_or_default() {
                    // In flight when the epoch alone began: it was committed there (X6).
                    self.answer(n, token, Ok(done.on_side(side)));
                }
            }
            Output::Dropped { batch } => {
                if let Some(process) = self.nodes[n].process.as_mut() {
                    process.computed.remove(&batch);
                    process.changed.remove(&batch);
                }
            }
            Output::Failed { tokens, error } => {
                let late = matches!(error, SubmitError::Unknown(why) | SubmitError::Unavailable(why) if why == LATE);
                self.coverage.limits += u64::from(late);
                tokens.into_iter().for_each(|token| self.answer(n, token, Err(error.clone())));
            }
            // Readers of the simulation look again by themselves.
            Output::Readable { accounts } => self.hint(n, Some(&accounts)),
            other => self.carry_out_rarely(n, other),
        }
    }

    fn carry_out_rarely(&mut self, n: usize, output: Output) {
        match output {
            Output::CheckBlobs { token, hashes } => {
                let mut missing = self.missing(n, &hashes);
                missing.retain(|_| self.control != Control::IgnoresBodies);
                self.to(n, 0, Inner::Event(Event::BlobsChecked { token, missing }));
            }
            Output::FetchBlobs { token, from, hashes } => self.ask_blobs(n, index_of(from), token, hashes),
            Output::ReadVersions => {
                let versions = self.nodes[n].disk.image.versions();
                self.to(n, 0, Inner::Event(Event::Versions(versions)));
            }
            Output::ReadChain { account } => {
                let image = &self.nodes[n].disk.image;
                let link =
                    |link: &vocab::PastLink| vocab::ChainLink { version: link.version, undo: link.undo.is_some() };
                let links = image.chains.get(&account).into_iter().flatten().map(link).collect();
                let head = image.head(account);
                self.to(n, 0, Inner::Event(Event::Chain { account, links, head }));
            }
            Output::Propose { expect, record } => self.propose(n, expect, record),
            Output::Fetch { fetch, account, from } => {
                self.write(n, vec![StoreWrite::Unstage { account }], After::Nothing);
                self.ask_account(n, index_of(from), Pull::Fetch(fetch), account);
            }
            Output::Merge { batch, account, fetch, base, between, served, guest_served, stamp } => {
                let delay = self.rng.range(0, 3);
                let merge = Merge { batch, account, fetch, base, between, served, guest_served, stamp };
                self.to(n, delay, Inner::Merge(Box::new(merge)));
            }
            Output::FetchBranch { fetch, account, from } => {
                self.ask_account(n, index_of(from), Pull::Branch(fetch), account);
            }
            Output::StopFetch { fetch } => self.stop_pull(n, fetch),
            Output::ServingChanged => self.hint(n, None),
            Output::ArchiveBranch { archive, account, from } => match from {
                Some(from) => self.ask_account(n, index_of(from), Pull::Archive(archive), account),
                None => self.archive_own(n, archive, account),
            },
            // What is cut here is cut for clients of the other node too: nobody answers.
            Output::Look { .. } => {}
            Output::Probe { peer } => {
                let delay = self.rng.range(2, 100);
                self.to(n, delay, Inner::ProbeEnds { peer: index_of(peer) });
            }
            Output::AddressHeld(held) => {
                if let Some(process) = self.nodes[n].process.as_mut() {
                    process.holds_address = held;
                }
            }
            Output::StartAlone(result) => {
                self.note(|| format!("node {} start-alone: {result:?}", n + 1));
                // Only an operator's word excuses it; a node that says it to itself is a negative control.
                if let Some(process) = self.nodes[n].process.as_mut().filter(|p| p.words > 0) {
                    process.words -= 1;
                    process.operator |= result.is_ok();
                }
            }
            Output::HandedOver(result) => {
                self.note(|| format!("node {} handed over: {result:?}", n + 1));
                self.coverage.handovers += u64::from(result.is_ok());
            }
            Output::Alert(text) | Output::Log(text) => self.note(|| format!("node {}: {text}", n + 1)),
            other => self.broken("driver", format!("an order without a hand: {other:?}")),
        }
    }

    pub(crate) fn missing(&self, n: usize, hashes: &[vocab::BlobHash]) -> Vec<vocab::BlobHash> {
        hashes.iter().filter(|hash| !self.nodes[n].disk.image.blobs.contains_key(*hash)).copied().collect()
    }
}

/// A large body as one chunk.
pub(crate) fn chunk(body: bytes::Bytes) -> StoreWrite {
    StoreWrite::BlobChunk { hash: vocab::BlobHash::of(&body), index: 0, total: body.len() as u64, bytes: body }
}
