//! The other clients of a history: keepers who do with their mailboxes whatever IMAP lets them, POP3, JMAP. Which histories
//! have them is decided by a stream of chance of its own, so that those without stay as they are.

mod facts;
mod jmap;
mod keeper;
mod pop3;
mod watch;

use mailbox::op::{AccountOp, Command};
use vocab::{AccountId, BlobHash, CommandId, Flags, PlacementId, Uid};

use bytes::Bytes;
use std::collections::BTreeMap;

use crate::clients::{ACCOUNTS, Client, FIRST_ACCOUNT, Kind, Pending, Resync};
use crate::outbound::Submitter;
use crate::rng::Rng;
use crate::vocabulary::{Answer, Happening, JobKind, Work};
use crate::world::World;
use jmap::Jmap;
use pop3::Pop3;
use watch::Watch;

/// Histories that have them (percent).
const SHARE: u64 = 60;
/// Makes this stream of chance another than the history's.
const STREAM: u64 = 0x4341_5354_2121_2121;
/// Of each kind.
const EACH: usize = 2;

/// Kind of the documents whose every value is another.
pub(crate) const NOTE: &str = "note";

/// Whether the history of this seed has more kinds of clients.
pub(crate) fn is_in(seed: u64) -> bool {
    Rng::new(seed ^ STREAM).percent(SHARE)
}

/// What a client of another protocol remembers.
pub(crate) enum Part {
    None,
    Pop3(Pop3),
    Jmap(Jmap),
    Submitter(Submitter),
    Watch(Watch),
}

/// A change a client has asked for, with what it knew then.
#[derive(Clone, Debug)]
pub(crate) struct Intent {
    pub(crate) account: AccountId,
    pub(crate) id: CommandId,
    pub(crate) op: AccountOp,
    /// What the client was last told of the messages it names.
    pub(crate) known: BTreeMap<Uid, (PlacementId, Flags)>,
    /// The side that told it.
    pub(crate) side: Option<usize>,
    /// It knows things of both sides of a split.
    pub(crate) wanders: bool,
    /// Merges without a base when it last looked: after another one its UIDs mean nothing (M12).
    pub(crate) blind_merges: u64,
    pub(crate) blob: Option<BlobHash>,
}

impl World {
    pub(crate) fn make_cast(&mut self) {
        let first = self.clients.len();
        for number in 0..EACH {
            let resync = [Resync::Quick, Resync::CondStore][number % 2];
            let kind = Kind::Reader { account: self.some_account(), resync, node: self.some_node(), keeper: true };
            self.clients.push(Client::new(kind, Part::None));
            let (submitter, watch) = (Part::Submitter(Submitter::default()), Part::Watch(Watch::default()));
            for part in [Part::Pop3(Pop3::default()), Part::Jmap(Jmap::default()), submitter, watch] {
                let kind = Kind::Part { account: self.some_account(), node: self.some_node() };
                self.clients.push(Client::new(kind, part));
            }
        }
        for client in first..self.clients.len() {
            let at = self.rng.range(10, 600);
            self.at(at, Happening::Client(client));
        }
    }

    fn some_account(&mut self) -> AccountId {
        AccountId(FIRST_ACCOUNT + self.rng.range(0, ACCOUNTS))
    }

    /// Half of them alternate.
    fn some_node(&mut self) -> Option<usize> {
        let node = self.rng.index(self.nodes.len());
        self.rng.percent(50).then_some(node)
    }

    pub(crate) fn part_acts(&mut self, c: usize, n: usize, account: AccountId) {
        match self.clients[c].part {
            Part::None => {}
            Part::Pop3(_) => self.pop3_acts(c, n, account),
            Part::Jmap(_) => self.jmap_acts(c, n, account),
            Part::Submitter(_) => self.submitter_acts(c, n, account),
            Part::Watch(_) => self.watcher_acts(c, n, account),
        }
    }

    /// An answer that is no success of a change.
    pub(crate) fn part_told(&mut self, c: usize, answer: Option<Answer>) {
        if let (Part::Pop3(pop3), Some(Err(_)) | None) = (&mut self.clients[c].part, answer) {
            pop3.hang_up();
        }
    }

    pub(crate) fn show_part(&mut self, n: usize, c: usize, account: AccountId) {
        match self.clients[c].part {
            Part::None | Part::Submitter(_) => {}
            Part::Pop3(_) => self.show_maildrop(n, c, account),
            Part::Jmap(_) => self.show_emails(n, c, account),
            Part::Watch(_) => self.begin_watch(n, c, account),
        }
    }

    /// Asks for a change at a node.
    pub(crate) fn change(&mut self, c: usize, n: usize, account: AccountId, op: AccountOp, body: Option<Bytes>) {
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        let (id, settled) = (process.command_id(n), process.settled());
        let intent = self.intend(c, account, id, &op, body.as_ref());
        let command = Command { id, settled, op };
        let work = Work::Account { account, command, body };
        self.begin(c, n, Pending::Change(Box::new(intent)), JobKind::Submit(work));
    }
}
