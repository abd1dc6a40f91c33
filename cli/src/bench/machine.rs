//! What the figures were measured on, and on which of its processors.

use std::fs;
use std::io;
use std::process::Command;

use serde_json::{Value, json};

/// Where the parts of a run are kept apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cores {
    /// Of the API.
    pub(super) api: Option<usize>,
    /// Of what makes the load: ours and pgbench.
    pub(super) load: Option<usize>,
}

impl Cores {
    /// The first two, where there are two and `taskset` is installed.
    pub(super) fn here() -> Self {
        let can_pin = cfg!(target_os = "linux")
            && count() >= 2
            && Command::new("taskset").arg("--version").output().is_ok();
        if can_pin { Self { api: Some(0), load: Some(1) } } else { Self { api: None, load: None } }
    }
}

/// The command, on that processor.
pub(super) fn command(program: &std::path::Path, core: Option<usize>) -> Command {
    let Some(core) = core else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// Keeps the calling thread on that processor.
#[cfg(target_os = "linux")]
pub(super) fn pin_this_thread(core: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Nothing: only Linux is told.
#[cfg(not(target_os = "linux"))]
pub(super) fn pin_this_thread(_: usize) -> io::Result<()> {
    Ok(())
}

/// Processors, memory, system, as far as they can be read.
pub(super) fn describe(cores: Cores) -> Value {
    json!({
        "processors": count(),
        "processor": field("/proc/cpuinfo", "model name", ':'),
        "memory": field("/proc/meminfo", "MemTotal", ':'),
        "system": field("/etc/os-release", "PRETTY_NAME", '='),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|it| it.trim().to_owned()),
        "load_before": fs::read_to_string("/proc/loadavg").ok()
            .and_then(|it| it.split(' ').next().map(str::to_owned)),
        "api_on_processor": cores.api,
        "load_on_processor": cores.load,
    })
}

/// Resident memory of a process, now and at most so far.
pub(super) fn memory(pid: u32) -> (Option<String>, Option<String>) {
    let status = format!("/proc/{pid}/status");
    (field(&status, "VmRSS", ':'), field(&status, "VmHWM", ':'))
}

/// Seconds of processor time that a process (its number) or this thread (`thread-self`) has used.
pub(super) fn processor_seconds(of: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{of}/stat")).unwrap_or_default();
    used_ticks(&stat).unwrap_or(0) as f64 / TICKS_PER_SECOND
}

/// Linux counts for other programs in hundredths of a second on every platform.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time; the name before them, in brackets, may hold anything.
fn used_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(|field| field.parse::<u64>().ok());
    Some(times.next()?? + times.next()??)
}

fn count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The value of the first line of that name.
fn field(path: &str, name: &str, separator: char) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(separator)?.1.trim().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_a_name_with_brackets_and_blanks() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 99";
        assert_eq!(used_ticks(stat), Some(300));
        assert_eq!(used_ticks(""), None);
    }
}
