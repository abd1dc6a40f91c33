//! `tollgate`: the operator's command, and the newcomer's. Without a verb it is `tollgate dev`.

mod api_key;
#[cfg(feature = "dev")]
mod bench;
mod check;
#[cfg(feature = "dev")]
mod dev;
mod migrate;
mod reconcile;
#[cfg(feature = "dev")]
mod simulator;
#[cfg(feature = "dev")]
mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Billing back end for token plans.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Starts everything for development: own Postgres, simulator, API, worker, demo data.
    #[cfg(feature = "dev")]
    Dev(dev::Options),
    /// Runs the simulated Stripe and PayPal alone, for the tests of any program.
    #[cfg(feature = "dev")]
    Simulator(Box<simulator::Options>),
    /// Brings the database's schema up to date; may be repeated.
    Migrate,
    /// Checks the invariants of the books; exit code 1 if one is broken.
    Check(check::Options),
    /// Compares every payment with its gateway, both ways; heals what is safe, lists the rest.
    Reconcile(reconcile::Options),
    /// Makes and revokes keys of services.
    #[command(subcommand)]
    ApiKey(api_key::Verb),
    /// Measures spending, webhook intake and granting beside pgbench, on a Postgres of its own.
    #[cfg(feature = "dev")]
    Bench(Box<bench::Options>),
    /// Prints a customer's token for development, signed with `JWT_HS256_SECRET`.
    #[cfg(feature = "dev")]
    Token(token::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.verb {
        #[cfg(feature = "dev")]
        None => dev::run(&dev::Options::default()).await,
        #[cfg(not(feature = "dev"))]
        None => Err("name a verb; see --help".into()),
        #[cfg(feature = "dev")]
        Some(Verb::Dev(options)) => dev::run(&options).await,
        #[cfg(feature = "dev")]
        Some(Verb::Simulator(options)) => simulator::run(&options).await,
        Some(Verb::Migrate) => migrate::run().await,
        Some(Verb::Check(options)) => check::run(&options).await,
        Some(Verb::Reconcile(options)) => reconcile::run(&options).await,
        Some(Verb::ApiKey(verb)) => api_key::run(&verb).await,
        #[cfg(feature = "dev")]
        Some(Verb::Bench(options)) => bench::run(&options).await,
        #[cfg(feature = "dev")]
        Some(Verb::Token(options)) => token::run(&options),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            complain(&*error);
            ExitCode::FAILURE
        }
    }
}

/// What a verb ends with.
type Done = Result<ExitCode, Box<dyn std::error::Error>>;

#[expect(clippy::print_stderr, reason = "a command's error goes to the terminal")]
fn complain(error: &dyn std::error::Error) {
    eprintln!("tollgate: {error}");
}

/// Writes one line to standard output: what the command was asked for.
#[expect(clippy::print_stdout, reason = "a command's output")]
fn say(line: impl std::fmt::Display) {
    println!("{line}");
}
