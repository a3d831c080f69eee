//! A fixed row of histories: every promise holds in each, and together they reach what must be reached.

use simulation::{Control, Coverage};

const SEEDS: u64 = 200;

#[test]
fn every_promise_holds_over_the_fixed_seeds() {
    let mut sum = Coverage::default();
    for seed in 0..SEEDS {
        let history = simulation::run(seed, Control::None, false);
        if let Some(broken) = history.broken {
            panic!("seed {seed}: {broken}\nreplay: cargo run --release -p xtask -- simulate --seed {seed} --trace");
        }
        sum.add(&history.coverage);
    }
    for (name, count) in sum.counters() {
        println!("{name}: {count}");
        assert!(count > 0, "no history had: {name}");
    }
}

#[test]
fn a_seed_replays_bit_by_bit() {
    let (first, second) = (simulation::run(7, Control::None, true), simulation::run(7, Control::None, true));
    assert!(first.trace.len() > 50, "a history has a story");
    assert_eq!(first.trace, second.trace);
    assert_eq!(first.coverage, second.coverage);
}
