//! Several paths to one node (a private link, the client network): the first address is used while it works, and the link
//! moves to another one before its silence counts for anything (DESIGN 6).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use vocab::NodeId;

use crate::dial::{DIAL_WAIT, dial};
use crate::peer_table::PeerTable;
use crate::probe::{Probe, probe_reset};

/// The next path is tried beside one that has not answered for so long.
const STAGGER: Duration = Duration::from_millis(150);
/// A path that has not answered for so long is tried once more beside the try under way: a packet lost on a cut that is
/// mended meanwhile is sent again by the kernel only after a second, and a takeover does not wait that long.
const AGAIN: Duration = Duration::from_millis(300);
/// A link that brought nothing for so long looks for another path: heartbeats come every 100 ms.
const SILENT_AFTER: Duration = Duration::from_millis(400);
/// How often the silence is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A link that stands on another path than the first looks so often whether that works again.
const RETURN_AFTER: Duration = Duration::from_secs(5);

/// When a link last brought something.
#[derive(Clone)]
pub(crate) struct Heard {
    begun: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Heard {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), last_ms: Arc::default() }
    }
    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
    pub(crate) fn now(&self) {
        self.last_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }
    fn is_silent(&self) -> bool {
        let silent = self.elapsed_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed));
        u128::from(silent) >= SILENT_AFTER.as_millis()
    }
}

/// A connected channel on whichever path answers, the one used last and then the others in order; the path is remembered.
///
/// # Errors
/// Why there is none, for people.
pub(crate) async fn dial_any(table: &PeerTable, to: NodeId) -> Result<Channel, String> {
    let slot = table.slot(to);
    let addresses = table.addresses(to);
    if addresses.is_empty() {
        return Err(format!("node {} is no member", to.0));
    }
    let first = slot.path();
    let mut order: Vec<usize> = (0..addresses.len()).collect();
    order.sort_by_key(|path| (*path != first, *path));
    let (channel, path) = dial_in_order(table, to, &addresses, &order).await?;
    slot.set_path(path);
    Ok(channel)
}

/// The next dial begins with the path after the present one.
pub(crate) fn next_path(table: &PeerTable, to: NodeId) {
    let (slot, count) = (table.slot(to), table.addresses(to).len().max(1));
    slot.set_path((slot.path() + 1) % count);
}

/// Dials these paths; the first that stands counts.
async fn dial_in_order(
    table: &PeerTable,
    to: NodeId,
    addresses: &[String],
    order: &[usize],
) -> Result<(Channel, usize), String> {
    let watched = addresses.len() > 1;
    let tls = table.tls();
    let tls = &tls.pems;
    first_of(order, |path| async move {
        let address = addresses.get(path).map(String::as_str).unwrap_or_default();
        dial(tls, to, address, watched).await.map(|channel| (channel, path)).map_err(|fault| fault.reason)
    })
    .await
}

/// Tries these in order, each once the one before has failed or not answered for [`STAGGER`], and those that do not answer
/// again every [`AGAIN`]; the first that succeeds counts.
async fn first_of<T, F>(order: &[usize], attempt: impl Fn(usize) -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let one = |path| {
        let tried = attempt(path);
        async move { (path, tried.await) }
    };
    let begun = Instant::now();
    let mut rest: VecDeque<usize> = order.iter().copied().collect();
    let mut tries: FuturesUnordered<_> = rest.pop_front().map(one).into_iter().collect();
    let mut failed: BTreeMap<usize, String> = BTreeMap::new();
    loop {
        let pause = if rest.is_empty() { AGAIN } else { STAGGER };
        match tokio::time::timeout(pause, tries.next()).await {
            Ok(Some((_, Ok(found)))) => return Ok(found),
            Ok(Some((path, Err(reason)))) => drop(failed.insert(path, reason)),
            Ok(None) => return Err(failed.into_values().collect::<Vec<_>>().join("; ")),
            Err(_) if rest.is_empty() && begun.elapsed() < DIAL_WAIT => {
                rest.extend(order.iter().filter(|path| !failed.contains_key(*path)));
            }
            Err(_) => {}
        }
        tries.extend(rest.pop_front().map(one));
    }
}

