//! Pre-seeding: a copy of one node's mail (`twinpost store checkpoint`), and how a new machine begins from it
//! (`twinpost cluster join --seed`). What is copied is read and verified before the join; the first sync then brings only
//! what differs. A seed is never a state: the new node joins like one with an empty disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use frontend::Checkpoints;
use ports::Answer;
use serde_json::json;
use store::{Foreign, OpenError, RowRules, SeedWriter, Store, StoreOptions};
use vocab::{AccountId, BlobHash};

use crate::admin::{Api, say, show_done};
use crate::checks::{self, Finding};
use crate::cli::ServerArgs;
use crate::config::NodeConfig;
use crate::exit::Exit;
use crate::files::{self, DataDir, Identity};

/// The mail inside a checkpoint, and inside a prepared seed.
const MAIL: &str = "mail";
/// What the checkpoint is; written last, so it says that the rest is whole.
const NOTE: &str = "seed.json";
/// Bodies read between two looks at what to say.
const BODIES_PER_WORD: u64 = 10_000;

/// What a checkpoint is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct SeedNote {
    /// Cluster id.
    pub(crate) cluster_id: String,
    /// Cluster name.
    pub(crate) cluster_name: String,
    /// Node it was made on.
    pub(crate) node: u32,
    /// Of this checkpoint alone.
    id: String,
}

impl SeedNote {
    /// Of the checkpoint in `folder`.
    ///
    /// # Errors
    /// It is none, or was not copied to its end.
    pub(crate) fn load(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(NOTE);
        let text = files::read_text(&path).with_context(|| {
            format!("{} is no checkpoint (`twinpost store checkpoint` makes one)", folder.display())
        })?;
        serde_json::from_str(&text).with_context(|| format!("understand {}", path.display()))
    }

    /// As [`Self::load`], of this cluster alone.
    ///
    /// # Errors
    /// It is of another cluster, too.
    pub(crate) fn of_cluster(folder: &Path, cluster_id: &str) -> anyhow::Result<Self> {
        let note = Self::load(folder)?;
        anyhow::ensure!(
            note.cluster_id == cluster_id,
            "{} is a checkpoint of another cluster ({}, node {}): it is not used, and nothing was done",
            folder.display(),
            note.cluster_name,
            note.node
        );
        Ok(note)
    }
}

/// What is said of a seed before a join, and its size in bytes; nothing of it is read yet.
pub(crate) fn look(folder: &Path, cluster_id: &str) -> (Finding, u64) {
    match SeedNote::of_cluster(folder, cluster_id) {
        Ok(note) => {
            let bytes = crate::examine::bytes_under(&folder.join(MAIL));
            let found = format!("a checkpoint of node {}, {} MB", note.node, checks::megabytes(bytes));
            (Finding::ok("seed", found), bytes)
        }
        Err(why) => {
            let advice = "copy a checkpoint of a node of this cluster (`twinpost store checkpoint` there) to its end";
            (Finding::refuse("seed", format!("{why:#}"), advice), 0)
        }
    }
}

