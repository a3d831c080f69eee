//! When a certificate is renewed. Pure; times in Unix seconds.

/// A certificate is renewed when less than this part of its life is left.
const LEFT_PART: u64 = 3;

/// Whether a certificate that ends at `ends` is renewed now: soon enough before its end, and only for one that ends later.
/// `life`: how long a new one lasts; `ca_ends`: it ends with its CA at the latest.
pub(crate) fn is_due(now: u64, ends: u64, life: u64, ca_ends: u64) -> bool {
    let left = ends.saturating_sub(now);
    let next = now.saturating_add(life).min(ca_ends);
    left < life / LEFT_PART && next > ends
}

#[cfg(test)]
mod tests {
    use super::is_due;

    #[test]
    fn a_certificate_is_renewed_in_the_last_third_of_its_life() {
        let ca = 1_000_000;
        assert!(!is_due(0, 900, 900, ca));
        assert!(!is_due(600, 900, 900, ca));
        assert!(is_due(601, 900, 900, ca));
        assert!(is_due(5_000, 900, 900, ca), "it has ended: the machine was off");
        assert!(!is_due(601, u64::MAX, 900, ca), "one without an end");
    }

    #[test]
    fn a_certificate_that_ends_with_its_ca_is_not_made_again_and_again() {
        assert!(is_due(700, 900, 900, 1_000), "it gains a little");
        assert!(!is_due(800, 1_000, 900, 1_000), "it gains nothing: the CA must be exchanged");
    }
}
