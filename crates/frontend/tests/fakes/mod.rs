//! Ports in memory and a certificate for loopback.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use frontend::config::{FrontendConfig, Limits, ServicePorts};
use frontend::tls::TlsFiles;
use frontend::{
    AddressCheck, AddressChecks, Administration, CertificateOffice, Checkpoints, JoinTokens, Ports, RotationOrder,
    TokenPlan,
};
use ports::Answer;
use ports::cluster::{
    BranchStatus, Cluster, ClusterStatus, Departure, MembershipError, NodeStatus, Others, Rescue, Switchover,
};
use ports::config::ConfigError;
use ports::directory::{AddressClass, Directory, Identity, Login};
use ports::intake::{Delivery, Intake};
use ports::outbox::Outbox;
use queue::op::{QueueItem, QueueOp, QueueOutcome};
use testkit::fake_accounts::FakeAccounts;
use testkit::fake_config::FakeConfig;
use testkit::fake_streams::FakeStreams;
use tokio::sync::watch;
use vocab::{AccountId, Address, BlobHash, ForwardPath, LogRecord, NodeId, SubmitError, Timestamp};

/// Token of the administrator.
pub const TOKEN: &str = "0123456789abcdef";

pub struct FakeCluster {
    pub serving: watch::Sender<bool>,
    pub holds: watch::Sender<bool>,
    pub alone: Mutex<bool>,
    pub switched: Mutex<Option<NodeId>>,
    pub done: Mutex<Vec<String>>,
    pub home: Mutex<Option<NodeId>>,
    pub branches: Mutex<Vec<BranchStatus>>,
}

impl FakeCluster {
    fn note(&self, dry_run: bool, what: String) {
        if !dry_run {
            self.done.lock().expect("lock").push(what);
        }
    }
}

impl Cluster for FakeCluster {
    fn partners(&self) -> Vec<NodeId> {
        Vec::new()
    }
    fn events(&self, limit: usize) -> Vec<ports::journal::ClusterEvent> {
        let event = |at_ms: u64| ports::journal::ClusterEvent {
            at_ms,
            node: 1,
            kind: ports::journal::EventKind::Decision,
            text: format!("decision {at_ms}"),
        };
        (1..=3).map(event).skip(3usize.saturating_sub(limit)).collect()
    }
    fn status(&self) -> ClusterStatus {
        let node = |id| NodeStatus { id, ..NodeStatus::default() };
        let nodes = vec![node(1), node(2), node(3)];
        ClusterStatus { cluster: "test".into(), node: 1, mode: "joined".into(), nodes, ..ClusterStatus::default() }
    }
    fn node(&self) -> NodeId {
        NodeId(1)
    }
    fn serving(&self) -> watch::Receiver<bool> {
        self.serving.subscribe()
    }
    fn home(&self) -> Option<NodeId> {
        *self.home.lock().expect("lock")
    }
    fn holds_address(&self) -> watch::Receiver<bool> {
        self.holds.subscribe()
    }
    fn branches(&self) -> Answer<'_, Result<Vec<BranchStatus>, SubmitError>> {
        Box::pin(async { Ok(self.branches.lock().expect("lock").clone()) })
    }
    fn delete_branch(&self, id: String) -> Answer<'_, Result<bool, SubmitError>> {
        Box::pin(async move {
            let mut branches = self.branches.lock().expect("lock");
            let before = branches.len();
            branches.retain(|branch| branch.id != id);
            Ok(branches.len() < before)
        })
    }
    fn start_alone(&self) -> Answer<'_, Result<(), SubmitError>> {
        *self.alone.lock().expect("lock") = true;
        Box::pin(async { Ok(()) })
    }
    fn switch_over(&self, to: Option<NodeId>, dry_run: bool) -> Answer<'_, Result<Switchover, SubmitError>> {
        let to = to.unwrap_or(NodeId(2));
        let known = to.0 <= 2;
        if known && !dry_run {
            *self.switched.lock().expect("lock") = Some(to);
        }
        let refused = SubmitError::Unavailable("that node is not in sync, not linked or short of space");
        Box::pin(async move { if known { Ok(Switchover { from: 1, to: to.0 }) } else { Err(refused) } })
    }
    fn leave(&self, dry_run: bool) -> Answer<'_, Result<Departure, MembershipError>> {
        self.note(dry_run, "leave".to_owned());
        Box::pin(async { Ok(Departure { node: 1, home: 2 }) })
    }
    fn remove(&self, node: NodeId, dry_run: bool) -> Answer<'_, Result<Departure, MembershipError>> {
        self.note(dry_run, format!("remove {}", node.0));
        let heard = MembershipError::Refused("that node is heard".to_owned());
        Box::pin(async move { if node.0 == 3 { Err(heard) } else { Ok(Departure { node: node.0, home: 1 }) } })
    }
    fn rescue(&self, others: Others, dry_run: bool) -> Answer<'_, Result<Rescue, MembershipError>> {
        self.note(dry_run, format!("rescue {others:?}"));
        Box::pin(async { Ok(Rescue { node: 1, without: vec![2] }) })
    }
}

