//! The figures, for people and for programs.

use serde_json::{Value, json};

use super::Measure;
use super::drive::Outcome;
use super::stats::median;

/// One measure in one round.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) measure: Measure,
    /// Good answers a second.
    pub(super) ours: f64,
    /// Transactions of pgbench a second.
    pub(super) pgbench: Option<f64>,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Answers other than 2xx.
    pub(super) refused: u64,
    /// Processors that the API kept busy.
    pub(super) api_busy: f64,
    /// Processors that making the load kept busy.
    pub(super) load_busy: f64,
}

impl Row {
    pub(super) fn of(measure: Measure, outcome: &Outcome, pgbench: Option<f64>) -> Self {
        let elapsed = outcome.elapsed.as_secs_f64().max(1e-9);
        Self {
            measure,
            ours: outcome.rate(),
            pgbench,
            p50_ms: outcome.latency_ms(500),
            p99_ms: outcome.latency_ms(990),
            refused: outcome.refused.values().sum(),
            api_busy: outcome.api_seconds / elapsed,
            load_busy: outcome.load_seconds / elapsed,
        }
    }

    fn ratio(&self) -> Option<f64> {
        self.pgbench.map(|pgbench| self.ours / pgbench)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "what": self.measure.name(),
            "ours_per_second": self.ours,
            "pgbench_per_second": self.pgbench,
            "ratio": self.ratio(),
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "refused": self.refused,
            "api_busy": self.api_busy,
            "load_busy": self.load_busy,
        })
    }

    /// The row of the table.
    pub(super) fn line(&self, what: &str) -> String {
        let (ours, p50, p99) = (self.ours, self.p50_ms, self.p99_ms);
        let pgbench = self.pgbench.map_or("-".to_owned(), |rate| format!("{rate:.0}"));
        let ratio = self.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let refused = match self.refused {
            0 => String::new(),
            count => format!("   {count} answers were not 2xx"),
        };
        let busy = format!("{:>7.2}{:>7.2}", self.api_busy, self.load_busy);
        format!("{what:<34}{ours:>8.0}{pgbench:>11}{ratio:>7}{p50:>8.2}{p99:>8.2}{busy}{refused}")
    }
}

/// The heading of the table.
pub(super) fn heading() -> String {
    format!(
        "{:<34}{:>8}{:>11}{:>7}{:>8}{:>8}{:>7}{:>7}",
        "what", "ours/s", "pgbench/s", "ratio", "p50 ms", "p99 ms", "api", "load"
    )
}

/// Each column's median over the rounds of one measure. The ratio is that of the medians.
pub(super) fn middle(rows: &[&Row]) -> Option<Row> {
    let first = rows.first()?;
    let of =
        |value: fn(&Row) -> f64| median(&rows.iter().map(|row| value(row)).collect::<Vec<_>>());
    let pgbench: Vec<f64> = rows.iter().filter_map(|row| row.pgbench).collect();
    Some(Row {
        measure: first.measure,
        ours: of(|row| row.ours),
        pgbench: (!pgbench.is_empty()).then(|| median(&pgbench)),
        p50_ms: of(|row| row.p50_ms),
        p99_ms: of(|row| row.p99_ms),
        refused: rows.iter().map(|row| row.refused).sum(),
        api_busy: of(|row| row.api_busy),
        load_busy: of(|row| row.load_busy),
    })
}