/// Watches a link that this node dialled and ends it when another connection is better: on any other path, when it is
/// silent; on the first, when it stands on another and the first works again; a fresh one, when a CA was dropped since it
/// was dialled (`dropped`: how many had been). The channel and its path are the result. A peer that is only paused answers
/// on no path, so its link stays.
pub(crate) async fn better_path(
    table: &PeerTable,
    (to, dropped): (NodeId, u64),
    heard: &Heard,
    close: &CancellationToken,
) -> Option<(Channel, usize)> {
    let slot = table.slot(to);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut tried_first = Instant::now();
    loop {
        tokio::select! {
            () = close.cancelled() => return None,
            _ = look.tick() => {}
        }
        let (addresses, now) = (table.addresses(to), slot.path());
        if table.tls().dropped != dropped {
            let dialled = tokio::select! {
                () = close.cancelled() => return None,
                dialled = dial_any(table, to) => dialled,
            };
            if let Ok(channel) = dialled {
                tracing::info!(
                    node = to.0,
                    "the link moves to a new connection: a CA it may rest on is trusted no more"
                );
                return Some((channel, slot.path()));
            }
        }
        let silent = heard.is_silent();
        let back = now > 0 && tried_first.elapsed() >= RETURN_AFTER;
        if addresses.len() < 2 || !(silent || back) {
            continue;
        }
        let others: Vec<usize> =
            if silent { (0..addresses.len()).filter(|path| *path != now).collect() } else { vec![0] };
        let dialled = tokio::select! {
            () = close.cancelled() => return None,
            dialled = dial_in_order(table, to, &addresses, &others) => dialled,
        };
        tried_first = Instant::now();
        if let Ok((channel, path)) = dialled
            && (path < now || heard.is_silent())
        {
            let why = if silent { "is silent" } else { "is not the first" };
            tracing::warn!(node = to.0, from = %named(&addresses, now), to = %named(&addresses, path), "the link moves to another path: the present one {why}");
            return Some((channel, path));
        }
    }
}

fn named(addresses: &[String], path: usize) -> String {
    addresses.get(path).cloned().unwrap_or_else(|| format!("path {path}"))
}

/// Whether the kernel behind each of these addresses answers with a reset, and there is one: evidence for "process gone"
/// counts only on every path.
pub async fn refuses_on_every_path(addresses: &[String]) -> bool {
    let probes = futures_util::future::join_all(addresses.iter().map(|address| probe_reset(address))).await;
    !probes.is_empty() && probes.iter().all(|probe| *probe == Probe::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths 1 and up answer or fail at once, 0 never does.
    async fn tried(order: &[usize]) -> (Result<usize, String>, Duration) {
        let begun = Instant::now();
        let attempt = |path| async move {
            match path {
                0 => std::future::pending().await,
                1 | 2 => Err(format!("path {path} refuses")),
                path => Ok(path),
            }
        };
        (first_of(order, attempt).await, begun.elapsed())
    }

    #[tokio::test]
    async fn a_path_that_refuses_holds_nobody_up() {
        let (found, after) = tried(&[1, 3]).await;
        assert!(found == Ok(3) && after < STAGGER, "{found:?} {after:?}");
        let (none, after) = tried(&[1, 2]).await;
        assert!(none == Err("path 1 refuses; path 2 refuses".into()) && after < STAGGER, "{none:?} {after:?}");
        assert_eq!(tried(&[]).await.0, Err(String::new()));
    }

    /// The first packet is lost, and a moment later the path works.
    #[tokio::test]
    async fn a_path_that_works_again_is_found_beside_a_try_that_hangs() {
        let begun = Instant::now();
        let mended = |path| async move {
            let hangs = begun.elapsed() < Duration::from_millis(100);
            if hangs { std::future::pending().await } else { Ok(path) }
        };
        assert_eq!(first_of(&[1], mended).await, Ok(1));
        assert!(begun.elapsed() < 2 * AGAIN, "{:?}", begun.elapsed());
        let failed = first_of(&[0, 1], |path| async move {
            tokio::time::sleep(if path == 0 { DIAL_WAIT } else { Duration::ZERO }).await;
            Err::<(), _>(format!("path {path}"))
        });
        assert_eq!(failed.await, Err("path 0; path 1".to_owned()), "each said once");
    }

    #[tokio::test]
    async fn a_silent_path_is_left_behind() {
        let (found, after) = tried(&[0, 3]).await;
        assert!(found == Ok(3) && after >= STAGGER, "{found:?} {after:?}");
    }
}
