//! ENVELOPE, BODYSTRUCTURE and sections of whole messages, and that any bytes are a message.

use mime::{
    Day, Facts, PartKind, SectionText, body_contains, decode_text_parts, facts_of, header_contains, slice,
    text_contains,
};
use proptest::prelude::*;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn cut(message: &[u8], path: &[u32], what: SectionText) -> Option<String> {
    facts_of(message).section(path, what).map(|range| text(slice(message, &range)))
}

const PLAIN: &[u8] = b"Date: Fri, 21 Nov 1997 09:55:06 -0600\r\n\
From: John Doe <jdoe@machine.example>\r\n\
To: =?utf-8?q?M=C3=A4ry?= <mary@example.net>, \"b, c\" <d@e>\r\n\
Subject: Saying \"Hello\"\r\n\
Message-ID: <1234@local.machine.example>\r\n\
\r\n\
This is a message.\r\nSecond line.\r\n";

#[test]
fn plain_message() {
    let facts = facts_of(PLAIN);
    assert_eq!(
        text(&facts.envelope),
        "(\"Fri, 21 Nov 1997 09:55:06 -0600\" \"Saying \\\"Hello\\\"\" \
         ((\"John Doe\" NIL \"jdoe\" \"machine.example\")) ((\"John Doe\" NIL \"jdoe\" \"machine.example\")) \
         ((\"John Doe\" NIL \"jdoe\" \"machine.example\")) \
         ((\"=?utf-8?q?M=C3=A4ry?=\" NIL \"mary\" \"example.net\")(\"b, c\" NIL \"d\" \"e\")) NIL NIL NIL \
         \"<1234@local.machine.example>\")"
    );
    assert_eq!(text(&facts.body), "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 34 2)");
    assert_eq!(
        text(&facts.body_structure),
        "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 34 2 NIL NIL NIL NIL)"
    );
    assert_eq!(facts.header_length + 34, PLAIN.len() as u64);
    assert_eq!((facts.size, facts.sent), (PLAIN.len() as u64, Some(Day { year: 1997, month: 11, day: 21 })));
    assert_eq!(facts.to, "Märy <mary@example.net>, \"b, c\" <d@e>");
    let body = Some("This is a message.\r\nSecond line.\r\n".to_owned());
    assert_eq!(cut(PLAIN, &[], SectionText::Text), body);
    assert_eq!(cut(PLAIN, &[1], SectionText::Whole), body);
    assert_eq!(cut(PLAIN, &[], SectionText::Whole), Some(text(PLAIN)));
    assert!(cut(PLAIN, &[], SectionText::Header).is_some_and(|h| h.ends_with("example>\r\n\r\n")));
    for path in [&[2][..], &[1, 1], &[0]] {
        assert_eq!(cut(PLAIN, path, SectionText::Whole), None, "{path:?}");
    }
    assert_eq!(cut(PLAIN, &[1], SectionText::Header), None);
}

const NESTED: &[u8] = b"From: a@b\r\n\
Subject: outer\r\n\
MIME-Version: 1.0\r\n\
Content-Type: multipart/mixed; boundary=\"out\"\r\n\
\r\n\
preamble\r\n\
--out\r\n\
Content-Type: multipart/alternative; boundary=\"out-in\"\r\n\
\r\n\
--out-in\r\n\
Content-Type: text/plain; charset=utf-8\r\n\
Content-Transfer-Encoding: quoted-printable\r\n\
\r\n\
caf=C3=A9\r\n\
--out-in\r\n\
Content-Type: text/html\r\n\
\r\n\
<b>hi</b>\r\n\
\r\n\
--out-in--\r\n\
epilogue\r\n\
--out\r\n\
Content-Type: message/rfc822\r\n\
Content-Disposition: attachment; filename=\"m.eml\"\r\n\
\r\n\
Subject: inner\r\n\
From: c@d\r\n\
\r\n\
inner body\r\n\
--out\r\n\
Content-Type: application/pdf; name=x.pdf\r\n\
Content-Transfer-Encoding: base64\r\n\
Content-ID: <id@x>\r\n\
Content-Language: en, de\r\n\
\r\n\
aGVsbG8=\r\n\
--out--\r\n";

#[test]
fn nested_structure() {
    let facts = facts_of(NESTED);
    assert_eq!(
        text(&facts.body_structure),
        "(((\"text\" \"plain\" (\"charset\" \"utf-8\") NIL NIL \"quoted-printable\" 9 1 NIL NIL NIL NIL)\
         (\"text\" \"html\" NIL NIL NIL \"7bit\" 11 1 NIL NIL NIL NIL) \
         \"alternative\" (\"boundary\" \"out-in\") NIL NIL NIL)\
         (\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 39 \
         (NIL \"inner\" ((NIL NIL \"c\" \"d\")) ((NIL NIL \"c\" \"d\")) ((NIL NIL \"c\" \"d\")) NIL NIL NIL NIL NIL) \
         (\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 10 1 NIL NIL NIL NIL) 4 \
         NIL (\"attachment\" (\"filename\" \"m.eml\")) NIL NIL)\
         (\"application\" \"pdf\" (\"name\" \"x.pdf\") \"<id@x>\" NIL \"base64\" 8 NIL NIL (\"en\" \"de\") NIL) \
         \"mixed\" (\"boundary\" \"out\") NIL NIL NIL)"
    );
}

