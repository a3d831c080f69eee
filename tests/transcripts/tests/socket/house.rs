//! A front-end on loopback over ports in memory, with the people the transcripts' heads name.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use frontend::config::{FrontendConfig, Limits, ServicePorts};
use frontend::tls::TlsFiles;
use frontend::{
    AddressCheck, AddressChecks, Administration, CertificateOffice, Checkpoints, JoinTokens, Ports, RotationOrder,
    TokenPlan,
};
use mailbox::op::{AccountOp, Change, Outcome};
use ports::Answer;
use ports::accounts::Accounts;
use ports::cluster::{BranchStatus, Cluster, ClusterStatus, Departure, MembershipError, Others, Rescue};
use ports::config::ConfigError;
use ports::directory::{AddressClass, Directory, Identity, Login, Target};
use ports::intake::{Delivery, Intake};
use ports::outbox::Outbox;
use queue::op::{Hold, QueueItem, QueueOp, QueueOutcome};
use testkit::fake_accounts::FakeAccounts;
use testkit::fake_config::FakeConfig;
use testkit::fake_streams::FakeStreams;
use tokio::sync::{broadcast, watch};
use vocab::error::NO_SPACE;
use vocab::{AccountId, Address, Boot, CommandId, ForwardPath, LogRecord, NodeId, Rows, SubmitError, Timestamp};

/// Who may log in: name, account and password.
pub type Logins = &'static [(&'static str, AccountId, &'static str)];

/// Ports in memory. Command ids are numbered from 1-1-1, as the transcripts expect.
pub struct House {
    pub accounts: FakeAccounts,
    pub deliveries: Mutex<Vec<Delivery>>,
    logins: Logins,
    commands: Mutex<u64>,
    serving: watch::Sender<bool>,
    holds_address: watch::Sender<bool>,
}

impl House {
    /// Everybody has an empty INBOX.
    pub async fn new(logins: Logins) -> Arc<Self> {
        let house = Self {
            accounts: FakeAccounts::default(),
            deliveries: Mutex::default(),
            logins,
            commands: Mutex::default(),
            serving: watch::Sender::new(true),
            holds_address: watch::Sender::new(false),
        };
        for (_, account, _) in logins {
            let id = house.accounts.command_id();
            house.accounts.submit(*account, id, AccountOp::Init).await.expect("account");
        }
        Arc::new(house)
    }

    pub fn ports(self: &Arc<Self>) -> Ports {
        Ports {
            accounts: self.clone(),
            blobs: Arc::new(Bodies(self.clone())),
            config: FakeConfig::founded(),
            directory: self.clone(),
            intake: self.clone(),
            outbox: self.clone(),
            cluster: self.clone(),
            streams: FakeStreams::new(NodeId(1)),
            log: Arc::new(ports::log::NoLog),
            logs: Arc::new(ports::log::NoLog),
        }
    }

    pub fn administration() -> Administration {
        Administration {
            token: "0123456789abcdef".to_owned(),
            metrics: Arc::new(String::new),
            join_tokens: Arc::new(NoTokens),
            checkpoints: Arc::new(NoTokens),
            addresses: Arc::new(NoTokens),
            alerts: Arc::new(Default::default),
            reports: Arc::new(NoTokens),
            certificates: Arc::new(NoTokens),
        }
    }

    fn account(&self, local: &str) -> Option<AccountId> {
        self.logins.iter().find(|(name, ..)| *name == local).map(|(_, account, _)| *account)
    }

    fn class(&self, path: &ForwardPath) -> AddressClass {
        let anna = Target::Local(AccountId(16));
        let ForwardPath::Address(address) = path else { return AddressClass::Own(vec![anna]) };
        if address.domain.as_str() != "example.org" {
            return AddressClass::NotOurs;
        }
        let carol = || Address::parse("carol@elsewhere.example").expect("valid");
        match address.local.folded().as_str() {
            "team" => AddressClass::Own(vec![anna, Target::Local(AccountId(17))]),
            "away" => AddressClass::Own(vec![Target::Remote(carol())]),
            "postmaster" => AddressClass::Own(vec![anna]),
            "gone" => AddressClass::Disabled,
            local => match self.account(local) {
                Some(account) => AddressClass::Own(vec![Target::Local(account)]),
                None => AddressClass::NoSuchUser,
            },
        }
    }
}

