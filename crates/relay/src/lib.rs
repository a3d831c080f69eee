//! Takes due queue items and sends them.
