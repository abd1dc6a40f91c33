//! Stripe's API: who calls, what is asked, and the way to the operation.

mod acts;
mod cards;
mod charges;
mod confirm;
pub(crate) mod control;
mod customers;
mod disputes;
mod error;
mod events;
mod expand;
mod form;
mod idempotency;
mod intents;
mod lists;
mod methods;
mod objects;
pub(crate) mod portal;
mod refunds;
pub(crate) mod sessions;
pub(crate) mod setups;
pub(crate) mod signing;
mod wishes;

use axum::http::{Method, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::charges::{Charge, Refund};
use self::customers::Customer;
use self::disputes::Dispute;
use self::form::Params;
use self::idempotency::{Begun, Keys};
use self::objects::{Intent, PaymentMethod};
use self::portal::Portal;
use self::sessions::Session;
use self::setups::Setup;
use crate::calls::{Answer, Dialect, Fate, Inbound, Payload};
use crate::table::Table;
use crate::world::{Core, Turn};
use crate::{Gateway, ids};

pub(crate) use self::acts::watch;
pub(crate) use self::cards::{BANK_DEBIT, CARDS};
pub(crate) use self::confirm::{Attempt, authenticate, confirm, settle};
pub use self::disputes::DisputeOutcome;
pub(crate) use self::disputes::{
    DisputeStatus, escalate as escalate_dispute, open as open_dispute, settle as settle_dispute,
};
pub(crate) use self::error::StripeError;
pub(crate) use self::objects::Status;
pub(crate) use self::refunds::{at_dashboard as refund_at_dashboard, settle as settle_refund};

/// Everything Stripe knows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Books {
    pub(crate) intents: Table<Intent>,
    pub(crate) charges: Table<Charge>,
    pub(crate) refunds: Table<Refund>,
    pub(crate) customers: Table<Customer>,
    pub(crate) methods: Table<PaymentMethod>,
    #[serde(default)]
    pub(crate) disputes: Table<Dispute>,
    #[serde(default)]
    pub(crate) setups: Table<Setup>,
    #[serde(default)]
    pub(crate) sessions: Table<Session>,
    #[serde(default)]
    pub(crate) portals: Table<Portal>,
    keys: Keys,
}

impl Books {
    /// Frees the keys of calls that have no answer.
    pub(crate) fn forget_unfinished(&mut self) {
        self.keys.forget_unfinished();
    }
}

/// How a call may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// With the secret key: as the merchant.
    Secret,
    /// With the publishable key: as a browser, on the one intent whose secret it shows.
    Publishable,
}

/// A call that was understood.
#[derive(Debug)]
pub(crate) struct Prepared {
    access: Access,
    params: Params,
}

/// Stripe's side of the way of a call.
pub(crate) struct Stripe;

impl Dialect for Stripe {
    const GATEWAY: Gateway = Gateway::Stripe;
    const KEY_HEADER: &'static str = "idempotency-key";
    type Prepared = Prepared;

    fn request_id() -> String {
        ids::stripe_short("req")
    }

    fn prepare(core: &Core, inbound: &Inbound) -> Result<Prepared, Answer> {
        let refuse = |error: &StripeError| dress(core, inbound, error.answer(&inbound.request_id));
        let prepared = understand(core, inbound).map_err(|error| refuse(&error))?;
        let Some(key) = remembered(inbound) else { return Ok(prepared) };
        let now = core.clock.now().timestamp();
        let begun = core.world().stripe.keys.begin(key, &inbound.path, &prepared.params, now);
        match begun.map_err(|error| refuse(&error))? {
            Begun::First => Ok(prepared),
            Begun::Again(saved) => {
                let status = StatusCode::from_u16(saved.status).expect("it was one before");
                let mut answer = dress(core, inbound, Answer::json(status, saved.body))
                    .with("idempotent-replayed", "true")
                    .with("original-request", saved.request_id);
                answer.is_replay = true;
                Err(answer)
            }
        }
    }

    fn execute(core: &Core, inbound: &Inbound, prepared: Prepared, fate: Fate) -> Answer {
        let key = remembered(inbound);
        let mut answer = core.turn(inbound.cause(), |turn| {
            let result = match fate {
                Fate::Well => operate(turn, inbound, prepared.access, prepared.params),
                Fate::FailsIdle => Err(broken()),
                Fate::FailsDone => {
                    let done = operate(turn, inbound, prepared.access, prepared.params);
                    done.and_then(|_| Err(broken()))
                }
            };
            let is_saved = result.as_ref().err().is_none_or(|error| error.is_saved);
            let mut answer = match result {
                Ok(body) => Answer::json(StatusCode::OK, body),
                Err(error) => error.answer(&inbound.request_id),
            };
            if let Some(key) = key {
                remember(turn, key, &answer, is_saved, &inbound.request_id);
            }
            answer.effects = std::mem::take(&mut turn.effects);
            answer
        });
        let effects = std::mem::take(&mut answer.effects);
        Answer { effects, ..dress(core, inbound, answer) }
    }

