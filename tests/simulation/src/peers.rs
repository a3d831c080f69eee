//! Calls between nodes: accounts and bodies that are pulled, archived branches.

use bytes::Bytes;
use replica::Event;
use vocab::{
    AccountBatch, AccountHead, AccountId, BlobHash, BlobRef, Boot, InlineBody, MemoryRows, RowWrite, StoreWrite,
    Version,
};

use crate::Control;
use crate::disk::{behind, newest};
use crate::heal_steps::HealStep;
use crate::vocabulary::{ARCHIVE_HEAD, After, Branch, Given, Inner, Ms, Pull};
use crate::world::World;

/// A call without an answer is given up after this time (ms).
pub(crate) const CALL_WAIT_MS: Ms = 2_000;

impl World {
    /// Whether a call can be sent at all.
    pub(crate) fn can_call(&self, from: usize, to: usize) -> bool {
        let linked = self.nodes[from].process.as_ref().is_some_and(|p| p.links.contains_key(&to));
        linked && self.nodes[to].process.is_some()
    }

    /// Sends something that answers a call, unless the way back is cut.
    pub(crate) fn call_back(&mut self, from: usize, to: usize, boot: Boot, inner: Inner) {
        if self.net.is_open(from, to) && self.nodes[to].boot() == Some(boot) {
            let delay = self.delay() + 1;
            self.to(to, delay, inner);
        }
    }

    pub(crate) fn ask_account(&mut self, n: usize, from: usize, pull: Pull, account: AccountId) {
        let have = matches!(pull, Pull::Fetch(_)).then(|| self.nodes[n].disk.image.head(account).version);
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        process.pulls.push(pull);
        let boot = process.boot;
        if !self.can_call(n, from) {
            return self.to(n, 1, Inner::PullLost(pull));
        }
        if self.net.is_open(n, from) {
            let delay = self.delay() + 1;
            self.to(from, delay, Inner::Give { to: n, boot, pull, account, have });
        }
        self.to(n, CALL_WAIT_MS, Inner::PullLost(pull));
    }

    /// Only the difference when the asker's version is on the chain, else everything; the chain goes along.
    pub(crate) fn give(
        &mut self,
        n: usize,
        (to, boot): (usize, Boot),
        pull: Pull,
        account: AccountId,
        have: Option<Version>,
    ) {
        let image = &self.nodes[n].disk.image;
        let mut chain = image.chains.get(&account).cloned().unwrap_or_default();
        let behind = have.and_then(|have| behind(&chain, have));
        let (since, rows) = match behind {
            Some(links) => {
                let rows = image.present(account, &links);
                chain = links;
                (have, rows)
            }
            None => {
                if have.is_some() {
                    chain = newest(&chain);
                }
                (None, image.export(account))
            }
        };
        let bodies = bodies_of(&rows).filter_map(|hash| {
            let bytes = image.blobs.get(&hash)?.clone();
            Some(InlineBody { hash, bytes })
        });
        let bodies = bodies.collect();
        let head = image.head(account);
        let given = Given { pull, account, head, since, rows, chain, bodies };
        self.call_back(n, to, boot, Inner::Given(Box::new(given)));
    }

    pub(crate) fn given(&mut self, n: usize, given: Given) {
        if !self.take_pull(n, given.pull) {
            return;
        }
        match given.pull {
            Pull::Archive(archive) => {
                self.write(n, vec![StoreWrite::Bodies(given.bodies)], After::Nothing);
                self.archive(n, archive, given.account, given.head, given.rows);
            }
            Pull::Branch(fetch) => self.keep_branch(n, fetch, given),
            Pull::Fetch(fetch) => {
                self.coverage.transfers += 1;
                let mine = self.nodes[n].disk.image.head(given.account).version;
                let ahead = mine != Version::default()
                    && (given.since.is_some() || given.chain.iter().any(|link| link.version == mine));
                self.coverage.m0 += u64::from(ahead && self.nodes[n].heal.is_some());
                match given.since {
                    Some(since) => self.take_difference(n, fetch, since, given),
                    None => self.stage(n, fetch, given),
                }
            }
        }
    }

