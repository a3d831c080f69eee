//! The first frame of each side: cluster, node, boot, versions. No overlap is refused with the reason.

use vocab::{Boot, NodeId};

use crate::proto::{Hello, Range};
use crate::{TransportConfig, Versions};

/// What this node says first.
pub(crate) fn hello(config: &TransportConfig) -> Hello {
    Hello {
        cluster_id: config.cluster_id.clone(),
        node: config.node.0,
        boot: config.boot.0,
        protocol: Some(range(config.versions.protocol)),
        row_format: Some(range(config.versions.row_format)),
    }
}

/// A range as a message.
pub(crate) fn range((min, max): (u32, u32)) -> Range {
    Range { min, max }
}

/// Checks what the peer says against its certificate and this node; the error is the reason for both logs.
pub(crate) fn judge_hello(config: &TransportConfig, certified: NodeId, hello: &Hello) -> Result<Boot, String> {
    if hello.cluster_id != config.cluster_id {
        return Err(format!("cluster {} is not this cluster ({})", hello.cluster_id, config.cluster_id));
    }
    if hello.node != certified.0 {
        return Err(format!("node {} speaks with the certificate of node {}", hello.node, certified.0));
    }
    let Versions { protocol, row_format } = config.versions;
    overlap("protocol", protocol, hello.protocol.as_ref())?;
    overlap("row format", row_format, hello.row_format.as_ref())?;
    Ok(Boot(hello.boot))
}

/// Whether both can speak one version.
pub(crate) fn overlap(what: &str, ours: (u32, u32), theirs: Option<&Range>) -> Result<(), String> {
    let theirs = theirs.map_or((0, 0), |range| (range.min, range.max));
    if theirs.0 <= ours.1 && ours.0 <= theirs.1 {
        return Ok(());
    }
    Err(format!("no common {what}: versions {}-{} here, {}-{} there", ours.0, ours.1, theirs.0, theirs.1))
}
