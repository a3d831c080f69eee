//! Histories of the simulated pair: many of them with numbers, or one with its story.

use std::process::ExitCode;
use std::time::Instant;

use simulation::{Control, Coverage, History, Need};

/// So many histories reach everything that must be reached.
const JUDGED_FROM: usize = 1_000;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Simulate {
    /// How many histories.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this one.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the story, of the one seed or of the first one that fails.
    #[arg(long)]
    trace: bool,
    /// Switch a rule off, by the name of its control (for instance `AcknowledgesEarly`).
    #[arg(long)]
    control: Option<String>,
    /// Go on after a failure and count.
    #[arg(long)]
    all: bool,
}

/// The control of that name; none when none is asked for.
fn chosen(name: Option<&str>) -> Option<Control> {
    let Some(name) = name else { return Some(Control::None) };
    Control::ALL.into_iter().find(|control| format!("{control:?}").eq_ignore_ascii_case(name))
}

pub(crate) fn run(options: &Simulate) -> ExitCode {
    let Some(control) = chosen(options.control.as_deref()) else {
        let names: Vec<String> = Control::ALL.iter().map(|control| format!("{control:?}")).collect();
        eprintln!("simulate: no such control; there are {}", names.join(", "));
        return ExitCode::from(64);
    };
    let (from, count) = options.seed.map_or((options.from, options.seeds), |seed| (seed, 1));
    let begun = Instant::now();
    let mut sum = Coverage::default();
    let (mut operations, mut faults, mut lasted) = (Vec::new(), Vec::new(), Vec::new());
    let mut failed = 0_u64;
    for seed in from..from + count {
        let history = simulation::run(seed, control, options.trace && options.seed.is_some());
        sum.add(&history.coverage);
        operations.push(history.coverage.operations);
        faults.push(history.coverage.faults);
        lasted.push(history.lasted);
        let broken = history.broken.is_some();
        report(&history, control, options.trace);
        failed += u64::from(broken);
        if broken && !options.all {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let ran = operations.len();
    println!("{ran} histories in {seconds:.1} s, {:.1}/s, {failed} failed", per_second(ran, seconds));
    println!(
        "median per history: {} operations, {} accounts, {} clients, {} faults, {} virtual ms",
        median(&mut operations),
        simulation::ACCOUNTS,
        simulation::CLIENTS,
        median(&mut faults),
        median(&mut lasted),
    );
    let amiss = print_coverage(&sum, ran);
    if failed == 0 && !amiss { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every counter; whether one is amiss that is judged: what must happen, from a thousand histories on.
fn print_coverage(sum: &Coverage, ran: usize) -> bool {
    let mut amiss = false;
    for counter in sum.counters() {
        let judged = ran >= JUDGED_FROM || counter.need == Need::Never;
        let note = match (judged && counter.is_amiss(), counter.need) {
            (false, _) => "",
            (true, Need::Never) => "  <- must not happen",
            (true, _) => "  <- must be hit",
        };
        amiss |= !note.is_empty();
        println!("{:>9} {}{note}", counter.count, counter.name);
    }
    amiss
}

fn report(history: &History, control: Control, traced: bool) {
    let Some(broken) = &history.broken else {
        history.trace.iter().for_each(|line| println!("{line}"));
        return;
    };
    if traced {
        let story = if history.trace.is_empty() {
            simulation::run(history.seed, control, true).trace
        } else {
            history.trace.clone()
        };
        story.iter().for_each(|line| println!("{line}"));
    }
    println!("seed {}: {broken}", history.seed);
    println!("replay: cargo run --release -p xtask -- simulate --seed {} --trace", history.seed);
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "a number for people")]
fn per_second(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds.max(0.001)
}
