//! Adding what a gateway says to what we know, and making the books agree with it.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::reckon::{Reckoned, reckon};
use super::status::{PaymentStatus, merge};
use super::{Payment, store};
use crate::customers;
use crate::error::Error;
use crate::gateways::{CaptureRef, DisputeKind, DisputeStage, DisputeState, GatewayName, Object};
use crate::ids::{CustomerId, PaymentId};
use crate::jobs::Job;
use crate::methods;

/// A payment and whose it is.
pub type Owner = (CustomerId, PaymentId);

/// What became of a telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The books agree with it.
    Booked(PaymentStatus),
    /// It cannot be told yet whether a refund is ours: ours are settled first.
    Waits,
    /// It contradicts our payment; nothing may be saved. For a person to read.
    Mismatch(String),
}

/// What became of a telling, and what is to be done once it is committed.
#[derive(Debug, Clone)]
pub struct Settled {
    /// What became of it.
    pub verdict: Verdict,
    /// To ring for after the commit; a ring that is lost is found by the sweep.
    pub jobs: Vec<Job>,
}

impl Settled {
    pub(super) fn mismatch(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Mismatch(reason.into()), jobs: Vec::new() }
    }
}

impl From<Reckoned> for Settled {
    fn from(reckoned: Reckoned) -> Self {
        Self { verdict: Verdict::Booked(reckoned.status), jobs: reckoned.jobs }
    }
}

/// Which payment owns an object of a gateway; only ids that we stored or learned are owned.
pub async fn owner_of(
    db: &mut PgConnection,
    gateway: GatewayName,
    object_id: &str,
) -> Result<Option<Owner>, Error> {
    Ok(store::owner(db, gateway, object_id).await?)
}

/// Which payment owns a capture, by its object or by its own id.
pub async fn owner_of_capture(
    db: &mut PgConnection,
    gateway: GatewayName,
    capture: &CaptureRef,
) -> Result<Option<Owner>, Error> {
    for id in [&capture.object_id, &capture.capture_id].into_iter().flatten() {
        if let Some(owner) = store::owner(db, gateway, id).await? {
            return Ok(Some(owner));
        }
    }
    Ok(None)
}

/// Locks the customer, then his payment: the order that all operations keep.
pub(super) async fn lock(db: &mut PgConnection, owner: Owner) -> Result<Payment, Error> {
    customers::lock(db, owner.0).await?;
    store::lock(db, owner.0, owner.1).await?.ok_or(Error::NotFound("payment"))
}

/// Books what `object` says of the payment: facts, period and tokens change together.
///
/// Joins the caller's transaction; locks customer, payment, subscription and account in that
/// order. Saying it again changes nothing.
pub async fn settle(
    db: &mut PgConnection,
    owner: Owner,
    object: &Object,
    now: DateTime<Utc>,
) -> Result<Settled, Error> {
    let payment = lock(db, owner).await?;
    let told = std::iter::once(object).chain(object.intent.as_deref());
    for object in told.clone() {
        if let Some(reason) = mismatch(&payment, object) {
            return Ok(Settled::mismatch(reason));
        }
    }
    let mut is_ours_to_capture = false;
    for object in told.clone() {
        is_ours_to_capture |= record(db, &payment, object, now).await?;
    }
    let mut settled: Settled = reckon(db, &payment, now).await?.into();
    for object in told {
        if let Some(method) = &object.saved_method {
            let customer = object.gateway_customer.as_deref();
            let saved = (payment.method.gateway(), method.as_str(), customer);
            settled.jobs.extend(methods::remember(db, payment.customer_id, saved, now).await?);
        }
    }
    let is_open =
        matches!(settled.verdict, Verdict::Booked(PaymentStatus::Pending | PaymentStatus::Failed));
    if is_open && is_ours_to_capture {
        settled.jobs.push(Job::capture(payment.customer_id, payment.id, now));
    }
    Ok(settled)
}

/// Books what an object says whose buyer approved it (again): also after a declined capture, which
/// the object itself does not show.
pub async fn settle_approval(
    db: &mut PgConnection,
    owner: Owner,
    object: &Object,
    now: DateTime<Utc>,
) -> Result<Settled, Error> {
    let payment = lock(db, owner).await?;
    if object.facts.is_approved && mismatch(&payment, object).is_none() {
        store::set_approved(db, &payment, &object.id, now).await?;
    }
    settle(db, owner, object, now).await
}

