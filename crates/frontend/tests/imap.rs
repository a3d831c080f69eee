//! IMAP over a socket on loopback: the session, the driver and the answers from the ports together.

#[allow(dead_code)]
mod fakes;

use std::time::Duration;

use fakes::House;
use frontend::{Frontend, FrontendHandle};
use mailbox::op::AccountOp;
use ports::accounts::Accounts as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use vocab::AccountId;

const PATIENCE: Duration = Duration::from_secs(20);
const ACCOUNT: AccountId = AccountId(20);

struct Doors {
    house: House,
    handle: FrontendHandle,
    _folder: tempfile::TempDir,
}

async fn doors(memory: usize) -> Doors {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().expect("folder");
    let house = House::new();
    let id = house.accounts.command_id();
    house.accounts.submit(ACCOUNT, id, AccountOp::Init).await.expect("available");
    let mut settings = fakes::settings(folder.path());
    settings.limits.message_memory_bytes = memory;
    let handle = Frontend::start(settings, house.ports(), house.administration()).expect("ports are free");
    Doors { house, handle, _folder: folder }
}

struct Client(BufReader<TcpStream>);

impl Client {
    async fn login(doors: &Doors) -> Self {
        let stream = TcpStream::connect(doors.handle.addresses()["imap"]).await.expect("connect");
        let mut client = Self(BufReader::new(stream));
        assert!(client.line().await.starts_with("* OK [CAPABILITY IMAP4rev1 "));
        client.send("a LOGIN u1 secret\r\n").await;
        assert!(client.until("a ").await.starts_with("a OK "));
        client
    }
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("write");
    }
    async fn line(&mut self) -> String {
        let mut line = String::new();
        tokio::time::timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("in time").expect("text");
        line
    }
    /// The next line that begins so.
    async fn until(&mut self, start: &str) -> String {
        loop {
            let line = self.line().await;
            assert!(!line.is_empty(), "closed before {start}");
            if line.starts_with(start) {
                return line;
            }
        }
    }
}

#[tokio::test]
async fn idle_hears_of_a_delivery_and_append_comes_back_byte_for_byte() {
    let doors = doors(64 * 1024 * 1024).await;
    let mut watching = Client::login(&doors).await;
    watching.send("b SELECT INBOX\r\nc IDLE\r\n").await;
    watching.until("+ ").await;
    doors.house.accounts.deliver(ACCOUNT, "Return-Path: <>\r\n", "Subject: x\r\n\r\nbody\r\n");
    assert_eq!(watching.line().await, "* 1 EXISTS\r\n");
    watching.send("DONE\r\nd NOOP\r\n").await;
    assert!(watching.until("d ").await.starts_with("d OK "));

    let mut writing = Client::login(&doors).await;
    let message = format!("Subject: large\r\n\r\n{}", "0123456789abcdef\r\n".repeat(20_000));
    writing.send(&format!("b APPEND Sent (\\Seen) {{{}}}\r\n", message.len())).await;
    writing.until("+ ").await;
    writing.send(&format!("{message}\r\nc SELECT Sent\r\nd FETCH 1 BODY.PEEK[]\r\n")).await;
    assert!(writing.until("b ").await.starts_with("b OK [APPENDUID "));
    let head = writing.until("* 1 FETCH").await;
    assert_eq!(head, format!("* 1 FETCH (BODY[] {{{}}}\r\n", message.len()));
    let mut body = vec![0; message.len()];
    tokio::time::timeout(PATIENCE, writing.0.read_exact(&mut body)).await.expect("in time").expect("bytes");
    assert!(body == message.as_bytes(), "the body changed on its way");
    assert!(writing.until("d ").await.starts_with("d OK "));
    doors.handle.stop().await;
}

#[tokio::test]
async fn what_is_unavailable_is_never_ok() {
    let doors = doors(64 * 1024 * 1024).await;
    let mut client = Client::login(&doors).await;
    client.send("b SELECT INBOX\r\n").await;
    client.until("b OK").await;
    doors.house.accounts.set_unavailable(true);
    client.send("c NOOP\r\nd CREATE x\r\ne APPEND INBOX {5+}\r\na: b\n\r\n").await;
    for tag in ["c", "d", "e"] {
        assert!(client.line().await.starts_with(&format!("{tag} NO [UNAVAILABLE]")));
    }
    doors.house.accounts.set_unavailable(false);
    client.send("f NOOP\r\n").await;
    assert!(client.until("f ").await.starts_with("f OK"));
    doors.handle.stop().await;
}

#[tokio::test]
async fn a_message_without_room_in_memory_is_refused_before_it_comes() {
    let doors = doors(300 * 1024).await;
    let mut first = Client::login(&doors).await;
    first.send("b APPEND INBOX {200000}\r\n").await;
    first.until("+ ").await;
    let mut second = Client::login(&doors).await;
    second.send("b APPEND INBOX {200000}\r\n").await;
    assert!(second.line().await.starts_with("b NO [LIMIT]"));
    // The first one leaves; its memory is free again.
    drop(first);
    let begin = tokio::time::Instant::now();
    loop {
        second.send("c APPEND INBOX {200000}\r\n").await;
        if second.line().await.starts_with("+ ") {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "memory of a client that left stays taken");
        tokio::task::yield_now().await;
    }
    second.send(&format!("a: b\r\n\r\n{}\r\n", "x".repeat(200_000 - 8))).await;
    assert!(second.until("c ").await.starts_with("c OK"));
    doors.handle.stop().await;
}

#[tokio::test]
async fn shutting_down_says_bye_to_those_who_idle() {
    let doors = doors(1024 * 1024).await;
    let mut client = Client::login(&doors).await;
    client.send("b SELECT INBOX\r\nc IDLE\r\n").await;
    client.until("+ ").await;
    doors.handle.stop().await;
    assert!(client.line().await.starts_with("* BYE "));
    assert_eq!(client.line().await, "");
}
