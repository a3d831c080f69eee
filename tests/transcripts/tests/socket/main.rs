//! The transcripts again, through the real front-end over TCP and TLS on loopback, judged by the same matcher.
//!
//! Every file has a front-end of its own, with ports in memory. What a socket cannot give is left out by rule:
//! - `advance` (virtual time) ends the part of every open connection, `shutdown` that of its connection; connections
//!   that begin later play on;
//! - a file whose head asks for what the front-end does not set (`#recipients`, or `#room` not in whole KiB) is skipped.

mod house;
mod stage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use frontend::Frontend;
use house::{House, Logins};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use stage::Sockets;
use tokio::runtime::Runtime;
use vocab::AccountId;

const ANNA: AccountId = AccountId(16);
const BOB: AccountId = AccountId(17);
const U1: AccountId = AccountId(20);
/// Memory for messages that the SMTP transcripts suppose (bytes).
const SMTP_MEMORY: usize = 4 * 1024 * 1024;
/// Longest time of one protocol's transcripts.
const TIME_MAX: Duration = Duration::from_secs(50);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Smtp,
    Pop3,
    Imap,
}

/// How a transcript ended.
enum Played {
    /// To its end, less the connections that were cut.
    Through { cut: usize },
    /// Not at all.
    Skipped,
}

/// A head line `#name value`.
fn head(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned())
}

fn number(text: &str, name: &str) -> Option<usize> {
    head(text, name).map(|value| value.parse().expect("a number"))
}

impl Protocol {
    const fn folder(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Pop3 => "pop3",
            Self::Imap => "imap",
        }
    }

    const fn logins(self) -> Logins {
        match self {
            Self::Smtp => &[("anna", ANNA, "geheim"), ("bob", BOB, "geheim")],
            Self::Pop3 => &[("u1", U1, "secret")],
            Self::Imap => &[("anna", ANNA, "geheim")],
        }
    }

    fn plaintext(self, text: &str) -> bool {
        match self {
            Self::Pop3 => !text.contains("policy: tls only"),
            Self::Smtp | Self::Imap => head(text, "#plaintext").is_some(),
        }
    }

    fn service(self, text: &str) -> &'static str {
        match (self, head(text, "#tls").is_some()) {
            (Self::Smtp, true) => "submissions",
            (Self::Smtp, false) if head(text, "#role").as_deref() == Some("submission") => "submission",
            (Self::Smtp, false) => "smtp",
            (Self::Pop3, _) => "pop3",
            (Self::Imap, true) => "imaps",
            (Self::Imap, false) => "imap",
        }
    }
}

/// The messages of POP3's u1, as the transcripts suppose them.
fn fill_inbox(house: &House) {
    const PREFIX: &str = "Return-Path: <a@example.net>\r\n";
    let head = PREFIX.len() + "Subject: two\r\n\r\n\r\n".len();
    let two = format!("Subject: two\r\n\r\n{}\r\n", "y".repeat(127 - head));
    let three = format!("Subject: three\r\n\r\n{}", "x".repeat(600_000 - PREFIX.len() - 18));
    for body in ["Subject: one\r\n\r\nHello\r\n.dot\r\nend\r\n", &two, &three] {
        house.accounts.deliver(U1, PREFIX, body);
    }
}

/// Delivers the `#message` blocks of an IMAP transcript; the lines that remain, each at its number.
fn prepare(text: &str, house: &House) -> String {
    let mut rest = String::new();
    let mut message: Option<String> = None;
    let mut prefix = String::new();
    for line in text.lines() {
        let mut kept = "#";
        match &mut message {
            Some(body) if line == "#end" => {
                house.accounts.deliver(ANNA, &std::mem::take(&mut prefix), body);
                message = None;
            }
            Some(body) => *body += &format!("{line}\r\n"),
            None if line.starts_with("#message") => message = Some(String::new()),
            None => {
                if let Some(text) = line.strip_prefix("#prefix ") {
                    prefix = format!("{text}\r\n");
                }
                kept = line;
            }
        }
        rest += &format!("{kept}\n");
    }
    rest
}

