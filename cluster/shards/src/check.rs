//! Stored data are checked all the time, slowly: rows against the digest of their account, heads against those of the
//! home, bodies against their hash. What is damaged is brought back from another node (`repair`), and what cannot be is
//! said in status, metrics and log until it can.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ports::cluster::CheckStatus;
use vocab::{AccountId, BlobHash, StoreWrite, SubmitError, Version};
use wire::forward::{self as w, call, reply};

use crate::engine::Engine;
use crate::grace::wall;

/// Name of the record that says how far a pass is.
const POSITION_KEY: &str = "check";
/// From the end of a pass to the next.
const PASS_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// A node that has just started has other things to do.
const START_PAUSE: Duration = Duration::from_secs(60);
/// What could not be repaired is tried again after this time.
const BROKEN_PAUSE: Duration = Duration::from_secs(60);
/// A check that took this long is followed by a pause this many times as long: it has a tenth of one thread and disk.
const IDLE_SHARE: u32 = 9;
/// Bodies looked at between two pauses.
const BODIES_PER_STEP: usize = 64;
/// Accounts in one answer to [`call::Kind::Heads`].
const HEADS_PER_PAGE: usize = 1_000;
/// Damaged things named in the status.
const BROKEN_SHOWN_MAX: usize = 100;
/// Two nodes that differ at an account are asked again after this time: a batch may have been on its way.
const DIFFER_PAUSE: Duration = Duration::from_secs(2);

/// Something that was found damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Broken {
    Account(AccountId),
    Body(BlobHash),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Account(account) => write!(f, "rows of account {}", account.0),
            Self::Body(hash) => write!(f, "body {hash}"),
        }
    }
}

/// What was found so far.
#[derive(Default)]
pub(crate) struct Checks(Mutex<Found>);

#[derive(Default)]
struct Found {
    status: CheckStatus,
    broken: BTreeSet<Broken>,
}

impl Checks {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> CheckStatus {
        let found = self.found();
        let broken = found.broken.iter().take(BROKEN_SHOWN_MAX).map(ToString::to_string).collect();
        CheckStatus { broken, ..found.status.clone() }
    }

    fn broken(&self) -> Vec<Broken> {
        self.found().broken.iter().copied().collect()
    }

    fn note(&self, what: Broken, repaired: bool) {
        let mut found = self.found();
        let new = !repaired && found.broken.insert(what);
        let cleared = repaired && found.broken.remove(&what);
        if repaired {
            found.status.repaired += 1;
        }
        if new || (repaired && !cleared) {
            found.status.damaged += 1;
            metrics::counter!("twinpost_check_damaged_total").increment(1);
        }
        if repaired {
            metrics::counter!("twinpost_check_repaired_total").increment(1);
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge for people")]
        metrics::gauge!("twinpost_check_broken").set(found.broken.len() as f64);
    }

    fn sound(&self, what: Broken) {
        self.found().broken.remove(&what);
    }
}

/// How far a pass is; what lies behind it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// The last pass ended then (wall clock, ms).
    Rest(u64),
    Accounts(AccountId),
    Bodies(Option<BlobHash>),
}

impl Position {
    fn encode(self) -> Vec<u8> {
        match self {
            Self::Rest(at) => [&[0][..], &at.to_be_bytes()].concat(),
            Self::Accounts(after) => [&[1][..], &after.0.to_be_bytes()].concat(),
            Self::Bodies(after) => [vec![2], after.map_or_else(Vec::new, |hash| hash.0.to_vec())].concat(),
        }
    }

    /// Whatever is not understood begins a pass.
    fn decode(bytes: Option<&[u8]>) -> Self {
        let begin = Self::Accounts(AccountId(0));
        let number = |rest: &[u8]| rest.try_into().ok().map(u64::from_be_bytes);
        match bytes.and_then(|bytes| bytes.split_first()) {
            Some((0, rest)) => number(rest).map_or(begin, Self::Rest),
            Some((1, rest)) => number(rest).map_or(begin, |after| Self::Accounts(AccountId(after))),
            Some((2, rest)) => Self::Bodies(BlobHash::from_bytes(rest)),
            _ => begin,
        }
    }
}

impl Engine {
    /// Checks everything, again and again, until the process ends.
    pub(crate) async fn check_forever(self: Arc<Self>) {
        let mut first = true;
        loop {
            let position = self.position();
            if let Position::Rest(ended) = position {
                self.checks.found().status.last_pass_ms = Some(ended);
            }
            tokio::time::sleep(self.pause_before(position, std::mem::take(&mut first))).await;
            let broken = self.checks.broken();
            if !broken.is_empty() {
                self.check_again(broken).await;
            } else {
                self.check_from(position, IDLE_SHARE).await;
            }
        }
    }

