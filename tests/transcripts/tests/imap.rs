//! Runs `imap/*.txt` against the sealed IMAP session, with `mailbox::Applier` on rows in memory behind it.
//!
//! Head lines of a transcript beside comments: `#tls` (implicit TLS), `#plaintext` (passwords without TLS),
//! `#size N` (largest message), `#room N` (memory for messages), `#message NAME` with the lines up to `#end`: a message of 1 in INBOX before the first
//! connection, in order, with CRLF line ends; `#prefix TEXT` before it gives the message a field of the recipient.
//!
//! There is one account, anna with password geheim, shared by all connections of a transcript; the password `later` is
//! answered "unavailable". Submits by every connection count as one home's.

use std::sync::Arc;

use bytes::Bytes;
use imap::{Answer, ImapSession, LoginAnswer, Query, Settings};
use mailbox::Applier;
use mailbox::op::{AccountOp, Command, MailboxRef, NewMessage, Outcome, Role, Stamp};
use vocab::session::{Output, Session as _};
use vocab::{AccountId, BatchId, BlobHash, Boot, CommandId, EpochId, Flags, Instant, MemoryRows, NodeId, Timestamp};

const ACCOUNT: AccountId = AccountId(16);
const EPOCH: EpochId = EpochId { number: 1, author: 0 };
/// 2023-11-14 22:13:20 UTC.
const WALL: Timestamp = Timestamp(1_700_000_000_000);

struct Home {
    rows: MemoryRows,
    bodies: Vec<(BlobHash, Bytes)>,
    counter: u64,
    mailbox_counter: u64,
    room: usize,
    bodies_lost: bool,
}

impl Home {
    fn new() -> Self {
        let mut home = Self {
            rows: MemoryRows::default(),
            bodies: Vec::new(),
            counter: 0,
            mailbox_counter: 1,
            room: usize::MAX,
            bodies_lost: false,
        };
        home.submit(AccountOp::Init);
        home
    }

    fn submit(&mut self, op: AccountOp) -> Outcome {
        self.counter += 1;
        let id = CommandId { origin: NodeId(1), boot: Boot(1), counter: self.counter, recipient: 0 };
        let stamp = Stamp {
            epoch: EPOCH,
            home: NodeId(1),
            at: WALL,
            joint: true,
            mailbox_counter: self.mailbox_counter,
            gap: None,
            marks: None,
            rows: mailbox::rows::RowFormat::HIGHEST,
        };
        let view = self.rows.clone();
        let mut applier = Applier::new(&view, ACCOUNT, stamp);
        let (outcome, _) = applier.run(&Command { id, settled: 0, op }).expect("rows are sound");
        self.mailbox_counter = applier.mailbox_counter();
        let batch = BatchId { epoch: EPOCH, home: NodeId(1), counter: self.counter };
        if let Some(batch) = applier.finish(batch).expect("rows are sound") {
            self.rows.write(&batch.rows);
            self.rows.head = batch.head;
        }
        outcome
    }

    fn keep(&mut self, message: &Bytes, prefix: Bytes) -> NewMessage {
        let blob = BlobHash::of(message);
        self.bodies.push((blob, message.clone()));
        NewMessage {
            blob,
            blob_size: message.len() as u64,
            prefix,
            facts: mime::facts_of(message).encode(),
            flags: Flags::default(),
            internal_date: WALL,
        }
    }

    fn answer(&mut self, query: Query) -> Answer {
        match query {
            Query::Login(c) if c.password == "later" => Answer::Unavailable,
            Query::Login(c) if c.login == "anna" && c.password == "geheim" => {
                Answer::Login(LoginAnswer::Accepted(ACCOUNT))
            }
            Query::Login(_) => Answer::Login(LoginAnswer::Refused),
            Query::Snapshot(_) => Answer::Snapshot(Arc::new(self.rows.clone())),
            Query::Hold(bytes) if bytes <= self.room => Answer::Held,
            Query::Hold(_) => Answer::NoRoom,
            Query::Body { .. } if self.bodies_lost => Answer::Unavailable,
            Query::Body { blob, from, to } => match self.bodies.iter().find(|(hash, _)| *hash == blob) {
                Some((_, body)) => {
                    let at = |n: u64| usize::try_from(n).expect("small").min(body.len());
                    Answer::Body(body.slice(at(from)..at(to)))
                }
                None => Answer::Unavailable,
            },
            Query::Submit { op, .. } => Answer::Outcome(self.submit(op)),
            Query::Append { mailbox, flags, internal_date, message, .. } => {
                let kept = self.keep(&message, Bytes::new());
                let kept = NewMessage { flags, internal_date: internal_date.unwrap_or(WALL), ..kept };
                Answer::Outcome(
                    self.submit(AccountOp::Append { mailbox: MailboxRef::Id(mailbox), messages: vec![kept] }),
                )
            }
        }
    }
}

/// Messages of the head, put into INBOX; the rest of the transcript.
fn prepare(text: &str, home: &mut Home) -> String {
    let mut rest = String::new();
    let mut message: Option<String> = None;
    let mut prefix = String::new();
    for line in text.lines() {
        match &mut message {
            Some(body) if line == "#end" => {
                let body = Bytes::from(std::mem::take(body));
                let kept = home.keep(&body, Bytes::from(std::mem::take(&mut prefix)));
                home.submit(AccountOp::Append { mailbox: MailboxRef::Role(Role::Inbox), messages: vec![kept] });
                message = None;
                rest.push_str("#\n");
            }
            Some(body) => {
                body.push_str(line);
                body.push_str("\r\n");
                rest.push_str("#\n");
            }
            None if line.starts_with("#message") => {
                message = Some(String::new());
                rest.push_str("#\n");
            }
            None => {
                if let Some(text) = line.strip_prefix("#prefix ") {
                    prefix = format!("{text}\r\n");
                }
                rest.push_str(line);
                rest.push('\n');
            }
        }
    }
    rest
}

