//! PayPal's API: who calls, what is asked, and the way to the operation.

mod captures;
mod certificates;
mod disputes;
mod error;
mod events;
mod fields;
mod oauth;
mod orders;
mod refunds;
mod replays;
mod reporting;
pub(crate) mod signing;
mod vault;

use std::collections::{BTreeSet, VecDeque};

use axum::http::{Method, StatusCode};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::captures::Capture;
use self::disputes::Dispute;
use self::oauth::Tokens;
use self::orders::Order;
use self::refunds::Refund;
use self::replays::{Replays, Use};
use self::vault::{PaymentToken, SetupToken};
use crate::calls::{Answer, Dialect, Fate, Inbound, Payload};
use crate::table::Table;
use crate::world::{Core, Turn};
use crate::{Gateway, ids};

pub(crate) use self::captures::{Outcome as CaptureOutcome, settle};
pub use self::disputes::PayPalDisputeOutcome;
pub(crate) use self::disputes::{
    escalate as escalate_dispute, open as open_dispute, settle as settle_dispute,
};
pub(crate) use self::error::PayPalError;
pub use self::orders::Funding;
pub(crate) use self::orders::{
    PAYER_ID, Status, approve, has_late_approvals, reverse_approval, reverse_late_approvals,
};
pub use self::refunds::PayPalRefundOutcome;
pub(crate) use self::refunds::{refund, reverse, settle as settle_refund};
pub(crate) use self::vault::{SetupStatus, approve_setup, delete as delete_token};

/// Everything PayPal knows. Tokens are not kept over a restart: callers fetch new ones.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Books {
    pub(crate) orders: Table<Order>,
    pub(crate) captures: Table<Capture>,
    pub(crate) refunds: Table<Refund>,
    #[serde(default)]
    pub(crate) disputes: Table<Dispute>,
    #[serde(default)]
    pub(crate) payment_tokens: Table<PaymentToken>,
    #[serde(default)]
    pub(crate) setup_tokens: Table<SetupToken>,
    /// Approvals and when they were given, oldest first: those not captured in time are reversed.
    #[serde(default)]
    approvals: VecDeque<(DateTime<Utc>, String)>,
    /// Invoices that were or may yet be paid, for they are paid only once.
    invoices: BTreeSet<String>,
    replays: Replays,
    #[serde(skip)]
    pub(crate) tokens: Tokens,
    /// What the next capture meets, whatever the payer chose.
    #[serde(skip)]
    pub(crate) next_funding: Option<Funding>,
    /// Whether a captured order tells only that its way to pay will be saved, and the event the rest.
    #[serde(skip)]
    pub(crate) vaults_late: bool,
    /// Orders whose capture is under way.
    #[serde(skip)]
    capturing: BTreeSet<String>,
    /// How the next refund begins.
    #[serde(skip)]
    pub(crate) next_refund: Option<PayPalRefundOutcome>,
}

impl Books {
    /// Frees the request ids of calls that made nothing.
    pub(crate) fn forget_unfinished(&mut self) {
        self.replays.forget_unfinished();
    }

    /// Sums what of a capture went back in one of these ways.
    fn sum_back(&self, capture: &str, counts: impl Fn(&Refund) -> bool) -> i64 {
        let refunds = self.captures.find(capture).into_iter().flat_map(|it| &it.refunds);
        let refunds = refunds.filter_map(|id| self.refunds.find(id));
        refunds.filter(|refund| counts(refund)).map(|refund| refund.amount.minor).sum()
    }

    /// What the payer of a capture got back by refunds.
    pub(crate) fn refunded_minor(&self, capture: &str) -> i64 {
        self.sum_back(capture, |it| !it.is_reversal && it.status == PayPalRefundOutcome::Completed)
    }

    /// What PayPal took back of a capture.
    pub(crate) fn reversed_minor(&self, capture: &str) -> i64 {
        self.sum_back(capture, |it| it.is_reversal)
    }

