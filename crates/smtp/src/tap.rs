//! Lines of an SMTP session for the protocol log: commands and replies, never a body, never a credential. The same for both
//! roles of this program.

use std::collections::VecDeque;

/// What is cut off a line (bytes): the log is for reading.
const LINE_BYTES_MAX: usize = 512;
/// Stands for what is not told.
const HIDDEN: &str = "***";

/// Finds the lines in what both sides say. Pure.
#[derive(Debug, Default)]
pub struct Tap {
    /// A line of the client that has not ended yet.
    part: Vec<u8>,
    inside: Inside,
    /// Commands whose replies are still to come; a client may send several at once (RFC 2920).
    awaited: VecDeque<Verb>,
}

/// Commands after which something else than commands may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Data,
    Auth,
    Other,
}

/// What of the client's bytes comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Inside {
    #[default]
    Command,
    /// A message up to its final dot. Begins with DATA itself, before anybody knows whether that is taken: what is sent
    /// behind a DATA that is refused is not told.
    Body,
    /// Answers to challenges, until the server has decided.
    Secrets,
    /// So many bytes of BDAT.
    Chunk(u64),
}

impl Tap {
    /// What the client said, as far as lines have ended.
    pub fn client(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        while !bytes.is_empty() {
            match self.inside {
                Inside::Chunk(left) => {
                    let here = left.min(bytes.len() as u64);
                    bytes = bytes.get(usize::try_from(here).unwrap_or(usize::MAX)..).unwrap_or_default();
                    self.inside = if here == left { Inside::Command } else { Inside::Chunk(left - here) };
                }
                Inside::Command | Inside::Body | Inside::Secrets => {
                    let (line, rest, ended) = split(bytes);
                    bytes = rest;
                    // No line of a body is kept; of its last one only so much that the dot is known.
                    let room = LINE_BYTES_MAX.saturating_sub(self.part.len());
                    self.part.extend_from_slice(line.get(..line.len().min(room)).unwrap_or_default());
                    if ended {
                        let line = std::mem::take(&mut self.part);
                        // The line end may have come in two pieces.
                        lines.extend(self.line(line.strip_suffix(b"\r").unwrap_or(&line)));
                    }
                }
            }
        }
        lines
    }

    fn line(&mut self, line: &[u8]) -> Option<String> {
        match self.inside {
            Inside::Body if line == b"." => {
                self.inside = Inside::Command;
                self.awaited.push_back(Verb::Other);
                return Some(".".to_owned());
            }
            Inside::Body => return None,
            Inside::Secrets => return Some(HIDDEN.to_owned()),
            Inside::Command | Inside::Chunk(_) => {}
        }
        let text = printable(line);
        let mut words = text.split_ascii_whitespace();
        let verb = words.next().unwrap_or_default().to_ascii_uppercase();
        self.awaited.push_back(match verb.as_str() {
            "DATA" => Verb::Data,
            "AUTH" => Verb::Auth,
            _ => Verb::Other,
        });
        match verb.as_str() {
            "DATA" => self.inside = Inside::Body,
            "AUTH" => {
                self.inside = Inside::Secrets;
                let mechanism = words.next().unwrap_or_default();
                let initial = if words.next().is_some() { format!(" {HIDDEN}") } else { String::new() };
                return Some(format!("{verb} {mechanism}{initial}"));
            }
            "BDAT" => {
                let size = words.next().and_then(|size| size.parse().ok()).unwrap_or(0);
                self.inside = if size > 0 { Inside::Chunk(size) } else { Inside::Command };
            }
            _ => {}
        }
        Some(text)
    }

    /// What the server said, lines that have ended; a reply that asks for more says what the client's next bytes are.
    pub fn server(&mut self, bytes: &[u8]) -> Vec<String> {
        let lines: Vec<String> = bytes
            .split(|byte| *byte == b'\n')
            .map(|line| printable(line.strip_suffix(b"\r").unwrap_or(line)))
            .filter(|line| !line.is_empty())
            .collect();
        for line in &lines {
            self.reply(line);
        }
        // A challenge may name who logs in.
        lines.into_iter().map(|line| if line.starts_with("334 ") { format!("334 {HIDDEN}") } else { line }).collect()
    }
}

impl Tap {
    /// A reply's last line belongs to the oldest command that waits for one.
    fn reply(&mut self, line: &str) {
        if line.starts_with("334") || line.as_bytes().get(3) == Some(&b'-') {
            return;
        }
        match self.awaited.pop_front() {
            // What follows is the message.
            Some(Verb::Data) if line.starts_with("354") => {}
            Some(Verb::Data) if self.inside == Inside::Body => self.inside = Inside::Command,
            Some(Verb::Auth) if self.inside == Inside::Secrets => self.inside = Inside::Command,
            _ => {}
        }
    }

    /// TLS begins: what had come before it is thrown away.
    pub fn starts_tls(&mut self) {
        self.part.clear();
        self.inside = Inside::Command;
    }
}

