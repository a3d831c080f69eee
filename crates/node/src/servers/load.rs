//! How much of a machine is used: what the kernel counts, and how fast it grows between two looks. Linux only.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::files;

/// Bytes of a sector in /proc/diskstats, whatever the disk has.
const SECTOR_BYTES: u64 = 512;

/// What the kernel has counted until one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Milliseconds of a clock that only goes forwards.
    at_ms: u64,
    /// Ticks of all processors: not idle, and all.
    cpu: (u64, u64),
    cores: u64,
    /// Ticks of this process.
    process_cpu: u64,
    memory: Memory,
    /// By interface: bytes in and out.
    network: BTreeMap<String, (u64, u64)>,
    /// Bytes read from and written to the disk of the mail; none when the kernel does not count them (a file system over
    /// several disks).
    disk: Option<(u64, u64)>,
    /// Bytes of its file system: free for this process, and all.
    room: (u64, u64),
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Of the machine.
    total_bytes: u64,
    /// That programs can still have.
    available_bytes: u64,
    /// Of this process.
    process_bytes: u64,
}

/// Processors, over the last look.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Cpu {
    cores: u64,
    /// Of all cores together.
    percent: f64,
    /// The same of this process.
    process_percent: f64,
}

/// One interface, over the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Network {
    interface: String,
    in_bytes_per_s: u64,
    out_bytes_per_s: u64,
}

/// The disk with the mail, over the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Disk {
    total_bytes: u64,
    free_bytes: u64,
    read_bytes_per_s: Option<u64>,
    written_bytes_per_s: Option<u64>,
}

/// How much of this machine is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Load {
    cpu: Cpu,
    memory: Memory,
    network: Vec<Network>,
    disk: Disk,
}

impl Counted {
    /// Looks now. What cannot be read counts as nothing: no mail depends on it.
    pub(crate) fn now(at_ms: u64, mail: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (cpu, cores) = processors(&text("/proc/stat"));
        let resident = kibibytes(&text("/proc/self/status"), "VmRSS");
        let device = rustix::fs::stat(mail).ok().map(|s| (rustix::fs::major(s.st_dev), rustix::fs::minor(s.st_dev)));
        Self {
            at_ms,
            cpu,
            cores,
            process_cpu: process_ticks(&text("/proc/self/stat")),
            memory: Memory { process_bytes: resident, ..memory(&text("/proc/meminfo")) },
            network: interfaces(&text("/proc/net/dev")),
            disk: device.and_then(|device| sectors(&text("/proc/diskstats"), device)),
            room: files::room(mail).unwrap_or_default(),
        }
    }

    /// What was used between `before` and this.
    pub(crate) fn since(&self, before: &Self) -> Load {
        let passed_ms = self.at_ms.saturating_sub(before.at_ms).max(1);
        let rate = |now: u64, then: u64| now.saturating_sub(then).saturating_mul(1000) / passed_ms;
        let all = self.cpu.1.saturating_sub(before.cpu.1);
        let network = self.network.iter().filter(|(name, _)| *name != "lo").map(|(name, (into, out))| {
            let (was_in, was_out) = before.network.get(name).copied().unwrap_or((*into, *out));
            Network {
                interface: name.clone(),
                in_bytes_per_s: rate(*into, was_in),
                out_bytes_per_s: rate(*out, was_out),
            }
        });
        let disk = self.disk.zip(before.disk);
        Load {
            cpu: Cpu {
                cores: self.cores,
                percent: percent(self.cpu.0.saturating_sub(before.cpu.0), all),
                process_percent: percent(self.process_cpu.saturating_sub(before.process_cpu), all),
            },
            memory: self.memory.clone(),
            network: network.collect(),
            disk: Disk {
                free_bytes: self.room.0,
                total_bytes: self.room.1,
                read_bytes_per_s: disk.map(|(now, then)| rate(now.0, then.0)),
                written_bytes_per_s: disk.map(|(now, then)| rate(now.1, then.1)),
            },
        }
    }
}

impl Load {
    /// Gauges of this machine, in base units.
    pub(crate) fn measure(&self) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge for people")]
        let gauge = |n: u64| n as f64;
        metrics::gauge!("twinpost_machine_cpu_ratio").set(self.cpu.percent / 100.0);
        metrics::gauge!("twinpost_process_cpu_ratio").set(self.cpu.process_percent / 100.0);
        metrics::gauge!("twinpost_machine_memory_bytes").set(gauge(self.memory.total_bytes));
        metrics::gauge!("twinpost_machine_memory_available_bytes").set(gauge(self.memory.available_bytes));
        metrics::gauge!("twinpost_process_memory_bytes").set(gauge(self.memory.process_bytes));
        metrics::gauge!("twinpost_mail_disk_bytes").set(gauge(self.disk.total_bytes));
        metrics::gauge!("twinpost_mail_disk_free_bytes").set(gauge(self.disk.free_bytes));
    }
}

/// With one digit after the point.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 * 1000.0 / whole as f64).round() / 10.0 }
}

