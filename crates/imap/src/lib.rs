//! Everything of IMAP that needs no socket.
