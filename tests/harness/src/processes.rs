//! The real binaries, started and killed.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Builds the binaries of this workspace once, as the tests themselves were built.
pub fn build() -> PathBuf {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let built = Command::new(cargo)
        .args(["build", "--workspace", "--bins", "--quiet"])
        .current_dir(root)
        .status()
        .unwrap();
    assert!(built.success(), "the binaries do not build");
    // This test's own file lies in <target>/<profile>/deps.
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(|deps| deps.parent()).unwrap().to_owned()
}

/// A process of ours; killed with -9 when dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a binary with exactly these settings.
    pub fn start(binary: &Path, settings: &HashMap<String, String>) -> Self {
        Self::spawn(Command::new(binary).env_clear().envs(settings).stderr(Stdio::null()))
    }

    /// Starts it so that it adds every detail it can log to a file.
    pub fn start_logged(binary: &Path, settings: &HashMap<String, String>, log: &Path) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        Self::spawn(Command::new(binary).env_clear().envs(settings).env("LOG", "trace").stderr(log))
    }

    fn spawn(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        Self { child }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}
