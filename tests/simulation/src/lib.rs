//! Whole cluster in one process from one seed.