    fn failure(inbound: &Inbound, status: StatusCode) -> Answer {
        StripeError::failure(status)
            .answer(&inbound.request_id)
            .with("request-id", inbound.request_id.clone())
    }
}

fn broken() -> StripeError {
    StripeError::failure(StatusCode::INTERNAL_SERVER_ERROR).saved()
}

fn remember(turn: &mut Turn<'_>, key: &str, answer: &Answer, is_saved: bool, request_id: &str) {
    let keys = &mut turn.world.stripe.keys;
    match &answer.body {
        Payload::Json(body) if is_saved => keys.save(key, answer.status, body.clone(), request_id),
        Payload::Json(_) | Payload::Text(..) | Payload::Empty => keys.forget(key),
    }
}

/// Returns the key if Stripe heeds it: only a POST has effects to guard.
fn remembered(inbound: &Inbound) -> Option<&str> {
    inbound.key.as_deref().filter(|_| inbound.method == Method::POST)
}

/// Adds the headers that every answer has.
fn dress(core: &Core, inbound: &Inbound, answer: Answer) -> Answer {
    let version = inbound.header("stripe-version").unwrap_or(&core.settings.stripe_api_version);
    let answer = answer
        .with("request-id", inbound.request_id.clone())
        .with("stripe-version", version)
        .with("cache-control", "no-cache, no-store");
    match remembered(inbound) {
        Some(key) => answer.with("idempotency-key", key),
        None => answer,
    }
}

fn understand(core: &Core, inbound: &Inbound) -> Result<Prepared, StripeError> {
    let access = authorize(core, inbound)?;
    let version = inbound.header("stripe-version").unwrap_or(&core.settings.stripe_api_version);
    let is_dated = version.len() >= 10
        && version.as_bytes()[..4].iter().all(u8::is_ascii_digit)
        && version.as_bytes()[4] == b'-';
    if !is_dated {
        return Err(StripeError::invalid(format!("Invalid Stripe API version: {version}")));
    }
    let form = if inbound.method == Method::POST {
        let kind = inbound.header("content-type").unwrap_or_default();
        if !inbound.body.is_empty() && !kind.starts_with("application/x-www-form-urlencoded") {
            return Err(StripeError::invalid(format!(
                "Invalid request: content type {kind} is not application/x-www-form-urlencoded."
            )));
        }
        &inbound.body[..]
    } else {
        inbound.query.as_bytes()
    };
    Ok(Prepared { access, params: Params::parse(form)? })
}

/// Finds the key in `Authorization`, as bearer or as the user name of Basic.
fn authorize(core: &Core, inbound: &Inbound) -> Result<Access, StripeError> {
    let Some((scheme, value)) =
        inbound.header("authorization").and_then(|header| header.split_once(' '))
    else {
        return Err(StripeError::unauthorized(
            "You did not provide an API key. You need to provide your API key in the Authorization \
             header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        ));
    };
    let key = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(value.trim().to_owned()),
        "basic" => BASE64_STANDARD
            .decode(value.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(|pair| pair.split(':').next().unwrap_or_default().to_owned()),
        _ => None,
    };
    match key {
        Some(key) if key == core.settings.stripe_secret_key => Ok(Access::Secret),
        Some(key) if key == core.settings.stripe_publishable_key => Ok(Access::Publishable),
        Some(_) | None => Err(StripeError::unauthorized("Invalid API Key provided: sk_test_****")),
    }
}

/// Does what is asked, then fills in what was to be expanded.
fn operate(
    turn: &mut Turn<'_>,
    inbound: &Inbound,
    access: Access,
    mut params: Params,
) -> Result<Value, StripeError> {
    let expand = params.list("expand")?;
    let segments = inbound.segments();
    let segments: Vec<&str> = segments.iter().skip(1).copied().collect();
    let mut body = if access == Access::Publishable {
        browse(turn, &inbound.method, &segments, params)?
    } else {
        route(turn, inbound, &segments, params)?
    };
    for path in expand {
        expand::expand(&turn.world.stripe, &mut body, &path)?;
    }
    Ok(body)
}

/// What a browser may do with a publishable key and an intent's client secret.
fn browse(
    turn: &mut Turn<'_>,
    method: &Method,
    segments: &[&str],
    mut params: Params,
) -> Result<Value, StripeError> {
    let secret = params.text("client_secret")?;
    let (kind, id) = match (method.as_str(), segments) {
        ("GET", [kind @ ("payment_intents" | "setup_intents"), id])
        | ("POST", [kind @ ("payment_intents" | "setup_intents"), id, "confirm"]) => (*kind, *id),
        _ => {
            return Err(StripeError::forbidden(
                "This API call cannot be made with a publishable API key. Please use a secret API \
                 key.",
            ));
        }
    };
    let is_setup = kind == "setup_intents";
    let known = if is_setup {
        &setups::find(&turn.world.stripe, id)?.client_secret
    } else {
        &intents::find(&turn.world.stripe, id)?.client_secret
    };
    if secret.as_ref() != Some(known) {
        let object = if is_setup { "setupintent" } else { "payment_intent" };
        return Err(StripeError::missing(object, id, "intent"));
    }
    let mut body = match (method.as_str(), is_setup) {
        ("GET", false) => intents::fetch(turn, id, params)?,
        ("GET", true) => setups::fetch(turn, id, params)?,
        (_, false) => intents::confirm(turn, id, params)?,
        (_, true) => setups::confirm_by_call(turn, id, params)?,
    };
    // What only the merchant may see.
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|name, _| !matches!(name.as_str(), "metadata" | "customer"));
        fields.insert("metadata".into(), json!({}));
    }
    Ok(body)
}

