//! Metrics as a monitoring system meets them: promtool finds nothing to say about them, a real Prometheus scrapes both nodes,
//! and the dashboard's questions have answers. `TWINPOST_PROMETHEUS` is the folder with both programs (tests/prometheus.sh).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::mail;
use node::demo::pair::Pair;
use serde_json::Value;

/// How long Prometheus may take to have scraped both nodes.
const SCRAPED_LIMIT: Duration = Duration::from_secs(60);

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The programs, if this machine has them.
fn programs() -> Option<PathBuf> {
    let folder = std::env::var_os("TWINPOST_PROMETHEUS").map(PathBuf::from);
    let found = folder.filter(|folder| folder.join("promtool").exists() && folder.join("prometheus").exists());
    if found.is_none() {
        println!("not checked: no promtool and no prometheus (TWINPOST_PROMETHEUS, see tests/prometheus.sh)");
    }
    found
}

fn lint(promtool: &Path, text: &str) {
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    child.stdin.take().expect("input").write_all(text.as_bytes()).expect("written");
    let done = child.wait_with_output().expect("promtool ends");
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && said.trim().is_empty(), "promtool: {said}\n{text}");
}

/// Prometheus on a free port of loopback, told to scrape both nodes with the administrator's token.
fn start(prometheus: &Path, pair: &Pair, folder: &Path) -> (Running, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let data = pair.nodes[0].data_dir();
    let targets: Vec<String> =
        pair.nodes.iter().map(|node| format!("'{}:{}'", node.address, pair.ports.https)).collect();
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: twinpost\n  scheme: https\n  \
         authorization: {{credentials_file: {data}/admin.token}}\n  tls_config: {{ca_file: {data}/ca.pem}}\n  \
         static_configs: [{{targets: [{targets}]}}]\n",
        data = data.display(),
        targets = targets.join(", "),
    );
    let file = folder.join("prometheus.yml");
    std::fs::write(&file, config).expect("written");
    let child = Command::new(prometheus)
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join("prometheus.log")).expect("log"))
        .spawn()
        .expect("prometheus");
    (Running(child), format!("http://127.0.0.1:{port}/api/v1"))
}

async fn ask(base: &str, expression: &str) -> Option<Value> {
    let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer = reqwest::get(format!("{base}/query?query={encoded}")).await.ok()?;
    answer.json().await.ok()
}

async fn values(base: &str, expression: &str) -> Vec<String> {
    let answer = ask(base, expression).await.unwrap_or_default();
    let all = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    all.iter().map(|one| one["value"][1].as_str().unwrap_or_default().to_owned()).collect()
}

/// Every expression of the dashboard file.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("expr").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|inner| expressions(inner, found));
        }
        Value::Array(all) => all.iter().for_each(|inner| expressions(inner, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_pass_promtool_and_a_real_prometheus_scrapes_the_pair() {
    let Some(programs) = programs() else { return };
    let fixture = e2e::pair(1).await.expect("a pair");
    let (pair, folder) = (&fixture.pair, tempfile::tempdir().expect("folder"));
    mail(pair, 0, 0, "counted").await.expect("delivered");
    for index in 0..2 {
        let text = pair.api(index).expect("API").get("/metrics").await.expect("metrics");
        lint(&programs.join("promtool"), &text);
    }

    let (_running, base) = start(&programs.join("prometheus"), pair, folder.path());
    let begun = Instant::now();
    while values(&base, "up == 1 and on (instance) twinpost_in_sync_nodes == 2").await.len() < 2 {
        let log = || std::fs::read_to_string(folder.path().join("prometheus.log")).unwrap_or_default();
        assert!(begun.elapsed() < SCRAPED_LIMIT, "{:?}\n{}", values(&base, "up").await, log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let accepted: f64 = values(&base, "sum(twinpost_messages_accepted_total)").await[0].parse().expect("a number");
    assert!(accepted >= 1.0);
    assert_eq!(values(&base, "sum(twinpost_cluster_address_held)").await, ["1"]);

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/grafana/twinpost.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file).expect("dashboard")).expect("JSON");
    let mut all = Vec::new();
    expressions(&dashboard, &mut all);
    assert!(all.len() > 30, "{}", all.len());
    for expression in all {
        let answer = ask(&base, &expression).await.expect("an answer");
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
    }
}
