//! Exit codes of every command (DESIGN 9).

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: refused; nothing changed, asking again gives the same.
    Refused,
    /// 2: unavailable or unknown; ask again.
    Unavailable,
    /// 64: the words of the command are wrong.
    Usage,
    /// 78: `serve` on a folder that belongs to no cluster, or not any more (EX_CONFIG of sysexits.h). A service manager
    /// need not try again.
    NoMember,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Refused => 1,
            Exit::Unavailable => 2,
            Exit::Usage => 64,
            Exit::NoMember => 78,
        })
    }
}
