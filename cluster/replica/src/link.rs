//! Links to peers: first words, heartbeats, frames in and out.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use topology::EpochRecord;
use vocab::{AccountId, BatchId, Boot, EpochId, Instant, NodeId, Version, limits};
use wire::link::{self, item::Kind};

use crate::Replica;
use crate::merge::Side;
use crate::message::{self, epoch_from, epoch_to, record_from, record_to};
use crate::output::Output;

/// Items are cut into frames below this size, so that a frame with its framing stays under `FRAME_BYTES_MAX`.
const FRAME_FILL_MAX: usize = limits::FRAME_BYTES_MAX - 64 * 1024;
/// Bytes of one part of a batch.
const PART_BYTES_MAX: usize = 512 * 1024;
/// Account versions in one item.
const VERSIONS_PER_ITEM_MAX: usize = 16 * 1024;

/// How it is known that a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Its guard says so: surely.
    Ended,
    /// It refuses on every path; a firewall that starts to reject looks the same.
    Refuses,
}

/// What is known of a peer.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// Boot we shook hands with.
    pub boot: Option<Boot>,
    /// Present link.
    pub link: Option<u64>,
    /// The first words of this link have come.
    pub hello: bool,
    /// Epoch in effect there, as last heard.
    pub record: Option<EpochRecord>,
    pub newest: Option<EpochRecord>,
    pub holds_address: bool,
    pub disk_ok: bool,
    /// Last time anything was heard, or the window restarted after a pause of our own.
    pub heard: Option<Instant>,
    /// The process of `boot` has ended.
    pub gone: Option<Gone>,
    /// When it was last looked for over the client network, and when it last served there.
    pub looked: Option<Instant>,
    pub answered: Option<Instant>,
    /// `sent` of its last heartbeat.
    pub seen: u64,
    /// When we sent the last heartbeat it acknowledged.
    pub echoed: Option<Instant>,
    /// The last read lease given to it runs out then.
    pub granted_until: Instant,
    /// As home: level with us on this link.
    pub level: bool,
    /// As home: the epoch in which it was told so.
    pub told: Option<EpochId>,
    /// Greatest row format it reads, as it said on its last link; 0 = not heard yet.
    pub reads_rows: u32,
    /// One of us cannot read the rows of the other: nothing it says counts.
    pub unreadable: bool,
    /// Times it was too slow in a row.
    pub slow: u32,
    outbox: Vec<link::Item>,
    incoming: BytesMut,
}

