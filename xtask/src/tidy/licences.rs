//! Every package we ship must be under terms that ask for no more than notices.

use super::metadata::Metadata;

/// Terms that fit beside Apache-2.0 OR MIT. GPL and its kin are not here and stay out.
const ALLOWED: [&str; 15] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "BSL-1.0",
    "CC0-1.0",
    "Unlicense",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    // Data (root certificates), not code.
    "CDLA-Permissive-2.0",
];

/// Packages whose terms are not allowed or not known.
pub fn check(metadata: &Metadata) -> Vec<String> {
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let place = format!("{} {}", package.name, package.version);
        match (&package.license, &package.license_file) {
            (Some(terms), _) if is_allowed(terms) => {}
            (Some(terms), _) => faults.push(format!("{place}: licence {terms} is not allowed")),
            (None, file) => faults.push(format!("{place}: no SPDX licence ({})", file.as_deref().unwrap_or("no file"))),
        }
    }
    faults
}

/// Whether an SPDX expression leaves a choice that is allowed. AND binds tighter than OR, as SPDX says.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let allowed = any_of(&tokens, &mut at);
    allowed && at == tokens.len()
}

fn any_of(tokens: &[&str], at: &mut usize) -> bool {
    let mut allowed = all_of(tokens, at);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        allowed |= all_of(tokens, at);
    }
    allowed
}

fn all_of(tokens: &[&str], at: &mut usize) -> bool {
    let mut allowed = single(tokens, at);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        allowed &= single(tokens, at);
    }
    allowed
}

fn single(tokens: &[&str], at: &mut usize) -> bool {
    let Some(token) = tokens.get(*at) else { return false };
    *at += 1;
    if *token == "(" {
        let allowed = any_of(tokens, at);
        *at += 1;
        return allowed;
    }
    if tokens.get(*at) == Some(&"WITH") {
        let exception = tokens.get(*at + 1).copied().unwrap_or_default();
        *at += 2;
        return ALLOWED.contains(&format!("{token} WITH {exception}").as_str());
    }
    ALLOWED.contains(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_judged_by_their_best_choice() {
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "Apache-2.0 AND ISC",
            "GPL-3.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in ["GPL-3.0", "AGPL-3.0-only", "MIT AND GPL-2.0", "GPL-2.0 WITH X", "", "MIT Apache-2.0", "(MIT"] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }
}
