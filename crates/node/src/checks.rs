//! What must hold before a machine becomes a node, judged one by one (features HA-05 to HA-09). Facts in, findings out:
//! nothing here asks anybody; `examine.rs` gathers the facts.

use std::net::IpAddr;

use failover::OwnAddress;
use serde::Serialize;
use topology::ClusterAddress;
use vocab::limits::DISK_RESERVE_BYTES;

/// Clocks this far apart are warned of, and this far apart refused (ms).
pub(crate) const CLOCK_WARN_MS: u64 = 2_000;
pub(crate) const CLOCK_REFUSE_MS: u64 = 30_000;
/// Room beside a copy of the mail that is there: below a quarter of it is warned of.
const DISK_MARGIN_DIVISOR: u64 = 4;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but somebody should look at it.
    Warn,
    /// Nothing is done before it is put right.
    Refuse,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty when there is nothing to do.
    pub advice: String,
}

impl Finding {
    pub(crate) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), advice: String::new() }
    }
    pub(crate) fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warn, found: found.into(), advice: advice.into() }
    }
    pub(crate) fn refuse(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Refuse, found: found.into(), advice: advice.into() }
    }
    /// On one line each: verdict, name, what was found; then what to do.
    #[must_use]
    pub fn lines(&self) -> String {
        let word = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "WARN",
            Verdict::Refuse => "REFUSE",
        };
        let advice = if self.advice.is_empty() { String::new() } else { format!("\n         -> {}", self.advice) };
        format!("{word:<8} {:<16} {}{advice}", self.name, self.found)
    }
}

/// The worst of all.
#[must_use]
pub fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}

/// A program and what it speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Version (`1.4.2`).
    pub version: String,
    /// Messages between nodes, lowest and highest.
    pub protocol: (u32, u32),
    /// Stored rows, lowest and highest.
    pub rows: (u32, u32),
}

/// What versions have in common within a family: the first number, before 1.0 the first two.
fn family(version: &str) -> Vec<&str> {
    let numbers: Vec<&str> = version.split(['.', '-', '+']).collect();
    let count = if numbers.first() == Some(&"0") { 2 } else { 1 };
    numbers.into_iter().take(count).collect()
}

/// Programs of one family that understand each other.
#[must_use]
pub fn versions(own: &Program, home: &Program) -> Vec<Finding> {
    let install = format!("install version {} here", home.version);
    let said = format!("{} here, {} there", own.version, home.version);
    let program = if family(&own.version) != family(&home.version) {
        Finding::refuse("program", format!("{said}: not of one family"), &install)
    } else if own.version != home.version {
        Finding::warn("program", format!("{said}: of one family"), "bring both to one version soon")
    } else {
        Finding::ok("program", said)
    };
    let ranges = |own: (u32, u32), home: (u32, u32)| format!("{}-{} here, {}-{} there", own.0, own.1, home.0, home.1);
    let overlap = |own: (u32, u32), home: (u32, u32)| own.0 <= home.1 && home.0 <= own.1;
    let said = ranges(own.protocol, home.protocol);
    let protocol = match overlap(own.protocol, home.protocol) {
        true => Finding::ok("protocol", said),
        false => Finding::refuse("protocol", format!("{said}: none in common"), &install),
    };
    let said = ranges(own.rows, home.rows);
    // A node alone writes the newest format it knows, so the joiner must read that.
    let rows = match overlap(own.rows, home.rows) && own.rows.1 >= home.rows.1 {
        true => Finding::ok("row-format", said),
        false => Finding::refuse("row-format", format!("{said}: what is stored there cannot be read here"), &install),
    };
    vec![program, protocol, rows]
}

/// Two clocks, by one question (all Unix ms): asked and heard on this machine's, received and answered on the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The question went.
    pub asked: u64,
    /// It arrived.
    pub received: u64,
    /// The answer went.
    pub answered: u64,
    /// It arrived.
    pub heard: u64,
}

