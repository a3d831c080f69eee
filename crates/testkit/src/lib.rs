//! Fakes of the ports, virtual clock, transcript runner.
pub mod calls;
pub mod cut_proxy;
pub mod fake_accounts;
pub mod fake_config;
pub mod fake_streams;
pub mod place;
pub mod transcript;
