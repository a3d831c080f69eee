//! What is offered, and when: one table.

/// When a capability is named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Offered {
    Always,
    BeforeTls,
    /// While a password may be sent and nobody is logged in.
    BeforeLogin,
    /// While a password may not be sent.
    Locked,
    AfterLogin,
}

/// What the connection is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Bytes are encrypted.
    pub tls: bool,
    /// Passwords may be sent.
    pub may_login: bool,
    /// Somebody is logged in.
    pub logged_in: bool,
}

const TABLE: &[(&str, Offered)] = &[
    ("IMAP4rev1", Offered::Always),       // RFC 3501
    ("LITERAL+", Offered::Always),        // RFC 7888
    ("ID", Offered::Always),              // RFC 2971
    ("ENABLE", Offered::Always),          // RFC 5161
    ("STARTTLS", Offered::BeforeTls),     // RFC 3501 §6.2.1
    ("LOGINDISABLED", Offered::Locked),   // RFC 3501 §6.2.3
    ("SASL-IR", Offered::BeforeLogin),    // RFC 4959
    ("AUTH=PLAIN", Offered::BeforeLogin), // RFC 4616
    ("AUTH=LOGIN", Offered::BeforeLogin), // Outlook
    ("NAMESPACE", Offered::AfterLogin),   // RFC 2342
    ("UIDPLUS", Offered::AfterLogin),     // RFC 4315
    ("MOVE", Offered::AfterLogin),        // RFC 6851
    ("IDLE", Offered::AfterLogin),        // RFC 2177
    ("UNSELECT", Offered::AfterLogin),    // RFC 3691
    ("CHILDREN", Offered::AfterLogin),    // RFC 3348
    ("SPECIAL-USE", Offered::AfterLogin), // RFC 6154
    ("CREATE-SPECIAL-USE", Offered::AfterLogin),
    ("LIST-EXTENDED", Offered::AfterLogin), // RFC 5258
    ("LIST-STATUS", Offered::AfterLogin),   // RFC 5819
    ("STATUS=SIZE", Offered::AfterLogin),   // RFC 8438
    ("CONDSTORE", Offered::AfterLogin),     // RFC 7162
    ("OBJECTID", Offered::AfterLogin),      // RFC 8474
];

/// The capability line without `* CAPABILITY ` around it.
#[must_use]
pub fn offer_capabilities(standing: Standing) -> String {
    let offered = |when: Offered| match when {
        Offered::Always => true,
        Offered::BeforeTls => !standing.tls && !standing.logged_in,
        Offered::BeforeLogin => standing.may_login && !standing.logged_in,
        Offered::Locked => !standing.may_login && !standing.logged_in,
        Offered::AfterLogin => standing.logged_in,
    };
    let names: Vec<&str> = TABLE.iter().filter(|(_, when)| offered(*when)).map(|(name, _)| *name).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_wait_for_tls() {
        let plain = offer_capabilities(Standing::default());
        assert!(plain.contains("LOGINDISABLED") && plain.contains("STARTTLS") && !plain.contains("AUTH="));
        let tls = offer_capabilities(Standing { tls: true, may_login: true, logged_in: false });
        assert!(tls.contains("AUTH=PLAIN") && !tls.contains("STARTTLS") && !tls.contains("LOGINDISABLED"));
    }
}
