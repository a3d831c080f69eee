//! The address in a kernel, in a network namespace of its own: added as a lease, seen by a neighbour, checked, removed.
//! Needs root; without it each test says that it was skipped.

mod house;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use failover::{Bits, Device, Lease, Link, Provider};
use house::{House, awaited, run};

fn lease(address: &str, others: &[&str]) -> Lease {
    let ip = |text: &str| text.parse::<IpAddr>().expect(text);
    Lease {
        others: others.iter().map(|text| ip(text)).collect(),
        epoch: "1.0".into(),
        ..Lease::of(address.parse().expect(address), "takeover")
    }
}

fn device() -> Device {
    Device::open(Provider::Netlink(Link { interface: "here".into(), prefix: Bits::both(Some(24)) })).expect("a device")
}

fn is_here(address: &str) -> bool {
    run("ip address show dev here").contains(&format!(" {address}/24 "))
}

// One thread: the namespace is the thread's.
#[tokio::test]
async fn the_kernel_takes_an_address_away_that_nobody_renews() {
    let Some(_house) = House::build() else { return };
    let device = device();
    for address in ["10.77.0.10", "fd77::10"] {
        let lease = lease(address, &[]);
        device.acquire(&lease).await.expect("added");
        assert!(is_here(address), "{address}");
        let shown = run(&format!("ip address show dev here to {address}"));
        assert!(!shown.contains("tentative"), "answers at once: {shown}");
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(2_600) {
            device.acquire(&lease).await.expect("renewed");
            assert!(is_here(address), "{address} outlives its first lifetime");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let begin = Instant::now();
        awaited("it runs out", || !is_here(address)).await;
        assert!(begin.elapsed() < Duration::from_secs(4), "{address} stayed for {:?}", begin.elapsed());
        device.acquire(&lease).await.expect("added again");
        device.release(&lease).await.expect("removed");
        assert!(!is_here(address), "{address}");
        device.release(&lease).await.expect("removing what is not there is no fault");
    }
}

#[tokio::test]
async fn an_announcement_moves_a_neighbours_cache() {
    let Some(house) = House::build() else { return };
    let device = device();
    let shown = run("ip link show here");
    let mac = shown
        .split_whitespace()
        .skip_while(|word| *word != "link/ether")
        .nth(1)
        .expect("a hardware address")
        .to_owned();
    for (address, family) in [("10.77.0.10", "-4"), ("fd77::10", "-6")] {
        let lease = lease(address, &[]);
        // What the neighbour knows is wrong, as after a takeover.
        house.there(&format!("ip neighbour replace {address} lladdr 02:00:00:00:00:99 dev there nud stale"));
        device.acquire(&lease).await.expect("added");
        awaited("the neighbour hears of it", || {
            // Some kernels lock an entry for a second.
            futures_block(device.announce(&lease));
            let entry = house.there(&format!("ip {family} neighbour show {address}"));
            entry.contains(&mac)
        })
        .await;
    }
}

/// The announcement is one write, ready at the first poll.
fn futures_block(work: impl Future<Output = Result<(), String>>) {
    let waker = std::task::Waker::noop();
    let mut work = std::pin::pin!(work);
    match work.as_mut().poll(&mut std::task::Context::from_waker(waker)) {
        std::task::Poll::Ready(done) => done.expect("announced"),
        std::task::Poll::Pending => panic!("an announcement waits"),
    }
}

#[tokio::test]
async fn a_stranger_with_the_address_is_found_and_a_node_is_none() {
    let Some(house) = House::build() else { return };
    let device = device();
    for (address, other) in [("10.77.0.10", "10.77.0.2"), ("fd77::10", "fd77::2")] {
        let holder = Some(other.parse().expect(other));
        let found = device.check(&lease(address, &[other])).await.expect("asked");
        assert!(!found.node && found.strangers(holder).is_empty() && found.strangers(None).is_empty(), "nobody has it");
        let bits = if address.contains(':') { 64 } else { 24 };
        let nodad = if bits == 64 { " nodad" } else { "" };
        house.there(&format!("ip address add {address}/{bits} dev there{nodad}"));
        let found = device.check(&lease(address, &[])).await.expect("asked");
        assert_eq!(found.strangers(None).len(), 1, "a stranger");
        let found = device.check(&lease(address, &[other])).await.expect("asked");
        assert!(found.node && found.strangers(holder).is_empty() && found.strangers(None).is_empty(), "{found:?}");
    }
}

#[tokio::test]
async fn what_is_missing_is_said() {
    let Some(_house) = House::build() else { return };
    let device = Device::open(Provider::Netlink(Link { interface: "nowhere".into(), prefix: Bits::default() }))
        .expect("a device");
    let lease = lease("10.77.0.10", &[]);
    let checked = device.check(&lease).await.map(drop);
    for said in [device.acquire(&lease).await, device.announce(&lease).await, checked] {
        assert!(said.expect_err("no interface").contains("nowhere"));
    }
}
