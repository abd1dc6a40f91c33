//! Who runs the server: we, or as root somebody else, because Postgres refuses to be root.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use crate::Error;

/// A user of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Returns whom root may run the server as, best first; nobody if we are not root, for then we do.
pub(crate) fn server_users() -> Result<Vec<User>, Error> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Vec::new());
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let users: Vec<User> =
        ["postgres", "_postgres", "nobody"].iter().filter_map(|name| user(&passwd, name)).collect();
    if users.is_empty() { Err(Error::NoUser) } else { Ok(users) }
}

/// Prepares a command that runs as `user` (as we are if `None`), apart from our terminal.
///
/// Its own process group keeps Ctrl-C from it, and no `PG..` variable of the caller's reaches it.
pub(crate) fn command(program: impl AsRef<OsStr>, user: Option<User>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").stdin(Stdio::null()).process_group(0).env("LC_ALL", "C");
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    if let Some(user) = user {
        // As root this drops the supplementary groups as well.
        command.uid(user.uid).gid(user.gid);
    }
    command
}

fn user(passwd: &str, name: &str) -> Option<User> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2).map(number);
    Some(User { uid: numbers.next()??, gid: numbers.next()?? })
}

/// macOS writes the ids of `nobody` as -2.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| text.parse().ok().map(i32::cast_unsigned))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        nobody:*:-2:-2:Unprivileged User:/var/empty:/usr/bin/false\n\
        postgres-old:x:7:8::/:/bin/false\n\
        postgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        assert_eq!(user(PASSWD, "postgres"), Some(User { uid: 101, gid: 104 }));
        assert_eq!(user(PASSWD, "post"), None);
    }

    #[test]
    fn a_negative_id_is_the_unsigned_one() {
        assert_eq!(user(PASSWD, "nobody"), Some(User { uid: u32::MAX - 1, gid: u32::MAX - 1 }));
    }
}
