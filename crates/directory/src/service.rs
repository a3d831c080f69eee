//! `ports::Directory` over the configuration and the accounts' documents.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use ports::Answer;
use ports::accounts::Accounts;
use ports::config::Config;
use ports::directory::{AddressClass, Directory, Identity, Login, PASSWORD_DOCUMENT};
use tokio::sync::Semaphore;
use vocab::{AccountId, Address, ForwardPath, SubmitError};
use zeroize::Zeroizing;

use crate::login_cache::LoginCache;
use crate::{expand, password};

/// How long a login waits for its turn to be hashed.
const TURN_WAIT: Duration = Duration::from_secs(10);

/// Who exists and who may.
pub struct AccountDirectory {
    config: Arc<dyn Config>,
    accounts: Arc<dyn Accounts>,
    cache: LoginCache,
    /// Hashes computed at once: each takes a core and 19 MiB.
    turns: Arc<Semaphore>,
}

impl AccountDirectory {
    /// Over these.
    #[must_use]
    pub fn new(config: Arc<dyn Config>, accounts: Arc<dyn Accounts>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self { config, accounts, cache: LoginCache::new(), turns: Arc::new(Semaphore::new(cores)) }
    }

    async fn stored(&self, account: AccountId) -> Result<Option<Bytes>, SubmitError> {
        let rows = self.accounts.snapshot(account).await?;
        match mailbox::read::document(rows.as_ref(), PASSWORD_DOCUMENT, "") {
            Ok(document) => Ok(document.map(|document| document.body)),
            Err(damaged) => {
                tracing::error!(account = account.0, %damaged, "password cannot be read");
                Err(SubmitError::Unavailable("the password document cannot be read"))
            }
        }
    }

    async fn check(&self, login: &str, password: &str) -> Result<Login, SubmitError> {
        let account = expand::login_account(&self.config.current(), login);
        let stored = match &account {
            Some(account) => self.stored(account.id).await?,
            None => None,
        };
        let (Some(account), Some(stored)) = (account, stored) else {
            // The same work as for a name that exists, so that names cannot be found out by the clock.
            self.verify(None, password).await?;
            return Ok(Login::Refused);
        };
        let known = self.cache.knows(account.id, &stored, password);
        let right = known || self.verify(Some(stored.clone()), password).await?;
        if !right || !account.body.enabled {
            return Ok(Login::Refused);
        }
        if !known {
            self.cache.remember(account.id, &stored, password);
        }
        Ok(Login::Accepted(Identity { account: account.id, address: account.address }))
    }

    /// Verifies on a thread that may take its time; `None`: against a hash nobody has the password of.
    async fn verify(&self, stored: Option<Bytes>, password: &str) -> Result<bool, SubmitError> {
        let busy = SubmitError::Unavailable("too many logins at once");
        let turn = tokio::time::timeout(TURN_WAIT, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(busy) };
        let password = Zeroizing::new(password.to_owned());
        let work = move || {
            let _turn = turn;
            match stored {
                Some(stored) => password::verify(&stored, &password),
                None => password::verify(nobody().as_bytes(), &password).map(|_| false),
            }
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(right)) => Ok(right),
            Ok(Err(fault)) => {
                tracing::error!(%fault, "password could not be checked");
                Err(SubmitError::Unavailable("the password could not be checked"))
            }
            Err(_) => Err(busy),
        }
    }
}

/// A hash of something random, made once.
fn nobody() -> &'static str {
    static NOBODY: OnceLock<String> = OnceLock::new();
    NOBODY.get_or_init(|| password::hash(&rand::random::<u128>().to_string()).unwrap_or_default())
}

impl Directory for AccountDirectory {
    fn classify<'a>(&'a self, path: &'a ForwardPath) -> Answer<'a, Result<AddressClass, SubmitError>> {
        let class = expand::classify(&self.config.current(), path);
        Box::pin(async move { Ok(class) })
    }
    fn authenticate<'a>(&'a self, login: &'a str, password: &'a str) -> Answer<'a, Result<Login, SubmitError>> {
        Box::pin(self.check(login, password))
    }
    fn may_send_as(&self, identity: &Identity, address: &Address) -> bool {
        expand::leads_to(&self.config.current(), address, identity.account)
    }
    fn hash_password<'a>(&'a self, password: &'a str) -> Answer<'a, Bytes> {
        let password = Zeroizing::new(password.to_owned());
        let turns = self.turns.clone();
        Box::pin(async move {
            let turn = turns.acquire_owned().await;
            let work = move || {
                let _turn = turn;
                password::hash(&password)
            };
            match tokio::task::spawn_blocking(work).await {
                Ok(Ok(document)) => Bytes::from(document),
                // An empty document is never a password: nobody can log in with it.
                Ok(Err(fault)) => {
                    tracing::error!(%fault, "password could not be hashed");
                    Bytes::new()
                }
                Err(_) => Bytes::new(),
            }
        })
    }
}
