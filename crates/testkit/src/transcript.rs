//! Runs protocol transcripts, kept as text files, against any sealed session ([`run`]) or anything else that talks
//! ([`play`] on a [`Stage`], such as a server behind sockets).
//!
//! One line is one step:
//!
//! ```text
//! # RFC 9051 §6.2.3                 head and comments: lines that begin with '#'; empty lines mean nothing
//! S: * OK *                         the next line of the server must match
//! C: a1 LOGIN u1 $word              the client sends the line and CRLF; a bound $name is replaced
//! S: a1 OK [CAPABILITY *] *
//! S? * 3 EXISTS                     like S:, but neighbouring S? lines may come in any order
//! C| raw text\r\n\x00               the client sends exactly this; escapes \r \n \t \0 \\ \xNN; no CRLF is added
//! C* 5000 x                         the client sends "x" 5000 times, no CRLF
//! 2C: a1 NOOP                       a number names the connection (without: 1); each begins at its first mention
//! advance 5m                        time goes on for every connection (ms, s, m, h); deadlines fire in order
//! silent                            nothing was said since the last S line ("2 silent" for connection 2)
//! closed                            the server closed the connection, after everything said was matched
//! end                               the client closes its sending side
//! tls                               the server asked for the handshake; it succeeds
//! change                            what the session watches changed (IMAP IDLE)
//! shutdown                          the node stops serving
//! ```
//!
//! In a pattern `*` stands for any text, but a leading `* ` is IMAP's untagged mark and matches itself. `$name` (lower
//! case letter first) stands for a word without blank, `)`, `]`, `>` or quote: the first use binds it, later uses must be
//! equal. Everything else matches itself. A literal of the server is just more lines. What the server said and
//! nobody expected is an error at the next step that is not `S`, and at the end of the file.

mod sealed;

use std::collections::{BTreeMap, BTreeSet};

pub use sealed::run;

/// A step that is not words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The client closes its sending side.
    End,
    /// What the session watches changed.
    Change,
    /// The node stops serving.
    Shutdown,
    /// The handshake the server asked for.
    Tls,
}

/// Where a transcript is played. Errors say what was wrong; the line is added by [`play`].
pub trait Stage {
    /// Whether this connection's steps are played from here on; a stage that cannot give a step cuts the connection.
    fn plays(&self, _connection: usize) -> bool {
        true
    }
    /// A connection at its first mention.
    ///
    /// # Errors
    /// It cannot be opened.
    fn open(&mut self, connection: usize) -> Result<(), String>;
    /// The client sends these bytes.
    ///
    /// # Errors
    /// The server misbehaves.
    fn send(&mut self, connection: usize, bytes: &[u8]) -> Result<(), String>;
    /// The next line of the server, without CRLF.
    ///
    /// # Errors
    /// Nothing is said.
    fn next_line(&mut self, connection: usize) -> Result<String, String>;
    /// Checks that nothing was said since.
    ///
    /// # Errors
    /// Something was.
    fn silent(&mut self, connection: usize) -> Result<(), String>;
    /// Checks that the server closed the connection.
    ///
    /// # Errors
    /// It is open, or more was said.
    fn closed(&mut self, connection: usize) -> Result<(), String>;
    /// Time goes on for all connections (ms).
    ///
    /// # Errors
    /// The server misbehaves.
    fn advance(&mut self, ms: u64) -> Result<(), String>;
    /// Something happens.
    ///
    /// # Errors
    /// The server did not expect it.
    fn event(&mut self, connection: usize, event: Event) -> Result<(), String>;
}

/// Plays the transcript `text`.
///
/// # Errors
/// Names the line, what was expected and what was said instead.
pub fn play(text: &str, stage: &mut impl Stage) -> Result<(), String> {
    let mut player = Player { stage, opened: BTreeSet::new(), bound: Bound::new() };
    let mut pending: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (connection, step) = split_connection(line);
        // Time is everybody's: `advance` is no step of one connection.
        if !step.starts_with("advance") && !player.stage.plays(connection) {
            continue;
        }
        if let Some(pattern) = step.strip_prefix("S?") {
            pending.push((connection, pattern.trim_start().to_owned()));
            continue;
        }
        player
            .expect_any_order(&mut pending)
            .and_then(|()| player.step(connection, step))
            .map_err(|fault| format!("line {}: {line}\n  {fault}", number + 1))?;
    }
    player.expect_any_order(&mut pending).map_err(|fault| format!("at the end: {fault}"))?;
    player.nothing_is_left().map_err(|fault| format!("at the end: {fault}"))
}

