//! Settings, all from the environment. Every error is listed at once; no secret is ever printed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

/// What kind of installation this is (rules.md, "Callers, keys, limits").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// Real money; the default.
    Production,
    /// `tollgate dev`.
    Development,
    /// The test suite.
    Test,
}

impl Environment {
    /// The name as it is configured and stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Development => "development",
            Self::Test => "test",
        }
    }
}

/// All settings of a process.
#[derive(Debug, Clone)]
pub struct Config {
    /// `TOLLGATE_ENV`.
    pub environment: Environment,
    /// `DATABASE_URL`.
    pub database_url: SecretString,
    /// `BIND`, or `PORT` on every address: where the API listens.
    pub bind: SocketAddr,
    /// `PUBLIC_URL`: how gateways and browsers reach the API; without a trailing slash.
    pub public_url: String,
    /// Stripe, where `STRIPE_SECRET_KEY` is set.
    pub stripe: Option<Stripe>,
    /// PayPal, where `PAYPAL_CLIENT_ID` is set.
    pub paypal: Option<PayPal>,
    /// Who may call as a customer.
    pub jwt: Jwt,
    /// `LEDGER_KEY`: signs ledger entries, at least 32 characters; never changed, or all old
    /// entries read as forged.
    pub ledger_key: SecretString,
    /// `REDIRECT_ORIGINS`: origins a browser may be sent to after paying.
    pub redirect_origins: BTreeSet<String>,
    /// `LATE_CAPTURE` = refund: a cancelled payment that is captured after all is always refunded.
    pub refunds_late: bool,
    /// `MANUAL_INSTRUCTIONS`: what a customer reads who pays by bank transfer.
    pub manual_instructions: String,
    /// `RATE_LIMITS` = on, the default; off for benchmarks.
    pub has_rate_limits: bool,
    /// How long a call to a gateway may take: 10 s. No setting; tests are less patient.
    pub gateway_timeout: Duration,
}

/// Both gateways answer nearly all calls within 5 s; browsers wait some 30 s for two calls.
pub const GATEWAY_TIMEOUT: Duration = Duration::from_secs(10);

/// Stripe's settings.
#[derive(Debug, Clone)]
pub struct Stripe {
    /// `STRIPE_SECRET_KEY`.
    pub secret_key: SecretString,
    /// `STRIPE_PUBLISHABLE_KEY`: handed to front ends beside the client secret.
    pub publishable_key: Option<String>,
    /// `STRIPE_WEBHOOK_SECRETS`, newest first; during a roll two.
    pub webhook_secrets: Vec<SecretString>,
    /// `STRIPE_API_BASE`.
    pub api_base: Url,
    /// `STRIPE_LIVEMODE`: events of the other mode are ignored.
    pub livemode: bool,
    /// `STRIPE_ACCOUNT`: events of other connected accounts are ignored.
    pub account: Option<String>,
}

/// How a webhook of PayPal's is proven.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PayPalProof {
    /// By its signature and PayPal's certificate.
    #[default]
    Certificate,
    /// By asking PayPal's API.
    Api,
}

/// PayPal's settings.
#[derive(Debug, Clone)]
pub struct PayPal {
    /// `PAYPAL_CLIENT_ID`.
    pub client_id: String,
    /// `PAYPAL_CLIENT_SECRET`.
    pub client_secret: SecretString,
    /// `PAYPAL_WEBHOOK_ID`: all that binds a signature to us.
    pub webhook_id: SecretString,
    /// `PAYPAL_MERCHANT_ID`: the payee we expect.
    pub merchant_id: Option<String>,
    /// `PAYPAL_ENVIRONMENT` = live.
    pub is_live: bool,
    /// `PAYPAL_API_BASE`.
    pub api_base: Url,
    /// `PAYPAL_VAULT`: payers of recurring plans save PayPal for renewals; PayPal must have
    /// enabled it for the app.
    pub vault: bool,
    /// `PAYPAL_CERT_ROOTS`: PEM text of trust anchors instead of the public ones (not in production).
    pub cert_roots: Option<String>,
    /// `PAYPAL_CERT_RESOLVE`: where certificates are fetched instead of DNS (not in production).
    pub cert_resolve: Option<SocketAddr>,
    /// `PAYPAL_WEBHOOK_PROOF`: certificate (default) or api.
    pub proof: PayPalProof,
}

