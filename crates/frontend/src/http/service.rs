//! HTTP/1.1 over an accepted connection.

use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ports::Answer;

use crate::http::Caller;
use crate::listener::{Connection, Service, TurnedAway};
use crate::transport::Transport;

/// Longest time for the head of a request, also the silence between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// The API as a service; open also while the node does not serve mail.
pub struct HttpService {
    router: Router,
}

impl HttpService {
    /// Serves this router.
    #[must_use]
    pub const fn new(router: Router) -> Self {
        Self { router }
    }
}

impl Service for HttpService {
    fn name(&self) -> &'static str {
        "https"
    }
    fn gated(&self) -> bool {
        false
    }
    fn farewell(&self, _: TurnedAway) -> &'static str {
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    }
    fn serve(&self, mut connection: Connection) -> Answer<'static, ()> {
        let service = TowerToHyperService::new(self.router.clone().layer(Extension(Caller(connection.peer.address))));
        Box::pin(async move {
            let transport = std::mem::replace(&mut connection.transport, Transport::Closed);
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            let serving = builder.serve_connection(TokioIo::new(transport), service);
            tokio::pin!(serving);
            let served = tokio::select! {
                served = serving.as_mut() => served,
                () = connection.open.closed() => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            };
            if let Err(error) = served {
                tracing::debug!(peer = %connection.peer.address, %error, "HTTP connection broken");
            }
        })
    }
}
