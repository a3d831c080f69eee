//! What a node tells of itself: how much of its machine is used and the state of each function (MON-07), and what a
//! stranger needs to help. Any node answers for all: it asks the others, and one that does not answer is in the list as
//! such.

pub(crate) mod bundle;
mod commands;
mod functions;
mod load;

pub(crate) use commands::show;
pub use commands::{run, save_bundle};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use control::Control;
use futures_util::future::join_all;
use ports::Answer;
use ports::cluster::Cluster;
use ports::config::Config as _;
use ports::journal::Journal;
use ports::peers::{PeerService, Peers, Service};
use serde_json::{Value, json};
use topology::Member;
use vocab::{Boot, NodeId};

use crate::alerts::Clock;
use crate::clock::wall_ms;
use crate::logging::Logging;
use functions::{Function, Seen};
use load::{Counted, Load};

/// How often the use of the machine is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long another node has to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// The same for its part of a support bundle.
const BUNDLE_WAIT: Duration = Duration::from_secs(15);

/// An answer that took longer says nothing about a clock.
const CLOCK_ANSWER_MAX: Duration = Duration::from_secs(1);

/// What is asked of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// Its entry in the list of servers.
    Server,
    /// Its files of a support bundle.
    Files,
}

impl Question {
    const fn word(self) -> &'static [u8] {
        match self {
            Self::Server => b"server",
            Self::Files => b"files",
        }
    }
    fn of(word: &[u8]) -> Option<Self> {
        [Self::Server, Self::Files].into_iter().find(|question| question.word() == word)
    }
    const fn wait(self) -> Duration {
        match self {
            Self::Server => ANSWER_WAIT,
            Self::Files => BUNDLE_WAIT,
        }
    }
}

/// What only a node with mail has.
pub(crate) struct MailParts {
    pub(crate) cluster: Arc<dyn Cluster>,
    /// Doors by name, and whether the node file opens them.
    pub(crate) doors: Vec<(&'static str, bool)>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) logging: Logging,
    pub(crate) metrics: Arc<dyn Fn() -> String + Send + Sync>,
    pub(crate) alerts: Arc<dyn Fn() -> Value + Send + Sync>,
}

/// What every node has.
pub(crate) struct Basics {
    pub(crate) node: NodeId,
    pub(crate) boot: Boot,
    pub(crate) config: Arc<Control>,
    pub(crate) peers: Arc<dyn Peers>,
    /// Folder whose disk is told of.
    pub(crate) folder: PathBuf,
    /// The node file without anything secret, in words.
    pub(crate) node_file: String,
}

/// Tells of this node, and asks the others.
pub(crate) struct Reporter {
    basics: Basics,
    mail: OnceLock<MailParts>,
    started: Instant,
    load: Mutex<Load>,
}

impl Reporter {
    /// Begins to look at the machine; ends with the process.
    pub(crate) fn start(basics: Basics) -> Arc<Self> {
        let reporter =
            Arc::new(Self { basics, mail: OnceLock::new(), started: Instant::now(), load: Mutex::default() });
        let looking = Arc::downgrade(&reporter);
        let folder = reporter.basics.folder.clone();
        tokio::spawn(async move {
            let started = Instant::now();
            let now_ms = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let mut before = Counted::now(now_ms(), &folder);
            let mut ticks = tokio::time::interval(LOOK_EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(reporter) = looking.upgrade() else { return };
                let now = Counted::now(now_ms(), &folder);
                let load = now.since(&before);
                load.measure();
                *reporter.load.lock().unwrap_or_else(PoisonError::into_inner) = load;
                before = now;
            }
        });
        reporter
    }

    /// The node stores mail, and this is how it does that.
    pub(crate) fn stores_mail(&self, parts: MailParts) {
        // Set once, at the start of the service.
        let _ = self.mail.set(parts);
    }

    /// All servers: use of the machine and functions.
    pub(crate) async fn servers(&self) -> Value {
        let servers = self.ask_all(Question::Server).await;
        json!({ "servers": servers.into_iter().map(|(_, server)| server).collect::<Vec<_>>() })
    }

    /// Files of a support bundle by node.
    async fn files(&self) -> Vec<(u32, Value)> {
        self.ask_all(Question::Files).await
    }

    /// What each member says, in the order of their ids. One that does not answer: `reachable` false and why.
    async fn ask_all(&self, question: Question) -> Vec<(u32, Value)> {
        let state = self.basics.config.current();
        let asked = state.members.values().map(|member| async move {
            let said = match member.id == self.basics.node {
                true => Ok(self.answer(question).await),
                false => self.ask(member.id, question).await,
            };
            (member.id.0, said.unwrap_or_else(|fault| unreachable(member, &fault)))
        });
        join_all(asked).await
    }

    /// How far the clocks of the others are from this node's, of those that answer soon enough for it to say anything.
    pub(crate) async fn clocks(&self) -> Vec<Clock> {
        let servers = self.ask_all(Question::Server).await;
        let read = |(node, server): (u32, Value)| {
            let name = server["name"].as_str().unwrap_or_default().to_owned();
            Some(Clock { node, name, ahead_ms: server["clock_ahead_ms"].as_i64()? })
        };
        servers.into_iter().filter_map(read).collect()
    }