/// Who may call as a customer.
#[derive(Debug, Clone)]
pub struct Jwt {
    /// `JWT_HS256_SECRET`, 32 bytes at least.
    pub hs256_secret: Option<SecretString>,
    /// `JWT_PUBLIC_KEY`: PEM of an RSA, P-256 or Ed25519 key.
    pub public_key: Option<String>,
    /// `JWT_ISSUER`: `iss` must equal it.
    pub issuer: Option<String>,
    /// `JWT_AUDIENCE`: `aud` must contain it.
    pub audience: Option<String>,
    /// `JWT_ID_CLAIM`: the claim that names the user; unset: `user_id`, else `sub`.
    pub id_claim: Option<String>,
}

impl Jwt {
    /// What the installation records: the claim, or that none was set.
    pub fn id_claim_setting(&self) -> &str {
        self.id_claim.as_deref().unwrap_or("user_id|sub")
    }
}

/// Everything that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(pub Vec<String>);

impl std::fmt::Display for Errors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the configuration is not usable:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  - {error}"))
    }
}

impl std::error::Error for Errors {}

/// Reads variables and collects what is wrong with them.
struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    errors: Vec<String>,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn secret(&self, name: &str) -> Option<SecretString> {
        self.text(name).map(SecretString::from)
    }

    fn required(&mut self, name: &str) -> String {
        self.text(name).unwrap_or_else(|| {
            self.errors.push(format!("{name} is missing"));
            String::new()
        })
    }

    fn parsed<T: std::str::FromStr>(&mut self, name: &str, expected: &str) -> Option<T> {
        let text = self.text(name)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.errors.push(format!("{name} is not {expected}"));
        }
        value
    }

    fn flag(&mut self, name: &str) -> bool {
        self.parsed(name, "true or false").unwrap_or(false)
    }
}

impl Config {
    /// Reads the process's environment.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn from_env() -> Result<Self, Errors> {
        Self::read(&|name| std::env::var(name).ok())
    }

    /// Reads settings through `lookup`, listing every error.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, Errors> {
        let mut reader = Reader { lookup, errors: Vec::new() };
        let environment = environment(&mut reader);
        let database_url = SecretString::from(reader.required("DATABASE_URL"));
        let bind = bind(&mut reader);
        let public_url = reader
            .text("PUBLIC_URL")
            .unwrap_or_else(|| format!("http://{bind}"))
            .trim_end_matches('/')
            .to_owned();
        let config = Self {
            environment,
            database_url,
            bind,
            public_url,
            stripe: stripe(&mut reader),
            paypal: paypal(&mut reader),
            jwt: jwt(&mut reader),
            ledger_key: ledger_key(&mut reader, environment),
            redirect_origins: redirect_origins(&mut reader),
            refunds_late: late_capture(&mut reader),
            manual_instructions: reader.text("MANUAL_INSTRUCTIONS").unwrap_or_else(|| {
                "Transfer the amount with the payment id as reference; it is booked by hand."
                    .to_owned()
            }),
            has_rate_limits: rate_limits(&mut reader),
            gateway_timeout: GATEWAY_TIMEOUT,
        };
        if environment == Environment::Production {
            refuse_what_production_refuses(&config, &mut reader.errors);
        }
        if reader.errors.is_empty() { Ok(config) } else { Err(Errors(reader.errors)) }
    }
}

