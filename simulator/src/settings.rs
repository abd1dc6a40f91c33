//! What a simulator is started with.

use std::path::PathBuf;
use std::time::Duration;

/// Everything one may choose about a simulator. [`Settings::default`] suits tests: free ports, no webhooks yet.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Port of Stripe's API, its payment pages and the control API; 0 takes a free one.
    pub stripe_port: u16,
    /// Port of PayPal's API and its approval pages; 0 takes a free one.
    pub paypal_port: u16,
    /// Port that serves PayPal's API over TLS as `api.sandbox.paypal.com`; 0 takes a free one.
    pub paypal_tls_port: u16,
    /// The secret key callers must show.
    pub stripe_secret_key: String,
    /// The key a browser would show, good only together with an intent's client secret.
    pub stripe_publishable_key: String,
    /// Secrets that sign Stripe's events: one `v1` each, as during a roll.
    pub stripe_webhook_secrets: Vec<String>,
    /// Version of the webhook endpoint, and of answers to callers that name none.
    pub stripe_api_version: String,
    /// Client id for `POST /v1/oauth2/token`.
    pub paypal_client_id: String,
    /// Client secret for `POST /v1/oauth2/token`.
    pub paypal_client_secret: String,
    /// The webhook's id, part of what PayPal's signatures cover.
    pub paypal_webhook_id: String,
    /// The merchant whom orders pay.
    pub paypal_merchant_id: String,
    /// How long an access token lives.
    pub paypal_token_lifetime: Duration,
    /// Where Stripe's events are sent; none: they are only kept.
    pub stripe_webhook_url: Option<String>,
    /// Where PayPal's events are sent; none: they are only kept.
    pub paypal_webhook_url: Option<String>,
    /// Pause before the second attempt of a delivery; doubles with each further one.
    pub first_retry_after: Duration,
    /// The longest pause between two attempts.
    pub longest_retry_after: Duration,
    /// How long one attempt may take.
    pub attempt_timeout: Duration,
    /// How many attempts may be under way at once.
    pub deliveries_at_once: usize,
    /// Seed of everything that goes wrong by chance.
    pub seed: u64,
    /// Where the books are kept between two starts; none: they are forgotten.
    pub state_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            stripe_port: 0,
            paypal_port: 0,
            paypal_tls_port: 0,
            stripe_secret_key: "sk_test_simulator".into(),
            stripe_publishable_key: "pk_test_simulator".into(),
            stripe_webhook_secrets: vec!["whsec_simulator".into()],
            stripe_api_version: "2026-09-30.endive".into(),
            paypal_client_id: "simulator-client".into(),
            paypal_client_secret: "simulator-secret".into(),
            paypal_webhook_id: "1JE4291016473214C".into(),
            paypal_merchant_id: "RD465XN5VS364".into(),
            // About what PayPal answers.
            paypal_token_lifetime: Duration::from_hours(9),
            stripe_webhook_url: None,
            paypal_webhook_url: None,
            first_retry_after: Duration::from_millis(200),
            longest_retry_after: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(10),
            deliveries_at_once: 32,
            seed: 1,
            state_file: None,
        }
    }
}
