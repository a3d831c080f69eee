//! The client's side of one SMTP dialogue as a sealed machine.
