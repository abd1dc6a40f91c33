//! Sending money back: tokens are taken in the transaction that inserts the refund, before the
//! gateway is called.

use chrono::{DateTime, Duration, Utc};
use sqlx::PgConnection;

use super::facts::{self, Known, Reckoning};
use super::reckon::{known as known_of, reckon};
use super::settle::{Owner, Settled, Verdict, lock, object_of};
use super::{Payment, RefundChoice, RefundOrigin, store};
use crate::App;
use crate::error::Error;
use crate::gateways::{
    CaptureRef, GatewayError, GatewayName, RefundRequest, RefundState, RefundStatus,
};
use crate::ids::{CustomerId, PaymentId, RefundId};
use crate::jobs::Job;
use crate::money::Money;
use crate::subscriptions;
use crate::tokens;

/// Money sent back, or on its way.
#[derive(Debug, Clone)]
pub struct Refund {
    /// Whose payment.
    pub customer_id: CustomerId,
    /// The refund; our idempotency key at the gateway.
    pub id: RefundId,
    /// The payment.
    pub payment_id: PaymentId,
    /// Who moves the money.
    pub gateway: GatewayName,
    /// The gateway object whose money is sent back.
    pub object_id: String,
    /// The gateway's id, once it answered.
    pub gateway_refund_id: Option<String>,
    /// How much, in minor units of the payment's currency.
    pub amount_minor: i64,
    /// What becomes of the tokens.
    pub choice: RefundChoice,
    /// Who made it.
    pub origin: RefundOrigin,
    /// Where it stands.
    pub status: RefundStatus,
    /// Why it failed, as the gateway codes it.
    pub failure_code: Option<String>,
    /// Why it was made.
    pub reason: String,
    /// Who asked for it.
    pub requested_by: String,
    /// How often the gateway was asked.
    pub attempts: i32,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// A wish to refund.
#[derive(Debug, Clone)]
pub struct RefundWish {
    /// The refund's id, made by whoever may repeat the wish: one id is one refund.
    pub id: RefundId,
    /// The payment.
    pub payment_id: PaymentId,
    /// How much, in major units; `None`: all that is refundable.
    pub amount: Option<rust_decimal::Decimal>,
    /// What becomes of the tokens.
    pub choice: RefundChoice,
    /// The gateway object of a capture too many, whose own refund failed; `None`: the payment's.
    pub surplus_object: Option<String>,
    /// Why.
    pub reason: String,
    /// Who asks.
    pub requested_by: String,
}

/// What a refund may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// What was captured.
    pub captured: Money,
    /// What may be refunded at the most.
    pub refundable: Money,
    /// What the unused share is worth: advice.
    pub quoted: Money,
}

/// What may be refunded of a payment, and what its unused share is worth.
pub async fn quote(app: &App, payment_id: PaymentId) -> Result<Quote, Error> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let payment = find(&mut tx, payment_id).await?;
    let reckoned = facts::reckon(&known_of(&mut tx, &payment).await?);
    let of = (payment.customer_id, payment.id);
    let time = subscriptions::unused_time(&mut tx, of, now).await?;
    let tokens = tokens::unused_of(&mut tx, payment.customer_id, payment.id, now).await?;
    let money = |minor| Money::new(minor, payment.amount.currency);
    let refundable = reckoned.refundable_minor();
    Ok(Quote {
        captured: money(reckoned.captured_minor()),
        refundable: money(refundable),
        quoted: money(facts::quote(refundable, time, tokens)),
    })
}

async fn find(db: &mut PgConnection, id: PaymentId) -> Result<Payment, Error> {
    store::find_by_id(db, id).await?.ok_or(Error::NotFound("payment"))
}

/// Refunds a payment, whole or in part.
///
/// One transaction locks, checks, inserts the refund and takes the tokens; then the gateway is
/// called. A gateway that does not answer leaves the refund pending: the sweep goes on. May be
/// repeated with the same `wish.id`.
pub async fn refund(app: &App, wish: &RefundWish) -> Result<Refund, Error> {
    let mut db = app.db.acquire().await?;
    let payment = find(&mut db, wish.payment_id).await?;
    drop(db);
    let owner = (payment.customer_id, payment.id);
    open(app, owner, wish).await?;
    send_refund(app, owner.0, wish.id).await?;
    let mut db = app.db.acquire().await?;
    let refund = store::refunds::find(&mut db, owner.0, wish.id).await?;
    refund.ok_or(Error::NotFound("refund"))
}

