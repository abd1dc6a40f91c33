//! The server's main process, as it stands in `postmaster.pid`: is it there, is it ready, stop it.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::Error;

/// How often a file or a process is looked at while we wait for it.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// Fast shutdown, then immediate shutdown, then what cannot be ignored.
pub(crate) const CLEANLY: [Signal; 3] = [Signal::INT, Signal::QUIT, Signal::KILL];

/// How long a signal may take to end the server. A fast shutdown writes out at most `shared_buffers`.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(30);

/// What `postmaster.pid` says of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Postmaster {
    pub(crate) pid: u32,
    pub(crate) port: u16,
    /// It accepts connections; else it is on its way up or down.
    pub(crate) is_ready: bool,
}

impl Postmaster {
    /// Returns the server of data folder `data` if it is running, ready or not.
    pub(crate) fn living(data: &Path) -> Option<Postmaster> {
        let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
        parse(&text).filter(|server| runs(server.pid, data))
    }
}

/// Sends the server of `data` one signal after the other until it is gone; nothing if it is not there.
pub(crate) fn stop(data: &Path, signals: &[Signal]) -> Result<(), Error> {
    let Some(server) = Postmaster::living(data) else { return Ok(()) };
    let pid = i32::try_from(server.pid).ok().and_then(Pid::from_raw);
    for &signal in signals {
        // Fails if it has gone meanwhile, which is what we want.
        _ = pid.map(|pid| kill_process(pid, signal));
        let deadline = Instant::now() + SIGNAL_PATIENCE;
        while Instant::now() < deadline {
            if !runs(server.pid, data) {
                return Ok(());
            }
            thread::sleep(POLL);
        }
    }
    Err(Error::NotStopped { pid: server.pid })
}

/// The lines are: pid, data folder, start time, port, socket folder, address, shared memory, status.
fn parse(text: &str) -> Option<Postmaster> {
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok()?;
    let port = lines.nth(2)?.trim().parse().ok()?;
    let is_ready = lines.nth(3).is_some_and(|status| status.trim() == "ready");
    Some(Postmaster { pid, port, is_ready })
}

/// Tells whether process `pid` is a server of `data`.
///
/// That the process lives would not be enough: after a reboot another one has the number, and in a
/// container without an init the killed server stays behind as a zombie.
fn runs(pid: u32, data: &Path) -> bool {
    match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(cmdline) => {
            let mut args = cmdline.split(|&byte| byte == 0).skip(1);
            args.next() == Some(b"-D") && args.next() == Some(data.as_os_str().as_encoded_bytes())
        }
        Err(_) if Path::new("/proc/self").exists() => false,
        // macOS has no /proc.
        Err(_) => {
            let ps = Command::new("/bin/ps")
                .args(["-ww", "-o", "command=", "-p", &pid.to_string()])
                .output();
            let shown = ps.map(|output| output.stdout).unwrap_or_default();
            String::from_utf8_lossy(&shown).contains(&format!(" -D {} ", data.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "61\n/d/data\n1764000000\n43210\n\n127.0.0.1\n  1 2\nready   \n";

    #[test]
    fn a_server_is_ready_when_its_file_says_so() {
        assert_eq!(parse(RUNNING), Some(Postmaster { pid: 61, port: 43210, is_ready: true }));
        let starting = RUNNING.replace("ready   ", "starting");
        assert!(!parse(&starting).unwrap().is_ready);
        assert!(!parse("61\n/d/data\n1764000000\n43210\n\n").unwrap().is_ready);
    }

    #[test]
    fn a_file_that_is_being_written_is_no_server() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("61\n/d/data\n"), None);
    }

    #[test]
    fn a_living_process_that_is_no_postgres_of_this_folder_is_not_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::process::id();
        fs::write(dir.path().join("postmaster.pid"), RUNNING.replace("61", &own.to_string()))
            .unwrap();
        assert_eq!(Postmaster::living(dir.path()), None);
    }
}
