//! Sharing out: which of the nodes that serve gets a new connection on the cluster address (HA-02). Least connections of
//! its kind by weight; the node itself when nobody is better.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use topology::LoadBody;
use vocab::NodeId;

/// Connections given to other nodes, by node and service.
#[derive(Clone, Default)]
pub(crate) struct Shares(Arc<Mutex<BTreeMap<(NodeId, &'static str), usize>>>);

/// One connection given away, while it lasts.
pub(crate) struct Share {
    shares: Shares,
    key: (NodeId, &'static str),
}

impl Shares {
    /// Connections of this service that other nodes serve for this one by choice, all of them and by node.
    fn given(&self, service: &'static str) -> (usize, BTreeMap<NodeId, usize>) {
        let shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_service = shares.iter().filter(|((_, name), _)| *name == service);
        let by_node: BTreeMap<NodeId, usize> = of_service.map(|((node, _), count)| (*node, *count)).collect();
        (by_node.values().sum(), by_node)
    }

    /// Gives a connection of this service to the best of `others`, unless this node (`me`, with `accepted` connections, this
    /// one and those given away among them) is best.
    pub(crate) fn give(
        &self,
        service: &'static str,
        (me, accepted): (NodeId, usize),
        others: &[NodeId],
        load: &LoadBody,
    ) -> Option<Share> {
        let (given, by_node) = self.given(service);
        let own = accepted.saturating_sub(given).saturating_sub(1);
        let count = |node: &NodeId| by_node.get(node).copied().unwrap_or(0);
        let candidates = others.iter().map(|node| (*node, count(node), load.weight(*node)));
        let to = least((own, load.weight(me)), candidates)?;
        let key = (to, service);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
        Some(Share { shares: self.clone(), key })
    }
}

impl Share {
    /// Who gets it.
    pub(crate) fn to(&self) -> NodeId {
        self.key.0
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = shares.get_mut(&self.key) {
            *count = count.saturating_sub(1);
        }
    }
}

/// The node with the fewest connections by weight once it has one more; `None`: this one. A node of weight 0 gets none, as
/// long as another is there.
fn least(own: (usize, u32), others: impl Iterator<Item = (NodeId, usize, u32)>) -> Option<NodeId> {
    // a / b < c / d, without division.
    let below =
        |(a, b): (usize, u32), (c, d): (usize, u32)| (a as u64 + 1) * u64::from(d) < (c as u64 + 1) * u64::from(b);
    let mut best: Option<(Option<NodeId>, (usize, u32))> = (own.1 > 0).then_some((None, own));
    for (node, count, weight) in others.filter(|(_, _, weight)| *weight > 0) {
        if best.as_ref().is_none_or(|(_, load)| below((count, weight), *load)) {
            best = Some((Some(node), (count, weight)));
        }
    }
    best.and_then(|(node, _)| node)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const TWO: NodeId = NodeId(2);
    const THREE: NodeId = NodeId(3);

    fn share_out(count: usize, others: &[NodeId], load: &LoadBody) -> BTreeMap<NodeId, usize> {
        let shares = Shares::default();
        let mut kept = Vec::new();
        let mut placed = BTreeMap::new();
        for accepted in 1..=count {
            let share = shares.give("imap", (ME, accepted), others, load);
            *placed.entry(share.as_ref().map_or(ME, Share::to)).or_default() += 1;
            kept.extend(share);
        }
        placed
    }

    fn weights(weights: &[(u32, u32)]) -> LoadBody {
        LoadBody { spread: true, weights: weights.iter().copied().collect() }
    }

    #[test]
    fn ha_02_connections_are_shared_out_by_weight_and_a_drained_node_gets_none() {
        let even = share_out(300, &[TWO, THREE], &weights(&[]));
        assert_eq!(even, BTreeMap::from([(ME, 100), (TWO, 100), (THREE, 100)]));
        let heavy = share_out(400, &[TWO], &weights(&[(1, 100), (2, 300)]));
        assert_eq!(heavy, BTreeMap::from([(ME, 100), (TWO, 300)]));
        assert_eq!(share_out(10, &[TWO], &weights(&[(2, 0)])), BTreeMap::from([(ME, 10)]));
        assert_eq!(share_out(10, &[TWO], &weights(&[(1, 0)])), BTreeMap::from([(TWO, 10)]));
        assert_eq!(share_out(10, &[TWO], &weights(&[(1, 0), (2, 0)])), BTreeMap::from([(ME, 10)]), "somebody must");
        assert_eq!(share_out(10, &[], &weights(&[])), BTreeMap::from([(ME, 10)]));
    }

    #[test]
    fn a_connection_that_ends_makes_room() {
        let (shares, load) = (Shares::default(), weights(&[]));
        let first = shares.give("imap", (ME, 2), &[TWO], &load).expect("two has none yet");
        assert!(shares.give("imap", (ME, 3), &[TWO], &load).is_none(), "one each: this node takes the third");
        drop(first);
        assert!(shares.give("imap", (ME, 3), &[TWO], &load).is_some());
        assert!(shares.give("smtp", (ME, 1), &[TWO], &load).is_none(), "services are counted apart");
    }
}
