//! Any bytes, in any pieces, with any answers: the session never panics, never spins and keeps its order.

use std::net::IpAddr;

use proptest::prelude::*;
use vocab::{AccountId, Address, CommandId};

use super::*;

fn session(role: Role) -> SmtpSession {
    let config = Config {
        role,
        host: "mail.example.org".into(),
        tls_offered: true,
        allow_plaintext: true,
        message_size_max: 2000,
        recipients_max: 2,
    };
    let peer = Peer { address: IpAddr::from([192, 0, 2, 7]), tls: false };
    SmtpSession::new(Arc::new(config), peer, Instant(5))
}

fn answer(query: &Query, mood: u8) -> Answer {
    let identity = || Identity { account: AccountId(16), address: Address::parse("a@b.example").expect("valid") };
    match (query, mood % 4) {
        (_, 3) => Answer::Unavailable,
        (Query::Classify(_), 0) => Answer::Class(Class::NotOurs),
        (Query::Classify(_), _) => Answer::Class(Class::Own(vec![Target::Local(AccountId(16))])),
        (Query::Authenticate(_), 0) => Answer::Login(None),
        (Query::Authenticate(_), _) => Answer::Login(Some(identity())),
        (Query::MaySendAs(..) | Query::Hold(_), mood) => Answer::Allowed(mood != 0),
        (Query::Accept(_), 0) => Answer::NoSpace,
        (Query::Accept(_), _) => Answer::Accepted(CommandId::default()),
    }
}

/// Runs a session over the pieces; returns what it said and how many messages it asked to accept.
fn run(role: Role, pieces: &[Vec<u8>], moods: &[u8]) -> (String, usize) {
    let mut session = session(role);
    let (mut said, mut unread, mut accepts, mut asked) = (Vec::new(), Vec::new(), 0, 0);
    for piece in std::iter::once(&Vec::new()).chain(pieces) {
        unread.extend_from_slice(piece);
        loop {
            let mut closed = false;
            let mut progress = false;
            while let Some(output) = session.next_output() {
                progress = true;
                match output {
                    Output::Write(bytes) => said.extend_from_slice(&bytes),
                    Output::Ask(query) => {
                        assert_eq!(session.on_bytes(b"NOOP\r\n", Instant(5)), 0, "no bytes while a question is open");
                        accepts += usize::from(matches!(query, Query::Accept(_)));
                        session.on_answer(answer(&query, moods.get(asked).copied().unwrap_or(1)), Instant(5));
                        asked += 1;
                    }
                    Output::StartTls => {
                        unread.clear();
                        session.on_tls(Instant(5));
                    }
                    Output::Close => closed = true,
                }
            }
            if closed {
                assert!(session.deadline().is_none());
                return (String::from_utf8(said).expect("text"), accepts);
            }
            let used = session.on_bytes(&unread, Instant(5));
            assert!(used <= unread.len());
            unread.drain(..used);
            if used == 0 && !progress {
                break;
            }
        }
        assert!(unread.len() <= AUTH_LINE_BYTES_MAX, "{} bytes wait", unread.len());
    }
    assert!(session.deadline().is_some());
    (String::from_utf8(said).expect("text"), accepts)
}

fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&'static [u8]> = vec![
        b"EHLO a\r\n",
        b"HELO b\r\n",
        b"MAIL FROM:<a@b.example>\r\n",
        b"MAIL FROM:<> SIZE=9\r\n",
        b"RCPT TO:<c@d.example>\r\n",
        b"RCPT TO:<postmaster>\r\n",
        b"DATA\r\n",
        b".\r\n",
        b"x: y\r\n\r\n",
        b"BDAT 5\r\n",
        b"BDAT 3 LAST\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"STARTTLS\r\n",
        b"AUTH LOGIN\r\n",
        b"AUTH PLAIN AGEAYg==\r\n",
        b"YQ==\r\n",
        b"*\r\n",
        b"\r",
        b"\n",
        b"\xff\xfe",
        b"..",
        b"QUIT\r\n",
    ];
    prop_oneof![
        8 => prop::sample::select(words).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..200),
        1 => (0usize..20_000).prop_map(|n| vec![b'a'; n]),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        pieces in proptest::collection::vec(fragment(), 0..40),
        moods in proptest::collection::vec(any::<u8>(), 0..40),
        submission: bool,
    ) {
        let role = if submission { Role::Submission } else { Role::Mx };
        let (said, _) = run(role, &pieces, &moods);
        for line in said.split_terminator("\r\n") {
            prop_assert!(line.len() >= 4 && line.bytes().take(3).all(|b| b.is_ascii_digit()), "{line}");
        }
    }

    #[test]
    fn pieces_do_not_matter(
        pieces in proptest::collection::vec(fragment(), 0..20),
        cut in 1usize..50,
    ) {
        // Without STARTTLS, whose point is that what comes in the same piece is thrown away.
        let input: Vec<u8> = pieces.into_iter().filter(|p| p != b"STARTTLS\r\n").flatten().collect();
        let cuts: Vec<Vec<u8>> = input.chunks(cut).map(<[u8]>::to_vec).collect();
        prop_assert_eq!(run(Role::Submission, &[input], &[]), run(Role::Submission, &cuts, &[]));
    }
}

#[test]
fn an_answer_nobody_asked_for_changes_nothing() {
    let mut session = session(Role::Mx);
    session.on_answer(Answer::Allowed(true), Instant(5));
    session.on_tls(Instant(5));
    session.on_end(Instant(6));
    session.on_answer(Answer::Unavailable, Instant(7));
    assert_eq!(session.on_bytes(b"NOOP\r\n", Instant(8)), 0);
}
