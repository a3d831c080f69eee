//! Slow links: packets that come to a machine, or leave it for another node, wait in a queue of this process (NFQUEUE).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::net::Net;

/// Number of the queue; each namespace has its own.
const QUEUE: u16 = 7;
/// How exactly packets are let go.
const STEP: Duration = Duration::from_millis(1);

/// Which packets wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All that come.
    Coming,
    /// Those that come from another node, on whatever path.
    FromNodes,
    /// Those that leave for another node: they are lost with the machine. The kernel lets a connection have but two or so of them
    /// waiting on its own machine (TCP small queues), so little goes through.
    ToNodes,
}

impl Which {
    const fn rules(self) -> &'static [&'static str] {
        match self {
            Self::Coming => &["INPUT ! -i lo"],
            Self::FromNodes => &["INPUT -p tcp --dport 6420", "INPUT -p tcp --sport 6420"],
            Self::ToNodes => &["OUTPUT -p tcp --dport 6420", "OUTPUT -p tcp --sport 6420"],
        }
    }
}

/// A slow machine; as it was when dropped.
pub struct Delay {
    net: Arc<Net>,
    host: String,
    which: Which,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

const fn tables(ipv6: bool) -> &'static str {
    if ipv6 { "ip6tables-legacy" } else { "iptables-legacy" }
}

impl Delay {
    /// These packets of `host` come `by` later.
    ///
    /// # Errors
    /// The kernel has no NFQUEUE or `iptables-legacy` is missing.
    pub fn begin(net: &Arc<Net>, host: &str, which: Which, by: Duration) -> anyhow::Result<Self> {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (inside, name, stopped) = (Arc::clone(net), host.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let opened = inside.enter(&name).and_then(|()| {
                let mut queue = nfq::Queue::open().context("NFQUEUE")?;
                queue.bind(QUEUE).context("NFQUEUE")?;
                queue.set_nonblocking(true);
                Ok(queue)
            });
            match opened {
                Ok(queue) => {
                    let _ = ready.send(Ok(()));
                    pass(queue, by, &stopped);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
        is_ready.recv().context("the queue's thread ended")??;
        let delay = Self { net: Arc::clone(net), host: host.to_owned(), which, stop, thread: Some(thread) };
        for ipv6 in [false, true] {
            delay.rule("-A", ipv6)?;
        }
        Ok(delay)
    }

    fn rule(&self, what: &str, ipv6: bool) -> anyhow::Result<()> {
        for rule in self.which.rules() {
            let queue = format!("-j NFQUEUE --queue-num {QUEUE} --queue-bypass");
            self.net.inside(&self.host, &format!("{} {what} {rule} {queue}", tables(ipv6)))?;
        }
        Ok(())
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        for ipv6 in [false, true] {
            let _ = self.rule("-D", ipv6);
        }
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Lets each packet go when its time has come; after the end all that wait.
fn pass(mut queue: nfq::Queue, by: Duration, stop: &AtomicBool) {
    let mut waiting: VecDeque<(Instant, nfq::Message)> = VecDeque::new();
    loop {
        let ending = stop.load(Ordering::Relaxed);
        while let Ok(message) = queue.recv() {
            waiting.push_back((Instant::now() + by, message));
        }
        while waiting.front().is_some_and(|(due, _)| ending || Instant::now() >= *due) {
            if let Some((_, mut message)) = waiting.pop_front() {
                message.set_verdict(nfq::Verdict::Accept);
                let _ = queue.verdict(message);
            }
        }
        if ending {
            // Else the next one is refused for as long as anybody has a copy of the socket.
            let _ = queue.unbind(QUEUE);
            return;
        }
        std::thread::sleep(STEP);
    }
}
