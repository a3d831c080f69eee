//! The data folder of a node: names, rights, and writing by rename.
//!
//! Secrets (keys, tokens) are 0600 and the folder 0700; everything is written to a neighbour, synced and renamed, so a
//! crash leaves the old file or the new one.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Paths inside the data folder.
#[derive(Clone, Debug)]
pub struct DataDir(pub PathBuf);

impl DataDir {
    /// Identity of this node: cluster id, node id, names (JSON).
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.0.join("node.json")
    }
    /// Certificate of the cluster's CA, two while it is exchanged; clients that trust it trust every node.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.0.join("ca.pem")
    }
    /// Key of the CA that issues, on every data node.
    #[must_use]
    pub fn ca_key(&self) -> PathBuf {
        self.0.join("ca.key")
    }
    /// Key of the CA that will issue next, while the CA is exchanged.
    #[must_use]
    pub fn ca_next_key(&self) -> PathBuf {
        self.0.join("ca-next.key")
    }
    /// Certificate of this node towards the others.
    #[must_use]
    pub fn node_certificate(&self) -> PathBuf {
        self.0.join("node.pem")
    }
    /// Its key.
    #[must_use]
    pub fn node_key(&self) -> PathBuf {
        self.0.join("node.key")
    }
    /// Certificate for clients, the same on all nodes.
    #[must_use]
    pub fn service_certificate(&self) -> PathBuf {
        self.0.join("service.pem")
    }
    /// Its key.
    #[must_use]
    pub fn service_key(&self) -> PathBuf {
        self.0.join("service.key")
    }
    /// The administrator's token, the same on all nodes.
    #[must_use]
    pub fn admin_token(&self) -> PathBuf {
        self.0.join("admin.token")
    }
    /// Where the CLI finds the API of this node (JSON).
    #[must_use]
    pub fn endpoint(&self) -> PathBuf {
        self.0.join("endpoint.json")
    }
    /// Process id of the daemon.
    #[must_use]
    pub fn pid(&self) -> PathBuf {
        self.0.join("twinpost.pid")
    }
    /// Boot and peers of the running daemon, for its guard (JSON).
    #[must_use]
    pub fn guard(&self) -> PathBuf {
        self.0.join("guard.json")
    }
    /// Boot counter of a witness, which has no mail database to keep it in.
    #[must_use]
    pub fn boot(&self) -> PathBuf {
        self.0.join("boot")
    }
    /// Mail database.
    #[must_use]
    pub fn mail(&self) -> PathBuf {
        self.0.join("mail")
    }
    /// Mail copied from another node's checkpoint, from `cluster join --seed` until the first start.
    #[must_use]
    pub fn seed(&self) -> PathBuf {
        self.0.join("seed")
    }
    /// Database of the log.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }
    /// Configuration database.
    #[must_use]
    pub fn raft(&self) -> PathBuf {
        self.0.join("raft")
    }
    /// Makes the folder (0700).
    ///
    /// # Errors
    /// With the folder's name.
    pub fn create(&self) -> anyhow::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .with_context(|| format!("create data folder {}", self.0.display()))
    }
}

/// Who this node is; written by `cluster init` and `cluster join`.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Cluster id.
    pub cluster_id: String,
    /// Cluster name.
    pub cluster_name: String,
    /// Node id.
    pub node: u32,
    /// Members known when it was written, to find the cluster before the configuration is here: id and peer address,
    /// several times when there are several paths.
    pub peers: Vec<(u32, String)>,
    /// Only votes: stores no mail, serves no clients.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub witness: bool,
    /// This node was a member and is none any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
    /// `cluster init` only: applied at the first start, then removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Founding>,
}

/// What the first start of the first node puts into the configuration.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Founding {
    /// Cluster addresses.
    #[serde(rename = "cluster_address", with = "topology::stored_addresses", default)]
    pub cluster_addresses: Vec<topology::ClusterAddress>,
}

/// Writes a file by rename with mode 0600, synced.
///
/// # Errors
/// With the file's name.
pub fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    // A neighbour of its own: files that differ in their ending alone are written at the same time.
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, path)?;
        match path.parent() {
            Some(folder) => std::fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// The device a folder lies on; `None`: it is not there.
pub(crate) fn device(folder: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(folder).ok().map(|meta| meta.dev())
}

/// Bytes on the file system of a folder: free for this process, and all.
///
/// # Errors
/// The folder is not there, or the file system does not tell.
pub(crate) fn room(folder: &Path) -> std::io::Result<(u64, u64)> {
    let system = rustix::fs::statvfs(folder)?;
    Ok((system.f_bavail.saturating_mul(system.f_frsize), system.f_blocks.saturating_mul(system.f_frsize)))
}

/// Reads a text file.
///
/// # Errors
/// With the file's name.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

impl Identity {
    /// Of this data folder.
    ///
    /// # Errors
    /// Says to run `cluster init` or `cluster join` when there is none.
    pub fn load(data: &DataDir) -> anyhow::Result<Self> {
        let path = data.identity();
        if !path.exists() {
            anyhow::bail!(
                "{} is not part of a cluster yet: run `twinpost cluster init` or `twinpost cluster join` first",
                data.0.display()
            );
        }
        serde_json::from_str(&read_text(&path)?).with_context(|| format!("understand {}", path.display()))
    }
    /// Refuses a folder whose node left the cluster.
    ///
    /// # Errors
    /// Says what to do.
    pub fn must_be_member(&self, data: &DataDir) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.left,
            "this node has left the cluster {}; to join one again it needs an empty folder instead of {}",
            self.cluster_name,
            data.0.display()
        );
        Ok(())
    }
    /// Writes it.
    ///
    /// # Errors
    /// As [`write_private`].
    pub fn save(&self, data: &DataDir) -> anyhow::Result<()> {
        write_private(&data.identity(), serde_json::to_string_pretty(self)?.as_bytes())
    }
}
