//! One look at a port of a peer: evidence for "process gone" (DESIGN 6), never proof.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::net::TcpStream;

/// How long a probe waits for an answer; a kernel on the same network answers at once.
const PROBE_WAIT: Duration = Duration::from_millis(100);

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The peer's kernel answered with a reset: nobody listens there.
    Refused,
    /// Somebody accepted.
    Connected,
    /// No answer in time, or an ICMP error, which anybody on the way can send.
    Silent,
}

/// Tries a TCP connection to `address` (`host:port`), 100 ms at most.
pub async fn probe_reset(address: &str) -> Probe {
    match tokio::time::timeout(PROBE_WAIT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Probe::Connected,
        Ok(Err(error)) if is_reset(error.kind()) => Probe::Refused,
        Ok(Err(_)) | Err(_) => Probe::Silent,
    }
}

/// Whether an error of this kind means that the peer's kernel sent a reset.
pub(crate) fn is_reset(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
}

/// Whether a reset by the peer's kernel is at the root of this error.
pub(crate) fn caused_by_reset(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(now) = cause {
        if now.downcast_ref::<std::io::Error>().is_some_and(|io| is_reset(io.kind())) {
            return true;
        }
        cause = now.source();
    }
    false
}
