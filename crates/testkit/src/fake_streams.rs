//! Streams between front-ends in one process: pipes in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ports::Answer;
use ports::streams::{ByteStream, StreamError, StreamService, Streams};
use vocab::NodeId;

/// Bytes that wait in a pipe.
const PIPE_BYTES: usize = 64 * 1024;

/// Streams from one node to whoever was named.
pub struct FakeStreams {
    node: NodeId,
    others: Mutex<BTreeMap<NodeId, Arc<dyn StreamService>>>,
}

impl FakeStreams {
    /// From this node, to nobody yet.
    #[must_use]
    pub fn new(node: NodeId) -> Arc<Self> {
        Arc::new(Self { node, others: Mutex::default() })
    }
    /// Names who takes the streams to a node; `None` = it cannot be reached.
    pub fn reach(&self, to: NodeId, service: Option<Arc<dyn StreamService>>) {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        match service {
            Some(service) => drop(others.insert(to, service)),
            None => drop(others.remove(&to)),
        }
    }
}

impl Streams for FakeStreams {
    fn open(&self, to: NodeId) -> Answer<'_, Result<Box<dyn ByteStream>, StreamError>> {
        let service = self.others.lock().unwrap_or_else(PoisonError::into_inner).get(&to).cloned();
        Box::pin(async move {
            let service = service.ok_or_else(|| StreamError::Unreachable("nobody there".to_owned()))?;
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            tokio::spawn(service.take(self.node, Box::new(far)));
            Ok(Box::new(near) as Box<dyn ByteStream>)
        })
    }
}
