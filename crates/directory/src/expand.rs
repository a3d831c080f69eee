//! Where a forward-path leads: own domains, accounts, aliases with their limits, postmaster.

use std::collections::BTreeSet;

use ports::directory::{AddressClass, Target};
use topology::{Account, ClusterState, address_key};
use vocab::{AccountId, Address, ForwardPath, LocalPart};

/// Aliases that may follow one another.
const ALIAS_DEPTH_MAX: usize = 16;
/// Targets of one forward-path after expansion; further ones are cut (and logged).
const TARGETS_MAX: usize = 10_000;
/// Setting that names the address for postmaster mail.
const POSTMASTER_SETTING: &str = "postmaster";
const POSTMASTER: &str = "postmaster";

/// What the configuration says of a forward-path.
pub fn classify(state: &ClusterState, path: &ForwardPath) -> AddressClass {
    let address = match path {
        ForwardPath::Postmaster => match state.default_domain().or_else(|| state.domains().into_iter().next()) {
            Some(domain) => match LocalPart::parse(POSTMASTER) {
                Ok(local) => Address { local, domain },
                Err(_) => return AddressClass::NoSuchUser,
            },
            None => return postmaster(state),
        },
        ForwardPath::Address(address) => address.clone(),
    };
    if !state.is_own_domain(&address.domain) {
        return AddressClass::NotOurs;
    }
    match own(state, &address) {
        // Postmaster always exists (RFC 5321 §4.5.1), also when its account is switched off.
        AddressClass::NoSuchUser | AddressClass::Disabled if address.local.folded() == POSTMASTER => postmaster(state),
        class => class,
    }
}

fn own(state: &ClusterState, address: &Address) -> AddressClass {
    if let Some(account) = state.account(address) {
        return match account.body.enabled {
            true => AddressClass::Own(vec![Target::Local(account.id)]),
            false => AddressClass::Disabled,
        };
    }
    if state.alias(address).is_none() {
        return AddressClass::NoSuchUser;
    }
    let mut found = Expansion::default();
    found.alias(state, address, 0);
    match (found.targets.is_empty(), found.disabled) {
        (false, _) => AddressClass::Own(found.targets),
        (true, true) => AddressClass::Disabled,
        (true, false) => AddressClass::NoSuchUser,
    }
}

#[derive(Default)]
struct Expansion {
    targets: Vec<Target>,
    seen: BTreeSet<String>,
    disabled: bool,
}

impl Expansion {
    /// Follows one alias; a name met before adds nothing, so circles end.
    fn alias(&mut self, state: &ClusterState, address: &Address, depth: usize) {
        if depth > ALIAS_DEPTH_MAX {
            tracing::warn!(%address, "aliases nested too deeply: not followed");
            return;
        }
        for target in state.alias(address).unwrap_or_default() {
            if self.targets.len() >= TARGETS_MAX {
                tracing::warn!(%address, "alias with too many addresses: cut");
                return;
            }
            let own = state.is_own_domain(&target.domain);
            let key = if own { address_key(&target) } else { target.to_string() };
            if !self.seen.insert(key) {
                continue;
            }
            match state.account(&target) {
                _ if !own => self.targets.push(Target::Remote(target)),
                Some(account) if account.body.enabled => self.targets.push(Target::Local(account.id)),
                Some(_) => self.disabled = true,
                None => self.alias(state, &target, depth + 1),
            }
        }
    }
}

/// Mail for a postmaster nobody created: the address of the setting `postmaster`, else the oldest enabled account.
fn postmaster(state: &ClusterState) -> AddressClass {
    let named = state.setting(POSTMASTER_SETTING).and_then(|value| Address::parse(value.as_str()?).ok());
    if let Some(address) = named {
        if !state.is_own_domain(&address.domain) {
            return AddressClass::Own(vec![Target::Remote(address)]);
        }
        if let found @ AddressClass::Own(_) = own(state, &address) {
            return found;
        }
    }
    let oldest = state.accounts().filter(|account| account.body.enabled).min_by_key(|account| account.id);
    oldest.map_or(AddressClass::NoSuchUser, |account| AddressClass::Own(vec![Target::Local(account.id)]))
}

/// The account of a login name: an address, or a local part in the default domain. Exact but for case: a login has no
/// "+detail".
pub fn login_account(state: &ClusterState, login: &str) -> Option<Account> {
    let address = match Address::parse(login) {
        Ok(address) => address,
        Err(_) => Address { local: LocalPart::parse(login).ok()?, domain: state.default_domain()? },
    };
    if address.local.as_str().to_lowercase() != address.local.folded() {
        return None;
    }
    state.account(&address)
}

/// Whether mail to `address` reaches this account, directly or through aliases.
pub fn leads_to(state: &ClusterState, address: &Address, account: AccountId) -> bool {
    let path = ForwardPath::Address(address.clone());
    match classify(state, &path) {
        // Postmaster mail that merely falls to the account by default gives no right to the name.
        AddressClass::Own(targets) => {
            targets.contains(&Target::Local(account)) && matches!(own(state, address), AddressClass::Own(_))
        }
        _ => false,
    }
}
