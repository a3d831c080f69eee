//! What clients meet: directory, front-ends and relay, over the engine and the configuration.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use control::Control;
use directory::AccountDirectory;
use frontend::config::{Limits, ServicePorts};
use frontend::tls::TlsFiles;
use frontend::{Administration, Frontend, FrontendConfig, FrontendHandle, JoinTokens, Ports, TokenPlan};
use metrics_exporter_prometheus::PrometheusHandle;
use ports::Answer;
use ports::cluster::Cluster;
use ports::config::ConfigError;
use ports::journal::Journal;
use relay::{Relay, RelayConfig, RelayPorts};
use resolver::DnsResolver;
use serde_json::Value;
use shards::Engine;
use store::Store;
use tokio::sync::watch;
use transport::Transport;
use vocab::NodeId;

use crate::address::Kept;
use crate::alerts::{Alerts, CertificateKind, Sources};
use crate::certificates::office::Office;
use crate::certificates::{Keeper, disk};
use crate::cluster_address::Looker;
use crate::config::NodeConfig;
use crate::files::{self, DataDir, Identity};
use crate::join;
use crate::logging::Logging;
use crate::seeding::Maker;
use crate::servers::{MailParts, Reporter, Reports};

/// The running service.
pub(crate) struct Services {
    frontend: FrontendHandle,
    relay_stop: watch::Sender<bool>,
}

impl Services {
    /// Says goodbye to clients and ends the relay's work, within `wait`.
    pub(crate) async fn stop(self, wait: Duration) {
        self.relay_stop.send_replace(true);
        if tokio::time::timeout(wait, self.frontend.stop()).await.is_err() {
            tracing::info!("some connections did not end in time");
        }
    }
}

struct Tokens {
    config: Arc<Control>,
    data: DataDir,
    cluster: Arc<dyn Cluster>,
}

impl JoinTokens for Tokens {
    fn create(&self) -> Answer<'_, Result<String, ConfigError>> {
        Box::pin(join::make_token(&*self.config, &self.data))
    }

    fn plan(&self) -> TokenPlan {
        join::plan_token(&*self.config, self.cluster.status().settings_locked)
    }
}

/// What service and clients go through.
type Doors<'a> =
    (&'a Arc<Transport>, &'a Kept, &'a Logging, &'a Arc<dyn Journal>, (&'a Arc<Reporter>, &'a Arc<Keeper>));

/// Starts directory, relay and front-ends.
pub(crate) fn start(
    config: &NodeConfig,
    (data, identity, store): (&DataDir, &Identity, &Arc<Store>),
    (node, control, engine): (NodeId, &Arc<Control>, &Arc<Engine>),
    (transport, kept, logging, journal, (reporter, certificates)): Doors<'_>,
    metrics: PrometheusHandle,
) -> anyhow::Result<Services> {
    let accounts = engine.accounts();
    let directory = Arc::new(AccountDirectory::new(control.clone(), accounts.clone()));
    let (relay_stop, mut stopped) = watch::channel(false);
    let relay = Relay::new(
        RelayPorts {
            outbox: engine.outbox(),
            blobs: engine.blobs(),
            intake: engine.intake(),
            directory: directory.clone(),
            resolver: Arc::new(DnsResolver::new(&config.dns.servers)),
            config: control.clone(),
            log: Arc::clone(&logging.log),
        },
        relay_config(config, node),
    )
    .context("start the relay")?;
    tokio::spawn(relay.run(async move {
        // The sender lives as long as the service.
        let _ = stopped.wait_for(|stop| *stop).await;
    }));
    let alerts =
        Alerts::start(sources(config, data, (node, control, engine), &directory, (journal, reporter, logging)));
    let metrics: Arc<dyn Fn() -> String + Send + Sync> = Arc::new(move || metrics.render());
    let alerts: Arc<dyn Fn() -> Value + Send + Sync> = Arc::new(move || alerts.list());
    reporter.stores_mail(MailParts {
        cluster: engine.cluster(),
        doors: config.ports.of_clients().map(|(name, port)| (name, port != 0)).to_vec(),
        journal: Arc::clone(journal),
        logging: logging.clone(),
        metrics: Arc::clone(&metrics),
        alerts: Arc::clone(&alerts),
    });
    let administration = Administration {
        reports: Arc::new(Reports(Arc::clone(reporter))),
        token: files::read_text(&data.admin_token())?.trim().to_owned(),
        metrics,
        checkpoints: Arc::new(Maker { store: store.clone(), identity: identity.clone() }),
        alerts,
        certificates: Arc::new(Office(Arc::clone(certificates))),
        addresses: Arc::new(Looker { config: config.clone(), node, control: control.clone() }),
        join_tokens: Arc::new(Tokens { config: control.clone(), data: data.clone(), cluster: engine.cluster() }),
    };
    let ports = Ports {
        accounts,
        blobs: engine.blobs(),
        config: control.clone(),
        directory,
        intake: engine.intake(),
        outbox: engine.outbox(),
        cluster: engine.cluster(),
        streams: transport.clone(),
        log: Arc::clone(&logging.log),
        logs: Arc::clone(&logging.logs),
    };
    let frontend = Frontend::start(frontend_config(config, data, kept), ports, administration)?;
    transport.take_streams(frontend.proxied());
    Ok(Services { frontend, relay_stop })
}

fn sources(
    config: &NodeConfig,
    data: &DataDir,
    (node, control, engine): (NodeId, &Arc<Control>, &Arc<Engine>),
    directory: &Arc<AccountDirectory>,
    (journal, reporter, logging): (&Arc<dyn Journal>, &Arc<Reporter>, &Logging),
) -> Sources {
    let service = match &config.tls {
        Some(own) => (CertificateKind::OwnFiles, own.certificate.clone()),
        None => (CertificateKind::Clients, data.service_certificate()),
    };
    Sources {
        node,
        config: control.clone(),
        cluster: engine.cluster(),
        outbox: engine.outbox(),
        intake: engine.intake(),
        directory: directory.clone(),
        accounts: engine.accounts(),
        journal: Arc::clone(journal),
        mail: data.mail(),
        logs: data.logs(),
        logging: logging.clone(),
        certificates: vec![(CertificateKind::Ca, data.ca()), (CertificateKind::Node, data.node_certificate()), service],
        hostname: config.hostname.clone(),
        reporter: Arc::clone(reporter),
    }
}

fn relay_config(config: &NodeConfig, node: NodeId) -> RelayConfig {
    let usual = RelayConfig::new(config.hostname.clone(), node);
    RelayConfig { first_retry_ms: config.queue.first_retry_ms.unwrap_or(usual.first_retry_ms), ..usual }
}

fn frontend_config(config: &NodeConfig, data: &DataDir, kept: &Kept) -> FrontendConfig {
    let ports = &config.ports;
    let tls = match &config.tls {
        Some(own) => TlsFiles { certificate: own.certificate.clone(), key: own.key.clone() },
        None => TlsFiles { certificate: data.service_certificate(), key: disk::service_key(data) },
    };
    FrontendConfig {
        hostname: config.hostname.clone(),
        address: config.address,
        cluster_ports: crate::address::ports(config, kept),
        ports: ServicePorts {
            smtp: ports.smtp,
            submission: ports.submission,
            submissions: ports.submissions,
            imap: ports.imap,
            imaps: ports.imaps,
            pop3: ports.pop3,
            pop3s: ports.pop3s,
            https: ports.https,
        },
        tls,
        allow_plaintext: config.allow_plaintext,
        message_size_max: config.message_size_max,
        limits: Limits::default(),
        proxy_networks: config.proxy_networks.clone(),
    }
}