/// Merges what one object says into what is known of it; whether its capture is ours to make.
async fn record(
    db: &mut PgConnection,
    payment: &Payment,
    object: &Object,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let gateway = payment.method.gateway();
    store::own(db, gateway, &object.id, payment, now).await?;
    store::save_object(db, payment, gateway, &object.id, now).await?;
    let known = store::lock_facts(db, payment, gateway, &object.id).await?;
    let facts = merge(known, &object.facts);
    store::save_facts(db, payment, gateway, &object.id, &facts, now).await?;
    if let Some(capture_id) = facts.captured.as_ref().and_then(|it| it.capture_id.as_deref()) {
        store::own(db, gateway, capture_id, payment, now).await?;
    }
    Ok(facts.is_approved && !facts.is_processing)
}

/// Why an object cannot be this payment's, whatever it names (gateways.md §1.4).
fn mismatch(payment: &Payment, object: &Object) -> Option<String> {
    let ours = payment.amount;
    if !object.is_ours {
        return Some("it is paid to another account or in another mode".to_owned());
    }
    if object.amount.currency != ours.currency {
        return Some(format!("currency is {}, expected {}", object.amount.currency, ours.currency));
    }
    if object.amount != ours {
        return Some(format!("amount is {}, expected {ours}", object.amount));
    }
    if let Some(captured) = object.facts.captured.as_ref().filter(|it| it.amount != ours) {
        return Some(format!("captured is {}, expected {ours}", captured.amount));
    }
    let named = object.names_payment.as_deref();
    if named.is_some_and(|named| named != payment.id.to_string()) {
        return Some("it names another payment".to_owned());
    }
    let customers = (object.gateway_customer.as_deref(), payment.gateway_customer.as_deref());
    if let (Some(theirs), Some(ours)) = customers
        && theirs != ours
        && payment.charged_method.is_some()
    {
        return Some("it charges another customer".to_owned());
    }
    None
}

/// Which of the payment's objects a capture belongs to.
pub(super) async fn object_of(
    db: &mut PgConnection,
    payment: &Payment,
    capture: &CaptureRef,
) -> Result<Option<String>, Error> {
    let objects = store::objects(db, payment).await?;
    let is_it = |object: &&super::facts::KnownObject| {
        let captured = object.facts.captured.as_ref().and_then(|it| it.capture_id.as_deref());
        Some(object.id.as_str()) == capture.object_id.as_deref()
            || (captured.is_some() && captured == capture.capture_id.as_deref())
    };
    Ok(objects.iter().find(is_it).map(|object| object.id.clone()))
}

/// Books what a dispute says: frozen while it is open, taken back when it is lost.
///
/// Joins the caller's transaction. Saying it again, or saying what was before, changes nothing.
pub async fn settle_dispute(
    db: &mut PgConnection,
    owner: Owner,
    told: &DisputeState,
    now: DateTime<Utc>,
) -> Result<Settled, Error> {
    let payment = lock(db, owner).await?;
    if !told.is_ours {
        return Ok(Settled::mismatch("it is of another account or mode"));
    }
    if told.amount.currency != payment.amount.currency {
        return Ok(Settled::mismatch(format!(
            "the dispute's currency is {}, expected {}",
            told.amount.currency, payment.amount.currency
        )));
    }
    let Some(object_id) = object_of(db, &payment, &told.capture).await? else {
        return Ok(Settled::mismatch("it contests a capture that this payment does not have"));
    };
    if told.amount.minor <= 0 {
        return Ok(Settled::mismatch("it contests nothing"));
    }
    if told.amount.minor > payment.amount.minor {
        let most = payment.amount;
        return Ok(Settled::mismatch(format!("it contests {}, of {most}", told.amount)));
    }
    let gateway = payment.method.gateway();
    let known = store::disputes::stage_of(db, &payment, gateway, &told.id).await?;
    if told.kind == DisputeKind::Reversal {
        // Read from the list of refunds before its event told what it is: counted as lost instead.
        store::refunds::give_up(db, &payment, &told.id, now).await?;
    }
    // The same stage is saved again: its amount may have been misread the first time.
    if known.is_none_or(|known| known <= told.stage) {
        store::disputes::save(db, &payment, &object_id, told, now).await?;
    }
    if known.is_none_or(|known| known < told.stage) {
        warn_of(&payment, told);
        if told.stage == DisputeStage::Lost {
            // Who took his money back is not charged while away (rules.md, "Renewal").
            methods::drop_all(db, payment.customer_id, now).await?;
        }
    }
    Ok(reckon(db, &payment, now).await?.into())
}

fn warn_of(payment: &Payment, told: &DisputeState) {
    match told.stage {
        DisputeStage::Open => {
            tracing::error!(payment.id = %payment.id, dispute = told.id, "a dispute was opened");
        }
        DisputeStage::Lost => {
            tracing::error!(payment.id = %payment.id, dispute = told.id, "a dispute was lost");
        }
        DisputeStage::Inquiry | DisputeStage::InquiryClosed | DisputeStage::Won => {
            tracing::info!(payment.id = %payment.id, dispute = told.id, "a dispute moved");
        }
    }
}