fn run(text: &str) -> Result<(), String> {
    let word = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).map(|rest| rest.trim().to_owned());
    let settings = Settings {
        hostname: "mail.example.org".into(),
        allow_plaintext: word("#plaintext").is_some(),
        message_size_max: word("#size").map_or(64 * 1024 * 1024, |n| n.parse().expect("a number")),
    };
    let tls = word("#tls").is_some();
    let mut home = Home::new();
    home.room = word("#room").map_or(usize::MAX, |n| n.parse().expect("a number"));
    let script = prepare(text, &mut home);
    let open = |_, now| ImapSession::new(settings.clone(), tls, now);
    testkit::transcript::run(&script, open, |_, query, _| home.answer(query))
}

fn read(name: &str) -> String {
    let file = testkit::place::package().join("imap").join(name);
    std::fs::read_to_string(file).expect("readable")
}

#[test]
fn every_imap_transcript_holds() {
    let folder = testkit::place::package().join("imap");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").file_name()).collect();
    files.sort();
    assert!(files.len() >= 10, "transcripts are missing");
    let mut faults = Vec::new();
    for file in files {
        let name = file.to_string_lossy().into_owned();
        if let Err(fault) = run(&read(&name)) {
            faults.push(format!("{name}: {fault}"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn pro_05_changes_show_in_every_imap_client() {
    assert_eq!(run(&read("two_clients.txt")), Ok(()));
}

/// Says the commands and returns each piece of output.
fn talk(home: &mut Home, commands: &str) -> Vec<Bytes> {
    let settings = Settings { hostname: "h".into(), allow_plaintext: true, message_size_max: 64 * 1024 * 1024 };
    let now = Instant(1);
    let mut session = ImapSession::new(settings, true, now);
    let mut pieces = Vec::new();
    let mut rest = commands.as_bytes();
    loop {
        match session.next_output() {
            Some(Output::Write(bytes)) => pieces.push(bytes),
            Some(Output::Ask(query)) => {
                let answer = home.answer(query);
                session.on_answer(answer, now);
            }
            Some(other) => panic!("{other:?}"),
            None if rest.is_empty() => return pieces,
            None => {
                let used = session.on_bytes(rest, now);
                assert!(used > 0, "the session does not go on");
                rest = &rest[used..];
            }
        }
    }
}

const BEGIN: &str = "a LOGIN anna geheim\r\nb SELECT INBOX\r\n";

fn put(home: &mut Home, message: &Bytes) {
    let kept = home.keep(message, Bytes::from_static(b"X-Added: 1\r\n"));
    home.submit(AccountOp::Append { mailbox: MailboxRef::Role(Role::Inbox), messages: vec![kept] });
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn a_large_body_leaves_in_pieces() {
    let mut home = Home::new();
    let lines: String =
        (0..100_000).map(|n| format!("line {n} of a message that is larger than one piece\r\n")).collect();
    let message = Bytes::from(format!("Subject: large\r\n\r\n{lines}"));
    put(&mut home, &message);
    let pieces =
        talk(&mut home, &format!("{BEGIN}c FETCH 1 (BODY.PEEK[] BODY.PEEK[TEXT]<3000000.20> RFC822.SIZE)\r\n"));
    assert!(pieces.iter().all(|piece| piece.len() <= 1_200_000), "a piece is as large as the message");
    let said = pieces.concat();
    let size = message.len() + 12;
    let whole = [format!("BODY[] {{{size}}}\r\nX-Added: 1\r\n").as_bytes(), &message, b" BODY[TEXT]<3000000>"].concat();
    assert!(find(&said, &whole));
    let part = [b"BODY[TEXT]<3000000> {20}\r\n", &lines.as_bytes()[3_000_000..3_000_020]].concat();
    assert!(find(&said, &part));
    assert!(said.ends_with(b"c OK FETCH completed\r\n"));
}

#[test]
fn a_body_that_is_missing_is_refused_without_half_an_answer() {
    let mut home = Home::new();
    put(&mut home, &Bytes::from_static(b"Subject: x\r\n\r\ny\r\n"));
    home.bodies_lost = true;
    let said = talk(&mut home, &format!("{BEGIN}c FETCH 1 (UID BODY.PEEK[])\r\nd NOOP\r\n")).concat();
    assert!(said.ends_with(b"c NO [UNAVAILABLE] not possible now, try again\r\nd OK NOOP completed\r\n"));
    assert!(!find(&said, b"FETCH (UID"));
}

#[test]
fn many_messages_leave_in_pieces() {
    let mut home = Home::new();
    let kept = home.keep(&Bytes::from_static(b"Subject: x\r\n\r\ny\r\n"), Bytes::new());
    home.submit(AccountOp::Append { mailbox: MailboxRef::Role(Role::Inbox), messages: vec![kept; 3000] });
    let pieces = talk(&mut home, &format!("{BEGIN}c FETCH 1:* (FLAGS ENVELOPE BODY.PEEK[HEADER])\r\n"));
    assert!(pieces.iter().all(|piece| piece.len() <= 80_000));
    let said = String::from_utf8(pieces.concat()).expect("text");
    assert_eq!(said.matches(" FETCH (FLAGS () ENVELOPE (").count(), 3000);
    assert!(said.contains("* 3000 FETCH (") && said.ends_with("c OK FETCH completed\r\n"));
}
