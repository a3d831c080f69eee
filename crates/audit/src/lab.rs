//! What the fault lab and the benchmark switch off by the environment. The product is built without it.

/// Nothing is collected: records of commits wait beside the mail, notes are not taken.
pub(crate) const COLLECTION: &str = "log-collection";
/// Nothing is brought to the primary.
pub(crate) const SHIPPING: &str = "log-shipping";

/// Whether a part is switched off.
#[cfg(feature = "lab")]
pub(crate) fn is_without(part: &str) -> bool {
    std::env::var("TWINPOST_LAB_WITHOUT").is_ok_and(|name| name == part)
}

/// Whether a part is switched off: never.
#[cfg(not(feature = "lab"))]
pub(crate) const fn is_without(_: &str) -> bool {
    false
}
