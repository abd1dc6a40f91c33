//! A private server as its users see it: start or join, its URL, and outages on purpose.

use std::{
    fs::File,
    panic,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::process::Signal;
use tokio::{runtime::Handle, task};

use crate::{
    Error, cluster,
    folder::Folder,
    postmaster::{self, Postmaster},
    server::Server,
    watchdog,
};

/// Settings of a private server. Who joins a running server gets it as it was started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of its data, password and log; made if it is missing. See [`crate::reachable_dir`].
    pub dir: PathBuf,
    /// Whether committed work survives a killed server and a power cut. `false` is faster, for tests:
    /// a killed server comes back consistent but without its last half second, a killed machine may
    /// leave data that must be deleted.
    pub durable: bool,
    /// How many connections the server takes.
    pub max_connections: u16,
    /// Memory of its own in megabytes; 64 do for development and tests.
    pub shared_buffers_mb: u32,
}

/// A running private Postgres.
///
/// Handles of the same folder, in this process or in others, share one server. It is stopped about
/// a second after the last of them was dropped or its process ended, also by a `kill -9`.
#[derive(Clone)]
pub struct Postgres {
    shared: Arc<Shared>,
}

struct Shared {
    folder: Folder,
    settings: Settings,
    port: u16,
    password: String,
    /// Open as long as this handle lives: the watchdog sees who is left.
    users: File,
}

impl Postgres {
    /// Starts the server of `settings.dir`, or joins the one that runs there already.
    ///
    /// May be called by any number of processes at once. A server that was killed is started again,
    /// on its old port if that is still free.
    pub async fn start(settings: &Settings) -> Result<Postgres, Error> {
        let settings = settings.clone();
        let runtime = Handle::current();
        let shared = blocking(move || Shared::start(settings, &runtime)).await?;
        Ok(Postgres { shared: Arc::new(shared) })
    }

    /// Returns the URL of database `name` as superuser, password included.
    ///
    /// The database need not exist (`postgres` does); the name must need no escaping in a URL.
    pub fn url(&self, name: &str) -> String {
        let Shared { port, password, .. } = &*self.shared;
        format!("postgres://{}:{password}@127.0.0.1:{port}/{name}", cluster::SUPERUSER)
    }

    /// Returns the server's folder, in which `log` is its log.
    pub fn dir(&self) -> &Path {
        &self.shared.folder.dir
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.shared.port
    }

    /// Returns the server's process as it is now, or `None` after [`kill`](Self::kill) and
    /// [`stop`](Self::stop).
    pub fn pid(&self) -> Option<u32> {
        Postmaster::living(&self.shared.folder.data()).map(|server| server.pid)
    }

    /// Kills the server as `kill -9` does and waits until it is gone; nothing if it is not running.
    ///
    /// Its connections break. Whoever starts or restarts it next waits for what is left of it.
    pub async fn kill(&self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        blocking(move || postmaster::stop(&shared.folder.data(), &[Signal::KILL])).await
    }

    /// Stops the server cleanly, breaking its connections, and waits until it is gone; nothing if it
    /// is not running. [`restart`](Self::restart) or the next [`start`](Self::start) brings it back.
    pub async fn stop(&self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        blocking(move || postmaster::stop(&shared.folder.data(), &postmaster::CLEANLY)).await
    }

    /// Stops the server if it runs and starts it again on the same port, for all who share it.
    pub async fn restart(&self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let runtime = Handle::current();
        blocking(move || shared.restart(&runtime)).await
    }
}

impl Shared {
    fn start(settings: Settings, runtime: &Handle) -> Result<Shared, Error> {
        let folder = Folder::prepare(&settings.dir)?;
        let lock = folder.lock()?;
        // First of all: from here on the server stops with us, wherever we may be killed.
        let users = watchdog::join(&folder)?;
        let server =
            Server { folder: &folder, settings: &settings, users: &users, lock: &lock, runtime };
        let port = server.ensure_ready(None)?;
        let password = cluster::password(&folder)?;
        Ok(Shared { folder, settings, port, password, users })
    }

    fn restart(&self, runtime: &Handle) -> Result<(), Error> {
        let Shared { folder, settings, port, users, .. } = self;
        let lock = folder.lock()?;
        postmaster::stop(&folder.data(), &postmaster::CLEANLY)?;
        let server = Server { folder, settings, users, lock: &lock, runtime };
        server.ensure_ready(Some(*port))?;
        Ok(())
    }
}

/// Runs `work`, which waits for files and processes, where it does not hold up other tasks.
///
/// It runs to its end even if the caller stops waiting, so no server is left half started.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => panic::resume_unwind(error.into_panic()),
    }
}
