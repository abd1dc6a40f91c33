//! `tollgate reconcile`: every payment against its gateway, both ways.

use std::process::ExitCode;

use chrono::{DateTime, Duration, Utc};
use serde_json::json;
use shared::clock::wall_now;
use shared::config::Config;
use shared::db::{self, PoolSettings};
use shared::payments::{self, Difference};
use shared::{App, Clock};

use crate::{Done, say};

/// What to compare, and how to print.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// From when on: an instant (2026-11-24T00:00:00Z), a day (2026-11-24), or days back (7d).
    #[arg(long, default_value = "3d", value_parser = since)]
    since: DateTime<Utc>,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

fn since(text: &str) -> Result<DateTime<Utc>, String> {
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<i64>().ok()) {
        let back = Duration::try_days(days).filter(|back| *back >= Duration::zero());
        let from = back.and_then(|back| wall_now().checked_sub_signed(back));
        return from.ok_or_else(|| "so many days back is no time".to_owned());
    }
    let day = format!("{text}T00:00:00Z");
    let read = text.parse::<DateTime<Utc>>().or_else(|_| day.parse::<DateTime<Utc>>());
    read.map_err(|_| "expected 2026-11-24, 2026-11-24T12:00:00Z or 7d".to_owned())
}

/// Compares, heals what is safe, lists the rest. Exit code 1 if something is left for a person.
pub(crate) async fn run(options: &Options) -> Done {
    let config = Config::from_env()?;
    let pool = db::connect(&config.database_url, PoolSettings::WORKER)?;
    let app = App::new(config, pool, Clock::system())?;
    let differences = payments::compare(&app, options.since).await?;
    let left = differences.iter().filter(|difference| !difference.is_healed).count();
    if options.json {
        say(json!({ "since": options.since, "differences": differences, "left": left }));
    } else {
        for difference in &differences {
            say(line(difference));
        }
        let healed = differences.len() - left;
        say(format!("{healed} differences healed, {left} left for a person"));
    }
    Ok(if left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(difference: &Difference) -> String {
    let payment =
        difference.payment_id.map_or_else(|| "no payment".to_owned(), |id| id.to_string());
    let kind = json!(difference.kind);
    format!(
        "{} {} {} {} ({payment}): {}",
        if difference.is_healed { "healed" } else { "LEFT  " },
        kind.as_str().unwrap_or_default(),
        difference.gateway,
        difference.object_id,
        difference.detail,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_an_instant_a_day_or_days_back() {
        assert_eq!(since("2026-11-24").unwrap(), since("2026-11-24T00:00:00Z").unwrap());
        assert!(since("7d").unwrap() < wall_now());
        for wrong in ["", "d", "-1d", "tomorrow", "99999999999999d"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
