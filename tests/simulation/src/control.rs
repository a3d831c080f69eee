//! Negative controls: a rule of the design switched off, to see that the checks notice. docs/operations/controls.md
//! says which history notices which.

use mailbox::merge::{Numbering, Rules};
use replica::Rule;

/// A rule that is switched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// Nothing is.
    #[default]
    None,
    /// The home answers before the backup has the batch.
    AcknowledgesEarly,
    /// What is written counts as durable before it is synced.
    AcknowledgesUnsynced,
    /// The home writes without waiting for its backups.
    WritesHomeFirst,
    /// A node that boots alone with old data goes on alone by itself.
    StartsAloneByItself,
    /// A merge renumbers only messages that collide with a present one.
    RenumbersCollisions,
    /// A merge keeps every number the other side has not assigned.
    KeepsUnassigned,
    /// A merge keeps every number at or above the other side's UIDNEXT.
    KeepsAboveUidNext,
    /// A merge keeps the anchor's numbers, and the guest's where they are free.
    KeepsFreeNumbers,
    /// What a merge changes keeps its modseq.
    MergesWithoutStamp,
    /// A merge leaves the vanish floor where it was.
    MergesWithoutFloor,
    /// A merge unites messages by what they contain.
    UnitesByContent,
    /// A change that is tried again is a new command.
    RetriesAsNew,
    /// A backup acknowledges a batch whose bodies it does not have.
    IgnoresBodies,
    /// Nodes of one epoch do not compare versions when they connect.
    TrustsDisks,
    /// A transferred account is built over the old state instead of beside it.
    TransfersInPlace,
    /// A branch that was not merged is overwritten.
    OverwritesBranches,
    /// A backup shows what it has written, confirmed or not.
    ShowsUnconfirmed,
    /// A node that was paused takes its own pause for the silence of the others.
    CountsOwnPause,
    /// The anchor of a heal shows accounts before the guest's branch is merged.
    ShowsUnmerged,
    /// A guest takes the queue over before it has the accounts.
    TakesQueueFirst,
    /// The served marks are cleared with the merge, not with the next joint epoch.
    ForgetsMarks,
    /// A backup shows what it has without a lease.
    ShowsWithoutLease,
    /// A new home does not wait for the leases of the old epoch.
    WaitsForNoLease,
    /// A home serves though the others do not acknowledge.
    ServesWithoutContact,
    /// A node that has not compared since boot goes on alone.
    GoesAloneUncompared,
    /// The record of an epoch alone is written without the batches in flight.
    SplitsSoloWrite,
    /// A node that heard of a newer epoch goes on from its own.
    ForgetsNewest,
    /// An epoch without a member skips no numbers.
    SkipsNoNumbers,
    /// Every node skips the same numbers.
    SkipsEqually,
    /// The gap is due no longer once the node is anchor of a heal.
    LosesGapAtHeal,
    /// Out of its own solo epoch a node enters one of another as a member.
    EntersFromSolo,
    /// The anchor commits without the guest although the join mark is written.
    CommitsWithoutGuest,
    /// An account is merged while a batch of it is in flight.
    MergesUnderFlight,
    /// A side that is behind, though it was shown alone, is overwritten.
    OverwritesShown,
    /// Of a merged branch only the last version is remembered, though a third node may stand at one before.
    ForgetsWay,
    /// An accept record is settled when every home has answered, whatever branch that placed the message on.
    SettlesUnseen,
    /// What was taken over from one node is served before the others have it.
    ServesBeforeOthersAreLevel,
    /// A batch that was never acknowledged is merged.
    MergesTail,
    /// A side whose marks do not reach back to the base counts as not served.
    TrustsShortMarks,
    /// What clients are shown in an epoch without a member marks nothing.
    MarksNothingServed,
    /// The base of a merge is an own version, common or not.
    MergesFromOwnBase,
    /// What was born and expunged since the base leaves no trace.
    ForgetsExpunged,
    /// The id of a placement depends on the home that ran the command.
    PlacesByHome,
    /// A placement that two sides have in two mailboxes stays in both.
    KeepsTwoPlaces,
    /// The expunge of a message nobody has heard of is answered OK.
    AnswersForUnknown,
    /// A mailbox that survives its deletion keeps its numbers.
    SurvivorKeepsNumbers,
    /// A new mailbox is numbered by the clock in a split too.
    NumbersByClock,
    /// 250 for accounts of several homes after the first home's commit, without an accept record.
    AcknowledgesFirstHome,
    /// What commands came to is not looked up.
    ForgetsOutcomes,
    /// With a third voter every node goes on alone as in a pair.
    GoesOnWithoutQuorum,
    /// A node writes the newest row format it knows, whoever reads it.
    WritesNewestRows,
    /// A mailbox keeps its UIDVALIDITY when it is renamed, whatever its new name was told with before.
    RenamesKeepValidity,
    /// A merge leaves a name with the UIDVALIDITY of its mailbox, whatever either side told for it.
    MergesKeepValidity,
}

