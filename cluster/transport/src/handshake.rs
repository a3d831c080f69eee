//! The first frame of each side: cluster, node, boot, versions. No overlap is refused with the reason.

use ports::peers::PeerProgram;
use vocab::{Boot, NodeId};

use crate::proto::{Hello, Range};
use crate::{TransportConfig, Versions};

/// A longer version is no version.
const PROGRAM_CHARS_MAX: usize = 64;

/// What this node says first.
pub(crate) fn hello(config: &TransportConfig) -> Hello {
    Hello {
        cluster_id: config.cluster_id.clone(),
        node: config.node.0,
        boot: config.boot.0,
        protocol: Some(range(config.versions.protocol)),
        row_format: Some(range(config.versions.row_format)),
        program: config.program.clone(),
    }
}

/// What a Hello says of the program; the text is for people and of a peer's making.
pub(crate) fn program(hello: &Hello) -> PeerProgram {
    let range = |range: Option<&Range>| range.map_or((0, 0), |range| (range.min, range.max));
    PeerProgram {
        version: hello.program.chars().filter(|c| c.is_ascii_graphic()).take(PROGRAM_CHARS_MAX).collect(),
        protocol: range(hello.protocol.as_ref()),
        rows: range(hello.row_format.as_ref()),
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
