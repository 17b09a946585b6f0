//! What work costs the machine: its processors' time, a process' own, its memory; and how many
//! packets passed.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use nix::{time::clock_getcpuclockid, unistd::Pid};

use crate::netns::Namespace;

/// A tick of `/proc/stat` (`USER_HZ`, `include/asm-generic/param.h`).
const TICKS_PER_SECOND: f64 = 100.0;

/// The processors' time since the start of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Processors {
    busy: f64,
}

impl Processors {
    /// As of now.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("failed to read /proc/stat")?;
        Self::parse(&text).context("/proc/stat is not as it should be")
    }

    /// All but idle (4th and 5th) and what another machine took (8th), in all of which nothing of
    /// this one ran (`fs/proc/stat.c`); guests' time is in that of users already.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<f64> = line
            .split_whitespace()
            .map(|ticks| ticks.parse().ok())
            .collect::<Option<_>>()?;
        let busy = [0, 1, 2, 5, 6];
        let busy: Option<Vec<f64>> = busy.iter().map(|&at| ticks.get(at).copied()).collect();
        Some(Self {
            busy: busy?.iter().sum::<f64>() / TICKS_PER_SECOND,
        })
    }

    /// Seconds of processors that were busy since, softirqs included.
    pub fn busy_since(&self) -> Result<f64> {
        Ok(Self::now()?.busy - self.busy)
    }
}

/// The processor time that a process used, all its threads together.
pub fn process_time(process: u32) -> Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(process).context("a process id is too large")?);
    let clock = clock_getcpuclockid(pid).context("failed to find the clock of a process")?;
    let time = clock.now().context("failed to read the clock of a process")?;
    Ok(Duration::from(time))
}

/// The resident memory of a process, in bytes.
pub fn resident_bytes(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))
        .context("failed to read the state of a process")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kibibytes.context("a process tells no memory")? << 10)
}

/// How many packets passed some interfaces of a namespace, in and out.
pub fn packets(namespace: &Namespace, interfaces: &[String]) -> Result<u64> {
    let text = namespace
        .run(|| fs::read_to_string("/proc/thread-self/net/dev"))?
        .context("failed to read the counters of interfaces")?;
    Ok(count_packets(&text, interfaces))
}

/// The second column is what came, the tenth what left (`net/core/net-procfs.c`).
fn count_packets(text: &str, interfaces: &[String]) -> u64 {
    let of_interface = |line: &str| -> Option<u64> {
        let (name, counters) = line.split_once(':')?;
        if !interfaces.iter().any(|interface| interface == name.trim()) {
            return None;
        }
        let counters: Vec<u64> = counters
            .split_whitespace()
            .filter_map(|counter| counter.parse().ok())
            .collect();
        Some(counters.get(1)? + counters.get(9)?)
    };
    text.lines().filter_map(of_interface).sum()
}

/// The release of the running kernel.
pub fn kernel() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("failed to read the kernel's release")?;
    Ok(release.trim().to_owned())
}

/// How many processors there are.
pub fn processors() -> Result<usize> {
    Ok(std::thread::available_parallelism()
        .context("failed to count the processors")?
        .get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softirqs_are_work_and_idleness_is_none() {
        let text = "cpu  100 10 200 9000 500 30 60 70 20 0\ncpu0 1 2 3\n";
        let processors = Processors::parse(text).expect("parsed");
        assert!((processors.busy - 4.0).abs() < 1e-9, "{processors:?}");
        assert!(Processors::parse("intr 1\n").is_none());
    }

    #[test]
    fn packets_are_counted_both_ways_and_only_where_asked() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n\
            \x20 eth0: 900 7 0 0 0 0 0 0 800 5 0 0 0 0 0 0\n\
            \x20   lo: 10 1 0 0 0 0 0 0 10 1 0 0 0 0 0 0\n";
        assert_eq!(count_packets(text, &["eth0".to_owned()]), 12);
    }

    #[test]
    fn a_process_that_works_uses_time() {
        let own = std::process::id();
        let before = process_time(own).expect("a clock");
        let sum: u64 = (0..3_000_000_u64).map(std::hint::black_box).sum();
        assert!(sum > 0);
        assert!(process_time(own).expect("a clock") > before);
        assert!(resident_bytes(own).expect("memory") > 1 << 20);
    }
}
