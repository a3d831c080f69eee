//! Rules of the design switched off: the checks must notice, or they prove nothing. The rules that histories notice never
//! or rarely are played by scripts, with and without them (docs/operations/controls.md).

use simulation::Control;

/// Histories within which each must be noticed.
const SEEDS: u64 = 2_000;

/// Control, and the first history that notices it. When the simulator changes, another one may be the first: then all are
/// tried in turn, and the test says which belongs here.
const NOTICED: [(Control, u64); 38] = [
    (Control::AcknowledgesEarly, 0),
    (Control::AcknowledgesUnsynced, 1),
    (Control::WritesHomeFirst, 3),
    (Control::StartsAloneByItself, 7),
    (Control::RenumbersCollisions, 9),
    (Control::KeepsUnassigned, 9),
    (Control::KeepsAboveUidNext, 9),
    (Control::KeepsFreeNumbers, 9),
    (Control::MergesWithoutStamp, 9),
    (Control::MergesWithoutFloor, 9),
    (Control::UnitesByContent, 14),
    (Control::RetriesAsNew, 3),
    (Control::IgnoresBodies, 2),
    (Control::TrustsDisks, 54),
    (Control::TransfersInPlace, 0),
    (Control::OverwritesBranches, 9),
    (Control::ShowsUnconfirmed, 53),
    (Control::CountsOwnPause, 18),
    (Control::ShowsUnmerged, 9),
    (Control::ShowsWithoutLease, 23),
    (Control::ServesWithoutContact, 113),
    (Control::GoesAloneUncompared, 794),
    (Control::ForgetsNewest, 788),
    (Control::SkipsNoNumbers, 20),
    (Control::SkipsEqually, 2),
    (Control::CommitsWithoutGuest, 0),
    (Control::MergesUnderFlight, 9),
    (Control::MarksNothingServed, 92),
    (Control::MergesFromOwnBase, 9),
    (Control::ForgetsExpunged, 22),
    (Control::PlacesByHome, 4),
    (Control::KeepsTwoPlaces, 247),
    (Control::AnswersForUnknown, 19),
    (Control::SurvivorKeepsNumbers, 187),
    (Control::AcknowledgesFirstHome, 44),
    (Control::ForgetsOutcomes, 5),
    (Control::GoesOnWithoutQuorum, 1),
    (Control::WritesNewestRows, 38),
];

/// The history of this seed under the control: what it broke.
fn broken(control: Control, seed: u64) -> Option<String> {
    simulation::run(seed, control, false).broken
}

fn check(control: Control, first: u64) {
    let found = broken(control, first).map(|text| (first, text));
    let found = found.or_else(|| (0..SEEDS).find_map(|seed| Some((seed, broken(control, seed)?))));
    let (seed, text) = found.unwrap_or_else(|| panic!("{control:?} was not noticed within {SEEDS} histories"));
    println!("{control:?} ({}): seed {seed}: {text}", control.rule_name());
    if seed != first {
        println!("{control:?}: put {seed} instead of {first}");
    }
    assert_eq!(broken(Control::None, seed), None, "seed {seed} fails with every rule on");
}

#[test]
fn every_rule_that_is_switched_off_is_noticed() {
    let (left, right) = NOTICED.split_at(NOTICED.len() / 2);
    std::thread::scope(|scope| {
        for half in [left, right] {
            scope.spawn(|| half.iter().for_each(|(control, first)| check(*control, *first)));
        }
    });
}

#[test]
fn every_control_is_noticed_here_or_played_by_a_script() {
    let here = |control: &Control| NOTICED.iter().any(|(other, _)| other == control);
    let missing: Vec<Control> =
        Control::ALL.into_iter().filter(|control| !here(control) && !SCRIPTED.contains(control)).collect();
    assert_eq!(missing, []);
}

/// X3, X4: `quorum.rs`; X6, X10: `scripts.rs`; X12 to X15: `quorum.rs`, `merges.rs`, all of cluster/replica/tests. H29, X23:
/// crates/mailbox/tests/merge.rs.
const SCRIPTED: [Control; 9] = [
    Control::ForgetsMarks,
    Control::WaitsForNoLease,
    Control::SplitsSoloWrite,
    Control::LosesGapAtHeal,
    Control::EntersFromSolo,
    Control::ServesBeforeOthersAreLevel,
    Control::MergesTail,
    Control::TrustsShortMarks,
    Control::NumbersByClock,
];
