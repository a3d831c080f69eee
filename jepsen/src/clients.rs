//! The workload: clients that send, flag, move, expunge, make mailboxes, delete by POP3, idle, and change settings.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use node::config::Ports;
use node::demo::clients::api::Api;
use node::demo::clients::imap::{Answer, ImapClient, Selected};
use node::demo::clients::pop3::Pop3Client;
use node::demo::clients::smtp::{Sent, SmtpClient};
use node::demo::clients::stream::Trust;
use node::demo::pair::Login;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cluster::DOMAIN;
use crate::model::{Key, Model, NAME_HEADER, Named, Outcome, ROLES};

/// How long a client waits for any answer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(6);
/// Each writer sends so often.
const WRITE_EVERY: Duration = Duration::from_millis(150);
/// Pause of a client between two rounds, and after a broken session.
const ROUND_EVERY: Duration = Duration::from_millis(400);
/// How often settings and mailboxes are changed.
const RARELY: Duration = Duration::from_millis(1_500);
/// An owner looks at all messages every so many rounds, at new ones in the others.
const OWN_ALL_EVERY: u32 = 8;
/// What is selected.
const INBOX: &str = "INBOX";
/// Where messages are moved to.
const MOVED_TO: &str = "Archive";

/// What the clients do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everything.
    Work,
    /// Nothing new; what has no 250 yet is offered until it has.
    Settle,
    /// End.
    End,
}

/// What all clients share.
pub struct Work {
    /// What they know.
    pub model: Model,
    /// Accounts; those of the probes come last.
    pub accounts: Vec<Login>,
    /// How many are not the probes'.
    pub writable: usize,
    /// Ports.
    pub ports: Ports,
    /// The cluster address.
    pub cluster: IpAddr,
    /// The CA.
    pub trust: Trust,
    /// What they do.
    pub phase: watch::Receiver<Phase>,
}

impl Work {
    /// A session of an account at an address.
    ///
    /// # Errors
    /// No connection or login.
    pub async fn imap(&self, at: IpAddr, account: usize) -> anyhow::Result<ImapClient> {
        let login = self.accounts.get(account).context("no such account")?;
        let peer = SocketAddr::new(at, self.ports.imaps);
        let mut client = ImapClient::connect_tls(peer, &self.trust, ANSWER_LIMIT).await?;
        client.login(&login.address, &login.password).await?;
        Ok(client)
    }

    /// Selects INBOX; what it says must be as new as what any client was told before.
    ///
    /// # Errors
    /// As [`ImapClient::select`].
    pub async fn select(&self, client: &mut ImapClient, by: &str, account: usize) -> anyhow::Result<Selected> {
        let before = self.model.newest(account, INBOX);
        let now = client.select(INBOX).await?;
        self.model.selected(by, account, INBOX, (before, now));
        Ok(now)
    }

    fn now(&self) -> Phase {
        *self.phase.borrow()
    }
}

/// Runs rounds of a session until the end; a broken session is opened again. In `Settle` no round begins.
pub async fn repeat<F>(work: Arc<Work>, every: Duration, mut session: impl FnMut() -> F)
where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut phase = work.phase.clone();
    while *phase.borrow_and_update() == Phase::Work {
        let _ = session().await;
        let _ = tokio::time::timeout(every, phase.changed()).await;
    }
}

