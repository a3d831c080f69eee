//! A toy driver: machines wired in memory, disks as maps, a register that needs a majority of its voters.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mailbox::rows::RowFormat;
use replica::{Event, META_KEY, MergeBase, Output, Replica, ReplicaConfig, Rule, Saved, Timing};
use topology::EpochRecord;
use vocab::*;

#[derive(Clone, Debug, Default)]
pub struct Account {
    pub head: AccountHead,
    pub chain: Vec<ChainLink>,
    /// Tokens that were applied.
    pub tokens: BTreeSet<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub accounts: BTreeMap<AccountId, Account>,
    pub meta: BTreeMap<String, Bytes>,
    pub blobs: BTreeSet<BlobHash>,
    pub branches: BTreeMap<(AccountId, Version), Account>,
    pub staged: BTreeMap<AccountId, Account>,
    pub boot: u32,
    /// Every write as it was made, for tests of atomicity.
    pub writes: Vec<Vec<StoreWrite>>,
}

pub struct Node {
    pub replica: Option<Replica>,
    pub disk: Disk,
    pub committed: BTreeSet<u64>,
    pub failed: BTreeMap<u64, SubmitError>,
    pub computed: BTreeMap<BatchId, Vec<u64>>,
    pub orders: Vec<Output>,
    pub frames: VecDeque<(NodeId, u64, Bytes)>,
    pub links: BTreeMap<NodeId, u64>,
    pub holds_address: bool,
    /// Writes, and what follows from them, are kept back.
    pub slow_disk: bool,
    /// The next computations of a merge come to nothing.
    pub merges_nothing: bool,
    /// Nothing can be archived.
    pub archive_full: bool,
    pub kept: Vec<(u64, Vec<StoreWrite>)>,
    fetches: BTreeMap<u64, AccountId>,
    /// Branches staged for a merge.
    fetched: BTreeMap<u64, Account>,
}

pub struct World {
    pub now: Instant,
    pub nodes: BTreeMap<NodeId, Node>,
    pub register: Option<EpochRecord>,
    pub members: Vec<NodeId>,
    pub links: u64,
    pub connected: bool,
    /// Frames from this node are not delivered though the link stands.
    pub mute: Option<NodeId>,
    /// Decisions of the register are lost.
    pub no_quorum: bool,
    pub next_token: u64,
    /// Whether machines started from now on merge.
    pub merges: bool,
    /// A voter without mail.
    pub witness: bool,
    /// Cut off from everybody, the witness too.
    pub isolated: BTreeSet<NodeId>,
    /// The register as each node has learned it.
    known: BTreeMap<NodeId, EpochRecord>,
    /// Rule that machines started from now on do not keep.
    pub without: Option<Rule>,
    /// Greatest row format that machines started from now on read, where it is not the newest.
    pub reads_rows: BTreeMap<NodeId, u32>,
}

pub const A: NodeId = NodeId(1);
pub const B: NodeId = NodeId(2);
pub const C: NodeId = NodeId(3);
/// The witness.
pub const W: NodeId = NodeId(9);

fn new_node() -> Node {
    Node {
        replica: None,
        disk: Disk::default(),
        committed: BTreeSet::new(),
        failed: BTreeMap::new(),
        computed: BTreeMap::new(),
        orders: Vec::new(),
        frames: VecDeque::new(),
        links: BTreeMap::new(),
        holds_address: false,
        slow_disk: false,
        merges_nothing: false,
        archive_full: false,
        kept: Vec::new(),
        fetches: BTreeMap::new(),
        fetched: BTreeMap::new(),
    }
}

impl World {
    pub fn single() -> Self {
        Self::single_with(false)
    }

    fn single_with(merges: bool) -> Self {
        let mut world = Self {
            now: Instant(1000),
            nodes: BTreeMap::from([(A, new_node()), (B, new_node())]),
            register: None,
            members: vec![A],
            links: 0,
            connected: true,
            mute: None,
            no_quorum: false,
            next_token: 0,
            merges,
            witness: false,
            isolated: BTreeSet::new(),
            known: BTreeMap::new(),
            without: None,
            reads_rows: BTreeMap::new(),
        };
        world.boot(A);
        world.run(300);
        world
    }