impl Clocks {
    /// How far the other clock is ahead of this one (ms, negative: behind), and how much of that may be the network.
    #[must_use]
    pub fn apart(&self) -> (i128, i128) {
        let of = |later: u64, earlier: u64| i128::from(later) - i128::from(earlier);
        let ahead = i128::midpoint(of(self.received, self.asked), of(self.answered, self.heard));
        let network = (of(self.heard, self.asked) - of(self.answered, self.received)).max(0);
        (ahead, network / 2)
    }
}

/// Clocks close together: they are in Received fields, in the ages of queue items and in the expiry of tokens.
#[must_use]
pub fn clock(clocks: Clocks) -> Finding {
    let (ahead, blur) = clocks.apart();
    // Only what cannot be the network counts.
    let surely = u64::try_from(ahead.abs() - blur).unwrap_or(0);
    let side = if ahead < 0 { "behind" } else { "ahead of" };
    let found = format!("the other clock is {} ms {side} this one (measured to {blur} ms)", ahead.abs());
    let advice = "set both clocks by NTP (timedatectl set-ntp true), then try again";
    match surely {
        CLOCK_REFUSE_MS.. => Finding::refuse("clock", found, advice),
        CLOCK_WARN_MS.. => Finding::warn("clock", found, advice),
        _ => Finding::ok("clock", found),
    }
}

/// As it is told to people, with one decimal.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// Room for a copy of the mail that is there (`None`: this machine will hold none of it yet).
#[must_use]
pub fn disk(free: u64, mail: Option<u64>, whole: bool) -> Finding {
    let mib = |bytes: u64| format!("{} MiB", bytes / (1024 * 1024));
    let copy = mail.unwrap_or(0);
    let least = copy.saturating_add(DISK_RESERVE_BYTES);
    let good = least.saturating_add(copy / DISK_MARGIN_DIVISOR);
    let found = match mail {
        Some(copy) => format!(
            "{} free; the mail of the other node takes {} and {} stay free",
            mib(free),
            mib(copy),
            mib(DISK_RESERVE_BYTES)
        ),
        None => format!("{} free, of which {} stay free", mib(free), mib(DISK_RESERVE_BYTES)),
    };
    let wanted = format!("make room: at least {} free, better as much as on the other node", mib(good));
    if free < least {
        Finding::refuse("disk", format!("{found}: not enough"), wanted)
    } else if free < good {
        Finding::warn("disk", format!("{found}: little is left for what comes"), wanted)
    } else if !whole {
        let advice =
            "the node that was asked is not in sync, so there may be more mail than it has: look at the others";
        Finding::warn("disk", found, advice)
    } else {
        Finding::ok("disk", found)
    }
}

/// The entry of this machine's list that holds the node's own address.
#[must_use]
pub fn holder(all: &[OwnAddress], address: IpAddr) -> Option<&OwnAddress> {
    // Every address of 127/8 is this machine's, listed or not.
    let loopback = |own: &&OwnAddress| address.is_loopback() && own.address.is_loopback() && own.reaches(address);
    all.iter().find(|own| own.address == address).or_else(|| all.iter().find(loopback))
}

/// The node's own address is here, and stays.
#[must_use]
pub fn static_address(all: &[OwnAddress], address: IpAddr) -> Finding {
    let Some(own) = holder(all, address) else {
        let listed: Vec<String> = all.iter().map(|own| format!("{} on {}", own.address, own.interface)).collect();
        return Finding::refuse(
            "static-address",
            format!("{address} is on no interface of this machine ({})", listed.join(", ")),
            "give it to an interface, or name another one under `address` in the node file",
        );
    };
    let where_ = format!("{address} is on {}", own.interface);
    if let Some(far) = own.far_end {
        return Finding::warn(
            "static-address",
            format!("{where_}, a point-to-point link to {far}"),
            "the nodes belong on one LAN: use an address there",
        );
    }
    match own.lasting {
        true => Finding::ok("static-address", format!("{where_} and does not run out")),
        false => Finding::warn(
            "static-address",
            format!("{where_} for a limited time: DHCP or a router gave it and may give another one"),
            "configure it by hand on this machine, outside what DHCP hands out",
        ),
    }
}

/// Who moves the cluster address; a cloud's way leads to any network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mover<'a> {
    /// Nobody: the address lives in the nodes' LAN.
    Lan,
    /// This program, on this interface.
    Interface(&'a str),
    /// An operator's hooks.
    Hooks,
}

