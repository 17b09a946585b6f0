//! What work costs the machine: its processors' time, a process' own, its memory; and how many
//! packets passed.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        time::TimeValLike as _,
    },
    time::clock_getcpuclockid,
    unistd::Pid,
};

use crate::netns::Namespace;

/// A tick of `/proc/stat` (`USER_HZ`, `include/asm-generic/param.h`).
const TICKS_PER_SECOND: f64 = 100.0;
/// Kernel threads that go on with packets where a softirq gives up.
const SOFTIRQS: &str = "ksoftirqd/";

/// The processors' time so far.
#[derive(Clone, Copy, Debug)]
pub struct Processors {
    /// Of this process, all that it started, and the softirqs in their place.
    own: Duration,
    /// Of the whole machine.
    busy: f64,
}

/// Seconds of processors that were used in a while.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// By this process and all that it started, the kernel's work for them included: traffic, who
    /// serves, who observes. To the nanosecond, and whatever else the machine does.
    pub own: f64,
    /// By the whole machine, in ticks.
    pub busy: f64,
}

impl Processors {
    /// As of now.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("failed to read /proc/stat")?;
        Ok(Self {
            own: own()?,
            busy: busy(&text).context("/proc/stat is not as it should be")?,
        })
    }

    /// What was used since.
    pub fn used_since(&self) -> Result<Used> {
        let now = Self::now()?;
        Ok(Used {
            own: now.own.saturating_sub(self.own).as_secs_f64(),
            busy: now.busy - self.busy,
        })
    }
}

/// All but idle (4th and 5th) and what another machine took (8th), in all of which nothing of this
/// one ran (`fs/proc/stat.c`); guests' time is in that of users already.
fn busy(text: &str) -> Option<f64> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> = line
        .split_whitespace()
        .map(|ticks| ticks.parse().ok())
        .collect::<Option<_>>()?;
    let busy = [0, 1, 2, 5, 6];
    let busy: Option<Vec<f64>> = busy.iter().map(|&at| ticks.get(at).copied()).collect();
    Some(busy?.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// A softirq runs where a packet was sent, and is in that thread's time
/// (`kernel/sched/cputime.c`), or in a thread of its own.
fn own() -> Result<Duration> {
    let ended =
        getrusage(UsageWho::RUSAGE_CHILDREN).context("failed to ask for children's time")?;
    let micros = [ended.user_time(), ended.system_time()].map(|time| time.num_microseconds());
    let ended = Duration::from_micros(u64::try_from(micros.iter().sum::<i64>())?);
    let tasks = tasks()?;
    // One that ends meanwhile is counted among those that ended, next time.
    let times = own_tasks(&tasks, std::process::id())
        .into_iter()
        .filter_map(|task| process_time(task).ok());
    Ok(ended + times.sum::<Duration>())
}

/// A process, as `/proc` lists it.
#[derive(Debug)]
struct Task {
    id: u32,
    name: String,
    parent: u32,
}

impl Task {
    /// Of its `stat` (`fs/proc/array.c`, `do_task_stat`); a name may hold anything.
    fn parse(stat: &str) -> Option<Self> {
        let (id, rest) = stat.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        Some(Self {
            id: id.parse().ok()?,
            name: name.to_owned(),
            parent: rest.split(' ').nth(1)?.parse().ok()?,
        })
    }
}

fn tasks() -> Result<Vec<Task>> {
    let entries = fs::read_dir("/proc").context("failed to list the processes")?;
    // One that ended meanwhile has nothing to tell.
    let stats = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    Ok(stats.filter_map(|stat| Task::parse(&stat)).collect())
}

/// The root, all below it, and the kernel's for softirqs.
fn own_tasks(tasks: &[Task], root: u32) -> Vec<u32> {
    let mut own = vec![root];
    let mut next = 0;
    while let Some(&parent) = own.get(next) {
        let children = tasks.iter().filter(|task| task.parent == parent);
        own.extend(children.map(|task| task.id));
        next += 1;
    }
    let softirqs = tasks.iter().filter(|task| task.name.starts_with(SOFTIRQS));
    own.extend(softirqs.map(|task| task.id));
    own
}

/// The processor time that a process used, all its threads together.
pub fn process_time(process: u32) -> Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(process).context("a process id is too large")?);
    let clock = clock_getcpuclockid(pid).context("failed to find the clock of a process")?;
    let time = clock
        .now()
        .context("failed to read the clock of a process")?;
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
        let busy_seconds = busy(text).expect("parsed");
        assert!((busy_seconds - 4.0).abs() < 1e-9, "{busy_seconds}");
        assert!(busy("intr 1\n").is_none());
    }

    #[test]
    fn packets_are_counted_both_ways_and_only_where_asked() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n\
            \x20 eth0: 900 7 0 0 0 0 0 0 800 5 0 0 0 0 0 0\n\
            \x20   lo: 10 1 0 0 0 0 0 0 10 1 0 0 0 0 0 0\n";
        assert_eq!(count_packets(text, &["eth0".to_owned()]), 12);
    }

    #[test]
    fn own_is_what_was_started_here_and_what_that_started() {
        let stats = [
            "2 (kthreadd) S 0 0",
            "16 (ksoftirqd/0) S 2 0",
            "17 (kworker/0:1) I 2 0",
            "100 (bench) S 1 0",
            "101 (a (b) c) S 100 0",
            "102 (nginx) S 101 0",
            "200 (rustc) R 1 0",
        ];
        let tasks: Vec<Task> = stats
            .iter()
            .map(|stat| Task::parse(stat).expect("parsed"))
            .collect();
        assert_eq!(own_tasks(&tasks, 100), [100, 101, 102, 16]);
    }

    #[test]
    fn the_time_of_a_child_is_own_and_stays_so_when_it_has_ended() {
        let before = Processors::now().expect("counted");
        let work = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
        let status = std::process::Command::new("sh").args(["-c", work]).status();
        assert!(status.expect("ran").success());
        let used = before.used_since().expect("counted");
        assert!(used.own > 0.005, "{used:?}");
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
