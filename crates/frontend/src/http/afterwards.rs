//! What lies outside the cluster and may still lead to a node or a cluster address that goes: names in DNS and rules of
//! port forwarding (features HA-21, HA-19). Told before and after.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;
use topology::{ClusterAddress, ClusterState, Member};
use vocab::NodeId;

use crate::config::ServicePorts;

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LookAt {
    /// `dns` or `forwarding`.
    pub(crate) kind: &'static str,
    /// A name or an address.
    pub(crate) what: String,
    /// What to do there.
    pub(crate) why: String,
}

/// What to look at when this node goes; nothing when it serves no clients.
pub(crate) fn look_at(state: &ClusterState, gone: NodeId, ports: &ServicePorts) -> Vec<LookAt> {
    let Some(gone) = state.members.get(&gone).filter(|member| member.data) else { return Vec::new() };
    let stays: Vec<&Member> = state.members.values().filter(|member| member.data && member.id != gone.id).collect();
    let (name, address) = (&gone.name, &gone.address);
    let instead = match (state.cluster_addresses.as_slice(), stays.as_slice()) {
        ([_, ..], _) => format!("the cluster address {}", plain(&state.cluster_addresses)),
        ([], [one, ..]) => format!("{} (node {})", one.address, one.id.0),
        ([], []) => return Vec::new(),
    };
    let dns = |what: String, why: String| LookAt { kind: "dns", what, why };
    let mut all = Vec::new();
    for domain in state.domains() {
        let domain = domain.as_str();
        all.push(dns(
            domain.to_owned(),
            format!(
                "MX records, and the hosts they name, must not lead to {address}; SPF must not need it; use {instead}"
            ),
        ));
    }
    all.push(dns(name.clone(), format!("A and AAAA records of this node's name, and every other name with {address}")));
    all.push(dns(address.clone(), "PTR record: it names a node that is gone".to_owned()));
    let ports = numbers(ports);
    all.push(LookAt {
        kind: "forwarding",
        what: address.clone(),
        why: format!("rules and DMZ settings that lead to it (TCP {ports}): let them lead to {instead}"),
    });
    for cluster in &state.cluster_addresses {
        let holders: Vec<String> = stays.iter().map(|member| format!("node {}", member.id.0)).collect();
        all.push(LookAt {
            kind: "forwarding",
            what: cluster.address.to_string(),
            why: format!(
                "the cluster address stays with {}: rules and names that lead to it stay right",
                holders.join(", ")
            ),
        });
    }
    all
}

/// What to look at when the cluster has these addresses instead of those it has.
pub(crate) fn look_at_addresses(state: &ClusterState, wanted: &[ClusterAddress], ports: &ServicePorts) -> Vec<LookAt> {
    let all = |all: &[ClusterAddress]| -> BTreeSet<IpAddr> { all.iter().map(|one| one.address).collect() };
    let (before, after) = (all(&state.cluster_addresses), all(wanted));
    let instead = if after.is_empty() { "the address of a node".to_owned() } else { plain(wanted) };
    let look = |kind, what: String, why: String| LookAt { kind, what, why };
    let mut found = Vec::new();
    let gone: Vec<String> = before.difference(&after).map(ToString::to_string).collect();
    let new: Vec<String> = after.difference(&before).map(ToString::to_string).collect();
    if gone.is_empty() && new.is_empty() {
        return found;
    }
    let (from, to) = (gone.join(" and "), new.join(" and "));
    for domain in state.domains() {
        let why = match (gone.is_empty(), new.is_empty()) {
            (false, _) => {
                format!("A and AAAA records of the hosts its MX records name, and SPF: {from} goes, use {instead}")
            }
            (true, _) => format!("the hosts its MX records name may get {to} in A or AAAA records; SPF may need it"),
        };
        found.push(look("dns", domain.as_str().to_owned(), why));
    }
    for address in gone {
        found.push(look(
            "dns",
            address.clone(),
            "PTR record, and every name that leads to it: nobody answers there any more".to_owned(),
        ));
        let why =
            format!("rules and DMZ settings that lead to it (TCP {}): let them lead to {instead}", numbers(ports));
        found.push(look("forwarding", address, why));
    }
    for address in new {
        found.push(look("dns", address, "PTR record: it should name the host that mail is sent from".to_owned()));
    }
    found
}

/// Without their networks.
fn plain(all: &[ClusterAddress]) -> String {
    all.iter().map(|one| one.address.to_string()).collect::<Vec<_>>().join(" and ")
}