    /// What of a capture is no longer there to be refunded, refunds that pend included.
    fn given_back_minor(&self, capture: &str) -> i64 {
        self.sum_back(capture, |it| {
            matches!(it.status, PayPalRefundOutcome::Completed | PayPalRefundOutcome::Pending)
        })
    }

    /// What a merchant lost of a capture: a dispute and a reversal of the same money are one loss.
    pub(crate) fn lost_minor(&self, capture: &Capture) -> i64 {
        let disputes = self.disputes.iter().filter(|dispute| dispute.capture == capture.id);
        let by_disputes = disputes.map(Dispute::lost_minor).sum::<i64>();
        let rest = capture.amount.minor - self.refunded_minor(&capture.id);
        by_disputes.max(self.reversed_minor(&capture.id)).min(rest)
    }

    /// What of a capture is held while a dispute is open; an inquiry holds nothing.
    pub(crate) fn disputed_minor(&self, capture: &Capture) -> i64 {
        let disputes = self.disputes.iter().filter(|dispute| dispute.capture == capture.id);
        disputes.map(Dispute::held_minor).sum()
    }
}

/// A call that was understood.
#[derive(Debug)]
pub(crate) struct Prepared {
    body: Value,
    used: Option<Use>,
    /// The object an earlier call with this request id made.
    earlier: Option<String>,
    /// The order that this call captures, marked so until it ends.
    capturing: Option<String>,
}

/// What a call comes to.
pub(crate) struct Done {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    /// The object that the request id stands for from now on.
    pub(crate) made: Option<String>,
}

impl Done {
    fn read(body: Value) -> Self {
        Done { status: StatusCode::OK, body, made: None }
    }
}

/// Writes an instant as PayPal does in resources.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Reads an instant out of a query.
fn instant(name: &str, value: &str) -> Result<DateTime<Utc>, PayPalError> {
    let read = DateTime::parse_from_rfc3339(value)
        // The older APIs write and take offsets without a colon.
        .or_else(|_| DateTime::parse_from_str(value, "%Y-%m-%dT%H:%M:%S%.f%z"));
    read.map(|at| at.to_utc()).map_err(|_| {
        PayPalError::bad_query("INVALID_PARAMETER_SYNTAX", name, "Not a date and time.")
    })
}

/// Reads a whole number within bounds out of a query.
fn number(
    name: &str,
    value: &str,
    bounds: std::ops::RangeInclusive<usize>,
) -> Result<usize, PayPalError> {
    value.parse().ok().filter(|number| bounds.contains(number)).ok_or_else(|| {
        let text = format!("Must be from {} to {}.", bounds.start(), bounds.end());
        PayPalError::bad_query("INVALID_PARAMETER_VALUE", name, &text)
    })
}

/// Returns a query without some of its parameters, for links to other pages.
fn query_without(query: &str, names: &[&str]) -> String {
    let kept = form_urlencoded::parse(query.as_bytes());
    let kept = kept.filter(|(name, _)| !names.contains(&&**name));
    form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).finish()
}

/// PayPal's side of the way of a call.
pub(crate) struct PayPal;

impl Dialect for PayPal {
    const GATEWAY: Gateway = Gateway::PayPal;
    const KEY_HEADER: &'static str = "paypal-request-id";
    type Prepared = Prepared;

    fn request_id() -> String {
        ids::hex(13)
    }

    fn prepare(core: &Core, inbound: &Inbound) -> Result<Prepared, Answer> {
        let segments = inbound.segments();
        match (inbound.method.as_str(), segments.as_slice()) {
            ("POST", ["v1", "oauth2", "token"]) => return Err(oauth::grant(core, inbound)),
            ("GET", ["v1", "notifications", "certs", id]) => return Err(certificate(core, id)),
            _ => oauth::check(core, inbound)?,
        }
        let body = body(inbound).map_err(|error| error.answer())?;
        let used = match &inbound.key {
            Some(key) if inbound.method == Method::POST => Use::of(&inbound.path, &segments, key),
            Some(_) | None => None,
        };
        let now = core.clock.now().timestamp();
        let earlier = match &used {
            Some(used) => core.world().paypal.replays.begin(used, &body, now),
            None => Ok(None),
        };
        let earlier = earlier.map_err(|error| error.answer())?;
        let capturing = match segments.as_slice() {
            ["v2", "checkout", "orders", id, "capture"] if earlier.is_none() => {
                begin_capture(core, id, used.as_ref()).map_err(|error| error.answer())?
            }
            _ => None,
        };
        Ok(Prepared { body, used, earlier, capturing })
    }

