//! IDLE (RFC 2177).

use super::view::News;
use super::{Answer, ImapSession, Pending, Phase};
use crate::codec::assemble::Assembled;
use crate::quirks::IDLE_HEARTBEAT_MS;

impl ImapSession {
    pub(super) fn idle(&mut self, tag: String) {
        self.say("+ idling\r\n");
        self.phase = Phase::Idling { tag, heartbeat: self.now.plus_ms(IDLE_HEARTBEAT_MS) };
    }

    pub(super) fn on_idle_line(&mut self, event: Assembled) {
        let done = match event {
            Assembled::Incomplete => return,
            Assembled::Command(line) => line.trim_ascii().eq_ignore_ascii_case(b"DONE"),
            _ => false,
        };
        let Phase::Idling { tag, .. } = std::mem::replace(&mut self.phase, Phase::Commands) else { return };
        if done {
            self.finish(&tag, "OK IDLE completed");
        } else {
            self.bad(&tag, "DONE expected");
        }
    }

    pub(super) fn ask_news(&mut self) {
        if self.selected.is_some() {
            self.ask_rows(Pending::News);
        }
    }

    pub(super) fn on_news(&mut self, answer: Answer) {
        // News that cannot be read now come with the next change or command.
        if let Answer::Snapshot(rows) = answer {
            let _ = self.show_news(rows.as_ref(), News::All);
        }
        if self.stopping {
            return self.goodbye("server is shutting down, come again");
        }
        if std::mem::take(&mut self.changed_meanwhile) && !self.closed {
            self.ask_news();
        }
    }
}
