//! Access tokens.

use std::collections::HashMap;

use axum::http::StatusCode;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use crate::calls::{Answer, Inbound};
use crate::ids;
use crate::world::Core;

/// The tokens given out, and when each ends.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    ends: HashMap<String, DateTime<Utc>>,
}

/// `POST /v1/oauth2/token`
pub(super) fn grant(core: &Core, inbound: &Inbound) -> Answer {
    let settings = &core.settings;
    let pair = format!("{}:{}", settings.paypal_client_id, settings.paypal_client_secret);
    let expected = format!("Basic {}", BASE64_STANDARD.encode(pair));
    if inbound.header("authorization") != Some(&expected) {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_client", "Client Authentication failed");
    }
    let grant = form_urlencoded::parse(&inbound.body).find(|(name, _)| name == "grant_type");
    if grant.is_none_or(|(_, kind)| kind != "client_credentials") {
        let text = "Grant Type is NULL or not supported";
        return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type", text);
    }
    let token = format!("A21AA{}", ids::token(60));
    let lifetime = settings.paypal_token_lifetime;
    let now = core.clock.now();
    let end = now + TimeDelta::from_std(lifetime).expect("a token lives for hours");
    let ends = &mut core.world().paypal.tokens.ends;
    ends.retain(|_, end| *end > now);
    ends.insert(token.clone(), end);
    let nonce = format!("{}{}", now.format("%Y-%m-%dT%H:%M:%SZ"), ids::token(20));
    let body = json!({
        "scope": "https://uri.paypal.com/services/checkout/one-click-with-merchant-issued-token \
                  https://uri.paypal.com/services/payments/refund \
                  https://uri.paypal.com/services/applications/webhooks",
        "access_token": token,
        "token_type": "Bearer",
        "app_id": "APP-80W284485P519543T",
        "expires_in": lifetime.as_secs(),
        "nonce": nonce,
    });
    Answer::json(StatusCode::OK, body).with("cache-control", "no-store")
}

/// Refuses a call without a token that is known and not yet ended.
pub(super) fn check(core: &Core, inbound: &Inbound) -> Result<(), Answer> {
    let header = inbound.header("authorization").unwrap_or_default();
    let token = header.strip_prefix("Bearer ").unwrap_or_default();
    let now = core.clock.now();
    match core.world().paypal.tokens.ends.get(token) {
        Some(end) if *end > now => Ok(()),
        Some(_) => Err("Access Token has expired"),
        None => Err("The token passed in was not found in the system"),
    }
    .map_err(|text| refuse(StatusCode::UNAUTHORIZED, "invalid_token", text))
}

fn refuse(status: StatusCode, error: &str, description: &str) -> Answer {
    Answer::json(status, json!({ "error": error, "error_description": description }))
}

impl Tokens {
    /// Ends every token at once, as when credentials are rotated.
    pub(crate) fn expire_all(&mut self) {
        self.ends.values_mut().for_each(|end| *end = DateTime::UNIX_EPOCH);
    }
}
