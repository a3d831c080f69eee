//! Fakes of the ports, virtual clock, transcript runner.
