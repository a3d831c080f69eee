//! Parameters of MAIL and RCPT (RFC 5321 §4.1.2 esmtp-param).

/// What MAIL said besides the path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailParams {
    /// `SIZE=` in octets (RFC 1870).
    pub size: Option<u64>,
    /// `BODY=8BITMIME` (RFC 6152).
    pub eight_bit: bool,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
}

/// Why parameters are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamFault {
    /// A keyword that was not announced: 555 5.5.4.
    Unknown,
    /// A known keyword with a bad or missing value, or one given twice: 501 5.5.4.
    Value,
}

/// Digits of the longest `SIZE=` (RFC 1870 §4).
const SIZE_DIGITS_MAX: usize = 19;

/// Parameters of MAIL. `AUTH=` (RFC 4954 §5) is taken and ignored: nobody is trusted to vouch for others.
///
/// # Errors
/// [`ParamFault`].
pub fn mail_params(text: &str) -> Result<MailParams, ParamFault> {
    let mut params = MailParams::default();
    let mut seen: Vec<String> = Vec::new();
    for word in text.split_ascii_whitespace() {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword.to_ascii_uppercase(), Some(value)),
            None => (word.to_ascii_uppercase(), None),
        };
        if seen.contains(&keyword) {
            return Err(ParamFault::Value);
        }
        match (keyword.as_str(), value) {
            ("SIZE", Some(digits)) => params.size = Some(octets(digits)?),
            ("BODY", Some(body)) => params.eight_bit = body_is_eight_bit(body)?,
            ("SMTPUTF8", None) => params.smtputf8 = true,
            ("AUTH", Some(_)) => {}
            ("SIZE" | "BODY" | "SMTPUTF8" | "AUTH", _) => return Err(ParamFault::Value),
            _ => return Err(ParamFault::Unknown),
        }
        seen.push(keyword);
    }
    Ok(params)
}

/// Parameters of RCPT: none is announced.
///
/// # Errors
/// [`ParamFault::Unknown`] for any.
pub fn rcpt_params(text: &str) -> Result<(), ParamFault> {
    if text.trim().is_empty() { Ok(()) } else { Err(ParamFault::Unknown) }
}

fn octets(digits: &str) -> Result<u64, ParamFault> {
    if digits.is_empty() || digits.len() > SIZE_DIGITS_MAX || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParamFault::Value);
    }
    digits.parse().map_err(|_| ParamFault::Value)
}

fn body_is_eight_bit(body: &str) -> Result<bool, ParamFault> {
    if body.eq_ignore_ascii_case("8BITMIME") {
        Ok(true)
    } else if body.eq_ignore_ascii_case("7BIT") {
        Ok(false)
    } else {
        Err(ParamFault::Value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_parameters() {
        let good = mail_params(" size=12 BODY=8bitmime SMTPUTF8 AUTH=<>");
        assert_eq!(good, Ok(MailParams { size: Some(12), eight_bit: true, smtputf8: true }));
        for (text, fault) in [
            ("SIZE", ParamFault::Value),
            ("SIZE=x", ParamFault::Value),
            ("SIZE=99999999999999999999", ParamFault::Value),
            ("SIZE=1 SIZE=2", ParamFault::Value),
            ("BODY=BINARYMIME", ParamFault::Value),
            ("SMTPUTF8=yes", ParamFault::Value),
            ("RET=FULL", ParamFault::Unknown),
        ] {
            assert_eq!(mail_params(text), Err(fault), "{text}");
        }
        assert_eq!(rcpt_params(" NOTIFY=NEVER"), Err(ParamFault::Unknown));
    }
}