/// Sends numbered messages to all accounts in turn, each until it is ok.
pub async fn write(number: usize, at: IpAddr, submit: bool, work: Arc<Work>) {
    let (mut client, mut waiting, mut turn) = (None, None, number);
    loop {
        if waiting.is_none() && work.now() != Phase::Work {
            break;
        }
        if work.now() == Phase::End {
            work.model.fault(format!("writer {number}: a message could not be delivered before the end"));
            break;
        }
        let begun = Instant::now();
        let mut session = match client.take() {
            Some(session) => session,
            None => match connect(at, submit, number, &work).await {
                Ok(session) => session,
                Err(_) => {
                    tokio::time::sleep(ROUND_EVERY).await;
                    continue;
                }
            },
        };
        let id = *waiting.get_or_insert_with(|| {
            turn += 1;
            work.model.begin(turn % work.writable.max(1))
        });
        if let Some((outcome, text)) = deliver(&mut session, id, submit.then_some(number), &work).await {
            work.model.delivered(id, outcome, &text);
            if outcome == Outcome::Ok {
                waiting = None;
                client = Some(session);
            }
        }
        tokio::time::sleep_until(begun + WRITE_EVERY).await;
    }
}

/// Sends one message to the first account over the cluster address; whether it was accepted.
pub async fn deliver_once(work: &Work) -> bool {
    let Ok(mut client) = connect(work.cluster, false, 0, work).await else { return false };
    let id = work.model.begin(0);
    let Some((outcome, text)) = deliver(&mut client, id, None, work).await else { return false };
    work.model.delivered(id, outcome, &text);
    outcome == Outcome::Ok
}

async fn connect(at: IpAddr, submit: bool, number: usize, work: &Work) -> anyhow::Result<SmtpClient> {
    if !submit {
        return SmtpClient::connect(SocketAddr::new(at, work.ports.smtp), ANSWER_LIMIT).await;
    }
    let account = work.accounts.get(number % work.writable.max(1)).context("no accounts")?;
    let peer = SocketAddr::new(at, work.ports.submissions);
    let mut client = SmtpClient::connect_tls(peer, &work.trust, ANSWER_LIMIT).await?;
    client.login(&account.address, &account.password).await?;
    Ok(client)
}

async fn deliver(client: &mut SmtpClient, id: u64, as_user: Option<usize>, work: &Work) -> Option<(Outcome, String)> {
    let account = work.model.message(id)?.account;
    let to = work.accounts.get(account)?.address.clone();
    let own = as_user.and_then(|number| work.accounts.get(number % work.writable.max(1)));
    let from = own.map_or("lab@example.org", |login| login.address.as_str());
    Some(match client.send(from, &[&to], &work.model.bytes(id)).await {
        Sent::Accepted(text) => (Outcome::Ok, text),
        Sent::Refused(text) => (Outcome::Fail, text),
        Sent::Unknown(text) => (Outcome::Unknown, text),
    })
}

/// How a command ended by what came back.
fn outcome(answer: &anyhow::Result<Answer>) -> Outcome {
    match answer {
        Ok(answer) if answer.status == "OK" => Outcome::Ok,
        Ok(_) => Outcome::Fail,
        Err(_) => Outcome::Unknown,
    }
}

/// As [`outcome`], for a command that names a UID: OK alone says nothing, because a UID that is not there (any more) is
/// passed over. `shows` finds what the server says when it did something.
fn effect(answer: &anyhow::Result<Answer>, shows: impl Fn(&str) -> bool) -> Outcome {
    let lines = |answer: &Answer| {
        let untagged = answer.untagged.iter().map(|line| String::from_utf8_lossy(line).into_owned());
        untagged.chain([answer.text.clone()]).any(|line| shows(&line))
    };
    match (outcome(answer), answer) {
        (Outcome::Ok, Ok(answer)) if !lines(answer) => Outcome::Fail,
        (outcome, _) => outcome,
    }
}

/// Owns an account's INBOX at one address: flags, moves and expunges by the numbers of the messages.
pub async fn own(name: String, at: IpAddr, account: usize, work: Arc<Work>) {
    repeat(work.clone(), ROUND_EVERY, || async {
        let mut client = work.imap(at, account).await?;
        let mut from = 1;
        for round in 0u32.. {
            let selected = work.select(&mut client, &name, account).await?;
            // What failed is looked at again now and then.
            from = if round % OWN_ALL_EVERY == 0 { 1 } else { from };
            let set = format!("{from}:*");
            from = selected.uid_next;
            for (id, uid) in named(&mut client, &set, &work.model).await? {
                let key = ("INBOX".to_owned(), selected.uid_validity, uid);
                work.model.shown(&name, id, account, key.clone());
                act(&mut client, id, key, &work.model).await?;
            }
            tokio::time::sleep(ROUND_EVERY).await;
            if work.now() != Phase::Work {
                break;
            }
        }
        Ok(())
    })
    .await;
}

