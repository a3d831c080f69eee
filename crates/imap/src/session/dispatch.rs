//! From a collected command to the code that runs it: which commands are allowed when, and what they ask for first.

use std::sync::Arc;

use bytes::Bytes;
use mailbox::read;
use mailbox::rows::Mailbox;
use vocab::session::Output;
use vocab::{Damaged, Rows};

use super::view::{News, sync_view};
use super::{Answer, ImapSession, LOGIN_FAILURES_MAX, LoginAnswer, Pending, Phase, Query, Work, refusal};
use crate::capability::offer_capabilities;
use crate::codec::command::{Command, parse_command, split_tag};

/// Tag of a piece of a command, `*` when there is none.
pub(super) fn tag_of(piece: &Bytes) -> String {
    split_tag(piece).map_or_else(|| "*".to_owned(), |(tag, _)| tag)
}

/// What must hold for a command.
enum Needs {
    Nothing,
    NoLogin,
    Login,
    Mailbox,
}

fn needs_of(command: &Command) -> Needs {
    match command {
        Command::Capability | Command::Noop("NOOP") | Command::Logout | Command::Id => Needs::Nothing,
        Command::StartTls | Command::Login { .. } | Command::Authenticate { .. } => Needs::NoLogin,
        Command::Noop(_)
        | Command::Close
        | Command::Unselect
        | Command::Expunge(_)
        | Command::Search(_)
        | Command::SearchCharset
        | Command::Fetch(_)
        | Command::Store(_)
        | Command::Copy(_)
        | Command::Move(_) => Needs::Mailbox,
        _ => Needs::Login,
    }
}

impl ImapSession {
    pub(super) fn on_command(&mut self, input: &Bytes) {
        if input.is_empty() {
            return;
        }
        let Some((tag, rest)) = split_tag(input) else { return self.bad("*", "tag expected") };
        let command = match parse_command(&rest) {
            Ok(command) => command,
            Err(malformed) => return self.bad(&tag, malformed.0),
        };
        match needs_of(&command) {
            Needs::NoLogin if self.account.is_some() => return self.bad(&tag, "already logged in"),
            Needs::Login | Needs::Mailbox if self.account.is_none() => return self.bad(&tag, "log in first"),
            Needs::Mailbox if self.selected.is_none() => return self.bad(&tag, "select a mailbox first"),
            _ => {}
        }
        self.begin(tag, command);
    }

    fn begin(&mut self, tag: String, command: Command) {
        match command {
            Command::Capability => {
                self.say(&format!("* CAPABILITY {}\r\n", offer_capabilities(self.standing())));
                self.finish(&tag, "OK CAPABILITY completed");
            }
            Command::Noop(name) if self.account.is_none() => self.finish(&tag, &format!("OK {name} completed")),
            Command::Logout => {
                self.say("* BYE see you\r\n");
                self.say(&format!("{tag} OK LOGOUT completed\r\n"));
                self.close();
            }
            Command::Id => {
                self.say("* ID (\"name\" \"Twinpost\")\r\n");
                self.finish(&tag, "OK ID completed");
            }
            Command::StartTls if self.tls => self.bad(&tag, "TLS is on already"),
            Command::StartTls => {
                self.say(&format!("{tag} OK begin TLS\r\n"));
                self.order(Output::StartTls);
            }
            Command::Login { login, password } => self.login(tag, sasl::Credentials { login, password }),
            Command::Authenticate { mechanism, initial } => self.authenticate(tag, &mechanism, initial.as_deref()),
            Command::Namespace => {
                self.say("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n");
                self.finish(&tag, "OK NAMESPACE completed");
            }
            Command::Enable(names) => self.enable(&tag, &names),
            Command::SearchCharset => {
                self.finish(&tag, "NO [BADCHARSET (US-ASCII UTF-8)] charset not known");
            }
            Command::Unselect => {
                self.selected = None;
                self.finish(&tag, "OK UNSELECT completed");
            }
            Command::Close if self.selected.as_ref().is_none_or(|s| s.read_only) => {
                self.selected = None;
                self.finish(&tag, "OK CLOSE completed");
            }
            Command::Expunge(_) | Command::Store(_) | Command::Move(_)
                if self.selected.as_ref().is_some_and(|s| s.read_only) =>
            {
                self.finish(&tag, "NO the mailbox is selected read-only");
            }
            Command::Subscribe(name, subscribed) => self.subscribe(tag, name, subscribed),
            Command::Create { mailbox, role } => self.create(tag, mailbox, role),
            command => self.ask_rows(Pending::Command { tag, command: Box::new(command) }),
        }
    }

