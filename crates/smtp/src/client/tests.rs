//! Tests of the client machine against scripted servers.

use super::*;

const T: Instant = Instant(1000);

fn job(recipients: &[&str]) -> Job {
    Job {
        name: "mail.example.org".into(),
        tls: TlsUse::Opportunistic,
        reverse_path: ReversePath::Address(Address::parse("anna@example.org").expect("valid")),
        recipients: recipients.iter().map(|r| Address::parse(r).expect("valid")).collect(),
        body: Bytes::from_static(b"a: b\r\n\r\n.x\r\n"),
        smtputf8: false,
    }
}

/// Plays `script`: `<` lines are the server's, `>` lines must be said next, `tls` completes the handshake.
fn play(job: Job, script: &str) -> Outcome {
    let mut client = Client::new(job, T);
    for step in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
        match step.split_at(1) {
            ("<", line) => {
                let line = format!("{}\r\n", line.trim_start());
                assert_eq!(client.on_bytes(line.as_bytes(), T), line.len(), "{step}");
            }
            (">", line) => match client.next_output() {
                Some(ClientOutput::Write(bytes)) => {
                    let said = String::from_utf8(bytes.to_vec()).expect("text");
                    assert_eq!(said.trim_end().replace("\r\n", "|"), line.trim_start());
                }
                other => panic!("{step}: {other:?}"),
            },
            _ if step == "tls" => {
                assert!(matches!(client.next_output(), Some(ClientOutput::StartTls)));
                client.on_tls(T);
            }
            _ => client.on_end(),
        }
    }
    match client.next_output() {
        Some(ClientOutput::Done(outcome)) => {
            assert!(client.deadline().is_none());
            outcome
        }
        other => panic!("not done: {other:?}"),
    }
}

#[test]
fn a_message_is_sent_under_tls() {
    let outcome = play(
        job(&["bob@elsewhere.example"]),
        "< 220 mx ESMTP
         > EHLO mail.example.org
         < 250-mx
         < 250-SIZE 1000
         < 250 STARTTLS
         > STARTTLS
         < 220 go
         tls
         > EHLO mail.example.org
         < 250-mx
         < 250-SIZE 1000
         < 250 8BITMIME
         > MAIL FROM:<anna@example.org> SIZE=12
         < 250 ok
         > RCPT TO:<bob@elsewhere.example>
         < 250 ok
         > DATA
         < 354 go
         > a: b||..x|.
         < 250 2.0.0 queued
         > QUIT",
    );
    assert_eq!(outcome, [Ok(())]);
}

#[test]
fn recipients_have_results_of_their_own_and_helo_is_tried() {
    let outcome = play(
        job(&["no@e.example", "later@[IPv6:::1]", "yes@e.example"]),
        "< 220 mx
         > EHLO mail.example.org
         < 502 what
         > HELO mail.example.org
         < 250 mx
         > MAIL FROM:<anna@example.org>
         < 250 ok
         > RCPT TO:<no@e.example>
         < 550 5.1.1 no such user
         > RCPT TO:<later@[IPv6:::1]>
         < 450 try later
         > RCPT TO:<yes@e.example>
         < 250 ok
         > DATA
         < 354 go
         > a: b||..x|.
         < 250 ok
         > QUIT",
    );
    let statuses: Vec<_> = outcome.iter().map(|r| r.as_ref().err().map(|e| (e.permanent, e.status.as_str()))).collect();
    assert_eq!(statuses, [Some((true, "5.1.1")), Some((false, "4.0.0")), None]);
}

#[test]
fn a_host_that_is_busy_or_breaks_off_is_left_for_another() {
    for (script, elsewhere, permanent) in [
        ("< 421 busy\n> QUIT", true, false),
        ("< 554 go away\n> QUIT", true, false),
        ("< 521 no mail here\n> QUIT", true, true),
        ("end", true, false),
        ("< 220 mx\n> EHLO mail.example.org\n< 250 mx\n> MAIL FROM:<anna@example.org>\n< 550 no\n> QUIT", false, true),
    ] {
        let outcome = play(job(&["bob@e.example"]), script);
        let refusal = outcome[0].as_ref().expect_err("refused");
        assert_eq!((refusal.elsewhere, refusal.permanent), (elsewhere, permanent), "{script}");
    }
}

#[test]
fn after_the_final_dot_nobody_knows() {
    let outcome = play(
        job(&["bob@e.example"]),
        "< 220 mx
         > EHLO mail.example.org
         < 250 mx
         > MAIL FROM:<anna@example.org>
         < 250 ok
         > RCPT TO:<bob@e.example>
         < 250 ok
         > DATA
         < 354 go
         > a: b||..x|.
         end",
    );
    let refusal = outcome[0].as_ref().expect_err("refused");
    assert_eq!((refusal.elsewhere, refusal.permanent, refusal.status.as_str()), (false, false, "4.4.2"));
}

#[test]
fn what_the_host_cannot_take_is_permanent() {
    let script = "< 220 mx\n> EHLO mail.example.org\n< 250-mx\n< 250 SIZE 5\n> QUIT";
    let outcome = play(job(&["bob@e.example"]), script);
    assert!(matches!(&outcome[0], Err(r) if r.permanent && r.status == "5.3.4"));
    let script = "< 220 mx\n> EHLO mail.example.org\n< 250 mx\n> QUIT";
    let outcome = play(job(&["jürgen@e.example"]), script);
    assert!(matches!(&outcome[0], Err(r) if r.permanent && r.status == "5.6.7"));
    let outcome = play(Job { tls: TlsUse::Required, ..job(&["bob@e.example"]) }, script);
    assert!(matches!(&outcome[0], Err(r) if !r.permanent && r.status == "4.7.4"));
}

#[test]
fn silence_ends_the_dialogue() {
    let mut client = Client::new(job(&["bob@e.example"]), T);
    let deadline = client.deadline().expect("waits");
    client.on_deadline(Instant(deadline.0 - 1));
    assert!(client.next_output().is_none());
    client.on_deadline(deadline);
    assert!(matches!(client.next_output(), Some(ClientOutput::Done(_))));
}

proptest::proptest! {
    #[test]
    fn any_replies_are_survived(pieces: Vec<Vec<u8>>, codes in proptest::collection::vec(200u16..600, 0..20)) {
        let mut client = Client::new(job(&["bob@e.example"]), T);
        for code in codes {
            let _ = client.on_bytes(format!("{code} x\r\n").as_bytes(), T);
            while let Some(output) = client.next_output() {
                if matches!(output, ClientOutput::StartTls) {
                    client.on_tls(T);
                }
            }
        }
        for piece in pieces {
            let used = client.on_bytes(&piece, T);
            proptest::prop_assert!(used <= piece.len());
        }
        client.on_end();
    }
}
