//! Typed documents: names are normalised, bodies checked against their kind, references kept whole.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use vocab::{Address, Domain, NodeId};

use crate::alert_setting::{self, ALERTS_SETTING, AlertsBody};
use crate::apply::{Faults, fault};
use crate::certificates::{self, CERTIFICATES_SETTING, CertificatesBody};
use crate::log_setting::{self, LOG_SETTING, LogBody};
use crate::state::{AccountBody, AliasBody, ClusterState, Document, DocumentKind, DomainBody, Rejection};

/// Name of the setting that spreads homes.
pub const HOMES_SETTING: &str = "homes";

/// Body of the setting [`HOMES_SETTING`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomesBody {
    /// Every node in sync orders the changes of its share of accounts, instead of the primary those of all.
    pub spread: bool,
}

/// Name of the setting that shares out client connections.
pub const LOAD_SETTING: &str = "load";
/// Weight of a node that the setting does not name.
pub const LOAD_WEIGHT: u32 = 100;

/// Body of the setting [`LOAD_SETTING`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBody {
    /// The primary assigns connections on the cluster address to itself and the others in sync, instead of serving all.
    pub spread: bool,
    /// How much each node gets beside the others, by id; [`LOAD_WEIGHT`] unless named. 0 = no new connections (drain).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<u32, u32>,
}

impl LoadBody {
    /// Weight of this node.
    #[must_use]
    pub fn weight(&self, node: NodeId) -> u32 {
        self.weights.get(&node.0).copied().unwrap_or(LOAD_WEIGHT)
    }
}

/// Name of the setting that prefers a node as the primary.
pub const PRIMARY_SETTING: &str = "primary";
/// How long the preferred node must have been in sync again before a failback, unless the setting says otherwise (s).
pub const SETTLE_S: u64 = 60;
/// What the setting may say (s).
pub const SETTLE_S_MAX: u64 = 3_600;

/// Whether the preferred node gets the primary's place back by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Failback {
    /// Only an operator moves it.
    #[default]
    Manual,
    /// By itself, once that node has been in sync again for a while.
    Auto,
}

/// Body of the setting [`PRIMARY_SETTING`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimaryBody {
    /// The preferred node; `None`: no preference.
    #[serde(default)]
    pub node: Option<u32>,
    /// Whether it gets its place back by itself.
    #[serde(default)]
    pub failback: Failback,
    /// How long it must have been in sync again before (s); 1 to [`SETTLE_S_MAX`].
    #[serde(default = "settle_s")]
    pub settle_s: u64,
}

const fn settle_s() -> u64 {
    SETTLE_S
}

impl Default for PrimaryBody {
    fn default() -> Self {
        Self { node: None, failback: Failback::Manual, settle_s: SETTLE_S }
    }
}

/// Schema version of every body written today.
const SCHEMA: u32 = 1;
/// Targets of one alias.
const ALIAS_TARGETS_MAX: usize = 1000;
/// Greatest weight of a node.
const LOAD_WEIGHT_MAX: u32 = 10_000;
/// Length of the name of a setting (bytes).
const SETTING_NAME_BYTES_MAX: usize = 64;

impl DocumentKind {
    /// As in places of faults and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::Account => "account",
            Self::Alias => "alias",
            Self::Setting => "setting",
        }
    }
}

/// The name under which an own address is kept: folded local part at A-labels.
#[must_use]
pub fn address_key(address: &Address) -> String {
    match vocab::LocalPart::parse(&quoted(&address.local.folded())) {
        Ok(local) => format!("{local}@{}", address.domain),
        // Folding can lengthen a local part beyond the limit; nobody can have such an account.
        Err(_) => format!("{}@{}", address.local.folded(), address.domain),
    }
}

/// As quoted string, so that folding an odd local part gives one that parses.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

/// The form under which a document of this kind is stored: domains as A-labels, addresses folded, settings as they are.
///
/// # Errors
/// What is wrong with the name, in words for an administrator.
pub fn normalise_name(kind: DocumentKind, name: &str) -> Result<String, String> {
    match kind {
        DocumentKind::Domain => match Domain::parse(name) {
            Ok(domain) if !domain.is_literal() => Ok(domain.as_str().to_owned()),
            _ => Err("is no domain name".to_owned()),
        },
        DocumentKind::Account | DocumentKind::Alias => {
            let address = Address::parse(name).map_err(|fault| format!("is no address: {fault}"))?;
            if address.local.folded() != address.local.as_str().to_lowercase() {
                return Err("\"+detail\" belongs to the account before the \"+\" and cannot be created".to_owned());
            }
            Ok(address_key(&address))
        }
        DocumentKind::Setting => {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-' || b == b'.';
            let fits = !name.is_empty() && name.len() <= SETTING_NAME_BYTES_MAX && name.bytes().all(plain);
            if fits { Ok(name.to_owned()) } else { Err("must be 1 to 64 of a-z 0-9 _ - .".to_owned()) }
        }
    }
}

