//! Real processes, real kills.
