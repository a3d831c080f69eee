//! `twinpost serve`: assembles all rooms and runs until it is told to stop.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use control::Control;
use ports::Answer;
use ports::cluster::Cluster as _;
use ports::config::{Config, ConfigError};
use ports::journal::{EventKind, Journal};
use ports::mail_store::MailStore as _;
use ports::peers::{Evidence, PeerService, Service};
use ports::senses::Senses as _;
use shards::{Engine, EngineConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use topology::{ClusterAddress, ConfigOp, Member};
use transport::{Handlers, Members, Probe, Transport, TransportConfig, Versions, probe_reset};
use vocab::{Boot, NodeId};

pub use crate::certificates::disk::node_tls;
use crate::certificates::{self, Keeper};
use crate::cluster_address;
use crate::config::NodeConfig;
use crate::examine::Teller;
use crate::exit::Exit;
use crate::files::{self, DataDir, Identity};
use crate::guard::GuardNote;
use crate::init;
use crate::join::Admission;
use crate::journal::FileJournal;
use crate::logging::{self, LoggedJournal};
use crate::notify::{self, Notifier, Pulse};
use crate::servers::{Answers, Basics, Reporter};

/// Pause between two looks for an admitted node that is no voter yet.
const VOTER_PAUSE: Duration = Duration::from_millis(500);
/// Between the end of a node's membership and that of its process.
const LEFT_PAUSE: Duration = Duration::from_millis(500);
/// How long sessions get to end after a planned stop.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// Runs the daemon.
///
/// # Errors
/// Anything that keeps it from starting, in words for the operator.
pub fn run(config: &NodeConfig) -> anyhow::Result<ExitCode> {
    start_logging(&config.log)?;
    let data = DataDir(config.data_dir.clone());
    let identity = match member_of(&data) {
        Ok(identity) => identity,
        Err(error) => {
            eprintln!("twinpost: {error:#}");
            return Ok(Exit::NoMember.into());
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config, data, identity))
}

fn start_logging(filter: &str) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).context("key `log` of the node file")?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}

fn member_of(data: &DataDir) -> anyhow::Result<Identity> {
    let identity = Identity::load(data)?;
    identity.must_be_member(data)?;
    Ok(identity)
}

async fn serve(config: &NodeConfig, data: DataDir, identity: Identity) -> anyhow::Result<ExitCode> {
    let notifier = Notifier::from_environment();
    if identity.witness {
        return crate::witness::serve(config, &data, &identity, &notifier).await;
    }
    let node = NodeId(identity.node);
    let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().context("start metrics")?;
    crate::measures::describe();
    crate::seeding::adopt(&data)?;
    let store = store::Store::open(&data.mail(), store::StoreOptions::default())?;
    let boot = shards::raise_boot(&*store).await?;
    tracing::info!(node = node.0, boot = boot.0, name = config.name, version = crate::PROGRAM, "starting");

    let (transport, members) = open_transport(config, &data, &identity, boot)?;
    let opened = logging::open(&data, node, transport.clone(), store.clone()).context("start the log")?;
    let log = Arc::clone(&opened.logging.log);
    let journal: Arc<dyn Journal> = Arc::new(LoggedJournal { journal: FileJournal::open(&data.0, node.0), log });
    journal.note(EventKind::Process, &format!("version {} starts, boot {}", crate::PROGRAM, boot.0));
    let control = Control::open(&data.raft(), node, transport.clone()).await.context("open the configuration")?;
    let engine = Engine::start(EngineConfig {
        node,
        boot,
        timing: timing(config),
        store: store.clone(),
        config: control.clone(),
        peers: transport.clone(),
        journal: Some(journal.clone()),
        evidence: Arc::new(Probes { config: control.clone(), node, smtp_port: config.ports.smtp, looks: config.looks }),
        queue_grace_ms: config.queue.grace_ms.unwrap_or(shards::QUEUE_GRACE_MS),
    })?;
    let reporter = reporter(config, (node, boot, data.mail()), &control, &transport);
    let certificates = Keeper::new((config, &data), (node, true), (&control, &transport), Some(journal.clone()));
    let about = (&reporter, &certificates);
    let bound = transport.start(handlers((config, &data), (&control, &engine), &opened, about)).await?;
    tracing::info!(?bound, "listening for other nodes");
    found(&control, config, &data, identity.clone()).await?;
    tokio::spawn(follow_members(control.clone(), members, data.clone(), node, boot));
    tokio::spawn(follow_voters(control.clone(), node));
    tokio::spawn(follow_own_address(control.clone(), init::member(config, node, true)));
    tokio::spawn(Arc::clone(&certificates).run());
    crate::discover::announce(config, &identity, &control);
    tokio::spawn(cluster_address::follow(config.clone(), data.clone(), control.clone(), journal.clone()));
    let kept = crate::address::Kept::default();
    let rooms = (node, &control, &engine);
    let logging = opened.follow(control.clone(), engine.cluster());
    let doors = (&transport, &kept, &logging, &journal, about);
    let service = crate::service::start(config, (&data, &identity, &store), rooms, doors, metrics)?;
    let keeper = crate::address::start(config, rooms, (kept, journal.clone()))?;
    write_notes(config, &data)?;
    tell_manager(&notifier, &engine, store);
    let end = await_end(&control, node, &data, identity).await?;
    notifier.stopping();
    if end == End::Stop {
        engine.leave_before_stop().await;
    }
    journal.note(EventKind::Process, "ends by order");
    service.stop(STOP_WAIT).await;
    if let Some(keeper) = keeper {
        keeper.stop().await;
    }
    logging.stop(STOP_WAIT).await;
    transport.stop();
    Ok(ExitCode::SUCCESS)
}

