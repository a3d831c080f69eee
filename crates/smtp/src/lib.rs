//! Everything of SMTP that needs no socket: grammar, the server session and the client as sealed machines.
//!
//! Standards: RFC 5321, 6409 (submission), 3207 (STARTTLS), 4954 (AUTH), 1870 (SIZE), 6152 (8BITMIME), 2920
//! (PIPELINING), 2034 and 3463 (enhanced status), 6531 (SMTPUTF8), 3030 (CHUNKING, without BINARYMIME).

pub mod client;
pub mod codec;
pub mod session;
pub mod tap;
