//! The clients that read: one IMAP session per account and node. They fetch what is new, set flags, and expunge some
//! messages after comparing them byte for byte; and POP3 sessions that look on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;

use super::clients::imap::ImapClient;
use super::clients::pop3::Pop3Client;
use super::clients::stream::Trust;
use super::corpus;
use super::pair::{NODE_ADDRESSES, Pair};
use super::writers::Work;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Pause between two POP3 sessions.
const POP3_EVERY: Duration = Duration::from_millis(700);
/// How long a reader waits for any answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(25);
/// Every so many messages a node's reader expunges one.
const EXPUNGE_EVERY: u64 = 16;
/// The keyword a reader sets, with the node's number.
pub const KEYWORD: &str = "$seen-at-";

/// Where a reader reads.
#[derive(Clone)]
pub struct Place {
    /// Index of the node.
    pub node: usize,
    /// Its address.
    pub address: IpAddr,
    /// IMAP with TLS.
    pub imaps: u16,
    /// POP3 with TLS.
    pub pop3s: u16,
    /// The cluster's CA.
    pub trust: Trust,
}

impl Place {
    /// One place per node.
    ///
    /// # Errors
    /// The CA file cannot be read.
    pub fn all(pair: &Pair) -> anyhow::Result<Vec<Self>> {
        let trust = pair.trust()?;
        let place = |(node, address)| Self {
            node,
            address,
            imaps: pair.ports.imaps,
            pop3s: pair.ports.pop3s,
            trust: trust.clone(),
        };
        Ok(NODE_ADDRESSES.into_iter().enumerate().map(place).collect())
    }

    /// A session with INBOX not selected yet.
    ///
    /// # Errors
    /// No connection or login.
    pub async fn imap(&self, work: &Work, account: usize) -> anyhow::Result<ImapClient> {
        let login = work.accounts.get(account).context("no such account")?;
        let peer = SocketAddr::new(self.address, self.imaps);
        let mut client = ImapClient::connect_tls(peer, &self.trust, ANSWER_LIMIT).await?;
        client.login(&login.address, &login.password).await?;
        Ok(client)
    }
}

/// Reads one account at one node until told to stop; a broken session is opened again.
pub async fn read(place: Place, account: usize, work: Arc<Work>, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        if let Ok(mut reader) = Reader::open(&place, account, &work).await {
            while !*stop.borrow() && reader.look().await.is_ok() {
                let _ = tokio::time::timeout(LOOK_EVERY, stop.changed()).await;
            }
        }
        let _ = tokio::time::timeout(LOOK_EVERY, stop.changed()).await;
    }
}

/// Opens POP3 sessions at one node until told to stop, each for another account.
pub async fn read_pop3(place: Place, work: Arc<Work>, mut stop: watch::Receiver<bool>) {
    let mut account = 0;
    while !*stop.borrow() {
        let _ = look_pop3(&place, account % work.accounts.len().max(1), &work).await;
        account += 1;
        let _ = tokio::time::timeout(POP3_EVERY, stop.changed()).await;
    }
}

async fn look_pop3(place: &Place, account: usize, work: &Work) -> anyhow::Result<()> {
    let login = work.accounts.get(account).context("no such account")?;
    let peer = SocketAddr::new(place.address, place.pop3s);
    let mut client = Pop3Client::connect_tls(peer, &place.trust, ANSWER_LIMIT).await?;
    client.login(&login.address, &login.password).await?;
    let count = client.count().await?;
    let ids = client.unique_ids().await?;
    if ids.len() != count as usize {
        work.ledger.fault(format!("POP3 of {}: STAT says {count}, UIDL lists {}", login.address, ids.len()));
    }
    if count > 0 {
        client.lines("TOP 1 0").await?;
    }
    client.quit().await
}

struct Reader<'a> {
    client: ImapClient,
    place: &'a Place,
    account: usize,
    work: &'a Work,
    uid_validity: u32,
    last_uid: u32,
}

impl<'a> Reader<'a> {
    async fn open(place: &'a Place, account: usize, work: &'a Work) -> anyhow::Result<Self> {
        let mut client = place.imap(work, account).await?;
        let selected = client.select("INBOX").await?;
        Ok(Self { client, place, account, work, uid_validity: selected.uid_validity, last_uid: 0 })
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        self.client.command("NOOP").await?.ok()?;
        let items = format!("(UID BODY.PEEK[HEADER.FIELDS ({})])", corpus::NAME_HEADER);
        let all = self.client.uid_fetch(&format!("{}:*", self.last_uid + 1), &items).await?;
        let mut mine = Vec::new();
        let mut expunge = Vec::new();
        let before = self.last_uid;
        for fetched in all {
            let Some(header) = fetched.body else { continue };
            let Some((id, _)) = corpus::recognise(&header, &self.work.run) else { continue };
            if fetched.uid <= before {
                continue;
            }
            self.last_uid = self.last_uid.max(fetched.uid);
            self.work.ledger.seen(id, self.account, self.uid_validity, fetched.uid);
            if id % EXPUNGE_EVERY == self.place.node as u64 {
                expunge.push((id, fetched.uid));
            } else if id % NODE_ADDRESSES.len() as u64 == self.place.node as u64 {
                mine.push((id, fetched.uid));
            }
        }
        self.flag(&mine).await?;
        for (id, uid) in expunge {
            self.expunge(id, uid).await?;
        }
        Ok(())
    }

    async fn flag(&mut self, mine: &[(u64, u32)]) -> anyhow::Result<()> {
        if mine.is_empty() {
            return Ok(());
        }
        let set: Vec<String> = mine.iter().map(|(_, uid)| uid.to_string()).collect();
        let keyword = format!("{KEYWORD}{}", self.place.node + 1);
        let command = format!("UID STORE {} +FLAGS.SILENT (\\Seen {keyword})", set.join(","));
        self.client.command(&command).await?.ok()?;
        for (id, _) in mine {
            self.work.ledger.note(*id, self.account, |copy| copy.flags = vec!["\\Seen".into(), keyword.clone()]);
        }
        Ok(())
    }

    /// Compares the message first: what is expunged cannot be compared at the end.
    async fn expunge(&mut self, id: u64, uid: u32) -> anyhow::Result<()> {
        let whole = self.client.uid_fetch(&uid.to_string(), "(UID BODY.PEEK[])").await?;
        let Some(stored) = whole.into_iter().find(|fetched| fetched.uid == uid).and_then(|fetched| fetched.body) else {
            return Ok(());
        };
        let same = corpus::recognise(&stored, &self.work.run)
            .is_some_and(|(found, at)| found == id && stored.get(at..) == Some(self.work.bytes(id).as_slice()));
        if !same {
            self.work.ledger.fault(format!("message {id} at {} differs from what was sent", self.place.address));
        }
        self.work.ledger.note(id, self.account, |copy| copy.expunge_asked = true);
        self.client.command(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)")).await?.ok()?;
        self.client.command(&format!("UID EXPUNGE {uid}")).await?.ok()?;
        self.work.ledger.note(id, self.account, |copy| copy.expunged = true);
        Ok(())
    }
}
