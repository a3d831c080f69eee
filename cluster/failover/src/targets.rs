//! Probe targets: what else a node can ask when it hears no other node (DESIGN 6). Who hears neither the others nor any
//! of them is the isolated one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ports::senses::Senses;
use tokio::net::TcpStream;

use crate::ping::ping;

/// Between two questions to one target. With [`LIMIT`] less than the shortest window of silence: a node that is cut off
/// must know it before it would go on alone.
const EVERY: Duration = Duration::from_millis(250);
/// How long an answer may take.
const LIMIT: Duration = Duration::from_millis(400);
/// Where the system keeps its routes and DNS servers.
const ROUTES_V4: &str = "/proc/net/route";
const ROUTES_V6: &str = "/proc/net/ipv6_route";
const RESOLVERS: &str = "/etc/resolv.conf";
/// Port of DNS over TCP.
const DNS_PORT: u16 = 53;

/// What is asked, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A TCP connection; a refusal is an answer, too.
    Tcp(SocketAddr),
    /// An echo request.
    Ping(IpAddr),
}

/// A target as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This one.
    Fixed(Target),
    /// The default gateways of the system, by echo request.
    Gateway,
    /// Its DNS servers, by TCP.
    Dns,
}

impl std::str::FromStr for Wanted {
    type Err = &'static str;
    /// `gateway`, `dns`, an address (asked by echo request), or `address:port`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(socket) = text.parse() {
            return Ok(Self::Fixed(Target::Tcp(socket)));
        }
        match (text, text.parse()) {
            ("gateway", _) => Ok(Self::Gateway),
            ("dns", _) => Ok(Self::Dns),
            (_, Ok(address)) => Ok(Self::Fixed(Target::Ping(address))),
            (_, Err(_)) => Err("neither gateway, dns, an address nor address:port"),
        }
    }
}

/// The targets as they are now, each once. `own`: addresses of this machine, which answer whatever is cut; so do all
/// loopback addresses. `dns`: servers named in the node file; none: those of the system.
#[must_use]
pub fn resolve(wanted: &[Wanted], own: &[IpAddr], dns: &[SocketAddr]) -> Vec<Target> {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut targets = Vec::new();
    for one in wanted {
        match one {
            Wanted::Fixed(target) => targets.push(*target),
            Wanted::Gateway => {
                let all = gateways_v4(&text(ROUTES_V4)).into_iter().chain(gateways_v6(&text(ROUTES_V6)));
                targets.extend(all.map(Target::Ping));
            }
            Wanted::Dns if dns.is_empty() => {
                let servers = name_servers(&text(RESOLVERS)).into_iter();
                targets.extend(servers.map(|server| Target::Tcp(SocketAddr::new(server, DNS_PORT))));
            }
            Wanted::Dns => targets.extend(dns.iter().copied().map(Target::Tcp)),
        }
    }
    let mut seen: Vec<Target> = Vec::new();
    for target in targets {
        let ip = match target {
            Target::Tcp(socket) => socket.ip(),
            Target::Ping(ip) => ip,
        };
        if !ip.is_loopback() && !own.contains(&ip) && !seen.contains(&target) {
            seen.push(target);
        }
    }
    seen
}

/// Asks all of them for ever, and tells the engine.
pub async fn watch(targets: Vec<Target>, senses: Arc<dyn Senses>) {
    let mut tasks = tokio::task::JoinSet::new();
    for (number, target) in (0..).zip(targets) {
        tasks.spawn(watch_one(number, target, Arc::clone(&senses)));
    }
    while tasks.join_next().await.is_some() {}
}

async fn watch_one(number: u32, target: Target, senses: Arc<dyn Senses>) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = None;
    loop {
        every.tick().await;
        let answered = answers(target).await;
        if before != Some(answered) {
            tracing::info!(?target, answered, counts = answered || before.is_some(), "probe target");
            before = Some(answered);
        }
        senses.target(number, answered);
    }
}

