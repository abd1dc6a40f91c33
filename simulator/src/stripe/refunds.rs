//! Refunds and the charges they are taken from.

use serde_json::Value;

use super::cards::Aftermath;
use super::charges::{Charge, Refund};
use super::disputes;
use super::error::StripeError;
use super::form::{self, Metadata, Params};
use super::intents;
use super::lists::{Page, Span};
use crate::ids;
use crate::world::{News, Turn};

/// Tells of the latest charge of an intent.
pub(super) fn tell_charge_of(turn: &mut Turn<'_>, kind: &str, intent: &str) {
    let books = &turn.world.stripe;
    let intent = books.intents.find(intent).expect("it was found before");
    let payment_id = intent.payment_id();
    let charge = intent.latest_charge.as_ref().and_then(|id| books.charges.find(id));
    let (object, object_id) = {
        let charge = charge.expect("it was charged before");
        (charge.json(), charge.id.clone())
    };
    turn.tell_stripe(News { kind, object, object_id: &object_id, payment_id });
}

/// Opens the dispute that the card of an intent's charge brings with it.
pub(super) fn dispute_if_troubled(turn: &mut Turn<'_>, intent: &str) {
    let books = &turn.world.stripe;
    let charge = books.intents.find(intent).and_then(|intent| intent.latest_charge.clone());
    let charge = charge.and_then(|id| books.charges.find(&id)).expect("it was charged before");
    let is_inquiry = match charge.aftermath {
        Aftermath::Disputed => false,
        Aftermath::Inquired => true,
        Aftermath::Quiet | Aftermath::RefundPends | Aftermath::RefundFails => return,
    };
    let charge = charge.id.clone();
    disputes::open(turn, &charge, is_inquiry, None).expect("nobody contested it before");
}

fn payment_id_of(turn: &Turn<'_>, intent: &str) -> Option<String> {
    turn.world.stripe.intents.find(intent)?.payment_id()
}

fn tell(turn: &mut Turn<'_>, kind: &str, refund: &Refund, before: Option<&Value>) {
    let payment_id = payment_id_of(turn, &refund.payment_intent);
    let news = News { kind, object: refund.json(), object_id: &refund.id, payment_id };
    match before {
        Some(before) => turn.tell_stripe_change(news, before),
        None => turn.tell_stripe(news),
    }
}

/// Finds the charge a refund is asked of, by its own id or by the intent's.
fn charge_for(
    turn: &Turn<'_>,
    charge: Option<String>,
    intent: Option<String>,
) -> Result<String, StripeError> {
    let books = &turn.world.stripe;
    match (charge, intent) {
        (Some(_), Some(_)) => {
            let text = "You may only specify one of these parameters: charge, payment_intent.";
            Err(StripeError::invalid(text))
        }
        (None, None) => {
            let text = "One of the following params should be provided for this request: \
                        payment_intent or charge.";
            Err(StripeError::invalid(text).code("parameter_missing"))
        }
        (Some(id), None) => match books.charges.find(&id) {
            Some(charge) => Ok(charge.id.clone()),
            None => Err(StripeError::missing("charge", &id, "charge")),
        },
        (None, Some(id)) => {
            let missing = || StripeError::missing("payment_intent", &id, "payment_intent");
            let intent = books.intents.find(&id).ok_or_else(missing)?;
            let text = || {
                format!("This PaymentIntent ({id}) does not have a successful charge to refund.")
            };
            let charge = intent.latest_charge.clone();
            charge.ok_or_else(|| intents::unexpected(intent, &text()))
        }
    }
}

/// `POST /v1/refunds`
pub(super) fn create(turn: &mut Turn<'_>, mut params: Params) -> Result<Value, StripeError> {
    let amount = params.integer("amount")?;
    let charge = params.text("charge")?;
    let intent = params.text("payment_intent")?;
    let reasons = &["duplicate", "fraudulent", "requested_by_customer"];
    let reason = params.one_of("reason", reasons)?;
    let wish = params.metadata()?;
    params.ignore(&["refund_application_fee", "reverse_transfer", "instructions_email"]);
    params.finish()?;
    let charge = charge_for(turn, charge, intent)?;
    let mut metadata = Metadata::new();
    form::merge_some(&mut metadata, wish);
    let refund = make(turn, &charge, amount, reason, metadata)?;
    // The answer is as of the moment it was made; the bank's reference comes by event.
    Ok(refund.json())
}