impl Accounts for House {
    fn command_id(&self) -> CommandId {
        let mut commands = self.commands.lock().expect("lock");
        *commands += 1;
        CommandId { origin: NodeId(1), boot: Boot(1), counter: *commands, recipient: 0 }
    }
    fn submit(&self, account: AccountId, id: CommandId, op: AccountOp) -> Answer<'_, Result<Outcome, SubmitError>> {
        self.accounts.submit(account, id, op)
    }
    fn snapshot(&self, account: AccountId) -> Answer<'_, Result<Arc<dyn Rows>, SubmitError>> {
        self.accounts.snapshot(account)
    }
    fn watch(&self, account: AccountId) -> broadcast::Receiver<Change> {
        self.accounts.watch(account)
    }
}

struct Bodies(Arc<House>);

impl ports::blobs::Blobs for Bodies {
    fn put(&self, body: Bytes) -> Answer<'_, Result<vocab::BlobHash, SubmitError>> {
        self.0.accounts.put(body)
    }
    fn get(&self, hash: vocab::BlobHash, from: u64, to: u64) -> Answer<'_, Result<Bytes, SubmitError>> {
        self.0.accounts.get(hash, from, to)
    }
}

impl Intake for House {
    fn accept(&self, delivery: Delivery) -> Answer<'_, Result<(), SubmitError>> {
        let result = match delivery.reverse_path.to_string().as_str() {
            "<later@elsewhere.example>" => Err(SubmitError::Unavailable("told so by the test")),
            "<full@elsewhere.example>" => Err(SubmitError::Unavailable(NO_SPACE)),
            _ => {
                self.deliveries.lock().expect("lock").push(delivery);
                Ok(())
            }
        };
        Box::pin(async move { result })
    }
}

impl Directory for House {
    fn classify<'a>(&'a self, path: &'a ForwardPath) -> Answer<'a, Result<AddressClass, SubmitError>> {
        Box::pin(async move { Ok(self.class(path)) })
    }
    fn authenticate<'a>(&'a self, login: &'a str, password: &'a str) -> Answer<'a, Result<Login, SubmitError>> {
        Box::pin(async move {
            if login == "later" || password == "later" {
                return Err(SubmitError::Unavailable("told so by the test"));
            }
            let known = self.logins.iter().find(|(name, _, right)| *name == login && *right == password);
            Ok(known.map_or(Login::Refused, |(name, account, _)| {
                let address = Address::parse(&format!("{name}@example.org")).expect("valid");
                Login::Accepted(Identity { account: *account, address })
            }))
        })
    }
    fn may_send_as(&self, identity: &Identity, address: &Address) -> bool {
        identity.address == *address
    }
    fn hash_password<'a>(&'a self, _: &'a str) -> Answer<'a, Bytes> {
        Box::pin(async { Bytes::new() })
    }
}

impl Outbox for House {
    fn is_worker(&self) -> bool {
        false
    }
    fn due(&self, _: Timestamp, _: usize) -> Answer<'_, Result<(Vec<QueueItem>, Option<Timestamp>), SubmitError>> {
        Box::pin(async { Ok((Vec::new(), None)) })
    }
    fn list(&self, _: usize) -> Answer<'_, Result<Vec<QueueItem>, SubmitError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn accepts(&self, _: usize) -> Answer<'_, Result<Vec<queue::op::AcceptRecord>, SubmitError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn submit(&self, _: QueueOp, _: Vec<LogRecord>) -> Answer<'_, Result<QueueOutcome, SubmitError>> {
        Box::pin(async { Ok(QueueOutcome::Done) })
    }
    fn hold(&self) -> Option<Hold> {
        None
    }
    fn release(&self) -> bool {
        false
    }
    fn changed(&self) -> Answer<'_, ()> {
        Box::pin(std::future::pending())
    }
}

