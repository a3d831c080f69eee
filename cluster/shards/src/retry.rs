//! Trying again while a takeover or a reconnect may still help.

use std::time::Duration;

use vocab::SubmitError;
use vocab::limits::COMMIT_WAIT_MAX_MS;

/// Pause before a change is tried again during a takeover.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Tries again as long as a commit may take. Safe for unknown outcomes too, because what is retried carries its
/// command id.
pub(crate) struct Retry {
    deadline: tokio::time::Instant,
    unknown: Option<SubmitError>,
}

impl Retry {
    pub(crate) fn new() -> Self {
        Self { deadline: tokio::time::Instant::now() + Duration::from_millis(COMMIT_WAIT_MAX_MS), unknown: None }
    }

    /// Waits a moment before the next attempt, or gives the final error when no further one makes sense. Once an
    /// attempt was unknown, no later refusal can say that nothing happened.
    pub(crate) async fn pause(&mut self, error: SubmitError) -> Result<(), SubmitError> {
        let final_word =
            [crate::NO_SPACE, crate::DAMAGED, crate::NO_BODY, crate::TOO_LARGE, crate::REFUSED, crate::TOO_LATE];
        let hopeless = matches!(&error, SubmitError::Unavailable(reason) if final_word.contains(reason));
        if matches!(error, SubmitError::Unknown(_)) {
            self.unknown = Some(error.clone());
        }
        if hopeless || tokio::time::Instant::now() + RETRY_PAUSE >= self.deadline {
            return Err(self.unknown.take().unwrap_or(error));
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn unknown_never_becomes_unavailable() {
        let mut retry = Retry::new();
        assert_eq!(retry.pause(SubmitError::Unknown("lost")).await, Ok(()));
        let last = retry.pause(SubmitError::Unavailable(crate::NO_SPACE)).await;
        assert_eq!(last, Err(SubmitError::Unknown("lost")));
    }

    #[tokio::test]
    async fn a_full_disk_is_a_final_word() {
        let full = SubmitError::Unavailable(crate::NO_SPACE);
        assert_eq!(Retry::new().pause(full.clone()).await, Err(full));
    }
}
