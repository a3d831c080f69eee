//! Everything of SMTP that needs no socket.