    pub fn pair() -> Self {
        Self::pair_with(false)
    }

    /// A pair whose machines merge, or archive and raise.
    pub fn pair_with(merges: bool) -> Self {
        let mut world = Self::single_with(merges);
        world.members = vec![A, B];
        world.boot(B);
        world.run(1000);
        world
    }

    /// A pair with a witness.
    pub fn with_witness() -> Self {
        let mut world = Self::pair();
        world.witness = true;
        world.tell_register();
        world.drain();
        world
    }

    /// Three data nodes, all in sync.
    pub fn three() -> Self {
        Self::three_with(false)
    }

    /// The same, and their machines merge, or archive and raise.
    pub fn three_with(merges: bool) -> Self {
        let mut world = Self::pair_with(merges);
        world.nodes.insert(C, new_node());
        world.members = vec![A, B, C];
        world.boot(C);
        world.run(1000);
        world
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn voters(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap() + u32::from(self.witness)
    }

    fn up(&self, id: NodeId) -> bool {
        id == W || self.nodes[&id].replica.is_some()
    }

    fn reaches(&self, a: NodeId, b: NodeId) -> bool {
        let open = self.connected || a == W || b == W;
        a == b || (open && self.up(a) && self.up(b) && !self.isolated.contains(&a) && !self.isolated.contains(&b))
    }

    fn majority(&self, id: NodeId) -> bool {
        let witness = self.witness && self.reaches(id, W);
        let seen = self.members.iter().filter(|m| self.up(**m) && self.reaches(id, **m)).count() + usize::from(witness);
        seen * 2 > self.voters() as usize
    }

    fn quorum(&self, id: NodeId) -> bool {
        !self.no_quorum && self.majority(id)
    }

    pub fn boot(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        node.disk.boot += 1;
        let saved = Saved::from_meta(node.disk.meta.get(META_KEY).map(|b| &b[..])).unwrap();
        let config = ReplicaConfig {
            node: id,
            boot: Boot(node.disk.boot),
            timing: Timing::default(),
            merge: self.merges,
            rows: self.reads_rows.get(&id).copied().unwrap_or(RowFormat::HIGHEST.number()),
            without: self.without,
        };
        node.replica = Some(Replica::new(config, saved, now));
        node.holds_address = false;
        self.tell_register();
        self.connect();
        self.drain();
    }

    /// The process is gone; nobody is told.
    pub fn kill(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.replica = None;
        node.frames.clear();
        node.kept.clear();
        node.fetches.clear();
        node.holds_address = false;
        self.disconnect_one(id);
        self.tell_register();
    }

    pub fn guard_word(&mut self, dead: NodeId) {
        let boot = Boot(self.nodes[&dead].disk.boot);
        for other in self.ids().into_iter().filter(|id| *id != dead) {
            self.event(other, Event::GuardWord { peer: dead, boot });
        }
    }

    pub fn connect(&mut self) {
        let ids = self.ids();
        for a in &ids {
            for b in ids.iter().filter(|b| *b > a) {
                let linked = self.nodes[a].links.contains_key(b);
                if linked || !self.up(*a) || !self.up(*b) || !self.reaches(*a, *b) {
                    continue;
                }
                self.links += 1;
                let link = self.links;
                for (id, peer) in [(*a, *b), (*b, *a)] {
                    let boot = Boot(self.nodes[&peer].disk.boot);
                    self.nodes.get_mut(&id).unwrap().links.insert(peer, link);
                    self.event(id, Event::LinkUp { peer, boot, link });
                }
            }
        }
    }

    pub fn disconnect(&mut self) {
        for id in self.ids() {
            self.disconnect_one(id);
        }
    }

    fn disconnect_one(&mut self, one: NodeId) {
        for other in self.ids().into_iter().filter(|id| *id != one) {
            for (id, peer) in [(one, other), (other, one)] {
                let node = self.nodes.get_mut(&id).unwrap();
                node.frames.retain(|(from, ..)| *from != peer);
                if let Some(link) = node.links.remove(&peer) {
                    self.event(id, Event::LinkDown { peer, link });
                }
            }
        }
    }

    pub fn cut(&mut self) {
        self.connected = false;
        self.disconnect();
        self.tell_register();
    }

    /// Cuts one node off from everybody.
    pub fn isolate(&mut self, id: NodeId) {
        self.isolated.insert(id);
        if id != W {
            self.disconnect_one(id);
        }
        self.tell_register();
    }

    pub fn mend(&mut self) {
        self.connected = true;
        self.isolated.clear();
        self.tell_register();
        self.connect();
        self.drain();
    }

    /// Without a majority a node keeps what it knows.
    pub fn tell_register(&mut self) {
        for id in self.ids() {
            if self.majority(id)
                && let Some(record) = self.register.clone()
            {
                self.known.insert(id, record);
            }
            let (record, members) = (self.known.get(&id).cloned(), self.members.clone());
            let (voters, quorum) = (self.voters(), self.quorum(id));
            self.event(id, Event::Register { record, members, voters, quorum });
        }
    }

    pub fn event(&mut self, id: NodeId, event: Event) {
        let now = self.now;
        if let Some(replica) = self.nodes.get_mut(&id).unwrap().replica.as_mut() {
            replica.on(event, now);
        }
    }

    pub fn drain(&mut self) {
        for _ in 0..100_000 {
            let mut quiet = true;
            for id in self.ids() {
                while let Some(output) = self.nodes.get_mut(&id).unwrap().replica.as_mut().and_then(|r| r.next_output())
                {
                    quiet = false;
                    self.order(id, output);
                }
                let node = self.nodes.get_mut(&id).unwrap();
                if let Some((peer, link, bytes)) = node.frames.pop_front() {
                    quiet = false;
                    if self.mute != Some(peer) && node.links.get(&peer) == Some(&link) {
                        self.event(id, Event::Frame { peer, link, bytes });
                    }
                }
            }
            if quiet {
                return;
            }
        }
        panic!("never quiet");
    }

    pub fn run(&mut self, ms: u64) {
        self.drain();
        for _ in 0..ms / 50 {
            self.now = self.now.plus_ms(50);
            for id in self.ids() {
                self.event(id, Event::Tick);
                self.drain();
            }
        }
    }

    /// Only one node's clock goes on: the other is paused.
    pub fn run_only(&mut self, id: NodeId, ms: u64) {
        for _ in 0..ms / 50 {
            self.now = self.now.plus_ms(50);
            self.event(id, Event::Tick);
            while let Some(output) = self.nodes.get_mut(&id).unwrap().replica.as_mut().and_then(|r| r.next_output()) {
                self.order(id, output);
            }
        }
    }

    pub fn submit(&mut self, id: NodeId, accounts: &[u64]) -> u64 {
        self.next_token += 1;
        let token = self.next_token;
        let accounts = accounts.iter().map(|a| AccountId(*a)).collect();
        self.event(id, Event::Submit { token, accounts });
        self.drain();
        token
    }

    fn order(&mut self, id: NodeId, output: Output) {
        let node = self.nodes.get_mut(&id).unwrap();
        match output.clone() {
            Output::Send { to, frame } => {
                if let Some(link) = node.links.get(&to).copied() {
                    self.nodes.get_mut(&to).unwrap().frames.push_back((id, link, frame));
                }
            }
            Output::Write { token, parts } => {
                if node.slow_disk {
                    node.kept.push((token, parts));
                } else {
                    node.disk.write(parts);
                    self.event(id, Event::Written { token });
                }
            }
            Output::Compute { batch, work, .. } => self.compute(id, batch, work),
            Output::Raise { batch, account, floor, branch, .. } => self.raise(id, batch, account, floor, branch),
            Output::Merge { batch, account, fetch, base, between, .. } => {
                self.merge(id, (batch, account, fetch), base, &between);
            }
            Output::Committed { batch } => {
                let tokens = node.computed.remove(&batch).unwrap_or_default();
                node.committed.extend(tokens.into_iter().filter(|t| !node.failed.contains_key(t)));
            }
            Output::Dropped { batch } => {
                node.computed.remove(&batch);
            }
            Output::Failed { tokens, error } => {
                for token in tokens {
                    assert!(node.failed.insert(token, error.clone()).is_none(), "answered twice");
                }
            }
            Output::Propose { expect, record } => {
                let fits = self.register.as_ref().map(|r| r.id).unwrap_or_default() == expect;
                if fits && self.quorum(id) {
                    self.register = Some(record);
                    self.tell_register();
                } else {
                    self.event(id, Event::ProposeFailed);
                }
            }
            other @ (Output::CheckBlobs { .. }
            | Output::FetchBlobs { .. }
            | Output::ReadVersions
            | Output::ReadChain { .. }
            | Output::Fetch { .. }
            | Output::FetchBranch { .. }
            | Output::ArchiveBranch { .. }) => self.answer(id, other),
            Output::AddressHeld(held) => node.holds_address = held,
            Output::StopFetch { .. }
            | Output::Probe { .. }
            | Output::Look { .. }
            | Output::Readable { .. }
            | Output::ServingChanged
            | Output::StartAlone(_)
            | Output::HandedOver(_)
            | Output::Alert(_) => {}
            Output::Log(text) => println!("{} {}: {text}", self.now.0, id.0),
        }
        self.nodes.get_mut(&id).unwrap().orders.push(output);
    }

    fn answer(&mut self, id: NodeId, output: Output) {
        let node = self.nodes.get_mut(&id).unwrap();
        match output {
            Output::CheckBlobs { token, hashes } => {
                let missing = hashes.into_iter().filter(|h| !node.disk.blobs.contains(h)).collect();
                self.event(id, Event::BlobsChecked { token, missing });
            }
            Output::FetchBlobs { token, hashes, from } => {
                let there = self.nodes[&from].disk.blobs.clone();
                let (have, missing) = hashes.into_iter().partition::<Vec<_>, _>(|h| there.contains(h));
                self.nodes.get_mut(&id).unwrap().disk.blobs.extend(have);
                self.event(id, Event::BlobsChecked { token, missing });
            }
            Output::ReadVersions => {
                let list = node.disk.accounts.iter().map(|(a, s)| (*a, s.head.version)).collect();
                self.event(id, Event::Versions(list));
            }
            Output::ReadChain { account } => {
                let state = node.disk.accounts.get(&account).cloned().unwrap_or_default();
                self.event(id, Event::Chain { account, links: state.chain, head: state.head });
            }
            Output::Fetch { fetch, account, from } => {
                let state = self.nodes[&from].disk.accounts.get(&account).cloned().unwrap_or_default();
                let node = self.nodes.get_mut(&id).unwrap();
                node.fetches.insert(fetch, account);
                if self.reaches(id, from) && self.up(from) {
                    let head = state.head.clone();
                    let link = |l: &ChainLink| PastLink { version: l.version, undo: l.undo.then(Vec::new) };
                    let past = state.chain.iter().map(link).collect();
                    self.nodes.get_mut(&id).unwrap().disk.staged.insert(account, state);
                    self.event(id, Event::Fetched { fetch, head, delta: None, past });
                } else {
                    self.event(id, Event::FetchFailed { fetch });
                }
            }
            Output::FetchBranch { fetch, account, from } => {
                let state = self.nodes[&from].disk.accounts.get(&account).cloned().unwrap_or_default();
                if self.reaches(id, from) && self.up(from) {
                    let head = state.head.clone();
                    self.nodes.get_mut(&id).unwrap().fetched.insert(fetch, state);
                    self.event(id, Event::Fetched { fetch, head, delta: None, past: Vec::new() });
                } else {
                    self.event(id, Event::FetchFailed { fetch });
                }
            }
            Output::ArchiveBranch { archive, .. } if node.archive_full => {
                self.event(id, Event::ArchiveFailed { archive });
            }
            Output::ArchiveBranch { archive, account, from } => {
                let state = self.nodes[&from.unwrap_or(id)].disk.accounts.get(&account).cloned().unwrap_or_default();
                let head = state.head.clone();
                self.nodes.get_mut(&id).unwrap().disk.branches.insert((account, head.version), state);
                self.event(id, Event::BranchArchived { archive, head });
            }
            _ => {}
        }
    }

    fn compute(&mut self, id: NodeId, batch: BatchId, work: Vec<(AccountId, Vec<u64>)>) {
        let node = self.nodes.get_mut(&id).unwrap();
        let mut accounts = Vec::new();
        let mut all: BTreeSet<u64> = BTreeSet::new();
        for (account, tokens) in work {
            let rows: Vec<RowWrite> = tokens.iter().map(|t| row(*t)).collect();
            all.extend(&tokens);
            accounts.push(node.disk.next(account, batch, rows));
        }
        node.computed.insert(batch, all.into_iter().collect());
        self.event(
            id,
            Event::Computed {
                batch,
                result: Some(Batch { id: batch, accounts, bodies: Vec::new(), records: Vec::new() }),
            },
        );
    }

    /// The union of both branches; what the base should be must be on the chain of the side that is to restore it.
    fn merge(
        &mut self,
        id: NodeId,
        (batch, account, fetch): (BatchId, AccountId, u64),
        base: Option<MergeBase>,
        between: &[Version],
    ) {
        let node = self.nodes.get_mut(&id).unwrap();
        let guest = node.fetched.remove(&fetch).expect("a staged branch");
        if node.merges_nothing {
            return self.event(id, Event::Computed { batch, result: None });
        }
        let node = self.nodes.get_mut(&id).unwrap();
        let mine = &node.disk.accounts[&account];
        if let Some(base) = base {
            let chain = if base.at_guest { &guest.chain } else { &mine.chain };
            let behind = if base.version == Version::default() {
                assert!(guest.chain.iter().all(|l| l.undo), "nothing is common");
                0
            } else {
                chain.iter().position(|l| l.version == base.version).expect("the base is on its chain") + 1
            };
            assert!(chain[behind..].iter().all(|l| l.undo), "the base can be restored");
        }
        let rows: Vec<RowWrite> = guest.tokens.difference(&mine.tokens).map(|t| row(*t)).collect();
        let mut one = node.disk.next(account, batch, rows);
        one.head.remember(&guest.head, between, false);
        let result = Some(Batch { id: batch, accounts: vec![one], bodies: Vec::new(), records: Vec::new() });
        self.event(id, Event::Computed { batch, result });
    }

    fn raise(&mut self, id: NodeId, batch: BatchId, account: AccountId, floor: u32, branch: Version) {
        let node = self.nodes.get_mut(&id).unwrap();
        let mut one = node.disk.next(account, batch, vec![row(0)]);
        one.head.uidvalidity = one.head.uidvalidity.max(floor) + 1;
        one.head.lineage.push(branch);
        let result = Some(Batch { id: batch, accounts: vec![one], bodies: Vec::new(), records: Vec::new() });
        self.event(id, Event::Computed { batch, result });
    }

    pub fn release_disk(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.slow_disk = false;
        for (token, parts) in std::mem::take(&mut node.kept) {
            self.nodes.get_mut(&id).unwrap().disk.write(parts);
            self.event(id, Event::Written { token });
        }
        self.drain();
    }

    pub fn replica(&self, id: NodeId) -> &Replica {
        self.nodes[&id].replica.as_ref().unwrap()
    }
    pub fn tokens(&self, id: NodeId, account: u64) -> BTreeSet<u64> {
        self.nodes[&id].disk.accounts.get(&AccountId(account)).map(|a| a.tokens.clone()).unwrap_or_default()
    }
    pub fn version(&self, id: NodeId, account: u64) -> Version {
        self.nodes[&id].disk.accounts.get(&AccountId(account)).map(|a| a.head.version).unwrap_or_default()
    }
    pub fn kind(&self, id: NodeId) -> topology::EpochKind {
        self.replica(id).record().unwrap().kind
    }
    pub fn is_committed(&self, id: NodeId, token: u64) -> bool {
        self.nodes[&id].committed.contains(&token)
    }
    pub fn assert_equal(&self) {
        let versions = |n: &NodeId| -> BTreeMap<_, _> {
            self.nodes[n].disk.accounts.iter().map(|(a, s)| (*a, (s.head.version, s.tokens.clone()))).collect()
        };
        let first = self.members.first().unwrap();
        for other in &self.members {
            assert_eq!(versions(first), versions(other), "nodes {} and {}", first.0, other.0);
        }
    }
}

fn row(token: u64) -> RowWrite {
    RowWrite { table: Table(1), key: Bytes::copy_from_slice(&token.to_be_bytes()), value: Some(Bytes::new()) }
}

impl Disk {
    fn next(&self, account: AccountId, batch: BatchId, rows: Vec<RowWrite>) -> AccountBatch {
        let mut head = self.accounts.get(&account).map(|a| a.head.clone()).unwrap_or_default();
        let expected = head.version;
        let mut hash = [0; 32];
        for (n, row) in rows.iter().enumerate() {
            hash[n % 4 * 8..n % 4 * 8 + 8].copy_from_slice(&row.key);
        }
        head.version = expected.next(batch, &hash);
        let undo = rows.iter().map(|r| RowWrite { value: None, ..r.clone() }).collect();
        AccountBatch { account, expected, head, rows, refs: Vec::new(), undo }
    }