/// What tells of this node and asks the others.
pub(crate) fn reporter(
    config: &NodeConfig,
    (node, boot, folder): (NodeId, Boot, std::path::PathBuf),
    control: &Arc<Control>,
    transport: &Arc<Transport>,
) -> Arc<Reporter> {
    Reporter::start(Basics {
        node,
        boot,
        config: control.clone(),
        peers: transport.clone(),
        folder,
        node_file: config.for_strangers(),
    })
}

/// Who answers what other nodes say and ask.
fn handlers(
    (config, data): (&NodeConfig, &DataDir),
    (control, engine): (&Arc<Control>, &Arc<Engine>),
    log: &logging::Opened,
    (reporter, certificates): (&Arc<Reporter>, &Arc<Keeper>),
) -> Handlers {
    let (word, votes) = (Arc::clone(engine), Arc::clone(control));
    let mut services: Vec<(Service, Arc<dyn PeerService>)> =
        vec![(Service::Control, control.clone()), (Service::Shards, engine.peer_service())];
    services.push((Service::Certificates, Arc::new(certificates::Answers(Arc::clone(certificates)))));
    services.push((Service::Log, log.service()));
    services.push((Service::Report, Arc::new(Answers(Arc::clone(reporter)))));
    Handlers {
        events: engine.peer_events(),
        services,
        join: Arc::new(Admission {
            node_file: config.clone(),
            config: control.clone(),
            data: data.clone(),
            teller: teller(config, data, engine),
        }),
        on_guard_word: Arc::new(move |peer, ended| {
            word.guard_word(peer, ended);
            votes.process_ended(peer);
        }),
    }
}

/// The doors listen: from now on the service manager hears how this node does.
fn tell_manager(notifier: &Notifier, engine: &Arc<Engine>, store: Arc<store::Store>) {
    let (cluster, senses) = (engine.cluster(), engine.senses());
    notifier.ready(move || {
        let pulse = Pulse { idle_ms: senses.idle_ms(), disk_silent_ms: store.disk_silent_ms() };
        (pulse, notify::line(&cluster.status()))
    });
}

fn teller(config: &NodeConfig, data: &DataDir, engine: &Arc<Engine>) -> Teller {
    Teller {
        cluster: engine.cluster(),
        mail: data.mail(),
        https_port: config.ports.https,
        ca: data.ca(),
        service_certificate: config
            .tls
            .as_ref()
            .map_or_else(|| data.service_certificate(), |own| own.certificate.clone()),
    }
}

/// The transport of this node, and the address book it follows.
pub(crate) fn open_transport(
    config: &NodeConfig,
    data: &DataDir,
    identity: &Identity,
    boot: Boot,
) -> anyhow::Result<(Arc<Transport>, watch::Sender<Members>)> {
    let mut known = Members::new();
    for (id, address) in &identity.peers {
        known.entry(NodeId(*id)).or_default().push(address.clone());
    }
    let (members, members_seen) = watch::channel(known);
    let transport = TransportConfig {
        node: NodeId(identity.node),
        boot,
        cluster_id: identity.cluster_id.clone(),
        listen: init::peer_listeners(config),
        tls: node_tls(data)?,
        versions: Versions::CURRENT,
        program: crate::PROGRAM.to_owned(),
    };
    Ok((Transport::new(transport, members_seen)?, members))
}

fn timing(config: &NodeConfig) -> replica::Timing {
    let default = replica::Timing::default();
    replica::Timing {
        t1: config.timing.t1_ms.unwrap_or(default.t1),
        t2: config.timing.t2_ms.unwrap_or(default.t2),
        hold_down: config.timing.hold_down_ms.unwrap_or(default.hold_down),
        ..default
    }
}