    async fn ask(&self, node: NodeId, question: Question) -> Result<Value, String> {
        let (sent, begun) = (wall_ms(), Instant::now());
        let call = self.basics.peers.call(node, Service::Report, Bytes::from_static(question.word()));
        let wait = question.wait();
        let answered = tokio::time::timeout(wait, call).await;
        let body = answered.map_err(|_| format!("no answer within {} s", wait.as_secs()))?;
        let body = body.map_err(|error| error.to_string())?;
        let mut said: Value = serde_json::from_slice(&body).map_err(|error| format!("not understood: {error}"))?;
        if let Some(ahead_ms) = clock_ahead(&said, sent, begun.elapsed()) {
            said["clock_ahead_ms"] = json!(ahead_ms);
        }
        Ok(said)
    }

    async fn answer(&self, question: Question) -> Value {
        match question {
            Question::Server => self.server(),
            Question::Files => json!(self.own_files().await),
        }
    }

    fn server(&self) -> Value {
        let state = self.basics.config.current();
        let member = state.members.get(&self.basics.node);
        let load = self.load.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (role, functions) = self.functions();
        json!({
            "node": self.basics.node.0,
            "name": member.map(|member| &member.name),
            "address": member.map(|member| &member.address),
            "role": role,
            "reachable": true,
            "version": crate::PROGRAM,
            "boot": self.basics.boot.0,
            "uptime_s": self.started.elapsed().as_secs(),
            "at_ms": wall_ms(),
            "load": load,
            "functions": functions,
        })
    }

    fn functions(&self) -> (String, Vec<Function>) {
        let Some(mail) = self.mail.get() else {
            let locked = (!self.basics.config.quorum().borrow().quorum).then_some("no quorum");
            return ("witness".to_owned(), vec![functions::settings(locked)]);
        };
        let status = mail.cluster.status();
        let serving = *mail.cluster.serving().borrow();
        let role = status.nodes.iter().find(|node| node.id == status.node).map(|node| node.role.clone());
        let seen = Seen { status: &status, serving, doors: &mail.doors, log_fault: mail.logging.fault() };
        (role.unwrap_or_default(), functions::functions(&seen))
    }

    /// What this node adds to a support bundle, by file name.
    async fn own_files(&self) -> BTreeMap<String, String> {
        let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
        let mut files = BTreeMap::from([
            ("server.json".to_owned(), pretty(&self.server())),
            ("node-file.txt".to_owned(), self.basics.node_file.clone()),
            ("cluster-state.json".to_owned(), pretty(&bundle::redacted(&self.basics.config.current()))),
        ]);
        let Some(mail) = self.mail.get() else { return files };
        let status = mail.cluster.status();
        let events = json!(mail.journal.recent(bundle::EVENTS_MAX));
        files.insert("status.json".to_owned(), pretty(&json!(status)));
        files.insert("alerts.json".to_owned(), pretty(&(mail.alerts)()));
        files.insert("events.json".to_owned(), pretty(&events));
        files.insert("metrics.txt".to_owned(), (mail.metrics)());
        if status.home == self.basics.node.0 {
            files.insert("log.jsonl".to_owned(), bundle::log_extract(&*mail.logging.logs).await);
        }
        files
    }
}

/// How far the clock that answered is ahead of this one (ms), if the answer came soon enough to say.
fn clock_ahead(said: &Value, sent_ms: u64, took: Duration) -> Option<i64> {
    let there = i64::try_from(said["at_ms"].as_u64()?).ok()?;
    let half = i64::try_from(took.as_millis() / 2).ok()?;
    (took < CLOCK_ANSWER_MAX).then(|| there - i64::try_from(sent_ms).unwrap_or(i64::MAX) - half)
}

fn unreachable(member: &Member, fault: &str) -> Value {
    json!({
        "node": member.id.0,
        "name": member.name,
        "address": member.address,
        "role": "unreachable",
        "reachable": false,
        "fault": fault,
    })
}

/// Answers the other nodes' questions.
pub(crate) struct Answers(pub(crate) Arc<Reporter>);

impl PeerService for Answers {
    fn serve(&self, _: NodeId, body: Bytes) -> Answer<'_, Result<Bytes, String>> {
        Box::pin(async move {
            let question = Question::of(&body).ok_or_else(|| "this version does not know the question".to_owned())?;
            let answer = self.0.answer(question).await;
            serde_json::to_vec(&answer).map(Bytes::from).map_err(|error| error.to_string())
        })
    }
}

/// For the API.
pub(crate) struct Reports(pub(crate) Arc<Reporter>);

impl frontend::Reports for Reports {
    fn servers(&self) -> Answer<'_, Value> {
        Box::pin(self.0.servers())
    }

    fn support_bundle(&self) -> Answer<'_, Result<Bytes, String>> {
        Box::pin(async move { bundle::pack(&self.0.files().await, wall_ms()).map_err(|error| error.to_string()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_judged_by_the_middle_of_the_question() {
        let said = json!({ "at_ms": 10_300 });
        assert_eq!(clock_ahead(&said, 10_000, Duration::from_millis(200)), Some(200));
        assert_eq!(clock_ahead(&said, 15_000, Duration::from_millis(200)), Some(-4_800));
        assert_eq!(clock_ahead(&said, 10_000, CLOCK_ANSWER_MAX), None, "too late to say");
        assert_eq!(clock_ahead(&json!({}), 10_000, Duration::ZERO), None);
    }

    #[test]
    fn questions_have_words_of_their_own() {
        assert_eq!(Question::of(Question::Files.word()), Some(Question::Files));
        assert_eq!(Question::of(b"server"), Some(Question::Server));
        assert_eq!(Question::of(b"everything"), None);
    }
}
