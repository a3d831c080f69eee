//! Refusals as response codes (RFC 5530, RFC 3501 §7.1).

use mailbox::op::Refusal;

/// Nothing is known to have changed; ask again.
pub(super) const UNAVAILABLE: &str = "NO [UNAVAILABLE] not possible now, try again";
/// Memory or disk.
pub(super) const NO_ROOM: &str = "NO [LIMIT] no room now, try again later";

/// The tagged answer; `missing` is the code for a target mailbox that is not there.
pub(super) fn text_of(refusal: &Refusal, missing: &str) -> String {
    match refusal {
        Refusal::NoSuchMailbox => format!("NO [{missing}] no such mailbox"),
        Refusal::MailboxExists => "NO [ALREADYEXISTS] there is a mailbox of that name".to_owned(),
        Refusal::BadName => "NO [CANNOT] not a name a mailbox can have".to_owned(),
        Refusal::NotAllowed => "NO [CANNOT] not allowed for this mailbox".to_owned(),
        Refusal::HasChildren => "NO [HASCHILDREN] there are mailboxes below it".to_owned(),
        Refusal::Limit(what) => format!("NO [LIMIT] {}", what.replace(['\r', '\n'], " ")),
        Refusal::UnknownPlacement | Refusal::Settled | Refusal::NoSuchAccount => UNAVAILABLE.to_owned(),
    }
}
