//! Charging a saved method while the customer is away.

use chrono::Duration;

use super::object::heard;
use super::reckon::renewal_declined;
use super::settle::lock;
use super::{Payment, PaymentMethod, PaymentStatus, reconcile, store};
use crate::App;
use crate::clock::wall_now;
use crate::error::Error;
use crate::gateways::{Form, GatewayError, GatewayName, Next, SavedCharge, Span};
use crate::ids::{CustomerId, PaymentId, PaymentMethodId};
use crate::methods;
use crate::plans;

/// What to charge for.
#[derive(Debug, Clone, Copy)]
pub struct Charge {
    /// Whose method.
    pub customer_id: CustomerId,
    /// The payment's id, made by whoever may repeat the charge: one id is one charge.
    pub payment_id: PaymentId,
    /// The plan that is bought.
    pub plan_id: i32,
    /// The version of its terms.
    pub plan_version: i32,
    /// The saved method.
    pub method_id: PaymentMethodId,
}

/// Charges a saved method for a plan, once per `charge.payment_id`.
///
/// A decline leaves the payment failed with its code; `authentication_required` leaves an intent
/// that the customer can confirm himself, whose secret is in the answer. An error leaves the
/// payment pending: repeating the charge, or the reconciliation, learns what happened.
pub async fn charge_saved(app: &App, charge: &Charge) -> Result<(PaymentStatus, Next), Error> {
    let method = methods::find(app, charge.customer_id, charge.method_id).await?;
    let payment = open(app, charge, &method).await?;
    if payment.completed_at.is_some() {
        return Ok((payment.status, Next::Nothing));
    }
    ask(app, &payment).await
}

/// Gateways forget idempotency keys (Stripe after 24 h, PayPal after 6 h): a charge older than
/// this is looked for, never asked again.
const KEY_LIFETIME: Duration = Duration::hours(5);

/// Asks the gateway for the charge, or how it stands, and books the answer.
pub(super) async fn ask(app: &App, payment: &Payment) -> Result<(PaymentStatus, Next), Error> {
    let gateway = app.gateways.get(payment.method.gateway())?;
    let asked = if let Some(id) = payment.gateway_reference.as_deref() {
        gateway.fetch_intent(id).await
    } else if app.clock.now() - payment.created_at > KEY_LIFETIME {
        let Some(id) = search(app, payment).await? else {
            return decline(app, payment, "never_charged").await;
        };
        gateway.fetch_intent(&id).await
    } else {
        let mut db = app.db.acquire().await?;
        let plan = plans::version(&mut db, payment.plan_id, payment.plan_version).await?;
        drop(db);
        gateway.charge_saved(&request(payment, &plan.name)).await
    };
    let object = match asked {
        Ok(object) => object,
        Err(GatewayError::Declined { code }) => return decline(app, payment, &code).await,
        Err(GatewayError::NotFound) => {
            return decline(app, payment, "payment_method_gone").await;
        }
        Err(error) => return Err(error.into()),
    };
    super::learn::remember_object(app, payment, &object).await?;
    let after = heard(app, payment, &object).await?;
    Ok((after.status, object.next))
}

/// Looks through what the gateway collected since for a capture that names the payment.
async fn search(app: &App, payment: &Payment) -> Result<Option<String>, Error> {
    let gateway = app.gateways.get(payment.method.gateway())?;
    let from = payment.created_at - Duration::hours(1);
    let span = Span { from, until: app.clock.now().max(wall_now()) + Duration::hours(1) };
    let named = payment.id.to_string();
    let mut cursor = None;
    loop {
        let page = gateway.captures_since(&span, cursor.as_deref()).await?;
        let ours = page.items.into_iter().find(|it| it.names_payment.as_deref() == Some(&named));
        if let Some(capture) = ours {
            return match (capture.object_id, capture.capture_id) {
                (Some(id), _) => Ok(Some(id)),
                (None, Some(id)) => Ok(Some(gateway.object_of_capture(&id).await?)),
                (None, None) => Ok(None),
            };
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(None),
        }
    }
}

fn request(payment: &Payment, description: &str) -> SavedCharge {
    SavedCharge {
        payment_id: payment.id,
        attempt: payment.object_attempt,
        amount: payment.amount,
        description: description.to_owned(),
        gateway_customer: payment.gateway_customer.clone().unwrap_or_default(),
        method: payment.charged_method.clone().unwrap_or_default(),
    }
}

/// The pending payment of this charge, made or found.
async fn open(app: &App, charge: &Charge, method: &methods::Method) -> Result<Payment, Error> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    crate::customers::lock(&mut tx, charge.customer_id).await?;
    if let Some(found) = store::lock(&mut tx, charge.customer_id, charge.payment_id).await? {
        return Ok(found);
    }
    let plan = plans::version(&mut tx, charge.plan_id, charge.plan_version).await?;
    let payment = Payment {
        customer_id: charge.customer_id,
        id: charge.payment_id,
        plan_id: plan.id,
        plan_version: plan.version,
        quantity: 1,
        amount: plan.price,
        method: match method.gateway {
            GatewayName::Stripe => PaymentMethod::Stripe,
            GatewayName::Paypal => PaymentMethod::Paypal,
            GatewayName::Manual => PaymentMethod::Other,
        },
        status: PaymentStatus::Pending,
        gateway_reference: None,
        form: Form::Intent,
        object_attempt: 0,
        gateway_customer: method.gateway_customer.clone(),
        charged_method: Some(method.gateway_method_id.clone()),
        success_url: None,
        cancel_url: None,
        subscription_id: None,
        completed_at: None,
        cancelled_at: None,
        refunds_late: app.config.refunds_late,
        checks: 0,
        created_at: now,
    };
    store::insert(&mut tx, &payment, Some(now + reconcile::FIRST_CHECK)).await?;
    tx.commit().await?;
    Ok(payment)
}

/// The gateway declined without showing an object: the payment's own stand-in is declined.
async fn decline(app: &App, payment: &Payment, code: &str) -> Result<(PaymentStatus, Next), Error> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let locked = lock(&mut tx, (payment.customer_id, payment.id)).await?;
    store::set_declined(&mut tx, payment, code, now).await?;
    if locked.status == PaymentStatus::Pending {
        renewal_declined(&mut tx, payment, now).await?;
    }
    tx.commit().await?;
    Ok((PaymentStatus::Failed, Next::Nothing))
}
