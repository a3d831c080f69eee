//! Protocol transcripts against the sealed sessions.
