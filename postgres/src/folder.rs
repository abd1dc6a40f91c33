//! The folder of one private server: what lies where, who owns it, and the lock for changing it.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{self, Path, PathBuf},
};

use crate::{
    Error,
    error::Doing,
    privileges::{self, User},
    reach,
};

/// A prepared folder: it exists, is private, and belongs to the user who will run the server.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    /// Absolute and without symbolic links: processes are recognised by it.
    pub(crate) dir: PathBuf,
    /// Who runs the server; `None` if we do.
    pub(crate) user: Option<User>,
}

impl Folder {
    /// Makes `dir` a private folder of the user who will run the server, or refuses if it is
    /// somebody else's. Changes nothing if it is one already.
    pub(crate) fn prepare(dir: &Path) -> Result<Folder, Error> {
        let absolute = path::absolute(dir).doing(format!("find {}", dir.display()))?;
        let make = || format!("make the folder {}", absolute.display());
        reach::create_dir_all(&absolute).doing(make())?;
        let dir = fs::canonicalize(&absolute).doing(make())?;

        let found = fs::metadata(&dir).doing(make())?;
        let users = privileges::server_users()?;
        let uid = rustix::process::geteuid().as_raw();
        // The folder's present owner first: which of the candidates exist may change meanwhile.
        let user = users.iter().find(|user| user.uid == found.uid()).or(users.first()).copied();
        if let Some(User { uid, .. }) = user.filter(|&user| !reach::reaches(&dir, user)) {
            let doing = format!("let the server's user (uid {uid}) into {}", dir.display());
            return Err(Error::Io { doing, source: io::ErrorKind::PermissionDenied.into() });
        }
        if found.uid() == uid {
            if let Some(user) = user {
                chown(&dir, Some(user.uid), Some(user.gid)).doing(make())?;
            }
        } else if user.is_none_or(|user| user.uid != found.uid()) {
            return Err(Error::Foreign { dir, uid: found.uid() });
        }
        if found.mode() & 0o777 != 0o700 {
            fs::set_permissions(&dir, Permissions::from_mode(0o700)).doing(make())?;
        }
        Ok(Folder { dir, user })
    }

    /// Waits until no other process starts or restarts the server of this folder; the lock ends when
    /// the last copy of the returned file is closed.
    pub(crate) fn lock(&self) -> Result<File, Error> {
        let path = self.dir.join("lock");
        let doing = || format!("lock {}", path.display());
        let file =
            File::options().write(true).create(true).truncate(false).open(&path).doing(doing())?;
        file.lock().doing(doing())?;
        Ok(file)
    }

    /// What Postgres calls the data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Where initdb works until it is done.
    pub(crate) fn unfinished_data(&self) -> PathBuf {
        self.dir.join("data.unfinished")
    }

    /// The superuser's password.
    pub(crate) fn password(&self) -> PathBuf {
        self.dir.join("password")
    }

    /// The port of the last start, to be used again if it is free.
    pub(crate) fn port(&self) -> PathBuf {
        self.dir.join("port")
    }

    /// What the server says.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The FIFO that every process using the server keeps open for writing.
    pub(crate) fn users(&self) -> PathBuf {
        self.dir.join("users")
    }

    /// The name of the FIFO while the watchdog decides whether anybody is left, and stops the server.
    pub(crate) fn leaving(&self) -> PathBuf {
        self.dir.join("users.leaving")
    }
}
