//! Runs the replica, the disk, the peers and apply.