    /// Checks everything now, without pauses; for operators in a hurry and for tests.
    pub async fn check_now(&self) -> CheckStatus {
        self.check_from(Position::Accounts(AccountId(0)), 0).await;
        self.checks.status()
    }

    fn position(&self) -> Position {
        Position::decode(self.store.meta(POSITION_KEY).as_deref())
    }

    fn pause_before(&self, position: Position, first: bool) -> Duration {
        let rest = match position {
            Position::Rest(ended) => {
                let since = Duration::from_millis(wall().0.saturating_sub(ended));
                PASS_PAUSE.saturating_sub(since)
            }
            Position::Accounts(_) | Position::Bodies(_) => Duration::ZERO,
        };
        match self.checks.broken().is_empty() {
            true if first => rest.max(START_PAUSE),
            true => rest,
            false => BROKEN_PAUSE,
        }
    }

    async fn keep_position(&self, position: Position) {
        let value = Some(Bytes::from(position.encode()));
        self.store.write(vec![StoreWrite::Meta { key: POSITION_KEY.into(), value }]).await;
    }

    async fn check_again(&self, broken: Vec<Broken>) {
        for what in broken {
            match what {
                Broken::Account(account) => self.check_account(account).await,
                Broken::Body(hash) => self.check_bodies(vec![hash]).await,
            }
        }
    }

    /// The rest of a pass.
    async fn check_from(&self, position: Position, share: u32) {
        let mut after = None;
        match position {
            Position::Bodies(at) => after = at,
            Position::Rest(_) => self.check_accounts(AccountId(0), share).await,
            Position::Accounts(at) => self.check_accounts(at, share).await,
        }
        loop {
            let begun = tokio::time::Instant::now();
            let store = Arc::clone(&self.store);
            let page = tokio::task::spawn_blocking(move || store.named_blobs(after, BODIES_PER_STEP)).await;
            let page = match page {
                Ok(Ok(page)) => page,
                Ok(Err(damaged)) => {
                    return tracing::error!(%damaged, "references to bodies cannot be read: not checked");
                }
                Err(_) => return,
            };
            let Some(last) = page.last().copied() else { break };
            self.check_bodies(page).await;
            after = Some(last);
            self.keep_position(Position::Bodies(after)).await;
            tokio::time::sleep(begun.elapsed() * share).await;
        }
        let ended = wall().0;
        self.keep_position(Position::Rest(ended)).await;
        let status = {
            let mut found = self.checks.found();
            found.status.last_pass_ms = Some(ended);
            found.status.clone()
        };
        #[expect(clippy::cast_precision_loss, reason = "a gauge for people")]
        metrics::gauge!("twinpost_check_last_pass_timestamp_seconds").set((ended / 1000) as f64);
        let CheckStatus { accounts, bodies, damaged, repaired, .. } = status;
        tracing::info!(accounts, bodies, damaged, repaired, "stored data were checked; counts since start");
    }

    async fn check_accounts(&self, after: AccountId, share: u32) {
        if self.machine().record().is_some_and(|record| record.in_sync.contains(&self.node)) {
            // Whatever was to be seeded has its state.
            self.store.drop_seeds();
        }
        if let Err(error) = self.compare_heads().await {
            tracing::debug!(%error, "not compared with the home now");
        }
        let Ok(all) = self.store.versions() else { return };
        for (account, _) in all.into_iter().filter(|(account, _)| *account > after) {
            let begun = tokio::time::Instant::now();
            self.check_account(account).await;
            self.keep_position(Position::Accounts(account)).await;
            tokio::time::sleep(begun.elapsed() * share).await;
        }
    }

    async fn check_account(&self, account: AccountId) {
        let sound = self.is_account_sound(account).await;
        self.checks.found().status.accounts += 1;
        metrics::counter!("twinpost_check_accounts_total").increment(1);
        if sound {
            return self.checks.sound(Broken::Account(account));
        }
        tracing::error!(account = account.0, "the rows of an account are not what its digest says");
        let repaired = self.repair_account(account).await;
        self.checks.note(Broken::Account(account), repaired);
    }

    /// Whether its rows are those its head counts.
    pub(crate) async fn is_account_sound(&self, account: AccountId) -> bool {
        let rows = self.store.snapshot(account);
        let checked = tokio::task::spawn_blocking(move || {
            let digest = rows.head().digest;
            mailbox::digest_of(&*rows).is_ok_and(|sum| sum == digest)
        });
        // The runtime is going down: nothing is to be said about the account.
        checked.await.unwrap_or(true)
    }