/// The name under which a document would be kept; what is `judged` was held against its kind before.
pub(crate) fn judge(
    state: &ClusterState,
    (kind, raw_name): (DocumentKind, &str),
    body: &Value,
    (expect, judged): (Option<u64>, bool),
) -> Result<String, Rejection> {
    let name = match normalise_name(kind, raw_name) {
        _ if judged => raw_name.to_owned(),
        Ok(name) => name,
        Err(what) => return fault(format!("{}/{raw_name}", kind.as_str()), what),
    };
    let mut faults = Faults::default();
    check_references(state, (kind, &name), body, &mut faults);
    if !judged {
        check_body(state, (kind, &name), body, &mut faults);
    }
    faults.check()?;
    let have = state.document(kind, &name).map_or(0, |old| old.revision);
    if let Some(expect) = expect.filter(|expect| *expect != have) {
        let text = match (expect, have) {
            (0, _) => format!("{} {name} exists already", kind.as_str()),
            (_, 0) => format!("{} {name} does not exist any more", kind.as_str()),
            _ => format!("{} {name} is at revision {have}, not {expect}", kind.as_str()),
        };
        return Err(Rejection::Conflict(text));
    }
    Ok(name)
}

pub(crate) fn put(
    next: &mut ClusterState,
    (kind, raw_name): (DocumentKind, &str),
    body: &Value,
    (expect, judged): (Option<u64>, bool),
) -> Result<(), Rejection> {
    let name = judge(next, (kind, raw_name), body, (expect, judged))?;
    let created = next.document(kind, &name).map_or(next.revision, |old| old.created);
    let document = Document { schema: SCHEMA, body: body.clone(), revision: next.revision, created };
    next.documents.entry(kind).or_default().insert(name, document);
    Ok(())
}

pub(crate) fn remove(next: &mut ClusterState, kind: DocumentKind, raw_name: &str) -> Result<(), Rejection> {
    let place = format!("{}/{raw_name}", kind.as_str());
    let name = match normalise_name(kind, raw_name) {
        Ok(name) => name,
        Err(what) => return fault(place, what),
    };
    if next.document(kind, &name).is_none() {
        return fault(place, "does not exist");
    }
    if kind == DocumentKind::Domain {
        let mut faults = Faults::default();
        for user in [DocumentKind::Account, DocumentKind::Alias] {
            let inside = |n: &&String| n.rsplit_once('@').is_some_and(|(_, domain)| domain == name);
            let count = next.documents.get(&user).map_or(0, |all| all.keys().filter(inside).count());
            faults.require(count == 0, &place, format!("still has {count} {} document(s)", user.as_str()));
        }
        faults.check()?;
    }
    if let Some(all) = next.documents.get_mut(&kind) {
        all.remove(&name);
    }
    Ok(())
}

/// What other documents have to do with it. Judged whenever it is applied, as another change may have come before; so no
/// more is read of a body than programs of all versions read alike.
fn check_references(state: &ClusterState, (kind, name): (DocumentKind, &str), body: &Value, faults: &mut Faults) {
    let place = format!("{}/{name}", kind.as_str());
    match kind {
        DocumentKind::Domain => {
            if let Ok(domain) = serde_json::from_value::<DomainBody>(body.clone()) {
                check_domain(state, name, &domain, faults);
            }
        }
        DocumentKind::Account => check_address(state, (kind, name), &place, faults),
        DocumentKind::Alias => {
            check_address(state, (kind, name), &place, faults);
            if let Ok(alias) = serde_json::from_value::<AliasBody>(body.clone()) {
                check_circles(state, name, &alias, faults);
            }
        }
        DocumentKind::Setting => {}
    }
}

