//! Every tolerated deviation, named, with the client that needs it.
//!
//! - Several blanks where one belongs, blanks at the end of a command (`codec::parser::Parser::space`): old Outlook.
//! - Bare LF as line end (`codec::assemble`): scripts and telnet.
//! - Raw UTF-8 and bare `&` in mailbox names (`codec::utf7::decode`): Thunderbird after ENABLE UTF8=ACCEPT elsewhere.
//! - A separator at the end of a mailbox name (`mailbox::names::normal_name`): Thunderbird.
//! - Commands pipelined behind IDLE and DONE: Apple Mail.
//! - `CHANGEDSINCE 0`, though mod-sequences begin at 1: iOS.
//! - SPECIAL-USE attributes in plain LIST and in LSUB: Outlook 2013 and later.
//! - OR chains some dozens deep (`codec::search::DEPTH_MAX`): iOS.
//! - COPY and MOVE of messages that are gone answer OK: clients repeat a refused one for ever.
//! - `* OK Still here` while idling ([`IDLE_HEARTBEAT_MS`]): NAT boxes and mobile clients.

/// Between two signs of life while a client idles (ms).
pub const IDLE_HEARTBEAT_MS: u64 = 2 * 60 * 1000;
