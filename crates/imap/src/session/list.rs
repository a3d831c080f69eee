//! LIST and LSUB (RFC 3501 §6.3.8, §6.3.9, RFC 5258, RFC 5819, RFC 6154).

use std::collections::{BTreeMap, BTreeSet};

use mailbox::names::{INBOX, SEPARATOR};
use mailbox::op::Role;
use mailbox::read;
use mailbox::rows::Mailbox;
use vocab::{Damaged, Rows};

use super::ImapSession;
use super::select::status_line;
use crate::codec::list::{ListCommand, StatusItem, matches_pattern};
use crate::codec::response;

const fn special_use(role: Option<Role>) -> Option<&'static str> {
    match role {
        Some(Role::Drafts) => Some("\\Drafts"),
        Some(Role::Sent) => Some("\\Sent"),
        Some(Role::Junk) => Some("\\Junk"),
        Some(Role::Trash) => Some("\\Trash"),
        Some(Role::Archive) => Some("\\Archive"),
        Some(Role::Inbox) | None => None,
    }
}

/// Patterns with the reference before them and INBOX in capitals.
fn patterns_of(list: &ListCommand) -> Vec<String> {
    let whole = |pattern: &String| {
        let pattern = format!("{}{pattern}", list.reference);
        let (first, rest) = pattern.split_at(pattern.find(SEPARATOR).unwrap_or(pattern.len()));
        if first.eq_ignore_ascii_case(INBOX) { format!("{INBOX}{rest}") } else { pattern }
    };
    list.patterns.iter().map(whole).collect()
}

fn superiors(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices(SEPARATOR).filter_map(|(at, _)| name.get(..at))
}

struct Tree {
    by_name: BTreeMap<String, Mailbox>,
    parents: BTreeSet<String>,
}

impl Tree {
    fn read(rows: &dyn Rows) -> Result<Self, Damaged> {
        let mailboxes = read::mailboxes(rows)?;
        let parents = mailboxes.iter().flat_map(|m| superiors(&m.name).map(str::to_owned)).collect();
        Ok(Self { by_name: mailboxes.into_iter().map(|m| (m.name.clone(), m)).collect(), parents })
    }
    fn attributes(&self, name: &str) -> Vec<&'static str> {
        let mailbox = self.by_name.get(name);
        let mut attributes = Vec::new();
        if mailbox.is_none() {
            attributes.push("\\NonExistent");
        }
        attributes.push(if self.parents.contains(name) { "\\HasChildren" } else { "\\HasNoChildren" });
        attributes.extend(special_use(mailbox.and_then(|m| m.role)));
        attributes
    }
}

impl ImapSession {
    pub(super) fn list(&mut self, tag: &str, list: &ListCommand, rows: &dyn Rows) -> Result<(), Damaged> {
        if list.patterns.iter().all(String::is_empty) {
            self.say("* LIST (\\Noselect) \"/\" \"\"\r\n");
            self.finish(tag, "OK LIST completed");
            return Ok(());
        }
        if list.return_status.contains(&StatusItem::HighestModSeq) {
            self.enable_condstore();
        }
        let patterns = patterns_of(list);
        let hit = |name: &str| patterns.iter().any(|p| matches_pattern(p, name));
        let tree = Tree::read(rows)?;
        let subscribed: BTreeSet<String> = read::subscriptions(rows)?.into_iter().collect();
        let mut names: BTreeSet<&str> = tree.by_name.keys().map(String::as_str).collect();
        if list.select_subscribed {
            names = subscribed.iter().map(String::as_str).collect();
        }
        let mut child_info: BTreeSet<&str> = BTreeSet::new();
        if list.recursive_match {
            child_info = names.iter().flat_map(|name| superiors(name)).filter(|name| hit(name)).collect();
            names.extend(child_info.iter());
        }
        // INBOX first, as clients like it.
        let (inbox, others): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| *name == INBOX);
        for name in inbox.into_iter().chain(others).filter(|name| hit(name)) {
            let mut attributes = tree.attributes(name);
            let mailbox = tree.by_name.get(name);
            if list.select_special_use && special_use(mailbox.and_then(|m| m.role)).is_none() {
                continue;
            }
            if list.return_subscribed && subscribed.contains(name) {
                attributes.push("\\Subscribed");
            }
            let info = if child_info.contains(name) { " (\"CHILDINFO\" (\"SUBSCRIBED\"))" } else { "" };
            self.say(&format!("* LIST ({}) \"/\" {}{info}\r\n", attributes.join(" "), response::mailbox(name)));
            if let Some(mailbox) = mailbox.filter(|_| !list.return_status.is_empty()) {
                self.say(&status_line(mailbox, &list.return_status));
            }
        }
        self.finish(tag, "OK LIST completed");
        Ok(())
    }

    pub(super) fn lsub(&mut self, tag: &str, list: &ListCommand, rows: &dyn Rows) -> Result<(), Damaged> {
        let patterns = patterns_of(list);
        let hit = |name: &str| patterns.iter().any(|p| matches_pattern(p, name));
        let tree = Tree::read(rows)?;
        let subscribed = read::subscriptions(rows)?;
        // RFC 3501 §6.3.9: "%" also shows the unsubscribed parent of a subscribed name, as \Noselect.
        let mut shown: BTreeMap<&str, bool> = BTreeMap::new();
        for name in &subscribed {
            if hit(name) {
                shown.insert(name, true);
            } else if let Some(parent) = superiors(name).filter(|parent| hit(parent)).last() {
                shown.entry(parent).or_insert(false);
            }
        }
        for (name, itself) in shown {
            let attributes = if itself { tree.attributes(name).join(" ") } else { "\\Noselect".to_owned() };
            self.say(&format!("* LSUB ({attributes}) \"/\" {}\r\n", response::mailbox(name)));
        }
        self.finish(tag, "OK LSUB completed");
        Ok(())
    }
}
