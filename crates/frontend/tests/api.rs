//! The administrator's API, request by request.

mod fakes;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use fakes::{House, TOKEN};
use frontend::context::FrontendContext;
use ports::accounts::Accounts as _;
use ports::cluster::BranchStatus;
use ports::config::Config as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use vocab::{AccountId, Address};

struct Caller {
    house: House,
    router: Router,
    _folder: tempfile::TempDir,
}

impl Caller {
    fn new() -> Self {
        let (house, folder) = (House::new(), tempfile::tempdir().expect("folder"));
        let context = FrontendContext::new(house.ports(), fakes::settings(folder.path()));
        let router = frontend::http::router(context, house.administration());
        Self { house, router, _folder: folder }
    }
    async fn call(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {TOKEN}"));
        let response =
            self.router.clone().oneshot(request.body(Body::from(body)).expect("request")).await.expect("answer");
        let status = response.status();
        let kind = response.headers().get("content-type").map(|v| v.to_str().expect("text").to_owned());
        if status.is_client_error() || (status.is_server_error() && !path.starts_with("/health")) {
            assert_eq!(kind.as_deref(), Some("application/problem+json"));
        }
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("body");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::String(text)))
    }
    async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, value) = self.call(method, path, body).await;
        assert!(status.is_success(), "{method} {path}: {status} {value}");
        value
    }
    async fn refused(&self, status: u16, method: &str, path: &str, body: Value) -> Value {
        let (got, value) = self.call(method, path, body).await;
        assert_eq!(got.as_u16(), status, "{method} {path}: {value}");
        value
    }
    fn account(&self, address: &str) -> Option<AccountId> {
        self.house.config.current().account_id(&Address::parse(address).expect("address"))
    }
}

#[tokio::test]
async fn the_token_is_wanted_where_it_should_be() {
    let caller = Caller::new();
    for (path, open) in [
        ("/api/v1/cluster", false),
        ("/api/v1/accounts", false),
        ("/metrics", false),
        ("/health/live", true),
        ("/health/ready", true),
        ("/api/v1/openapi.json", true),
    ] {
        for header in [None, Some("Bearer wrong"), Some("Basic 0123456789abcdef"), Some("Bearer ")] {
            let mut request = Request::builder().uri(path);
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            let request = request.body(Body::empty()).expect("request");
            let status = caller.router.clone().oneshot(request).await.expect("answer").status();
            assert_eq!(status == StatusCode::OK, open, "{path} {header:?} {status}");
            assert!(open || status == StatusCode::UNAUTHORIZED);
        }
    }
    assert_eq!(caller.ok("GET", "/metrics", Value::Null).await, json!("twinpost_test 1\n"));
    caller.refused(404, "GET", "/api/v1/nothing", Value::Null).await;
    caller.refused(405, "PUT", "/api/v1/queue", Value::Null).await;
}