async fn answers(target: Target) -> bool {
    let asked = async {
        match target {
            Target::Tcp(socket) => match TcpStream::connect(socket).await {
                Ok(_) => true,
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            },
            Target::Ping(address) => ping(address).await.unwrap_or(false),
        }
    };
    tokio::time::timeout(LIMIT, asked).await.unwrap_or(false)
}

/// Lines of `/proc/net/route`: interface, destination, gateway, flags, ... in hexadecimal of this machine's byte order.
fn gateways_v4(text: &str) -> Vec<IpAddr> {
    let gateway = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (destination, gateway) = (words.next()?, words.next()?);
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        (destination == "00000000" && gateway != 0).then(|| Ipv4Addr::from(gateway.to_ne_bytes()).into())
    };
    text.lines().skip(1).filter_map(gateway).collect()
}

/// Lines of `/proc/net/ipv6_route`: destination, its bits, source, its bits, next hop, ... Link-local ones are left
/// out: they need an interface.
fn gateways_v6(text: &str) -> Vec<IpAddr> {
    let gateway = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, bits, _, _, hop, ..] = words.as_slice() else { return None };
        let hop = Ipv6Addr::from(u128::from_str_radix(hop, 16).ok()?);
        let usable = *bits == "00" && !hop.is_unspecified() && !hop.is_unicast_link_local();
        usable.then_some(hop.into())
    };
    text.lines().filter_map(gateway).collect()
}

fn name_servers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| line.trim().strip_prefix("nameserver")?.trim().parse().ok();
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn targets_are_understood() {
        let fixed = |text: &str| text.parse::<Wanted>();
        assert_eq!(fixed("gateway"), Ok(Wanted::Gateway));
        assert_eq!(fixed("192.0.2.1"), Ok(Wanted::Fixed(Target::Ping(ip("192.0.2.1")))));
        assert_eq!(
            fixed("[2001:db8::1]:53"),
            Ok(Wanted::Fixed(Target::Tcp("[2001:db8::1]:53".parse().expect("socket"))))
        );
        for wrong in ["", "example.org", "192.0.2.1:", "192.0.2.1:70000"] {
            assert!(fixed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn default_routes_are_found() {
        let text = format!(
            "Iface\tDestination\tGateway\tFlags\neth0\t00000000\t{:08X}\t0003\neth0\t000200C0\t00000000\t0001\n",
            u32::from_ne_bytes([192, 0, 2, 1])
        );
        assert_eq!(gateways_v4(&text), [ip("192.0.2.1")]);
        let zero = "0".repeat(32);
        let hop = "20010db8000000000000000000000001";
        let local = "fe800000000000000000000000000001";
        let line =
            |bits, hop: &str| format!("{zero} {bits} {zero} 00 {hop} 00000400 00000001 00000000 00000003 eth0\n");
        assert_eq!(
            gateways_v6(&(line("00", hop) + &line("40", hop) + &line("00", local) + &line("00", &zero))),
            [ip("2001:db8::1")]
        );
    }

    #[test]
    fn what_answers_whatever_is_cut_is_no_target() {
        assert_eq!(
            name_servers("# x\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nsearch a\n"),
            [ip("127.0.0.53"), ip("192.0.2.53")]
        );
        let wanted: Vec<Wanted> = ["127.0.0.1", "192.0.2.2", "192.0.2.3", "192.0.2.3", "dns"]
            .iter()
            .map(|t| t.parse().expect("target"))
            .collect();
        let dns = ["127.0.0.53:53".parse().expect("socket"), "192.0.2.53:53".parse().expect("socket")];
        let found = resolve(&wanted, &[ip("192.0.2.2")], &dns);
        assert_eq!(found, [Target::Ping(ip("192.0.2.3")), Target::Tcp(dns[1])]);
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        assert!(answers(Target::Tcp(address)).await);
        drop(listener);
        assert!(answers(Target::Tcp(address)).await, "refused");
    }
}