impl Mover<'_> {
    /// What is said of an address in another network: hooks may lead there.
    fn elsewhere(self, name: &'static str, found: String, advice: &str) -> Finding {
        match self {
            Self::Lan | Self::Interface(_) => Finding::refuse(name, found, advice),
            Self::Hooks => Finding::warn(
                name,
                found,
                "with provider exec this may be right: the hooks must move the address between these networks",
            ),
        }
    }
}

/// Both nodes and the cluster addresses in networks of this machine.
#[must_use]
pub fn same_lan(
    all: &[OwnAddress],
    (address, cluster): (IpAddr, &[ClusterAddress]),
    others: &[IpAddr],
    mover: Mover<'_>,
) -> Vec<Finding> {
    let Some(own) = holder(all, address) else { return Vec::new() };
    let network = format!("{}/{} on {}", own.address, own.prefix, own.interface);
    let listed = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let outside: Vec<IpAddr> = others.iter().filter(|other| !own.reaches(**other)).copied().collect();
    let mut findings = Vec::new();
    if !outside.is_empty() {
        let advice = "put the nodes into one LAN, or use provider exec to move the address another way";
        findings.push(mover.elsewhere("same-lan", format!("not in {network}: {}", listed(&outside)), advice));
    } else if !others.is_empty() {
        findings.push(Finding::ok("same-lan", format!("{address} and {} are in {network}", listed(others))));
    }
    findings.extend(cluster.iter().map(|cluster| cluster_network(all, (address, own), *cluster, mover)));
    findings
}

/// The cluster address in a network of the interface where it is to live, whose bits it has, or none of its own. `own`:
/// where the node's own address is.
fn cluster_network(
    all: &[OwnAddress],
    (address, own): (IpAddr, &OwnAddress),
    cluster: ClusterAddress,
    mover: Mover<'_>,
) -> Finding {
    let name = "cluster-network";
    let ip = cluster.address;
    if ip == address {
        return Finding::refuse(
            name,
            format!("{ip} is the node's own address"),
            "the cluster address moves between nodes: give the node one of its own beside it",
        );
    }
    let interface = if let Mover::Interface(named) = mover { named } else { own.interface.as_str() };
    let there = || all.iter().filter(|one| one.interface == interface && one.address.is_ipv4() == ip.is_ipv4());
    // Of what the kernel has, the cluster's own address says nothing about the network.
    let network = there().filter(|one| one.address != ip).find(|one| one.reaches(ip));
    let (found, advice) = match (network, cluster.prefix) {
        (Some(network), Some(bits)) if bits != network.prefix && bits != alone(ip) => (
            format!("the network of {ip} has {} bits on {interface}, not {bits}", network.prefix),
            format!("say {ip}/{}, or {ip} alone", network.prefix),
        ),
        (Some(network), _) => {
            return Finding::ok(name, format!("{ip} is in {}/{} on {interface}", network.address, network.prefix));
        }
        (None, _) => {
            let known: Vec<String> = there().map(|one| format!("{}/{}", one.address, one.prefix)).collect();
            let known = if known.is_empty() { "no network of its family there".to_owned() } else { known.join(", ") };
            let advice = "take a cluster address of the nodes' LAN, outside what DHCP hands out";
            (format!("{ip} is in no network on {interface} ({known})"), advice.to_owned())
        }
    };
    mover.elsewhere(name, found, &advice)
}

/// Bits of an address without a network.
const fn alone(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// Who answers on the cluster address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answering {
    /// Nobody.
    Nobody,
    /// Who should: a node of the cluster.
    Node,
    /// Somebody else, in words.
    Stranger(String),
    /// Nobody could be asked: why.
    NotAsked(String),
}