/// A line without its end, what comes after it, and whether it has ended.
fn split(bytes: &[u8]) -> (&[u8], &[u8], bool) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => {
            let line = bytes.get(..at).unwrap_or_default();
            (line.strip_suffix(b"\r").unwrap_or(line), bytes.get(at + 1..).unwrap_or_default(), true)
        }
        None => (bytes, &[], false),
    }
}

fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.get(..line.len().min(LINE_BYTES_MAX)).unwrap_or_default());
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both sides in turn: `C:` is the client's.
    fn told(dialogue: &[&str]) -> Vec<String> {
        let mut tap = Tap::default();
        let said = |tap: &mut Tap, part: &str| match part.split_at(2) {
            ("C:", bytes) => tap.client(bytes.as_bytes()).into_iter().map(|line| format!("> {line}")).collect(),
            (_, bytes) => tap.server(bytes.as_bytes()).into_iter().map(|line| format!("< {line}")).collect::<Vec<_>>(),
        };
        dialogue.iter().flat_map(|part| said(&mut tap, part)).collect()
    }

    #[test]
    fn log_13_commands_and_replies_are_told_and_no_body() {
        let lines = told(&[
            "S:220 here\r\n",
            "C:EHLO there\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n",
            "S:250-here\r\n250 SIZE\r\n250 ok\r\n250 ok\r\n354 go\r\n",
            "C:Subject: secret\r\n\r\nDATA\r\n..\r\nrest",
            "C: of it\r\n.\r\nQUIT\r\n",
            "S:250 taken\r\n221 bye\r\n",
        ]);
        let expected = [
            "< 220 here",
            "> EHLO there",
            "> MAIL FROM:<a@b>",
            "> RCPT TO:<c@d>",
            "> DATA",
            "< 250-here",
            "< 250 SIZE",
            "< 250 ok",
            "< 250 ok",
            "< 354 go",
            "> .",
            "> QUIT",
            "< 250 taken",
            "< 221 bye",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_body_that_comes_with_its_data_is_not_told_and_commands_after_a_refused_one_are() {
        let eager = told(&["C:DATA\r\nsecret\r\n.\r\nNOOP\r\n", "S:354 go\r\n250 taken\r\n250 ok\r\n"]);
        assert_eq!(eager, ["> DATA", "> .", "> NOOP", "< 354 go", "< 250 taken", "< 250 ok"]);
        let refused = told(&["C:DATA\r\n", "S:503 no recipients\r\n", "C:NOOP\r\n"]);
        assert_eq!(refused, ["> DATA", "< 503 no recipients", "> NOOP"]);
    }

    #[test]
    fn lines_may_come_in_any_pieces() {
        let lines = told(&["C:NO", "C:OP\r", "C:\nDATA\r", "C:\nsecret\r", "C:\n.\r", "C:\nQUIT\r\n"]);
        assert_eq!(lines, ["> NOOP", "> DATA", "> .", "> QUIT"]);
    }

    #[test]
    fn chunks_are_passed_over_by_their_size() {
        let lines = told(&["C:BDAT 8\r\nQUIT\r\nab", "C:BDAT 3 LAST\r\n12", "C:3NOOP\r\n"]);
        assert_eq!(lines, ["> BDAT 8", "> BDAT 3 LAST", "> NOOP"]);
    }

    #[test]
    fn no_credential_is_told_however_it_comes() {
        let plain = told(&["C:AUTH PLAIN c2VjcmV0\r\n", "S:235 yes\r\n", "C:NOOP\r\n"]);
        assert_eq!(plain, ["> AUTH PLAIN ***", "< 235 yes", "> NOOP"]);
        let asked = told(&[
            "C:auth login\r\n",
            "S:334 VXNlcm5hbWU6\r\n",
            "C:YW5u\r\n",
            "S:334 UGFzc3dvcmQ6\r\n",
            "C:c2VjcmV0\r\n",
            "S:535 no\r\n",
            "C:NOOP\r\n",
        ]);
        assert_eq!(asked, ["> AUTH login", "< 334 ***", "> ***", "< 334 ***", "> ***", "< 535 no", "> NOOP"]);
        // All at once, before anything is asked.
        let eager = told(&["C:AUTH LOGIN\r\nYW5u\r\nc2VjcmV0\r\n", "S:334 VXNlcm5hbWU6\r\n"]);
        assert!(eager.iter().all(|line| !line.contains("YW5u") && !line.contains("c2VjcmV0")), "{eager:?}");
    }

    #[test]
    fn lines_are_cut_and_controls_are_shown_as_such() {
        let long = format!("C:NOOP {}\r\n", "x".repeat(5_000));
        assert_eq!(told(&[&long])[0].len(), LINE_BYTES_MAX + 2);
        assert_eq!(told(&["C:NOOP \u{1b}[31m\r\n"]), ["> NOOP \u{fffd}[31m"]);
    }
}
