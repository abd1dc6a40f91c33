//! Runs a private Postgres for `tollgate dev` and for tests.
//!
//! [`Postgres::start`] finds the installed binaries (or downloads some), makes a data folder, starts
//! the server on a free port of 127.0.0.1 and shares it with every other process that asks for the
//! same folder. The server stops about a second after the last of these processes has gone, however
//! it went. Nothing depends on a terminal, on port 5432 or on an existing Postgres cluster.
//!
//! ```no_run
//! # async fn example() -> Result<(), postgres::Error> {
//! let dir = postgres::reachable_dir(".tollgate/postgres".as_ref());
//! let settings = postgres::Settings { dir, durable: true, max_connections: 100, shared_buffers_mb: 64 };
//! let server = postgres::Postgres::start(&settings).await?;
//! let url = server.url("postgres");
//! # Ok(())
//! # }
//! ```

mod binaries;
mod cluster;
mod error;
mod fetch;
mod folder;
mod postmaster;
mod private;
mod privileges;
mod reach;
mod server;
mod slot;
mod watchdog;

pub use error::Error;
pub use private::{Postgres, Settings};
pub use reach::reachable_dir;
pub use slot::{Slot, claim_slot};
