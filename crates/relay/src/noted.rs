//! A dialogue's lines for the protocol log, when it is on.

use std::net::SocketAddr;
use std::sync::Arc;

use ports::log::Log;
use smtp::tap::Tap;
use vocab::CommandId;
use vocab::log::{Entry, Protocol};

/// Notes what both sides of one dialogue say.
pub(crate) struct Noted {
    log: Arc<dyn Log>,
    tap: Tap,
    session: String,
    host: String,
}

impl Noted {
    /// `None` while the protocol log is off.
    pub(crate) fn begin(log: &Arc<dyn Log>, item: CommandId, to: SocketAddr) -> Option<Self> {
        log.wants_protocol().then(|| Self {
            log: Arc::clone(log),
            tap: Tap::default(),
            session: item.to_string(),
            host: to.to_string(),
        })
    }

    /// What this side, the client, said.
    pub(crate) fn said(&mut self, bytes: &[u8]) {
        let lines = self.tap.client(bytes);
        self.note(false, lines);
    }

    /// What the other side answered: whole lines.
    pub(crate) fn heard(&mut self, bytes: &[u8]) {
        let lines = self.tap.server(bytes);
        self.note(true, lines);
    }

    pub(crate) fn starts_tls(&mut self) {
        self.tap.starts_tls();
    }

    fn note(&self, received: bool, lines: Vec<String>) {
        for line in lines {
            let (session, host) = (self.session.clone(), self.host.clone());
            self.log.note(Entry::Protocol(Protocol { session, host, received, line }));
        }
    }
}
