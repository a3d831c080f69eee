//! The cluster's CA is exchanged: which step comes when. No clock, no files, no keys: every node does what [`Rotation::duty`]
//! says and confirms it, and the next step begins when every member has confirmed the one before. All of it stands in one
//! setting, so whoever crashes finds its duty again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use vocab::NodeId;

use crate::apply::Faults;
use crate::state::Member;

/// Name of the setting that holds [`CertificatesBody`]; only the program writes it.
pub const CERTIFICATES_SETTING: &str = "certificates";
/// Whether a setting is the program's own, not an operator's.
#[must_use]
pub fn is_own_setting(name: &str) -> bool {
    name == CERTIFICATES_SETTING
}

/// A CA's certificate (bytes of PEM).
const CA_BYTES_MAX: usize = 16 * 1024;

/// Body of the setting [`CERTIFICATES_SETTING`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificatesBody {
    /// The exchange under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// How many were finished or called off.
    #[serde(default)]
    pub finished: u32,
}

/// How far an exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RotationStep {
    /// Every node trusts both, and every node that stores mail has the key of the new one; the old one still issues.
    Trust,
    /// Every node gets certificates of the new one.
    Issue,
    /// The old one is trusted no more and its key is deleted.
    Drop,
}

impl std::fmt::Display for RotationStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Trust => "trust both",
            Self::Issue => "new certificates",
            Self::Drop => "drop the old one",
        })
    }
}

/// An exchange of the CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The CA that goes (PEM).
    pub old: String,
    /// The CA that stays (PEM).
    pub new: String,
    /// The node that made the new one, and has its key first.
    pub by: NodeId,
    /// How far it is.
    pub step: RotationStep,
    /// An operator wants the first step to last until its word: clients must learn the new CA first.
    #[serde(default)]
    pub hold: bool,
    /// Who has done this step.
    pub confirmed: BTreeSet<NodeId>,
}

/// What a node must have now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duty<'a> {
    /// CAs to trust (PEM), the one that issues first. No other is trusted.
    pub trusted: Vec<&'a str>,
    /// CAs whose keys a node that stores mail must have, the one that issues first. It keeps no other.
    pub keys: Vec<&'a str>,
    /// Certificates of this node are of the CA that issues.
    pub reissue: bool,
}

/// Why an order is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotationRefused {
    /// One is under way.
    #[error("an exchange of the CA is under way already: `twinpost cluster certificates` says what it waits for")]
    UnderWay,
    /// None is under way.
    #[error("no exchange of the CA is under way")]
    None,
    /// It cannot be called off any more.
    #[error("nodes have certificates of the new CA already: the exchange can only be finished")]
    TooLate,
    /// It does not wait for an operator.
    #[error("the exchange of the CA does not wait for an operator's word")]
    NotHeld,
}

impl CertificatesBody {
    /// The exchange of `old` for `new` begins; the node `by` has made the new one.
    ///
    /// # Errors
    /// [`RotationRefused::UnderWay`].
    pub fn begin(&self, (old, new): (&str, &str), by: NodeId, hold: bool) -> Result<Self, RotationRefused> {
        if self.rotation.is_some() {
            return Err(RotationRefused::UnderWay);
        }
        let (old, new) = (old.to_owned(), new.to_owned());
        let rotation = Rotation { old, new, by, step: RotationStep::Trust, hold, confirmed: BTreeSet::new() };
        Ok(Self { rotation: Some(rotation), ..self.clone() })
    }

    /// An operator's word that a held exchange may go on.
    ///
    /// # Errors
    /// [`RotationRefused::NotHeld`], [`RotationRefused::None`].
    pub fn go_on(&self) -> Result<Self, RotationRefused> {
        let rotation = self.rotation.clone().ok_or(RotationRefused::None)?;
        if !rotation.hold {
            return Err(RotationRefused::NotHeld);
        }
        Ok(Self { rotation: Some(Rotation { hold: false, ..rotation }), ..self.clone() })
    }

