//! Mail for elsewhere and the administrator's commands, on a real pair.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use e2e::load::await_service;
use node::demo::clients::imap::ImapClient;
use node::demo::clients::smtp::{Reply, Sent, SmtpClient};
use node::demo::pair::{CLUSTER_ADDRESS, LOOK_INTERVAL, Pair, PairOptions, START_LIMIT};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// How long a client waits for any answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(25);
/// How long something that is awaited may take.
const WAIT_LIMIT: Duration = Duration::from_secs(25);
/// Where the relay host of the tests listens.
const RELAY_ADDRESS: &str = "127.0.0.20";

/// A transaction the relay host took.
#[derive(Clone, Debug)]
struct Taken {
    recipients: Vec<String>,
    text: String,
}

#[derive(Debug)]
struct RelayState {
    /// What RCPT is answered.
    answer: String,
    taken: Vec<Taken>,
    refused: usize,
}

/// A small mail host whose answer to RCPT the test chooses.
#[derive(Clone)]
struct RelayHost {
    state: Arc<Mutex<RelayState>>,
    port: u16,
}

impl RelayHost {
    async fn start(answer: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((RELAY_ADDRESS, 0)).await?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(Mutex::new(RelayState { answer: answer.to_owned(), taken: Vec::new(), refused: 0 }));
        let host = Self { state, port };
        let serving = host.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let host = serving.clone();
                tokio::spawn(async move { host.serve(stream).await });
            }
        });
        Ok(host)
    }

    fn with<T>(&self, act: impl FnOnce(&mut RelayState) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(&self, answer: &str) {
        self.with(|state| answer.clone_into(&mut state.answer));
    }

    fn taken(&self) -> Vec<Taken> {
        self.with(|state| state.taken.clone())
    }

    fn refused(&self) -> usize {
        self.with(|state| state.refused)
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let (mut now, mut data) = (Taken { recipients: Vec::new(), text: String::new() }, false);
        write.write_all(b"220 relay.test ESMTP\r\n").await?;
        while let Some(line) = lines.next_line().await? {
            let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
            let reply = if data {
                if line != "." {
                    now.text.push_str(&line);
                    now.text.push('\n');
                    continue;
                }
                data = false;
                self.with(|state| state.taken.push(now.clone()));
                "250 2.0.0 taken".to_owned()
            } else {
                match verb.as_str() {
                    "RCPT" => {
                        let answer = self.with(|state| state.answer.clone());
                        if answer.starts_with('2') {
                            now.recipients.push(line);
                        } else {
                            self.with(|state| state.refused += 1);
                        }
                        answer
                    }
                    "DATA" if now.recipients.is_empty() => "554 5.5.1 no recipients".to_owned(),
                    "DATA" => {
                        data = true;
                        "354 go on".to_owned()
                    }
                    "QUIT" => "221 2.0.0 bye".to_owned(),
                    _ => "250 2.0.0 ok".to_owned(),
                }
            };
            write.write_all(format!("{reply}\r\n").as_bytes()).await?;
        }
        Ok(())
    }
}

/// What a command of the binary said.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

async fn twinpost(pair: &Pair, index: usize, words: &[&str], input: &str) -> anyhow::Result<Said> {
    let mut child = tokio::process::Command::new(&pair.options.binary)
        .args(words)
        .arg("--config")
        .arg(pair.node(index)?.config())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that is refused at once does not read.
        let _ = stdin.write_all(format!("{input}\n").as_bytes()).await;
    }
    let output = tokio::time::timeout(START_LIMIT, child.wait_with_output()).await??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said {
        code: output.status.code().context("ended by a signal")?,
        out: text(&output.stdout),
        err: text(&output.stderr),
    })
}

