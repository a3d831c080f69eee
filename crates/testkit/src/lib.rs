//! Fakes of the ports, virtual clock, transcript runner.
pub mod transcript;
