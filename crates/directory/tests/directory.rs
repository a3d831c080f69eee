//! The directory over a configuration and accounts in memory.

use std::sync::Arc;

use directory::AccountDirectory;
use mailbox::op::AccountOp;
use ports::accounts::Accounts as _;
use ports::config::Config as _;
use ports::directory::{AddressClass, Directory as _, Identity, Login, PASSWORD_DOCUMENT, Target};
use serde_json::json;
use testkit::fake_accounts::FakeAccounts;
use testkit::fake_config::FakeConfig;
use topology::DocumentKind;
use vocab::{AccountId, Address, ForwardPath};

struct House {
    config: Arc<FakeConfig>,
    accounts: Arc<FakeAccounts>,
    directory: AccountDirectory,
}

impl House {
    fn new() -> Self {
        let (config, accounts) = (FakeConfig::founded(), Arc::new(FakeAccounts::default()));
        config.put(DocumentKind::Domain, "example.org", json!({"default": true}));
        config.put(DocumentKind::Domain, "example.net", json!({}));
        for name in ["ann@example.org", "bob@example.org", "cat@example.net"] {
            config.put(DocumentKind::Account, name, json!({}));
        }
        let directory = AccountDirectory::new(config.clone(), accounts.clone());
        Self { config, accounts, directory }
    }
    fn alias(&self, name: &str, targets: &[&str]) {
        self.config.put(DocumentKind::Alias, name, json!({ "targets": targets }));
    }
    fn id(&self, name: &str) -> AccountId {
        self.config.current().account_id(&address(name)).expect("account")
    }
    async fn classify(&self, path: &str) -> AddressClass {
        let path = if path.is_empty() { ForwardPath::Postmaster } else { ForwardPath::Address(address(path)) };
        self.directory.classify(&path).await.expect("available")
    }
    fn local(&self, names: &[&str]) -> AddressClass {
        AddressClass::Own(names.iter().map(|name| Target::Local(self.id(name))).collect())
    }
    async fn set_password(&self, name: &str, password: &str) {
        let body = Some(self.directory.hash_password(password).await);
        let id = self.id(name);
        for op in
            [AccountOp::Init, AccountOp::SetDocument { kind: PASSWORD_DOCUMENT.into(), name: String::new(), body }]
        {
            self.accounts.submit(id, self.accounts.command_id(), op).await.expect("submit");
        }
    }
    async fn login(&self, login: &str, password: &str) -> bool {
        matches!(self.directory.authenticate(login, password).await.expect("available"), Login::Accepted(_))
    }
}

fn address(text: &str) -> Address {
    Address::parse(text).expect("address")
}

#[tokio::test]
async fn accounts_are_found_without_regard_to_case_and_detail() {
    let house = House::new();
    for path in ["bob@example.org", "BOB@EXAMPLE.ORG", "Bob+lists@example.org"] {
        assert_eq!(house.classify(path).await, house.local(&["bob@example.org"]), "{path}");
    }
    assert_eq!(house.classify("nobody@example.org").await, AddressClass::NoSuchUser);
    assert_eq!(house.classify("bob@example.net").await, AddressClass::NoSuchUser);
    assert_eq!(house.classify("bob@elsewhere.example").await, AddressClass::NotOurs);
    house.config.put(DocumentKind::Account, "bob@example.org", json!({"enabled": false}));
    assert_eq!(house.classify("bob@example.org").await, AddressClass::Disabled);
}

#[tokio::test]
async fn aliases_are_expanded_once_each_even_in_circles() {
    let house = House::new();
    house.alias("team@example.org", &["ann@example.org", "BOB@example.org", "x@elsewhere.example"]);
    house.alias("all@example.net", &["team@example.org", "cat@example.net", "ann@example.org"]);
    let team = AddressClass::Own(vec![
        Target::Local(house.id("ann@example.org")),
        Target::Local(house.id("bob@example.org")),
        Target::Remote(address("x@elsewhere.example")),
    ]);
    assert_eq!(house.classify("Team+a@example.org").await, team);
    let AddressClass::Own(all) = house.classify("all@example.net").await else { panic!("own") };
    assert_eq!(all.len(), 4);
    // A chain longer than the limit leads nowhere instead of for ever.
    for n in (0..40).rev() {
        let next = if n == 39 { "ann@example.org".to_owned() } else { format!("a{}@example.org", n + 1) };
        house.alias(&format!("a{n}@example.org"), &[&next]);
    }
    assert_eq!(house.classify("a39@example.org").await, house.local(&["ann@example.org"]));
    assert_eq!(house.classify("a0@example.org").await, AddressClass::NoSuchUser);
}

