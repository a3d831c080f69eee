//! The shape every protocol session machine has, so that one driver serves all of them.
//!
//! `on_*` takes an event in, `next_output` hands an order out (drain it until `None` after every event), `deadline`
//! says when to call `on_deadline`, and `now` is an argument. At most one question is outstanding: while a session
//! waits for an answer it consumes no bytes (`on_bytes` returns 0), so nothing can change under its feet.

use bytes::Bytes;

use crate::time::Instant;

/// Orders of a session to its driver, in order.
#[derive(Debug)]
pub enum Output<Q> {
    /// Write these bytes to the peer. The driver may join neighbours.
    Write(Bytes),
    /// Answer this question with `on_answer`; the session consumes no bytes until then.
    Ask(Q),
    /// Start the TLS handshake now; bytes already buffered by the driver are thrown away (RFC 3207 §4.2, injection).
    StartTls,
    /// Flush and close.
    Close,
}

/// What the driver knows of a connection when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Client's address as the client is known to us (after PROXY), IP without port.
    pub address: std::net::IpAddr,
    /// Whether TLS is on already.
    pub tls: bool,
}

/// One connection of one protocol as a sealed machine.
pub trait Session: Send {
    /// What the session needs from outside.
    type Query: Send;
    /// The answers.
    type Answer: Send;

    /// Consumes input and returns how many bytes were used; the rest is offered again, together with what arrives
    /// later, after the next event. 0 with more than the session's own line limit buffered never happens.
    fn on_bytes(&mut self, input: &[u8], now: Instant) -> usize;
    /// The peer closed its sending side.
    fn on_end(&mut self, now: Instant);
    /// The answer to the one outstanding [`Output::Ask`].
    fn on_answer(&mut self, answer: Self::Answer, now: Instant);
    /// TLS is on after [`Output::StartTls`].
    fn on_tls(&mut self, now: Instant);
    /// The time named by [`Session::deadline`] has come.
    fn on_deadline(&mut self, now: Instant);
    /// When to wake the session if nothing else happens.
    fn deadline(&self) -> Option<Instant>;
    /// Something the session watches may have changed (IMAP IDLE: ask for news). Others ignore it.
    fn on_change(&mut self, now: Instant) {
        let _ = now;
    }
    /// This node stops serving: say goodbye at the next point the protocol allows (421, BYE).
    fn on_shutdown(&mut self, now: Instant);
    /// The next order; `None` when there is none until the next event.
    fn next_output(&mut self) -> Option<Output<Self::Query>>;
}
