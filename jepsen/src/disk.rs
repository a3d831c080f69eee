//! A disk for each node: a file system on a loop device, that can be filled and slowed down.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::net::run;

/// Size of a disk (bytes); the file is sparse.
pub const MAIL_BYTES: u64 = 3 * 1024 * 1024 * 1024;
/// Size of the disk of a node's log.
pub const LOG_BYTES: u64 = 1024 * 1024 * 1024;
/// Where version 1 of control groups limits a device.
const GROUPS: &str = "/sys/fs/cgroup/blkio";
/// A slow disk writes so much (bytes per second).
const SLOW_BYTES: u64 = 100_000;

/// One disk.
pub struct Disk {
    /// Where it is mounted.
    pub folder: PathBuf,
    image: PathBuf,
    device: String,
    group: PathBuf,
}

impl Disk {
    /// Makes and mounts one of so many bytes under `dir`.
    ///
    /// # Errors
    /// The machine has no loop device or file system to spare.
    pub fn make(dir: &Path, name: &str, bytes: u64) -> anyhow::Result<Self> {
        let (folder, image) = (dir.join(name), dir.join(format!("{name}.img")));
        std::fs::create_dir_all(&folder)?;
        std::fs::File::create(&image)?.set_len(bytes)?;
        run(&format!("mkfs.ext4 -q -F -E lazy_itable_init=1,nodiscard -m 0 {}", image.display()))?;
        let device = run(&format!("losetup --find --show {}", image.display()))?.trim().to_owned();
        let group = Path::new(GROUPS).join(format!("tpl{}-{name}", std::process::id()));
        let disk = Self { folder, image, device, group };
        let mounted = run(&format!("mount {} {}", disk.device, disk.folder.display()));
        if mounted.is_err() {
            disk.destroy();
        }
        mounted.map(|_| disk)
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Leaves so many bytes free, at most.
    ///
    /// # Errors
    /// It could not be filled.
    pub fn fill(&self, leave: u64) -> anyhow::Result<()> {
        let stats = rustix::fs::statvfs(&self.folder)?;
        let bytes = (stats.f_bavail * stats.f_frsize).saturating_sub(leave);
        if bytes == 0 {
            return Ok(());
        }
        run(&format!("fallocate -l {bytes} {}", self.ballast().display())).map(drop)
    }

    /// Gives back what open files have ahead of their ends, so that a full disk is felt at once: a database reserves
    /// megabytes for its log. Whoever writes to them must be stopped.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn trim(&self) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let file = std::fs::OpenOptions::new().write(true).open(&path)?;
                file.set_len(file.metadata()?.len())?;
            }
        }
        Ok(())
    }

    /// Ends that.
    ///
    /// # Errors
    /// It stays full.
    pub fn free(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Slows writes of this process down.
    ///
    /// # Errors
    /// The kernel cannot.
    pub fn slow(&self, pid: i32) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.group).context("control groups of version 1 with blkio")?;
        let meta = rustix::fs::stat(&self.device)?;
        let (major, minor) = (rustix::fs::major(meta.st_rdev), rustix::fs::minor(meta.st_rdev));
        let limit = format!("{major}:{minor} {SLOW_BYTES}");
        std::fs::write(self.group.join("blkio.throttle.write_bps_device"), limit).context("blkio.throttle")?;
        // All threads of the process.
        std::fs::write(self.group.join("cgroup.procs"), pid.to_string()).context("cgroup.procs")
    }

    /// Ends that.
    ///
    /// # Errors
    /// It stays slow.
    pub fn unslow(&self) -> anyhow::Result<()> {
        let procs = std::fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines() {
            // One that ended meanwhile is slow no more.
            let _ = std::fs::write(Path::new(GROUPS).join("cgroup.procs"), pid);
        }
        let _ = std::fs::remove_dir(&self.group);
        Ok(())
    }
}

impl Disk {
    /// Unmounts and deletes it; processes that use it must have ended.
    pub fn destroy(&self) {
        let _ = self.unslow();
        let _ = run(&format!("umount -l {}", self.folder.display()));
        let _ = run(&format!("losetup -d {}", self.device));
        let _ = std::fs::remove_file(&self.image);
    }
}
