//! Protocol transcripts against the sealed sessions and over sockets.