fn numbers(ports: &ServicePorts) -> String {
    let ports = [
        ports.smtp,
        ports.submission,
        ports.submissions,
        ports.imap,
        ports.imaps,
        ports.pop3,
        ports.pop3s,
        ports.https,
    ];
    ports.map(|port| port.to_string()).join(", ")
}

#[cfg(test)]
mod tests {
    use topology::{ConfigOp, DocumentKind};

    use super::*;

    const PORTS: ServicePorts = ServicePorts {
        smtp: 25,
        submission: 587,
        submissions: 465,
        imap: 143,
        imaps: 993,
        pop3: 110,
        pop3s: 995,
        https: 443,
    };

    fn member(id: u32, data: bool) -> Member {
        Member {
            id: NodeId(id),
            name: format!("n{id}.example.org"),
            peer_address: format!("192.0.2.{id}:6420"),
            address: format!("192.0.2.{id}"),
            data,
            paths: Vec::new(),
        }
    }

    fn state(cluster: Option<&str>) -> ClusterState {
        let found = ConfigOp::Found {
            cluster_id: "c".into(),
            name: "test".into(),
            member: member(1, true),
            cluster_address: cluster.map(str::to_owned),
        };
        let (state, _) = topology::apply(&ClusterState::default(), &found, 1).expect("founded");
        let domain = |name: &str| ConfigOp::put(DocumentKind::Domain, name, serde_json::json!({}), None);
        let (state, _) = topology::apply(&state, &domain("example.org"), 2).expect("a domain");
        let (mut state, _) = topology::apply(&state, &domain("example.net"), 3).expect("a domain");
        state.members.extend([(NodeId(2), member(2, true)), (NodeId(3), member(3, false))]);
        state
    }

    #[test]
    fn ha_21_what_may_lead_to_a_node_that_goes_is_named() {
        let state = state(Some("192.0.2.10"));
        let all = look_at(&state, NodeId(2), &PORTS);
        let text = |kind: &str| -> String {
            let those = all.iter().filter(|look| look.kind == kind);
            those.map(|look| format!("{}: {}\n", look.what, look.why)).collect()
        };
        let (dns, forwarding) = (text("dns"), text("forwarding"));
        for part in ["example.org: MX", "example.net: MX", "n2.example.org", "192.0.2.2", "192.0.2.10"] {
            assert!(dns.contains(part), "{part}: {dns}");
        }
        for part in [
            "192.0.2.2: ",
            "25, 587, 465, 143, 993, 110, 995, 443",
            "192.0.2.10: the cluster address stays with node 1",
        ] {
            assert!(forwarding.contains(part), "{part}: {forwarding}");
        }
    }

    #[test]
    fn ha_19_what_leads_to_an_address_that_goes_is_named() {
        let state = state(Some("192.0.2.10"));
        let text = |wanted: &[&str]| -> String {
            let wanted: Vec<ClusterAddress> = wanted.iter().map(|text| text.parse().expect(text)).collect();
            let all = look_at_addresses(&state, &wanted, &PORTS);
            all.iter().map(|look| format!("{} {}: {}\n", look.kind, look.what, look.why)).collect()
        };
        let changed = text(&["192.0.2.20/24"]);
        for part in [
            "dns example.org: A ",
            "192.0.2.10 goes, use 192.0.2.20",
            "dns 192.0.2.10: PTR",
            "25, 587",
            "dns 192.0.2.20: PTR",
        ] {
            assert!(changed.contains(part), "{part}: {changed}");
        }
        assert!(text(&[]).contains("forwarding 192.0.2.10: "), "{}", text(&[]));
        let more = text(&["192.0.2.10/24", "2001:db8::10"]);
        assert!(more.contains("may get 2001:db8::10") && !more.contains("forwarding"), "{more}");
        assert_eq!(text(&["192.0.2.10/24"]), "", "its network alone is nobody's matter");
    }

    #[test]
    fn without_a_cluster_address_all_leads_to_who_stays() {
        let all = look_at(&state(None), NodeId(1), &PORTS);
        assert!(all.iter().any(|look| look.kind == "forwarding" && look.why.contains("192.0.2.2 (node 2)")), "{all:?}");
    }

    #[test]
    fn nothing_leads_to_a_witness_or_to_nobody() {
        assert!(look_at(&state(None), NodeId(3), &PORTS).is_empty());
        assert!(look_at(&state(None), NodeId(9), &PORTS).is_empty());
    }
}
