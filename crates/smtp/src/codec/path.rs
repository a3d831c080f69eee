//! Reverse-path and forward-path (RFC 5321 §4.1.2). Source routes are taken and ignored (§4.1.1.3, appendix C).

use vocab::address::AddressFault;
use vocab::{Address, ForwardPath, ReversePath};

/// Reads `<...>`; returns what follows it, for the parameters.
///
/// # Errors
/// [`AddressFault::Shape`] without angle brackets, else which part of the address is bad.
pub fn reverse_path(text: &str) -> Result<(ReversePath, &str), AddressFault> {
    let (inner, rest) = brackets(text)?;
    if inner.is_empty() {
        return Ok((ReversePath::Null, rest));
    }
    Ok((ReversePath::Address(Address::parse(without_route(inner))?), rest))
}

/// As [`reverse_path`], with `<postmaster>` and never empty.
///
/// # Errors
/// As [`reverse_path`].
pub fn forward_path(text: &str) -> Result<(ForwardPath, &str), AddressFault> {
    let (inner, rest) = brackets(text)?;
    if inner.eq_ignore_ascii_case("postmaster") {
        return Ok((ForwardPath::Postmaster, rest));
    }
    Ok((ForwardPath::Address(Address::parse(without_route(inner))?), rest))
}

/// Text between `<` and its `>`, which may also occur quoted; the rest must be empty or begin with a space.
fn brackets(text: &str) -> Result<(&str, &str), AddressFault> {
    let inner = text.strip_prefix('<').ok_or(AddressFault::Shape)?;
    let (mut quoted, mut escaped) = (false, false);
    let end = inner.char_indices().find(|&(_, c)| {
        let end = c == '>' && !quoted;
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && c == '\\' && !escaped;
        end
    });
    let (end, _) = end.ok_or(AddressFault::Shape)?;
    let (inner, rest) = inner.split_at_checked(end).ok_or(AddressFault::Shape)?;
    let rest = rest.strip_prefix('>').ok_or(AddressFault::Shape)?;
    if !rest.is_empty() && !rest.starts_with([' ', '\t']) {
        return Err(AddressFault::Shape);
    }
    Ok((inner, rest))
}

/// `@a,@b:user@c` is `user@c`.
fn without_route(inner: &str) -> &str {
    match inner.strip_prefix('@').and_then(|route| route.split_once(':')) {
        Some((_, path)) => path,
        None => inner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (text, shown) in [
            ("<a@b.example>", "<a@b.example>"),
            ("<@x.example,@y.example:a@b.example> SIZE=1", "<a@b.example>"),
            ("<\"a>b\"@c.example>", "<\"a>b\"@c.example>"),
            ("<\"a\\\">b\"@c.example>", "<\"a\\\">b\"@c.example>"),
            ("<PostMaster>", "<postmaster>"),
        ] {
            assert_eq!(forward_path(text).map(|(path, _)| path.to_string()).as_deref(), Ok(shown), "{text}");
        }
        for bad in ["a@b", "<a@b", "<a@b>x", "<\"a@b>", "<>"] {
            assert!(forward_path(bad).is_err(), "{bad}");
        }
        assert_eq!(reverse_path("<>"), Ok((ReversePath::Null, "")));
    }
}
