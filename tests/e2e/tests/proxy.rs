//! A node that is out of sync serves its clients through the home.
//!
//! It is held out of sync for as long as the test likes: the cable by which the home reaches it is cut, while it reaches
//! the home.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::Cabled;
use e2e::load::await_service;
use node::demo::clients::imap::ImapClient;
use node::demo::clients::pop3::Pop3Client;
use node::demo::pair::{JOINT_LIMIT, LOOK_INTERVAL, Pair, START_LIMIT};
use testkit::cut_proxy::CutProxy;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};

/// How long a client waits for any answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(25);
/// Where the client stands, so that its address is told from those of the nodes.
const CLIENT: [u8; 4] = [127, 0, 0, 99];
/// The node that founded the cluster: it dials the other, is primary and home.
const HOME: usize = 0;
const OTHER: usize = 1;

struct Lines(BufReader<TcpStream>);

impl Lines {
    async fn connect(to: IpAddr, port: u16) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((CLIENT, 0)))?;
        let stream = tokio::time::timeout(ANSWER_LIMIT, socket.connect(SocketAddr::new(to, port))).await??;
        Ok(Self(BufReader::new(stream)))
    }
    /// Sends a line and waits for the last line of its answer.
    async fn ask(&mut self, line: &str) -> anyhow::Result<String> {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).await?;
        self.heard().await
    }
    async fn heard(&mut self) -> anyhow::Result<String> {
        loop {
            let mut line = String::new();
            tokio::time::timeout(ANSWER_LIMIT, self.0.read_line(&mut line)).await??;
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line);
            }
        }
    }
}

/// Connections that the other node carries to the home: now, so far.
async fn carried(pair: &Pair) -> anyhow::Result<(u64, u64)> {
    let status: serde_json::Value = serde_json::from_str(&pair.api(OTHER)?.get("/api/v1/cluster").await?)?;
    let count = |key: &str| status["proxied"][key].as_u64().context("a number");
    Ok((count("open")?, count("total")?))
}

async fn imap(pair: &Pair, node: usize) -> anyhow::Result<ImapClient> {
    let login = pair.options.accounts.first().context("account")?;
    let peer = SocketAddr::new(pair.node(node)?.address, pair.ports.imaps);
    let mut client = ImapClient::connect_tls(peer, &pair.trust()?, ANSWER_LIMIT).await?;
    client.login(&login.address, &login.password).await?;
    client.select("INBOX").await?;
    Ok(client)
}

/// The home takes a while to use the certificate that names the other node.
async fn await_certificate(pair: &Pair) -> anyhow::Result<()> {
    let start = Instant::now();
    let peer = SocketAddr::new(pair.node(OTHER)?.address, pair.ports.imaps);
    while let Err(fault) = ImapClient::connect_tls(peer, &pair.trust()?, ANSWER_LIMIT).await {
        ensure!(start.elapsed() < START_LIMIT, "{fault:#}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// Waits until a connection to the other node is not carried; on a slow machine it may be without a lease for a moment.
async fn await_own_service(pair: &Pair) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let before = carried(pair).await?.1;
        imap(pair, OTHER).await?;
        if carried(pair).await?.1 == before {
            return Ok(());
        }
        ensure!(start.elapsed() < START_LIMIT, "a node in sync carries its clients to the home");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn is_served_through_the_home(pair: &Pair) -> anyhow::Result<()> {
    await_certificate(pair).await?;
    let before = carried(pair).await?.1;
    let login = pair.options.accounts.first().context("account")?;
    let other = pair.node(OTHER)?.address;
    let mut smtp = Lines::connect(other, pair.ports.smtp).await?;
    ensure!(smtp.heard().await?.starts_with("220 "));
    for (line, answer) in [
        ("EHLO laptop.example".to_owned(), "250 "),
        ("MAIL FROM:<a@example.org>".to_owned(), "250 "),
        (format!("RCPT TO:<{}>", login.address), "250 "),
        ("DATA".to_owned(), "354 "),
        ("Subject: carried\r\n\r\nhello\r\n.".to_owned(), "250 "),
    ] {
        let heard = smtp.ask(&line).await?;
        ensure!(heard.starts_with(answer), "{line}: {heard}");
    }
    let mut client = imap(pair, OTHER).await?;
    let all = client.uid_fetch("1:*", "(UID BODY.PEEK[])").await?;
    let body = all.into_iter().find_map(|fetched| fetched.body).context("the message")?;
    let text = String::from_utf8_lossy(&body);
    ensure!(text.contains("Subject: carried") && text.contains("[127.0.0.99]"), "{text}");
    let peer = SocketAddr::new(other, pair.ports.pop3s);
    let mut pop3 = Pop3Client::connect_tls(peer, &pair.trust()?, ANSWER_LIMIT).await?;
    pop3.login(&login.address, &login.password).await?;
    ensure!(pop3.count().await? == 1);
    // What the home logs of it names the client, not the node in between.
    let log = std::fs::read_to_string(pair.node(HOME)?.log_file())?;
    ensure!(log.lines().any(|line| line.contains("accepted") && line.contains("peer=127.0.0.99")));
    ensure!(!pair.api(OTHER)?.is_ready().await, "the node does not say that it serves by itself");
    // At least these: the home looks at the other's ports, too, while it hears nothing of it.
    let counts = carried(pair).await?;
    ensure!(counts.0 >= 3 && counts.1 >= before + 3, "{counts:?} after {before}");
    let said = pair.command(OTHER, &["status"], &[], None).await?;
    ensure!(said.contains("clients that another node serves for this one: "), "{said}");
    let metrics = pair.api(OTHER)?.get("/metrics").await?;
    for name in ["twinpost_connections_proxied_open", "twinpost_connections_proxied_total"] {
        let of_imap = format!("{name}{{direction=\"out\",service=\"imaps\"}}");
        ensure!(metrics.lines().any(|line| line.starts_with(&of_imap)), "{of_imap} in\n{metrics}");
    }
    Ok(())
}

async fn story(pair: &mut Pair, cable: &CutProxy) -> anyhow::Result<()> {
    ensure!(pair.primary().await? == HOME);
    pair.kill_group(OTHER).await?;
    await_service(pair, START_LIMIT).await?;
    cable.cut(true);
    pair.start_node(OTHER).await?;
    is_served_through_the_home(pair).await?;
    // The home ends: so do its clients, wherever they came in; nobody is left to serve them.
    let mut client = imap(pair, OTHER).await?;
    pair.kill_group(HOME).await?;
    let ended = client.command("NOOP").await;
    ensure!(ended.is_err() || ended.is_ok_and(|answer| answer.ok().is_err()), "an answer of a node that is gone");
    let mut smtp = Lines::connect(pair.node(OTHER)?.address, pair.ports.smtp).await?;
    let heard = smtp.heard().await?;
    ensure!(heard.starts_with("421 4.3.2"), "{heard}");
    // In sync again: everybody serves by himself.
    pair.kill_group(OTHER).await?;
    pair.start_node(HOME).await?;
    cable.cut(false);
    pair.start_node(OTHER).await?;
    pair.await_joint(JOINT_LIMIT).await?;
    await_own_service(pair).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_out_of_sync_serves_its_clients_through_the_home() {
    let Cabled { mut pair, cables, folder } = e2e::cabled(1).await.expect("a pair");
    if let Err(fault) = story(&mut pair, &cables[OTHER]).await {
        panic!("{fault:#}\n{}", e2e::logs(&pair));
    }
    pair.stop().await;
    drop(folder);
}
