//! What is noted for the log beside what commits write ([`crate::records`]).

use serde::{Deserialize, Serialize};
use vocab::log::Entry;

use crate::Answer;

/// Takes notes for the log: they are numbered by this node, kept until the primary has them, and never wait for a disk.
/// What was noted in the last second before a crash may be lost; what must not be goes with the commit.
pub trait Log: Send + Sync {
    /// Notes it now.
    fn note(&self, entry: Entry);
    /// Whether lines of the protocol are noted at all (`Entry::Protocol`): asked before one is made.
    fn wants_protocol(&self) -> bool;
}

/// No log: what is noted is forgotten.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLog;

impl Log for NoLog {
    fn note(&self, _: Entry) {}
    fn wants_protocol(&self) -> bool {
        false
    }
}

/// Which records are asked for. What is not said does not matter; texts are compared without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// `mail`, `security`, `access`, `admin`, `cluster`, `protocol`; none: all but `protocol`.
    pub kinds: Vec<String>,
    /// Not before (Unix ms).
    pub from_ms: Option<u64>,
    /// Before (Unix ms).
    pub to_ms: Option<u64>,
    /// Address of the sender.
    pub sender: Option<String>,
    /// Address of the recipient, final or as named.
    pub recipient: Option<String>,
    /// Accept id or Message-ID.
    pub id: Option<String>,
    /// Client or server, or a part of its name.
    pub host: Option<String>,
    /// Event or outcome: `accept`, `deliver`, `defer`, `bounce`, a type of the security log, `ok`, `failed`.
    pub outcome: Option<String>,
    /// Who was logged in.
    pub user: Option<String>,
    /// A part of any text of the record.
    pub text: Option<String>,
    /// Only what goes between accounts here (LOG-09).
    pub within: bool,
    /// At most so many; [`SEARCH_LIMIT_MAX`] at most.
    pub limit: Option<usize>,
    /// Go on behind the page that ended with this.
    pub page: Option<String>,
    /// The oldest first, from this arrival on: what came since (`--follow`).
    pub since: Option<u64>,
}

/// Records of one page at most.
pub const SEARCH_LIMIT_MAX: usize = 10_000;

/// A record as it is shown: `node`, `number`, `at_ms`, `kind`, and what belongs to its kind.
pub type Line = serde_json::Map<String, serde_json::Value>;

/// One page of an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// Newest first, unless `since` was said.
    pub records: Vec<Line>,
    /// To be given as `page` for what is behind it; none: that was all.
    pub next: Option<String>,
    /// To be given as `since` for what comes after this answer.
    pub arrival: u64,
    /// Node whose log it is.
    pub node: u32,
    /// Why it may be incomplete.
    pub warning: Option<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// The question is wrong: in words (API 400, exit 64).
    #[error("{0}")]
    Bad(String),
    /// The log cannot be read now (API 503, exit 2).
    #[error("{0}")]
    Unavailable(String),
}

impl Logs for NoLog {
    fn search(&self, _: Filter) -> Answer<'_, Result<Page, SearchError>> {
        Box::pin(async { Ok(Page::default()) })
    }
}

/// Asks the log, from any node: the primary answers.
pub trait Logs: Send + Sync {
    /// One page.
    ///
    /// # Errors
    /// Each says what to do.
    fn search(&self, filter: Filter) -> Answer<'_, Result<Page, SearchError>>;
}