impl Cluster for House {
    fn partners(&self) -> Vec<NodeId> {
        Vec::new()
    }
    fn events(&self, _: usize) -> Vec<ports::journal::ClusterEvent> {
        Vec::new()
    }
    fn status(&self) -> ClusterStatus {
        ClusterStatus::default()
    }
    fn node(&self) -> NodeId {
        NodeId(1)
    }
    fn serving(&self) -> watch::Receiver<bool> {
        self.serving.subscribe()
    }
    fn home(&self) -> Option<NodeId> {
        None
    }
    fn holds_address(&self) -> watch::Receiver<bool> {
        self.holds_address.subscribe()
    }
    fn branches(&self) -> Answer<'_, Result<Vec<BranchStatus>, SubmitError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn delete_branch(&self, _id: String) -> Answer<'_, Result<bool, SubmitError>> {
        Box::pin(async { Ok(false) })
    }
    fn start_alone(&self) -> Answer<'_, Result<(), SubmitError>> {
        Box::pin(async { Ok(()) })
    }
    fn switch_over(&self, _: Option<NodeId>, _: bool) -> Answer<'_, Result<ports::cluster::Switchover, SubmitError>> {
        Box::pin(async { Err(SubmitError::Unavailable("one node only")) })
    }
    fn leave(&self, _: bool) -> Answer<'_, Result<Departure, MembershipError>> {
        Box::pin(async { Err(MembershipError::Refused("one node only".to_owned())) })
    }
    fn remove(&self, _: NodeId, _: bool) -> Answer<'_, Result<Departure, MembershipError>> {
        Box::pin(async { Err(MembershipError::Refused("one node only".to_owned())) })
    }
    fn rescue(&self, _: Others, _: bool) -> Answer<'_, Result<Rescue, MembershipError>> {
        Box::pin(async { Err(MembershipError::Refused("one node only".to_owned())) })
    }
}

struct NoTokens;

impl JoinTokens for NoTokens {
    fn create(&self) -> Answer<'_, Result<String, ConfigError>> {
        Box::pin(async { Err(ConfigError::Locked("no tokens here".to_owned())) })
    }
    fn plan(&self) -> TokenPlan {
        TokenPlan::default()
    }
}

impl frontend::Reports for NoTokens {
    fn servers(&self) -> Answer<'_, serde_json::Value> {
        Box::pin(async { serde_json::Value::Null })
    }
    fn support_bundle(&self) -> Answer<'_, Result<Bytes, String>> {
        Box::pin(async { Err("none here".to_owned()) })
    }
}

impl AddressChecks for NoTokens {
    fn examine(&self, _: topology::ClusterAddress, _: bool) -> Answer<'_, Vec<AddressCheck>> {
        Box::pin(async { Vec::new() })
    }
    fn certificate_follows(&self) -> bool {
        false
    }
}

impl CertificateOffice for NoTokens {
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

impl Checkpoints for NoTokens {
    fn create(&self, _: std::path::PathBuf) -> Answer<'_, Result<(), String>> {
        Box::pin(async { Err("no checkpoints here".to_owned()) })
    }
}

/// Settings of a front-end on free loopback ports, with a fresh certificate in `folder`.
pub fn settings(folder: &Path) -> FrontendConfig {
    let tls = TlsFiles { certificate: folder.join("service.pem"), key: folder.join("service.key") };
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
    std::fs::write(&tls.certificate, made.cert.pem()).expect("write");
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).expect("write");
    FrontendConfig {
        hostname: "mail.example.org".into(),
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        cluster_ports: frontend::config::ClusterPorts::WhileHeld,
        ports: ServicePorts::default(),
        tls,
        allow_plaintext: false,
        message_size_max: 64 * 1024 * 1024,
        limits: Limits::default(),
        proxy_networks: Vec::new(),
    }
}
