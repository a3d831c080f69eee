//! Transcripts and hostile bytes against the sealed session, with a small INBOX behind it.

use std::cell::RefCell;

use bytes::Bytes;
use pop3::{Answer, Listed, Opened, Query, Session, Settings};
use proptest::prelude::*;
use vocab::session::{Output, Session as _};
use vocab::{BlobHash, CommandId, Instant, NodeId, PlacementId};

const PREFIX: &[u8] = b"Return-Path: <a@example.net>\r\n";

struct Inbox(Vec<(PlacementId, Vec<u8>)>);

impl Inbox {
    fn new() -> Self {
        let big = [b"Subject: three\r\n\r\n".to_vec(), vec![b'x'; 600_000 - PREFIX.len() - 18]].concat();
        let two = format!("Subject: two\r\n\r\n{}\r\n", "y".repeat(127 - PREFIX.len() - 18));
        let bodies = [b"Subject: one\r\n\r\nHello\r\n.dot\r\nend\r\n".to_vec(), two.into_bytes(), big];
        let id = |counter| PlacementId {
            command: CommandId { origin: NodeId(1), counter, ..CommandId::default() },
            index: 0,
        };
        Self((1..).map(id).zip(bodies).collect())
    }

    fn answer(&mut self, query: Query) -> Answer {
        match query {
            Query::Login(who) if who.login == "later" => Answer::Unavailable,
            Query::Login(who) if who.login == "u1" && who.password == "secret" => {
                let listed =
                    |(id, body): &(PlacementId, Vec<u8>)| Listed { id: *id, size: (PREFIX.len() + body.len()) as u64 };
                Answer::LoggedIn(self.0.iter().map(listed).collect())
            }
            Query::Login(_) => Answer::Refused,
            Query::Open(id) => match self.0.iter().find(|(i, _)| *i == id) {
                Some((_, body)) => Answer::Opened(Opened {
                    prefix: Bytes::from_static(PREFIX),
                    blob: BlobHash::of(body),
                    blob_size: body.len() as u64,
                }),
                None => Answer::Unavailable,
            },
            Query::Read { blob, from, to } => match self.0.iter().find(|(_, body)| BlobHash::of(body) == blob) {
                Some((_, body)) => Answer::Bytes(Bytes::copy_from_slice(&body[from as usize..to as usize])),
                None => Answer::Unavailable,
            },
            Query::Expunge(ids) => {
                self.0.retain(|(id, _)| !ids.contains(id));
                Answer::Done
            }
        }
    }
}

fn settings(allow_plaintext: bool) -> Settings {
    Settings { hostname: "mail.example.org".into(), allow_plaintext }
}

#[test]
fn pop3_transcripts() {
    let folder = testkit::place::package().join("../../tests/transcripts/pop3");
    let mut played = 0;
    for entry in std::fs::read_dir(folder).expect("folder of transcripts") {
        let path = entry.expect("entry").path();
        let text = std::fs::read_to_string(&path).expect("transcript");
        let plaintext = !text.contains("policy: tls only");
        let inbox = RefCell::new(Inbox::new());
        let open = |_, now| Session::new(settings(plaintext), false, now);
        let result = testkit::transcript::run(&text, open, |_, query, _| inbox.borrow_mut().answer(query));
        assert_eq!(result, Ok(()), "{}", path.display());
        played += 1;
    }
    assert!(played >= 5);
}

/// Feeds the bytes in pieces as a driver does and returns what was said.
fn play(input: &[u8], cut: usize) -> Vec<u8> {
    let mut inbox = Inbox::new();
    let mut session = Session::new(settings(true), true, Instant(1));
    let (mut said, mut buffer) = (Vec::new(), Vec::new());
    let mut pieces = input.chunks(cut.max(1));
    loop {
        let used = session.on_bytes(&buffer, Instant(2));
        assert!(used <= buffer.len());
        buffer.drain(..used);
        let mut asked = false;
        while let Some(output) = session.next_output() {
            match output {
                Output::Write(bytes) => said.extend_from_slice(&bytes),
                Output::Ask(query) => {
                    asked = true;
                    session.on_answer(inbox.answer(query), Instant(3));
                }
                Output::StartTls => panic!("TLS is on already"),
                Output::Close => return said,
            }
        }
        if used == 0 && !asked {
            assert!(buffer.len() <= pop3::session::LINE_BYTES_MAX, "the session does not consume its input");
            match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return said,
            }
        }
    }
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    let words =
        ["USER u1", "PASS secret", "RETR 1", "TOP 2 3", "LIST", "UIDL 9", "DELE 1", "RSET", "AUTH PLAIN", "STLS", "*"];
    prop_oneof![
        4 => proptest::sample::select(words.to_vec()).prop_map(|w| format!("{w}\r\n").into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic_and_cuts_change_nothing(commands in proptest::collection::vec(command(), 0..24), cut in 1usize..64) {
        let input = commands.concat();
        prop_assert_eq!(play(&input, cut), play(&input, usize::MAX));
    }
}

#[test]
fn a_body_that_breaks_off_never_looks_complete() {
    let mut inbox = Inbox::new();
    let mut session = Session::new(settings(true), true, Instant(1));
    session.on_bytes(b"USER u1\r\nPASS secret\r\n", Instant(1));
    let (mut said, mut reads, mut closed) = (Vec::new(), 0, false);
    let mut sent = false;
    loop {
        match session.next_output() {
            Some(Output::Write(bytes)) => said.extend_from_slice(&bytes),
            Some(Output::Ask(query)) => {
                reads += usize::from(matches!(query, Query::Read { .. }));
                let answer = if reads == 2 { Answer::Unavailable } else { inbox.answer(query) };
                session.on_answer(answer, Instant(1));
            }
            Some(Output::StartTls) => panic!("TLS is on already"),
            Some(Output::Close) => closed = true,
            None if sent => break,
            None => {
                sent = true;
                session.on_bytes(b"RETR 3\r\n", Instant(1));
            }
        }
    }
    assert!(closed && !said.ends_with(b".\r\n"));
}
