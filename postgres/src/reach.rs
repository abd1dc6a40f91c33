//! Folders that the server's user can reach, although we are root and it is not.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{self, Path, PathBuf},
};

use crate::privileges::{self, User};

/// Returns a folder that the server's user can reach: `wanted`, or one in the system's temporary
/// folder that is always the same for the same `wanted`.
///
/// The second happens only to root: a clone in a home folder of mode 0700 is closed to the user whom
/// the server runs as. Nothing is made or changed.
pub fn reachable_dir(wanted: &Path) -> PathBuf {
    let wanted = path::absolute(wanted).unwrap_or_else(|_| wanted.to_path_buf());
    // No user at all: `start` says so.
    let users = privileges::server_users().unwrap_or_default();
    match users.first() {
        Some(&user) if !reaches(&wanted, user) => fallback(&wanted, &users),
        Some(_) | None => wanted,
    }
}

/// Makes `dir` and its missing ancestors such that others can pass through, whatever the umask.
///
/// Only root needs that. Who calls this for something private closes the last folder itself.
pub(crate) fn create_dir_all(dir: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return fs::create_dir_all(dir);
    }
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(0o755).create(dir) {
            Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?,
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Tells whether `user` can pass through every folder above `path` that exists.
///
/// Goes by the permission bits alone; an access list that says otherwise is not seen.
pub(crate) fn reaches(path: &Path, user: User) -> bool {
    let above = path.ancestors().skip(1).find_map(|dir| fs::canonicalize(dir).ok());
    above.is_some_and(|above| above.ancestors().all(|dir| passes(dir, user)))
}

fn passes(dir: &Path, user: User) -> bool {
    let Ok(found) = fs::metadata(dir) else { return false };
    let execute = if found.uid() == user.uid {
        0o100
    } else if found.gid() == user.gid {
        0o010
    } else {
        0o001
    };
    found.mode() & execute != 0
}

fn fallback(wanted: &Path, users: &[User]) -> PathBuf {
    let name = format!("tollgate-root-{:016x}", fnv1a(wanted.as_os_str().as_encoded_bytes()));
    // Root's own TMPDIR may be closed to others, too.
    [env::temp_dir(), "/tmp".into(), "/var/tmp".into()]
        .iter()
        .map(|temp| temp.join(&name))
        .find(|dir| users.iter().all(|&user| reaches(dir, user)) && is_free_or_ours(dir, users))
        .unwrap_or_else(|| wanted.to_path_buf())
}

/// Anybody may have put something of this name into the temporary folder.
fn is_free_or_ours(dir: &Path, users: &[User]) -> bool {
    match fs::symlink_metadata(dir) {
        Ok(found) => {
            let is_ours = found.uid() == 0 || users.iter().any(|user| user.uid == found.uid());
            found.is_dir() && is_ours
        }
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// A hash that stays the same in every version of Rust, which the standard library's need not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody in the tests' temporary folders owns files as this user.
    const STRANGER: User = User { uid: 4_000_001, gid: 4_000_001 };

    fn dir_of_mode(mode: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        dir
    }

    #[test]
    fn what_lies_in_a_closed_home_is_out_of_reach() {
        let home = dir_of_mode(0o700);
        assert!(!reaches(&home.path().join("clone/.tollgate"), STRANGER));
    }

    #[test]
    fn the_folder_itself_may_be_closed_since_it_will_be_the_users() {
        let dir = dir_of_mode(0o700);
        assert!(reaches(dir.path(), STRANGER));
    }

    #[test]
    fn its_owner_reaches_what_lies_in_a_closed_home() {
        let home = dir_of_mode(0o700);
        let found = fs::metadata(home.path()).unwrap();
        let owner = User { uid: found.uid(), gid: found.gid() };
        assert!(reaches(&home.path().join("data"), owner));
    }

    #[test]
    fn a_group_that_is_shut_out_is_so_even_if_everybody_else_passes() {
        let home = dir_of_mode(0o701);
        let member = User { gid: fs::metadata(home.path()).unwrap().gid(), ..STRANGER };
        assert!(reaches(&home.path().join("data"), STRANGER));
        assert!(!reaches(&home.path().join("data"), member));
    }

    #[test]
    fn as_root_a_closed_home_is_replaced_by_one_place_for_each_folder() {
        let home = dir_of_mode(0o700);
        let wanted = home.path().join("clone/.tollgate");
        let found = reachable_dir(&wanted);
        assert_eq!(found, reachable_dir(&wanted));
        if rustix::process::geteuid().is_root() {
            assert!(!found.starts_with(home.path()));
            assert_ne!(found, reachable_dir(&home.path().join("other/.tollgate")));
        } else {
            assert_eq!(found, wanted);
        }
    }
}