    fn execute(core: &Core, inbound: &Inbound, prepared: Prepared, fate: Fate) -> Answer {
        let answer = core.turn(inbound.cause(), |turn| {
            orders::reverse_late_approvals(turn);
            if let Some(order) = &prepared.capturing {
                turn.world.paypal.capturing.remove(order);
            }
            if let Some(earlier) = &prepared.earlier {
                let mut answer = replay(turn, inbound, earlier);
                answer.is_replay = true;
                return answer;
            }
            let result = match fate {
                Fate::FailsIdle => Err(broken()),
                Fate::Well | Fate::FailsDone => route(turn, inbound, &prepared.body),
            };
            if let Some(used) = &prepared.used {
                let made = result.as_ref().ok().and_then(|done| done.made.clone());
                turn.world.paypal.replays.end(used, made);
            }
            let result = if fate == Fate::FailsDone { result.and(Err(broken())) } else { result };
            let mut answer = match result {
                Ok(done) if done.status == StatusCode::NO_CONTENT => {
                    Answer { body: Payload::Empty, ..Answer::json(done.status, Value::Null) }
                }
                Ok(done) => Answer::json(done.status, done.body),
                Err(error) => error.answer(),
            };
            answer.effects = std::mem::take(&mut turn.effects);
            answer
        });
        let debug_id = inbound.request_id.clone();
        if answer.headers.iter().any(|(name, _)| *name == "paypal-debug-id") {
            return answer;
        }
        answer.with("paypal-debug-id", debug_id)
    }

    fn failure(_: &Inbound, status: StatusCode) -> Answer {
        PayPalError::failure(status).answer()
    }
}

/// Marks an order as being captured; two captures at once are one too many.
fn begin_capture(
    core: &Core,
    order: &str,
    used: Option<&Use>,
) -> Result<Option<String>, PayPalError> {
    let books = &mut core.world().paypal;
    if books.capturing.insert(order.to_owned()) {
        return Ok(Some(order.to_owned()));
    }
    if let Some(used) = used {
        books.replays.end(used, None);
    }
    let text = "Cannot process capture as a capture of this order is already in progress. Please \
                try again after some time.";
    Err(PayPalError::unprocessable("ORDER_COMPLETION_IN_PROGRESS", text))
}

