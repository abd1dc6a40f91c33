//! The data folder: made once by initdb, and the password it was made with.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, chown},
    path::Path,
};

use crate::{Error, binaries::Binaries, error::Doing, folder::Folder, privileges};

/// The only role of a new cluster.
pub(crate) const SUPERUSER: &str = "postgres";

/// Returns the major version that made the folder's data, or `None` if there is none yet.
pub(crate) fn major(folder: &Folder) -> Option<u32> {
    let text = fs::read_to_string(folder.data().join("PG_VERSION")).ok()?;
    text.trim().parse().ok()
}

/// Makes the folder's data unless it is there. Needs the folder's lock.
///
/// initdb works under another name, so what a killed one left is never taken for data. It has `lock`
/// open as long as it runs: if only we are killed, the next starter waits for it before it begins anew.
pub(crate) fn ensure(
    folder: &Folder,
    binaries: &Binaries,
    durable: bool,
    lock: &File,
) -> Result<(), Error> {
    if major(folder).is_some() {
        return Ok(());
    }
    let (data, unfinished) = (folder.data(), folder.unfinished_data());
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).doing(format!("remove {}", unfinished.display()))?;
    }
    ensure_password(folder)?;

    let doing = || format!("run {}", binaries.initdb().display());
    let mut initdb = privileges::command(binaries.initdb(), folder.user);
    initdb.args(["-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "-U", SUPERUSER]);
    if !durable {
        initdb.arg("--no-sync");
    }
    initdb.arg("--pwfile").arg(folder.password()).arg("-D").arg(&unfinished);
    let output = initdb.stdin(lock.try_clone().doing(doing())?).output().doing(doing())?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Initdb { dir: unfinished, message });
    }
    fs::rename(&unfinished, &data).doing(format!("move the new data to {}", data.display()))
}

/// Returns the superuser's password.
pub(crate) fn password(folder: &Folder) -> Result<String, Error> {
    let path = folder.password();
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::PasswordLost { path }),
        found => Ok(found.doing(format!("read {}", path.display()))?.trim().to_owned()),
    }
}

/// Keeps a password that an earlier, unfinished start has made.
fn ensure_password(folder: &Folder) -> Result<(), Error> {
    let path = folder.password();
    if path.exists() {
        return Ok(());
    }
    let unfinished = path.with_extension("unfinished");
    write_password(&unfinished, folder)
        .and_then(|()| fs::rename(&unfinished, &path))
        .doing(format!("write {}", path.display()))
}

fn write_password(path: &Path, folder: &Folder) -> io::Result<()> {
    // 128 bits cannot be guessed by who can connect, which is everybody on the machine.
    let mut random = [0; size_of::<u128>()];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let password = format!("{:032x}", u128::from_ne_bytes(random));

    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{password}")?;
    if let Some(user) = folder.user {
        chown(path, Some(user.uid), Some(user.gid))?;
    }
    file.sync_all()
}