/// Runs a command that must end with `code`; returns everything it said.
async fn expect(pair: &Pair, index: usize, words: &[&str], code: i32) -> anyhow::Result<String> {
    let said = twinpost(pair, index, words, "a new password").await?;
    ensure!(said.code == code, "{words:?} on node {index}: wanted {code}, got {said:?}");
    Ok(said.out + &said.err)
}

/// What `--json` prints.
async fn shown(pair: &Pair, index: usize, words: &[&str]) -> anyhow::Result<Value> {
    let said = twinpost(pair, index, words, "").await?;
    ensure!(said.code == 0, "{words:?} on node {index}: {said:?}");
    Ok(serde_json::from_str(&said.out)?)
}

async fn queue(pair: &Pair, index: usize) -> anyhow::Result<Vec<Value>> {
    let list = shown(pair, index, &["queue", "list", "--json"]).await?;
    Ok(list["queue"].as_array().context("no list")?.clone())
}

/// Looks at the queue until `good`; what it held then.
async fn await_queue(pair: &Pair, index: usize, good: impl Fn(&[Value]) -> bool) -> anyhow::Result<Vec<Value>> {
    let start = Instant::now();
    loop {
        let items = queue(pair, index).await;
        match items {
            Ok(items) if good(&items) => return Ok(items),
            found if start.elapsed() > WAIT_LIMIT => bail!("queue of node {index}: {found:?}"),
            _ => tokio::time::sleep(LOOK_INTERVAL).await,
        }
    }
}

fn deferred(items: &[Value]) -> bool {
    items.iter().all(|item| item["status"].is_string() && item["trying_on_node"].is_null()) && !items.is_empty()
}

async fn start(first_retry_ms: u64) -> anyhow::Result<(tempfile::TempDir, Pair)> {
    let folder = tempfile::tempdir()?;
    let mut options = PairOptions::new(folder.path(), &e2e::binary(), 2);
    options.more = format!("[queue]\nfirst_retry_ms = {first_retry_ms}\n");
    let pair = Pair::start(options).await?;
    Ok((folder, pair))
}

async fn use_relay(pair: &Pair, host: &RelayHost) -> anyhow::Result<()> {
    let value = json!({"host": RELAY_ADDRESS, "port": host.port, "tls": "never"});
    pair.cluster_api()?.put("/api/v1/settings/relay", &json!({ "value": value })).await.map(drop)
}

/// Submits as the first account through 465; returns the accept id.
async fn submit(pair: &Pair, from: &str, to: &[&str], subject: &str) -> anyhow::Result<String> {
    let login = pair.options.accounts.first().context("account")?;
    let peer = SocketAddr::new(CLUSTER_ADDRESS, pair.ports.submissions);
    let mut client = SmtpClient::connect_tls(peer, &pair.trust()?, ANSWER_LIMIT).await?;
    client.login(&login.address, &login.password).await?;
    let text = format!("From: <{}>\r\nSubject: {subject}\r\n\r\n{subject}\r\n", login.address);
    let sent = client.send(from, to, text.as_bytes()).await;
    client.quit().await;
    match sent {
        Sent::Accepted(text) => Ok(text.rsplit(' ').next().unwrap_or_default().to_owned()),
        other => bail!("{subject}: {other:?}"),
    }
}

async fn inbox(pair: &Pair, account: usize) -> anyhow::Result<Vec<String>> {
    let login = pair.options.accounts.get(account).context("account")?;
    let peer = SocketAddr::new(CLUSTER_ADDRESS, pair.ports.imaps);
    let mut client = ImapClient::connect_tls(peer, &pair.trust()?, ANSWER_LIMIT).await?;
    client.login(&login.address, &login.password).await?;
    client.select("INBOX").await?;
    if client.exists == 0 {
        return Ok(Vec::new());
    }
    let all = client.uid_fetch("1:*", "(UID BODY.PEEK[])").await?;
    client.logout().await;
    Ok(all.into_iter().filter_map(|one| Some(String::from_utf8_lossy(&one.body?).into_owned())).collect())
}

