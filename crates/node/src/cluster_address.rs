//! The cluster addresses are changed while the nodes run (HA-19): what is looked at before, what follows on each node, and
//! the command.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use control::Control;
use frontend::{AddressCheck, AddressChecks};
use ports::Answer;
use ports::config::Config as _;
use ports::journal::{EventKind, Journal};
use reqwest::Method;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use topology::{ClusterAddress, ClusterState, listed};
use vocab::NodeId;

use crate::admin::{self, Api, say};
use crate::certificates::disk;
use crate::checks::{Finding, Verdict};
use crate::cli::ServerArgs;
use crate::config::NodeConfig;
use crate::examine::Lan;
use crate::exit::Exit;
use crate::files::{self, DataDir};
use crate::members;

/// Pause before a certificate that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Looks from this node.
pub(crate) struct Looker {
    pub(crate) config: NodeConfig,
    pub(crate) node: NodeId,
    pub(crate) control: Arc<Control>,
}

impl AddressChecks for Looker {
    fn examine(&self, address: ClusterAddress, known: bool) -> Answer<'_, Vec<AddressCheck>> {
        Box::pin(async move {
            let state = self.control.current();
            let others = state.members.values().filter(|member| member.data && member.id != self.node);
            let lan = Lan {
                cluster: vec![address],
                others: others.filter_map(|member| member.address.parse().ok()).collect(),
                holder: None,
                shown: None,
            };
            let found = if known { lan.networks(&self.config).await } else { lan.judge(&self.config).await };
            found.into_iter().filter(|finding| finding.name.starts_with("cluster-")).map(check_of).collect()
        })
    }

    fn certificate_follows(&self) -> bool {
        self.config.tls.is_none()
    }
}

fn check_of(finding: Finding) -> AddressCheck {
    let Finding { name, verdict, found, advice } = finding;
    AddressCheck { name, refused: verdict == Verdict::Refuse, found, advice }
}

/// What follows on a node that stores mail when the addresses change: it is noted, and the certificate for clients names
/// them.
pub(crate) async fn follow(config: NodeConfig, data: DataDir, control: Arc<Control>, journal: Arc<dyn Journal>) {
    let mut revision = control.watch();
    let mut known: Option<Vec<ClusterAddress>> = None;
    loop {
        let state = control.current();
        if !state.cluster_id.is_empty() {
            let now = &state.cluster_addresses;
            if let Some(old) = known.as_ref().filter(|old| *old != now) {
                let text = format!("an operator changed the cluster addresses from {} to {}", listed(old), listed(now));
                tracing::info!("{text}");
                journal.note(EventKind::Order, &text);
            }
            known = Some(now.clone());
        }
        let made = if config.tls.is_some() { Ok(()) } else { name_in_certificate(&config, &data, &state) };
        if let Err(error) = made {
            tracing::error!(error = %format!("{error:#}"), "the certificate for clients does not name the cluster addresses");
            tokio::time::sleep(AGAIN).await;
        } else if revision.changed().await.is_err() {
            return;
        }
    }
}

/// Makes the certificate for clients anew when it lacks a cluster address. It is read by the front-ends within seconds.
fn name_in_certificate(config: &NodeConfig, data: &DataDir, state: &ClusterState) -> anyhow::Result<()> {
    let pem = files::read_text(&data.service_certificate())?;
    let named = |ip: IpAddr| names(&pem, ip).unwrap_or(false);
    if state.cluster_addresses.iter().all(|one| named(one.address)) {
        return Ok(());
    }
    disk::make_service(config, data, state)?;
    tracing::info!(
        addresses = listed(&state.cluster_addresses),
        "the certificate for clients names the cluster addresses"
    );
    Ok(())
}

fn names(pem: &str, ip: IpAddr) -> Option<bool> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let certificate = rustls::server::ParsedCertificate::try_from(&der).ok()?;
    Some(rustls::client::verify_server_name(&certificate, &ServerName::IpAddress(ip.into())).is_ok())
}

