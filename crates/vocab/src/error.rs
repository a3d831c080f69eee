//! The three answers: refusals travel as outcomes; `Err` is *unavailable* or *unknown*.

/// The reason of [`SubmitError::Unavailable`] when the home has no room: SMTP 452 4.3.1, IMAP `NO [OVERQUOTA]`.
pub const NO_SPACE: &str = "insufficient storage";

/// Why a change has no outcome. No code may turn `Unknown` into `Unavailable`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Not decided, nothing changed: ask again later (SMTP 451 4.3.2, IMAP `NO [UNAVAILABLE]`).
    #[error("unavailable: {0}")]
    Unavailable(&'static str),
    /// May or may not have happened: a retry must carry the same command id.
    #[error("outcome unknown: {0}")]
    Unknown(&'static str),
}