/// QUE-01, QUE-02: deferred mail is listed with its reason and goes out once.
async fn deferred_then_delivered(pair: &Pair, host: &RelayHost) -> anyhow::Result<()> {
    let from = pair.options.accounts.first().context("account")?.address.clone();
    let id = submit(pair, &from, &["far@elsewhere.example"], "first").await?;
    let waiting = await_queue(pair, 0, deferred).await?;
    let [item] = waiting.as_slice() else { bail!("one item, not {waiting:?}") };
    ensure!(item["sender"] == json!(from) && item["recipient"] == "far@elsewhere.example", "{item}");
    ensure!(item["status"] == "4.3.0" && item["diagnostic"].to_string().contains("not now"), "{item}");
    ensure!(item["accepted_at"].is_string() && item["attempts"].as_u64() >= Some(1), "{item}");
    host.answer("250 2.1.5 ok");
    await_queue(pair, 1, <[Value]>::is_empty).await?;
    let taken = host.taken();
    let [one] = taken.as_slice() else { bail!("delivered {} times", taken.len()) };
    ensure!(one.recipients == ["RCPT TO:<far@elsewhere.example>"], "{one:?}");
    ensure!(one.text.starts_with("Received: ") && one.text.contains(&format!("id {id}")), "{id}: {}", one.text);
    ensure!(one.text.contains("Subject: first"), "{}", one.text);
    Ok(())
}

/// A refusal for good is reported to the sender once, and never to the null reverse-path.
async fn failed_then_reported(pair: &Pair, host: &RelayHost) -> anyhow::Result<()> {
    host.answer("550 5.1.1 nobody of that name");
    let from = pair.options.accounts.first().context("account")?.address.clone();
    let before = host.refused();
    submit(pair, &from, &["gone@elsewhere.example"], "second").await?;
    // An alias that leads out is the only way for strangers' null reverse-path to the relay.
    expect(pair, 0, &["alias", "add", "out@demo.test", "gone@elsewhere.example"], 0).await?;
    let mut stranger = SmtpClient::connect(SocketAddr::new(CLUSTER_ADDRESS, pair.ports.smtp), ANSWER_LIMIT).await?;
    let sent = stranger.send("", &["out@demo.test"], b"Subject: third\r\n\r\nthird\r\n").await;
    ensure!(matches!(sent, Sent::Accepted(_)), "{sent:?}");
    await_queue(pair, 0, <[Value]>::is_empty).await?;
    ensure!(host.refused() == before + 2, "{} refusals", host.refused() - before);
    let mail = inbox(pair, 0).await?;
    let [report] = mail.as_slice() else { bail!("one report, not {mail:?}") };
    for part in [
        "Return-Path: <>",
        "report-type=delivery-status",
        "Final-Recipient: rfc822; gone@elsewhere.example",
        "Action: failed",
        "Status: 5.1.1",
        "nobody of that name",
        "Subject: second",
    ] {
        ensure!(report.contains(part), "no {part:?} in {report}");
    }
    Ok(())
}

/// An alias with one target here and one elsewhere: one message each.
async fn alias_in_and_out(pair: &Pair, host: &RelayHost) -> anyhow::Result<()> {
    host.answer("250 2.1.5 ok");
    let before = host.taken().len();
    let to = ["alias", "add", "both@demo.test", "u2@demo.test", "far@elsewhere.example"];
    expect(pair, 1, &to, 0).await?;
    let from = pair.options.accounts.first().context("account")?.address.clone();
    submit(pair, &from, &["both@demo.test"], "fourth").await?;
    await_queue(pair, 0, |items| items.is_empty() && host.taken().len() > before).await?;
    ensure!(host.taken().len() == before + 1, "{:?}", host.taken());
    let mail = inbox(pair, 1).await?;
    ensure!(mail.len() == 1 && mail.iter().all(|text| text.contains("Subject: fourth")), "{mail:?}");
    Ok(())
}

