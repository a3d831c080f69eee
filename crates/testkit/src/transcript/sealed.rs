//! Sealed sessions as a stage: virtual time, questions answered by a closure.

use std::collections::BTreeMap;

use vocab::Instant;
use vocab::session::{Output, Session};

use super::{Event, Stage, play};

/// Most steps a session may take without consuming bytes; more is a session that spins.
const OUTPUTS_MAX: usize = 1_000_000;

struct Connection<S> {
    session: S,
    unread: Vec<u8>,
    said: Vec<u8>,
    closed: bool,
    tls_wanted: bool,
}

/// Runs the transcript `text`. `open(n, now)` makes connection `n`; `answer(n, query, now)` answers its questions.
///
/// # Errors
/// Names the line, what was expected and what was said instead.
pub fn run<S: Session>(
    text: &str,
    open: impl FnMut(usize, Instant) -> S,
    answer: impl FnMut(usize, S::Query, Instant) -> S::Answer,
) -> Result<(), String> {
    play(text, &mut Sealed { open, answer, connections: BTreeMap::new(), now: Instant(1_000_000) })
}

struct Sealed<S, O, A> {
    open: O,
    answer: A,
    connections: BTreeMap<usize, Connection<S>>,
    now: Instant,
}

impl<S, O, A> Sealed<S, O, A>
where
    S: Session,
    O: FnMut(usize, Instant) -> S,
    A: FnMut(usize, S::Query, Instant) -> S::Answer,
{
    fn connection(&mut self, connection: usize) -> Result<&mut Connection<S>, String> {
        self.connections.get_mut(&connection).ok_or_else(|| format!("no connection {connection}"))
    }

    /// Drains outputs, answers questions and offers unread bytes until the session has nothing more to do.
    fn drain(&mut self, number: usize) -> Result<(), String> {
        let now = self.now;
        for _ in 0..OUTPUTS_MAX {
            let c = self.connections.get_mut(&number).ok_or("no such connection")?;
            match c.session.next_output() {
                Some(Output::Write(bytes)) if !c.closed => c.said.extend_from_slice(&bytes),
                Some(Output::Write(_)) => return Err("the session wrote after it closed".to_owned()),
                Some(Output::Ask(query)) => {
                    let answer = (self.answer)(number, query, now);
                    self.connection(number)?.session.on_answer(answer, now);
                }
                Some(Output::StartTls) => {
                    c.tls_wanted = true;
                    c.unread.clear();
                }
                Some(Output::Close) => c.closed = true,
                None if c.closed || c.tls_wanted || c.unread.is_empty() => return Ok(()),
                None => {
                    let used = c.session.on_bytes(&c.unread, now);
                    if used == 0 {
                        // An event without bytes used may still have made output (a refusal); look once more.
                        match c.session.next_output() {
                            Some(Output::Write(bytes)) => c.said.extend_from_slice(&bytes),
                            Some(Output::Close) => c.closed = true,
                            Some(Output::StartTls) => c.tls_wanted = true,
                            Some(Output::Ask(query)) => {
                                let answer = (self.answer)(number, query, now);
                                self.connection(number)?.session.on_answer(answer, now);
                            }
                            None => return Ok(()),
                        }
                        continue;
                    }
                    c.unread.drain(..used.min(c.unread.len()));
                }
            }
        }
        Err("the session does not come to rest".to_owned())
    }

    fn expect_tls(&mut self, number: usize) -> Result<(), String> {
        let now = self.now;
        let c = self.connection(number)?;
        if !c.tls_wanted {
            return Err("no handshake was asked for".to_owned());
        }
        c.tls_wanted = false;
        c.session.on_tls(now);
        self.drain(number)
    }
}

impl<S, O, A> Stage for Sealed<S, O, A>
where
    S: Session,
    O: FnMut(usize, Instant) -> S,
    A: FnMut(usize, S::Query, Instant) -> S::Answer,
{
    fn open(&mut self, number: usize) -> Result<(), String> {
        let session = (self.open)(number, self.now);
        let fresh = Connection { session, unread: Vec::new(), said: Vec::new(), closed: false, tls_wanted: false };
        self.connections.insert(number, fresh);
        self.drain(number)
    }

    fn send(&mut self, number: usize, bytes: &[u8]) -> Result<(), String> {
        self.connection(number)?.unread.extend_from_slice(bytes);
        self.drain(number)
    }

    fn next_line(&mut self, number: usize) -> Result<String, String> {
        let c = self.connection(number)?;
        let end = c.said.windows(2).position(|w| w == b"\r\n").ok_or_else(|| {
            format!("nothing (more) was said{}", if c.closed { ", the connection is closed" } else { "" })
        })?;
        let line: Vec<u8> = c.said.drain(..end + 2).take(end).collect();
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn silent(&mut self, number: usize) -> Result<(), String> {
        let Ok(c) = self.connection(number) else { return Ok(()) };
        if c.said.is_empty() {
            return Ok(());
        }
        Err(format!("connection {number} said unexpectedly: {}", String::from_utf8_lossy(&c.said)))
    }

    fn closed(&mut self, number: usize) -> Result<(), String> {
        self.silent(number)?;
        if self.connection(number)?.closed { Ok(()) } else { Err("the connection is still open".to_owned()) }
    }

    fn advance(&mut self, ms: u64) -> Result<(), String> {
        let until = self.now.plus_ms(ms);
        loop {
            let due = |c: &Connection<S>| c.session.deadline().filter(|_| !c.closed);
            let next = self.connections.iter().filter_map(|(n, c)| Some((due(c)?, *n))).min();
            match next {
                Some((at, number)) if at <= until => {
                    self.now = self.now.max(at);
                    let now = self.now;
                    self.connection(number)?.session.on_deadline(now);
                    self.drain(number)?;
                    if due(self.connection(number)?).is_some_and(|again| again <= at) {
                        return Err("the session's deadline does not move".to_owned());
                    }
                }
                _ => break,
            }
        }
        self.now = until;
        Ok(())
    }

    fn event(&mut self, number: usize, event: Event) -> Result<(), String> {
        self.silent(number)?;
        let now = self.now;
        let session = &mut self.connection(number)?.session;
        match event {
            Event::End => session.on_end(now),
            Event::Change => session.on_change(now),
            Event::Shutdown => session.on_shutdown(now),
            Event::Tls => return self.expect_tls(number),
        }
        self.drain(number)
    }
}