fn client_config(certificate: &Path) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).expect("certificate")).expect("root");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn run(protocol: Protocol, text: &str, runtime: &Runtime) -> Result<Played, String> {
    let room = number(text, "#room");
    if head(text, "#recipients").is_some() || room.is_some_and(|bytes| bytes % 1024 != 0) {
        return Ok(Played::Skipped);
    }
    let folder = tempfile::tempdir().expect("folder");
    let mut settings = house::settings(folder.path());
    settings.allow_plaintext = protocol.plaintext(text);
    settings.message_size_max = number(text, "#size").unwrap_or(settings.message_size_max);
    settings.limits.message_memory_bytes = match protocol {
        Protocol::Smtp => SMTP_MEMORY,
        Protocol::Pop3 | Protocol::Imap => room.unwrap_or(settings.limits.message_memory_bytes),
    };
    let tls = client_config(&settings.tls.certificate);
    let house = runtime.block_on(House::new(protocol.logins()));
    let script = match protocol {
        Protocol::Pop3 => {
            fill_inbox(&house);
            text.to_owned()
        }
        Protocol::Imap => prepare(text, &house),
        Protocol::Smtp => text.to_owned(),
    };
    let _entered = runtime.enter();
    let doors = Frontend::start(settings, house.ports(), House::administration()).expect("front-end");
    let service = protocol.service(text);
    let mut sockets = Sockets::new(doors.addresses()[service], service.ends_with('s'), tls);
    testkit::transcript::play(&script, &mut sockets)?;
    accepted(text, &house)?;
    Ok(Played::Through { cut: sockets.cut.len() })
}

/// `#accepted N TEXT`: what was delivered is our trace fields and exactly that.
fn accepted(text: &str, house: &House) -> Result<(), String> {
    let deliveries = house.deliveries.lock().expect("lock");
    for line in text.lines().filter_map(|line| line.strip_prefix("#accepted ")) {
        let (index, body) = line.split_once(' ').unwrap_or((line, ""));
        let delivery = deliveries.get(index.parse::<usize>().expect("a number") - 1);
        let got = delivery.map(|d| String::from_utf8_lossy(&d.body).escape_default().to_string()).unwrap_or_default();
        if !got.starts_with("Received: from ") || !got.ends_with(&format!("\\r\\n{body}")) {
            return Err(format!("accepted {index}: {got:?}, not {body:?}"));
        }
    }
    Ok(())
}

/// Plays all files of a protocol at once; at least `least` of them must play, at most `cut_max` connections be cut.
fn play_all(protocol: Protocol, least: usize, cut_max: usize) {
    let begin = Instant::now();
    let folder = testkit::place::package().join(protocol.folder());
    let files = std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let play = |file: &PathBuf| run(protocol, &std::fs::read_to_string(file).expect("readable"), &runtime);
    let results: Vec<(&PathBuf, Result<Played, String>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = files.iter().map(|file| (file, scope.spawn(|| play(file)))).collect();
        threads.into_iter().map(|(file, thread)| (file, thread.join().expect("no panic"))).collect()
    });
    runtime.shutdown_background();
    let (mut played, mut cuts, mut faults) = (0, 0, Vec::new());
    for (file, result) in results {
        match result {
            Ok(Played::Through { cut }) => {
                played += 1;
                cuts += cut;
            }
            Ok(Played::Skipped) => {}
            Err(fault) => faults.push(format!("{}: {fault}", file.display())),
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(played >= least, "{played} of {} transcripts played, not {least}", files.len());
    assert!(cuts <= cut_max, "{cuts} connections were cut, not at most {cut_max}");
    assert!(begin.elapsed() < TIME_MAX, "{:?}", begin.elapsed());
}

#[test]
fn smtp_transcripts_hold_over_a_socket() {
    play_all(Protocol::Smtp, 14, 5);
}

#[test]
fn pop3_transcripts_hold_over_a_socket() {
    play_all(Protocol::Pop3, 5, 3);
}

#[test]
fn imap_transcripts_hold_over_a_socket() {
    play_all(Protocol::Imap, 10, 5);
}
