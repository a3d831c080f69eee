//! Dialling a peer: TLS with the name `node-<id>` inside the cluster, HTTP/2 windows for long streams.

use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use vocab::NodeId;

use crate::ca;
use crate::{TlsPems, TransportError};

/// A dial that takes longer failed (TCP, TLS and HTTP/2 together).
pub(crate) const DIAL_WAIT: Duration = Duration::from_millis(2_000);
/// Of that, for TCP.
const TCP_WAIT: Duration = Duration::from_millis(1_000);
/// A connection that has another path beside it is asked so often whether it still carries ...
const PATH_ASKED_EVERY: Duration = Duration::from_millis(1_000);
/// ... and ends when there is no answer for so long. Above any pause of the other process that is no failure.
const PATH_SILENCE_MAX: Duration = Duration::from_millis(2_000);
/// HTTP/2 windows: a batch at its limit needs no round trip (bytes).
pub(crate) const WINDOW_BYTES: u32 = 64 * 1024 * 1024;
/// HTTP/2 frames (bytes).
pub(crate) const HTTP_FRAME_BYTES: u32 = 256 * 1024;

/// Finds unusable certificates at start instead of at the first dial.
pub(crate) fn check_pems(tls: &TlsPems) -> Result<(), TransportError> {
    let client = endpoint("127.0.0.1:1")
        .and_then(|endpoint| endpoint.tls_config(client_tls(tls, NodeId(1))).map_err(|error| describe(&error)));
    client.map(drop).map_err(TransportError::Tls)
}

fn client_tls(tls: &TlsPems, to: NodeId) -> ClientTlsConfig {
    ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&tls.ca))
        .identity(Identity::from_pem(tls.chain(), &tls.key))
        .domain_name(ca::node_name(to))
}

/// Everything but TLS.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(|error| describe(&error))?;
    Ok(endpoint
        .connect_timeout(TCP_WAIT)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(HTTP_FRAME_BYTES))
}

/// Why a dial failed.
pub(crate) struct DialFault {
    /// For people.
    pub(crate) reason: String,
}

/// A connected channel to this node. `watched`: a path that goes silent ends it, because there is another one.
pub(crate) async fn dial(tls: &TlsPems, to: NodeId, address: &str, watched: bool) -> Result<Channel, DialFault> {
    let failed = |reason| DialFault { reason };
    let mut endpoint = endpoint(address).map_err(failed)?;
    if watched {
        endpoint = endpoint
            .http2_keep_alive_interval(PATH_ASKED_EVERY)
            .keep_alive_timeout(PATH_SILENCE_MAX)
            .keep_alive_while_idle(true);
    }
    let endpoint = endpoint.tls_config(client_tls(tls, to)).map_err(|error| failed(describe(&error)))?;
    match tokio::time::timeout(DIAL_WAIT, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(failed(describe(&error))),
        Err(_) => Err(failed(format!("no connection to {address} in {} ms", DIAL_WAIT.as_millis()))),
    }
}

/// An error with all its causes.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(now) = cause {
        let next = now.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = now.source();
    }
    text
}