/// The primary dies while an item waits; the survivor sends it, once.
async fn survivor_sends(pair: &mut Pair, host: &RelayHost) -> anyhow::Result<()> {
    host.answer("451 4.3.0 not now");
    let before = host.taken().len();
    let from = pair.options.accounts.first().context("account")?.address.clone();
    let id = submit(pair, &from, &["later@elsewhere.example"], "fifth").await?;
    let primary = pair.primary().await?;
    await_queue(pair, primary, deferred).await?;
    pair.kill(primary).await?;
    await_service(pair, START_LIMIT).await?;
    let kept = await_queue(pair, 1 - primary, |items| !items.is_empty()).await?;
    ensure!(kept.len() == 1 && kept.iter().all(|item| item["recipient"] == "later@elsewhere.example"), "{kept:?}");
    host.answer("250 2.1.5 ok");
    await_queue(pair, 1 - primary, <[Value]>::is_empty).await?;
    let taken = host.taken().split_off(before);
    ensure!(taken.len() == 1 && taken.iter().all(|one| one.text.contains(&format!("id {id}"))), "{id}: {taken:?}");
    Ok(())
}

async fn relaying(pair: &mut Pair) -> anyhow::Result<()> {
    let host = RelayHost::start("451 4.3.0 not now").await?;
    use_relay(pair, &host).await?;
    deferred_then_delivered(pair, &host).await.context("deferred, then delivered")?;
    failed_then_reported(pair, &host).await.context("failed, then reported")?;
    alias_in_and_out(pair, &host).await.context("alias")?;
    survivor_sends(pair, &host).await.context("kill")
}

#[tokio::test(flavor = "multi_thread")]
async fn que_01_que_02_ha_13_mail_for_elsewhere_waits_goes_out_once_and_is_reported() {
    let (_folder, mut pair) = start(1_500).await.expect("a pair");
    if let Err(fault) = relaying(&mut pair).await {
        panic!("{fault:#}\n{}", e2e::logs(&pair));
    }
    pair.stop().await;
}