impl Control {
    /// Every control that switches something off.
    pub const ALL: [Self; 53] = [
        Self::AcknowledgesEarly,
        Self::AcknowledgesUnsynced,
        Self::WritesHomeFirst,
        Self::StartsAloneByItself,
        Self::RenumbersCollisions,
        Self::KeepsUnassigned,
        Self::KeepsAboveUidNext,
        Self::KeepsFreeNumbers,
        Self::MergesWithoutStamp,
        Self::MergesWithoutFloor,
        Self::UnitesByContent,
        Self::RetriesAsNew,
        Self::IgnoresBodies,
        Self::TrustsDisks,
        Self::TransfersInPlace,
        Self::OverwritesBranches,
        Self::ShowsUnconfirmed,
        Self::CountsOwnPause,
        Self::ShowsUnmerged,
        Self::TakesQueueFirst,
        Self::ForgetsMarks,
        Self::ShowsWithoutLease,
        Self::WaitsForNoLease,
        Self::ServesWithoutContact,
        Self::GoesAloneUncompared,
        Self::SplitsSoloWrite,
        Self::ForgetsNewest,
        Self::SkipsNoNumbers,
        Self::SkipsEqually,
        Self::LosesGapAtHeal,
        Self::EntersFromSolo,
        Self::CommitsWithoutGuest,
        Self::MergesUnderFlight,
        Self::OverwritesShown,
        Self::ForgetsWay,
        Self::SettlesUnseen,
        Self::ServesBeforeOthersAreLevel,
        Self::MergesTail,
        Self::TrustsShortMarks,
        Self::MarksNothingServed,
        Self::MergesFromOwnBase,
        Self::ForgetsExpunged,
        Self::PlacesByHome,
        Self::KeepsTwoPlaces,
        Self::AnswersForUnknown,
        Self::SurvivorKeepsNumbers,
        Self::NumbersByClock,
        Self::AcknowledgesFirstHome,
        Self::ForgetsOutcomes,
        Self::GoesOnWithoutQuorum,
        Self::WritesNewestRows,
        Self::RenamesKeepValidity,
        Self::MergesKeepValidity,
    ];

    /// The rule of the machine it switches off, if it is one.
    pub(crate) fn rule(self) -> Option<Rule> {
        Some(match self {
            Self::WritesHomeFirst => Rule::BackupFirst,
            Self::TrustsDisks => Rule::Comparing,
            Self::OverwritesBranches => Rule::MergesBranches,
            Self::ShowsUnconfirmed => Rule::ConfirmedReads,
            Self::CountsOwnPause => Rule::OwnPause,
            Self::ShowsUnmerged => Rule::MergedReads,
            Self::TakesQueueFirst => Rule::QueueLast,
            Self::ShowsWithoutLease => Rule::ReadLease,
            Self::WaitsForNoLease => Rule::LeaseWaits,
            Self::ServesWithoutContact => Rule::HomeLease,
            Self::GoesAloneUncompared => Rule::ComparedBeforeAlone,
            Self::SplitsSoloWrite => Rule::SoloInOneWrite,
            Self::ForgetsNewest => Rule::NewestEpoch,
            Self::LosesGapAtHeal => Rule::GapUntilJoint,
            Self::EntersFromSolo => Rule::GuestOnly,
            Self::CommitsWithoutGuest => Rule::JoinMark,
            Self::MergesUnderFlight => Rule::FinishFirst,
            Self::ServesBeforeOthersAreLevel => Rule::LevelOthers,
            Self::OverwritesShown => Rule::MergesShown,
            Self::ForgetsWay => Rule::RemembersWay,
            Self::MergesTail => Rule::DropsTail,
            Self::TrustsShortMarks => Rule::MarksReachBack,
            Self::MergesFromOwnBase => Rule::CommonBase,
            Self::GoesOnWithoutQuorum => Rule::QuorumDecides,
            Self::WritesNewestRows => Rule::LowerRows,
            _ => return None,
        })
    }