    fn stage(&mut self, n: usize, fetch: u64, given: Given) {
        let Given { account, head, rows, chain, bodies, .. } = given;
        let digest = rows.iter().fold(0u128, |sum, row| sum.wrapping_add(mailbox::row_digest(row)));
        if digest != head.digest {
            return self.broken("D6", format!("account {} arrived with another digest than its head says", account.0));
        }
        self.write(n, vec![StoreWrite::Bodies(bodies)], After::Nothing);
        if self.control == Control::TransfersInPlace {
            self.build_in_place(n, account, &rows);
        }
        let half = rows.len() / 2;
        let refs = |rows: &[RowWrite]| rows.iter().filter_map(mailbox::blob_ref_of).collect::<Vec<BlobRef>>();
        let (first, second) = (rows[..half].to_vec(), rows[half..].to_vec());
        self.write(n, vec![StoreWrite::Stage { account, refs: refs(&first), rows: first }], After::Nothing);
        let fetched = After::Event(Event::Fetched { fetch, head, delta: None, past: chain });
        self.write(n, vec![StoreWrite::Stage { account, refs: refs(&second), rows: second }], fetched);
    }

    fn take_difference(&mut self, n: usize, fetch: u64, since: Version, given: Given) {
        let Given { account, head, rows, chain, bodies, .. } = given;
        let mut after = self.nodes[n].disk.image.accounts.get(&account).cloned().unwrap_or_default();
        if after.head.version != since {
            return self.tell(n, Event::FetchFailed { fetch });
        }
        after.write(&rows);
        if mailbox::digest_of(&after).ok() != Some(head.digest) {
            let text = format!("account {} has another digest with the difference than its head says", account.0);
            return self.broken("D6", text);
        }
        self.coverage.differences += 1;
        let refs = rows.iter().filter_map(mailbox::blob_ref_of).collect();
        let batch = AccountBatch { account, expected: since, head: head.clone(), rows, refs, undo: Vec::new() };
        let fetched = Event::Fetched { fetch, head, delta: Some(Box::new(batch)), past: chain };
        self.write(n, vec![StoreWrite::Bodies(bodies)], After::Event(fetched));
    }

    /// H19: the old state makes room for the new one before that is whole.
    fn build_in_place(&mut self, n: usize, account: AccountId, rows: &[RowWrite]) {
        let image = &self.nodes[n].disk.image;
        let head = image.head(account);
        let old = image.export(account).into_iter().map(|row| RowWrite { value: None, ..row });
        let rows = old.chain(rows[..rows.len() / 2].iter().cloned()).collect();
        let (expected, refs, undo) = (head.version, Vec::new(), Vec::new());
        self.write(
            n,
            vec![StoreWrite::Account(AccountBatch { account, expected, head, rows, refs, undo })],
            After::Nothing,
        );
    }

    /// Bodies are durable before the branch counts as fetched; the rows are needed only until the merge.
    fn keep_branch(&mut self, n: usize, fetch: u64, given: Given) {
        let Given { head, rows, chain, bodies, .. } = given;
        let mut kept = MemoryRows { head: head.clone(), ..MemoryRows::default() };
        kept.write(&rows);
        if let Some(process) = self.nodes[n].process.as_mut() {
            process.branches.insert(fetch, Branch { rows: kept, chain });
        }
        self.reach(n, HealStep::BranchSent);
        let fetched = After::Event(Event::Fetched { fetch, head, delta: None, past: Vec::new() });
        self.write(n, vec![StoreWrite::Bodies(bodies)], fetched);
    }

    fn take_pull(&mut self, n: usize, pull: Pull) -> bool {
        let Some(process) = self.nodes[n].process.as_mut() else { return false };
        let same = |other: &Pull| match (pull, other) {
            (Pull::Fetch(a), Pull::Fetch(b))
            | (Pull::Archive(a), Pull::Archive(b))
            | (Pull::Branch(a), Pull::Branch(b)) => a == *b,
            _ => false,
        };
        let before = process.pulls.len();
        process.pulls.retain(|other| !same(other));
        process.pulls.len() < before
    }

