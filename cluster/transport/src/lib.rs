//! Mutually authenticated streams between nodes.