    async fn check_bodies(&self, page: Vec<BlobHash>) {
        let (store, hashes) = (Arc::clone(&self.store), page.clone());
        let checked = tokio::task::spawn_blocking(move || {
            hashes.into_iter().filter(|hash| !store.is_blob_sound(*hash)).collect::<BTreeSet<_>>()
        });
        let damaged = checked.await.unwrap_or_default();
        self.checks.found().status.bodies += page.len() as u64;
        metrics::counter!("twinpost_check_bodies_total").increment(page.len() as u64);
        for hash in page {
            if !damaged.contains(&hash) {
                self.checks.sound(Broken::Body(hash));
                continue;
            }
            tracing::error!(%hash, "a body is missing or not what its name says");
            let repaired = self.repair_body(hash).await;
            self.checks.note(Broken::Body(hash), repaired);
        }
    }

    /// Accounts behind this one with version and digest.
    pub(crate) fn head_page(&self, after: AccountId) -> Result<w::HeadList, SubmitError> {
        let all = self.store.versions().map_err(|_| SubmitError::Unavailable(crate::DAMAGED))?;
        let page = all.into_iter().filter(|(account, _)| *account > after).take(HEADS_PER_PAGE);
        let head = |(account, _): (AccountId, Version)| {
            let head = self.store.head(account).ok()?;
            Some(w::HeadDigest {
                account: account.0,
                version: head.version.0.to_vec().into(),
                digest: head.digest.to_be_bytes().to_vec().into(),
            })
        };
        Ok(w::HeadList { heads: page.filter_map(head).collect() })
    }

    /// As a backup: compares with the home. Accounts that stay different although both are in sync are compared anew,
    /// as after a broken link, which brings them together.
    async fn compare_heads(&self) -> Result<(), SubmitError> {
        let record = self.machine().record().cloned();
        let Some(record) = record.filter(|r| r.in_sync.contains(&self.node) && r.home != self.node) else {
            return Ok(());
        };
        let mut suspects = Vec::new();
        let mut after = AccountId(0);
        loop {
            let page = self.ask_heads(record.home, after).await?;
            let Some(last) = page.last().map(|(account, ..)| *account) else { break };
            suspects.extend(page.into_iter().filter(|theirs| !self.is_same_head(theirs)));
            after = last;
        }
        if suspects.is_empty() {
            return Ok(());
        }
        let mine = |account: AccountId| self.store.head(account).map(|head| head.version).unwrap_or_default();
        let before: Vec<Version> = suspects.iter().map(|(account, ..)| mine(*account)).collect();
        tokio::time::sleep(DIFFER_PAUSE).await;
        let mut differ = Vec::new();
        for (theirs, before) in suspects.into_iter().zip(before) {
            let account = theirs.0;
            let now = self.ask_heads(record.home, AccountId(account.0.saturating_sub(1))).await?;
            let stands = now.first() == Some(&theirs) && mine(account) == before && !self.is_same_head(&theirs);
            if stands {
                differ.push(account.0);
            }
        }
        if !differ.is_empty() && self.machine().record().map(|r| r.id) == Some(record.id) {
            tracing::error!(accounts = ?differ, home = record.home.0, "accounts differ from the home: they are compared anew");
            metrics::counter!("twinpost_check_differing_total").increment(differ.len() as u64);
            self.peers.reset(record.home);
        }
        Ok(())
    }

    fn is_same_head(&self, (account, version, digest): &(AccountId, Bytes, Bytes)) -> bool {
        let head = self.store.head(*account);
        head.is_ok_and(|head| version[..] == head.version.0 && digest[..] == head.digest.to_be_bytes())
    }

    async fn ask_heads(
        &self,
        home: vocab::NodeId,
        after: AccountId,
    ) -> Result<Vec<(AccountId, Bytes, Bytes)>, SubmitError> {
        match self.ask(home, call::Kind::Heads(w::Heads { after: after.0 })).await? {
            reply::Kind::Heads(page) => {
                Ok(page.heads.into_iter().map(|head| (AccountId(head.account), head.version, head.digest)).collect())
            }
            _ => Err(SubmitError::Unknown("the home answered something else")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_a_restart_and_a_damaged_one_begins_a_pass() {
        let hash = BlobHash::of(b"x");
        let begin = Position::Accounts(AccountId(0));
        for position in [
            begin,
            Position::Rest(7),
            Position::Accounts(AccountId(9)),
            Position::Bodies(None),
            Position::Bodies(Some(hash)),
        ] {
            assert_eq!(Position::decode(Some(&position.encode())), position);
        }
        for bytes in [None, Some(&[][..]), Some(&[0, 1][..]), Some(&[9][..])] {
            assert_eq!(Position::decode(bytes), begin);
        }
    }
}