/// What this program knows of bodies of this kind.
fn check_body(state: &ClusterState, (kind, name): (DocumentKind, &str), body: &Value, faults: &mut Faults) {
    let place = format!("{}/{name}", kind.as_str());
    match kind {
        DocumentKind::Domain => drop(parse_body::<DomainBody>(body, &place, faults)),
        DocumentKind::Account => {
            if let Some(account) = parse_body::<AccountBody>(body, &place, faults) {
                let quota = account.quota_bytes != Some(0);
                faults.require(quota, format!("{place}/body/quota_bytes"), "must be above 0, or absent for no limit");
                let printable = !account.name.chars().any(char::is_control);
                faults.require(printable, format!("{place}/body/name"), "must be printable text");
            }
        }
        DocumentKind::Alias => {
            if let Some(alias) = parse_body::<AliasBody>(body, &place, faults) {
                check_targets(name, &alias, faults);
            }
        }
        DocumentKind::Setting => {
            faults.require(!body.is_null(), format!("{place}/body"), "is null; remove it instead");
            match name {
                HOMES_SETTING => drop(parse_body::<HomesBody>(body, &place, faults)),
                ALERTS_SETTING => {
                    if let Some(alerts) = parse_body::<AlertsBody>(body, &place, faults) {
                        alert_setting::check(&alerts, &place, faults);
                    }
                }
                CERTIFICATES_SETTING => {
                    if let Some(certificates) = parse_body::<CertificatesBody>(body, &place, faults) {
                        certificates::check(&certificates, &place, faults);
                    }
                }
                LOG_SETTING => {
                    if let Some(log) = parse_body::<LogBody>(body, &place, faults) {
                        log_setting::check(&log, &place, faults);
                    }
                }
                LOAD_SETTING => {
                    let weights = parse_body::<LoadBody>(body, &place, faults).unwrap_or_default().weights;
                    for (node, weight) in weights {
                        let place = format!("{place}/body/weights/{node}");
                        let known = state.members.get(&NodeId(node)).is_some_and(|member| member.data);
                        faults.require(known, &place, "no node with mail has this id");
                        faults.require(weight <= LOAD_WEIGHT_MAX, place, format!("is above {LOAD_WEIGHT_MAX}"));
                    }
                }
                PRIMARY_SETTING => {
                    let primary = parse_body::<PrimaryBody>(body, &place, faults).unwrap_or_default();
                    let known = |node| state.members.get(&NodeId(node)).is_some_and(|member| member.data);
                    let fits = primary.node.is_none_or(known);
                    faults.require(fits, format!("{place}/body/node"), "no node with mail has this id");
                    let settle = (1..=SETTLE_S_MAX).contains(&primary.settle_s);
                    faults.require(settle, format!("{place}/body/settle_s"), format!("must be 1 to {SETTLE_S_MAX}"));
                }
                _ => {}
            }
        }
    }
}

/// Reports every unknown field by its place, then whatever else serde finds.
fn parse_body<T: DeserializeOwned>(body: &Value, place: &str, faults: &mut Faults) -> Option<T> {
    let mut unknown = |path: serde_ignored::Path<'_>| {
        let path = path.to_string().replace('.', "/");
        faults.add(
            format!("{place}/body/{path}"),
            "is unknown here (misspelt, or of a newer program than the primary's)",
        );
    };
    match serde_ignored::deserialize(body.clone(), &mut unknown) {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            faults.add(format!("{place}/body"), error.to_string());
            None
        }
    }
}

fn check_domain(state: &ClusterState, name: &str, domain: &DomainBody, faults: &mut Faults) {
    if let Some(other) = state.default_domain().filter(|other| domain.default && other.as_str() != name) {
        let what = format!("{other} is the default domain already; take it from there first");
        faults.add(format!("domain/{name}/body/default"), what);
    }
}

/// An own address: its domain exists, and it is not an account and an alias at once.
fn check_address(state: &ClusterState, (kind, name): (DocumentKind, &str), place: &str, faults: &mut Faults) {
    let domain = name.rsplit_once('@').map_or("", |(_, domain)| domain);
    let known = state.document(DocumentKind::Domain, domain).is_some();
    faults.require(known, place, format!("the domain {domain} does not exist; add it first"));
    let other = if kind == DocumentKind::Account { DocumentKind::Alias } else { DocumentKind::Account };
    let free = state.document(other, name).is_none();
    faults.require(free, place, format!("there is an {} of this name already", other.as_str()));
}

fn check_targets(name: &str, alias: &AliasBody, faults: &mut Faults) {
    let place = format!("alias/{name}/body/targets");
    let count = alias.targets.len();
    faults.require(count > 0, &place, "needs at least one address");
    faults.require(count <= ALIAS_TARGETS_MAX, &place, format!("more than {ALIAS_TARGETS_MAX} addresses"));
    for (number, target) in alias.targets.iter().enumerate() {
        if let Err(what) = Address::parse(target) {
            faults.add(format!("{place}/{number}"), format!("{target} is no address: {what}"));
        }
    }
}

fn check_circles(state: &ClusterState, name: &str, alias: &AliasBody, faults: &mut Faults) {
    for (number, target) in alias.targets.iter().enumerate() {
        if Address::parse(target).is_ok_and(|address| leads_to(state, &address_key(&address), name)) {
            let place = format!("alias/{name}/body/targets/{number}");
            faults.add(place, format!("{target} leads back to this alias"));
        }
    }
}

/// Whether expanding `from` through the aliases that exist reaches `goal`.
fn leads_to(state: &ClusterState, from: &str, goal: &str) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(key) = open.pop() {
        if key == goal {
            return true;
        }
        if let Some(document) = state.document(DocumentKind::Alias, &key).filter(|_| seen.insert(key.clone())) {
            let body = serde_json::from_value::<AliasBody>(document.body.clone());
            let targets = body.map(|body| body.targets).unwrap_or_default();
            open.extend(targets.iter().filter_map(|t| Address::parse(t).ok()).map(|a| address_key(&a)));
        }
    }
    false
}