    fn enable(&mut self, tag: &str, names: &[String]) {
        let condstore = names.iter().any(|name| name == "CONDSTORE");
        self.say(if condstore { "* ENABLED CONDSTORE\r\n" } else { "* ENABLED\r\n" });
        if condstore {
            self.enable_condstore();
        }
        self.finish(tag, "OK ENABLE completed");
    }

    /// RFC 7162 §3.1.2: the first CONDSTORE-enabling command tells HIGHESTMODSEQ of the selected mailbox.
    pub(super) fn enable_condstore(&mut self) {
        if std::mem::replace(&mut self.condstore, true) {
            return;
        }
        if let Some(selected) = &self.selected {
            let text = format!("* OK [HIGHESTMODSEQ {}] condstore is on\r\n", selected.view.modseq().0.max(1));
            self.say(&text);
        }
    }

    pub(super) fn ask_rows(&mut self, pending: Pending) {
        match self.account {
            Some(account) => self.ask(Query::Snapshot(account), pending),
            None => self.goodbye("not logged in"),
        }
    }

    /// Shows what changed and says the tagged text.
    pub(super) fn finish_with_news(&mut self, tag: String, text: String) {
        if self.selected.is_some() {
            self.ask_rows(Pending::Finish { tag, text });
        } else {
            self.finish(&tag, &text);
        }
    }

    /// News, then the tagged text; but before the end of the session when the mailbox is gone: what was asked is done, and a
    /// RENAME may number the selected mailbox anew itself.
    fn finish_done(&mut self, tag: &str, text: &str, rows: &dyn Rows) {
        let gone = self.selected_row(rows).is_ok_and(|mailbox| mailbox.is_none());
        if gone {
            self.finish(tag, text);
        }
        // If they cannot be read news can wait.
        let shown = self.show_news(rows, News::All);
        if !gone && shown != Ok(false) {
            self.finish(tag, text);
        }
    }

    /// The mailbox that is selected, under the UIDVALIDITY it was selected with.
    fn selected_row(&self, rows: &dyn Rows) -> Result<Option<Mailbox>, Damaged> {
        let Some(selected) = self.selected.as_deref() else { return Ok(None) };
        let mailbox = read::mailbox(rows, selected.mailbox)?;
        Ok(mailbox.filter(|m| m.uid_validity == selected.uid_validity))
    }

    /// Shows news; `false` when the mailbox is gone and the session with it.
    pub(super) fn show_news(&mut self, rows: &dyn Rows, news: News) -> Result<bool, Damaged> {
        if self.selected.is_none() {
            return Ok(true);
        }
        let Some(mailbox) = self.selected_row(rows)? else {
            self.goodbye("the selected mailbox was deleted or renumbered");
            return Ok(false);
        };
        let Some(selected) = self.selected.as_deref_mut() else { return Ok(true) };
        sync_view(&mut selected.view, rows, &mailbox, (news, self.condstore), &mut self.said)?;
        Ok(true)
    }

    pub(super) fn on_pending(&mut self, pending: Pending, answer: Answer) {
        match (pending, answer) {
            (Pending::Login { tag }, answer) => self.on_login(&tag, &answer),
            (Pending::Room { tag, synchronizing }, answer) => self.on_room(&tag, synchronizing, &answer),
            (Pending::Command { tag, command }, Answer::Snapshot(rows)) => {
                if let Err(damaged) = self.run(tag.clone(), *command, rows) {
                    self.on_damaged(&tag, &damaged);
                }
            }
            (Pending::Seen { tag, fetch }, Answer::Outcome(outcome)) => self.on_seen(tag, fetch, outcome),
            (Pending::FetchAfterSeen { tag, fetch, seen }, Answer::Snapshot(rows)) => {
                if let Err(damaged) = self.fetch_now(tag.clone(), &fetch, seen, rows) {
                    self.on_damaged(&tag, &damaged);
                }
            }
            (Pending::Stored(run), Answer::Outcome(outcome)) => self.on_stored(*run, outcome),
            (Pending::Copied(run), Answer::Outcome(outcome)) => self.on_copied(*run, outcome),
            (Pending::Expunged { tag, closing }, Answer::Outcome(outcome)) => {
                self.on_expunged(&tag, closing, &outcome);
            }
            (Pending::Appended { tag, mailbox }, Answer::Outcome(outcome)) => self.on_appended(tag, mailbox, &outcome),
            (Pending::Changed { tag, name }, Answer::Outcome(outcome)) => self.on_changed(tag, name, &outcome),
            (Pending::Finish { tag, text }, Answer::Snapshot(rows)) => self.finish_done(&tag, &text, rows.as_ref()),
            (Pending::Finish { tag, text }, _) => self.finish(&tag, &text),
            (Pending::News, answer) => self.on_news(answer),
            (Pending::Body, answer) => {
                let bytes = if let Answer::Body(bytes) = answer { Some(bytes) } else { None };
                if let Some(work) = &mut self.work {
                    work.on_body(bytes);
                }
            }
            (pending, Answer::NoRoom) => self.fail(&pending, refusal::NO_ROOM),
            (pending, _) => self.fail(&pending, refusal::UNAVAILABLE),
        }
    }

