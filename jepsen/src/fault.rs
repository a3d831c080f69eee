//! The faults by name, and what they may do to the service.

use std::str::FromStr;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing; the measure of what a calm time looks like.
    None,
    /// SIGKILL to the daemon; its guard speaks.
    Kill,
    /// SIGKILL to guard and daemon at once.
    KillAll,
    /// One machine loses power: all its links and all its processes at the same moment.
    Crash,
    /// SIGSTOP to both for up to 800 ms.
    PauseShort,
    /// SIGSTOP to both for seconds.
    PauseLong,
    /// SIGSTOP to both for seconds while nothing goes between the nodes, which lasts a while longer: who wakes up is told of
    /// nothing that happened meanwhile, and clients reach it.
    PauseCut,
    /// All links of the machine.
    Cut,
    /// Nothing leaves the machine.
    OneWayOut,
    /// Nothing comes to the machine.
    OneWayIn,
    /// Nothing between the nodes; both reach the router and the clients.
    Peers,
    /// The private link alone.
    Private,
    /// The client network of one machine alone.
    ClientNet,
    /// Packets come late, and some are lost.
    Slow,
    /// The router.
    Router,
    /// The disk is full.
    DiskFull,
    /// The disk is slow.
    DiskSlow,
    /// The disk of the log alone is full.
    LogFull,
    /// The disk of the log alone is slow.
    LogSlow,
    /// The clock jumps.
    Clock,
    /// By command.
    Switchover,
    /// Cut and mended again and again.
    Flap,
    /// One after the other, by SIGTERM.
    Rolling,
    /// SIGKILL to everything on all machines at once.
    Power,
}

use Fault::{
    ClientNet, Clock, Crash, Cut, DiskFull, DiskSlow, Flap, Kill, KillAll, LogFull, LogSlow, OneWayIn, OneWayOut,
    PauseCut, PauseLong, PauseShort, Peers, Power, Private, Rolling, Router, Slow, Switchover,
};

impl Fault {
    /// All that can be asked for.
    pub const ALL: [Self; 23] = [
        Kill, KillAll, Crash, PauseShort, PauseLong, PauseCut, Cut, OneWayOut, OneWayIn, Peers, Private, ClientNet,
        Slow, Router, DiskFull, DiskSlow, LogFull, LogSlow, Clock, Switchover, Flap, Rolling, Power,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Kill => "kill",
            KillAll => "kill-all",
            Crash => "crash",
            PauseShort => "pause-short",
            PauseLong => "pause-long",
            PauseCut => "pause-cut",
            Cut => "cut",
            OneWayOut => "one-way-out",
            OneWayIn => "one-way-in",
            Peers => "peers",
            Private => "private",
            ClientNet => "client-net",
            Slow => "slow",
            Router => "router",
            DiskFull => "disk-full",
            DiskSlow => "disk-slow",
            LogFull => "log-full",
            LogSlow => "log-slow",
            Clock => "clock",
            Switchover => "switchover",
            Flap => "flap",
            Rolling => "rolling",
            Power => "power",
        }
    }

    /// Whether it must not move the service.
    #[must_use]
    pub const fn is_quiet(self) -> bool {
        matches!(self, Self::None | PauseShort | Private | Slow | Router | DiskSlow | LogFull | LogSlow | Clock)
    }

    /// Whether it hits one node.
    #[must_use]
    pub const fn has_target(self) -> bool {
        !matches!(self, Self::None | Switchover | Rolling | Power | Router | Peers)
    }

    /// Whether clients are cut off by the fault itself, whatever the nodes do.
    #[must_use]
    pub const fn cuts_clients(self) -> bool {
        matches!(self, ClientNet | Power | Slow)
    }
}

impl FromStr for Fault {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = || Self::ALL.map(Self::name).join(" ");
        Self::ALL
            .into_iter()
            .find(|fault| fault.name() == text)
            .ok_or_else(|| format!("no fault {text}; there are {}", known()))
    }
}
