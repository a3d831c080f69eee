//! The product with switches for negative controls (feature `lab` of `node`); for the lab alone.

fn main() -> std::process::ExitCode {
    node::cli::main()
}
