//! Clients that keep a cache, as real ones do: by CONDSTORE, and by UIDNEXT alone. At the end each must be the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use node::demo::clients::imap::{ImapClient, Selected};

use crate::clients::{Phase, Work, named};

/// What a client asks of each message.
const ITEMS: &str = "UID FLAGS BODY.PEEK[HEADER.FIELDS (X-Lab)]";

/// Number and flags of a message.
pub type Known = (u64, Vec<String>);

/// What a client remembers of a mailbox.
#[derive(Default)]
pub struct Cache {
    /// For reports.
    pub name: String,
    account: usize,
    condstore: bool,
    seen: Selected,
    messages: BTreeMap<u32, Known>,
}

impl Cache {
    /// An empty one for INBOX of an account.
    #[must_use]
    pub fn new(name: String, account: usize, condstore: bool) -> Self {
        Self { name, account, condstore, ..Self::default() }
    }

    /// Whether it is one of this account.
    #[must_use]
    pub const fn is_of(&self, account: usize) -> bool {
        self.account == account
    }

    /// Brings the cache up to date at an address.
    ///
    /// # Errors
    /// The session broke; what it knew before is kept, so the next one begins there.
    pub async fn sync(&mut self, at: IpAddr, work: &Work) -> anyhow::Result<()> {
        let mut client = work.imap(at, self.account).await?;
        if self.condstore {
            self.sync_condstore(&mut client, work).await
        } else {
            self.sync_uidnext(&mut client, work).await
        }?;
        for (&uid, (id, _)) in &self.messages {
            work.model.shown(&self.name, *id, self.account, ("INBOX".into(), self.seen.uid_validity, uid));
        }
        client.logout().await;
        Ok(())
    }

    /// What changed since the modseq it knows; what is gone by the list of UIDs.
    async fn sync_condstore(&mut self, client: &mut ImapClient, work: &Work) -> anyhow::Result<()> {
        let now = work.select(client, &self.name, self.account).await?;
        let mut messages = self.messages.clone();
        let since = if now.uid_validity == self.seen.uid_validity {
            self.seen.highest_modseq
        } else {
            messages.clear();
            0
        };
        if now.exists > 0 {
            let items = format!("UID FETCH 1:* ({ITEMS}) (CHANGEDSINCE {since})");
            for one in client.command(&items).await?.ok()?.fetched() {
                let flags = sorted(one.flags.unwrap_or_default());
                if let Some((id, _)) = one.body.and_then(|body| work.model.recognise(&body)) {
                    messages.insert(one.uid, (id, flags));
                }
            }
        }
        let there: BTreeSet<u32> = client.uid_fetch("1:*", "(UID)").await?.iter().map(|one| one.uid).collect();
        messages.retain(|uid, _| there.contains(uid));
        // What came in while it looked is met next time: it is above the modseq of the SELECT.
        (self.messages, self.seen) = (messages, now);
        Ok(())
    }

    /// Never looks below a UIDNEXT it was told.
    async fn sync_uidnext(&mut self, client: &mut ImapClient, work: &Work) -> anyhow::Result<()> {
        let now = work.select(client, &self.name, self.account).await?;
        let mut messages = self.messages.clone();
        let from = if now.uid_validity == self.seen.uid_validity {
            self.seen.uid_next
        } else {
            messages.clear();
            1
        };
        let found = named(client, &format!("{from}:*"), &work.model).await?;
        messages.extend(found.into_iter().filter(|(_, uid)| *uid >= from).map(|(id, uid)| (uid, (id, Vec::new()))));
        (self.messages, self.seen) = (messages, now);
        Ok(())
    }

    /// Differences from the truth: (UIDVALIDITY, UIDs with their messages).
    #[must_use]
    pub fn faults(&self, uid_validity: u32, truth: &BTreeMap<u32, Known>) -> Vec<String> {
        let name = &self.name;
        if uid_validity != self.seen.uid_validity {
            return vec![format!("cache wrong: {name}: UIDVALIDITY {} is {uid_validity}", self.seen.uid_validity)];
        }
        let mut faults = Vec::new();
        for (uid, known) in truth {
            let here = self.messages.get(uid);
            // A client that knows UIDNEXT alone hears neither of flags nor of expunges.
            let same = here.is_some_and(|here| if self.condstore { here == known } else { here.0 == known.0 });
            if !same {
                faults.push(format!("cache wrong: {name}: UID {uid} is {known:?}, not {here:?}"));
            }
        }
        let gone = self.messages.keys().filter(|uid| self.condstore && !truth.contains_key(uid));
        faults.extend(gone.map(|uid| format!("cache wrong: {name}: UID {uid} is still there")));
        faults
    }
}

/// Keeps a cache at the addresses in turn, a few rounds at each.
pub async fn keep(mut cache: Cache, at: Vec<IpAddr>, work: Arc<Work>) -> Cache {
    let mut phase = work.phase.clone();
    let mut round = 0usize;
    while *phase.borrow_and_update() == Phase::Work {
        let address = at.get(round / 3 % at.len().max(1)).copied().unwrap_or(work.cluster);
        let _ = cache.sync(address, &work).await;
        round += 1;
        let _ = tokio::time::timeout(std::time::Duration::from_millis(700), phase.changed()).await;
    }
    cache
}

/// Flags as they are compared.
#[must_use]
pub fn sorted(mut flags: Vec<String>) -> Vec<String> {
    flags.retain(|flag| !flag.eq_ignore_ascii_case("\\Recent"));
    flags.sort_unstable();
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(id: u64) -> Known {
        (id, vec!["$a".into()])
    }

    #[test]
    fn a_cache_is_compared_with_the_truth() {
        let mut cache = Cache::new("c".into(), 0, true);
        cache.seen.uid_validity = 7;
        cache.messages = BTreeMap::from([(1, known(10)), (2, known(20))]);
        assert!(cache.faults(7, &BTreeMap::from([(1, known(10)), (2, known(20))])).is_empty());
        assert_eq!(cache.faults(7, &BTreeMap::from([(1, known(10))])).len(), 1, "an expunge not heard of");
        let more = BTreeMap::from([(1, known(10)), (2, known(20)), (3, known(30))]);
        assert_eq!(cache.faults(7, &more).len(), 1, "mail not heard of");
        assert_eq!(cache.faults(7, &BTreeMap::from([(1, known(11)), (2, known(20))])).len(), 1, "another message");
        assert_eq!(cache.faults(7, &BTreeMap::from([(1, known(10)), (2, (20, Vec::new()))])).len(), 1, "a flag");
        assert_eq!(cache.faults(8, &BTreeMap::new()).len(), 1);
        cache.condstore = false;
        assert!(cache.faults(7, &BTreeMap::from([(1, (10, Vec::new()))])).is_empty());
    }
}
