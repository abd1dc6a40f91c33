//! Why a private Postgres could not be had.

use std::{fmt::Display, io, path::PathBuf};

use crate::binaries::OLDEST_MAJOR;

/// What to type to get a Postgres on this kind of machine.
const INSTALL: &str = if cfg!(target_os = "macos") {
    "brew install postgresql@17"
} else {
    "apt-get install postgresql"
};

/// Every way in which a private Postgres can fail to start, stop or restart.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable binaries, and the download failed too.
    #[error(
        "found no PostgreSQL {} and could not download one ({download}); try: {INSTALL}",
        wanted(*major)
    )]
    NotInstalled {
        /// The major version that the existing data folder needs; `None` if any recent one will do.
        major: Option<u32>,
        /// Why the download failed.
        download: String,
    },
    /// We are root, a Postgres server refuses to be, and there is nobody else to run it as.
    #[error("a Postgres server cannot run as root and /etc/passwd has no user postgres or nobody")]
    NoUser,
    /// Somebody else owns the folder, so the server could not use it or they could read it.
    #[error("{} belongs to another user (uid {uid}); use another folder", dir.display())]
    Foreign {
        /// The folder.
        dir: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The data folder is there, the file with its password is not.
    #[error(
        "{} is missing, so the data beside it cannot be opened; put it back or delete the folder",
        path.display()
    )]
    PasswordLost {
        /// Where the password should be.
        path: PathBuf,
    },
    /// `initdb` failed.
    #[error("initdb could not make {}: {message}", dir.display())]
    Initdb {
        /// The data folder it should have made.
        dir: PathBuf,
        /// What it said.
        message: String,
    },
    /// The server went away before it was ready, or did not become ready in time.
    #[error("the Postgres server {problem}; the end of its log {}:\n{tail}", log.display())]
    NotReady {
        /// What happened, to be read after "the server".
        problem: &'static str,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The server ignored every signal to stop.
    #[error("the Postgres server (pid {pid}) does not stop")]
    NotStopped {
        /// Its process.
        pid: u32,
    },
    /// A file or a process could not be used.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What we wanted to do.
        doing: String,
        /// What the system answered.
        source: io::Error,
    },
}

/// Says of an I/O error what we were about to do.
pub(crate) trait Doing<T> {
    /// Turns the error into [`Error::Io`]; `what` completes "cannot ..".
    fn doing(self, what: impl Display) -> Result<T, Error>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl Display) -> Result<T, Error> {
        self.map_err(|source| Error::Io { doing: what.to_string(), source })
    }
}

fn wanted(major: Option<u32>) -> String {
    match major {
        Some(major) => format!("{major} (which made the data folder)"),
        None => format!("{OLDEST_MAJOR} or newer with its contrib extensions"),
    }
}
