//! Small mail clients of our own, so that the demo, the tests and the benchmark see what a stranger's client sees and
//! need nothing installed. They are strict about what they read: an unexpected answer is an error, never skipped.

pub mod api;
pub mod imap;
pub mod pop3;
pub mod smtp;
pub mod stream;