/// Numbers of messages with their UIDs.
///
/// # Errors
/// Refused or no answer.
pub async fn named(client: &mut ImapClient, set: &str, model: &Model) -> anyhow::Result<Vec<(u64, u32)>> {
    let items = format!("(UID BODY.PEEK[HEADER.FIELDS ({NAME_HEADER})])");
    let all = client.uid_fetch(set, &items).await?;
    Ok(all.into_iter().filter_map(|one| Some((model.recognise(&one.body?)?.0, one.uid))).collect())
}

async fn act(client: &mut ImapClient, id: u64, key: Key, model: &Model) -> anyhow::Result<()> {
    let uid = key.2;
    match id % ROLES {
        0 | 1 => {
            let known = model.message(id).unwrap_or_default();
            if known.expunged.contains(&key) {
                model.suspect(format!("resurrected: message {id} at {key:?} after its expunge"));
                return Ok(());
            }
            let marked = client.command(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)")).await?;
            if marked.status != "OK" {
                return Ok(());
            }
            let said = client.command(&format!("UID EXPUNGE {uid}")).await;
            let done = effect(&said, |line| line.ends_with(" EXPUNGE") || line.starts_with("* VANISHED"));
            model.changed("expunge", id, done, |message, outcome| {
                if outcome != Outcome::Fail {
                    message.expunge_sent.insert(key.clone());
                }
                if outcome == Outcome::Ok {
                    message.expunged.insert(key);
                }
            });
            said.map(drop)
        }
        3 => {
            let said = client.command(&format!("UID MOVE {uid} {MOVED_TO}")).await;
            model.changed("move", id, effect(&said, |line| line.contains("COPYUID")), |message, outcome| {
                message.moves += usize::from(outcome != Outcome::Fail);
                match outcome {
                    Outcome::Ok => message.moved = Some(MOVED_TO.to_owned()),
                    Outcome::Unknown => message.moved = None,
                    Outcome::Fail => {}
                }
            });
            said.map(drop)
        }
        4..=7 => {
            let flag = if id.is_multiple_of(2) { "\\Flagged".to_owned() } else { format!("$lab{}", id % ROLES) };
            if model.message(id).is_some_and(|message| message.flags.contains(&flag)) {
                return Ok(());
            }
            let said = client.command(&format!("UID STORE {uid} +FLAGS ({flag})")).await;
            let shown = format!("UID {uid}");
            let done = effect(&said, |line| line.contains(" FETCH ") && line.contains(&shown) && line.contains(&flag));
            model.changed("flag", id, done, |message, outcome| {
                if outcome == Outcome::Ok {
                    message.flags.insert(flag);
                }
            });
            said.map(drop)
        }
        _ => Ok(()),
    }
}

