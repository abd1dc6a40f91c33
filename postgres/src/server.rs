//! Makes sure that the server of a folder runs and is ready.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    net::{Ipv4Addr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use crate::{
    Error, Settings,
    binaries::Binaries,
    cluster,
    error::Doing,
    folder::Folder,
    postmaster::{POLL, Postmaster},
    privileges,
};

const LAUNCH: &str = include_str!("launch.sh");

/// A killed server replays its log before it is ready; longer than this and something is wrong.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long to wait before trying again what another process is about to make possible; each try adds
/// some lines to the log.
const RETRY: Duration = Duration::from_millis(50);

/// A log larger than this starts anew with the next server.
const LARGEST_LOG_BYTES: u64 = 8 * 1024 * 1024;

/// How many of the log's last lines an error shows.
const TAIL_LINES: usize = 20;

/// What is needed to start the server of a folder.
pub(crate) struct Server<'a> {
    pub(crate) folder: &'a Folder,
    pub(crate) settings: &'a Settings,
    /// The caller's place among the server's users.
    pub(crate) users: &'a File,
    /// The lock on the folder.
    pub(crate) lock: &'a File,
    /// Where a download may run.
    pub(crate) runtime: &'a Handle,
}

impl Server<'_> {
    /// Returns the port of the server, which is ready: the running one, or one that is started now,
    /// on port `kept` if that is given.
    pub(crate) fn ensure_ready(&self, kept: Option<u16>) -> Result<u16, Error> {
        if let Some(port) = self.wait_while_living()? {
            return Ok(port);
        }
        let binaries = Binaries::find_or_fetch(self.folder, self.runtime)?;
        cluster::ensure(self.folder, &binaries, self.settings.durable, self.lock)?;

        let mut port = match kept.or_else(|| self.last_port()) {
            Some(port) => port,
            None => free_port()?,
        };
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let log_start = self.launch(&binaries, port)?;
            if let Some(port) = self.wait_while_living()? {
                fs::write(self.folder.port(), port.to_string()).doing("remember the port")?;
                return Ok(port);
            }
            let said = self.log_since(log_start);
            match Refusal::of(&said) {
                Refusal::PortTaken if kept.is_none() => port = free_port()?,
                Refusal::PortTaken | Refusal::StillInUse => thread::sleep(RETRY),
                Refusal::Other => return Err(self.not_ready("ended before it was ready", &said)),
            }
        }
        Err(self.not_ready("could not be started for a minute", &self.log_since(0)))
    }

    /// Waits while the server is there but neither ready nor gone. `None`: there is none.
    fn wait_while_living(&self) -> Result<Option<u16>, Error> {
        let deadline = Instant::now() + PATIENCE;
        while let Some(server) = Postmaster::living(&self.folder.data()) {
            if server.is_ready {
                return Ok(Some(server.port));
            }
            if Instant::now() >= deadline {
                return Err(self.not_ready("was not ready after a minute", &self.log_since(0)));
            }
            thread::sleep(POLL);
        }
        Ok(None)
    }

    /// Starts a server and returns where in the log its words begin.
    fn launch(&self, binaries: &Binaries, port: u16) -> Result<u64, Error> {
        tracing::debug!(dir = %self.folder.dir.display(), port, "starting a private Postgres");
        let data = self.folder.data();
        let pid_file = data.join("postmaster.pid");
        // A killed server's. Its number may be another process's by now, or in a restarted container
        // even the next server's. Left-over children of it are found without this file: the key of
        // the shared memory is made of the data folder's inode.
        match fs::remove_file(&pid_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).doing(format!("remove {}", pid_file.display()));
            }
            Ok(()) | Err(_) => {}
        }

        let doing = || format!("start {}", binaries.postgres().display());
        let log = open_log(self.folder).doing(doing())?;
        let log_start = log.metadata().doing(doing())?.len();
        let mut shell = privileges::command("/bin/sh", self.folder.user);
        shell.args(["-c", LAUNCH, "tollgate-postgres-launch"]).arg(&pid_file);
        shell.arg(binaries.postgres()).arg("-D").arg(&data);
        for (name, value) in self.options(port) {
            shell.args(["-c", &format!("{name}={value}")]);
        }
        shell.stdin(self.lock.try_clone().doing(doing())?);
        shell.stdout(self.users.try_clone().doing(doing())?);
        shell.stderr(log).status().doing(doing())?;
        Ok(log_start)
    }

    fn options(&self, port: u16) -> Vec<(&'static str, String)> {
        let mut options = vec![
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", port.to_string()),
            // None: a socket's path may have 107 bytes, which a folder of tests easily exceeds.
            ("unix_socket_directories", String::new()),
            ("max_connections", self.settings.max_connections.to_string()),
            ("shared_buffers", format!("{}MB", self.settings.shared_buffers_mb)),
            ("timezone", "UTC".to_owned()),
            ("log_timezone", "UTC".to_owned()),
        ];
        if !self.settings.durable {
            for name in ["fsync", "synchronous_commit", "full_page_writes"] {
                options.push((name, "off".to_owned()));
            }
        }
        options
    }

    /// The port of the last start if it is free, so that URLs people noted stay true.
    fn last_port(&self) -> Option<u16> {
        let port = fs::read_to_string(self.folder.port()).ok()?.trim().parse().ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok().then_some(port)
    }

    fn log_since(&self, start: u64) -> String {
        let mut bytes = Vec::new();
        let read = File::open(self.folder.log()).and_then(|mut log| {
            log.seek(SeekFrom::Start(start))?;
            log.read_to_end(&mut bytes)
        });
        if let Err(error) = read {
            return format!("(cannot read the log: {error})");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn not_ready(&self, problem: &'static str, said: &str) -> Error {
        let lines: Vec<&str> = said.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        Error::NotReady { problem, log: self.folder.log(), tail }
    }
}

/// Opens the log for appending, emptied if it has grown too large.
pub(crate) fn open_log(folder: &Folder) -> io::Result<File> {
    let log = File::options().append(true).create(true).open(folder.log())?;
    if log.metadata()?.len() > LARGEST_LOG_BYTES {
        log.set_len(0)?;
    }
    Ok(log)
}

/// Why a server ended before it was ready, by what it said (in English: we start it with `LC_ALL=C`).
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    PortTaken,
    /// Processes of a killed server are still on their way out.
    StillInUse,
    Other,
}

impl Refusal {
    fn of(said: &str) -> Refusal {
        if said.contains("could not bind") {
            Refusal::PortTaken
        } else if said.contains("shared memory block") || said.contains("lock file") {
            Refusal::StillInUse
        } else {
            Refusal::Other
        }
    }
}

/// Free now; it may be taken before the server has it, hence the retries.
fn free_port() -> Result<u16, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .doing("find a free port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_by_what_the_server_said() {
        let taken = "LOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use\n\
            FATAL:  could not create any TCP/IP sockets\n";
        assert_eq!(Refusal::of(taken), Refusal::PortTaken);
        let leftover = "FATAL:  pre-existing shared memory block (key 9, ID 1) is still in use";
        assert_eq!(Refusal::of(leftover), Refusal::StillInUse);
        assert_eq!(Refusal::of("FATAL:  lock file \"postmaster.pid\""), Refusal::StillInUse);
        assert_eq!(Refusal::of("PANIC:  could not locate a valid checkpoint"), Refusal::Other);
    }
}
