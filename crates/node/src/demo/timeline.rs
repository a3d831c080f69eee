//! What happened when, for people.

use std::time::Instant;

/// Prints lines with the seconds since the start.
pub struct Timeline {
    start: Instant,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Timeline {
    /// Prints one line.
    pub fn say(&self, text: &str) {
        println!("{:8.3} s  {text}", self.start.elapsed().as_secs_f64());
    }
}