/// What a certificate for clients names: the cluster's addresses and every node that stores mail.
pub(crate) fn service_names(state: &ClusterState) -> Vec<String> {
    let mut names = vec!["localhost".to_owned()];
    names.extend(state.cluster_addresses.iter().map(|one| one.address.to_string()));
    for member in state.members.values().filter(|member| member.data) {
        names.extend([member.name.clone(), member.address.clone()]);
    }
    names
}

/// Shows the cluster addresses, or gives the cluster others; `none` alone takes them all away.
///
/// # Errors
/// When the API cannot be found.
pub fn run(args: &ServerArgs, addresses: &[String], dry_run: bool) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    let wanted: &[String] = match addresses {
        [] => return Ok(api.run(Method::GET, "cluster/address", None, show)),
        [word] if word == "none" => &[],
        all => all,
    };
    let body = json!({ "addresses": wanted, "dry_run": dry_run });
    Ok(api.run(Method::PUT, "cluster/address", Some(&body), show))
}

fn show(answer: &Value) {
    let list = |key: &str| match answer[key].as_array().map(Vec::as_slice) {
        None | Some([]) => "none".to_owned(),
        Some(all) => all.iter().map(admin::line).collect::<Vec<_>>().join(" and "),
    };
    let held = answer["holder"].as_u64().map(|id| format!(", held by node {id}")).unwrap_or_default();
    if answer["before"] == answer["addresses"] {
        say!("cluster address: {}{held}", list("addresses"));
    } else {
        say!("cluster address: {} instead of {}{held}", list("addresses"), list("before"));
    }
    for check in answer["checks"].as_array().into_iter().flatten() {
        let advice = admin::line(&check["advice"]);
        let advice = if advice.is_empty() { advice } else { format!(" ({advice})") };
        say!("  {:<16} {}{advice}", admin::line(&check["name"]), admin::line(&check["found"]));
    }
    for line in answer["then"].as_array().into_iter().flatten() {
        say!("  {}", admin::line(line));
    }
    members::show_look_at(answer);
    if answer["dry_run"] == true {
        say!("nothing was changed");
    }
}

#[cfg(test)]
mod tests {
    use transport::ca::Authority;

    use super::*;
    use crate::init;

    #[test]
    fn ha_19_the_certificate_is_made_anew_when_it_lacks_an_address() {
        let folder = tempfile::tempdir().expect("folder");
        let data = DataDir(folder.path().join("data"));
        data.create().expect("made");
        let file = folder.path().join("twinpost.toml");
        std::fs::write(&file, "name = \"n1.example.org\"\naddress = \"192.0.2.1\"\n").expect("written");
        let config = NodeConfig::load(&file).expect("good");
        let ca = Authority::create("test", u64::MAX).expect("CA");
        let first = ca.issue_service(&["localhost".to_owned(), "192.0.2.10".to_owned()]).expect("issued");
        init::write_certificates(&data, ca.certificate(), ca.key(), "", "").expect("written");
        disk::write_service(&data, &first.certificate, &first.key).expect("written");
        let shown = || files::read_text(&data.service_certificate()).expect("read");
        let at = |addresses: &[&str]| ClusterState {
            cluster_addresses: addresses.iter().map(|text| text.parse().expect(text)).collect(),
            ..ClusterState::default()
        };
        name_in_certificate(&config, &data, &at(&["192.0.2.10"])).expect("looked at");
        assert!(shown().starts_with(first.certificate.trim_end()), "it names the address");
        name_in_certificate(&config, &data, &at(&["192.0.2.20/24", "2001:db8::20"])).expect("made");
        let named = |text: &str| names(&shown(), text.parse().expect(text)).expect("a certificate");
        assert!(named("192.0.2.20") && named("2001:db8::20") && named("192.0.2.1"));
        assert!(!named("192.0.2.10"), "the cluster has it no more");
    }
}