    /// What still comes of this transfer is not taken: stages of two never mix.
    pub(crate) fn stop_pull(&mut self, n: usize, fetch: u64) {
        self.take_pull(n, Pull::Fetch(fetch));
        self.take_pull(n, Pull::Branch(fetch));
    }

    pub(crate) fn pull_lost(&mut self, n: usize, pull: Pull) {
        if self.take_pull(n, pull) {
            self.tell(
                n,
                match pull {
                    Pull::Fetch(fetch) | Pull::Branch(fetch) => Event::FetchFailed { fetch },
                    Pull::Archive(archive) => Event::ArchiveFailed { archive },
                },
            );
        }
    }

    pub(crate) fn archive_own(&mut self, n: usize, archive: u64, account: AccountId) {
        let rows = self.nodes[n].disk.image.export(account);
        let head = self.nodes[n].disk.image.head(account);
        self.archive(n, archive, account, head, rows);
    }

    fn archive(&mut self, n: usize, archive: u64, account: AccountId, head: AccountHead, rows: Vec<RowWrite>) {
        self.coverage.archived += 1;
        self.note(|| format!("node {} archives account {} at {}", n + 1, account.0, head.version));
        let branch = format!("{:x}-{}", account.0, head.version);
        let row = |row: RowWrite| {
            let mut key = vec![row.table.0];
            key.extend_from_slice(&row.key);
            let refs = mailbox::blob_ref_of(&row).map(|r| r.hash).into_iter().collect();
            StoreWrite::Archive { branch: branch.clone(), key: key.into(), value: row.value.unwrap_or_default(), refs }
        };
        let parts = rows.into_iter().map(row).collect();
        self.write(n, parts, After::Nothing);
        let last = StoreWrite::Archive {
            branch: branch.clone(),
            key: Bytes::from_static(ARCHIVE_HEAD),
            value: head.encode().into(),
            refs: Vec::new(),
        };
        self.write(n, vec![last], After::Event(Event::BranchArchived { archive, head }));
    }

    pub(crate) fn ask_blobs(&mut self, n: usize, from: usize, token: u64, hashes: Vec<BlobHash>) {
        let Some(boot) = self.nodes[n].boot() else { return };
        self.coverage.blobs_fetched += 1;
        if !self.can_call(n, from) || !self.net.both_open(n, from) {
            let missing = self.missing(n, &hashes);
            return self.to(n, 5, Inner::Event(Event::BlobsChecked { token, missing }));
        }
        let delay = self.delay() + 1;
        self.to(from, delay, Inner::GiveBlobs { to: n, boot, token, hashes: hashes.clone() });
        // An answer that was lost; after a real one the machine does not look at it.
        self.to(n, CALL_WAIT_MS, Inner::Event(Event::BlobsChecked { token, missing: hashes }));
    }

    pub(crate) fn give_blobs(&mut self, n: usize, (to, boot): (usize, Boot), token: u64, hashes: Vec<BlobHash>) {
        let image = &self.nodes[n].disk.image;
        let body = |hash: &BlobHash| Some(InlineBody { hash: *hash, bytes: image.blobs.get(hash)?.clone() });
        let bodies = hashes.iter().filter_map(body).collect();
        self.call_back(n, to, boot, Inner::GivenBlobs { token, hashes, bodies });
    }

    pub(crate) fn given_blobs(&mut self, n: usize, token: u64, hashes: Vec<BlobHash>, bodies: Vec<InlineBody>) {
        let got: Vec<BlobHash> = bodies.iter().map(|b| b.hash).collect();
        let mut missing = self.missing(n, &hashes);
        missing.retain(|hash| !got.contains(hash));
        self.write(n, vec![StoreWrite::Bodies(bodies)], After::Event(Event::BlobsChecked { token, missing }));
    }
}

fn bodies_of(rows: &[RowWrite]) -> impl Iterator<Item = BlobHash> {
    // Of what is kept to be restored, too.
    rows.iter().filter_map(|row| mailbox::blob_ref_of(row).or_else(|| queue::blob_ref_of(row))).map(|r| r.hash)
}
