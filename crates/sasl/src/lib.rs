//! SASL mechanism exchanges as pure machines.
