//! I11: STORE under UNCHANGEDSINCE changes only messages that nobody has changed since, on either branch: the flags it
//! leaves are those the client knew, with its change.

use super::{Invariant, Told, Verdict, name_of};

pub(crate) struct UnchangedSince;

impl Invariant for UnchangedSince {
    fn name(&self) -> &'static str {
        "I11"
    }
    fn on_told(&mut self, told: &Told) -> Verdict {
        match told {
            Told::Conditional { account, id, wanted, now } if wanted != now => {
                let (account, id) = (account.0, name_of(id.command));
                Err(format!("account {account}: {id} had changed and was stored to: {now:?}, not {wanted:?}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use vocab::{AccountId, Flags, PlacementId, SystemFlag};

    use super::*;

    #[test]
    fn a_store_over_a_change_is_noticed() {
        let (seen, both) = (Flags::of(&[SystemFlag::Seen]), Flags::of(&[SystemFlag::Seen, SystemFlag::Flagged]));
        let told = |now: &Flags| Told::Conditional {
            account: AccountId(40),
            id: PlacementId::default(),
            wanted: seen.clone(),
            now: now.clone(),
        };
        assert_eq!(UnchangedSince.on_told(&told(&seen)), Ok(()));
        assert!(UnchangedSince.on_told(&told(&both)).is_err());
    }
}