fn environment(reader: &mut Reader<'_>) -> Environment {
    match reader.text("TOLLGATE_ENV").as_deref() {
        None | Some("production") => Environment::Production,
        Some("development") => Environment::Development,
        Some("test") => Environment::Test,
        Some(_) => {
            let expected = "TOLLGATE_ENV is not production, development or test";
            reader.errors.push(expected.to_owned());
            Environment::Production
        }
    }
}

/// Outside of production a key that everybody knows will do.
fn ledger_key(reader: &mut Reader<'_>, environment: Environment) -> SecretString {
    match (reader.text("LEDGER_KEY"), environment) {
        (Some(key), _) => {
            if key.len() < 32 {
                reader.errors.push("LEDGER_KEY has fewer than 32 characters".to_owned());
            }
            SecretString::from(key)
        }
        (None, Environment::Production) => SecretString::from(reader.required("LEDGER_KEY")),
        (None, Environment::Development | Environment::Test) => {
            SecretString::from("the ledger key of development and tests".to_owned())
        }
    }
}

fn bind(reader: &mut Reader<'_>) -> SocketAddr {
    if let Some(bind) = reader.parsed("BIND", "an address like 127.0.0.1:8000") {
        return bind;
    }
    let port = reader.parsed("PORT", "a port");
    match port {
        Some(port) => SocketAddr::from(([0, 0, 0, 0], port)),
        None => SocketAddr::from(([127, 0, 0, 1], 8000)),
    }
}

fn base(reader: &mut Reader<'_>, name: &str, default: &str) -> Url {
    reader
        .parsed(name, "a URL")
        .unwrap_or_else(|| Url::parse(default).expect("a constant URL parses"))
}

fn stripe(reader: &mut Reader<'_>) -> Option<Stripe> {
    let secret_key = reader.secret("STRIPE_SECRET_KEY")?;
    let webhook_secrets: Vec<SecretString> = reader
        .required("STRIPE_WEBHOOK_SECRETS")
        .split(',')
        .map(str::trim)
        .filter(|secret| !secret.is_empty())
        .map(SecretString::from)
        .collect();
    if webhook_secrets.is_empty() && reader.text("STRIPE_WEBHOOK_SECRETS").is_some() {
        reader.errors.push("STRIPE_WEBHOOK_SECRETS holds no secret".to_owned());
    }
    Some(Stripe {
        secret_key,
        publishable_key: reader.text("STRIPE_PUBLISHABLE_KEY"),
        webhook_secrets,
        api_base: base(reader, "STRIPE_API_BASE", STRIPE_BASE),
        livemode: reader.flag("STRIPE_LIVEMODE"),
        account: reader.text("STRIPE_ACCOUNT"),
    })
}

fn paypal(reader: &mut Reader<'_>) -> Option<PayPal> {
    let client_id = reader.text("PAYPAL_CLIENT_ID")?;
    let is_live = match reader.text("PAYPAL_ENVIRONMENT").as_deref() {
        None | Some("sandbox") => false,
        Some("live") => true,
        Some(_) => {
            reader.errors.push("PAYPAL_ENVIRONMENT is not sandbox or live".to_owned());
            false
        }
    };
    let proof = match reader.text("PAYPAL_WEBHOOK_PROOF").as_deref() {
        None | Some("certificate") => PayPalProof::Certificate,
        Some("api") => PayPalProof::Api,
        Some(_) => {
            reader.errors.push("PAYPAL_WEBHOOK_PROOF is not certificate or api".to_owned());
            PayPalProof::Certificate
        }
    };
    let cert_roots = reader.text("PAYPAL_CERT_ROOTS").and_then(|path| {
        let pem = std::fs::read_to_string(path).ok();
        if pem.is_none() {
            reader.errors.push("PAYPAL_CERT_ROOTS is not a readable file".to_owned());
        }
        pem
    });
    Some(PayPal {
        client_id,
        client_secret: SecretString::from(reader.required("PAYPAL_CLIENT_SECRET")),
        webhook_id: SecretString::from(reader.required("PAYPAL_WEBHOOK_ID")),
        merchant_id: reader.text("PAYPAL_MERCHANT_ID"),
        is_live,
        vault: reader.flag("PAYPAL_VAULT"),
        api_base: base(reader, "PAYPAL_API_BASE", paypal_base(is_live)),
        cert_roots,
        cert_resolve: reader.parsed("PAYPAL_CERT_RESOLVE", "an address like 127.0.0.1:8443"),
        proof,
    })
}