pub struct Nothing;

impl Intake for Nothing {
    fn accept(&self, _: Delivery) -> Answer<'_, Result<(), SubmitError>> {
        Box::pin(async { Ok(()) })
    }
}

/// Nobody may log in, but for `u1` with the password `secret`.
impl Directory for Nothing {
    fn classify<'a>(&'a self, _: &'a ForwardPath) -> Answer<'a, Result<AddressClass, SubmitError>> {
        Box::pin(async { Ok(AddressClass::NoSuchUser) })
    }
    fn authenticate<'a>(&'a self, login: &'a str, password: &'a str) -> Answer<'a, Result<Login, SubmitError>> {
        let address = Address::parse("u1@example.org").expect("address");
        let identity = Identity { account: AccountId(20), address };
        let right = login == "u1" && password == "secret";
        Box::pin(async move { Ok(if right { Login::Accepted(identity) } else { Login::Refused }) })
    }
    fn may_send_as(&self, _: &Identity, _: &Address) -> bool {
        false
    }
    fn hash_password<'a>(&'a self, password: &'a str) -> Answer<'a, Bytes> {
        let hash = blake3::hash(password.as_bytes()).to_hex().to_string();
        Box::pin(async move { Bytes::from(hash) })
    }
}

impl Outbox for Nothing {
    fn hold(&self) -> Option<queue::op::Hold> {
        None
    }
    fn release(&self) -> bool {
        false
    }
    fn is_worker(&self) -> bool {
        true
    }
    fn due(&self, _: Timestamp, _: usize) -> Answer<'_, Result<(Vec<QueueItem>, Option<Timestamp>), SubmitError>> {
        Box::pin(async { Ok((Vec::new(), None)) })
    }
    fn list(&self, _: usize) -> Answer<'_, Result<Vec<QueueItem>, SubmitError>> {
        let item = QueueItem {
            id: vocab::CommandId { origin: NodeId(1), counter: 7, recipient: 1, ..vocab::CommandId::default() },
            reverse_path: vocab::ReversePath::Null,
            recipient: Address::parse("x@elsewhere.example").expect("address"),
            original_recipient: None,
            blob: BlobHash::default(),
            size: 5,
            smtputf8: false,
            eight_bit: false,
            accepted_at: Timestamp(1_700_000_000_000),
            attempts: 2,
            due: Timestamp(1_700_000_060_000),
            attempt: None,
            last_status: None,
            owner: None,
        };
        Box::pin(async { Ok(vec![item]) })
    }
    fn accepts(&self, _: usize) -> Answer<'_, Result<Vec<queue::op::AcceptRecord>, SubmitError>> {
        let record = queue::AcceptRecord {
            accept: vocab::CommandId { origin: NodeId(1), counter: 9, ..vocab::CommandId::default() },
            reverse_path: vocab::ReversePath::Null,
            recipients: vec![queue::LocalRecipient { number: 1, account: AccountId(77), prefix: Bytes::new() }],
            blob: BlobHash::default(),
            size: 6,
            facts: Bytes::new(),
            smtputf8: false,
            eight_bit: false,
            accepted_at: Timestamp(1_700_000_000_000),
            owner: Some(NodeId(1)),
        };
        Box::pin(async { Ok(vec![record]) })
    }
    fn submit(&self, _: QueueOp, _: Vec<LogRecord>) -> Answer<'_, Result<QueueOutcome, SubmitError>> {
        Box::pin(async { Ok(QueueOutcome::Done) })
    }
    fn changed(&self) -> Answer<'_, ()> {
        Box::pin(std::future::pending())
    }
}

impl JoinTokens for Nothing {
    fn create(&self) -> Answer<'_, Result<String, ConfigError>> {
        Box::pin(async { Ok("one-use".to_owned()) })
    }
    fn plan(&self) -> TokenPlan {
        TokenPlan {
            valid_seconds: 3600,
            addresses: vec!["192.0.2.1:6420".to_owned()],
            next_node: 2,
            room_mail: 2,
            room_witness: 1,
            unused: 0,
            settings_locked: None,
        }
    }
}