#[test]
fn sections_of_a_nested_message() {
    use SectionText::{Header, Mime, Text, Whole};
    let cases: [(&[u32], SectionText, Option<&str>); 14] = [
        (&[1, 1], Whole, Some("caf=C3=A9")),
        (
            &[1, 1],
            Mime,
            Some("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"),
        ),
        (&[1, 2], Whole, Some("<b>hi</b>\r\n")),
        (&[1, 3], Whole, None),
        (&[2], Whole, Some("Subject: inner\r\nFrom: c@d\r\n\r\ninner body")),
        (&[2], Header, Some("Subject: inner\r\nFrom: c@d\r\n\r\n")),
        (&[2], Text, Some("inner body")),
        (&[2, 1], Whole, Some("inner body")),
        (&[2, 1], Mime, Some("Subject: inner\r\nFrom: c@d\r\n\r\n")),
        (&[2, 2], Whole, None),
        (&[2, 1, 1], Whole, None),
        (&[3], Whole, Some("aGVsbG8=")),
        (&[3], Text, None),
        (&[1], Header, None),
    ];
    for (path, what, wanted) in cases {
        assert_eq!(cut(NESTED, path, what).as_deref(), wanted, "{path:?} {what:?}");
    }
}

#[test]
fn search_sees_decoded_text() {
    let facts = facts_of(NESTED);
    assert!(body_contains(NESTED, &facts, "CAFÉ"));
    assert!(body_contains(NESTED, &facts, "subject: INNER"));
    assert!(!body_contains(NESTED, &facts, "outer"));
    assert!(text_contains(NESTED, &facts, "outer"));
    assert!(!body_contains(NESTED, &facts, "hello"), "attachments are no text");
    assert!(
        header_contains(PLAIN, "to", "märy") && header_contains(PLAIN, "TO", "") && !header_contains(PLAIN, "cc", "")
    );
    assert_eq!(decode_text_parts(NESTED, &facts), "café\n<b>hi</b>\r\n\nSubject: inner\nFrom: c@d\n\ninner body\n");
}

#[test]
fn broken_structures_are_described_all_the_same() {
    let kind = |message: &[u8]| facts_of(message).root.kind;
    // No boundary, or one that never comes: bytes.
    assert_eq!(kind(b"Content-Type: multipart/mixed\r\n\r\nx\r\n"), PartKind::Leaf);
    let lost = facts_of(b"Content-Type: multipart/mixed; boundary=b\r\n\r\nx\r\n");
    assert_eq!(text(&lost.body), "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 3 1)");
    // An encoded message cannot be opened in place.
    let encoded = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\neA==\r\n";
    assert!(text(&facts_of(encoded).body).starts_with("(\"application\" \"octet-stream\" NIL NIL NIL \"base64\""));
    // Never closed; the outer delimiter closes the inner multipart.
    let open = b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\none\r\n--o\r\n\r\ntwo";
    let facts = facts_of(open);
    assert_eq!(cut(open, &[1, 1], SectionText::Whole).as_deref(), Some("one"));
    assert_eq!(cut(open, &[2], SectionText::Whole).as_deref(), Some("two"));
    assert_eq!(facts.root.children.len(), 2);
    // A delimiter inside a header section ends it.
    let short = b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: text/html\r\n--o--\r\n";
    assert_eq!(cut(short, &[1], SectionText::Whole).as_deref(), Some(""));
    assert_eq!(facts_of(b"").size, 0);
    assert_eq!(text(&facts_of(b"no header at all").envelope), "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)");
}

#[test]
fn strings_that_cannot_be_quoted_are_literals() {
    let envelope = text(&facts_of("Subject: caf\u{e9}\r\n\r\n".as_bytes()).envelope);
    assert!(envelope.starts_with("(NIL {5}\r\ncaf\u{e9} NIL"), "{envelope}");
}

