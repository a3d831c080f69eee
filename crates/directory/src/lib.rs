//! Who exists and who may.