/// Nobody but the cluster's own nodes has the cluster address.
#[must_use]
pub fn cluster_free(cluster: IpAddr, answering: &Answering, holder: Option<u32>) -> Finding {
    let held = holder.map(|id| format!(", held by node {id}")).unwrap_or_default();
    match (answering, holder) {
        (Answering::Nobody, None) => Finding::ok("cluster-address", format!("{cluster}: nobody has it")),
        (Answering::Node, _) => Finding::ok("cluster-address", format!("{cluster}{held}: no stranger has it")),
        (Answering::Nobody, Some(_)) => Finding::warn(
            "cluster-address",
            format!("{cluster}{held}: it does not answer this machine"),
            "make sure that the machines are on one network, or with provider exec that the hooks reach all of them",
        ),
        (Answering::Stranger(who), _) => Finding::refuse(
            "cluster-address",
            format!("{cluster} is in use by a machine that is no node of this cluster ({who})"),
            "take the address away from that machine, or give the cluster another one",
        ),
        (Answering::NotAsked(why), _) => Finding::warn(
            "cluster-address",
            format!("{cluster}: nobody could be asked who has it ({why})"),
            "make sure that no other machine has it, and that it is outside what DHCP hands out",
        ),
    }
}

/// Ports that clients and other nodes use, each with why it cannot be bound now.
#[must_use]
pub fn ports(address: IpAddr, faults: &[(&str, u16, std::io::ErrorKind)], all: &str) -> Finding {
    use std::io::ErrorKind::{AddrInUse, PermissionDenied};
    let of = |kind| {
        let those = faults.iter().filter(|(_, _, fault)| *fault == kind);
        those.map(|(name, port, _)| format!("{port} ({name})")).collect::<Vec<_>>().join(", ")
    };
    let (used, forbidden) = (of(AddrInUse), of(PermissionDenied));
    if !used.is_empty() {
        let advice = "stop the program that has them before the service is started, or name others under [ports]";
        return Finding::warn("ports", format!("in use on {address}: {used}"), advice);
    }
    if !forbidden.is_empty() {
        let advice = "run the service as root, or give it the capability CAP_NET_BIND_SERVICE";
        return Finding::warn("ports", format!("not for this user on {address}: {forbidden}"), advice);
    }
    Finding::ok("ports", format!("free on {address}: {all}"))
}

