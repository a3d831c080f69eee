//! Bringing the log to the primary: what is here is offered, what is not there is sent, and what is there need not be here.
//! Also the other way round, as a copy, when the setting says so.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use ports::Answer;
use ports::log::{Filter, Logs, Page, SearchError};
use ports::peers::{CallError, PeerService, Peers, Service};
use prost::Message as _;
use vocab::NodeId;
use wire::log::{self as w, call, reply};

use crate::book::{Book, Kept, Numbered};
use crate::keys;

/// Records offered at once.
const OFFERED: usize = 2_000;
/// Bytes sent at once, about.
const SENT_BYTES: usize = 512 * 1024;

/// Why shipping stopped for now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShipError {
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("{0}")]
    Disk(String),
    #[error("{0}")]
    Refused(String),
}

/// Where this node's log is known: the log of the primary, and the arrival here up to which it has everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shipped {
    log: Bytes,
    arrival: u64,
}

impl Book {
    /// Another node may drop on this node's word what is here. So whatever was brought to that node before is to be offered
    /// to it again when it is the primary, and what is being brought there now is not dropped here: each of two nodes that
    /// take the other one for the primary would drop what the other one has.
    fn vouch(&self) -> Result<(), String> {
        let mut vouches = self.vouches.lock().unwrap_or_else(PoisonError::into_inner);
        *vouches += 1;
        let shipped = Shipped::read(self)?;
        if shipped.arrival == 0 {
            return Ok(());
        }
        // Before the other node drops anything.
        Shipped { arrival: 0, ..shipped }.write(self, true)
    }

    fn vouches(&self) -> u64 {
        *self.vouches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers how far the log was brought, and drops these; neither when this node has vouched since `vouches`.
    fn conclude(&self, vouches: u64, shipped: &Shipped, drop: &[Kept]) -> Result<bool, String> {
        let now = self.vouches.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != vouches {
            return Ok(false);
        }
        shipped.write(self, false)?;
        self.drop_records(drop)?;
        Ok(true)
    }
}

impl Shipped {
    fn read(book: &Book) -> Result<Self, String> {
        let bytes = book.read_meta(keys::SHIPPED)?.unwrap_or_default();
        let Some((arrival, log)) = bytes.split_first_chunk::<8>() else { return Ok(Self::default()) };
        Ok(Self { log: Bytes::copy_from_slice(log), arrival: u64::from_be_bytes(*arrival) })
    }

    fn write(&self, book: &Book, synced: bool) -> Result<(), String> {
        book.write_meta(keys::SHIPPED, &[&self.arrival.to_be_bytes()[..], &*self.log].concat(), synced)
    }
}

/// A call to another node's log.
pub(crate) async fn ask(peers: &dyn Peers, to: NodeId, kind: call::Kind) -> Result<reply::Kind, ShipError> {
    let body = w::Call { kind: Some(kind) }.encode_to_vec();
    let reply = peers.call(to, Service::Log, body.into()).await?;
    let reply = w::Reply::decode(reply).map_err(|error| ShipError::Refused(error.to_string()))?;
    match reply.kind {
        Some(reply::Kind::Refused(why)) => Err(ShipError::Refused(why)),
        Some(kind) => Ok(kind),
        None => Err(ShipError::Refused("an answer of a newer program".to_owned())),
    }
}

fn numbered_to(record: &Kept) -> w::Numbered {
    let Numbered { node, number, id, bytes } = record.numbered();
    w::Numbered { node: node.0, number, id, bytes }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, ShipError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ShipError::Disk("the log's thread ended badly".to_owned()))?.map_err(ShipError::Disk)
}

