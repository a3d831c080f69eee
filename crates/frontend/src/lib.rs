//! Listeners, TLS and drivers for the protocols.