#[tokio::test]
async fn domains_accounts_and_aliases_live_and_die() {
    let caller = Caller::new();
    let made = caller.ok("POST", "/api/v1/domains", json!({"name": "Exämple.org", "default": true})).await;
    assert_eq!(made["name"], "xn--exmple-cua.org");
    caller.ok("POST", "/api/v1/domains", json!({"name": "example.org"})).await;
    let bob = json!({"address": "Bob@example.org", "password": "geheim", "name": "Bob", "quota_bytes": 1000});
    let made = caller.ok("POST", "/api/v1/accounts", bob.clone()).await;
    assert_eq!(
        (&made["address"], &made["name"], &made["quota_bytes"]),
        (&json!("bob@example.org"), &json!("Bob"), &json!(1000))
    );
    assert!(!made.to_string().contains("geheim"));
    let id = caller.account("bob@example.org").expect("made");
    assert!(caller.house.accounts.exists(id));
    let changed = json!({"enabled": false, "quota_bytes": null});
    let changed = caller.ok("PATCH", "/api/v1/accounts/bob@example.org", changed).await;
    assert_eq!(
        (&changed["name"], &changed["enabled"], &changed["quota_bytes"]),
        (&json!("Bob"), &json!(false), &Value::Null)
    );
    caller.ok("POST", "/api/v1/aliases", json!({"address": "all@example.org", "targets": ["bob@example.org"]})).await;
    let changed = json!({"targets": ["bob@example.org", "x@elsewhere.example"]});
    assert_eq!(
        caller.ok("PATCH", "/api/v1/aliases/all@example.org", changed).await["targets"][1],
        "x@elsewhere.example"
    );
    let domain = caller.refused(422, "DELETE", "/api/v1/domains/example.org", Value::Null).await;
    assert_eq!(domain["faults"].as_array().map(Vec::len), Some(2), "account and alias are told: {domain}");
    assert_eq!(caller.ok("GET", "/api/v1/accounts", Value::Null).await["accounts"].as_array().map(Vec::len), Some(1));
    for path in ["aliases/all@example.org", "accounts/bob%40example.org", "domains/example.org"] {
        caller.ok("DELETE", &format!("/api/v1/{path}"), Value::Null).await;
        caller.refused(404, "GET", &format!("/api/v1/{path}"), Value::Null).await;
    }
    assert!(!caller.house.accounts.exists(id), "its mail is gone");
    caller.ok("PUT", "/api/v1/settings/relay_host", json!({"value": "mx.example.net"})).await;
    assert_eq!(caller.ok("GET", "/api/v1/settings/relay_host", Value::Null).await["value"], "mx.example.net");
    caller.ok("DELETE", "/api/v1/settings/relay_host", Value::Null).await;
}