impl Peer {
    pub(crate) fn say(&mut self, kind: Kind) {
        if self.link.is_some() {
            self.outbox.push(link::Item { kind: Some(kind) });
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.is_some()
    }

    /// Epoch in effect there.
    pub(crate) fn epoch(&self) -> Option<EpochId> {
        self.record.as_ref().map(|r| r.id)
    }
}

impl Replica {
    pub(crate) fn say(&mut self, peer: NodeId, kind: Kind) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.say(kind);
        }
    }

    pub(crate) fn on_link_up(&mut self, id: NodeId, boot: Boot, link: u64) {
        self.drop_link(id);
        let hello = link::Hello {
            boot: self.config.boot.0,
            record: self.record.as_ref().map(record_to),
            newest: self.announced().map(record_to),
            holds_address: self.address_held,
            join_mark: self.join_mark.is_some(),
            reads_rows: self.config.rows,
            writes_rows: self.saved.rows,
        };
        let now = self.now;
        let peer = self.peers.entry(id).or_default();
        if peer.boot != Some(boot) {
            peer.record = None;
            peer.newest = None;
        }
        peer.boot = Some(boot);
        peer.link = Some(link);
        peer.gone = None;
        peer.answered = None;
        peer.heard = Some(now);
        peer.slow = 0;
        peer.unreadable = false;
        peer.say(Kind::Hello(hello));
        self.log(format!("link {link} to node {} boot {} is up", id.0, boot.0));
        self.beat(id);
    }

    pub(crate) fn on_link_down(&mut self, id: NodeId, link: u64) {
        if self.peers.get(&id).and_then(|p| p.link) != Some(link) {
            return;
        }
        self.drop_link(id);
        self.log(format!("link {link} to node {} is down", id.0));
        self.probe(id);
    }

    /// Everything that was agreed on the old link is agreed anew on the next one.
    fn drop_link(&mut self, id: NodeId) {
        self.stop_compare(id);
        self.stop_guest(id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.link = None;
            peer.hello = false;
            peer.level = false;
            peer.told = None;
            peer.seen = 0;
            peer.outbox.clear();
            peer.incoming.clear();
        }
    }

    pub(crate) fn on_frame(&mut self, id: NodeId, link: u64, bytes: &Bytes) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id).filter(|p| p.link == Some(link)) else { return };
        if peer.unreadable {
            return;
        }
        let Ok(frame) = link::Frame::decode(bytes.clone()) else {
            self.log(format!("node {} sent a frame nobody can read", id.0));
            return;
        };
        peer.heard = Some(now);
        for item in frame.items {
            let unreadable = self.peers.get(&id).is_some_and(|p| p.unreadable);
            if let Some(kind) = item.kind.filter(|_| !unreadable)
                && self.on_item(id, kind).is_none()
            {
                self.log(format!("node {} sent an item nobody can read", id.0));
            }
        }
    }

    /// `None` when it makes no sense.
    fn on_item(&mut self, id: NodeId, kind: Kind) -> Option<()> {
        let known = self.peers.get(&id).is_some_and(|p| p.hello);
        match kind {
            Kind::Hello(hello) if !self.take_rows(id, &hello) => Some(()),
            Kind::Hello(hello) => self.on_hello(id, &hello),
            _ if !known => None,
            Kind::Heartbeat(beat) => self.on_heartbeat(id, &beat),
            Kind::Batch(part) => self.on_batch_part(id, &part),
            Kind::Ack(ack) => {
                self.on_ack(id, BatchId::from_bytes(&ack.id)?);
                Some(())
            }
            Kind::Refuse(refuse) => {
                let have = message::versions_from(&refuse.have)?;
                self.on_refuse(id, BatchId::from_bytes(&refuse.id)?, refuse.reason, &have);
                Some(())
            }
            Kind::Confirmed(confirmed) => {
                self.on_confirmed(id, &message::versions_from(&confirmed.accounts)?);
                Some(())
            }
            Kind::AskVersions(ask) => {
                self.on_ask_versions(id, ask.session, epoch_from(ask.epoch.as_ref()?));
                Some(())
            }
            Kind::HaveVersions(have) => self.on_have_versions(id, &have),
            other => self.on_compare_item(id, other),
        }
    }

    fn on_compare_item(&mut self, id: NodeId, kind: Kind) -> Option<()> {
        match kind {
            Kind::AskChain(ask) => self.on_ask_chain(id, ask.session, AccountId(ask.account)),
            Kind::Chain(chain) => {
                self.on_their_chain(id, chain.session, AccountId(chain.account), Side::from_wire(&chain)?);
            }
            Kind::Pull(pull) => self.on_pull(id, pull.session, AccountId(pull.account), pull.keep_branch),
            Kind::Now(now) => {
                self.on_now(id, now.session, AccountId(now.account), Version::from_bytes(&now.version)?);
            }
            Kind::Archive(archive) => self.on_archive(id, archive.session, AccountId(archive.account)),
            Kind::Archived(done) => {
                let version = Version::from_bytes(&done.version)?;
                self.on_their_archive(id, done.session, AccountId(done.account), version, done.uidvalidity);
            }
            Kind::Compared(done) => {
                let in_flight = done.in_flight.iter().map(|a| AccountId(*a)).collect();
                self.on_compared(id, epoch_from(done.epoch.as_ref()?), &in_flight);
            }
            _ => return None,
        }
        Some(())
    }

    fn on_hello(&mut self, id: NodeId, hello: &link::Hello) -> Option<()> {
        let read = |r: &Option<link::EpochRecord>| match r {
            None => Some(None),
            Some(r) => record_from(r).map(Some),
        };
        let (record, newest) = (read(&hello.record)?, read(&hello.newest)?);
        for heard in [&record, &newest].into_iter().flatten() {
            self.hear(heard);
        }
        let peer = self.peers.get_mut(&id)?;
        peer.hello = true;
        peer.record = record;
        peer.newest = newest;
        self.on_holds_address(id, hello.holds_address);
        Some(())
    }

    fn on_holds_address(&mut self, id: NodeId, holds: bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let held = std::mem::replace(&mut peer.holds_address, holds);
        if held && !holds {
            self.claim_address();
        }
    }

    fn on_heartbeat(&mut self, id: NodeId, beat: &link::Heartbeat) -> Option<()> {
        let read = |r: &Option<link::EpochRecord>| match r {
            None => Some(None),
            Some(r) => record_from(r).map(Some),
        };
        let (record, newest) = (read(&beat.record)?, read(&beat.newest)?);
        for heard in [&record, &newest].into_iter().flatten() {
            self.hear(heard);
        }
        let peer = self.peers.get_mut(&id)?;
        peer.seen = beat.sent;
        if beat.echo > 0 {
            peer.echoed = Some(Instant(beat.echo)).max(peer.echoed);
        }
        peer.record = record;
        peer.newest = newest;
        let had_room = std::mem::replace(&mut peer.disk_ok, beat.disk_ok);
        let has_room_again = beat.disk_ok && !had_room;
        self.on_holds_address(id, beat.holds_address);
        if beat.grant && beat.echo > 0 {
            self.on_grant(id, Instant(beat.echo));
        }
        if has_room_again {
            self.on_room(id);
        }
        Some(())
    }

    pub(crate) fn beat_all(&mut self) {
        self.last_beat = self.now;
        let peers: Vec<NodeId> = self.peers.iter().filter(|(_, p)| p.link.is_some()).map(|(id, _)| *id).collect();
        for id in peers {
            self.beat(id);
        }
    }

    /// One heartbeat, unless our disk looks dead: then we must look dead too.
    pub(crate) fn beat(&mut self, id: NodeId) {
        if self.disk_silent > limits::DISK_SILENT_MS {
            return;
        }
        let grant = self.may_grant(id);
        let until = self.now.plus_ms(self.config.timing.lease);
        let (record, newest) = (self.record.as_ref().map(record_to), self.announced().map(record_to));
        let (now, disk_ok, holds_address) = (self.now, !self.disk_low && !self.leaving, self.address_held);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if grant {
            peer.granted_until = until;
        }
        let (sent, echo) = (now.0, peer.seen);
        peer.say(Kind::Heartbeat(link::Heartbeat { sent, echo, record, grant, disk_ok, holds_address, newest }));
    }

    /// Cuts a batch into parts and puts it on the link.
    pub(crate) fn say_batch(&mut self, id: NodeId, epoch: EpochId, batch: BatchId, encoded: &Bytes) {
        let mut rest = encoded.clone();
        loop {
            let bytes = rest.split_to(rest.len().min(PART_BYTES_MAX));
            let last = rest.is_empty();
            let part = link::BatchPart {
                epoch: Some(epoch_to(epoch)),
                id: Bytes::copy_from_slice(&batch.to_bytes()),
                bytes,
                last,
            };
            self.say(id, Kind::Batch(part));
            if last {
                return;
            }
        }
    }

    fn on_batch_part(&mut self, id: NodeId, part: &link::BatchPart) -> Option<()> {
        let peer = self.peers.get_mut(&id)?;
        if peer.incoming.len() + part.bytes.len() > 3 * limits::BATCH_BYTES_MAX {
            peer.incoming.clear();
            return None;
        }
        peer.incoming.extend_from_slice(&part.bytes);
        if !part.last {
            return Some(());
        }
        let bytes = std::mem::take(&mut peer.incoming).freeze();
        let batch = message::batch_from(link::Batch::decode(bytes).ok()?)?;
        self.on_batch(id, epoch_from(part.epoch.as_ref()?), batch);
        Some(())
    }

    /// A long list goes in several items.
    pub(crate) fn say_versions(&mut self, id: NodeId, session: u64) {
        let list: Vec<(AccountId, Version)> =
            self.versions.iter().flatten().filter(|(_, v)| **v != Version::default()).map(|(a, v)| (*a, *v)).collect();
        let unmarked = self.saved.never_short;
        let mut chunks = list.chunks(VERSIONS_PER_ITEM_MAX).peekable();
        if chunks.peek().is_none() {
            self.say(
                id,
                Kind::HaveVersions(link::HaveVersions { session, accounts: Vec::new(), last: true, unmarked }),
            );
        }
        while let Some(chunk) = chunks.next() {
            let (accounts, last) = (message::versions_to(chunk), chunks.peek().is_none());
            self.say(id, Kind::HaveVersions(link::HaveVersions { session, accounts, last, unmarked }));
        }
    }

    /// Everything said since the last event leaves in as few frames as fit.
    pub(crate) fn flush(&mut self) {
        for (id, peer) in &mut self.peers {
            let mut frame = link::Frame::default();
            let mut size = 0;
            for item in std::mem::take(&mut peer.outbox) {
                let len = item.encoded_len() + 8;
                if size + len > FRAME_FILL_MAX && !frame.items.is_empty() {
                    let full = std::mem::take(&mut frame).encode_to_vec().into();
                    self.outputs.push_back(Output::Send { to: *id, frame: full });
                    size = 0;
                }
                size += len;
                frame.items.push(item);
            }
            if !frame.items.is_empty() {
                self.outputs.push_back(Output::Send { to: *id, frame: frame.encode_to_vec().into() });
            }
        }
    }

    pub(crate) fn on_tick(&mut self) {
        self.last_tick = self.now;
        if self.now.since(self.last_beat) >= self.config.timing.heartbeat {
            self.beat_all();
            let down: Vec<NodeId> = self.peers.iter().filter(|(_, p)| p.link.is_none()).map(|(id, _)| *id).collect();
            for id in down {
                self.probe(id);
            }
        }
        self.look_for_silent();
        self.check_waits();
        self.check_slowness();
    }
}
