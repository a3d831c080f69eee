//! The judge: reads everything from both nodes and compares it with what the clients know.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};

use super::corpus;
use super::ledger::{Copy, Message};
use super::readers::Place;
use super::writers::Work;

/// Messages of one FETCH.
const FETCH_COUNT: usize = 40;

/// A copy found at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    id: u64,
    same: bool,
    flags: Vec<String>,
}

/// One account at one node: (mailbox, UIDVALIDITY, UID) to what is there.
type Contents = BTreeMap<(String, u32, u32), Found>;

/// What the judge found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Messages with a 250 (or read before an expunge) that are whole on both nodes.
    pub whole: usize,
    /// Acknowledged messages that are not, and where.
    pub lost: Vec<String>,
    /// Their ids.
    lost_ids: BTreeSet<u64>,
    /// Everything else that must not be.
    pub faults: Vec<String>,
    /// Expunged by a reader, compared before, and gone on both nodes.
    pub expunged: usize,
    /// Never answered, and stored.
    pub unanswered_stored: usize,
}

/// Compares every acknowledged message byte for byte on all `places`, and the places with each other.
///
/// # Errors
/// A node could not be read; nothing is known then.
pub async fn judge(work: &Work, places: &[Place]) -> anyhow::Result<Verdict> {
    let messages = work.ledger.messages();
    let mut verdict = Verdict::default();
    for account in 0..work.accounts.len() {
        let mut sides = Vec::new();
        for place in places {
            sides.push(contents(work, place, account).await.with_context(|| format!("reading {}", place.address))?);
        }
        for (place, side) in places.iter().zip(&sides) {
            let name = format!("account {account} at {}", place.address);
            verdict.judge_side(&messages, account, &name, side);
        }
        if let [first, second] = sides.as_slice()
            && first != second
        {
            verdict.faults.push(format!("account {account}: the nodes differ: {}", difference(first, second)));
        }
    }
    for (&id, message) in &messages {
        let acknowledged = message.accepted.is_some();
        if acknowledged && !verdict.lost_ids.contains(&id) {
            verdict.whole += 1;
        }
        verdict.expunged += message.copies.values().filter(|copy| copy.expunged).count();
    }
    verdict.lost.sort_unstable();
    Ok(verdict)
}

impl Verdict {
    fn judge_side(&mut self, messages: &BTreeMap<u64, Message>, account: usize, name: &str, side: &Contents) {
        let mut counts: BTreeMap<u64, Vec<&Found>> = BTreeMap::new();
        for found in side.values() {
            counts.entry(found.id).or_default().push(found);
        }
        for (&id, message) in messages {
            let Some(copy) = message.copies.get(&account) else { continue };
            let found = counts.remove(&id).unwrap_or_default();
            let accepted = usize::from(message.accepted.is_some());
            if found.iter().any(|found| !found.same) {
                self.faults.push(format!("{name}: message {id} differs from what was sent"));
                self.lost_ids.insert(id);
            }
            self.judge_count(id, message, copy, found.len(), name);
            if accepted == 0 && !found.is_empty() {
                self.unanswered_stored += 1;
            }
            // Flags of a message that may lie there twice are those of one of the copies.
            if found.len() == 1
                && message.unanswered == 0
                && let Some(missing) = copy.flags.iter().find(|flag| !has(&found, flag))
            {
                self.faults.push(format!("{name}: message {id} lost its flag {missing}"));
            }
        }
        for id in counts.keys() {
            self.faults.push(format!("{name}: message {id} was never sent there"));
        }
    }

    fn judge_count(&mut self, id: u64, message: &Message, copy: &Copy, count: usize, name: &str) {
        let accepted = usize::from(message.accepted.is_some());
        let most = (accepted + message.unanswered).saturating_sub(usize::from(copy.expunged));
        let least = if copy.expunge_asked { 0 } else { accepted };
        if count < least {
            self.lost.push(format!("{name}: message {id} is missing"));
            self.lost_ids.insert(id);
        }
        if count > most {
            let why = if copy.expunged { "came back after its expunge" } else { "lies there too often" };
            self.faults.push(format!("{name}: message {id} {why} ({count} copies, at most {most})"));
        }
    }
}

fn has(found: &[&Found], flag: &str) -> bool {
    found.iter().any(|found| found.flags.iter().any(|other| other.eq_ignore_ascii_case(flag)))
}

fn difference(first: &Contents, second: &Contents) -> String {
    let only = |a: &Contents, b: &Contents| a.keys().filter(|key| !b.contains_key(*key)).count();
    let changed: Vec<String> = first
        .iter()
        .filter_map(|(key, here)| second.get(key).filter(|there| *there != here).map(|there| (key, here, there)))
        .take(3)
        .map(|(key, here, there)| format!("{key:?}: {here:?} and {there:?}"))
        .collect();
    format!("{} only here, {} only there, {changed:?}", only(first, second), only(second, first))
}

async fn contents(work: &Work, place: &Place, account: usize) -> anyhow::Result<Contents> {
    let mut client = place.imap(work, account).await?;
    let mut all = Contents::new();
    for mailbox in client.mailboxes().await? {
        let Ok(selected) = client.select(&mailbox).await else { continue };
        let uids: Vec<String> =
            client.uid_fetch("1:*", "(UID)").await?.iter().map(|fetched| fetched.uid.to_string()).collect();
        if uids.len() != selected.exists as usize {
            bail!("{mailbox}: {} EXISTS, {} fetched", selected.exists, uids.len());
        }
        for some in uids.chunks(FETCH_COUNT) {
            for fetched in client.uid_fetch(&some.join(","), "(UID FLAGS BODY.PEEK[])").await? {
                let Some(body) = fetched.body else { continue };
                let mut flags = fetched.flags.unwrap_or_default();
                flags.retain(|flag| !flag.eq_ignore_ascii_case("\\Recent"));
                flags.sort_unstable();
                let found = match corpus::recognise(&body, &work.run) {
                    Some((id, at)) => Found { id, same: body.get(at..) == Some(work.bytes(id).as_slice()), flags },
                    None => Found { id: 0, same: false, flags },
                };
                all.insert((mailbox.clone(), selected.uid_validity, fetched.uid), found);
            }
        }
    }
    client.logout().await;
    Ok(all)
}