#[tokio::test]
async fn every_fault_is_told_with_its_place() {
    let caller = Caller::new();
    let body = json!({"password": 5, "nam": "x", "quota_bytes": "many"});
    let problem = caller.refused(422, "POST", "/api/v1/accounts", body).await;
    let places: Vec<&str> =
        problem["faults"].as_array().expect("faults").iter().filter_map(|f| f["place"].as_str()).collect();
    assert_eq!(places, ["body/address", "body/password", "body/quota_bytes", "body/nam"]);
    for bad in ["[]", "{", "\u{1}"] {
        let request = Request::post("/api/v1/domains").header("authorization", format!("bearer {TOKEN}"));
        let response =
            caller.router.clone().oneshot(request.body(Body::from(bad)).expect("request")).await.expect("answer");
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
    let problem =
        caller.refused(422, "POST", "/api/v1/accounts", json!({"address": "a@nowhere.example", "password": "x"})).await;
    assert!(problem["faults"][0]["what"].as_str().expect("what").contains("add it first"), "{problem}");
    assert_eq!(caller.account("a@nowhere.example"), None);
    caller.refused(422, "GET", "/api/v1/accounts/no-address", Value::Null).await;
}

#[tokio::test]
async fn without_quorum_changes_are_refused_with_the_reason_and_reads_go_on() {
    let caller = Caller::new();
    caller.ok("POST", "/api/v1/domains", json!({"name": "example.org"})).await;
    caller.house.config.lock(Some("node 2 is not reachable; bring it back or run cluster start-alone"));
    let problem = caller.refused(503, "POST", "/api/v1/domains", json!({"name": "example.net"})).await;
    assert!(problem["detail"].as_str().expect("detail").contains("start-alone"));
    assert_eq!(caller.ok("GET", "/api/v1/domains", Value::Null).await["domains"][0]["name"], "example.org");
}

#[tokio::test]
async fn an_account_whose_creation_broke_off_is_completed_by_the_same_request() {
    let caller = Caller::new();
    caller.ok("POST", "/api/v1/domains", json!({"name": "example.org"})).await;
    let bob = json!({"address": "bob@example.org", "password": "geheim"});
    caller.house.accounts.set_unavailable(true);
    caller.refused(503, "POST", "/api/v1/accounts", bob.clone()).await;
    caller.house.accounts.set_unavailable(false);
    caller.ok("POST", "/api/v1/accounts", bob.clone()).await;
    assert!(caller.house.accounts.exists(caller.account("bob@example.org").expect("made")));
    caller.refused(409, "POST", "/api/v1/accounts", bob).await;
}

#[tokio::test]
async fn archived_branches_are_listed_with_their_address_and_deleted_by_hand() {
    let caller = Caller::new();
    let path = "/api/v1/branches";
    assert_eq!(caller.ok("GET", path, Value::Null).await, json!({"branches": []}));
    caller.ok("POST", "/api/v1/domains", json!({"name": "example.org"})).await;
    caller.ok("POST", "/api/v1/accounts", json!({"address": "bob@example.org", "password": "geheim"})).await;
    let account = caller.account("bob@example.org").expect("made").0;
    let branch = |id: &str, account| BranchStatus {
        id: id.to_owned(),
        account,
        archived_ms: 1_700_000_000_000,
        expires_ms: 1_702_592_000_000,
        bytes: 4_711,
        bodies: 2,
    };
    *caller.house.cluster.branches.lock().expect("lock") = vec![branch("a-1", account), branch("b-2", 9_999)];
    let listed = caller.ok("GET", path, Value::Null).await;
    let first = json!({
        "id": "a-1", "account": account, "address": "bob@example.org", "bytes": 4_711, "bodies": 2,
        "archived": "2023-11-14T22:13:20Z", "expires": "2023-12-14T22:13:20Z",
    });
    assert_eq!(listed["branches"][0], first);
    assert_eq!((&listed["branches"][1]["address"], &listed["branches"][1]["account"]), (&Value::Null, &json!(9_999)));
    caller.ok("DELETE", "/api/v1/branches/a-1", Value::Null).await;
    caller.refused(404, "DELETE", "/api/v1/branches/a-1", Value::Null).await;
    let left = caller.ok("GET", path, Value::Null).await;
    assert_eq!(left["branches"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn ha_17_what_an_expunge_won_over_a_change_is_listed_and_restored() {
    let caller = Caller::new();
    caller.ok("POST", "/api/v1/domains", json!({"name": "example.org"})).await;
    caller.ok("POST", "/api/v1/accounts", json!({"address": "bob@example.org", "password": "geheim"})).await;
    let path = "/api/v1/accounts/bob@example.org/recovery";
    assert_eq!(caller.ok("GET", path, Value::Null).await, json!({"recovery": []}));
    let account = caller.account("bob@example.org").expect("made");
    caller.house.accounts.deliver(account, "", "From: a@example.net\r\nSubject: kept\r\n\r\n");
    caller.house.accounts.deliver(account, "", "From: a@example.net\r\nSubject: lost\r\n\r\n");
    caller.house.accounts.lose_newest(account);
    let listed = caller.ok("GET", path, Value::Null).await;
    let item = &listed["recovery"][0];
    assert_eq!((&item["mailbox"], &item["subject"], &item["size"]), (&json!("INBOX"), &json!("lost"), &json!(38)));
    assert!(item["from"].as_str().expect("from").contains("a@example.net"), "{item}");
    assert_eq!((&item["expunged"], &item["expires"]), (&json!("2023-11-14T22:13:20Z"), &json!("2023-11-28T22:13:20Z")));
    let restore = format!("{path}/{}/restore", item["id"].as_str().expect("id"));
    caller.house.accounts.set_unavailable(true);
    caller.refused(503, "GET", path, Value::Null).await;
    caller.refused(503, "POST", &restore, Value::Null).await;
    caller.house.accounts.set_unavailable(false);
    caller.ok("POST", &restore, Value::Null).await;
    assert_eq!(caller.ok("GET", path, Value::Null).await, json!({"recovery": []}));
    let rows = caller.house.accounts.snapshot(account).await.expect("available");
    let inbox = mailbox::read::mailbox_by_name(&*rows, "INBOX").expect("sound").expect("INBOX");
    assert_eq!(inbox.counts.messages, 2);
    caller.refused(404, "POST", &restore, Value::Null).await;
    caller.refused(404, "POST", &format!("{path}/0/restore"), Value::Null).await;
    caller.refused(404, "GET", "/api/v1/accounts/eve@example.org/recovery", Value::Null).await;
}

#[tokio::test]
async fn cluster_queue_tokens_and_health() {
    let caller = Caller::new();
    assert_eq!(caller.ok("GET", "/api/v1/cluster", Value::Null).await["mode"], "joined");
    assert_eq!(caller.ok("POST", "/api/v1/cluster/tokens", json!({})).await["token"], "one-use");
    let plan = caller.ok("POST", "/api/v1/cluster/tokens", json!({"dry_run": true})).await;
    assert_eq!((&plan["token"], &plan["next_node"]), (&Value::Null, &json!(2)));
    let item = &caller.ok("GET", "/api/v1/queue", Value::Null).await["queue"][0];
    assert_eq!(
        (&item["recipient"], &item["accepted_at"]),
        (&json!("x@elsewhere.example"), &json!("2023-11-14T22:13:20Z"))
    );
    let primary = "/api/v1/cluster/primary";
    assert_eq!(caller.ok("GET", primary, Value::Null).await["node"], Value::Null);
    caller.refused(422, "PUT", primary, json!({"node": 77, "dry_run": true})).await;
    caller.refused(422, "PUT", primary, json!({"node": "one"})).await;
    caller.refused(422, "POST", "/api/v1/cluster/start-alone", json!({"confirm": "tset"})).await;
    assert!(!*caller.house.cluster.alone.lock().expect("lock"));
    caller.ok("POST", "/api/v1/cluster/start-alone", json!({"confirm": "test"})).await;
    assert!(*caller.house.cluster.alone.lock().expect("lock"));
    assert_eq!(caller.call("GET", "/health/primary", Value::Null).await.0, StatusCode::SERVICE_UNAVAILABLE);
    caller.house.cluster.holds.send_replace(true);
    caller.ok("GET", "/health/primary", Value::Null).await;
    caller.house.cluster.serving.send_replace(false);
    assert_eq!(caller.call("GET", "/health/ready", Value::Null).await.0, StatusCode::SERVICE_UNAVAILABLE);
    caller.ok("GET", "/health/live", Value::Null).await;
}

#[tokio::test]
async fn ha_19_the_cluster_addresses_are_changed_or_refused_with_the_place() {
    let caller = Caller::new();
    let path = "/api/v1/cluster/address";
    caller.house.config.set_cluster_address(Some("192.0.2.10".into()));
    assert_eq!(caller.ok("GET", path, Value::Null).await["addresses"], json!(["192.0.2.10"]));
    let own = caller.house.config.current().members.values().next().expect("a member").address.clone();
    for (addresses, place) in [
        (json!(["192.0.2.10", "x"]), "body/addresses/1"),
        (json!(["192.0.2.20/33"]), "body/addresses/0"),
        (json!([own]), "addresses/0"),
        (json!(["2001:db8::1", "192.0.2.20", "192.0.2.21"]), "addresses/2"),
        (json!(["2001:db8::1", "192.0.2.99"]), "addresses/1"),
    ] {
        for dry_run in [true, false] {
            let body = json!({ "addresses": addresses, "dry_run": dry_run });
            let problem = caller.refused(422, "PUT", path, body).await;
            assert_eq!(problem["faults"][0]["place"], place, "{problem}");
        }
    }
    let wanted = json!(["192.0.2.20/24", "2001:db8::20/64"]);
    let plan = caller.ok("PUT", path, json!({ "addresses": wanted, "dry_run": true })).await;
    assert_eq!((&plan["before"], &plan["addresses"]), (&json!(["192.0.2.10"]), &wanted));
    let (then, checks) = (plan["then"].to_string(), plan["checks"].to_string());
    assert!(then.contains("192.0.2.20/24 and 2001:db8::20/64") && then.contains("lets 192.0.2.10 go"), "{then}");
    assert!(checks.contains("nobody has it") && plan["look_at"].to_string().contains("PTR"), "{plan}");
    assert_eq!(
        caller.ok("GET", path, Value::Null).await["addresses"],
        json!(["192.0.2.10"]),
        "a dry run changes nothing"
    );
    caller.ok("PUT", path, json!({ "addresses": wanted })).await;
    let shown = caller.ok("GET", path, Value::Null).await;
    assert_eq!((&shown["addresses"], &shown["then"], &shown["look_at"]), (&wanted, &json!([]), &json!([])));
    caller.house.config.lock(Some("no majority"));
    caller.refused(503, "PUT", path, json!({ "addresses": [] })).await;
}

#[tokio::test]
async fn ha_20_the_primary_is_chosen_among_the_nodes_in_sync() {
    let caller = Caller::new();
    let path = "/api/v1/cluster/switchover";
    let problem = caller.refused(422, "POST", path, json!({"to": 9})).await;
    assert!(problem.to_string().contains("body/to"), "{problem}");
    let problem = caller.refused(503, "POST", path, json!({"to": 3})).await;
    assert!(problem["detail"].as_str().expect("detail").contains("not in sync"), "{problem}");
    assert_eq!(caller.ok("POST", path, json!({"dry_run": true})).await, json!({"from": 1, "to": 2}));
    assert!(caller.house.cluster.switched.lock().expect("lock").is_none(), "a dry run does nothing");
    assert_eq!(caller.ok("POST", path, json!({"to": 2})).await, json!({"from": 1, "to": 2}));
    assert_eq!(*caller.house.cluster.switched.lock().expect("lock"), Some(vocab::NodeId(2)));
}

#[tokio::test]
async fn ha_16_members_go_by_the_word_of_an_operator_who_says_the_name() {
    let caller = Caller::new();
    let done = || caller.house.cluster.done.lock().expect("lock").clone();
    for path in ["leave", "remove", "rescue"] {
        let body = if path == "remove" { json!({"node": 2}) } else { json!({}) };
        let problem = caller.refused(422, "POST", &format!("/api/v1/cluster/{path}"), body).await;
        assert!(problem.to_string().contains("body/confirm"), "{problem}");
    }
    let problem = caller.refused(422, "POST", "/api/v1/cluster/remove", json!({"node": 9, "confirm": "test"})).await;
    assert!(problem.to_string().contains("body/node"), "{problem}");
    let problem = caller.refused(409, "POST", "/api/v1/cluster/remove", json!({"node": 3, "confirm": "test"})).await;
    assert!(problem["detail"].as_str().expect("detail").contains("heard"), "{problem}");
    caller.house.cluster.done.lock().expect("lock").clear();
    let plan = caller.ok("POST", "/api/v1/cluster/leave", json!({"dry_run": true})).await;
    assert_eq!((plan, done()), (json!({"node": 1, "home": 2, "look_at": []}), vec![]), "a dry run does nothing");
    caller.ok("POST", "/api/v1/cluster/leave", json!({"confirm": "test"})).await;
    caller.ok("POST", "/api/v1/cluster/remove", json!({"node": 2, "confirm": "test"})).await;
    let said = caller.ok("POST", "/api/v1/cluster/rescue", json!({"others_are_down": true, "confirm": "test"})).await;
    assert_eq!(said, json!({"node": 1, "without": [2]}));
    assert_eq!(done(), ["leave", "remove 2", "rescue Down"]);
}
