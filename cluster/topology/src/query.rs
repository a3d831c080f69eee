//! Questions that doors and engines ask of the configuration.

use serde_json::Value;
use vocab::{AccountId, Address, Domain, NodeId};

use crate::alert_setting::{ALERTS_SETTING, AlertsBody};
use crate::certificates::{CERTIFICATES_SETTING, CertificatesBody};
use crate::documents::{HOMES_SETTING, HomesBody, LOAD_SETTING, LoadBody, PRIMARY_SETTING, PrimaryBody, address_key};
use crate::log_setting::{LOG_SETTING, LogBody};
use crate::state::{AccountBody, AliasBody, ClusterState, Document, DocumentKind, DomainBody};

/// An account as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Id, never reused.
    pub id: AccountId,
    /// Its address in stored form (login name in full).
    pub address: Address,
    /// The rest.
    pub body: AccountBody,
}

impl ClusterState {
    /// The document under a normalised name.
    #[must_use]
    pub fn document(&self, kind: DocumentKind, name: &str) -> Option<&Document> {
        self.documents.get(&kind)?.get(name)
    }
    /// Every document of a kind, by name.
    pub fn documents_of(&self, kind: DocumentKind) -> impl Iterator<Item = (&str, &Document)> {
        self.documents.get(&kind).into_iter().flatten().map(|(name, document)| (name.as_str(), document))
    }
    /// Our domains, ascending.
    #[must_use]
    pub fn domains(&self) -> Vec<Domain> {
        self.documents_of(DocumentKind::Domain).filter_map(|(name, _)| Domain::parse(name).ok()).collect()
    }
    /// Whether we are responsible for this domain.
    #[must_use]
    pub fn is_own_domain(&self, domain: &Domain) -> bool {
        self.document(DocumentKind::Domain, domain.as_str()).is_some()
    }
    /// The domain whose accounts may log in by local part alone.
    #[must_use]
    pub fn default_domain(&self) -> Option<Domain> {
        let marked = |document: &Document| {
            serde_json::from_value::<DomainBody>(document.body.clone()).is_ok_and(|body| body.default)
        };
        let mut all = self.documents_of(DocumentKind::Domain);
        all.find(|(_, document)| marked(document)).and_then(|(name, _)| Domain::parse(name).ok())
    }
    /// The account with this address; case and "+detail" of the local part do not matter.
    #[must_use]
    pub fn account(&self, address: &Address) -> Option<Account> {
        let name = address_key(address);
        as_account(&name, self.document(DocumentKind::Account, &name)?)
    }
    /// Id of the account with this address.
    #[must_use]
    pub fn account_id(&self, address: &Address) -> Option<AccountId> {
        self.document(DocumentKind::Account, &address_key(address)).map(|document| AccountId(document.created))
    }
    /// The account with this id.
    #[must_use]
    pub fn account_by_id(&self, id: AccountId) -> Option<Account> {
        let mut all = self.documents_of(DocumentKind::Account);
        all.find(|(_, document)| document.created == id.0).and_then(|(name, document)| as_account(name, document))
    }
    /// Every account, by address.
    pub fn accounts(&self) -> impl Iterator<Item = Account> {
        self.documents_of(DocumentKind::Account).filter_map(|(name, document)| as_account(name, document))
    }
    /// What the alias of this address stands for, one step.
    #[must_use]
    pub fn alias(&self, address: &Address) -> Option<Vec<Address>> {
        let document = self.document(DocumentKind::Alias, &address_key(address))?;
        let body = serde_json::from_value::<AliasBody>(document.body.clone()).ok()?;
        Some(body.targets.iter().filter_map(|target| Address::parse(target).ok()).collect())
    }
    /// Who is told of alerts (setting [`ALERTS_SETTING`]); nobody unless said.
    #[must_use]
    pub fn alerts(&self) -> AlertsBody {
        let body = self.setting(ALERTS_SETTING).cloned();
        body.and_then(|body| serde_json::from_value(body).ok()).unwrap_or_default()
    }
    /// The exchange of the CA, if one is under way (setting [`CERTIFICATES_SETTING`]), with the revision of the setting.
    #[must_use]
    pub fn certificates(&self) -> (u64, CertificatesBody) {
        let document = self.document(DocumentKind::Setting, CERTIFICATES_SETTING);
        let body = document.and_then(|document| serde_json::from_value(document.body.clone()).ok());
        (document.map_or(0, |document| document.revision), body.unwrap_or_default())
    }
    /// What the log keeps and where it goes (setting [`LOG_SETTING`]).
    #[must_use]
    pub fn log(&self) -> LogBody {
        let body = self.setting(LOG_SETTING).cloned();
        body.and_then(|body| serde_json::from_value(body).ok()).unwrap_or_default()
    }
    /// How client connections are shared out (setting [`LOAD_SETTING`]).
    #[must_use]
    pub fn load(&self) -> LoadBody {
        let body = self.setting(LOAD_SETTING).cloned();
        body.and_then(|body| serde_json::from_value(body).ok()).unwrap_or_default()
    }
    /// Whether homes of shards are spread over the nodes in sync (setting [`HOMES_SETTING`]); together unless said.
    #[must_use]
    pub fn spreads_homes(&self) -> bool {
        let body = self.setting(HOMES_SETTING).cloned();
        body.and_then(|body| serde_json::from_value::<HomesBody>(body).ok()).is_some_and(|body| body.spread)
    }
    /// The preferred primary (setting [`PRIMARY_SETTING`]) with the revision of the setting; none when it names a node that is no
    /// member any more.
    #[must_use]
    pub fn primary(&self) -> Option<(u64, PrimaryBody)> {
        let document = self.document(DocumentKind::Setting, PRIMARY_SETTING)?;
        let body = serde_json::from_value::<PrimaryBody>(document.body.clone()).ok()?;
        let known = body.node.is_none_or(|node| self.members.contains_key(&NodeId(node)));
        known.then_some((document.revision, body))
    }
    /// The value of a cluster-wide setting.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&Value> {
        self.document(DocumentKind::Setting, name).map(|document| &document.body)
    }
}

fn as_account(name: &str, document: &Document) -> Option<Account> {
    Some(Account {
        id: AccountId(document.created),
        address: Address::parse(name).ok()?,
        body: serde_json::from_value(document.body.clone()).ok()?,
    })
}