/// Inserts the refund and takes the tokens, or finds it inserted.
async fn open(app: &App, owner: Owner, wish: &RefundWish) -> Result<(), Error> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let payment = lock(&mut tx, owner).await?;
    if let Some(earlier) = store::refunds::find(&mut tx, owner.0, wish.id).await? {
        let asked = wish.amount.map(|it| Money::from_decimal(it, payment.amount.currency));
        let is_same_amount =
            asked.is_none_or(|asked| asked.is_ok_and(|asked| asked.minor == earlier.amount_minor));
        let is_same = earlier.payment_id == wish.payment_id
            && earlier.choice == wish.choice
            && is_same_amount;
        return if is_same { Ok(()) } else { Err(Error::IdempotencyMismatch) };
    }
    let known = known_of(&mut tx, &payment).await?;
    let refund = match &wish.surplus_object {
        None => drafted(&payment, &facts::reckon(&known), wish, now)?,
        Some(object_id) => drafted_of_surplus(&payment, &known, object_id, wish, now)?,
    };
    store::refunds::insert(&mut tx, &refund, Some(now)).await?;
    let reckoned = reckon(&mut tx, &payment, now).await?;
    tx.commit().await?;
    reckoned.jobs.into_iter().for_each(|job| app.doorbell.ring(job));
    Ok(())
}

/// The refund that is wished for, if the payment allows it (rules.md, "Refundable").
fn drafted(
    payment: &Payment,
    reckoned: &Reckoning,
    wish: &RefundWish,
    now: DateTime<Utc>,
) -> Result<Refund, Error> {
    let conflict = |why: &str| Err(Error::Conflict(why.to_owned()));
    let Some(own) = &reckoned.capture else {
        return conflict("nothing was captured");
    };
    if reckoned.is_disputed {
        return conflict("a dispute is open");
    }
    let refundable = reckoned.refundable_minor();
    let amount_minor = match wish.amount {
        None => refundable,
        Some(amount) => {
            let money = Money::from_decimal(amount, payment.amount.currency);
            money.map_err(|error| Error::invalid("amount", error.to_string()))?.minor
        }
    };
    if amount_minor <= 0 && wish.amount.is_some() {
        return Err(Error::invalid("amount", "must be more than zero"));
    }
    if amount_minor <= 0 || amount_minor > refundable {
        let rest = Money::new(refundable, payment.amount.currency);
        return Err(Error::Conflict(format!("{rest} may be refunded")));
    }
    Ok(Refund {
        customer_id: payment.customer_id,
        id: wish.id,
        payment_id: payment.id,
        gateway: payment.method.gateway(),
        object_id: own.object_id.clone(),
        gateway_refund_id: None,
        amount_minor,
        choice: wish.choice,
        origin: RefundOrigin::Operator,
        status: RefundStatus::Pending,
        failure_code: None,
        reason: wish.reason.clone(),
        requested_by: wish.requested_by.clone(),
        attempts: 0,
        created_at: now,
    })
}

/// The rest of a capture too many, whole: nothing was bought with it.
fn drafted_of_surplus(
    payment: &Payment,
    known: &Known,
    object_id: &str,
    wish: &RefundWish,
    now: DateTime<Utc>,
) -> Result<Refund, Error> {
    let reckoned = facts::reckon(known);
    let own = reckoned.surplus.iter().find(|own| own.object_id == object_id);
    let own = own.ok_or(Error::NotFound("capture too many"))?;
    let amount_minor = facts::rest_minor(known, &own.object_id, own.captured.amount.minor);
    if amount_minor <= 0 || wish.amount.is_some() {
        return Err(Error::Conflict("a capture too many is refunded whole, once".to_owned()));
    }
    Ok(Refund {
        customer_id: payment.customer_id,
        id: wish.id,
        payment_id: payment.id,
        gateway: payment.method.gateway(),
        object_id: object_id.to_owned(),
        gateway_refund_id: None,
        amount_minor,
        choice: wish.choice,
        origin: RefundOrigin::Automatic,
        status: RefundStatus::Pending,
        failure_code: None,
        reason: wish.reason.clone(),
        requested_by: wish.requested_by.clone(),
        attempts: 0,
        created_at: now,
    })
}