/// Refunds an intent as a person does at the dashboard: nothing of ours is written on it.
pub(crate) fn at_dashboard(
    turn: &mut Turn<'_>,
    intent: &str,
    amount: Option<i64>,
) -> Result<String, StripeError> {
    let charge = charge_for(turn, None, Some(intent.to_owned()))?;
    let reason = Some("requested_by_customer");
    Ok(make(turn, &charge, amount, reason, Metadata::new())?.id)
}

fn make(
    turn: &mut Turn<'_>,
    charge_id: &str,
    amount: Option<i64>,
    reason: Option<&str>,
    metadata: Metadata,
) -> Result<Refund, StripeError> {
    let charge = turn.world.stripe.charges.find(charge_id).expect("it was found before");
    let aftermath = charge.aftermath;
    let amount = refundable(charge, amount, disputes::holds(&turn.world.stripe, charge_id))?;
    let refund = Refund {
        id: ids::stripe("re"),
        created: turn.unix(),
        amount,
        currency: charge.currency.clone(),
        charge: charge_id.to_owned(),
        payment_intent: charge.payment_intent.clone(),
        metadata,
        reason: reason.map(str::to_owned),
        status: match aftermath {
            Aftermath::RefundPends => "pending".into(),
            Aftermath::Quiet
            | Aftermath::Disputed
            | Aftermath::Inquired
            | Aftermath::RefundFails => "succeeded".into(),
        },
        failure_reason: None,
        has_reference: false,
    };
    let id = refund.id.clone();
    turn.effects.push(id.clone());
    turn.world.stripe.refunds.insert(refund.clone());
    tell(turn, "refund.created", &refund, None);
    add_refunded(turn, charge_id, amount);
    if refund.status == "succeeded" {
        learn_reference(turn, &id);
    }
    if aftermath == Aftermath::RefundFails {
        settle(turn, &id, false)?;
    }
    Ok(refund)
}

/// Refuses to give back more than is there.
fn refundable(charge: &Charge, amount: Option<i64>, is_held: bool) -> Result<i64, StripeError> {
    if charge.amount_captured == 0 {
        let text = format!("Charge {} has no captured money to refund.", charge.id);
        return Err(StripeError::state("charge_not_refundable", text));
    }
    if charge.refundable() == 0 {
        let text = format!("Charge {} has already been refunded.", charge.id);
        return Err(StripeError::state("charge_already_refunded", text));
    }
    if is_held {
        let text = format!("Charge {} has been charged back; cannot issue a refund.", charge.id);
        return Err(StripeError::state("charge_disputed", text));
    }
    let amount = amount.unwrap_or(charge.refundable());
    if amount < 1 {
        let text = "This value must be greater than or equal to 1.";
        return Err(StripeError::invalid(text).code("parameter_invalid_integer").param("amount"));
    }
    if amount > charge.refundable() {
        let text = format!(
            "Refund amount ({amount}) is greater than unrefunded amount on charge ({})",
            charge.refundable()
        );
        return Err(StripeError::invalid(text).param("amount").saved());
    }
    Ok(amount)
}

/// Adds to what a charge has paid back (negative: a refund failed) and tells of it.
fn add_refunded(turn: &mut Turn<'_>, charge_id: &str, amount: i64) {
    let charge = turn.world.stripe.charges.find_mut(charge_id).expect("it was found before");
    let before = charge.json();
    charge.amount_refunded += amount;
    let object = charge.json();
    let intent = charge.payment_intent.clone();
    let payment_id = payment_id_of(turn, &intent);
    let kind = if amount > 0 { "charge.refunded" } else { "charge.updated" };
    let news = News { kind, object, object_id: charge_id, payment_id };
    turn.tell_stripe_change(news, &before);
    let charge = turn.world.stripe.charges.find(charge_id);
    if charge.is_some_and(|charge| charge.refundable() == 0) {
        disputes::end_inquiry(turn, charge_id);
    }
}

/// Tells the bank's reference of a refund.
fn learn_reference(turn: &mut Turn<'_>, id: &str) {
    change(turn, id, |refund| refund.has_reference = true);
}

fn change(turn: &mut Turn<'_>, id: &str, edit: impl FnOnce(&mut Refund)) {
    let refund = turn.world.stripe.refunds.find_mut(id).expect("it was found before");
    let before = refund.json();
    edit(refund);
    let refund = refund.clone();
    tell(turn, "refund.updated", &refund, Some(&before));
}