fn number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// /proc/stat: ticks not idle and all, and how many processors there are.
fn processors(stat: &str) -> ((u64, u64), u64) {
    let cores = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    let ticks: Vec<u64> = stat
        .lines()
        .find_map(|line| line.strip_prefix("cpu "))
        .map(|rest| rest.split_whitespace().take(8).map(|one| number(Some(one))).collect())
        .unwrap_or_default();
    // user nice system idle iowait irq softirq steal; guest time is part of user.
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    let all: u64 = ticks.iter().sum();
    ((all - idle, all), cores as u64)
}

/// /proc/self/stat: user and system ticks. The name in brackets may hold anything.
fn process_ticks(stat: &str) -> u64 {
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let mut fields = after.split_whitespace().skip(11);
    number(fields.next()) + number(fields.next())
}

/// A line `NAME: 12 kB` of the kernel, in bytes.
fn kibibytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    number(line.and_then(|rest| rest.split_whitespace().next())).saturating_mul(1024)
}

fn memory(meminfo: &str) -> Memory {
    let of = |name| kibibytes(meminfo, name);
    Memory { total_bytes: of("MemTotal"), available_bytes: of("MemAvailable"), process_bytes: 0 }
}

fn interfaces(dev: &str) -> BTreeMap<String, (u64, u64)> {
    let read = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some((name.trim().to_owned(), (number(fields.first().copied()), number(fields.get(8).copied()))))
    };
    dev.lines().skip(2).filter_map(read).collect()
}

/// /proc/diskstats: bytes read and written of one device.
fn sectors(diskstats: &str, (major, minor): (u32, u32)) -> Option<(u64, u64)> {
    diskstats.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is = |at: usize, wanted: u32| fields.get(at).and_then(|field| field.parse().ok()) == Some(wanted);
        let bytes = |at: usize| number(fields.get(at).copied()).saturating_mul(SECTOR_BYTES);
        (is(0, major) && is(1, minor)).then(|| (bytes(5), bytes(9)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mon_07_the_kernels_texts_are_understood() {
        let stat =
            "cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 50 0 25 400 25 0 0 0 0 0\ncpu1 50 0 25 400 25 0 0 0 0 0\nintr 1\n";
        assert_eq!(processors(stat), ((150, 1000), 2));
        assert_eq!(processors(""), ((0, 0), 0));
        assert_eq!(process_ticks("7 (a) b) S 1 1 1 0 -1 4 9 0 0 0 30 12 0 0 20 0\n"), 42);
        assert_eq!(kibibytes("Name: x\nVmRSS:\t 250 kB\n", "VmRSS"), 256_000);
        let found = memory("MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\n");
        assert_eq!((found.total_bytes, found.available_bytes), (2_097_152, 1_048_576));
        let dev = "Inter-|   Receive\n face |bytes\n    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n  eth0: 700 1 0 0 0 0 0 0 900 1 0 0 0 0 0 0\n";
        assert_eq!(interfaces(dev), BTreeMap::from([("lo".into(), (5, 5)), ("eth0".into(), (700, 900))]));
        let disks = " 254 0 vda 1 0 10 0 1 0 20 0 0 0 0\n 254 1 vda1 1 0 4 0 1 0 6 0 0 0 0\n";
        assert_eq!(sectors(disks, (254, 1)), Some((2048, 3072)));
        assert_eq!(sectors(disks, (0, 40)), None, "a file system over several disks");
    }

    #[test]
    fn mon_07_rates_are_over_the_time_between_two_looks() {
        let before = Counted {
            at_ms: 1_000,
            cpu: (100, 1000),
            process_cpu: 10,
            network: BTreeMap::from([("eth0".into(), (1_000, 2_000)), ("lo".into(), (1, 1))]),
            disk: Some((0, 4_000)),
            ..Counted::default()
        };
        let after = Counted {
            at_ms: 3_000,
            cpu: (200, 1400),
            cores: 4,
            process_cpu: 30,
            network: BTreeMap::from([("eth0".into(), (5_000, 2_000)), ("lo".into(), (9, 9)), ("wg0".into(), (7, 7))]),
            disk: Some((2_000, 4_000)),
            room: (10, 100),
            ..Counted::default()
        };
        let load = after.since(&before);
        assert_eq!(load.cpu, Cpu { cores: 4, percent: 25.0, process_percent: 5.0 });
        let rates: Vec<_> = load.network.iter().map(|n| (&*n.interface, n.in_bytes_per_s, n.out_bytes_per_s)).collect();
        assert_eq!(rates, [("eth0", 2_000, 0), ("wg0", 0, 0)], "a new interface has no rate yet");
        assert_eq!((load.disk.read_bytes_per_s, load.disk.written_bytes_per_s), (Some(1_000), Some(0)));
        assert_eq!(Counted::default().since(&Counted::default()).cpu.percent, 0.0);
        // Counters that begin anew (an interface made again) are no rate.
        assert_eq!(before.since(&after).network[0].in_bytes_per_s, 0);
    }

    #[test]
    fn mon_07_this_machine_tells() {
        let now = Counted::now(5, &std::env::temp_dir());
        assert!(now.cores > 0 && now.cpu.1 > 0 && now.memory.total_bytes > now.memory.process_bytes);
        assert!(now.memory.process_bytes > 0 && now.room.1 > 0);
    }
}
