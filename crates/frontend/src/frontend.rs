//! Starts and stops everything that listens for clients.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::smtp::session::Role;
use ports::streams::StreamService;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster_address::ClusterAddress;
use crate::config::FrontendConfig;
use crate::context::{FrontendContext, Ports};
use crate::http::{Administration, HttpService, router};
use crate::imap::ImapProtocol;
use crate::listener::{Endpoint, Open, Places, Service, accept_all, bind};
use crate::pop3::Pop3Protocol;
use crate::proxy::{Balancers, ProxiedDoor};
use crate::smtp::SmtpProtocol;
use crate::tls::Tls;

/// How long connections have to end after [`FrontendHandle::stop`].
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked whether they have.
const STOP_LOOK: Duration = Duration::from_millis(20);

/// The doors.
pub struct Frontend;

/// Running doors; dropping it closes the listeners and says goodbye on the connections.
pub struct FrontendHandle {
    addresses: BTreeMap<&'static str, SocketAddr>,
    places: Vec<Arc<Places>>,
    proxied: Arc<dyn StreamService>,
    running: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Frontend {
    /// Binds every port on the node's own address and starts serving; the same ports on the cluster address while this
    /// node holds it.
    ///
    /// # Errors
    /// A port cannot be bound or the certificate cannot be used; the text names it.
    pub fn start(config: FrontendConfig, ports: Ports, administration: Administration) -> io::Result<FrontendHandle> {
        let tls = Tls::load(config.tls.clone())?;
        let context = FrontendContext::new(ports, config);
        let (running, is_running) = watch::channel(true);
        let mut tasks = JoinSet::new();
        let mut addresses = BTreeMap::new();
        let mut endpoints = endpoints(&context, administration, &tls);
        for endpoint in &mut endpoints {
            let name = endpoint.name;
            let address = SocketAddr::new(context.config.address, endpoint.port);
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{name} on {address}: {error}"));
            let listener = bind(address.ip(), address.port()).map_err(named)?;
            let bound = listener.local_addr()?;
            // A port chosen by the system is the same on the cluster address.
            endpoint.port = bound.port();
            addresses.insert(name, bound);
            let serving = endpoint.service.gated().then(|| context.ports.cluster.serving());
            let open = Open::while_all([serving, Some(is_running.clone()), None]);
            tasks.spawn(accept_all(listener, endpoint.clone(), open));
            tracing::info!(service = name, address = %bound, "listening");
        }
        let places = endpoints.iter().map(|endpoint| endpoint.places.clone()).collect();
        let proxied = ProxiedDoor {
            proxy: context.proxy.clone(),
            endpoints: endpoints.iter().filter(|endpoint| endpoint.service.gated()).cloned().collect(),
            open: Open::while_all([Some(context.ports.cluster.serving()), Some(is_running.clone()), None]),
            config: context.ports.config.clone(),
        };
        let cluster_address = ClusterAddress {
            endpoints,
            when: context.config.cluster_ports.clone(),
            own: context.config.address,
            running: is_running,
            cluster: context.ports.cluster.clone(),
            config: context.ports.config.clone(),
        };
        tasks.spawn(cluster_address.keep());
        tasks.spawn(tls.keep_fresh());
        Ok(FrontendHandle { addresses, places, proxied: Arc::new(proxied), running, tasks })
    }
}

fn endpoints(context: &Arc<FrontendContext>, administration: Administration, tls: &Tls) -> Vec<Endpoint> {
    let limits = &context.config.limits;
    let ports = &context.config.ports;
    let places =
        |service: &Arc<dyn Service>, per_network| Places::new(service.name(), limits.connections_max, per_network);
    let usual = limits.connections_per_address_max;
    let smtp: Arc<dyn Service> = Arc::new(SmtpProtocol::new(context.clone(), Role::Mx));
    let submission: Arc<dyn Service> = Arc::new(SmtpProtocol::new(context.clone(), Role::Submission));
    let imap: Arc<dyn Service> = Arc::new(ImapProtocol::new(context.clone()));
    let pop3: Arc<dyn Service> = Arc::new(Pop3Protocol::new(context.clone()));
    let https: Arc<dyn Service> = Arc::new(HttpService::new(router(context.clone(), administration)));
    let smtp_places = places(&smtp, limits.smtp_connections_per_address_max);
    let (submission_places, pop3_places) = (places(&submission, usual), places(&pop3, usual));
    let imap_places = places(&imap, usual);
    let https_places = places(&https, usual);
    let rows = [
        ("smtp", &smtp, ports.smtp, false, &smtp_places),
        ("submission", &submission, ports.submission, false, &submission_places),
        ("submissions", &submission, ports.submissions, true, &submission_places),
        ("imap", &imap, ports.imap, false, &imap_places),
        ("imaps", &imap, ports.imaps, true, &imap_places),
        ("pop3", &pop3, ports.pop3, false, &pop3_places),
        ("pop3s", &pop3, ports.pop3s, true, &pop3_places),
        ("https", &https, ports.https, true, &https_places),
    ];
    let networks = context.config.proxy_networks.clone();
    let balancers = Arc::new(Balancers::new(networks, context.ports.config.clone()));
    let endpoint = |(name, service, port, implicit_tls, places): (_, &Arc<dyn Service>, _, _, &Arc<Places>)| Endpoint {
        name,
        service: service.clone(),
        port,
        implicit_tls,
        tls: tls.clone(),
        places: places.clone(),
        // What every node can answer is answered here.
        proxy: service.gated().then(|| context.proxy.clone()),
        balancers: service.gated().then(|| balancers.clone()),
    };
    rows.map(endpoint).into()
}

impl FrontendHandle {
    /// Bound addresses on the node's own address, by service (`smtp`, `submission`, `submissions`, `imap`, `imaps`,
    /// `pop3`, `pop3s`, `https`).
    #[must_use]
    pub const fn addresses(&self) -> &BTreeMap<&'static str, SocketAddr> {
        &self.addresses
    }

    /// Serves connections that other nodes accepted.
    #[must_use]
    pub fn proxied(&self) -> Arc<dyn StreamService> {
        self.proxied.clone()
    }

    /// Closes the listeners, says goodbye on every connection and waits a few seconds for them to end.
    pub async fn stop(mut self) {
        self.running.send_replace(false);
        self.tasks.shutdown().await;
        let begin = tokio::time::Instant::now();
        while self.places.iter().any(|places| places.count() > 0) && begin.elapsed() < STOP_WAIT {
            tokio::time::sleep(STOP_LOOK).await;
        }
    }
}