/// Offers these to a node and sends what it lacks; the name of its log. `keeps`: they stay here whatever it says.
async fn bring(peers: &dyn Peers, to: NodeId, records: &[Kept], keeps: bool) -> Result<Bytes, ShipError> {
    let ids = records.iter().map(Kept::name).collect();
    let reply::Kind::Wanted(wanted) = ask(peers, to, call::Kind::Offer(w::Offer { ids, keeps })).await? else {
        return Err(ShipError::Refused("an answer to something else".to_owned()));
    };
    let lacking = wanted.indexes.iter().filter_map(|index| records.get(usize::try_from(*index).ok()?));
    let (mut part, mut bytes) = (Vec::new(), 0);
    let mut parts = Vec::new();
    for record in lacking {
        bytes += record.bytes.len() + record.id.len() + 32;
        part.push(numbered_to(record));
        if bytes > SENT_BYTES {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
    }
    parts.push(part);
    for records in parts.into_iter().filter(|part| !part.is_empty()) {
        let count = records.len() as u64;
        let reply::Kind::Kept(kept) = ask(peers, to, call::Kind::Ship(w::Ship { records })).await? else {
            return Err(ShipError::Refused("an answer to something else".to_owned()));
        };
        // Between offer and answer another log took its place: all of it is offered again.
        if kept.log != wanted.log {
            return Err(ShipError::Refused("the log there was founded anew".to_owned()));
        }
        metrics::counter!("twinpost_log_shipped_total").increment(count);
    }
    Ok(wanted.log)
}

/// Brings what the primary does not have yet, one part; true when there is more. What it has goes from here unless `copy`.
///
/// # Errors
/// Later again; nothing is lost.
pub(crate) async fn ship(book: &Arc<Book>, peers: &dyn Peers, primary: NodeId, copy: bool) -> Result<bool, ShipError> {
    let reader = Arc::clone(book);
    let (vouches, shipped, records) = blocking(move || {
        let vouches = reader.vouches();
        let shipped = Shipped::read(&reader)?;
        let records = reader.from_arrival(shipped.arrival, OFFERED)?;
        Ok((vouches, shipped, records))
    })
    .await?;
    let Some(last) = records.last().map(|record| record.arrival) else {
        // Nothing is offered, but the log there may be another one than was brought everything.
        let log = bring(peers, primary, &[], true).await?;
        if log == shipped.log {
            return Ok(false);
        }
        let writer = Arc::clone(book);
        blocking(move || writer.conclude(vouches, &Shipped { log, arrival: 0 }, &[])).await?;
        return Ok(book.has_from(0));
    };
    let log = bring(peers, primary, &records, copy).await?;
    let writer = Arc::clone(book);
    let same = log == shipped.log;
    // Of a log that has not been brought anything yet only this part is known to have arrived, from the beginning on.
    let shipped = Shipped { log, arrival: if same { last + 1 } else { 0 } };
    blocking(move || writer.conclude(vouches, &shipped, if same && !copy { &records } else { &[] })).await
}

/// Name of the cursor of a copy.
fn copy_cursor(to: NodeId) -> String {
    format!("copy/{}", to.0)
}

/// Brings a secondary what came since the copy was switched on, one part; true when there is more.
///
/// # Errors
/// Later again.
pub(crate) async fn copy(book: &Arc<Book>, peers: &dyn Peers, to: NodeId) -> Result<bool, ShipError> {
    let reader = Arc::clone(book);
    let (from, records) = blocking(move || reader.waiting_for(&copy_cursor(to), OFFERED)).await?;
    let Some(last) = records.last().map(|record| record.arrival) else { return Ok(false) };
    bring(peers, to, &records, true).await?;
    let writer = Arc::clone(book);
    blocking(move || writer.set_cursor(&copy_cursor(to), Some((last + 1).max(from)))).await?;
    Ok(true)
}

/// The copy is switched off: should it be switched on again, it begins with what is made then.
pub(crate) fn forget_copies(book: &Book, members: &[NodeId]) -> Result<(), String> {
    members.iter().try_for_each(|node| match book.cursor(&copy_cursor(*node))? {
        Some(_) => book.set_cursor(&copy_cursor(*node), None),
        None => Ok(()),
    })
}

/// Answers other nodes.
pub struct LogService {
    pub(crate) book: Arc<Book>,
}

impl LogService {
    async fn answer(&self, call: w::Call) -> Result<reply::Kind, String> {
        let book = Arc::clone(&self.book);
        let work = move || match call.kind {
            Some(call::Kind::Offer(offer)) => {
                if !offer.keeps && !offer.ids.is_empty() {
                    book.vouch()?;
                }
                let indexes = book.lacking(&offer.ids)?;
                Ok(reply::Kind::Wanted(w::Wanted { log: book.name(), indexes }))
            }
            Some(call::Kind::Ship(ship)) => {
                let record =
                    |r: w::Numbered| Numbered { node: NodeId(r.node), number: r.number, id: r.id, bytes: r.bytes };
                let records: Vec<Numbered> = ship.records.into_iter().map(record).collect();
                book.keep(&records)?;
                Ok(reply::Kind::Kept(w::Kept { log: book.name() }))
            }
            Some(call::Kind::Search(question)) => {
                let filter: Filter = serde_json::from_slice(&question).map_err(|error| error.to_string())?;
                let found = book.search(filter).map_err(|error| error.to_string())?;
                serde_json::to_vec(&found).map(|bytes| reply::Kind::Found(bytes.into())).map_err(|e| e.to_string())
            }
            None => Err("a question of a newer program".to_owned()),
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| "the log's thread ended badly".to_owned())?
    }
}

impl PeerService for LogService {
    fn serve(&self, _: NodeId, body: Bytes) -> Answer<'_, Result<Bytes, String>> {
        Box::pin(async move {
            let call = w::Call::decode(body).map_err(|error| error.to_string())?;
            let kind = self.answer(call).await.unwrap_or_else(reply::Kind::Refused);
            Ok(w::Reply { kind: Some(kind) }.encode_to_vec().into())
        })
    }
}