/// All refunds of a payment, oldest first.
pub async fn refunds_of(app: &App, payment_id: PaymentId) -> Result<Vec<Refund>, Error> {
    let mut db = app.db.acquire().await?;
    let payment = find(&mut db, payment_id).await?;
    Ok(store::refunds::of_payment(&mut db, &payment).await?)
}

/// Asks the gateway for a refund of ours, or how it stands, and books the answer. May be repeated:
/// our id is the gateway's idempotency key.
pub async fn send_refund(
    app: &App,
    customer_id: CustomerId,
    refund_id: RefundId,
) -> Result<(), Error> {
    let mut db = app.db.acquire().await?;
    let refund = store::refunds::find(&mut db, customer_id, refund_id)
        .await?
        .ok_or(Error::NotFound("refund"))?;
    if refund.status != RefundStatus::Pending {
        return Ok(());
    }
    let payment = store::find(&mut db, customer_id, refund.payment_id)
        .await?
        .ok_or(Error::NotFound("payment"))?;
    let capture = capture_of(&mut db, &payment, &refund.object_id).await?;
    drop(db);
    let gateway = app.gateways.get(refund.gateway)?;
    let told = match refund.gateway_refund_id.as_deref() {
        Some(id) => gateway.fetch_refund(id).await,
        None => gateway.refund(&request(&payment, &refund, capture)).await,
    };
    match told {
        Ok(state) => hear(app, &refund, &state).await,
        Err(error) if error.is_temporary() => put_off(app, &refund, &error).await,
        Err(error) => look_before_the_end(app, (&payment, &refund), &error).await,
    }
}

/// A definite refusal. What was sent all the same, under an earlier asking, counts more.
async fn look_before_the_end(
    app: &App,
    (payment, refund): (&Payment, &Refund),
    refusal: &GatewayError,
) -> Result<(), Error> {
    let mut db = app.db.acquire().await?;
    let capture = capture_of(&mut db, payment, &refund.object_id).await?;
    drop(db);
    let made = match app.gateways.get(refund.gateway)?.refunds_of(&capture).await {
        Ok(made) => made,
        Err(error) => return put_off(app, refund, &error).await,
    };
    let named = refund.id.to_string();
    match made.iter().find(|state| state.names_refund.as_deref() == Some(&named)) {
        Some(state) => hear(app, refund, state).await,
        None => end(app, refund, refusal).await,
    }
}

async fn capture_of(
    db: &mut PgConnection,
    payment: &Payment,
    object_id: &str,
) -> Result<CaptureRef, Error> {
    let objects = store::objects(db, payment).await?;
    let captured = objects
        .into_iter()
        .find(|object| object.id == object_id)
        .and_then(|object| object.facts.captured);
    Ok(CaptureRef {
        object_id: Some(object_id.to_owned()),
        capture_id: captured.and_then(|captured| captured.capture_id),
    })
}

fn request(payment: &Payment, refund: &Refund, capture: CaptureRef) -> RefundRequest {
    RefundRequest {
        refund_id: refund.id,
        payment_id: payment.id,
        capture,
        amount: Money::new(refund.amount_minor, payment.amount.currency),
        first_asked_at: refund.created_at,
    }
}

/// Books the gateway's answer to our own asking.
async fn hear(app: &App, refund: &Refund, state: &RefundState) -> Result<(), Error> {
    let owner = (refund.customer_id, refund.payment_id);
    let ours = RefundState { names_refund: Some(refund.id.to_string()), ..state.clone() };
    let mut tx = app.db.begin().await?;
    let settled = settle_refund(&mut tx, owner, &ours, app.clock.now()).await?;
    if let Verdict::Mismatch(reason) = settled.verdict {
        drop(tx);
        tracing::error!(refund.id = %refund.id, reason, "the refund's answer does not fit it");
        return put_off(app, refund, &GatewayError::Malformed(reason)).await;
    }
    tx.commit().await?;
    settled.jobs.into_iter().for_each(|job| app.doorbell.ring(job));
    Ok(())
}