    /// The exchange is called off: from now on it is the new one that goes. Only while nobody has a certificate of it.
    ///
    /// # Errors
    /// [`RotationRefused::TooLate`], [`RotationRefused::None`].
    pub fn call_off(&self) -> Result<Self, RotationRefused> {
        let rotation = self.rotation.clone().ok_or(RotationRefused::None)?;
        if rotation.step != RotationStep::Trust {
            return Err(RotationRefused::TooLate);
        }
        let Rotation { old, new, by, .. } = rotation;
        let back =
            Rotation { old: new, new: old, by, step: RotationStep::Drop, hold: false, confirmed: BTreeSet::new() };
        Ok(Self { rotation: Some(back), ..self.clone() })
    }

    /// As it is once `node` has confirmed the present step: with the next one, if everybody has. `None`: nothing changes.
    #[must_use]
    pub fn confirm(&self, node: NodeId, members: &BTreeMap<NodeId, Member>) -> Option<Self> {
        let mut next = self.clone();
        let new = next.rotation.as_mut()?.confirmed.insert(node);
        match next.advance(members) {
            Some(further) => Some(further),
            None => new.then_some(next),
        }
    }

    /// The next step, once every member has confirmed the present one. `None`: it is not time yet. One step at a time.
    #[must_use]
    pub fn advance(&self, members: &BTreeMap<NodeId, Member>) -> Option<Self> {
        let rotation = self.rotation.as_ref()?;
        if rotation.hold || !rotation.waits_for(members).is_empty() {
            return None;
        }
        let step = match rotation.step {
            RotationStep::Trust => RotationStep::Issue,
            RotationStep::Issue => RotationStep::Drop,
            RotationStep::Drop => return Some(Self { rotation: None, finished: self.finished + 1 }),
        };
        let rotation = Rotation { step, confirmed: BTreeSet::new(), ..rotation.clone() };
        Some(Self { rotation: Some(rotation), ..self.clone() })
    }
}

impl Rotation {
    /// What a node must have in this step.
    #[must_use]
    pub fn duty(&self) -> Duty<'_> {
        let (old, new) = (self.old.as_str(), self.new.as_str());
        match self.step {
            RotationStep::Trust => Duty { trusted: vec![old, new], keys: vec![old, new], reissue: false },
            RotationStep::Issue => Duty { trusted: vec![new, old], keys: vec![new], reissue: true },
            RotationStep::Drop => Duty { trusted: vec![new], keys: vec![new], reissue: true },
        }
    }

    /// Members that have not confirmed this step.
    #[must_use]
    pub fn waits_for(&self, members: &BTreeMap<NodeId, Member>) -> Vec<NodeId> {
        members.keys().filter(|node| !self.confirmed.contains(node)).copied().collect()
    }
}

