//! Links and calls between the engines of one process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ports::Answer;
use ports::peers::{CallError, Evidence, LinkUp, PeerEvents, PeerService, Peers, Service};
use vocab::{Boot, NodeId};

#[derive(Clone)]
struct Place {
    boot: Boot,
    events: Arc<dyn PeerEvents>,
    service: Arc<dyn PeerService>,
}

#[derive(Default)]
pub struct Net {
    places: Mutex<BTreeMap<NodeId, Place>>,
    links: Mutex<(u64, bool)>,
    /// Answers of calls that get lost after the call was served.
    pub lose: std::sync::atomic::AtomicU32,
    /// Calls wait while it is set.
    pub held: std::sync::atomic::AtomicBool,
    /// Times a node asked for a new link.
    pub resets: std::sync::atomic::AtomicU32,
}

impl Net {
    pub fn add(&self, node: NodeId, boot: Boot, events: Arc<dyn PeerEvents>, service: Arc<dyn PeerService>) {
        let mut places = self.places.lock().expect("places");
        places.insert(node, Place { boot, events, service });
        if places.len() < 2 {
            return;
        }
        let mut links = self.links.lock().expect("links");
        *links = (links.0 + 1, true);
        for (node, place) in places.iter() {
            let (peer, other) = places.iter().find(|(n, _)| *n != node).expect("two");
            place.events.link_up(LinkUp { peer: *peer, boot: other.boot, link: links.0 });
        }
    }

    /// Nothing passes on the link any more; calls still do. Nobody knows of an end of the other's process.
    pub fn cut(&self) {
        let mut links = self.links.lock().expect("links");
        links.1 = false;
        let places = self.places.lock().expect("places");
        for (node, place) in places.iter() {
            let (peer, _) = places.iter().find(|(n, _)| *n != node).expect("two");
            place.events.link_down(*peer, links.0, false);
        }
    }

    pub fn remove(&self, node: NodeId) {
        let mut places = self.places.lock().expect("places");
        places.remove(&node);
        let mut links = self.links.lock().expect("links");
        links.1 = false;
        for place in places.values() {
            place.events.link_down(node, links.0, true);
        }
    }
}

/// The net as one node uses it.
pub struct Wire {
    pub me: NodeId,
    pub boot: Boot,
    pub net: Arc<Net>,
}

impl Wire {
    /// The other end, unless one of both is gone.
    fn to(&self, to: NodeId) -> Option<Place> {
        let places = self.net.places.lock().expect("places");
        places.get(&self.me).filter(|me| me.boot == self.boot)?;
        places.get(&to).cloned()
    }
}

impl Peers for Wire {
    fn send(&self, to: NodeId, frame: Bytes) -> bool {
        let Some(place) = self.to(to) else { return false };
        let (link, up) = *self.net.links.lock().expect("links");
        if up {
            place.events.frame(self.me, link, frame);
        }
        up
    }
    fn call(&self, to: NodeId, _service: Service, body: Bytes) -> Answer<'_, Result<Bytes, CallError>> {
        Box::pin(async move {
            while self.net.held.load(std::sync::atomic::Ordering::SeqCst) {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            let Some(place) = self.to(to) else { return Err(CallError::NotSent("gone".into())) };
            let answer = place.service.serve(self.me, body).await.map_err(CallError::Refused);
            let order = std::sync::atomic::Ordering::SeqCst;
            if self.net.lose.fetch_update(order, order, |n| n.checked_sub(1)).is_ok() || self.to(to).is_none() {
                return Err(CallError::Lost("lost".into()));
            }
            answer
        })
    }
    fn reset(&self, _to: NodeId) {
        self.net.resets.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
    fn program(&self, _: NodeId) -> Option<ports::peers::PeerProgram> {
        None
    }
    fn refused(&self, _: NodeId) -> Option<String> {
        None
    }
}

/// Evidence comes from the guard alone here.
pub struct NoEvidence;

impl Evidence for NoEvidence {
    fn process_gone(&self, _peer: NodeId) -> Answer<'_, bool> {
        Box::pin(async { false })
    }
    fn serves(&self, _peer: NodeId) -> Answer<'_, bool> {
        Box::pin(async { false })
    }
}
