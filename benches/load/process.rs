//! What a process costs: its processor time and its memory, as /proc tells.
//!
//! Owned by the crowd, which looks from time to time. It never touches the process.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Kilobytes: resident, and the anonymous ones among them, which are the process's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Memory {
    resident: u64,
    anonymous: u64,
}

/// Nanoseconds that each thread has run.
type Spent = Vec<(u64, u64)>;

/// One process that is watched.
pub struct Process {
    pid: u32,
    every: Duration,
    began: Instant,
    /// Processor time of all threads, and of the busiest, at the beginning.
    spent: Spent,
    /// Of all threads, before the clock began anew.
    earlier: u64,
    before: Memory,
    /// The anonymous kilobytes, counted page by page; what `before` has is only about right.
    exactly_before: Option<u64>,
    /// Resident kilobytes when the clock began anew, since when the kernel keeps the peak.
    resident: u64,
    /// What all threads had run when it was last asked whether they still do.
    stood: (Instant, u64),
    peak: Memory,
    next_at: Instant,
    told_at: Instant,
    over_time: Vec<(Duration, Memory)>,
}

/// Who has hardly run for so long, a twentieth of it, has done everything.
const REST: Duration = Duration::from_millis(100);

/// How often the peak is looked for.
const LOOK: Duration = Duration::from_millis(200);

impl Process {
    /// Begins to watch; every so often a line of the table of memory is written.
    pub fn watch(pid: u32, every: Duration, now: Instant) -> Result<Process, String> {
        let before = memory(pid).ok_or_else(|| format!("there is no process {pid}"))?;
        Ok(Process {
            pid,
            every,
            began: now,
            spent: spent(pid),
            earlier: 0,
            before,
            exactly_before: exact_anonymous(pid),
            resident: before.resident,
            stood: (now, 0),
            peak: before,
            next_at: now,
            told_at: now,
            over_time: Vec::new(),
        })
    }

    /// Begins anew with what time has cost; the memory of the beginning stays.
    pub fn restart_clock(&mut self, now: Instant) {
        let before = std::mem::replace(&mut self.spent, spent(self.pid));
        self.earlier += growth(&before, &self.spent).iter().sum::<u64>();
        self.began = now;
        self.told_at = now;
        // "5" is for the peak, proc(5).
        if fs::write(format!("/proc/{}/clear_refs", self.pid), "5").is_ok() {
            self.resident = memory(self.pid).unwrap_or_default().resident;
        }
    }

    /// Looks at the memory, if it is time to.
    pub fn look(&mut self, now: Instant) {
        if now < self.next_at {
            return;
        }
        self.next_at = now + LOOK;
        let Some(memory) = memory(self.pid) else { return };
        self.peak.resident = self.peak.resident.max(memory.resident);
        self.peak.anonymous = self.peak.anonymous.max(memory.anonymous);
        if now >= self.told_at {
            self.told_at += self.every;
            self.over_time.push((now.saturating_duration_since(self.began), memory));
        }
    }

    /// Has it come to rest? To be asked again and again; it takes `REST` at least.
    pub fn is_at_rest(&mut self, now: Instant) -> bool {
        let (asked, before) = self.stood;
        if now < asked + REST {
            return false;
        }
        let total = spent(self.pid).iter().map(|(_, time)| time).sum();
        self.stood = (now, total);
        total - before < REST.as_nanos() as u64 / 20
    }

    /// The figures so far.
    pub fn tell(&self, now: Instant) -> Value {
        let after = memory(self.pid).unwrap_or_default();
        let nanos = (now - self.began).as_nanos().max(1) as f64;
        let threads = growth(&self.spent, &spent(self.pid));
        let percent = |time: u64| (1000.0 * time as f64 / nanos).round() / 10.0;
        let kilobytes =
            |of: fn(&Memory) -> u64| json!([of(&self.before), of(&self.peak), of(&after)]);
        let over_time: Vec<_> =
            self.over_time.iter().map(|(at, m)| json!([at.as_secs(), m.anonymous])).collect();
        json!({
            "cpu_percent": percent(threads.iter().sum()),
            "cpu_ns": threads.iter().sum::<u64>(),
            "cpu_ns_earlier": self.earlier,
            "busiest_thread_percent": percent(threads.iter().copied().max().unwrap_or(0)),
            "resident_kb": kilobytes(|memory| memory.resident),
            "anonymous_kb": kilobytes(|memory| memory.anonymous),
            "resident_kb_exact_peak": [self.resident, peak(self.pid)],
            "anonymous_kb_exactly": [self.exactly_before, exact_anonymous(self.pid)],
            "anonymous_kb_over_time": over_time,
        })
    }
}

/// What each thread has run since.
fn growth(before: &Spent, after: &Spent) -> Vec<u64> {
    let grown = |(thread, time): &(u64, u64)| {
        let before = before.iter().find(|(other, _)| other == thread);
        time.saturating_sub(before.map_or(0, |(_, time)| *time))
    };
    after.iter().map(grown).collect()
}

fn spent(pid: u32) -> Spent {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let time = |entry: fs::DirEntry| {
        let thread = entry.file_name().to_str()?.parse().ok()?;
        let text = fs::read_to_string(entry.path().join("schedstat")).ok()?;
        Some((thread, text.split_whitespace().next()?.parse().ok()?))
    };
    threads.filter_map(Result::ok).filter_map(time).collect()
}

fn memory(pid: u32) -> Option<Memory> {
    parse_memory(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// The most kilobytes that were ever resident, or since that was reset.
fn peak(pid: u32) -> Option<u64> {
    kilobytes(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmHWM:")
}

fn exact_anonymous(pid: u32) -> Option<u64> {
    kilobytes(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Anonymous:")
}

fn parse_memory(status: &str) -> Option<Memory> {
    let kilobytes = |name| kilobytes(status, name);
    Some(Memory { resident: kilobytes("VmRSS:")?, anonymous: kilobytes("RssAnon:")? })
}

/// The value of a line `name: … kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let text = "Name:\tx\nVmRSS:\t    1234 kB\nRssAnon:\t     56 kB\nRssFile:\t 7 kB\n";
        assert_eq!(parse_memory(text), Some(Memory { resident: 1234, anonymous: 56 }));
        assert_eq!(parse_memory("Name:\tzombie\n"), None);
    }

    #[test]
    fn we_ourselves_cost_time_and_memory() {
        let now = Instant::now();
        let mut process = Process::watch(std::process::id(), LOOK, now).expect("we live");
        process.look(now);
        let told = process.tell(now + LOOK);
        assert!(told["anonymous_kb"][1].as_u64() > Some(0), "{told}");
        assert_eq!(told["anonymous_kb_over_time"].as_array().map(Vec::len), Some(1), "{told}");
        assert!(spent(std::process::id()).iter().any(|(_, time)| *time > 0));
        assert!(Process::watch(u32::MAX, LOOK, now).is_err());
    }
}