/// `2C: x` is connection 2 and `C: x`; `2 silent` too.
fn split_connection(line: &str) -> (usize, &str) {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    match line.get(..digits).and_then(|n| n.parse().ok()) {
        Some(connection) => (connection, line.get(digits..).unwrap_or_default().trim_start()),
        None => (1, line),
    }
}

struct Player<'a, T> {
    stage: &'a mut T,
    opened: BTreeSet<usize>,
    bound: Bound,
}

impl<T: Stage> Player<'_, T> {
    fn step(&mut self, connection: usize, step: &str) -> Result<(), String> {
        self.ensure_open(connection)?;
        if let Some(pattern) = step.strip_prefix("S:") {
            return self.expect(connection, pattern.strip_prefix(' ').unwrap_or(pattern));
        }
        if let Some(text) = step.strip_prefix("C:") {
            let text = self.replace_bound(text.strip_prefix(' ').unwrap_or(text));
            return self.stage.send(connection, format!("{text}\r\n").as_bytes());
        }
        if let Some(text) = step.strip_prefix("C|") {
            let text = self.replace_bound(text.strip_prefix(' ').unwrap_or(text));
            return self.stage.send(connection, &unescape(&text)?);
        }
        if let Some(text) = step.strip_prefix("C*") {
            let (count, text) = text.trim_start().split_once(' ').ok_or("C* needs a count and a text")?;
            let count: usize = count.parse().map_err(|_| "C* needs a count")?;
            return self.stage.send(connection, unescape(text)?.repeat(count).as_slice());
        }
        let event = match step.split_once(' ').unwrap_or((step, "")) {
            ("silent", _) => return self.stage.silent(connection),
            ("advance", time) => return self.stage.advance(parse_time(time)?),
            ("closed", _) => return self.stage.closed(connection),
            ("end", _) => Event::End,
            ("change", _) => Event::Change,
            ("shutdown", _) => Event::Shutdown,
            ("tls", _) => Event::Tls,
            _ => return Err("no such step".to_owned()),
        };
        self.stage.event(connection, event)
    }

    fn ensure_open(&mut self, connection: usize) -> Result<(), String> {
        if self.opened.insert(connection) { self.stage.open(connection) } else { Ok(()) }
    }

    fn nothing_is_left(&mut self) -> Result<(), String> {
        for connection in self.opened.clone() {
            if self.stage.plays(connection) {
                self.stage.silent(connection)?;
            }
        }
        Ok(())
    }

    fn expect(&mut self, number: usize, pattern: &str) -> Result<(), String> {
        let line = self.stage.next_line(number)?;
        match matches(pattern, &line, &self.bound) {
            Some(bound) => {
                self.bound = bound;
                Ok(())
            }
            None => Err(format!("said: {line}{}", self.bound_text())),
        }
    }

    fn expect_any_order(&mut self, pending: &mut Vec<(usize, String)>) -> Result<(), String> {
        while let Some((number, _)) = pending.first() {
            let number = *number;
            self.ensure_open(number)?;
            let line = self.stage.next_line(number).map_err(|fault| format!("{fault}; still expected: {pending:?}"))?;
            let hit = pending.iter().enumerate().find_map(|(i, (n, pattern))| {
                (*n == number).then(|| matches(pattern, &line, &self.bound)).flatten().map(|bound| (i, bound))
            });
            let (index, bound) = hit.ok_or_else(|| format!("said: {line}\n  expected one of {pending:?}"))?;
            self.bound = bound;
            pending.remove(index);
        }
        Ok(())
    }

    fn replace_bound(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            let name = name_at(after);
            match self.bound.get(name) {
                Some(value) if !name.is_empty() => out.push_str(value),
                _ => {
                    out.push('$');
                    out.push_str(name);
                }
            }
            rest = after.get(name.len()..).unwrap_or_default();
        }
        out + rest
    }

    fn bound_text(&self) -> String {
        if self.bound.is_empty() { String::new() } else { format!("\n  names: {:?}", self.bound) }
    }
}

