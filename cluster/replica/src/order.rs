//! Order per account: at most one batch per account in flight; what waits is drained into the next one (DESIGN 5.3).

use std::collections::{BTreeMap, BTreeSet};

use vocab::{AccountId, Instant};

/// Most commands one batch carries for one account.
pub(crate) const COMMANDS_PER_BATCH_MAX: usize = 256;

/// A command that waits, or is being computed.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub token: u64,
    /// Ascending, each once.
    pub accounts: Vec<AccountId>,
    pub since: Instant,
}

/// What may be computed now.
#[derive(Debug)]
pub(crate) struct Ready {
    /// In order of arrival.
    pub works: Vec<(u64, Work)>,
    /// Ascending.
    pub accounts: Vec<AccountId>,
}

impl Ready {
    /// Tokens by account.
    pub fn by_account(&self) -> Vec<(AccountId, Vec<u64>)> {
        let tokens = |a: &AccountId| -> Vec<u64> {
            self.works.iter().filter(|(_, w)| w.accounts.contains(a)).map(|(_, w)| w.token).collect()
        };
        self.accounts.iter().map(|a| (*a, tokens(a))).collect()
    }
}

/// Queues of all accounts. A command of several accounts stands in each of their queues under one number, and all
/// queues are in the order of these numbers, so the oldest command is first everywhere and nothing can wait in a ring.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    next: u64,
    works: BTreeMap<u64, Work>,
    queues: BTreeMap<AccountId, BTreeSet<u64>>,
    busy: BTreeSet<AccountId>,
    examine: BTreeSet<AccountId>,
}

impl Orders {
    pub fn submit(&mut self, work: Work) {
        self.next += 1;
        self.insert(self.next, work);
    }

    fn insert(&mut self, number: u64, work: Work) {
        for account in &work.accounts {
            self.queues.entry(*account).or_default().insert(number);
            self.examine.insert(*account);
        }
        self.works.insert(number, work);
    }

    /// Back to where they were: nothing was decided about them.
    pub fn put_back(&mut self, works: Vec<(u64, Work)>) {
        for (number, work) in works {
            self.insert(number, work);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Work> {
        let work = self.works.remove(&number)?;
        for account in &work.accounts {
            if let Some(queue) = self.queues.get_mut(account) {
                queue.remove(&number);
                if queue.is_empty() {
                    self.queues.remove(account);
                }
            }
        }
        Some(work)
    }

    /// The next set of commands whose accounts are all free; they are busy from now on.
    pub fn next_ready(&mut self) -> Option<Ready> {
        while let Some(account) = self.examine.pop_first() {
            if let Some(ready) = self.try_account(account) {
                return Some(ready);
            }
        }
        None
    }

    fn try_account(&mut self, account: AccountId) -> Option<Ready> {
        if self.busy.contains(&account) {
            return None;
        }
        let front = *self.queues.get(&account)?.first()?;
        let accounts = self.works.get(&front)?.accounts.clone();
        let first = |a: &AccountId| self.queues.get(a).and_then(|q| q.first()) == Some(&front);
        if !accounts.iter().all(|a| !self.busy.contains(a) && first(a)) {
            return None;
        }
        let mut numbers = vec![front];
        if accounts.len() == 1 {
            let alone = |n: &&u64| self.works.get(n).is_some_and(|w| w.accounts.len() == 1);
            let queue = self.queues.get(&account)?;
            numbers = queue.iter().take_while(alone).take(COMMANDS_PER_BATCH_MAX).copied().collect();
        }
        let works = numbers.iter().filter_map(|n| Some((*n, self.remove(*n)?))).collect();
        self.busy.extend(&accounts);
        Some(Ready { works, accounts })
    }

    /// The account is free again.
    pub fn release(&mut self, account: AccountId) {
        self.busy.remove(&account);
        self.examine.insert(account);
    }

    /// Takes the account out of ordering, unless a batch of it is in flight (X12: that one is finished first).
    pub fn lock(&mut self, account: AccountId) -> bool {
        self.busy.insert(account)
    }

    /// Takes everything that waits, but for commands of accounts that stay.
    pub fn take_unless(&mut self, stays: impl Fn(&AccountId) -> bool) -> Vec<u64> {
        self.take(|work| !work.accounts.iter().all(&stays))
    }

    fn take(&mut self, goes: impl Fn(&Work) -> bool) -> Vec<u64> {
        let going: Vec<u64> = self.works.iter().filter(|(_, w)| goes(w)).map(|(n, _)| *n).collect();
        let mut affected = Vec::new();
        let mut tokens = Vec::new();
        for number in going {
            if let Some(work) = self.remove(number) {
                affected.extend(work.accounts);
                tokens.push(work.token);
            }
        }
        self.examine.extend(affected);
        tokens
    }

    /// Takes what has waited longer than `limit_ms`.
    pub fn expired(&mut self, now: Instant, limit_ms: u64) -> Vec<u64> {
        self.take(|work| now.since(work.since) >= limit_ms)
    }

    pub fn waiting(&self) -> usize {
        self.works.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(token: u64, accounts: &[u64]) -> Work {
        Work { token, accounts: accounts.iter().map(|a| AccountId(*a)).collect(), since: Instant(0) }
    }

    #[test]
    fn waiting_commands_of_one_account_become_one_batch() {
        let mut orders = Orders::default();
        orders.submit(work(1, &[5]));
        let first = orders.next_ready().expect("free");
        assert_eq!(first.by_account(), [(AccountId(5), vec![1])]);
        orders.submit(work(2, &[5]));
        orders.submit(work(3, &[5]));
        assert!(orders.next_ready().is_none(), "one batch per account in flight");
        orders.release(AccountId(5));
        assert_eq!(orders.next_ready().expect("free").by_account(), [(AccountId(5), vec![2, 3])]);
    }

    #[test]
    fn crossing_deliveries_never_wait_in_a_ring() {
        let mut orders = Orders::default();
        orders.submit(work(1, &[5, 6]));
        orders.submit(work(2, &[5, 6]));
        orders.submit(work(3, &[6]));
        let mut seen = Vec::new();
        while let Some(ready) = orders.next_ready() {
            seen.extend(ready.works.iter().map(|(_, w)| w.token));
            for account in ready.accounts {
                orders.release(account);
            }
        }
        assert_eq!(seen, [1, 2, 3]);
    }

    #[test]
    fn what_is_put_back_keeps_its_place() {
        let mut orders = Orders::default();
        orders.submit(work(1, &[5]));
        let ready = orders.next_ready().expect("free");
        orders.submit(work(2, &[5]));
        orders.put_back(ready.works);
        orders.release(AccountId(5));
        assert_eq!(orders.next_ready().expect("free").by_account(), [(AccountId(5), vec![1, 2])]);
    }
}
