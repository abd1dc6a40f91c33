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

fn count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The value of the first line of that name.
fn field(path: &str, name: &str, separator: char) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(separator)?.1.trim().trim_matches('"').to_owned())
}
