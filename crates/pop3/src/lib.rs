//! Everything of POP3 that needs no socket.
