//! The gateway's object that pays a payment: opened, read, replaced.

use super::learn::remember_object;
use super::redirect::return_urls;
use super::settle::{Verdict, lock, settle};
use super::status::PaymentStatus;
use super::{Payment, reconcile, store};
use crate::App;
use crate::customers;
use crate::error::Error;
use crate::gateways::{
    Form, Gateway, GatewayError, GatewayName, IntentRequest, Next, Object, ObjectFacts,
};
use crate::methods;
use crate::plans::Plan;

/// What the gateway is asked for: the same for every attempt at one object of a payment.
pub(super) fn intent_request(app: &App, payment: &Payment, plan: &Plan) -> IntentRequest {
    let (return_url, cancel_url) = return_urls(&app.config, payment);
    IntentRequest {
        payment_id: payment.id,
        attempt: payment.object_attempt,
        form: payment.form,
        amount: payment.amount,
        description: plan.name.clone(),
        return_url,
        cancel_url,
        gateway_customer: payment.gateway_customer.clone(),
        saves_method: saves_method(app, payment.method.gateway(), plan),
    }
}

/// Whether paying for this plan keeps the method for its renewals.
pub(super) fn saves_method(app: &App, gateway: GatewayName, plan: &Plan) -> bool {
    let is_offered = match gateway {
        GatewayName::Stripe => true,
        GatewayName::Paypal => app.config.paypal.as_ref().is_some_and(|paypal| paypal.vault),
        GatewayName::Manual => false,
    };
    plan.is_recurring && is_offered
}

/// The payment with the gateway's record of its customer, made if there is none: what saves a
/// method hangs on one.
///
/// Stored before the first object is asked for, so that a repeat asks for the same. A payment
/// without it where it needs one was never asked for at the gateway.
pub(super) async fn on_record(app: &App, payment: Payment, plan: &Plan) -> Result<Payment, Error> {
    let gateway = payment.method.gateway();
    let needs_record = match gateway {
        GatewayName::Stripe => saves_method(app, gateway, plan),
        GatewayName::Paypal | GatewayName::Manual => false,
    };
    if !needs_record || payment.gateway_customer.is_some() {
        return Ok(payment);
    }
    let mut db = app.db.acquire().await?;
    let customer = customers::identity(&mut db, payment.customer_id).await?;
    drop(db);
    let record = methods::gateway_customer(app, &customer, gateway).await?;
    let mut db = app.db.acquire().await?;
    let record = store::set_gateway_customer(&mut db, &payment, &record).await?;
    Ok(Payment { gateway_customer: Some(record), ..payment })
}

/// An object of ours that stands for a manual payment.
pub(super) fn manual_object(payment: &Payment, facts: ObjectFacts) -> Object {
    Object {
        id: payment.id.to_string(),
        amount: payment.amount,
        names_payment: Some(payment.id.to_string()),
        is_ours: true,
        facts,
        next: Next::Nothing,
        gateway_customer: None,
        saved_method: None,
        intent: None,
    }
}

/// A payment's object, ready for its payer; or the payment as it stands if it needs none.
pub(super) struct Ready {
    pub(super) payment: Payment,
    pub(super) next: Next,
}

/// Opens the payment's object in that form, or reads the one that is open.
///
/// An object of the other form is cancelled at the gateway first, so that never two can be paid.
/// May be repeated after any error: number and form of the object are in its idempotency key.
pub(super) async fn ready(
    app: &App,
    payment: Payment,
    plan: &Plan,
    form: Form,
) -> Result<Ready, Error> {
    let name = payment.method.gateway();
    let gateway = app.gateways.get(name)?;
    let mut payment = payment;
    if let Some(id) = payment.gateway_reference.clone().filter(|_| name != GatewayName::Manual) {
        let object = if payment.form == form {
            read(gateway, &payment, &id).await?
        } else {
            gateway.cancel_intent(&id, payment.id).await?
        };
        payment = heard(app, &payment, &object).await?;
        let is_payable = !object.facts.is_voided && payment.form == form;
        if is_payable || !is_open(payment.status) || is_under_way(&object) {
            return Ok(Ready { payment, next: object.next });
        }
        payment = replace(app, &payment, form).await?;
    } else if payment.form != form {
        payment = replace(app, &payment, form).await?;
    }
    open(app, gateway, payment, plan).await
}

