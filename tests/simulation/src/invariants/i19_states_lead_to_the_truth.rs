//! I19: a state leads to what is there, or is refused; never to anything else, on whichever side it is asked with.

use super::{Invariant, JmapReading, Verdict, name_of};

pub(crate) struct States;

impl Invariant for States {
    fn name(&self) -> &'static str {
        "I19"
    }
    fn on_emails(&mut self, reading: &JmapReading<'_>) -> Verdict {
        if reading.followed == reading.truth {
            return Ok(());
        }
        let ids = reading.followed.keys().chain(reading.truth.keys());
        let differs = ids.filter(|email| reading.followed.get(email) != reading.truth.get(email));
        let wrong: Vec<String> = differs
            .map(|email| {
                let (has, is) = (reading.followed.get(email), reading.truth.get(email));
                format!("{}: {has:?} is {is:?}", name_of(email.command))
            })
            .collect();
        let (account, node) = (reading.account.0, reading.view.node + 1);
        Err(format!("account {account}: after the changes told at node {node} the client is wrong about {wrong:?}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vocab::{AccountId, Flags, MailboxId};

    use super::*;
    use crate::invariants::tests::id;
    use crate::invariants::{Emails, View};

    #[test]
    fn a_client_that_was_led_elsewhere_is_noticed() {
        let one = Emails::from([(id(1), BTreeMap::from([(id(1), (MailboxId::default(), Flags::default()))]))]);
        for (followed, fine) in [(Emails::new(), false), (one.clone(), true)] {
            let reading = JmapReading {
                account: AccountId(40),
                view: View { node: 0, side: None, excused: false, heard_out: None, elsewhere: None },
                followed: &followed,
                truth: &one,
                identities: &BTreeMap::new(),
            };
            assert_eq!(States.on_emails(&reading).is_ok(), fine);
        }
    }
}
