//! Numbered folders of which every process gets its own.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use crate::reach;

/// More processes at once in one clone are a mistake, not a use.
const MOST_SLOTS: u32 = 1000;

/// A folder that is ours until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Slot {
    /// The folder; it exists and holds whatever its last owner left there.
    pub path: PathBuf,
    _lock: File,
}

/// Claims the first folder `<base>/N` (N = 1, 2, ..) that no living process has claimed.
///
/// The same number comes back when its owner has gone, so a process started alone finds its data
/// again. The lock is the file `<base>/N.lock`, which outlives the claim.
pub fn claim_slot(base: &Path) -> io::Result<Slot> {
    reach::create_dir_all(base)?;
    for number in 1..=MOST_SLOTS {
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(base.join(format!("{number}.lock")))?;
        match lock.try_lock() {
            Ok(()) => {
                let path = base.join(number.to_string());
                reach::create_dir_all(&path)?;
                return Ok(Slot { path, _lock: lock });
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::other(format!("all {MOST_SLOTS} folders in {} are taken", base.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_claims_get_different_folders_and_a_freed_one_is_claimed_again() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().join("not/there/yet");

        let first = claim_slot(&base).unwrap();
        let second = claim_slot(&base).unwrap();
        assert_eq!(first.path, base.join("1"));
        assert_eq!(second.path, base.join("2"));
        assert!(second.path.is_dir());

        drop(first);
        assert_eq!(claim_slot(&base).unwrap().path, base.join("1"));
    }
}
