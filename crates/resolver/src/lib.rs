//! DNS behind the resolver port.
