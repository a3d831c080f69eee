//! The task that keeps the address, with hooks that write down that they ran, and in a kernel.

mod house;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use failover::{Bits, Device, Hooks, Keeper, KeeperConfig, Link, Provider};
use house::{House, awaited, run};
use ports::Answer;
use ports::cluster::{BranchStatus, Cluster, ClusterStatus, Departure, MembershipError, Others, Rescue, Switchover};
use ports::config::Config as _;
use ports::journal::ClusterEvent;
use ports::senses::Senses;
use testkit::fake_config::FakeConfig;
use tokio::sync::watch;
use topology::{ConfigOp, Member};
use vocab::{NodeId, SubmitError};

/// How long a hook may take to have run.
const LIMIT: Duration = Duration::from_secs(20);

/// Says when to hold, and who does; nothing else is asked.
struct Orders(watch::Sender<bool>, Option<u32>);

impl Cluster for Orders {
    fn status(&self) -> ClusterStatus {
        ClusterStatus { epoch: "1.0".into(), address_holder: self.1, ..ClusterStatus::default() }
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

/// Is told of faults.
#[derive(Default)]
struct Well(watch::Sender<Option<String>>);

impl Senses for Well {
    fn address_fault(&self, fault: Option<String>) {
        self.0.send_replace(fault);
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
    let (orders, kept) = (Arc::new(Orders(watch::Sender::new(true), None)), watch::Sender::default());
    let well = Arc::<Well>::default();
    let mut keeps = kept.subscribe();
    let keeper = KeeperConfig {
        node: NodeId(1),
        cluster: orders.clone(),
        config: config.clone(),
        senses: well.clone(),
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
    assert_eq!(*well.0.borrow(), None);
}

#[tokio::test]
async fn true_once_more_is_an_order_to_claim_the_address_anew() {
    let folder = tempfile::tempdir().expect("folder");
    let hooks = hooks(folder.path(), "");
    let config = FakeConfig::founded();
    config.set_cluster_address(Some("192.0.2.10".into()));
    let orders = Arc::new(Orders(watch::Sender::new(false), None));
    let keeper = KeeperConfig {
        node: NodeId(1),
        cluster: orders.clone(),
        config,
        senses: Arc::<Well>::default(),
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

// One thread: the namespace is the thread's.
#[tokio::test]
async fn ha_09_a_secondary_tells_a_stranger_from_the_primary_and_takes_over_all_the_same() {
    const ADDRESS: &str = "10.77.0.10";
    let Some(house) = House::build() else { return };
    let config = FakeConfig::founded();
    let member = Member {
        id: NodeId(0),
        name: "n2".into(),
        peer_address: "10.77.0.2:6420".into(),
        address: "10.77.0.2".into(),
        data: true,
        paths: Vec::new(),
    };
    let hash = "0".repeat(64);
    config.propose(ConfigOp::AddToken { hash: hash.clone(), expires: 9 }).await.expect("a token");
    let admitted = config.propose(ConfigOp::Admit { token_hash: hash, now: 1, member }).await.expect("admitted");
    config.set_cluster_address(Some(ADDRESS.into()));
    // The primary has it, and a stranger on the same LAN: each interface answers for its own addresses only.
    house.there("sysctl -qw net.ipv4.conf.all.arp_ignore=1");
    house.there(&format!("ip address add {ADDRESS}/24 dev there"));
    house.there("ip link add stranger link there address 02:00:00:00:00:99 type macvlan mode bridge");
    house.there(&format!("ip address add {ADDRESS}/32 dev stranger"));
    house.there("ip link set stranger up");
    let (orders, well) =
        (Arc::new(Orders(watch::Sender::new(false), admitted.node.map(|id| id.0))), Arc::<Well>::default());
    let keeper = KeeperConfig {
        node: NodeId(1),
        cluster: orders.clone(),
        config,
        senses: well.clone(),
        journal: None,
        kept: watch::Sender::default(),
    };
    let link = Link { interface: "here".into(), prefix: Bits::both(Some(24)) };
    let keeper = Keeper::start(keeper, Device::open(Provider::Netlink(link)).expect("a device"));
    let told = || well.0.borrow().clone();
    awaited("the stranger is named", || told().is_some()).await;
    let fault = told().expect("told");
    assert!(fault.contains("02:00:00:00:00:99") && fault.contains("no node of this cluster"), "{fault}");
    // It takes over from a primary that was there by right; what was wrong before is said again when it has let go.
    let is_here = || run("ip address show dev here").contains(&format!(" {ADDRESS}/24 "));
    orders.0.send_replace(true);
    awaited("it takes over", is_here).await;
    orders.0.send_replace(false);
    awaited("it lets go", || !is_here()).await;
    awaited("the stranger is named again", || told().is_some()).await;
    house.there("ip link del stranger");
    awaited("the primary alone is no stranger", || told().is_none()).await;
    keeper.stop().await;
}