/// Outcome unknown: asked again later, 4, 8, 16, … s, an hour at most.
async fn put_off(app: &App, refund: &Refund, error: &GatewayError) -> Result<(), Error> {
    tracing::warn!(refund.id = %refund.id, %error, "refund not answered; asked again later");
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    lock(&mut tx, (refund.customer_id, refund.payment_id)).await?;
    let current = store::refunds::find(&mut tx, refund.customer_id, refund.id).await?;
    let Some(current) = current.filter(|current| current.status == RefundStatus::Pending) else {
        return Ok(());
    };
    let attempts = current.attempts + 1;
    let next = now + backoff(attempts);
    store::refunds::save_told(&mut tx, &Refund { attempts, ..current }, Some(next), now).await?;
    Ok(tx.commit().await?)
}

fn backoff(attempts: i32) -> Duration {
    let exponent = u32::try_from(attempts).unwrap_or(0).clamp(1, 11) + 1;
    Duration::seconds(2_i64.pow(exponent).min(3_600))
}

/// A definite refusal: the refund has failed, and the tokens are given back.
async fn end(app: &App, refund: &Refund, error: &GatewayError) -> Result<(), Error> {
    tracing::error!(refund.id = %refund.id, %error, "the gateway refused a refund");
    let now = app.clock.now();
    let code = match error {
        GatewayError::Declined { code }
        | GatewayError::Refused { code }
        | GatewayError::Bug { code } => code.clone(),
        GatewayError::NotFound => "not_found".to_owned(),
        GatewayError::Unavailable(_)
        | GatewayError::Misconfigured(_)
        | GatewayError::Malformed(_) => return Ok(()),
    };
    let mut tx = app.db.begin().await?;
    let payment = lock(&mut tx, (refund.customer_id, refund.payment_id)).await?;
    let current = store::refunds::find(&mut tx, refund.customer_id, refund.id).await?;
    let Some(current) = current.filter(|current| current.status == RefundStatus::Pending) else {
        return Ok(());
    };
    let failed = Refund {
        status: RefundStatus::Failed,
        failure_code: Some(code),
        attempts: current.attempts + 1,
        ..current
    };
    store::refunds::save_told(&mut tx, &failed, None, now).await?;
    let reckoned = reckon(&mut tx, &payment, now).await?;
    tx.commit().await?;
    reckoned.jobs.into_iter().for_each(|job| app.doorbell.ring(job));
    Ok(())
}

/// A pending refund's gateway is asked again after this time, for its event may be lost.
const PENDING_CHECK: Duration = Duration::hours(1);

/// Books what a gateway says of a refund, ours or made there.
///
/// An id we do not know is first matched to a refund of ours that it names; while one of ours has
/// no answer yet, one that names none waits, for it may be that one. Joins the caller's
/// transaction.
pub async fn settle_refund(
    db: &mut PgConnection,
    owner: Owner,
    told: &RefundState,
    now: DateTime<Utc>,
) -> Result<Settled, Error> {
    let payment = lock(db, owner).await?;
    if !told.is_ours {
        return Ok(Settled::mismatch("it is of another account or mode"));
    }
    if told.amount.currency != payment.amount.currency {
        return Ok(Settled::mismatch(format!(
            "the refund's currency is {}, expected {}",
            told.amount.currency, payment.amount.currency
        )));
    }
    let gateway = payment.method.gateway();
    if store::disputes::stage_of(db, &payment, gateway, &told.id).await?.is_some() {
        // PayPal lists its reversals among the refunds: that money is counted as lost already.
        return Ok(reckon(db, &payment, now).await?.into());
    }
    let refunds = store::refunds::of_payment(db, &payment).await?;
    let by_id = refunds.iter().find(|refund| refund.gateway_refund_id.as_ref() == Some(&told.id));
    let named = told.names_refund.as_deref().and_then(|id| id.parse::<RefundId>().ok());
    let known = by_id.or_else(|| refunds.iter().find(|refund| Some(refund.id) == named));
    if let Some(known) = known {
        return hear_of(db, &payment, known, told, now).await;
    }
    let unanswered: Vec<&Refund> = refunds
        .iter()
        .filter(|it| it.gateway_refund_id.is_none() && it.status == RefundStatus::Pending)
        .collect();
    if !unanswered.is_empty() {
        let jobs = unanswered.into_iter().map(Refund::job).collect();
        return Ok(Settled { verdict: Verdict::Waits, jobs });
    }
    made_there(db, &payment, told, now).await
}

impl Refund {
    fn job(&self) -> Job {
        Job::SendRefund {
            customer_id: self.customer_id,
            refund_id: self.id,
            attempt: self.attempts,
        }
    }
}