/// Makes, changes and removes one thing of each kind on `here`, and sees it at once on `there`.
async fn change_all(pair: &Pair, here: usize, there: usize) -> anyhow::Result<()> {
    let domain = format!("d{here}.test");
    let (account, alias) = (format!("a@{domain}"), format!("b@{domain}"));
    for (kind, name, add, set) in [
        ("domain", &domain, vec![], vec![]),
        ("account", &account, vec!["--name", "First"], vec!["--name", "Second", "--enabled", "false"]),
        ("alias", &alias, vec!["u1@demo.test"], vec!["u1@demo.test", "u2@demo.test"]),
    ] {
        let words = |verb, rest: &[&'static str]| [&[kind, verb, name.as_str()], rest].concat();
        expect(pair, here, &words("add", &add), 0).await?;
        expect(pair, here, &words("add", &add), 1).await.context("twice")?;
        expect(pair, here, &words("set", &set), 0).await?;
        let start = Instant::now();
        while twinpost(pair, there, &words("show", &[]), "").await?.code != 0 {
            ensure!(start.elapsed() < WAIT_LIMIT, "{kind} {name} is not seen on the other node");
        }
        ensure!(expect(pair, there, &[kind, "list"], 0).await?.contains(name.as_str()), "{kind} list");
    }
    expect(pair, there, &["domain", "remove", &domain], 1).await.context("a domain with accounts")?;
    for (kind, name) in [("alias", &alias), ("account", &account), ("domain", &domain)] {
        expect(pair, here, &[kind, "remove", name], 0).await?;
        expect(pair, here, &[kind, "show", name], 1).await?;
        expect(pair, here, &[kind, "remove", name], 1).await?;
    }
    expect(pair, here, &["account", "set", "nobody@demo.test", "--name", "x"], 1).await?;
    expect(pair, here, &["account", "frobnicate"], 64).await?;
    expect(pair, here, &["alias", "add", "only@demo.test"], 64).await?;
    Ok(())
}

async fn rcpt(pair: &Pair, index: usize, to: &str) -> anyhow::Result<Reply> {
    let peer = SocketAddr::new(pair.node(index)?.address, pair.ports.smtp);
    let mut client = SmtpClient::connect(peer, ANSWER_LIMIT).await?;
    client.command("MAIL FROM:<a@example.org>").await?;
    let reply = client.command(&format!("RCPT TO:<{to}>")).await?;
    client.quit().await;
    Ok(reply)
}

/// Waits until RCPT is answered so.
async fn await_rcpt(pair: &Pair, index: usize, to: &str, (code, status): (u16, &str)) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let reply = rcpt(pair, index, to).await?;
        if reply.code == code && reply.text.starts_with(status) {
            return Ok(());
        }
        ensure!(start.elapsed() < WAIT_LIMIT, "{to} at node {index}: {reply:?}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn logs_in(pair: &Pair, index: usize, password: &str) -> anyhow::Result<bool> {
    let peer = SocketAddr::new(pair.node(index)?.address, pair.ports.imaps);
    let mut client = ImapClient::connect_tls(peer, &pair.trust()?, ANSWER_LIMIT).await?;
    let answer = client.command(&format!("LOGIN c@demo.test \"{password}\"")).await?;
    Ok(answer.status == "OK")
}

/// An account's password, switch and end, changed on one node and felt on both.
async fn account_life(pair: &Pair) -> anyhow::Result<()> {
    expect(pair, 0, &["account", "add", "c@demo.test"], 0).await?;
    for index in [0, 1] {
        await_rcpt(pair, index, "c@demo.test", (250, "2.1.5")).await?;
        ensure!(logs_in(pair, index, "a new password").await?, "login at node {index}");
    }
    let changed = twinpost(pair, 1, &["account", "set", "c@demo.test", "--password"], "newer").await?;
    ensure!(changed.code == 0, "{changed:?}");
    for index in [0, 1] {
        ensure!(logs_in(pair, index, "newer").await?, "the new password at node {index}");
        ensure!(!logs_in(pair, index, "a new password").await?, "the old password at node {index}");
    }
    expect(pair, 1, &["account", "set", "c@demo.test", "--enabled", "false"], 0).await?;
    for index in [0, 1] {
        await_rcpt(pair, index, "c@demo.test", (550, "5.2.1")).await?;
    }
    expect(pair, 0, &["account", "remove", "c@demo.test"], 0).await?;
    for index in [0, 1] {
        await_rcpt(pair, index, "c@demo.test", (550, "5.1.1")).await?;
    }
    Ok(())
}

/// Status, health, metrics and the description of the API on both nodes.
async fn watched(pair: &Pair) -> anyhow::Result<()> {
    let mut primaries = 0;
    for index in [0, 1] {
        let status = shown(pair, index, &["status", "--json"]).await?;
        ensure!(status["cluster"] == "demo" && status["epoch_kind"] == "joint", "{status}");
        ensure!(status["in_sync"] == json!([1, 2]) && status["settings_locked"].is_null(), "{status}");
        let api = pair.api(index)?;
        api.get("/health/live").await?;
        api.get("/health/ready").await?;
        primaries += usize::from(api.get("/health/primary").await.is_ok());
        let metrics = api.get("/metrics").await?;
        let names: Vec<&str> = metrics.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        ensure!(!names.is_empty(), "no metrics");
        let strange = names.iter().find(|line| !line.starts_with("twinpost_"));
        ensure!(strange.is_none(), "{strange:?}");
        let described: Value = serde_json::from_str(&api.get("/api/v1/openapi.json").await?)?;
        ensure!(described["paths"]["/api/v1/queue"].is_object(), "{described}");
        let peer = SocketAddr::new(pair.node(index)?.address, pair.ports.https);
        let stranger = node::demo::clients::api::Api::new(peer, &pair.ca_file(), "wrong")?;
        let refused = stranger.get("/metrics").await.err().context("metrics without the token")?;
        ensure!(refused.to_string().contains("401"), "{refused:#}");
    }
    ensure!(primaries == 1, "{primaries} primaries");
    Ok(())
}

/// Without quorum every change is refused with the reason and the ways out, and reading goes on.
async fn locked(pair: &mut Pair) -> anyhow::Result<()> {
    let wrong = expect(pair, 0, &["cluster", "start-alone", "--confirm", "dem"], 1).await?;
    ensure!(wrong.contains("nothing was done"), "{wrong}");
    pair.kill(1).await?;
    await_service(pair, START_LIMIT).await?;
    // Until the leader has noticed, a change may honestly end as "nobody knows".
    let start = Instant::now();
    while shown(pair, 0, &["status", "--json"]).await?["settings_locked"].is_null() {
        ensure!(start.elapsed() < WAIT_LIMIT, "settings are not locked");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let changes: [&[&str]; 9] = [
        &["domain", "add", "late.test"],
        &["domain", "set", "demo.test", "--default"],
        &["account", "add", "late@demo.test"],
        &["account", "set", "u1@demo.test", "--name", "Late"],
        &["account", "remove", "u1@demo.test"],
        &["alias", "add", "late@demo.test", "u1@demo.test"],
        &["alias", "set", "all@demo.test", "u1@demo.test"],
        &["alias", "remove", "all@demo.test"],
        &["cluster", "token"],
    ];
    // All at once: each waits two seconds for a quorum.
    let pair = &*pair;
    let [a, b, c, d, e, f, g, h, i] = changes.map(|words| refused_locked(pair, words));
    tokio::try_join!(a, b, c, d, e, f, g, h, i)?;
    let setting = pair.api(0)?.put("/api/v1/settings/late", &json!({"value": 1})).await;
    ensure!(setting.as_ref().is_err_and(|fault| fault.to_string().contains("503")), "{setting:?}");
    for words in [&["domain", "show", "demo.test"][..], &["account", "list"], &["alias", "list"], &["queue", "list"]] {
        expect(pair, 0, words, 0).await?;
    }
    ensure!(expect(pair, 0, &["account", "show", "u1@demo.test"], 0).await?.contains("u1@demo.test"), "u1");
    let status = shown(pair, 0, &["status", "--json"]).await?;
    ensure!(status["settings_locked"].as_str().is_some_and(|text| text.contains("no quorum")), "{status}");
    let gone = expect(pair, 1, &["domain", "list"], 2).await?;
    ensure!(gone.contains("cannot be reached"), "{gone}");
    Ok(())
}

async fn refused_locked(pair: &Pair, words: &[&str]) -> anyhow::Result<()> {
    let text = expect(pair, 0, words, 2).await?;
    for part in ["no majority", "Ways out"] {
        ensure!(text.contains(part), "{words:?}: no {part:?} in {text:?}");
    }
    Ok(())
}

async fn administered(pair: &mut Pair) -> anyhow::Result<()> {
    watched(pair).await.context("watched")?;
    expect(pair, 0, &["alias", "add", "all@demo.test", "u1@demo.test"], 0).await?;
    change_all(pair, 0, 1).await.context("on the first node")?;
    change_all(pair, 1, 0).await.context("on the second node")?;
    account_life(pair).await.context("account")?;
    locked(pair).await.context("without quorum")
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_14_ha_16_the_commands_on_both_nodes_and_without_quorum() {
    let (_folder, mut pair) = start(60_000).await.expect("a pair");
    if let Err(fault) = administered(&mut pair).await {
        panic!("{fault:#}\n{}", e2e::logs(&pair));
    }
    pair.stop().await;
}