/// Somebody has 192.0.2.99.
impl frontend::Reports for Nothing {
    fn servers(&self) -> Answer<'_, serde_json::Value> {
        Box::pin(async { serde_json::json!({ "servers": [] }) })
    }
    fn support_bundle(&self) -> Answer<'_, Result<bytes::Bytes, String>> {
        Box::pin(async { Ok(bytes::Bytes::from_static(b"a bundle")) })
    }
}

impl AddressChecks for Nothing {
    fn examine(&self, address: topology::ClusterAddress, _: bool) -> Answer<'_, Vec<AddressCheck>> {
        let refused = address.address.to_string() == "192.0.2.99";
        let found = if refused { "02:00:00:00:00:09 has it" } else { "nobody has it" };
        let advice = if refused { "take another one" } else { "" };
        let check = AddressCheck { name: "cluster-address", refused, found: found.into(), advice: advice.into() };
        Box::pin(async move { vec![check] })
    }
    fn certificate_follows(&self) -> bool {
        true
    }
}

impl CertificateOffice for Nothing {
    fn list(&self) -> Answer<'_, serde_json::Value> {
        Box::pin(async { serde_json::Value::Null })
    }
    fn renew(&self, _: Option<u32>) -> Answer<'_, Result<serde_json::Value, ConfigError>> {
        Box::pin(async { Err(ConfigError::Locked("no certificates here".to_owned())) })
    }
    fn rotate(&self, _: RotationOrder, _: bool) -> Answer<'_, Result<serde_json::Value, ConfigError>> {
        Box::pin(async { Err(ConfigError::Locked("no certificates here".to_owned())) })
    }
}

impl Checkpoints for Nothing {
    fn create(&self, folder: std::path::PathBuf) -> Answer<'_, Result<(), String>> {
        Box::pin(async move { if folder.ends_with("taken") { Err("it exists already".to_owned()) } else { Ok(()) } })
    }
}

/// A house of fakes.
pub struct House {
    pub config: Arc<FakeConfig>,
    pub accounts: Arc<FakeAccounts>,
    pub cluster: Arc<FakeCluster>,
    pub streams: Arc<FakeStreams>,
}

impl House {
    pub fn new() -> Self {
        let cluster = FakeCluster {
            serving: watch::Sender::new(true),
            holds: watch::Sender::new(false),
            alone: Mutex::new(false),
            switched: Mutex::default(),
            done: Mutex::default(),
            home: Mutex::new(None),
            branches: Mutex::default(),
        };
        Self {
            config: FakeConfig::founded(),
            accounts: Arc::default(),
            cluster: Arc::new(cluster),
            streams: FakeStreams::new(NodeId(1)),
        }
    }
    pub fn ports(&self) -> Ports {
        let nothing = Arc::new(Nothing);
        Ports {
            accounts: self.accounts.clone(),
            blobs: self.accounts.clone(),
            config: self.config.clone(),
            directory: nothing.clone(),
            intake: nothing.clone(),
            outbox: nothing,
            cluster: self.cluster.clone(),
            streams: self.streams.clone(),
            log: Arc::new(ports::log::NoLog),
            logs: Arc::new(ports::log::NoLog),
        }
    }
    pub fn administration(&self) -> Administration {
        Administration {
            token: TOKEN.to_owned(),
            metrics: Arc::new(|| "twinpost_test 1\n".to_owned()),
            join_tokens: Arc::new(Nothing),
            checkpoints: Arc::new(Nothing),
            addresses: Arc::new(Nothing),
            alerts: Arc::new(|| serde_json::json!({ "alerts": [] })),
            reports: Arc::new(Nothing),
            certificates: Arc::new(Nothing),
        }
    }
}

/// Settings with a fresh certificate in `folder`, any free ports on 127.0.0.1.
pub fn settings(folder: &Path) -> FrontendConfig {
    let tls = TlsFiles { certificate: folder.join("service.pem"), key: folder.join("service.key") };
    write_certificate(&tls);
    FrontendConfig {
        hostname: "mail.example.org".into(),
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        cluster_ports: frontend::config::ClusterPorts::WhileHeld,
        ports: ServicePorts::default(),
        tls,
        allow_plaintext: true,
        message_size_max: 1024 * 1024,
        limits: Limits::default(),
        proxy_networks: Vec::new(),
    }
}

/// Writes a new self-signed certificate.
pub fn write_certificate(files: &TlsFiles) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
    std::fs::write(&files.certificate, made.cert.pem()).expect("write");
    std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("write");
}
