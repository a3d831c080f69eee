//! Generates the messages between nodes from `proto/` without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new("../../proto");
    let mut files: Vec<_> = std::fs::read_dir(root)?.filter_map(Result::ok).map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "proto") && p.file_stem().is_some_and(|s| s != "peer"));
    files.sort();
    println!("cargo:rerun-if-changed=../../proto");
    let set = protox::compile(&files, [root])?;
    prost_build::Config::new().bytes(["."]).compile_fds(set)?;
    Ok(())
}
