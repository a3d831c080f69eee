//! Reads everything from every node at the end and compares it with what the clients know (see `outcomes.md`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, bail};
use node::demo::clients::api::Api;
use node::demo::clients::imap::ImapClient;

use crate::caches::{Cache, Known, sorted};
use crate::clients::Work;
use crate::cluster::Cluster;
use crate::model::{Key, Message, Model, Named};

/// Messages of one FETCH.
const FETCH_COUNT: usize = 100;
/// Violations of one kind that are shown.
const SHOWN_MAX: usize = 8;

/// A copy on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Copy {
    id: u64,
    same: bool,
    flags: Vec<String>,
}

/// One account on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    mailboxes: Vec<String>,
    copies: BTreeMap<Key, Copy>,
    inbox_validity: u32,
}

/// Everything that must not be.
///
/// # Errors
/// A node cannot be read: nothing is known then.
pub async fn check(cluster: &Cluster, work: &Work, caches: &mut [Cache]) -> anyhow::Result<Vec<String>> {
    let mut faults = work.model.faults();
    let messages = work.model.messages();
    for account in 0..work.accounts.len() {
        let mut first: Option<Contents> = None;
        for index in 0..cluster.shape.data_nodes {
            let at = cluster.machine_at(index)?.address;
            let now = read(work, at, account).await.with_context(|| format!("read node {}", index + 1))?;
            let place = format!("account {account} at node {}", index + 1);
            faults.extend(judge(&messages, account, &now, &place));
            faults.extend(judge_mailboxes(&work.model, account, &now.mailboxes, &place));
            for (key, copy) in &now.copies {
                work.model.shown(&place, copy.id, account, key.clone());
            }
            match &first {
                Some(first) if *first != now => {
                    faults.push(format!("nodes differ: {place}: {}", difference(first, &now)))
                }
                Some(_) => {}
                None => first = Some(now),
            }
        }
        let truth = first.unwrap_or_default();
        let inbox = truth.copies.iter().filter(|((name, ..), _)| name == "INBOX");
        let inbox: BTreeMap<u32, Known> =
            inbox.map(|((.., uid), copy)| (*uid, (copy.id, copy.flags.clone()))).collect();
        for cache in caches.iter_mut().filter(|cache| cache.is_of(account)) {
            cache.sync(cluster.net.cluster(), work).await.context("last look of a cache")?;
            faults.extend(cache.faults(truth.inbox_validity, &inbox));
        }
    }
    for index in 0..cluster.shape.data_nodes {
        faults.extend(judge_settings(&work.model, &cluster.api(index)?, index).await?);
    }
    work.model.settle(false);
    let now = work.model.faults();
    faults.extend(now.into_iter().filter(|fault| !faults.contains(fault)).collect::<Vec<_>>());
    Ok(faults)
}

/// Counts by kind, and the first few of each.
#[must_use]
pub fn summary(faults: &[String]) -> (BTreeMap<String, usize>, Vec<String>) {
    let (mut counts, mut shown) = (BTreeMap::new(), Vec::new());
    for fault in faults {
        let kind = fault.split(':').next().unwrap_or_default().to_owned();
        let count = counts.entry(kind).or_insert(0);
        *count += 1;
        if *count <= SHOWN_MAX {
            shown.push(fault.clone());
        }
    }
    (counts, shown)
}

fn judge(messages: &BTreeMap<u64, Message>, account: usize, contents: &Contents, place: &str) -> Vec<String> {
    let mut found: BTreeMap<u64, Vec<(&Key, &Copy)>> = BTreeMap::new();
    for (key, copy) in &contents.copies {
        found.entry(copy.id).or_default().push((key, copy));
    }
    let mut faults = Vec::new();
    for (id, message) in messages.iter().filter(|(_, message)| message.account == account) {
        let copies = found.remove(id).unwrap_or_default();
        let (least, most) = message.copies();
        let count = copies.len();
        if count < least {
            faults.push(format!("lost: message {id} of {place}: {message:?}"));
        }
        if count > most {
            let kind = match (message.ok + message.unknown, message.expunged.is_empty()) {
                (0, _) => "never sent",
                (_, false) => "resurrected",
                (_, true) => "duplicate",
            };
            faults.push(format!(
                "{kind}: message {id} of {place}: {count} copies, at most {most}: {copies:?} {message:?}"
            ));
        }
        if copies.iter().any(|(_, copy)| !copy.same) {
            faults.push(format!("changed: message {id} of {place}"));
        }
        if let ([(key, copy)], 0) = (copies.as_slice(), message.unknown) {
            faults.extend(judge_copy(*id, message, key, copy, place));
        }
    }
    faults.extend(found.keys().map(|id| format!("never sent: message {id} of {place}")));
    faults
}

fn judge_copy(id: u64, message: &Message, key: &Key, copy: &Copy, place: &str) -> Vec<String> {
    let has = |flag: &String| copy.flags.iter().any(|other| other.eq_ignore_ascii_case(flag));
    let missing = message.flags.iter().filter(|flag| !has(flag));
    let mut faults: Vec<String> = missing.map(|flag| format!("flag lost: {flag} of message {id} of {place}")).collect();
    if let Some(mailbox) = message.moved.as_ref().filter(|mailbox| **mailbox != key.0) {
        faults.push(format!("move lost: message {id} of {place} is in {}, not in {mailbox}", key.0));
    }
    faults
}

fn judge_mailboxes(model: &Model, account: usize, present: &[String], place: &str) -> Vec<String> {
    let known = model.mailboxes().into_iter().filter(|((of, _), _)| *of == account);
    let wrong = known.filter_map(|((_, name), state)| match (state, present.contains(&name)) {
        (Named::There, false) => Some(format!("mailbox lost: {name} of {place}")),
        (Named::Gone, true) => Some(format!("resurrected: mailbox {name} of {place}")),
        _ => None,
    });
    wrong.collect()
}

