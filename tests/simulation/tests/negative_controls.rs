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
    (Control::StartsAloneByItself, 4),
    (Control::RenumbersCollisions, 8),
    (Control::KeepsUnassigned, 8),
    (Control::KeepsAboveUidNext, 8),
    (Control::KeepsFreeNumbers, 8),
    (Control::MergesWithoutStamp, 16),
    (Control::MergesWithoutFloor, 8),
    (Control::UnitesByContent, 22),
    (Control::RetriesAsNew, 3),
    (Control::IgnoresBodies, 5),
    (Control::TrustsDisks, 4),
    (Control::TransfersInPlace, 5),
    (Control::OverwritesBranches, 8),
    (Control::ShowsUnconfirmed, 13),
    (Control::CountsOwnPause, 0),
    (Control::ShowsUnmerged, 9),
    (Control::ShowsWithoutLease, 57),
    (Control::ServesWithoutContact, 113),
    (Control::GoesAloneUncompared, 1584),
    (Control::ForgetsNewest, 1029),
    (Control::SkipsNoNumbers, 0),
    (Control::SkipsEqually, 8),
    (Control::CommitsWithoutGuest, 3),
    (Control::MergesUnderFlight, 16),
    (Control::MarksNothingServed, 299),
    (Control::MergesFromOwnBase, 8),
    (Control::ForgetsExpunged, 49),
    (Control::PlacesByHome, 2),
    (Control::AnswersForUnknown, 10),
    (Control::SurvivorKeepsNumbers, 40),
    (Control::AcknowledgesFirstHome, 10),
    (Control::ForgetsOutcomes, 2),
    (Control::GoesOnWithoutQuorum, 26),
    (Control::WritesNewestRows, 7),
    (Control::RenamesKeepValidity, 568),
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

/// X3, X4: `quorum.rs`; X6, X10: `scripts.rs`; X12 to X15, rule W of a side that is behind, the way of a branch: `quorum.rs`, `merges.rs`, all of cluster/replica/tests. H29, X20,
/// X23: crates/mailbox/tests/merge.rs. I2 of a merge: crates/mailbox/tests/former_names.rs. H14: `merges.rs`,
/// cluster/shards/tests/fanout.rs.
const SCRIPTED: [Control; 15] = [
    Control::MergesKeepValidity,
    Control::ForgetsWay,
    Control::TakesQueueFirst,
    Control::KeepsTwoPlaces,
    Control::ForgetsMarks,
    Control::WaitsForNoLease,
    Control::SplitsSoloWrite,
    Control::LosesGapAtHeal,
    Control::EntersFromSolo,
    Control::ServesBeforeOthersAreLevel,
    Control::OverwritesShown,
    Control::SettlesUnseen,
    Control::MergesTail,
    Control::TrustsShortMarks,
    Control::NumbersByClock,
];