/// Books another amount of a refund made at the gateway, whose first reading was wrong: whoever
/// calls has read it twice, the same each time.
pub(super) async fn correct_refund(
    db: &mut PgConnection,
    owner: Owner,
    told: &RefundState,
    now: DateTime<Utc>,
) -> Result<Settled, Error> {
    let payment = lock(db, owner).await?;
    let refunds = store::refunds::of_payment(db, &payment).await?;
    let known = refunds.iter().find(|it| it.gateway_refund_id.as_ref() == Some(&told.id));
    let Some(known) = known.filter(|it| it.origin == RefundOrigin::Gateway) else {
        return Ok(Settled::mismatch("only what we did not ask for ourselves is corrected"));
    };
    let rest =
        facts::rest_minor(&known_of(db, &payment).await?, &known.object_id, payment.amount.minor);
    let is_counted = known.status != RefundStatus::Failed;
    let rest = rest + if is_counted { known.amount_minor } else { 0 };
    if told.amount.currency != payment.amount.currency || told.amount.minor > rest {
        let rest = Money::new(rest, payment.amount.currency);
        return Ok(Settled::mismatch(format!("it refunds {}, of {rest}", told.amount)));
    }
    tracing::error!(refund.id = %known.id, "a refund's amount was read wrongly at first; corrected");
    store::refunds::set_amount(db, known, told.amount.minor, now).await?;
    Ok(reckon(db, &payment, now).await?.into())
}

/// Merges what is said of a refund that we know. A status only moves on.
async fn hear_of(
    db: &mut PgConnection,
    payment: &Payment,
    known: &Refund,
    told: &RefundState,
    now: DateTime<Utc>,
) -> Result<Settled, Error> {
    if known.amount_minor != told.amount.minor {
        let ours = Money::new(known.amount_minor, payment.amount.currency);
        return Ok(Settled::mismatch(format!("it refunds {}, expected {ours}", told.amount)));
    }
    if known.gateway_refund_id.as_ref().is_some_and(|id| *id != told.id) {
        return Ok(Settled::mismatch("another refund carries its id"));
    }
    let status = known.status.max(told.status);
    if known.status != RefundStatus::Failed && status == RefundStatus::Failed {
        tracing::error!(refund.id = %known.id, "a refund failed; its money is ours again");
    }
    let merged = Refund {
        gateway_refund_id: Some(told.id.clone()),
        // The next asking is a job of its own.
        attempts: known.attempts + 1,
        status,
        failure_code: told.failure_code.clone().or_else(|| known.failure_code.clone()),
        ..known.clone()
    };
    let next = (status == RefundStatus::Pending).then(|| now + PENDING_CHECK);
    store::refunds::save_told(db, &merged, next, now).await?;
    Ok(reckon(db, payment, now).await?.into())
}

/// Books a refund that somebody made at the gateway.
async fn made_there(
    db: &mut PgConnection,
    payment: &Payment,
    told: &RefundState,
    now: DateTime<Utc>,
) -> Result<Settled, Error> {
    if told.amount.minor <= 0 {
        return Ok(Settled::mismatch("it refunds nothing"));
    }
    let Some(object_id) = object_of(db, payment, &told.capture).await? else {
        return Ok(Settled::mismatch("it refunds a capture that this payment does not have"));
    };
    let rest = facts::rest_minor(&known_of(db, payment).await?, &object_id, payment.amount.minor);
    if told.status != RefundStatus::Failed && told.amount.minor > rest {
        let rest = Money::new(rest, payment.amount.currency);
        return Ok(Settled::mismatch(format!("it refunds {}, of {rest}", told.amount)));
    }
    let refund = Refund {
        customer_id: payment.customer_id,
        id: RefundId::new(now),
        payment_id: payment.id,
        gateway: payment.method.gateway(),
        object_id,
        gateway_refund_id: Some(told.id.clone()),
        amount_minor: told.amount.minor,
        choice: RefundChoice::Proportional,
        origin: RefundOrigin::Gateway,
        status: told.status,
        failure_code: told.failure_code.clone(),
        reason: "made at the gateway".to_owned(),
        requested_by: "gateway".to_owned(),
        attempts: 0,
        created_at: now,
    };
    let next = (told.status == RefundStatus::Pending).then(|| now + PENDING_CHECK);
    store::refunds::insert(db, &refund, next).await?;
    Ok(reckon(db, payment, now).await?.into())
}
