//! Joins the users of a server; a watchdog stops the server when the last one is gone.
//!
//! A FIFO and a shell script do what a file lock (no command of macOS waits for one), a count of users
//! (wrong after a `kill -9`) or a second executable of ours (a library has none) could not.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{fs::OFlags, io::Errno};

use crate::{Error, error::Doing, folder::Folder, postmaster::POLL, privileges, server};

const WATCHDOG: &str = include_str!("watchdog.sh");

/// Runs a command in the background and ends: the command is nobody's child and leaves no zombie.
/// The detour by 3 keeps its standard input, which a shell would turn into `/dev/null`.
const IN_BACKGROUND: &str = "exec 3<&0; \"$@\" <&3 3<&- &";

/// How long a watchdog may take to make up its mind and stop its server: three times the half minute
/// that each signal is given, and some.
const SETTLE_PATIENCE: Duration = Duration::from_secs(100);

/// Enters the caller among the users of the server, until the returned file is closed.
///
/// Needs the folder's lock. Waits for a server that is being stopped; replaces a watchdog that is
/// missing or was killed, which its server and its other users need not notice.
pub(crate) fn join(folder: &Folder) -> Result<File, Error> {
    let (users, leaving) = (folder.users(), folder.leaving());
    let doing = || format!("use {}", users.display());
    let deadline = Instant::now() + SETTLE_PATIENCE;
    while Instant::now() < deadline {
        match open(&users).doing(doing())? {
            Fifo::Watched(writer) => return Ok(writer),
            Fifo::Unwatched => return watch(folder).doing(doing()),
            Fifo::Missing => match open(&leaving).doing(doing())? {
                Fifo::Watched(_) => thread::sleep(POLL),
                // It was killed while it decided.
                Fifo::Unwatched => fs::rename(&leaving, &users).doing(doing())?,
                Fifo::Missing => make(folder).doing(doing())?,
            },
        }
    }
    Err(Error::Io { doing: doing(), source: io::ErrorKind::TimedOut.into() })
}

/// What opening the FIFO for writing tells of its reader.
enum Fifo {
    Watched(File),
    Unwatched,
    Missing,
}

fn open(path: &Path) -> io::Result<Fifo> {
    match without_waiting().write(true).open(path) {
        Ok(writer) => Ok(Fifo::Watched(writer)),
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
            Ok(Fifo::Unwatched)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Fifo::Missing),
        Err(error) => Err(error),
    }
}

fn make(folder: &Folder) -> io::Result<()> {
    let mut mkfifo = privileges::command("mkfifo", folder.user);
    let output = mkfifo.args(["-m", "600"]).arg(folder.users()).output()?;
    // A watchdog that goes on after all has put its own back.
    if output.status.success() || folder.users().exists() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Starts a watchdog on the FIFO. Whoever has it open for writing already counts as before.
fn watch(folder: &Folder) -> io::Result<File> {
    let path = folder.users();
    // A writer needs a reader to be there and a reader that waits needs a writer: hence two readers.
    let reader = without_waiting().read(true).open(&path)?;
    let writer = without_waiting().write(true).open(&path)?;
    let waiting_reader = File::open(&path)?;
    drop(reader);

    let log = server::open_log(folder)?;
    let status = privileges::command("/bin/sh", folder.user)
        .args(["-c", IN_BACKGROUND, "sh", "/bin/sh", "-c", WATCHDOG, "tollgate-postgres-watchdog"])
        .arg(&folder.dir)
        .stdin(waiting_reader)
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()?;
    if status.success() {
        Ok(writer)
    } else {
        Err(io::Error::other(format!("the watchdog did not start: {status}")))
    }
}

fn without_waiting() -> fs::OpenOptions {
    let mut options = File::options();
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    options
}