fn jwt(reader: &mut Reader<'_>) -> Jwt {
    let secret = reader.text("JWT_HS256_SECRET");
    if secret.as_ref().is_some_and(|secret| secret.len() < 32) {
        reader.errors.push("JWT_HS256_SECRET is shorter than 32 bytes".to_owned());
    }
    let public_key = reader.text("JWT_PUBLIC_KEY");
    if secret.is_none() && public_key.is_none() {
        reader.errors.push("JWT_HS256_SECRET or JWT_PUBLIC_KEY is needed".to_owned());
    }
    Jwt {
        hs256_secret: secret.map(SecretString::from),
        public_key,
        issuer: reader.text("JWT_ISSUER"),
        audience: reader.text("JWT_AUDIENCE"),
        id_claim: reader.text("JWT_ID_CLAIM"),
    }
}

fn late_capture(reader: &mut Reader<'_>) -> bool {
    match reader.text("LATE_CAPTURE").as_deref() {
        None | Some("honour") => false,
        Some("refund") => true,
        Some(_) => {
            reader.errors.push("LATE_CAPTURE is not honour or refund".to_owned());
            false
        }
    }
}

fn redirect_origins(reader: &mut Reader<'_>) -> BTreeSet<String> {
    let text = reader.text("REDIRECT_ORIGINS").unwrap_or_default();
    let mut origins = BTreeSet::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        match Url::parse(item) {
            Ok(url) if url.origin().is_tuple() && url.path() == "/" => {
                origins.insert(url.origin().ascii_serialization());
            }
            Ok(_) | Err(_) => {
                reader.errors.push("REDIRECT_ORIGINS holds something that is no origin".to_owned());
            }
        }
    }
    origins
}

fn rate_limits(reader: &mut Reader<'_>) -> bool {
    match reader.text("RATE_LIMITS").as_deref() {
        None | Some("on") => true,
        Some("off") => false,
        Some(_) => {
            reader.errors.push("RATE_LIMITS is not on or off".to_owned());
            true
        }
    }
}

/// Stripe's own API.
const STRIPE_BASE: &str = "https://api.stripe.com/";

/// PayPal's own API.
const fn paypal_base(is_live: bool) -> &'static str {
    if is_live { "https://api-m.paypal.com/" } else { "https://api-m.sandbox.paypal.com/" }
}

