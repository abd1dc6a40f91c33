//! Downloads a Postgres when the machine has none.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use postgresql_embedded::{PostgreSQL, Settings, VersionReq};
use tokio::time::timeout;

use crate::reach;

/// The major version to download for new data: a settled one that every platform has.
const NEW_MAJOR: u32 = 17;

/// A download is some 15 MB; without an end, a network that swallows packets would hold us for ever.
const PATIENCE: Duration = Duration::from_mins(5);

/// Returns the folder, per user, that has a folder for every downloaded version.
pub(crate) fn installations() -> PathBuf {
    let home = env::home_dir().unwrap_or_else(env::temp_dir);
    reach::reachable_dir(&home.join(".cache/tollgate/postgres"))
}

/// Downloads the newest release of `major` into `dir` and returns its folder of binaries.
pub(crate) async fn install(dir: &Path, major: Option<u32>) -> Result<PathBuf, String> {
    let major = major.unwrap_or(NEW_MAJOR);
    tracing::info!(major, dir = %dir.display(), "no Postgres found, downloading one");
    let mut settings = Settings::new();
    settings.installation_dir = dir.to_path_buf();
    settings.version =
        VersionReq::parse(&format!("={major}")).map_err(|error| error.to_string())?;
    let scratch = settings.data_dir.clone();
    let password = settings.password_file.parent().map(Path::to_path_buf);

    let installed = install_only(settings).await;
    // Temporary folders that `Settings::new` made; nothing is lost if one stays.
    for dir in [Some(scratch), password].into_iter().flatten() {
        _ = fs::remove_dir_all(dir);
    }
    installed
}

async fn install_only(settings: Settings) -> Result<PathBuf, String> {
    // Setting up ends with an initdb as whoever we are, unless this file shows that it was done.
    fs::write(settings.data_dir.join("postgresql.conf"), "").map_err(|error| error.to_string())?;
    reach::create_dir_all(&settings.installation_dir).map_err(|error| error.to_string())?;
    let mut server = PostgreSQL::new(settings);
    match timeout(PATIENCE, server.setup()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("not done after {} s", PATIENCE.as_secs())),
    }
    let installation = &server.settings().installation_dir;
    // It was unpacked in a private folder; root's server runs as somebody else.
    fs::set_permissions(installation, fs::Permissions::from_mode(0o755))
        .map_err(|error| error.to_string())?;
    Ok(installation.join("bin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_downloaded_before_is_used_without_asking() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["15.9.0", "15.18.0", "17.2.0"] {
            fs::create_dir(dir.path().join(version)).unwrap();
        }
        let bin = install(dir.path(), Some(15)).await.unwrap();
        assert_eq!(bin, dir.path().join("15.18.0/bin"));
    }

    #[tokio::test]
    #[ignore = "downloads from GitHub"]
    async fn a_download_brings_a_server_that_runs() {
        let dir = tempfile::tempdir().unwrap();
        let bin = install(dir.path(), None).await.unwrap();
        let output = std::process::Command::new(bin.join("postgres")).arg("--version").output();
        let version = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(version.contains(&format!("(PostgreSQL) {NEW_MAJOR}.")), "{version}");
    }
}