/// Asks the primary, and this node's own log when the primary does not answer.
pub struct PrimaryLogs {
    /// This node's own; or why it cannot be read now.
    pub book: Arc<dyn Fn() -> Result<Arc<Book>, String> + Send + Sync>,
    /// This node.
    pub node: NodeId,
    /// Other nodes.
    pub peers: Arc<dyn Peers>,
    /// Who is primary, as known here now.
    pub primary: Arc<dyn Fn() -> Option<NodeId> + Send + Sync>,
}

impl PrimaryLogs {
    async fn own(&self, filter: Filter, warning: Option<String>) -> Result<Page, SearchError> {
        let (book, node) = ((self.book)().map_err(SearchError::Unavailable)?, self.node.0);
        let found = tokio::task::spawn_blocking(move || book.search(filter)).await;
        let page = found.map_err(|_| SearchError::Unavailable("the log's thread ended badly".to_owned()))??;
        Ok(Page { node, warning, ..page })
    }
}

impl Logs for PrimaryLogs {
    fn search(&self, filter: Filter) -> Answer<'_, Result<Page, SearchError>> {
        Box::pin(async move {
            // A wrong question is told so here, whoever is primary.
            crate::view::Question::new(filter.clone())?;
            let primary = (self.primary)();
            let Some(primary) = primary.filter(|primary| *primary != self.node) else {
                let warning = primary.is_none().then(|| "no primary is known: this is this node's own log".to_owned());
                return self.own(filter, warning).await;
            };
            let question = serde_json::to_vec(&filter).map_err(|error| SearchError::Bad(error.to_string()))?;
            match ask(&*self.peers, primary, call::Kind::Search(question.into())).await {
                Ok(reply::Kind::Found(page)) => {
                    let page: Page =
                        serde_json::from_slice(&page).map_err(|error| SearchError::Unavailable(error.to_string()))?;
                    Ok(Page { node: primary.0, ..page })
                }
                Ok(_) => Err(SearchError::Unavailable("the primary answered something else".to_owned())),
                Err(error) => {
                    let why = format!(
                        "the primary (node {}) does not answer: {error}; this is this node's own log",
                        primary.0
                    );
                    self.own(filter, Some(why)).await
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use testkit::calls::answered_by;

    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn served(book: &Arc<Book>, from: NodeId, body: Bytes) -> Answer<'static, Result<Bytes, CallError>> {
        let service = LogService { book: Arc::clone(book) };
        Box::pin(async move { service.serve(from, body).await.map_err(CallError::Refused) })
    }

    /// A's way to B's log; while the answer to call number `at` is on its way, B brings its own log to A.
    fn crossing([a, b]: [Arc<Book>; 2], at: u32) -> impl Peers {
        let calls = AtomicU32::new(0);
        answered_by(move |_, _, body| {
            let (a, b) = (Arc::clone(&a), Arc::clone(&b));
            let crosses = calls.fetch_add(1, Ordering::SeqCst) == at;
            Box::pin(async move {
                let answer = served(&b, A, body).await;
                if crosses {
                    bring_all(&b, &answered_by(move |_, _, body| served(&a, B, body)), A).await;
                }
                answer
            })
        })
    }

    async fn bring_all(book: &Arc<Book>, peers: &dyn Peers, to: NodeId) {
        // The first part only learns the name of the other log.
        for _ in 0..3 {
            ship(book, peers, to, false).await.expect("brought");
        }
    }

    #[tokio::test]
    async fn ha_04_two_nodes_that_take_each_other_for_the_primary_drop_nothing_that_only_one_has() {
        for at in 0..4 {
            let folder = tempfile::tempdir().expect("a folder");
            let open =
                |node: NodeId| Arc::new(Book::open(&folder.path().join(node.0.to_string()), node).expect("a log"));
            let books = [open(A), open(B)];
            // One id for both: a commit that both wrote.
            let record = (Bytes::from_static(b"one commit"), vocab::log::Record::default().to_bytes());
            for book in &books {
                book.keep_own(vec![record.clone()]).expect("kept");
            }
            bring_all(&books[0], &crossing(books.clone(), at), B).await;
            let count = |book: &Arc<Book>| book.counts().iter().sum::<u64>();
            assert!(count(&books[0]) + count(&books[1]) > 0, "crossing at call {at}: nobody has it");
        }
    }
}
