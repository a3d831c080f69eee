//! What lies outside the cluster and may still lead to a node that goes: names in DNS and rules of port forwarding
//! (feature HA-21). Told before and after.

use serde::Serialize;
use topology::{ClusterState, Member};
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
    let instead = match (&state.cluster_address, stays.as_slice()) {
        (Some(cluster), _) => format!("the cluster address {cluster}"),
        (None, [one, ..]) => format!("{} (node {})", one.address, one.id.0),
        (None, []) => return Vec::new(),
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
    let ports = ports.map(|port| port.to_string()).join(", ");
    all.push(LookAt {
        kind: "forwarding",
        what: address.clone(),
        why: format!("rules and DMZ settings that lead to it (TCP {ports}): let them lead to {instead}"),
    });
    if let Some(cluster) = &state.cluster_address {
        let holders: Vec<String> = stays.iter().map(|member| format!("node {}", member.id.0)).collect();
        all.push(LookAt {
            kind: "forwarding",
            what: cluster.clone(),
            why: format!(
                "the cluster address stays with {}: rules and names that lead to it stay right",
                holders.join(", ")
            ),
        });
    }
    all
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
        let domain = |name: &str| ConfigOp::Put {
            kind: DocumentKind::Domain,
            name: name.into(),
            body: serde_json::json!({}),
            expect: None,
        };
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