/// Deletes by POP3 what ends in 2, and looks at all UIDLs.
pub async fn pop3(at: IpAddr, account: usize, work: Arc<Work>) {
    repeat(work.clone(), RARELY, || async {
        let login = work.accounts.get(account).context("no such account")?;
        let peer = SocketAddr::new(at, work.ports.pop3s);
        let mut client = Pop3Client::connect_tls(peer, &work.trust, ANSWER_LIMIT).await?;
        client.login(&login.address, &login.password).await?;
        let (count, ids) = (client.count().await?, client.unique_ids().await?);
        if ids.len() != count as usize {
            work.model.fault(format!("POP3 of {}: STAT says {count}, UIDL lists {}", login.address, ids.len()));
        }
        let mut deleted = Vec::new();
        for (at, uidl) in (1..).zip(&ids) {
            let header = client.lines(&format!("TOP {at} 0")).await?;
            let Some((id, _)) = work.model.recognise(&header) else { continue };
            work.model.shown_uidl(id, account, uidl);
            if id % ROLES == 2 && client.command(&format!("DELE {at}")).await.is_ok() {
                deleted.push((id, ("POP3 ".to_owned() + uidl, 0, 0)));
            }
        }
        let ended = client.quit().await;
        for (id, key) in deleted {
            // A refused QUIT cannot be told from a broken one here; unknown claims less.
            let outcome = if ended.is_ok() { Outcome::Ok } else { Outcome::Unknown };
            work.model.changed("pop3 delete", id, outcome, |message, outcome| {
                message.expunge_sent.insert(key.clone());
                if outcome == Outcome::Ok {
                    message.expunged.insert(key);
                }
            });
        }
        ended
    })
    .await;
}

/// Idles; EXISTS never falls without an EXPUNGE.
pub async fn idle(at: IpAddr, account: usize, work: Arc<Work>) {
    repeat(work.clone(), ROUND_EVERY, || async {
        let mut client = work.imap(at, account).await?;
        client.select("INBOX").await?;
        let mut exists = client.exists;
        let tag = client.idle().await?;
        loop {
            let line = client.idle_line().await?;
            if line.ends_with(b" EXPUNGE") {
                exists = exists.saturating_sub(1);
            } else if line.ends_with(b" EXISTS") {
                if client.exists < exists {
                    work.model.fault(format!("IDLE of account {account}: EXISTS fell without EXPUNGE"));
                }
                exists = client.exists;
            } else if line.starts_with(b"* BYE") || work.now() != Phase::Work {
                return client.done(&tag).await.map(drop);
            }
        }
    })
    .await;
}

/// Makes, renames and deletes mailboxes of an account.
pub async fn boxes(at: IpAddr, account: usize, work: Arc<Work>) {
    let mut number = 0;
    repeat(work.clone(), RARELY, || {
        number += 1;
        let (name, renamed) = (format!("Box{number}"), format!("Other{number}"));
        let work = work.clone();
        async move {
            let mut client = work.imap(at, account).await?;
            let mut command = async |what, line: String, becomes: &[(String, Named)]| {
                let said = client.command(&line).await;
                work.model.mailbox(what, outcome(&said), account, becomes);
                said?.ok().map(drop)
            };
            command("create", format!("CREATE {name}"), &[(name.clone(), Named::There)]).await?;
            if number % 3 > 0 {
                let becomes = [(name.clone(), Named::Gone), (renamed.clone(), Named::There)];
                command("rename", format!("RENAME {name} {renamed}"), &becomes).await?;
            }
            if number % 3 > 1 {
                command("delete", format!("DELETE {renamed}"), &[(renamed.clone(), Named::Gone)]).await?;
            }
            Ok(())
        }
    })
    .await;
}

/// Adds accounts to the settings.
pub async fn settings(api: Api, work: Arc<Work>) {
    let mut number = 0;
    repeat(work.clone(), RARELY, || {
        number += 1;
        let (api, work, address) = (api.clone(), work.clone(), format!("new{number}@{DOMAIN}"));
        async move {
            let said =
                tokio::time::timeout(ANSWER_LIMIT, api.add_account(&address, "a-long-password-of-the-lab")).await;
            let outcome = match said {
                Ok(Ok(())) => Outcome::Ok,
                Ok(Err(error)) if error.to_string().contains(": 4") => Outcome::Fail,
                _ => Outcome::Unknown,
            };
            work.model.setting(&address, outcome);
            if outcome == Outcome::Ok { Ok(()) } else { bail!("not added") }
        }
    })
    .await;
}
