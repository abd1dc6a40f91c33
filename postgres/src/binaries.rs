//! Finds a Postgres on this machine.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use tokio::runtime::Handle;

use crate::{
    Error, cluster, fetch,
    folder::Folder,
    privileges::{self, User},
    reach,
};

/// The oldest major version that the product is tested on.
pub(crate) const OLDEST_MAJOR: u32 = 15;

/// Folders whose entries named prefix and version have the binaries in a folder below.
const INSTALLATIONS: [Installations; 6] = [
    Installations { root: "/usr/lib/postgresql", prefix: "", bin: "bin" }, // Debian, Gentoo
    Installations { root: "/usr", prefix: "pgsql-", bin: "bin" },          // postgresql.org's RPMs
    Installations { root: "/opt/homebrew/opt", prefix: "postgresql@", bin: "bin" }, // Apple silicon
    Installations { root: "/usr/local/opt", prefix: "postgresql@", bin: "bin" }, // Intel Macs
    Installations { root: "/Applications/Postgres.app/Contents/Versions", prefix: "", bin: "bin" },
    Installations { root: "/usr/libexec", prefix: "postgresql", bin: "" }, // Alpine
];

struct Installations {
    root: &'static str,
    prefix: &'static str,
    bin: &'static str,
}

/// The binaries of one Postgres, complete with the extensions we need.
#[derive(Debug)]
pub(crate) struct Binaries {
    bin: PathBuf,
}

impl Binaries {
    /// Returns binaries that can run the folder's data and that its user can run: those of the
    /// machine, or else downloaded ones.
    pub(crate) fn find_or_fetch(folder: &Folder, runtime: &Handle) -> Result<Binaries, Error> {
        let major = cluster::major(folder);
        let fetched = fetch::installations();
        let check = |bin: PathBuf| Binaries::check(&bin, major, folder.user);
        let newest_fetched = newest_first(&fetched, "").into_iter().map(|dir| dir.join("bin"));
        if let Some(found) = candidates().into_iter().chain(newest_fetched).find_map(check) {
            return Ok(found);
        }
        let bin = runtime
            .block_on(fetch::install(&fetched, major))
            .map_err(|download| Error::NotInstalled { major, download })?;
        check(bin.clone()).ok_or_else(|| Error::NotInstalled {
            major,
            download: format!("{} does not work here", bin.display()),
        })
    }

    /// The server.
    pub(crate) fn postgres(&self) -> PathBuf {
        self.bin.join("postgres")
    }

    /// What makes a data folder.
    pub(crate) fn initdb(&self) -> PathBuf {
        self.bin.join("initdb")
    }

    /// Takes `bin` if all is there, of the right version, and `user` can run it.
    fn check(bin: &Path, major: Option<u32>, user: Option<User>) -> Option<Binaries> {
        // Package managers put links into their common bin folder.
        let postgres = fs::canonicalize(bin.join("postgres")).ok()?;
        let bin = postgres.parent()?;
        if !bin.join("initdb").is_file()
            || user.is_some_and(|user| !reach::reaches(&postgres, user))
        {
            return None;
        }
        let found = major_of(&output(&postgres, "--version", user)?)?;
        let fits = major.map_or(found >= OLDEST_MAJOR, |major| found == major);
        (fits && has_hstore(bin, found, user)).then(|| Binaries { bin: bin.to_path_buf() })
    }
}

/// Every folder in which binaries may lie, best first.
fn candidates() -> Vec<PathBuf> {
    let named = env::var_os("PG_BIN_DIR").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = INSTALLATIONS.iter().flat_map(|Installations { root, prefix, bin }| {
        newest_first(Path::new(root), prefix).into_iter().map(move |dir| dir.join(bin))
    });
    named.into_iter().chain(env::split_paths(&path)).chain(installed).collect()
}

/// Returns the entries of `root` named `prefix` and a version, the highest version first.
fn newest_first(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .filter_map(|entry| Some((version(&entry.file_name(), prefix)?, entry.path())))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, dir)| dir).collect()
}

/// Reads "17.2" as 17 and 2: as text, 9 would be newer than 17.
fn version(name: &OsStr, prefix: &str) -> Option<Vec<u32>> {
    let version = name.to_str()?.strip_prefix(prefix)?;
    version.split('.').map(|part| part.parse().ok()).collect()
}

/// Reads the 15 of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major_of(output: &str) -> Option<u32> {
    let (_, version) = output.split_once("(PostgreSQL) ")?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Tells whether the contrib extensions are installed, which some systems pack apart.
fn has_hstore(bin: &Path, major: u32, user: Option<User>) -> bool {
    let is_in = |share: &Path| share.join("extension/hstore.control").is_file();
    ["../share/postgresql", "../share"].iter().any(|share| is_in(&bin.join(share)))
        || is_in(&Path::new("/usr/share/postgresql").join(major.to_string()))
        || output(&bin.join("pg_config"), "--sharedir", user)
            .is_some_and(|share| is_in(Path::new(share.trim())))
}

fn output(program: &Path, arg: &str, user: Option<User>) -> Option<String> {
    let output = privileges::command(program, user).arg(arg).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let root = tempfile::tempdir().unwrap();
        for name in ["9.6", "17", "postgresql@18", "10", "9.10", "data"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let found = newest_first(root.path(), "");
        let names: Vec<_> = found.iter().filter_map(|dir| dir.file_name()?.to_str()).collect();
        assert_eq!(names, ["17", "10", "9.10", "9.6"]);
    }

    #[test]
    fn a_prefix_is_no_part_of_the_version() {
        assert_eq!(version("postgresql@17".as_ref(), "postgresql@"), Some(vec![17]));
        assert_eq!(version("postgresql".as_ref(), "postgresql@"), None);
        assert_eq!(version("postgresql@".as_ref(), "postgresql@"), None);
    }

    #[test]
    fn the_major_version_is_read_from_the_servers_answer() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 19devel\n"), Some(19));
        assert_eq!(major_of("command not found"), None);
    }

    #[test]
    fn a_folder_without_all_of_it_is_passed_over() {
        let bin = tempfile::tempdir().unwrap();
        fs::write(bin.path().join("postgres"), "").unwrap();
        assert!(Binaries::check(bin.path(), None, None).is_none());
    }
}