const fn is_open(status: PaymentStatus) -> bool {
    match status {
        PaymentStatus::Pending | PaymentStatus::Failed | PaymentStatus::Cancelled => true,
        PaymentStatus::Completed | PaymentStatus::Refunded => false,
    }
}

fn is_under_way(object: &Object) -> bool {
    let inner = object.intent.as_deref();
    object.facts.is_processing || inner.is_some_and(|intent| intent.facts.is_processing)
}

/// Reads an object. PayPal forgets orders that nobody approved: such a one is voided.
pub(super) async fn read(
    gateway: &dyn Gateway,
    payment: &Payment,
    id: &str,
) -> Result<Object, GatewayError> {
    match gateway.fetch_intent(id).await {
        Err(GatewayError::NotFound) if payment.method.gateway() == GatewayName::Paypal => {
            let facts = ObjectFacts { is_voided: true, ..ObjectFacts::default() };
            Ok(Object { id: id.to_owned(), ..manual_object(payment, facts) })
        }
        read => read,
    }
}

/// Books what an object says; the payment as it stands after.
pub(super) async fn heard(app: &App, payment: &Payment, object: &Object) -> Result<Payment, Error> {
    let owner = (payment.customer_id, payment.id);
    let mut tx = app.db.begin().await?;
    let settled = settle(&mut tx, owner, object, app.clock.now()).await?;
    if let Verdict::Mismatch(reason) = settled.verdict {
        tracing::error!(payment.id = %payment.id, reason, "an answer does not fit its payment");
        return Err(GatewayError::Malformed(reason).into());
    }
    let after = store::find(&mut tx, owner.0, owner.1).await?.ok_or(Error::NotFound("payment"))?;
    tx.commit().await?;
    settled.jobs.into_iter().for_each(|job| app.doorbell.ring(job));
    Ok(after)
}

/// Makes room for the payment's next object.
async fn replace(app: &App, payment: &Payment, form: Form) -> Result<Payment, Error> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let locked = lock(&mut tx, (payment.customer_id, payment.id)).await?;
    if locked.object_attempt != payment.object_attempt {
        // Another caller was quicker: his object is as good.
        return Ok(locked);
    }
    let attempt = payment.object_attempt + 1;
    let next_check = now + reconcile::FIRST_CHECK;
    store::set_next_object(&mut tx, payment, (form, attempt), next_check, now).await?;
    tx.commit().await?;
    let status = match locked.status {
        PaymentStatus::Cancelled => PaymentStatus::Pending,
        PaymentStatus::Pending
        | PaymentStatus::Failed
        | PaymentStatus::Completed
        | PaymentStatus::Refunded => locked.status,
    };
    let (gateway_reference, cancelled_at) = (None, None);
    Ok(Payment { form, object_attempt: attempt, gateway_reference, cancelled_at, status, ..locked })
}

async fn open(
    app: &App,
    gateway: &dyn Gateway,
    payment: Payment,
    plan: &Plan,
) -> Result<Ready, Error> {
    let payment = on_record(app, payment, plan).await?;
    let object = gateway.create_intent(&intent_request(app, &payment, plan)).await?;
    if object.amount != payment.amount {
        tracing::error!(payment.id = %payment.id, "gateway answered another amount than asked");
        return Err(GatewayError::Malformed("another amount".to_owned()).into());
    }
    if !remember_object(app, &payment, &object).await? {
        // Never two that can be paid: the one that came too late is closed again.
        let closed = gateway.cancel_intent(&object.id, payment.id).await?;
        heard(app, &payment, &closed).await?;
        return Err(Error::Conflict("this is being bought another way just now".to_owned()));
    }
    let payment = Payment { gateway_reference: Some(object.id), ..payment };
    Ok(Ready { payment, next: object.next })
}
