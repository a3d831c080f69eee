//! openraft around topology; the only crate that names openraft.