/// What would be a hole where money is real (rules.md).
fn refuse_what_production_refuses(config: &Config, errors: &mut Vec<String>) {
    let mut refuse = |is_wrong: bool, why: &str| {
        if is_wrong {
            errors.push(format!("production: {why}"));
        }
    };
    let public_url = Url::parse(&config.public_url).ok();
    let is_public = public_url.as_ref().is_some_and(|url| {
        url.scheme() == "https"
            && !matches!(url.host_str(), None | Some("localhost" | "127.0.0.1" | "[::1]"))
    });
    refuse(!is_public, "PUBLIC_URL is not an https address others can reach");
    refuse(
        config.redirect_origins.iter().any(|origin| !origin.starts_with("https://")),
        "REDIRECT_ORIGINS holds an origin without https",
    );
    if let Some(stripe) = &config.stripe {
        let is_own = stripe.api_base.as_str() == STRIPE_BASE;
        refuse(!is_own, "STRIPE_API_BASE is not Stripe's own");
    }
    if let Some(paypal) = &config.paypal {
        let is_own = paypal.api_base.as_str() == paypal_base(paypal.is_live);
        refuse(!is_own, "PAYPAL_API_BASE is not PayPal's own");
        refuse(paypal.cert_roots.is_some(), "PAYPAL_CERT_ROOTS is for development");
        refuse(paypal.cert_resolve.is_some(), "PAYPAL_CERT_RESOLVE is for development");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, Errors> {
        Config::read(&|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn all_errors_are_listed_at_once_and_no_secret_is_printed() {
        let errors = read(&[
            ("BIND", "nowhere"),
            ("JWT_HS256_SECRET", "short-canary"),
            ("STRIPE_SECRET_KEY", "sk_live_canary"),
        ])
        .unwrap_err();
        let text = errors.to_string();
        for name in ["DATABASE_URL", "BIND", "JWT_HS256_SECRET", "STRIPE_WEBHOOK_SECRETS"] {
            assert!(text.contains(name), "{name} is not in {text}");
        }
        assert!(!text.contains("canary"), "{text}");
    }

    #[test]
    fn paypals_webhooks_are_proven_by_certificate_unless_the_api_is_chosen() {
        let proof = |chosen: &str| {
            let config = read(&[
                ("TOLLGATE_ENV", "test"),
                ("DATABASE_URL", "postgres://x"),
                ("JWT_HS256_SECRET", "0123456789abcdef0123456789abcdef"),
                ("PAYPAL_CLIENT_ID", "id"),
                ("PAYPAL_CLIENT_SECRET", "secret"),
                ("PAYPAL_WEBHOOK_ID", "webhook"),
                ("PAYPAL_WEBHOOK_PROOF", chosen),
            ]);
            config.map(|config| config.paypal.unwrap().proof)
        };
        assert_eq!(proof("").unwrap(), PayPalProof::Certificate);
        assert_eq!(proof("certificate").unwrap(), PayPalProof::Certificate);
        assert_eq!(proof("api").unwrap(), PayPalProof::Api);
        assert!(proof("none").is_err());
    }

    #[test]
    fn a_gateway_without_a_webhook_secret_is_refused() {
        for blank in ["", " ", ",", " , ,"] {
            let errors = read(&[
                ("TOLLGATE_ENV", "test"),
                ("DATABASE_URL", "postgres://x"),
                ("JWT_HS256_SECRET", "0123456789abcdef0123456789abcdef"),
                ("STRIPE_SECRET_KEY", "sk_test_x"),
                ("STRIPE_WEBHOOK_SECRETS", blank),
                ("PAYPAL_CLIENT_ID", "x"),
                ("PAYPAL_CLIENT_SECRET", "x"),
                ("PAYPAL_WEBHOOK_ID", " "),
            ])
            .unwrap_err();
            assert_eq!(errors.0.len(), 2, "{errors}");
            assert!(errors.0[0].starts_with("STRIPE_WEBHOOK_SECRETS"));
            assert!(errors.0[1].starts_with("PAYPAL_WEBHOOK_ID"));
        }
    }

    #[test]
    fn production_refuses_a_gateway_that_is_not_the_gateways_own() {
        let errors = read(&[
            ("DATABASE_URL", "postgres://x"),
            ("PUBLIC_URL", "http://127.0.0.1:8000"),
            ("JWT_HS256_SECRET", "0123456789abcdef0123456789abcdef"),
            ("STRIPE_SECRET_KEY", "sk_live_x"),
            ("STRIPE_WEBHOOK_SECRETS", "whsec_x"),
            ("STRIPE_API_BASE", "http://127.0.0.1:1/"),
        ])
        .unwrap_err();
        assert_eq!(errors.0.len(), 3, "{errors}");
        assert!(errors.0[0].contains("LEDGER_KEY"), "{errors}");
    }

    #[test]
    fn a_printed_config_masks_its_secrets() {
        let config = read(&[
            ("TOLLGATE_ENV", "test"),
            ("DATABASE_URL", "postgres://u:canary@h/d"),
            ("JWT_HS256_SECRET", "canary-canary-canary-canary-canary"),
        ])
        .unwrap();
        assert!(!format!("{config:?}").contains("canary"));
    }
}