/// The capture name at the start of `text` (after `$`); empty when it begins with anything but a lower case letter.
fn name_at(text: &str) -> &str {
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return "";
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

type Bound = BTreeMap<String, String>;

/// Whether the line matches; the names bound after it.
fn matches(pattern: &str, line: &str, bound: &Bound) -> Option<Bound> {
    match pattern.strip_prefix("* ") {
        Some(rest) => matches_rest(rest, line.strip_prefix("* ")?, bound),
        None => matches_rest(pattern, line, bound),
    }
}

fn matches_rest(pattern: &str, line: &str, bound: &Bound) -> Option<Bound> {
    let Some(first) = pattern.chars().next() else { return line.is_empty().then(|| bound.clone()) };
    let rest = pattern.get(first.len_utf8()..)?;
    if first == '*' {
        return (0..=line.len()).filter_map(|at| line.get(at..)).find_map(|tail| matches_rest(rest, tail, bound));
    }
    let name = if first == '$' { name_at(rest) } else { "" };
    if !name.is_empty() {
        let rest = rest.get(name.len()..)?;
        if let Some(value) = bound.get(name) {
            return matches_rest(rest, line.strip_prefix(value.as_str())?, bound);
        }
        let end = line.find([' ', ')', ']', '>', '"']).unwrap_or(line.len());
        let mut bound = bound.clone();
        bound.insert(name.to_owned(), line.get(..end).filter(|word| !word.is_empty())?.to_owned());
        return matches_rest(rest, line.get(end..)?, &bound);
    }
    matches_rest(rest, line.strip_prefix(first)?, bound)
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match chars.next() {
            Some('r') => out.push(b'\r'),
            Some('n') => out.push(b'\n'),
            Some('t') => out.push(b'\t'),
            Some('0') => out.push(0),
            Some('\\') => out.push(b'\\'),
            Some('x') => {
                let hex: String = chars.by_ref().take(2).collect();
                out.push(u8::from_str_radix(&hex, 16).map_err(|_| format!("bad escape \\x{hex}"))?);
            }
            other => return Err(format!("bad escape {other:?}")),
        }
    }
    Ok(out)
}

fn parse_time(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "advance needs a time like 5m")?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("no such unit of time: {unit}")),
    };
    Ok(number * factor)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bytes::Bytes;
    use vocab::Instant;
    use vocab::session::{Output, Session};

    use super::*;

    /// Says hello, asks about every line and repeats the answer; says "late" after a minute and closes on "bye".
    struct Echo {
        outputs: VecDeque<Output<String>>,
        waiting: bool,
        late_at: Option<Instant>,
    }

    impl Echo {
        fn say(&mut self, text: &str) {
            self.outputs.push_back(Output::Write(Bytes::from(format!("{text}\r\n"))));
        }
    }

    impl Session for Echo {
        type Query = String;
        type Answer = String;
        fn on_bytes(&mut self, input: &[u8], now: Instant) -> usize {
            if self.waiting {
                return 0;
            }
            self.late_at = Some(now.plus_ms(60_000));
            let Some(end) = input.iter().position(|b| *b == b'\n') else { return 0 };
            let line = String::from_utf8_lossy(&input[..end]).trim().to_owned();
            if line == "bye" {
                self.outputs.push_back(Output::Close);
            } else {
                self.waiting = true;
                self.outputs.push_back(Output::Ask(line));
            }
            end + 1
        }
        fn on_end(&mut self, _: Instant) {
            self.outputs.push_back(Output::Close);
        }
        fn on_answer(&mut self, answer: String, _: Instant) {
            self.waiting = false;
            self.say(&answer);
        }
        fn on_tls(&mut self, _: Instant) {}
        fn on_deadline(&mut self, _: Instant) {
            self.late_at = None;
            self.say("late");
        }
        fn deadline(&self) -> Option<Instant> {
            self.late_at
        }
        fn on_shutdown(&mut self, _: Instant) {
            self.outputs.push_back(Output::Close);
        }
        fn next_output(&mut self) -> Option<Output<String>> {
            self.outputs.pop_front()
        }
    }

    fn play_echo(text: &str) -> Result<(), String> {
        let open = |n, _| {
            let mut echo = Echo { outputs: VecDeque::new(), waiting: false, late_at: None };
            echo.say(&format!("* hello {n}"));
            echo
        };
        run(text, open, |n, query, _| format!("{n} {query}"))
    }

    #[test]
    fn a_good_transcript_passes() {
        let text = "# RFC 0\nS: * hello $n\nC: a\nS: $n a\nC| b\\r\\nc\\r\\n\nS? *c\nS? *b\n2S: * hello 2\n2C: $n\n2S: 2 1\n\
                    advance 30s\nsilent\nadvance 1m\nS: late\n2S: late\nC: bye\nclosed\n2 end\n2 closed\n";
        assert_eq!(play_echo(text), Ok(()));
    }

    #[test]
    fn faults_are_told_with_their_line() {
        for (text, what) in [
            ("S: * hello 2", "said: * hello 1"),
            ("S: * hello 1\nC: a\nS: b", "line 3"),
            ("S: * hello 1\nC: a", "said unexpectedly: 1 a"),
            ("S: * hello 1\nclosed", "still open"),
            ("S: * hello 1\nS: more", "nothing (more)"),
            ("S: * hello 1\nsing", "no such step"),
            ("S: * hello $n\nC: x\nS: $n y", "names: {\"n\": \"1\"}"),
        ] {
            let fault = play_echo(text).expect_err(text);
            assert!(fault.contains(what), "{text}: {fault}");
        }
    }
}