/// What the cluster says of the admission itself.
#[must_use]
pub fn admission(refusals: &[String], next: u32) -> Finding {
    match refusals {
        [] => Finding::ok("admission", format!("the token is good; this machine would be node {next}")),
        faults => Finding::refuse("admission", faults.join("; "), "correct it; the token stays unused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn own(address: &str, prefix: u8) -> OwnAddress {
        OwnAddress { interface: "eth0".into(), address: ip(address), prefix, lasting: true, far_end: None }
    }

    fn program(version: &str, protocol: (u32, u32), rows: (u32, u32)) -> Program {
        Program { version: version.into(), protocol, rows }
    }

    fn verdicts(findings: &[Finding]) -> Vec<Verdict> {
        findings.iter().map(|finding| finding.verdict).collect()
    }

    use Verdict::{Ok as Good, Refuse, Warn};

    #[test]
    fn ha_05_programs_are_of_one_family_and_read_what_is_stored() {
        let here = program("0.3.1", (1, 2), (1, 3));
        let judge = |home: Program| verdicts(&versions(&here, &home));
        assert_eq!(judge(here.clone()), [Good, Good, Good]);
        assert_eq!(judge(program("0.3.9", (1, 1), (1, 3))), [Warn, Good, Good]);
        assert_eq!(judge(program("0.4.0", (1, 1), (1, 3))), [Refuse, Good, Good]);
        assert_eq!(judge(program("0.3.1", (3, 4), (1, 3))), [Good, Refuse, Good]);
        assert_eq!(judge(program("0.3.1", (1, 2), (1, 4))), [Good, Good, Refuse], "the home may write format 4");
        assert_eq!(judge(program("0.3.1", (1, 2), (1, 2))), [Good, Good, Good], "the older rows are read here");
        let newer =
            |version: &str| verdicts(&versions(&program("1.4.0", (1, 1), (1, 1)), &program(version, (1, 1), (1, 1))));
        assert_eq!((newer("1.9.2")[0], newer("2.0.0")[0]), (Warn, Refuse));
    }

    #[test]
    fn ha_05_clocks_are_judged_beyond_what_the_network_may_be() {
        // The other clock is `ahead`; each way took `way`, the other side 500 ms.
        let at = |ahead: i64, way: u64| {
            let there = |ms: u64| ms.checked_add_signed(ahead).expect("time");
            let sent = 1_700_000_000_000;
            clock(Clocks {
                asked: sent,
                received: there(sent + way),
                answered: there(sent + way + 500),
                heard: sent + 2 * way + 500,
            })
        };
        assert_eq!(at(0, 5).verdict, Good);
        assert_eq!(at(1_990, 0).verdict, Good);
        assert_eq!((at(2_000, 0).verdict, at(-2_000, 0).verdict), (Warn, Warn));
        assert_eq!((at(29_999, 0).verdict, at(30_000, 0).verdict, at(-30_000, 0).verdict), (Warn, Refuse, Refuse));
        assert!(at(-30_000, 0).found.contains("30000 ms behind"), "{:?}", at(-30_000, 0));
        // A slow network says less: of 2.4 s apart 600 ms may be its own.
        assert_eq!((at(2_400, 600).verdict, at(2_600, 600).verdict), (Good, Warn));
        assert!(at(2_600, 600).found.contains("measured to 600 ms"));
        // One way alone is slow: within the blur.
        let lame = clock(Clocks { asked: 0, received: 3_000, answered: 3_000, heard: 3_000 });
        assert_eq!(lame.verdict, Good, "{lame:?}");
        // A clock that was set back while it was asked is no reason to fail.
        assert_eq!(clock(Clocks { asked: 90_000, received: 1_000, answered: 900, heard: 0 }).verdict, Refuse);
    }

    #[test]
    fn ha_06_the_mail_of_the_home_fits_with_room_to_spare() {
        let copy = 4_000 * 1024 * 1024;
        let least = copy + DISK_RESERVE_BYTES;
        let judge = |free| disk(free, Some(copy), true).verdict;
        assert_eq!((judge(least - 1), judge(least)), (Refuse, Warn));
        assert_eq!((judge(least + copy / 4 - 1), judge(least + copy / 4)), (Warn, Good));
        assert_eq!(disk(least * 2, Some(copy), false).verdict, Warn, "there may be more than it has");
        assert_eq!(
            (disk(DISK_RESERVE_BYTES - 1, None, true).verdict, disk(DISK_RESERVE_BYTES, None, true).verdict),
            (Refuse, Good)
        );
        assert_eq!(disk(0, Some(u64::MAX), true).verdict, Refuse);
    }

    #[test]
    fn ha_07_the_own_address_is_here_and_stays() {
        let mut all = vec![own("192.0.2.11", 24)];
        assert_eq!(static_address(&all, ip("192.0.2.11")).verdict, Good);
        let missing = static_address(&all, ip("192.0.2.12"));
        assert!(missing.verdict == Refuse && missing.found.contains("192.0.2.11 on eth0"), "{missing:?}");
        all[0].lasting = false;
        assert_eq!(static_address(&all, ip("192.0.2.11")).verdict, Warn, "from DHCP");
        (all[0].lasting, all[0].far_end) = (true, Some(ip("198.51.100.1")));
        assert_eq!(static_address(&all, ip("192.0.2.11")).verdict, Warn, "PPPoE");
        let loopback = [own("127.0.0.1", 8)];
        assert_eq!(static_address(&loopback, ip("127.0.0.12")).verdict, Good, "all of 127/8 is here");
        assert_eq!(static_address(&[own("10.0.0.1", 8)], ip("10.0.0.2")).verdict, Refuse, "and of nothing else");
    }

    #[test]
    fn ha_07_ha_09_nodes_and_cluster_address_are_in_one_network() {
        let all = [own("192.0.2.11", 25)];
        let judge = |cluster: &str, others: &[&str], mover| {
            let others: Vec<IpAddr> = others.iter().map(|text| ip(text)).collect();
            let cluster = [cluster.parse().expect(cluster)];
            verdicts(&same_lan(&all, (ip("192.0.2.11"), &cluster), &others, mover))
        };
        assert_eq!(judge("192.0.2.10", &["192.0.2.12"], Mover::Lan), [Good, Good]);
        assert_eq!(judge("192.0.2.10", &["192.0.2.12", "192.0.2.200"], Mover::Lan), [Refuse, Good]);
        assert_eq!(judge("192.0.2.200", &["192.0.2.12"], Mover::Lan), [Good, Refuse]);
        assert_eq!(judge("192.0.2.200", &["198.51.100.1"], Mover::Hooks), [Warn, Warn]);
        assert_eq!(judge("192.0.2.11", &["192.0.2.12"], Mover::Lan), [Good, Refuse], "the node's own");
        assert_eq!(judge("2001:db8::10", &[], Mover::Lan), [Refuse], "of the other family");
        assert!(same_lan(&all, (ip("192.0.2.11"), &[]), &[], Mover::Lan).is_empty());
    }

    #[test]
    fn ha_19_a_new_address_fits_the_network_of_the_interface() {
        let on =
            |interface: &str, address: &str, prefix| OwnAddress { interface: interface.into(), ..own(address, prefix) };
        let all = [own("192.0.2.11", 24), own("2001:db8::11", 64), on("eth1", "198.51.100.1", 24)];
        let judge = |cluster: &str, mover| {
            let cluster = [cluster.parse().expect(cluster)];
            let all = same_lan(&all, (ip("192.0.2.11"), &cluster), &[], mover);
            (all[0].verdict, all[0].found.clone())
        };
        for good in ["192.0.2.20", "192.0.2.20/24", "192.0.2.20/32", "2001:db8::20/64"] {
            assert_eq!(judge(good, Mover::Interface("eth0")).0, Good, "{good}");
        }
        for bad in ["192.0.2.20/25", "2001:db8::20/48", "198.51.100.20/24", "2001:db8:1::20", "192.0.2.11"] {
            assert_eq!(judge(bad, Mover::Interface("eth0")).0, Refuse, "{bad}");
        }
        assert_eq!(judge("198.51.100.20/24", Mover::Interface("eth1")).0, Good);
        assert_eq!(judge("198.51.100.20/24", Mover::Hooks).0, Warn);
        assert!(judge("192.0.2.20/25", Mover::Lan).1.contains("24 bits on eth0, not 25"));
        assert!(judge("2001:db8::20", Mover::Interface("eth1")).1.contains("no network of its family"));
    }

    #[test]
    fn ha_09_only_a_node_may_have_the_cluster_address() {
        let judge = |answering: Answering, holder| cluster_free(ip("192.0.2.10"), &answering, holder).verdict;
        assert_eq!(judge(Answering::Nobody, None), Good);
        assert_eq!(judge(Answering::Node, Some(1)), Good);
        assert_eq!(judge(Answering::Nobody, Some(1)), Warn, "nobody, not even who holds it");
        assert_eq!(judge(Answering::Stranger("02:00:00:00:00:09".into()), Some(1)), Refuse);
        assert_eq!(judge(Answering::NotAsked("no permission".into()), None), Warn);
    }

    #[test]
    fn ports_in_use_are_named() {
        use std::io::ErrorKind;
        let judge = |faults: &[_]| ports(ip("192.0.2.11"), faults, "25 (smtp)");
        assert_eq!(judge(&[]).verdict, Good);
        let used = judge(&[("smtp", 25, ErrorKind::AddrInUse), ("imap", 143, ErrorKind::PermissionDenied)]);
        assert!(used.verdict == Warn && used.found.contains("25 (smtp)") && !used.found.contains("143"), "{used:?}");
        assert_eq!(judge(&[("smtp", 25, ErrorKind::PermissionDenied)]).verdict, Warn);
        // That the address is not here is said by another check.
        assert_eq!(judge(&[("smtp", 25, ErrorKind::AddrNotAvailable)]).verdict, Good);
    }

    #[test]
    fn the_worst_finding_counts() {
        assert_eq!(worst(&[]), Good);
        let all = [admission(&[], 2), clock(Clocks { asked: 0, received: 5_000, answered: 5_000, heard: 0 })];
        assert_eq!(worst(&all), Warn);
        let refused = admission(&["member/name: node 1 has this name already".into()], 0);
        assert!(refused.lines().contains("REFUSE   admission"), "{}", refused.lines());
        assert_eq!(worst(&[refused]), Refuse);
    }
}
