//! Searches every line that this process logs, at every level and of every crate, for secrets.
//!
//! The first one found ends the process: a leak is never a flaky test. Lines of the simulator are
//! left out, for the gateways' side of a secret is theirs to log.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{LazyLock, Mutex, Once, PoisonError};

use aho_corasick::AhoCorasick;
use base64::prelude::{BASE64_STANDARD, Engine};
use simulator::Settings;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::{JWT_SECRET, STRIPE_WEBHOOK_SECRET};

/// Ends the e-mail address of every customer in tests.
pub const EMAIL_CANARY: &str = "@canary.example.com";

/// A longer run of base64 is a signature of PayPal's (344) or a key, and never ours to log.
const MAX_BASE64: usize = 200;

/// Alerts that are kept for tests to look at.
const MAX_ALERTS: usize = 10_000;

/// What must not be logged, by name.
struct Canaries {
    names: Vec<&'static str>,
    search: AhoCorasick,
}

static CANARIES: LazyLock<Canaries> = LazyLock::new(|| {
    let gateways = Settings::default();
    let basic = format!("{}:{}", gateways.paypal_client_id, gateways.paypal_client_secret);
    let planted = [
        ("Stripe's secret key", gateways.stripe_secret_key),
        ("a webhook secret of Stripe's", STRIPE_WEBHOOK_SECRET.to_owned()),
        ("a webhook secret of Stripe's", "whsec_".to_owned()),
        ("a signature of Stripe's", ",v1=".to_owned()),
        ("a client secret of Stripe's", "_secret_".to_owned()),
        ("PayPal's client secret", gateways.paypal_client_secret),
        ("PayPal's client secret", BASE64_STANDARD.encode(basic)),
        ("an access token of PayPal's", "A21AA".to_owned()),
        ("PayPal's webhook id", gateways.paypal_webhook_id),
        ("the JWT secret", JWT_SECRET.to_owned()),
        ("a customer's token", "eyJ0eXAi".to_owned()),
        ("a customer's token", "eyJhbGci".to_owned()),
        ("an e-mail address", EMAIL_CANARY.to_owned()),
        ("a body of Stripe's", "livemode\"".to_owned()),
        ("a body of Stripe's", "livemode\\".to_owned()),
        ("a body of PayPal's", "event_type\"".to_owned()),
        ("a body of PayPal's", "event_type\\".to_owned()),
    ];
    let (names, needles): (Vec<_>, Vec<_>) = planted.into_iter().unzip();
    Canaries { names, search: AhoCorasick::new(needles).unwrap() }
});

/// The name of a secret in a line, if there is one.
pub fn found(line: &[u8]) -> Option<&'static str> {
    // TLS has an extension of that name, which rustls tells of at TRACE.
    let is_extension = |start: usize| line[..start].ends_with(b"extended_master");
    let mut hits = CANARIES.search.find_iter(line);
    if let Some(hit) = hits.find(|hit| !is_extension(hit.start())) {
        return Some(CANARIES.names[hit.pattern().as_usize()]);
    }
    // rustls tells its handshakes at TRACE: certificates and random numbers, and no secret.
    let head = &line[..line.len().min(40)];
    let is_handshake = head.windows(8).any(|target| target == b"rustls::");
    if is_handshake {
        return None;
    }
    let mut run = 0;
    for byte in line {
        let is_base64 = byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        run = if is_base64 { run + 1 } else { 0 };
        if run > MAX_BASE64 {
            return Some("a signature or key in base64");
        }
    }
    None
}

/// Fails if a log file holds a secret; says how many lines it searched.
pub fn search_file(path: &Path) -> usize {
    let text = std::fs::read(path).unwrap();
    let mut lines = 0;
    for line in text.split(|byte| *byte == b'\n') {
        lines += 1;
        if let Some(name) = found(line) {
            let line = String::from_utf8_lossy(line);
            let place = line.split("\"target\":").nth(1).and_then(|rest| rest.split('"').nth(1));
            panic!("{name} was logged by {}", place.unwrap_or("a line without a target"));
        }
    }
    lines
}

#[derive(Default)]
struct Seen {
    targets: BTreeSet<String>,
    alerts: VecDeque<String>,
}

static SEEN: LazyLock<Mutex<Seen>> = LazyLock::new(Mutex::default);

/// Starts searching; once a process, at the level of every detail.
pub fn watch() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_ansi(false)
            .without_time()
            .with_writer(Searcher)
            .init();
    });
}

/// Warnings and errors that were logged so far.
pub fn alerts() -> Vec<String> {
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    seen.alerts.iter().cloned().collect()
}

/// Where lines came from so far, by the first part of their targets.
pub fn targets() -> BTreeSet<String> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).targets.clone()
}

struct Searcher;

/// One line on its way.
struct Line {
    target: String,
    is_alert: bool,
}

impl<'a> MakeWriter<'a> for Searcher {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { target: String::new(), is_alert: false }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Line {
        Line { target: of.target().to_owned(), is_alert: *of.level() <= Level::WARN }
    }
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let source = self.target.split("::").next().unwrap_or_default();
        if source == "simulator" {
            return Ok(line.len());
        }
        if let Some(name) = found(line) {
            // Neither the line nor the secret: this goes to logs of builds.
            // Past the capture of a test's output, which dies with the process.
            let told = writeln!(io::stderr(), "{name} was logged by {}", self.target);
            drop(told);
            std::process::abort();
        }
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.targets.contains(source) {
            seen.targets.insert(source.to_owned());
        }
        if self.is_alert {
            if seen.alerts.len() == MAX_ALERTS {
                seen.alerts.pop_front();
            }
            seen.alerts.push_back(String::from_utf8_lossy(line).into_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
