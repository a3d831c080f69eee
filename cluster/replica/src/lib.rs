//! Replication decisions of one node: epochs, commit, leases, takeover, heal.