async fn judge_settings(model: &Model, api: &Api, index: usize) -> anyhow::Result<Vec<String>> {
    let list = api.get("/api/v1/accounts").await?;
    let there = |address: &str| list.contains(&format!("\"{address}\""));
    let wrong = model.settings().into_iter().filter(|(address, state)| *state == Named::There && !there(address));
    Ok(wrong.map(|(address, _)| format!("setting lost: {address} at node {}", index + 1)).collect())
}

fn difference(a: &Contents, b: &Contents) -> String {
    let keys = a.copies.keys().chain(b.copies.keys());
    let differ: Vec<String> = keys
        .filter(|key| a.copies.get(*key) != b.copies.get(*key))
        .take(3)
        .map(|key| format!("{key:?}: {:?} and {:?}", a.copies.get(key), b.copies.get(key)))
        .collect();
    format!("{differ:?} mailboxes equal: {}", a.mailboxes == b.mailboxes)
}

async fn read(work: &Work, at: IpAddr, account: usize) -> anyhow::Result<Contents> {
    let mut client = work.imap(at, account).await?;
    client.set_limit(std::time::Duration::from_secs(60));
    let mut contents = Contents { mailboxes: client.mailboxes().await?, ..Contents::default() };
    contents.mailboxes.sort_unstable();
    for mailbox in contents.mailboxes.clone() {
        read_mailbox(&mut client, work, &mailbox, &mut contents).await?;
    }
    client.logout().await;
    Ok(contents)
}

async fn read_mailbox(client: &mut ImapClient, work: &Work, mailbox: &str, into: &mut Contents) -> anyhow::Result<()> {
    let selected = client.select(mailbox).await?;
    if mailbox == "INBOX" {
        into.inbox_validity = selected.uid_validity;
    }
    let uids: Vec<String> = client.uid_fetch("1:*", "(UID)").await?.iter().map(|one| one.uid.to_string()).collect();
    if uids.len() != selected.exists as usize {
        bail!("{mailbox}: {} EXISTS, {} fetched", selected.exists, uids.len());
    }
    for some in uids.chunks(FETCH_COUNT) {
        for one in client.uid_fetch(&some.join(","), "(UID FLAGS BODY.PEEK[])").await? {
            let body = one.body.unwrap_or_default();
            let flags = sorted(one.flags.unwrap_or_default());
            let (id, same) = match work.model.recognise(&body) {
                Some((id, begin)) => (id, body.get(begin..) == Some(work.model.bytes(id).as_slice())),
                None => (0, false),
            };
            into.copies.insert((mailbox.to_owned(), selected.uid_validity, one.uid), Copy { id, same, flags });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(mailbox: &str, uid: u32) -> Key {
        (mailbox.into(), 7, uid)
    }

    fn contents(copies: &[(Key, u64)]) -> Contents {
        let copies = copies.iter().map(|(key, id)| (key.clone(), Copy { id: *id, same: true, flags: Vec::new() }));
        Contents { copies: copies.collect(), ..Contents::default() }
    }

    fn kinds(message: Message, copies: &[(Key, u64)]) -> Vec<String> {
        let faults = judge(&BTreeMap::from([(1, message)]), 0, &contents(copies), "here");
        faults.iter().map(|fault| fault.split(':').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn each_kind_of_violation_is_found() {
        let ok = Message { ok: 1, ..Message::default() };
        let inbox = [(key("INBOX", 1), 1)];
        let twice = [(key("INBOX", 1), 1), (key("INBOX", 2), 1)];
        assert!(kinds(ok.clone(), &inbox).is_empty());
        assert_eq!(kinds(ok.clone(), &[]), ["lost"]);
        assert_eq!(kinds(ok.clone(), &twice), ["duplicate"]);
        assert_eq!(kinds(Message::default(), &inbox), ["never sent"]);
        assert!(kinds(Message { unknown: 1, ..ok.clone() }, &twice).is_empty());
        let mut expunged = ok.clone();
        expunged.expunge_sent.insert(key("INBOX", 1));
        assert!(kinds(expunged.clone(), &inbox).is_empty() && kinds(expunged.clone(), &[]).is_empty());
        expunged.expunged.insert(key("INBOX", 1));
        assert_eq!(kinds(expunged, &inbox), ["resurrected"]);
        let flagged = Message { flags: ["$a".to_owned()].into(), ..ok.clone() };
        assert_eq!(kinds(flagged, &inbox), ["flag lost"]);
        let moved = Message { moved: Some("Archive".into()), ..ok.clone() };
        assert_eq!(kinds(moved.clone(), &inbox), ["move lost"]);
        assert!(kinds(moved, &[(key("Archive", 1), 1)]).is_empty());
        assert_eq!(kinds(ok.clone(), &[(key("INBOX", 1), 1), (key("INBOX", 2), 9)]), ["never sent"]);
        let mut changed = contents(&inbox);
        changed.copies.values_mut().for_each(|copy| copy.same = false);
        assert_eq!(judge(&BTreeMap::from([(1, ok)]), 0, &changed, "here").len(), 1);
    }

    #[test]
    fn kinds_are_counted() {
        let faults: Vec<String> = (0..20).map(|n| format!("lost: {n}")).chain(["flag lost: x".into()]).collect();
        let (counts, shown) = summary(&faults);
        assert_eq!(counts, BTreeMap::from([("lost".into(), 20), ("flag lost".into(), 1)]));
        assert_eq!(shown.len(), SHOWN_MAX + 1);
    }
}
