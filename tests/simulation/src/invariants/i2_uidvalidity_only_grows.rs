//! I2: the UIDVALIDITY told for a name never decreases.
//!
//! A mailbox keeps its UIDVALIDITY when it is renamed, so a name it was renamed to may have had a greater one before. Each
//! value still names one mailbox for ever (I13), which is what caches need; such names are left out here. So are those of
//! mailboxes that one side of a split deleted or renamed: the other side's of that name may be older.

use std::collections::{BTreeMap, BTreeSet};

use vocab::AccountId;

use super::{Highest, Invariant, NamesOf, Reading, Told, Verdict};

#[derive(Default)]
pub(crate) struct Validity {
    highest: Highest<(AccountId, String)>,
    renamed: BTreeMap<AccountId, BTreeSet<String>>,
    names: NamesOf,
    left_apart: BTreeSet<(AccountId, String)>,
}

impl Validity {
    fn was_renamed_to(&self, account: AccountId, name: &str) -> bool {
        let below =
            |to: &String| name.strip_prefix(to.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.renamed.get(&account).is_some_and(|all| all.iter().any(below))
    }
}

impl Invariant for Validity {
    fn name(&self) -> &'static str {
        "I2"
    }
    fn on_told(&mut self, told: &Told) -> Verdict {
        self.names.told(told);
        match told {
            Told::RenameAsked { account, to, .. } => {
                self.renamed.entry(*account).or_default().insert(to.clone());
            }
            Told::Deleted { account, mailbox, side: Some(_) }
            | Told::Renamed { account, mailbox, side: Some(_), .. } => {
                self.left_apart.extend(self.names.of(*account, *mailbox));
            }
            _ => {}
        }
        Ok(())
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        self.names.read(reading);
        for mailbox in reading.mailboxes.iter().map(|shown| &shown.mailbox) {
            if !self.was_renamed_to(reading.account, &mailbox.name) {
                let key = (reading.account, mailbox.name.clone());
                if self.left_apart.contains(&key) {
                    continue;
                }
                self.highest.tell(&reading.view, key, u64::from(mailbox.uid_validity.0))?;
            }
        }
        Ok(())
    }
    fn on_joint(&mut self) {
        self.highest.join();
    }
}