    fn fail(&mut self, pending: &Pending, text: &str) {
        let tag = match pending {
            Pending::Login { tag }
            | Pending::Room { tag, .. }
            | Pending::Command { tag, .. }
            | Pending::Seen { tag, .. }
            | Pending::FetchAfterSeen { tag, .. }
            | Pending::Expunged { tag, .. }
            | Pending::Appended { tag, .. }
            | Pending::Changed { tag, .. }
            | Pending::Finish { tag, .. } => tag.clone(),
            Pending::Stored(run) => run.tag.clone(),
            Pending::Copied(run) => run.tag.clone(),
            Pending::News | Pending::Body => return,
        };
        self.finish(&tag, text);
    }

    fn run(&mut self, tag: String, command: Command, rows: Arc<dyn Rows>) -> Result<(), Damaged> {
        let news = match &command {
            Command::Fetch(f) if !f.by_uid => Some(News::NoExpunge),
            Command::Store(s) if !s.by_uid => Some(News::NoExpunge),
            Command::Search(s) if !s.by_uid => Some(News::NoExpunge),
            // The sets of these count by what the client knows; it hears of expunges at the end.
            Command::Copy(_) | Command::Move(_) => Some(News::NoExpunge),
            Command::Select { .. } | Command::Close => None,
            _ => Some(News::All),
        };
        if let Some(news) = news
            && !self.show_news(rows.as_ref(), news)?
        {
            return Ok(());
        }
        match command {
            Command::Noop(name) => {
                self.finish(&tag, &format!("OK {name} completed"));
                Ok(())
            }
            Command::Select { mailbox, read_only, condstore } => {
                self.select(&tag, &mailbox, (read_only, condstore), rows.as_ref())
            }
            Command::Status(name, items) => self.status(&tag, &name, &items, rows.as_ref()),
            Command::List(list) => self.list(&tag, &list, rows.as_ref()),
            Command::Lsub(list) => self.lsub(&tag, &list, rows.as_ref()),
            Command::Delete(name) => self.delete(tag, &name, rows.as_ref()),
            Command::Rename(from, to) => self.rename(tag, &from, to, rows.as_ref()),
            Command::Append(append) => self.append(tag, append, rows.as_ref()),
            Command::Idle => {
                self.idle(tag);
                Ok(())
            }
            Command::Close => self.expunge(tag, None, true, rows.as_ref()),
            Command::Expunge(set) => self.expunge(tag, set.as_ref(), false, rows.as_ref()),
            Command::Fetch(fetch) => self.fetch(tag, fetch, rows),
            Command::Search(search) => {
                self.search(tag, search, rows);
                Ok(())
            }
            Command::Store(store) => self.store(tag, store, rows.as_ref()),
            Command::Copy(copy) => self.copy(tag, &copy, false, rows.as_ref()),
            Command::Move(copy) => self.copy(tag, &copy, true, rows.as_ref()),
            _ => {
                self.bad(&tag, "unknown command");
                Ok(())
            }
        }
    }

    pub(super) fn start(&mut self, work: Work) {
        self.work = Some(Box::new(work));
    }

    fn on_login(&mut self, tag: &str, answer: &Answer) {
        match answer {
            Answer::Login(LoginAnswer::Accepted(account)) => {
                self.account = Some(*account);
                let capabilities = offer_capabilities(self.standing());
                self.finish(tag, &format!("OK [CAPABILITY {capabilities}] logged in"));
            }
            Answer::Login(LoginAnswer::Refused) => {
                self.say(&format!("{tag} NO [AUTHENTICATIONFAILED] wrong name or password\r\n"));
                self.login_failures += 1;
                if self.login_failures >= LOGIN_FAILURES_MAX || self.stopping {
                    self.goodbye("too many failed logins");
                }
            }
            _ => self.finish(tag, refusal::UNAVAILABLE),
        }
        self.phase = Phase::Commands;
    }
}
