//! The data folder belongs to one user, and the service runs as that user. Root at a shell works on the folder as its owner
//! too, or the service could not open what root left there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::Mode;
use rustix::process::{Gid, Uid};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// What a node may do beside what its user may: low ports, the cluster address, and telling the network of it. The unit
/// file gives the same.
const KEPT: CapabilitySet =
    CapabilitySet::NET_BIND_SERVICE.union(CapabilitySet::NET_ADMIN).union(CapabilitySet::NET_RAW);

/// From now on this process makes files that only its user can read. When it is root's and `folder` is not, it goes on as the
/// owner of the folder; it keeps [`KEPT`], also for programs it starts. Where there is no folder yet it stays who it is. Only
/// the calling thread becomes another user: called before there are others, which follow it.
///
/// # Errors
/// The system refuses it; nothing was done on the folder.
pub(crate) fn work_as_owner(folder: &Path) -> anyhow::Result<()> {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = match fs::metadata(folder) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("look at {}", folder.display())),
    };
    let (uid, gid) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    if uid.is_root() {
        return Ok(());
    }
    become_user(uid, gid).with_context(|| format!("work as user {}, the owner of {}", owner.uid(), folder.display()))
}

fn become_user(uid: Uid, gid: Gid) -> rustix::io::Result<()> {
    // A container may have fewer.
    let kept = thread::capabilities(None)?.permitted & KEPT;
    thread::set_keep_capabilities(true)?;
    thread::set_thread_groups(&[])?;
    thread::set_thread_gid(gid)?;
    thread::set_thread_uid(uid)?;
    thread::set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: kept })?;
    kept.iter().try_for_each(|one| thread::configure_capability_in_ambient_set(one, true))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn root_works_on_a_folder_as_its_owner() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can become another user");
            return;
        }
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("file");
        // Users are changed thread by thread, so this stays in its own.
        let made = std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                work_as_owner(folder.path()).expect("still root: it is root's");
                assert!(rustix::process::geteuid().is_root());
                chown(folder.path(), Some(65_534), Some(65_533)).expect("given away");
                work_as_owner(folder.path()).expect("its owner");
                fs::write(&file, b"x").expect("written");
                assert!(fs::write("/never", b"x").is_err(), "no right of root's is left");
                let now = thread::capabilities(None).expect("capabilities");
                assert_eq!(now.permitted - KEPT, CapabilitySet::empty());
                thread::capability_is_in_ambient_set(CapabilitySet::NET_ADMIN).expect("asked")
                    == now.permitted.contains(CapabilitySet::NET_ADMIN)
            });
            worker.join().expect("done")
        });
        assert!(made, "what it keeps its children keep");
        let owner = fs::metadata(&file).expect("file");
        assert_eq!((owner.uid(), owner.gid(), owner.mode() & 0o777), (65_534, 65_533, 0o600));
    }

    #[test]
    fn a_folder_that_is_not_there_changes_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let before = rustix::process::geteuid();
        work_as_owner(&folder.path().join("none")).expect("nothing to do");
        assert_eq!(rustix::process::geteuid(), before);
    }
}
