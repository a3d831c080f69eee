//! Generates the service between nodes from `proto/peer.proto` without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new("../../proto");
    println!("cargo:rerun-if-changed=../../proto/peer.proto");
    let set = protox::compile([root.join("peer.proto")], [root])?;
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    Ok(())
}
