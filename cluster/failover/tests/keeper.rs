//! The task that keeps the address, with hooks that write down that they ran.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use failover::{Bits, Device, Hooks, Keeper, KeeperConfig, Provider};
use ports::Answer;
use ports::cluster::{BranchStatus, Cluster, ClusterStatus, Departure, MembershipError, Others, Rescue, Switchover};
use ports::config::Config as _;
use ports::journal::ClusterEvent;
use ports::senses::Senses;
use testkit::fake_config::FakeConfig;
use tokio::sync::watch;
use topology::ConfigOp;
use vocab::{NodeId, SubmitError};

/// How long a hook may take to have run.
const LIMIT: Duration = Duration::from_secs(20);

/// Says when to hold; nothing else is asked.
struct Orders(watch::Sender<bool>);

impl Cluster for Orders {
    fn status(&self) -> ClusterStatus {
        ClusterStatus { epoch: "1.0".into(), ..ClusterStatus::default() }
    }
    fn node(&self) -> NodeId {
        NodeId(1)
    }
    fn serving(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
    fn home(&self) -> Option<NodeId> {
        None
    }
    fn partners(&self) -> Vec<NodeId> {
        Vec::new()
    }
    fn events(&self, _: usize) -> Vec<ClusterEvent> {
        Vec::new()
    }
    fn holds_address(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
    fn branches(&self) -> Answer<'_, Result<Vec<BranchStatus>, SubmitError>> {
        unreachable!("a keeper does not ask")
    }
    fn delete_branch(&self, _: String) -> Answer<'_, Result<bool, SubmitError>> {
        unreachable!("a keeper does not ask")
    }
    fn start_alone(&self) -> Answer<'_, Result<(), SubmitError>> {
        unreachable!("a keeper does not ask")
    }
    fn switch_over(&self, _: Option<NodeId>, _: bool) -> Answer<'_, Result<Switchover, SubmitError>> {
        unreachable!("a keeper does not ask")
    }
    fn leave(&self, _: bool) -> Answer<'_, Result<Departure, MembershipError>> {
        unreachable!("a keeper does not ask")
    }
    fn remove(&self, _: NodeId, _: bool) -> Answer<'_, Result<Departure, MembershipError>> {
        unreachable!("a keeper does not ask")
    }
    fn rescue(&self, _: Others, _: bool) -> Answer<'_, Result<Rescue, MembershipError>> {
        unreachable!("a keeper does not ask")
    }
}

struct Well;

impl Senses for Well {
    fn address_fault(&self, fault: Option<String>) {
        assert_eq!(fault, None);
    }
    fn target(&self, _: u32, _: bool) {}
    fn idle_ms(&self) -> u64 {
        0
    }
    fn orders(&self) -> bool {
        true
    }
}

/// A hook that writes this line.
fn script(folder: &Path, name: &str, line: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\necho {line} >> {}\n", folder.join("done").display())).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("executable");
    path
}

async fn done(folder: &Path, wanted: &[&str]) {
    let begin = Instant::now();
    loop {
        let text = std::fs::read_to_string(folder.join("done")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        if lines == wanted {
            return;
        }
        assert!(begin.elapsed() < LIMIT, "{lines:?} and not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn hooks(folder: &Path, more: &str) -> Hooks {
    Hooks {
        acquire: script(folder, "acquire", &format!("acquire{more}")),
        release: script(folder, "release", &format!("release{more}")),
        announce: None,
        check: None,
        interface: None,
        prefix: Bits::default(),
        time_limit: LIMIT,
    }
}

#[tokio::test]
async fn ha_19_both_families_are_held_and_one_is_changed_beside_the_other() {
    let folder = tempfile::tempdir().expect("folder");
    let hooks = hooks(folder.path(), " $TWINPOST_ADDRESS/$TWINPOST_PREFIX $TWINPOST_REASON");
    let config = FakeConfig::founded();
    let change = async |all: &[&str]| {
        let addresses = all.iter().map(|text| text.parse().expect(text)).collect();
        config.propose(ConfigOp::SetAddresses { addresses }).await.expect("set");
    };
    change(&["192.0.2.10", "2001:db8::10/64"]).await;
    let (orders, kept) = (Arc::new(Orders(watch::Sender::new(true))), watch::Sender::default());
    let mut keeps = kept.subscribe();
    let keeper = KeeperConfig {
        node: NodeId(1),
        cluster: orders.clone(),
        config: config.clone(),
        senses: Arc::new(Well),
        journal: None,
        kept,
    };
    let keeper = Keeper::start(keeper, Device::open(Provider::Exec(hooks)).expect("a device"));
    let mut lines = vec!["acquire 192.0.2.10/32 takeover", "acquire 2001:db8::10/64 takeover"];
    done(folder.path(), &lines).await;
    change(&["192.0.2.20/24", "2001:db8::10/64"]).await;
    lines.extend(["acquire 192.0.2.20/24 takeover", "release 192.0.2.10/32 another address"]);
    done(folder.path(), &lines).await;
    let wanted = ["192.0.2.20", "2001:db8::10"].map(|text| text.parse().expect(text)).into();
    keeps.wait_for(|kept| *kept == wanted).await.expect("told");
    keeper.stop().await;
    lines.extend(["release 192.0.2.20/24 stop", "release 2001:db8::10/64 stop"]);
    done(folder.path(), &lines).await;
}

#[tokio::test]
async fn true_once_more_is_an_order_to_claim_the_address_anew() {
    let folder = tempfile::tempdir().expect("folder");
    let hooks = hooks(folder.path(), "");
    let config = FakeConfig::founded();
    config.set_cluster_address(Some("192.0.2.10".into()));
    let orders = Arc::new(Orders(watch::Sender::new(false)));
    let keeper = KeeperConfig {
        node: NodeId(1),
        cluster: orders.clone(),
        config,
        senses: Arc::new(Well),
        journal: None,
        kept: watch::Sender::default(),
    };
    let keeper = Keeper::start(keeper, Device::open(Provider::Exec(hooks)).expect("a device"));
    orders.0.send_replace(true);
    done(folder.path(), &["acquire"]).await;
    orders.0.send_replace(true);
    done(folder.path(), &["acquire", "acquire"]).await;
    orders.0.send_replace(false);
    done(folder.path(), &["acquire", "acquire", "release"]).await;
    keeper.stop().await;
}