/// First start of the first node: puts the cluster into its configuration, then forgets that it had to.
async fn found(control: &Arc<Control>, config: &NodeConfig, data: &DataDir, identity: Identity) -> anyhow::Result<()> {
    let Some(founding) = identity.found.clone() else { return Ok(()) };
    let named = (identity.cluster_id.as_str(), identity.cluster_name.as_str());
    for op in init::founding_ops(config, named, &founding.cluster_addresses) {
        let is_first = matches!(op, ConfigOp::Found { .. });
        let done = if is_first { control.found(op).await } else { control.propose(op).await };
        match done {
            // An earlier start ended between this and the note that it was done.
            Err(ConfigError::Conflict(_)) if is_first && control.current().cluster_id == identity.cluster_id => {}
            done => {
                done.context("found the cluster")?;
            }
        }
    }
    Identity { found: None, ..identity }.save(data)
}

/// Keeps the transport's address book and the guard's note as the configuration says.
pub(crate) async fn follow_members(
    config: Arc<Control>,
    members: watch::Sender<Members>,
    data: DataDir,
    node: NodeId,
    boot: Boot,
) {
    let (mut revision, mut quorum) = (config.watch(), config.quorum());
    let mut addresses: BTreeSet<ClusterAddress> = BTreeSet::new();
    loop {
        let state = config.current();
        let voters = quorum.borrow_and_update().voters.clone();
        let mut now: Members = state.members.values().map(|m| (m.id, m.peer_addresses())).collect();
        if !now.is_empty() {
            // Whoever is no member but still votes must be heard, or its vote cannot be taken away.
            let known = members.borrow().clone();
            now.extend(
                known.into_iter().filter(|(id, _)| voters.contains(id) && !now.contains_key(id)).collect::<Vec<_>>(),
            );
            members.send_if_modified(|old| {
                let changed = *old != now;
                old.clone_from(&now);
                changed
            });
        }
        let peers = members.borrow().iter().filter(|(id, _)| **id != node).map(|(id, a)| (id.0, a.clone())).collect();
        // One that was changed may still be here: to take it away where it is not is no fault.
        addresses.extend(&state.cluster_addresses);
        let cluster_addresses = addresses.iter().copied().collect();
        let note = GuardNote { pid: std::process::id(), node: node.0, boot: boot.0, peers, cluster_addresses };
        let written = serde_json::to_vec(&note)
            .map_err(anyhow::Error::from)
            .and_then(|bytes| files::write_private(&data.guard(), &bytes));
        if let Err(error) = written {
            tracing::error!(%error, "the guard's note could not be written: a takeover would wait for silence");
        }
        let goes_on = tokio::select! {
            changed = revision.changed() => changed.is_ok(),
            changed = quorum.wait_for(|status| status.voters != voters) => changed.is_ok(),
        };
        if !goes_on {
            return;
        }
    }
}

/// Tells the others when this node is to be found elsewhere than the configuration says: its node file was changed.
pub(crate) async fn follow_own_address(config: Arc<Control>, wanted: Member) {
    let mut revision = config.watch();
    loop {
        let state = config.current();
        let known = state.members.get(&wanted.id);
        if known.is_some_and(|m| m.peer_addresses() != wanted.peer_addresses() || m.address != wanted.address) {
            match config.propose(ConfigOp::Readdress { member: wanted.clone() }).await {
                Ok(_) => tracing::info!(paths = ?wanted.peer_addresses(), "the others know where this node is now"),
                Err(error) => tracing::debug!(%error, "the others do not know yet where this node is"),
            }
            tokio::time::sleep(VOTER_PAUSE).await;
        } else if revision.changed().await.is_err() {
            return;
        }
    }
}

/// The leader makes voters of admitted nodes, and takes the vote from those that are no members any more.
pub(crate) async fn follow_voters(config: Arc<Control>, node: NodeId) {
    let quorum = config.quorum();
    loop {
        tokio::time::sleep(VOTER_PAUSE).await;
        let status = quorum.borrow().clone();
        if status.leader != Some(node) || !status.quorum {
            continue;
        }
        match config.drop_stale_voters().await {
            Ok(false) => {}
            Ok(true) => tracing::info!("nodes that are no members any more do not vote now"),
            Err(error) => tracing::debug!(%error, "a node that is no member still votes"),
        }
        let state = config.current();
        // All of them: one that is not there must not keep another from its vote.
        for new in state.members.values().filter(|m| !status.voters.contains(&m.id)) {
            match config.add_voter(new.id, new.peer_address.clone()).await {
                Ok(()) => tracing::info!(node = new.id.0, "node votes on the configuration now"),
                Err(error) => tracing::debug!(node = new.id.0, %error, "node does not vote yet"),
            }
        }
    }
}