fn route(
    turn: &mut Turn<'_>,
    inbound: &Inbound,
    segments: &[&str],
    params: Params,
) -> Result<Value, StripeError> {
    match (inbound.method.as_str(), segments) {
        ("POST", ["payment_intents"]) => intents::create(turn, params),
        ("GET", ["payment_intents"]) => intents::list(turn, params),
        ("GET", ["payment_intents", id]) => intents::fetch(turn, id, params),
        ("POST", ["payment_intents", id]) => intents::update(turn, id, params),
        ("POST", ["payment_intents", id, "confirm"]) => intents::confirm(turn, id, params),
        ("POST", ["payment_intents", id, "cancel"]) => intents::cancel(turn, id, params),
        ("POST", ["payment_intents", id, "capture"]) => intents::capture(turn, id, params),
        ("POST", ["customers"]) => customers::create(turn, params),
        ("GET", ["customers"]) => customers::list(turn, params),
        ("GET", ["customers", id]) => customers::fetch(turn, id, params),
        ("POST", ["customers", id]) => customers::update(turn, id, params),
        ("DELETE", ["customers", id]) => customers::delete(turn, id, params),
        ("GET", ["customers", id, "payment_methods"]) => methods::list_of(turn, id, params),
        ("GET", ["customers", customer, "payment_methods", id]) => {
            methods::fetch_of(turn, customer, id, params)
        }
        ("GET", ["payment_methods"]) => methods::list(turn, params),
        ("GET", ["payment_methods", id]) => methods::fetch(turn, id, params),
        ("POST", ["payment_methods", id]) => methods::update(turn, id, params),
        ("POST", ["payment_methods", id, "attach"]) => methods::attach(turn, id, params),
        ("POST", ["payment_methods", id, "detach"]) => methods::detach(turn, id, params),
        ("POST", ["setup_intents"]) => setups::create(turn, params),
        ("GET", ["setup_intents"]) => setups::list(turn, params),
        ("GET", ["setup_intents", id]) => setups::fetch(turn, id, params),
        ("POST", ["setup_intents", id]) => setups::update(turn, id, params),
        ("POST", ["setup_intents", id, "confirm"]) => setups::confirm_by_call(turn, id, params),
        ("POST", ["setup_intents", id, "cancel"]) => setups::cancel(turn, id, params),
        ("POST", ["billing_portal", "sessions"]) => portal::create(turn, params),
        ("POST", ["checkout", "sessions"]) => sessions::create(turn, params),
        ("GET", ["checkout", "sessions"]) => sessions::list(turn, params),
        ("GET", ["checkout", "sessions", id]) => sessions::fetch(turn, id, params),
        ("POST", ["checkout", "sessions", id]) => sessions::update(turn, id, params),
        ("GET", ["checkout", "sessions", id, "line_items"]) => sessions::items(turn, id, params),
        ("POST", ["checkout", "sessions", id, "expire"]) => {
            sessions::expire_by_call(turn, id, params)
        }
        ("POST", ["refunds"]) => refunds::create(turn, params),
        ("GET", ["refunds"]) => refunds::list(turn, params),
        ("GET", ["refunds", id]) => refunds::fetch(turn, id, params),
        ("POST", ["refunds", id]) => refunds::update(turn, id, params),
        ("POST", ["refunds", id, "cancel"]) => refunds::cancel(turn, id, params),
        ("GET", ["charges"]) => refunds::charges(turn, params),
        ("GET", ["charges", id]) => refunds::charge(turn, id, params),
        ("GET", ["disputes"]) => disputes::list(turn, params),
        ("GET", ["disputes", id]) => disputes::fetch(turn, id, params),
        ("POST", ["disputes", id]) => disputes::update(turn, id, params),
        ("POST", ["disputes", id, "close"]) => disputes::close(turn, id, params),
        ("GET", ["events"]) => events::list(turn, params),
        ("GET", ["events", id]) => events::fetch(turn, id, params),
        (method, _) => Err(StripeError::unrecognized(method, &inbound.path)),
    }
}