pub(crate) fn check(body: &CertificatesBody, place: &str, faults: &mut Faults) {
    let Some(rotation) = &body.rotation else { return };
    for (name, ca) in [("old", &rotation.old), ("new", &rotation.new)] {
        let fits = ca.len() <= CA_BYTES_MAX && ca.starts_with("-----BEGIN CERTIFICATE-----");
        faults.require(fits, format!("{place}/body/rotation/{name}"), "is no certificate in PEM");
    }
    faults.require(rotation.old != rotation.new, format!("{place}/body/rotation/new"), "is the old one");
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const W: NodeId = NodeId(3);

    fn members(nodes: &[NodeId]) -> BTreeMap<NodeId, Member> {
        let member = |id: &NodeId| Member {
            id: *id,
            name: format!("n{}", id.0),
            peer_address: format!("192.0.2.{}:6420", id.0),
            address: format!("192.0.2.{}", id.0),
            data: *id != W,
            paths: Vec::new(),
        };
        nodes.iter().map(|id| (*id, member(id))).collect()
    }

    fn begun(hold: bool) -> CertificatesBody {
        CertificatesBody::default().begin(("old", "new"), A, hold).expect("none was under way")
    }

    fn step(body: &CertificatesBody) -> Option<RotationStep> {
        body.rotation.as_ref().map(|rotation| rotation.step)
    }

    /// Everybody confirms; who is last brings the next step.
    fn all_confirm(mut body: CertificatesBody, nodes: &[NodeId]) -> CertificatesBody {
        let before = step(&body);
        for node in nodes {
            assert_eq!(step(&body), before, "node {} is needed", node.0);
            body = body.confirm(*node, &members(nodes)).expect("something new");
        }
        body
    }

    #[test]
    fn each_step_begins_when_every_member_has_confirmed_the_one_before() {
        let all = [A, B, W];
        let trust = begun(false);
        let duty = |body: &CertificatesBody| {
            let rotation = body.rotation.as_ref().expect("under way");
            let duty = rotation.duty();
            (duty.trusted.join(" "), duty.keys.join(" "), duty.reissue)
        };
        assert_eq!(duty(&trust), ("old new".into(), "old new".into(), false));
        let issue = all_confirm(trust, &all);
        assert_eq!((step(&issue), duty(&issue)), (Some(RotationStep::Issue), ("new old".into(), "new".into(), true)));
        let drop = all_confirm(issue, &all);
        assert_eq!((step(&drop), duty(&drop)), (Some(RotationStep::Drop), ("new".into(), "new".into(), true)));
        let done = all_confirm(drop, &all);
        assert_eq!(done, CertificatesBody { rotation: None, finished: 1 });
        assert_eq!((done.advance(&members(&all)), done.confirm(A, &members(&all))), (None, None));
    }

    #[test]
    fn a_node_that_is_away_holds_the_step_until_it_is_back_or_removed() {
        let both = members(&[A, B]);
        let waits = begun(false).confirm(A, &both).expect("confirmed");
        assert_eq!(waits.confirm(A, &both), None, "said once is enough");
        assert_eq!(waits.advance(&both), None);
        assert_eq!(waits.rotation.as_ref().map(|rotation| rotation.waits_for(&both)), Some(vec![B]));
        assert_eq!(step(&waits.confirm(B, &both).expect("it is back")), Some(RotationStep::Issue));
        assert_eq!(step(&waits.advance(&members(&[A])).expect("it is removed")), Some(RotationStep::Issue));
    }

    #[test]
    fn a_confirmation_counts_for_its_step_alone() {
        let both = members(&[A, B]);
        let issue = all_confirm(begun(false), &[A, B]);
        assert!(issue.rotation.as_ref().is_some_and(|rotation| rotation.confirmed.is_empty()));
        assert_eq!(issue.advance(&both), None);
    }

    #[test]
    fn an_operator_holds_the_first_step_for_the_clients() {
        let held = all_confirm(begun(true), &[A, B]);
        assert_eq!(step(&held), Some(RotationStep::Trust));
        let on = held.go_on().expect("it is held");
        assert_eq!(step(&on.advance(&members(&[A, B])).expect("all have confirmed")), Some(RotationStep::Issue));
        assert_eq!(on.go_on(), Err(RotationRefused::NotHeld));
        assert_eq!(CertificatesBody::default().go_on(), Err(RotationRefused::None));
    }

    #[test]
    fn it_is_called_off_only_while_nobody_has_a_certificate_of_the_new_one() {
        let back = begun(true).confirm(A, &members(&[A, B])).expect("confirmed").call_off().expect("early enough");
        let rotation = back.rotation.as_ref().expect("the new one goes everywhere");
        assert_eq!((rotation.duty().trusted, rotation.duty().keys), (vec!["old"], vec!["old"]));
        assert!(rotation.confirmed.is_empty());
        let done = all_confirm(back, &[A, B]);
        assert_eq!(done.rotation, None);
        let issue = all_confirm(begun(false), &[A, B]);
        assert_eq!(issue.call_off(), Err(RotationRefused::TooLate));
        assert_eq!(issue.begin(("new", "newer"), B, false), Err(RotationRefused::UnderWay));
        assert_eq!(done.call_off(), Err(RotationRefused::None));
    }
}