    pub fn write(&mut self, parts: Vec<StoreWrite>) {
        self.writes.push(parts.clone());
        for part in parts {
            match part {
                StoreWrite::Account(batch) => {
                    let account = self.accounts.entry(batch.account).or_default();
                    assert_eq!(account.head.version, batch.expected, "written on another version");
                    let key = |r: &RowWrite| u64::from_be_bytes(r.key[..].try_into().unwrap());
                    account.tokens.extend(batch.rows.iter().map(key).filter(|t| *t != 0));
                    if account.chain.is_empty() && batch.expected != Version::default() {
                        account.chain.push(ChainLink { version: batch.expected, undo: false });
                    }
                    let undo = !batch.undo.is_empty() || batch.rows.is_empty();
                    account.chain.push(ChainLink { version: batch.head.version, undo });
                    account.head = batch.head;
                }
                StoreWrite::Meta { key, value } => {
                    self.meta.insert(key, value.unwrap());
                }
                StoreWrite::Switch { account, head, past } => {
                    let mut state = self.staged.remove(&account).expect("staged");
                    assert_eq!(state.head, head);
                    let link = |l: PastLink| ChainLink { version: l.version, undo: l.undo.is_some() };
                    state.chain = past.into_iter().map(link).collect();
                    self.accounts.insert(account, state);
                }
                StoreWrite::TrimChain { account, agreed } => {
                    let chain = &mut self.accounts.get_mut(&account).unwrap().chain;
                    if let Some(at) = chain.iter().position(|l| l.version == agreed) {
                        chain.drain(..at);
                        chain[0].undo = false;
                    }
                }
                StoreWrite::Bodies(bodies) => self.blobs.extend(bodies.iter().map(|b| b.hash)),
                other => panic!("not expected: {other:?}"),
            }
        }
    }
}

impl World {
    /// A few outputs and one frame of one node: for stopping in the middle.
    pub fn step(&mut self, id: NodeId) {
        for _ in 0..3 {
            let Some(output) = self.nodes.get_mut(&id).unwrap().replica.as_mut().and_then(|r| r.next_output()) else {
                break;
            };
            self.order(id, output);
        }
        let node = self.nodes.get_mut(&id).unwrap();
        if let Some((peer, link, bytes)) = node.frames.pop_front()
            && node.links.get(&peer) == Some(&link)
        {
            self.event(id, Event::Frame { peer, link, bytes });
        }
    }
}

impl Node {
    /// Nothing: marks the place where the guest has begun to write.
    pub fn kept_epoch(&mut self) {
        assert!(!self.kept.is_empty());
    }
}

impl World {
    /// A link that lost frames is a new link afterwards.
    pub fn unmute(&mut self) {
        if self.mute.take().is_some() {
            self.disconnect();
            self.connect();
            self.drain();
        }
    }
}