fn broken() -> PayPalError {
    PayPalError::failure(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Reads the body; an absent one is null.
fn body(inbound: &Inbound) -> Result<Value, PayPalError> {
    if inbound.method != Method::POST || inbound.body.is_empty() {
        return Ok(Value::Null);
    }
    if !inbound.header("content-type").unwrap_or_default().starts_with("application/json") {
        return Err(PayPalError::unsupported_media());
    }
    serde_json::from_slice(&inbound.body)
        .map_err(|error| PayPalError::invalid("MALFORMED_REQUEST_JSON", "/", &error.to_string()))
}

/// `GET /v1/notifications/certs/{id}`
fn certificate(core: &Core, id: &str) -> Answer {
    if id != core.keyring.certificate_id {
        return PayPalError::missing().answer();
    }
    let pem = core.keyring.signer_pem.clone();
    Answer {
        body: Payload::Text("application/x-pem-file", pem),
        ..Answer::json(StatusCode::OK, Value::Null)
    }
}

/// Whether the whole object is wanted, not only its id and status.
pub(crate) fn wants_all(inbound: &Inbound) -> bool {
    inbound.header("prefer").is_some_and(|prefer| prefer.contains("return=representation"))
}

/// Returns the id, status and links of an object, or all of it if that is preferred.
fn shown(inbound: &Inbound, mut body: Value) -> Value {
    if !wants_all(inbound)
        && let Some(fields) = body.as_object_mut()
    {
        fields.retain(|name, _| {
            matches!(name.as_str(), "id" | "status" | "links" | "payment_source")
        });
    }
    body
}

/// Answers a call whose request id made `id` before, with the object as it is now.
fn replay(turn: &Turn<'_>, inbound: &Inbound, id: &str) -> Answer {
    let books = &turn.world.paypal;
    let base = &turn.core.paypal_url;
    let body = if let Some(order) = books.orders.find(id) {
        orders::json(turn, order, base)
    } else if let Some(refund) = books.refunds.find(id) {
        refund.json(turn, base)
    } else if let Some(token) = books.payment_tokens.find(id) {
        return Answer::json(StatusCode::OK, token.json(base));
    } else if let Some(token) = books.setup_tokens.find(id) {
        return Answer::json(StatusCode::OK, token.json(base));
    } else {
        json!({ "id": id })
    };
    Answer::json(StatusCode::OK, shown(inbound, body))
}

fn route(turn: &mut Turn<'_>, inbound: &Inbound, body: &Value) -> Result<Done, PayPalError> {
    let segments = inbound.segments();
    match (inbound.method.as_str(), segments.as_slice()) {
        ("POST", ["v2", "checkout", "orders"]) => orders::create(turn, inbound, body),
        ("GET", ["v2", "checkout", "orders", id]) => orders::fetch(turn, id),
        ("POST", ["v2", "checkout", "orders", id, "capture"]) => {
            captures::capture(turn, inbound, id)
        }
        ("GET", ["v2", "payments", "captures", id]) => captures::fetch(turn, id),
        ("POST", ["v2", "payments", "captures", id, "refund"]) => {
            refunds::create(turn, inbound, id, body)
        }
        ("GET", ["v2", "payments", "refunds", id]) => refunds::fetch(turn, id),
        ("GET", ["v1", "customer", "disputes"]) => disputes::list(turn, inbound),
        ("GET", ["v1", "customer", "disputes", id]) => disputes::fetch(turn, id),
        ("GET", ["v1", "reporting", "transactions"]) => reporting::list(turn, inbound),
        (_, ["v3", "vault", rest @ ..]) => route_vault(turn, inbound, rest, body),
        (_, ["v1", "notifications", rest @ ..]) => route_notifications(turn, inbound, rest),
        _ => Err(PayPalError::missing()),
    }
}

fn route_vault(
    turn: &mut Turn<'_>,
    inbound: &Inbound,
    rest: &[&str],
    body: &Value,
) -> Result<Done, PayPalError> {
    match (inbound.method.as_str(), rest) {
        ("POST", ["setup-tokens"]) => vault::create_setup(turn, inbound, body),
        ("GET", ["setup-tokens", id]) => vault::fetch_setup(turn, id),
        ("POST", ["payment-tokens"]) => vault::create_payment_token(turn, inbound, body),
        ("GET", ["payment-tokens"]) => vault::list(turn, inbound),
        ("GET", ["payment-tokens", id]) => vault::fetch(turn, id),
        ("DELETE", ["payment-tokens", id]) => {
            vault::delete(turn, id);
            Ok(Done { status: StatusCode::NO_CONTENT, body: Value::Null, made: None })
        }
        _ => Err(PayPalError::missing()),
    }
}

fn route_notifications(
    turn: &mut Turn<'_>,
    inbound: &Inbound,
    rest: &[&str],
) -> Result<Done, PayPalError> {
    match (inbound.method.as_str(), rest) {
        ("GET", ["webhooks-events"]) => events::list(turn, inbound).map(Done::read),
        ("GET", ["webhooks-events", id]) => events::fetch(turn, id).map(Done::read),
        ("POST", ["webhooks-events", id, "resend"]) => {
            let body = events::resend(turn, id)?;
            Ok(Done { status: StatusCode::ACCEPTED, body, made: None })
        }
        ("POST", ["verify-webhook-signature"]) => events::verify(turn, inbound).map(Done::read),
        _ => Err(PayPalError::missing()),
    }
}
