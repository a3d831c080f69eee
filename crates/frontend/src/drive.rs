//! The one loop that runs every protocol session: bytes in, orders out in order, deadlines, wake-ups, goodbye.
//!
//! While a question is outstanding the driver goes on reading up to [`INPUT_BYTES_MAX`], so that a dead peer is noticed
//! and pipelined input waits in user space, but a question is always answered to its end: a commit is never abandoned
//! because its client went away.

use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};
use mailbox::op::Change;
use ports::Answer;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use vocab::session::{Output, Session};

use crate::clock;
use crate::listener::{Connection, Place, handshake_failed};
use crate::transport::Transport;

/// Input buffered before a session must have consumed some; above every session's own line limit.
pub const INPUT_BYTES_MAX: usize = 160 * 1024;
/// Small outputs are joined up to this size before they are written.
const WRITE_JOIN_BYTES: usize = 16 * 1024;
/// A peer that takes longer than this to read [`WRITE_JOIN_BYTES`] is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// After the goodbye of a stopping node a session has this long to reach its end.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// Buffers above this size are given back when they run empty.
const KEEP_BYTES: usize = 512;

/// Answers the questions of one session from the ports. Dropped with the connection.
pub trait Answerer<S: Session>: Send {
    /// The answer. Boxed, so that an idle connection does not hold room for the largest question.
    fn answer(&mut self, query: S::Query) -> Answer<'_, S::Answer>;
    /// What to listen to, once somebody has logged in (`ports::Accounts::watch`); `None` = nothing.
    fn watched(&mut self) -> Option<&mut broadcast::Receiver<Change>> {
        None
    }
    /// Whether this change is worth waking the session ([`Session::on_change`]). A lag always is.
    fn concerns(&self, change: &Change) -> bool {
        let _ = change;
        true
    }
}

/// What ended the waiting.
enum Event {
    Read(io::Result<usize>),
    Changed,
    Deadline,
    Stop,
}

struct Driver {
    transport: Transport,
    /// Input; what is before `used` is consumed.
    input: Vec<u8>,
    used: usize,
    output: Vec<u8>,
    /// The peer ended its side.
    ended: bool,
    /// The connection broke while a question was outstanding.
    broken: Option<io::Error>,
    /// The session said [`Output::Close`].
    closing: bool,
}

/// Runs a session to its end and closes the connection.
pub async fn drive<S: Session, A: Answerer<S>>(mut session: S, mut answerer: A, mut connection: Connection) {
    let transport = std::mem::replace(&mut connection.transport, Transport::Closed);
    let mut driver = Driver {
        transport,
        input: Vec::new(),
        used: 0,
        output: Vec::new(),
        ended: false,
        broken: None,
        closing: false,
    };
    if let Err(error) = driver.run(&mut session, &mut answerer, &mut connection).await {
        tracing::debug!(peer = %connection.peer.address, %error, "connection broken");
        return;
    }
    drop((session, answerer));
    driver.transport.close().await;
}

impl Driver {
    async fn run<S: Session, A: Answerer<S>>(
        &mut self,
        session: &mut S,
        answerer: &mut A,
        connection: &mut Connection,
    ) -> io::Result<()> {
        let mut stopping: Option<tokio::time::Instant> = None;
        let mut told_end = false;
        loop {
            loop {
                let used = self.offer(session);
                let asked = self.drain(session, answerer, connection).await?;
                if self.closing {
                    return self.flush().await;
                }
                if used == 0 && !asked {
                    break;
                }
            }
            self.flush().await?;
            if self.ended && told_end {
                return Ok(());
            }
            if self.ended {
                told_end = true;
                session.on_end(clock::now());
                continue;
            }
            if self.input.len() - self.used >= INPUT_BYTES_MAX {
                return Err(io::Error::other("session does not consume its input"));
            }
            self.give_back();
            match self.wait(session.deadline(), answerer, connection, stopping).await {
                Event::Read(read) => self.ended = read? == 0,
                Event::Changed => session.on_change(clock::now()),
                Event::Stop if stopping.is_some() => return Ok(()),
                Event::Stop => {
                    stopping = Some(tokio::time::Instant::now() + STOP_GRACE);
                    session.on_shutdown(clock::now());
                }
                Event::Deadline => session.on_deadline(clock::now()),
            }
        }
    }

    fn offer<S: Session>(&mut self, session: &mut S) -> usize {
        let rest = self.input.get(self.used..).unwrap_or_default();
        if rest.is_empty() {
            return 0;
        }
        let used = session.on_bytes(rest, clock::now()).min(rest.len());
        self.used += used;
        if self.used == self.input.len() {
            self.forget_input();
        }
        used
    }