/// `twinpost store checkpoint DIR`: through the running node, else by this process.
///
/// # Errors
/// The folder exists, or the data folder cannot be read.
pub fn checkpoint(args: &ServerArgs, folder: &Path) -> anyhow::Result<Exit> {
    let folder = std::path::absolute(folder).context("the folder's name")?;
    if args.server.is_none() {
        let data = DataDir(NodeConfig::load(&args.config)?.data_dir);
        anyhow::ensure!(data.mail().exists(), "{} holds no mail", data.0.display());
        match Store::open(&data.mail(), StoreOptions::default()) {
            Ok(store) => {
                make(&store, &Identity::load(&data)?, &folder)?;
                say!("checkpoint made in {}; the node does not run", folder.display());
                return Ok(Exit::Done);
            }
            Err(OpenError::InUse(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let api = Api::open(args)?;
    Ok(api.run(reqwest::Method::POST, "store/checkpoint", Some(&json!({ "folder": folder })), show_done))
}

/// Makes a checkpoint of an open store.
fn make(store: &Store, identity: &Identity, folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    anyhow::ensure!(!folder.exists(), "{} exists already", folder.display());
    let created = std::fs::DirBuilder::new().mode(0o700).create(folder);
    created.with_context(|| format!("create {}", folder.display()))?;
    store.checkpoint(&folder.join(MAIL))?;
    let note = SeedNote {
        cluster_id: identity.cluster_id.clone(),
        cluster_name: identity.cluster_name.clone(),
        node: identity.node,
        id: crate::init::secret(12),
    };
    files::write_private(&folder.join(NOTE), serde_json::to_string_pretty(&note)?.as_bytes())
}

/// Makes checkpoints of the running node.
pub(crate) struct Maker {
    pub(crate) store: Arc<Store>,
    pub(crate) identity: Identity,
}

impl Checkpoints for Maker {
    fn create(&self, folder: PathBuf) -> Answer<'_, Result<(), String>> {
        let (store, identity) = (Arc::clone(&self.store), self.identity.clone());
        Box::pin(async move {
            let made = tokio::task::spawn_blocking(move || make(&store, &identity, &folder));
            let made = made.await.map_err(|_| "it ended badly".to_owned())?;
            made.map_err(|error| format!("{error:#}"))
        })
    }
}

/// What was taken over.
#[derive(Debug, Default)]
struct Taken {
    accounts: u64,
    bodies: u64,
    bodies_left: u64,
    left: Vec<AccountId>,
}

/// Reads the checkpoint in `from`, keeps what is whole of it in the data folder. A later try with the same checkpoint finds
/// it there. Gives what is to be told.
///
/// # Errors
/// It is of another cluster, or no checkpoint; or the data folder cannot be written.
pub(crate) fn prepare(data: &DataDir, from: &Path, cluster_id: &str) -> anyhow::Result<Vec<String>> {
    let note = SeedNote::of_cluster(from, cluster_id)?;
    let seed = data.seed();
    if SeedNote::load(&seed).is_ok_and(|prepared| prepared == note) {
        return Ok(vec!["the seed was verified before".into()]);
    }
    if seed.exists() {
        std::fs::remove_dir_all(&seed).with_context(|| format!("remove {}", seed.display()))?;
    }
    std::fs::create_dir_all(&seed).with_context(|| format!("create {}", seed.display()))?;
    let taken = copy(&from.join(MAIL), &seed.join(MAIL))?;
    files::write_private(&seed.join(NOTE), serde_json::to_string_pretty(&note)?.as_bytes())?;
    let mut said = vec![format!("seed verified: {} accounts, {} bodies", taken.accounts, taken.bodies)];
    if !taken.left.is_empty() || taken.bodies_left > 0 {
        let ids: Vec<String> = taken.left.iter().map(|account| account.0.to_string()).collect();
        said.push(format!(
            "damaged in the checkpoint and left out, so they come whole from the other node: {} accounts{}, {} bodies",
            taken.left.len(),
            if ids.is_empty() { String::new() } else { format!(" (ids {})", ids.join(", ")) },
            taken.bodies_left
        ));
    }
    Ok(said)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<Taken> {
    let source = Foreign::open(from)?;
    let writer = SeedWriter::create(to)?;
    let rules = RowRules {
        digest: mailbox::row_digest,
        blob_ref: |row| mailbox::blob_ref_of(row).or_else(|| queue::blob_ref_of(row)),
    };
    let (accounts, broken) = source.accounts();
    if let Some(damaged) = broken {
        eprintln!("twinpost: the list of accounts ends early: {damaged}; what is behind comes from the other node");
    }
    let (mut taken, mut seen) = (Taken::default(), BTreeSet::<BlobHash>::new());
    let total = accounts.len();
    for (account, head) in accounts {
        let copied = match head {
            Ok(_) => writer.put_account(account, &*source.snapshot(account), rules)?,
            Err(damaged) => Err(damaged),
        };
        let bodies = match copied {
            Ok(bodies) => bodies,
            Err(damaged) => {
                eprintln!("twinpost: account {} is left out: {damaged}", account.0);
                taken.left.push(account);
                continue;
            }
        };
        taken.accounts += 1;
        for hash in bodies.into_iter().filter(|hash| seen.insert(*hash)) {
            match writer.put_body(&source, hash)? {
                true => taken.bodies += 1,
                false => {
                    eprintln!("twinpost: body {hash} is left out: it is not what its name says");
                    taken.bodies_left += 1;
                }
            }
            if (taken.bodies + taken.bodies_left) % BODIES_PER_WORD == 0 {
                eprintln!("twinpost: {} of {total} accounts, {} bodies verified", taken.accounts, taken.bodies);
            }
        }
    }
    writer.finish()?;
    Ok(taken)
}

/// At the first start after the join: the prepared seed becomes the mail folder.
///
/// # Errors
/// It cannot be moved.
pub(crate) fn adopt(data: &DataDir) -> anyhow::Result<()> {
    let prepared = data.seed().join(MAIL);
    if SeedNote::load(&data.seed()).is_ok() && prepared.exists() && !data.mail().exists() {
        std::fs::rename(&prepared, data.mail()).with_context(|| format!("move {}", prepared.display()))?;
        std::fs::File::open(&data.0).and_then(|folder| folder.sync_all()).context("sync the data folder")?;
        tracing::info!("this node begins from a seed");
    }
    if data.seed().exists() {
        std::fs::remove_dir_all(data.seed()).context("remove what is left of the seed")?;
    }
    Ok(())
}