/// Ends a refund that pends, or fails one that had succeeded: the money comes back to us.
pub(crate) fn settle(turn: &mut Turn<'_>, id: &str, is_paid: bool) -> Result<(), StripeError> {
    let refund = turn.world.stripe.refunds.find(id);
    let refund = refund.ok_or_else(|| StripeError::missing("refund", id, "id"))?.clone();
    let is_over = matches!(refund.status.as_str(), "failed" | "canceled");
    if is_over || (is_paid && refund.status == "succeeded") {
        return Err(StripeError::invalid(format!("Refund {id} is {}.", refund.status)));
    }
    if is_paid {
        change(turn, id, |refund| {
            refund.status = "succeeded".into();
            refund.has_reference = true;
        });
        return Ok(());
    }
    change(turn, id, |refund| {
        refund.status = "failed".into();
        refund.failure_reason = Some("expired_or_canceled_card".into());
    });
    let failed = turn.world.stripe.refunds.find(id).expect("it was found before").clone();
    tell(turn, "refund.failed", &failed, None);
    add_refunded(turn, &refund.charge, -refund.amount);
    Ok(())
}

/// Takes back a refund that pends, as a person does at the dashboard.
pub(crate) fn call_off(turn: &mut Turn<'_>, id: &str) -> Result<(), StripeError> {
    let refund = turn.world.stripe.refunds.find(id);
    let refund = refund.ok_or_else(|| StripeError::missing("refund", id, "id"))?.clone();
    if refund.status != "pending" {
        return Err(StripeError::invalid(format!("Refund {id} is {}.", refund.status)));
    }
    change(turn, id, |refund| {
        refund.status = "canceled".into();
        refund.failure_reason = Some("merchant_request".into());
    });
    add_refunded(turn, &refund.charge, -refund.amount);
    Ok(())
}

/// `POST /v1/refunds/{id}/cancel`: only for refunds that wait for the payer, which cards' never do.
pub(super) fn cancel(turn: &Turn<'_>, id: &str, params: Params) -> Result<Value, StripeError> {
    params.finish()?;
    let refund = turn.world.stripe.refunds.find(id);
    let refund = refund.ok_or_else(|| StripeError::missing("refund", id, "id"))?;
    let text = format!(
        "Refund {id} has a status of {}. Only a refund with a status of requires_action can be \
         canceled.",
        refund.status
    );
    Err(StripeError::invalid(text).saved())
}

/// `GET /v1/refunds`
pub(super) fn list(turn: &Turn<'_>, mut params: Params) -> Result<Value, StripeError> {
    let page = Page::take(&mut params)?;
    let intent = params.text("payment_intent")?;
    let charge = params.text("charge")?;
    let span = Span::take(&mut params, "created")?;
    params.finish()?;
    let found = turn.world.stripe.refunds.iter().rev().filter(|refund| {
        intent.as_ref().is_none_or(|intent| *intent == refund.payment_intent)
            && charge.as_ref().is_none_or(|charge| *charge == refund.charge)
            && span.contains(refund.created)
    });
    let found = found.map(|refund| (refund.id.as_str(), refund)).collect();
    page.cut("/v1/refunds", found, Refund::json)
}

/// `GET /v1/refunds/{id}`
pub(super) fn fetch(turn: &Turn<'_>, id: &str, params: Params) -> Result<Value, StripeError> {
    params.finish()?;
    let refund = turn.world.stripe.refunds.find(id);
    Ok(refund.ok_or_else(|| StripeError::missing("refund", id, "id"))?.json())
}

/// `POST /v1/refunds/{id}`
pub(super) fn update(
    turn: &mut Turn<'_>,
    id: &str,
    mut params: Params,
) -> Result<Value, StripeError> {
    let wish = params.metadata()?;
    params.finish()?;
    if turn.world.stripe.refunds.find(id).is_none() {
        return Err(StripeError::missing("refund", id, "id"));
    }
    change(turn, id, |refund| form::merge_some(&mut refund.metadata, wish));
    fetch(turn, id, Params::default())
}

/// `GET /v1/charges/{id}`
pub(super) fn charge(turn: &Turn<'_>, id: &str, params: Params) -> Result<Value, StripeError> {
    params.finish()?;
    let charge = turn.world.stripe.charges.find(id);
    Ok(charge.ok_or_else(|| StripeError::missing("charge", id, "id"))?.json())
}