    fn forget_input(&mut self) {
        self.input.clear();
        self.used = 0;
    }

    /// Obeys orders until there are none; true = buffered input is worth offering again.
    async fn drain<S: Session, A: Answerer<S>>(
        &mut self,
        session: &mut S,
        answerer: &mut A,
        connection: &Connection,
    ) -> io::Result<bool> {
        let mut asked = false;
        while let Some(order) = session.next_output() {
            match order {
                Output::Write(bytes) => self.write(&bytes).await?,
                Output::Ask(query) => {
                    let answer = self.ask::<S, A>(answerer, query).await;
                    if let Some(error) = self.broken.take() {
                        return Err(error);
                    }
                    asked = true;
                    session.on_answer(answer, clock::now());
                }
                Output::StartTls => {
                    self.flush().await?;
                    // Plaintext that came with the command was not said under TLS and must not be heard (RFC 3207 §4.2).
                    self.forget_input();
                    let Some(tls) = &connection.tls else { return Err(io::Error::other("no TLS here")) };
                    if let Err(error) = self.transport.start_tls(tls.current()).await {
                        let service = connection.place.as_ref().map_or("unknown", Place::service);
                        handshake_failed(service, connection.peer.address, &error);
                        return Err(error);
                    }
                    session.on_tls(clock::now());
                }
                Output::Close => {
                    self.closing = true;
                    return Ok(false);
                }
            }
        }
        Ok(asked)
    }

    async fn ask<S: Session, A: Answerer<S>>(&mut self, answerer: &mut A, query: S::Query) -> S::Answer {
        let mut answer = answerer.answer(query);
        // Answers that are at hand need no flush: replies to pipelined commands leave together.
        if let Poll::Ready(ready) = futures_util::poll!(answer.as_mut()) {
            return ready;
        }
        let flushed = match select(pin!(self.flush()), answer.as_mut()).await {
            Either::Left((flushed, _)) => Ok(flushed),
            Either::Right((ready, flushing)) => Err((ready, flushing.await)),
        };
        match flushed {
            Ok(flushed) => self.broken = flushed.err(),
            Err((ready, flushed)) => {
                self.broken = flushed.err();
                return ready;
            }
        }
        loop {
            let listen = self.broken.is_none() && !self.ended && self.input.len() - self.used < INPUT_BYTES_MAX;
            tokio::select! {
                biased;
                ready = &mut answer => return ready,
                read = self.transport.read_into(&mut self.input), if listen => match read {
                    Ok(read) => self.ended = read == 0,
                    Err(error) => self.broken = Some(error),
                },
            }
        }
    }

    async fn wait<S: Session, A: Answerer<S>>(
        &mut self,
        deadline: Option<vocab::Instant>,
        answerer: &mut A,
        connection: &mut Connection,
        stopping: Option<tokio::time::Instant>,
    ) -> Event {
        let stop = async {
            match stopping {
                Some(at) => tokio::time::sleep_until(at).await,
                None => connection.open.closed().await,
            }
        };
        let due = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(clock::to_tokio(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop => Event::Stop,
            read = self.transport.read_into(&mut self.input) => Event::Read(read),
            () = due => Event::Deadline,
            () = next_change::<S, A>(answerer) => Event::Changed,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.output.len() + bytes.len() > WRITE_JOIN_BYTES {
            self.flush_joined().await?;
        }
        if bytes.len() < WRITE_JOIN_BYTES {
            self.output.extend_from_slice(bytes);
            return Ok(());
        }
        for chunk in bytes.chunks(WRITE_JOIN_BYTES) {
            timed(self.transport.write_all(chunk)).await?;
        }
        Ok(())
    }

    async fn flush_joined(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            timed(self.transport.write_all(&self.output)).await?;
            self.output.clear();
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.flush_joined().await?;
        timed(self.transport.flush()).await
    }

    /// An idle connection holds no large buffers.
    fn give_back(&mut self) {
        if self.used > 0 {
            self.input.drain(..self.used);
            self.used = 0;
        }
        if self.input.len() < KEEP_BYTES && self.input.capacity() > KEEP_BYTES {
            self.input.shrink_to(KEEP_BYTES);
        }
        if self.output.capacity() > KEEP_BYTES {
            self.output = Vec::new();
        }
    }
}

/// A slow reader is dropped instead of holding memory for ever.
pub(crate) async fn timed(write: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::time::timeout(WRITE_TIMEOUT, write).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn next_change<S: Session, A: Answerer<S>>(answerer: &mut A) {
    loop {
        let Some(watched) = answerer.watched() else { return std::future::pending().await };
        match watched.recv().await {
            Ok(change) if !answerer.concerns(&change) => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}