#[tokio::test]
async fn postmaster_is_always_taken() {
    let house = House::new();
    for path in ["", "postmaster@example.org", "PostMaster@example.net"] {
        assert_eq!(house.classify(path).await, house.local(&["ann@example.org"]), "oldest account, {path}");
    }
    house.config.put(DocumentKind::Setting, "postmaster", json!("bob@example.org"));
    assert_eq!(house.classify("postmaster@example.net").await, house.local(&["bob@example.org"]));
    house.alias("postmaster@example.org", &["cat@example.net"]);
    assert_eq!(house.classify("").await, house.local(&["cat@example.net"]), "an alias of that name comes first");
    assert_eq!(house.classify("postmaster@elsewhere.example").await, AddressClass::NotOurs);
}

#[tokio::test]
async fn logins_by_address_or_local_part_in_the_default_domain() {
    let house = House::new();
    house.set_password("bob@example.org", "geheim").await;
    house.set_password("cat@example.net", "miau").await;
    for login in ["bob@example.org", "BOB@Example.Org", "bob", "Bob"] {
        assert!(house.login(login, "geheim").await, "{login}");
    }
    assert!(house.login("cat@example.net", "miau").await);
    for (login, password) in [
        ("bob", "Geheim"),
        ("bob", ""),
        ("cat", "miau"),
        ("bob+x", "geheim"),
        ("nobody", "geheim"),
        ("ann", ""),
        ("\u{0}", "x"),
    ] {
        assert!(!house.login(login, password).await, "{login}");
    }
}

#[tokio::test]
async fn a_changed_password_and_a_switched_off_account_count_at_once() {
    let house = House::new();
    house.set_password("bob@example.org", "old").await;
    assert!(house.login("bob", "old").await && house.login("bob", "old").await);
    house.set_password("bob@example.org", "new").await;
    assert!(!house.login("bob", "old").await);
    assert!(house.login("bob", "new").await);
    house.config.put(DocumentKind::Account, "bob@example.org", json!({"enabled": false}));
    assert!(!house.login("bob", "new").await);
    house.config.put(DocumentKind::Account, "bob@example.org", json!({}));
    house.accounts.set_unavailable(true);
    assert!(house.directory.authenticate("bob", "new").await.is_err(), "never refused when it cannot be checked");
}

#[tokio::test]
async fn an_unknown_name_costs_as_much_as_a_wrong_password() {
    let house = House::new();
    house.set_password("bob@example.org", "right").await;
    assert!(!house.login("nobody", "wrong").await, "makes the hash nobody has");
    let mut spent = [std::time::Duration::ZERO; 2];
    for _ in 0..3 {
        for (at, login) in ["bob", "nobody"].into_iter().enumerate() {
            let begin = std::time::Instant::now();
            assert!(!house.login(login, "wrong").await);
            spent[at] += begin.elapsed();
        }
    }
    // A skipped hash would be a thousand times faster; the factor leaves room for a busy machine.
    assert!(spent[1] * 10 > spent[0], "{spent:?}");
}

#[tokio::test]
async fn only_own_addresses_may_be_used_as_sender() {
    let house = House::new();
    house.alias("team@example.org", &["ann@example.org", "bob@example.org"]);
    let bob = Identity { account: house.id("bob@example.org"), address: address("bob@example.org") };
    let may = |text: &str| house.directory.may_send_as(&bob, &address(text));
    assert!(may("bob@example.org") && may("BOB+x@example.org") && may("team@example.org"));
    assert!(!may("ann@example.org") && !may("bob@example.net") && !may("bob@elsewhere.example"));
    assert!(!may("postmaster@example.org"), "not his merely because it falls to somebody");
}
