//! Runs `smtp/*.txt` against the sealed SMTP session.
//!
//! Head lines of a transcript beside comments: `#role submission` (else mx), `#tls` (implicit TLS), `#plaintext` (AUTH
//! without TLS), `#size N` and `#recipients N` (limits), `#accepted N TEXT` (the N-th accepted body, escapes as in `C|`).
//!
//! The directory of every transcript: example.org is ours, with the accounts anna (16) and bob (17), the alias team
//! for both, the alias away for carol@elsewhere.example, and the disabled account gone. Every password is `geheim`.
//! Memory is refused above 4 MiB. A reverse-path `later@elsewhere.example` is answered "unavailable", `full@...` "no
//! room".

use std::sync::Arc;

use smtp::session::{Answer, Class, Config, Identity, Query, Role, SmtpSession, Target};
use vocab::session::Peer;
use vocab::{AccountId, Address, Boot, CommandId, ForwardPath, NodeId, ReversePath};

const MEMORY_MAX: usize = 4 * 1024 * 1024;

struct Fake {
    accepted: Vec<String>,
}

fn account(local: &str) -> Option<AccountId> {
    ["anna", "bob"].iter().zip(16..).find(|(name, _)| **name == local).map(|(_, id)| AccountId(id))
}

fn classify(path: &ForwardPath) -> Class {
    let ForwardPath::Address(address) = path else { return Class::Own(vec![Target::Local(AccountId(16))]) };
    if address.domain.as_str() != "example.org" {
        return Class::NotOurs;
    }
    match address.local.folded().as_str() {
        "team" => Class::Own(vec![Target::Local(AccountId(16)), Target::Local(AccountId(17))]),
        "away" => Class::Own(vec![Target::Remote(Address::parse("carol@elsewhere.example").expect("valid"))]),
        "postmaster" => Class::Own(vec![Target::Local(AccountId(16))]),
        "gone" => Class::Disabled,
        local => account(local).map_or(Class::NoSuchUser, |id| Class::Own(vec![Target::Local(id)])),
    }
}

impl Fake {
    fn answer(&mut self, query: Query) -> Answer {
        match query {
            Query::Classify(path) => Answer::Class(classify(&path)),
            Query::Authenticate(c) if c.login == "later" => Answer::Unavailable,
            Query::Authenticate(c) => Answer::Login(account(&c.login).filter(|_| c.password == "geheim").map(|id| {
                Identity { account: id, address: Address::parse(&format!("{}@example.org", c.login)).expect("valid") }
            })),
            Query::MaySendAs(identity, address) => Answer::Allowed(identity.address == address),
            Query::Hold(bytes) => Answer::Allowed(bytes <= MEMORY_MAX),
            Query::Accept(incoming) => {
                assert!(!incoming.envelope.recipients.is_empty());
                let from = match &incoming.envelope.reverse_path {
                    ReversePath::Address(address) => address.to_string(),
                    ReversePath::Null => String::new(),
                };
                match from.as_str() {
                    "later@elsewhere.example" => Answer::Unavailable,
                    "full@elsewhere.example" => Answer::NoSpace,
                    _ => {
                        self.accepted.push(String::from_utf8_lossy(&incoming.body).escape_default().to_string());
                        let counter = self.accepted.len() as u64;
                        Answer::Accepted(CommandId { origin: NodeId(1), boot: Boot(1), counter, recipient: 0 })
                    }
                }
            }
        }
    }
}

fn run(text: &str) -> Result<(), String> {
    let word = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).map(|rest| rest.trim().to_owned());
    let number = |name: &str, default: usize| word(name).map_or(default, |n| n.parse().expect("a number"));
    let config = Arc::new(Config {
        role: if word("#role").as_deref() == Some("submission") { Role::Submission } else { Role::Mx },
        host: "mail.example.org".into(),
        tls_offered: true,
        allow_plaintext: word("#plaintext").is_some(),
        message_size_max: number("#size", 64 * 1024 * 1024),
        recipients_max: number("#recipients", 1000),
    });
    let peer = Peer { address: std::net::IpAddr::from([192, 0, 2, 7]), tls: word("#tls").is_some() };
    let mut fake = Fake { accepted: Vec::new() };
    let open = |_, now| SmtpSession::new(config.clone(), peer.clone(), now);
    testkit::transcript::run(text, open, |_, query, _| fake.answer(query))?;
    for line in text.lines().filter_map(|l| l.strip_prefix("#accepted ")) {
        let (index, body) = line.split_once(' ').unwrap_or((line, ""));
        let got = fake.accepted.get(index.parse::<usize>().expect("a number") - 1);
        if got.map(String::as_str) != Some(body) {
            return Err(format!("accepted {index}: {got:?}, not {body:?}"));
        }
    }
    Ok(())
}

#[test]
fn every_smtp_transcript_holds() {
    let folder = testkit::place::package().join("smtp");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path()).collect();
    files.sort();
    assert!(files.len() >= 12, "transcripts are missing");
    let mut faults = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        if let Err(fault) = run(&text) {
            faults.push(format!("{}: {fault}", file.display()));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