    /// The rules by which branches are merged under it.
    pub(crate) fn merge_rules(self) -> Rules {
        let numbering = match self {
            Self::RenumbersCollisions => Numbering::Colliding,
            Self::KeepsUnassigned => Numbering::Unassigned,
            Self::KeepsAboveUidNext => Numbering::AboveUidNext,
            Self::KeepsFreeNumbers => Numbering::AnchorFirst,
            _ => Numbering::RuleW,
        };
        Rules {
            numbering,
            floor: self != Self::MergesWithoutFloor,
            restamp: self != Self::MergesWithoutStamp,
            by_placement: self != Self::UnitesByContent,
            remembers: self != Self::ForgetsExpunged,
            one_place: self != Self::KeepsTwoPlaces,
            survivor_anew: self != Self::SurvivorKeepsNumbers,
            names_grow: self != Self::MergesKeepValidity,
            marks_inherited: self != Self::ForgetsMarks,
        }
    }

    /// Where the rule is written: the holes H1-H38 and X1-X24 of the research, or a section of the design.
    #[must_use]
    pub fn rule_name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::AcknowledgesEarly => "DESIGN 5",
            Self::AcknowledgesUnsynced => "DESIGN 5",
            Self::WritesHomeFirst => "DESIGN 5",
            Self::StartsAloneByItself => "H22",
            Self::RenumbersCollisions => "H1",
            Self::KeepsUnassigned => "H2",
            Self::KeepsAboveUidNext => "H3",
            Self::KeepsFreeNumbers => "H4",
            Self::MergesWithoutStamp => "H5",
            Self::MergesWithoutFloor => "H5",
            Self::UnitesByContent => "H6",
            Self::RetriesAsNew => "H13",
            Self::IgnoresBodies => "H15",
            Self::TrustsDisks => "H16, X3",
            Self::TransfersInPlace => "H19",
            Self::OverwritesBranches => "H19",
            Self::ShowsUnconfirmed => "H20, X2",
            Self::CountsOwnPause => "H25",
            Self::ShowsUnmerged => "H28",
            Self::TakesQueueFirst => "H14",
            Self::ForgetsMarks => "H29",
            Self::ShowsWithoutLease => "X1",
            Self::WaitsForNoLease => "X3, X4",
            Self::ServesWithoutContact => "X4",
            Self::GoesAloneUncompared => "X5",
            Self::SplitsSoloWrite => "X6",
            Self::ForgetsNewest => "X7",
            Self::SkipsNoNumbers => "X8, X9",
            Self::SkipsEqually => "X8 (ii)",
            Self::LosesGapAtHeal => "X8 (iii)",
            Self::EntersFromSolo => "X10",
            Self::CommitsWithoutGuest => "X11",
            Self::MergesUnderFlight => "X12",
            Self::ServesBeforeOthersAreLevel => "X13",
            Self::OverwritesShown => "rule W",
            Self::ForgetsWay => "DESIGN 7",
            Self::SettlesUnseen => "H14",
            Self::MergesTail => "X14",
            Self::TrustsShortMarks => "X15",
            Self::MarksNothingServed => "X9, X16",
            Self::MergesFromOwnBase => "X17",
            Self::ForgetsExpunged => "X18",
            Self::PlacesByHome => "X19",
            Self::KeepsTwoPlaces => "X20",
            Self::AnswersForUnknown => "X21",
            Self::SurvivorKeepsNumbers => "X22",
            Self::NumbersByClock => "X23",
            Self::AcknowledgesFirstHome => "H14",
            Self::ForgetsOutcomes => "D3",
            Self::GoesOnWithoutQuorum => "DESIGN 6",
            Self::WritesNewestRows => "DESIGN 5",
            Self::RenamesKeepValidity | Self::MergesKeepValidity => "I2",
        }
    }
}