#[test]
fn nesting_and_parts_are_limited() {
    let mut deep = String::new();
    for n in 0..200 {
        deep.push_str(&format!("Content-Type: multipart/mixed; boundary=b{n}x\r\n\r\n--b{n}x\r\n"));
    }
    let facts = facts_of(deep.as_bytes());
    let depth = |facts: &Facts| {
        let mut part = &facts.root;
        let mut depth = 0;
        while let Some(child) = part.children.first() {
            part = child;
            depth += 1;
        }
        depth
    };
    assert_eq!(depth(&facts), vocab::limits::MIME_DEPTH_MAX);
    assert_eq!(Facts::decode(&facts.encode()).as_ref(), Ok(&facts));
    let many = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\nx\r\n".repeat(12_000));
    assert_eq!(facts_of(many.as_bytes()).root.children.len() + 1, vocab::limits::MIME_PARTS_MAX);
}

#[test]
fn conversations_are_found_from_the_header() {
    let thread = |message: &str| facts_of(message.as_bytes()).thread;
    let first = thread("Message-ID: <a@x>\r\n\r\n");
    assert_eq!(thread("Message-ID: <b@x>\r\nIn-Reply-To: <a@x>\r\n\r\n"), first);
    assert_eq!(thread("Message-ID: <c@x>\r\nReferences: <a@x>\r\n <b@x>\r\nIn-Reply-To: <b@x>\r\n\r\n"), first);
    assert_ne!(thread("Message-ID: <d@x>\r\n\r\n"), first);
    let facts = facts_of(b"References: <a@x> <b@x>\r\n\r\n");
    assert_eq!(mime::thread_of(&facts.encode()), Ok(first));
}

#[test]
fn golden_bytes_of_facts() {
    let message = b"Message-ID: <a@x>\r\nSubject: s\r\nDate: 1 Jan 2024\r\nFrom: f@g\r\n\r\nhi\r\n";
    let facts = facts_of(message);
    let hex: String = facts.encode().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        "010a107769a9a5f02a7b1d2cb7435b650adb4d1042183e2266282231204a616e203230323422202273222028284e494c204e\
         494c202266222022672229292028284e494c204e494c202266222022672229292028284e494c204e494c2022662220226722\
         2929204e494c204e494c204e494c204e494c20223c6140783e22292a3a282274657874222022706c61696e22202822636861\
         7273657422202275732d61736369692229204e494c204e494c202237626974222034203129324a282274657874222022706c\
         61696e222028226368617273657422202275732d61736369692229204e494c204e494c2022376269742220342031204e494c\
         204e494c204e494c204e494c293a12103e183e20423a0a746578742f706c61696e42053c6140783e5201735a0366406770e5\
         add309"
    );
    assert_eq!(Facts::decode(&facts.encode()), Ok(facts));
    assert!(Facts::decode(&[]).is_err() && Facts::decode(&[9]).is_err() && Facts::decode(&[1, 255]).is_err());
}

/// Pieces from which broken mail is made.
fn mail() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "Content-Type: multipart/mixed; boundary=b\r\n",
        "Content-Type: multipart/digest; boundary=\"b c\"\r\n",
        "Content-Type: message/rfc822\r\n",
        "--b\r\n",
        "--b--\r\n",
        "--b c\r\n",
        "--b c--\n",
        "\r\n",
        "\n",
        "\r",
        "x",
        "From: \"a (b\" <c@d\r\n",
        "To: g: a@b, ;\r\n",
        " folded\r\n",
        "Subject: =?utf-8?b?w6k=?=\r\n",
        "(",
        "<",
        "@",
        "Content-Transfer-Encoding: base64\r\n",
        "Content-Disposition: attachment; filename=\"x\\\"\r\n",
        "caf\u{e9}",
    ]);
    prop_oneof![prop::collection::vec(pieces, 0..40).prop_map(|parts| parts.concat().into_bytes()), any::<Vec<u8>>(),]
}

fn check_ranges(part: &mime::Part, within: &std::ops::Range<u64>) {
    assert!(within.start <= part.header.start && part.header.start <= part.header.end);
    assert!(part.header.end <= part.body.start && part.body.start <= part.body.end && part.body.end <= within.end);
    assert_eq!(part.kind == PartKind::Leaf, part.children.is_empty());
    for child in &part.children {
        check_ranges(child, &part.body);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_bytes_are_a_message(message in mail()) {
        let facts = facts_of(&message);
        check_ranges(&facts.root, &(0..message.len() as u64));
        prop_assert_eq!(facts.header_length, mime::header_length(&message) as u64);
        let balanced = |bytes: &[u8]| bytes.first() == Some(&b'(') && bytes.last() == Some(&b')');
        prop_assert!(balanced(&facts.envelope) && balanced(&facts.body) && balanced(&facts.body_structure));
        let _ = decode_text_parts(&message, &facts);
        prop_assert_eq!(Facts::decode(&facts.encode()), Ok(facts));
    }

    #[test]
    fn any_bytes_are_no_panic_for_facts(mut bytes in any::<Vec<u8>>()) {
        bytes.insert(0, 1);
        let _ = (Facts::decode(&bytes), mime::thread_of(&bytes));
    }
}