/// Evidence by TCP: refused on the peer's cluster port and mail port, and silence on the cluster address.
struct Probes {
    config: Arc<Control>,
    node: NodeId,
    smtp_port: u16,
    /// Whether a peer that is not heard is looked for over the client network.
    looks: bool,
}

impl Evidence for Probes {
    fn serves(&self, peer: NodeId) -> Answer<'_, bool> {
        Box::pin(async move {
            let state = self.config.current();
            let Some(member) = state.members.get(&peer).filter(|_| self.looks) else { return false };
            let shared = state.cluster_addresses.iter().map(|one| one.address.to_string());
            let all = shared.chain([member.address.clone()]);
            let ask = |address: String| async move {
                greets(&format!("{}:{}", bracketed(&address), self.smtp_port), SERVES_LIMIT, b"220").await
            };
            futures_util::future::join_all(all.map(ask)).await.contains(&true)
        })
    }
    fn process_gone(&self, peer: NodeId) -> Answer<'_, bool> {
        Box::pin(async move {
            let state = self.config.current();
            let Some(member) = state.members.get(&peer).filter(|m| m.id != self.node) else { return false };
            let mail = format!("{}:{}", bracketed(&member.address), self.smtp_port);
            let paths = member.peer_addresses();
            let (cluster, mail) = tokio::join!(transport::refuses_on_every_path(&paths), probe_reset(&mail));
            if !cluster || mail != Probe::Refused {
                return false;
            }
            let ask = |cluster: &ClusterAddress| {
                let place = format!("{}:{}", bracketed(&cluster.address.to_string()), self.smtp_port);
                async move { answers(&place).await }
            };
            !futures_util::future::join_all(state.cluster_addresses.iter().map(ask)).await.contains(&true)
        })
    }
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

/// How long a look at a peer over the client network waits.
const SERVES_LIMIT: Duration = Duration::from_millis(200);

/// Whether somebody greets on this SMTP port within 100 ms.
async fn answers(address: &str) -> bool {
    greets(address, Duration::from_millis(100), b"").await
}

/// Whether somebody greets on this SMTP port within this time, with a greeting that begins so.
async fn greets(address: &str, limit: Duration, with: &[u8]) -> bool {
    let greeted = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        let mut bytes = [0u8; 3];
        let wanted = bytes.get_mut(..with.len().max(1))?;
        tokio::io::AsyncReadExt::read_exact(&mut stream, wanted).await.ok()?;
        wanted.starts_with(with).then_some(())
    };
    matches!(tokio::time::timeout(limit, greeted).await, Ok(Some(())))
}

/// Tells the CLI where the API is, and everybody our process id.
fn write_notes(config: &NodeConfig, data: &DataDir) -> anyhow::Result<()> {
    let address = bracketed(&config.address.to_string());
    let endpoint = serde_json::json!({ "url": format!("https://{address}:{}", config.ports.https) });
    files::write_private(&data.endpoint(), endpoint.to_string().as_bytes())?;
    write_pid(data)
}

/// Tells everybody our process id.
pub(crate) fn write_pid(data: &DataDir) -> anyhow::Result<()> {
    files::write_private(&data.pid(), format!("{}\n", std::process::id()).as_bytes())
}

/// Why a node ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was asked to.
    Stop,
    /// It is no member any more.
    Left,
}

/// Returns when the process is asked to end, or this node is no member any more; the folder says so then.
pub(crate) async fn await_end(
    control: &Control,
    node: NodeId,
    data: &DataDir,
    identity: Identity,
) -> anyhow::Result<End> {
    tokio::select! {
        stopped = wait_for_stop() => {
            stopped?;
            tracing::info!("stopping");
            return Ok(End::Stop);
        }
        () = await_left(control, node) => {}
    }
    tracing::warn!("this node is no member of the cluster any more: it ends");
    Identity { left: true, found: None, ..identity }.save(data)?;
    // Whoever asked for it gets the answer.
    tokio::time::sleep(LEFT_PAUSE).await;
    Ok(End::Left)
}

/// Returns when this node neither is a member nor votes. Until then the others need its vote to take it away.
async fn await_left(control: &Control, node: NodeId) {
    let (mut revision, mut quorum) = (control.watch(), control.quorum());
    loop {
        let state = control.current();
        let voters = quorum.borrow_and_update().voters.clone();
        let member = state.cluster_id.is_empty() || state.members.contains_key(&node);
        if !member && !voters.is_empty() && !voters.contains(&node) {
            return;
        }
        let goes_on = tokio::select! {
            changed = revision.changed() => changed.is_ok(),
            changed = quorum.changed() => changed.is_ok(),
        };
        if !goes_on {
            return std::future::pending().await;
        }
    }
}

/// Returns when the process is asked to end.
pub(crate) async fn wait_for_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
