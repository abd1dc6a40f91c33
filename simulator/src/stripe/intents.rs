//! Payment intents: made, read, changed, confirmed, cancelled, captured.

use serde_json::Value;

use super::confirm::{self, Attempt};
use super::error::StripeError;
use super::form::{self, Metadata, Params};
use super::lists::{Page, Span};
use super::objects::{Intent, Status};
use super::wishes::{self, Confirming, WITHOUT_EFFECT, Wishes};
use super::{Books, refunds, sessions};
use crate::ids;
use crate::world::{News, Turn};

/// Finds an intent named in the path.
pub(super) fn find<'a>(books: &'a Books, id: &str) -> Result<&'a Intent, StripeError> {
    books.intents.find(id).ok_or_else(|| StripeError::missing("payment_intent", id, "intent"))
}

/// Tells of an intent.
pub(super) fn tell(turn: &mut Turn<'_>, kind: &str, id: &str) {
    let intent = turn.world.stripe.intents.find(id).expect("it was found before");
    let news = News { kind, object: intent.json(), object_id: id, payment_id: intent.payment_id() };
    turn.tell_stripe(news);
}

/// `POST /v1/payment_intents`
pub(super) fn create(turn: &mut Turn<'_>, mut params: Params) -> Result<Value, StripeError> {
    params.ignore(WITHOUT_EFFECT);
    let wishes = Wishes::take(turn, &mut params)?;
    let automatic = wishes::automatic(&mut params, !wishes.types.is_empty())?;
    let capture_method =
        params.one_of("capture_method", &["automatic", "automatic_async", "manual"])?;
    let confirm = params.boolean("confirm")?.unwrap_or(false);
    let how = wishes::confirming(&mut params)?;
    params.finish()?;
    let amount = wishes.amount.ok_or_else(|| StripeError::missing_param("amount"))?;
    let currency = wishes.currency.ok_or_else(|| StripeError::missing_param("currency"))?;
    wishes::check_amount(amount, &currency)?;
    if how.off_session && !confirm {
        let text = "You can only set `off_session` when `confirm` is true.";
        return Err(StripeError::invalid(text).param("off_session"));
    }
    if how.return_url.is_some() && !confirm {
        let text = "You can only set `return_url` when `confirm` is true.";
        return Err(StripeError::invalid(text).param("return_url"));
    }
    if confirm {
        wishes::check_return_url(automatic.as_deref(), &how)?;
    }
    let id = ids::stripe("pi");
    let mut metadata = Metadata::new();
    form::merge(&mut metadata, wishes.metadata.unwrap_or_default());
    turn.effects.push(id.clone());
    turn.world.stripe.intents.insert(Intent {
        client_secret: format!("{id}_secret_{}", ids::token(25)),
        id: id.clone(),
        created: turn.now.timestamp(),
        amount,
        amount_received: 0,
        amount_capturable: 0,
        currency,
        customer: wishes.customer,
        description: wishes.description,
        metadata,
        capture_method: capture_method.unwrap_or("automatic_async").into(),
        setup_future_usage: wishes.setup_future_usage.map(str::to_owned),
        receipt_email: wishes.receipt_email,
        statement_descriptor: wishes.statement_descriptor,
        statement_descriptor_suffix: wishes.statement_descriptor_suffix,
        automatic,
        types: if wishes.types.is_empty() { vec!["card".into()] } else { wishes.types },
        status: Status::RequiresPaymentMethod,
        payment_method: None,
        latest_charge: None,
        last_error: None,
        next_action: None,
        canceled_at: None,
        cancellation_reason: None,
        session: None,
    });
    finish_creating(turn, &id, wishes.payment_method, confirm, how)?;
    Ok(find(&turn.world.stripe, &id)?.json())
}

/// Adds the payment method, tells of the new intent, and charges it if that was asked too.
fn finish_creating(
    turn: &mut Turn<'_>,
    id: &str,
    payment_method: Option<String>,
    confirm: bool,
    how: Confirming,
) -> Result<(), StripeError> {
    if let Some(method) = payment_method {
        confirm::choose(turn, id, &method)?;
    }
    tell(turn, "payment_intent.created", id);
    if !confirm {
        return Ok(());
    }
    let Confirming { off_session, return_url } = how;
    confirm::confirm(turn, id, &Attempt { payment_method: None, off_session, return_url })
}

/// `GET /v1/payment_intents/{id}`
pub(super) fn fetch(turn: &Turn<'_>, id: &str, mut params: Params) -> Result<Value, StripeError> {
    let secret = params.text("client_secret")?;
    params.finish()?;
    let intent = find(&turn.world.stripe, id)?;
    if secret.is_some_and(|secret| secret != intent.client_secret) {
        return Err(StripeError::missing("payment_intent", id, "intent"));
    }
    Ok(intent.json())
}

/// `GET /v1/payment_intents`
pub(super) fn list(turn: &Turn<'_>, mut params: Params) -> Result<Value, StripeError> {
    let page = Page::take(&mut params)?;
    let customer = params.text("customer")?;
    let span = Span::take(&mut params, "created")?;
    params.finish()?;
    let found = turn.world.stripe.intents.iter().rev().filter(|intent| {
        (customer.is_none() || intent.customer == customer) && span.contains(intent.created)
    });
    let found = found.map(|intent| (intent.id.as_str(), intent)).collect();
    page.cut("/v1/payment_intents", found, Intent::json)
}

/// `POST /v1/payment_intents/{id}`
pub(super) fn update(
    turn: &mut Turn<'_>,
    id: &str,
    mut params: Params,
) -> Result<Value, StripeError> {
    params.ignore(WITHOUT_EFFECT);
    let wishes = Wishes::take(turn, &mut params)?;
    params.finish()?;
    let intent = find(&turn.world.stripe, id)?;
    let is_open = matches!(
        intent.status,
        Status::RequiresPaymentMethod | Status::RequiresConfirmation | Status::RequiresAction
    );
    if !is_open && (wishes.amount.is_some() || wishes.currency.is_some()) {
        let status = intent.status.as_str();
        return Err(unexpected(
            intent,
            &format!(
                "This PaymentIntent's amount could not be updated because it has a status of {status}."
            ),
        ));
    }
    let amount = wishes.amount.unwrap_or(intent.amount);
    let currency = wishes.currency.unwrap_or_else(|| intent.currency.clone());
    wishes::check_amount(amount, &currency)?;
    let intent = turn.world.stripe.intents.find_mut(id).expect("it was found before");
    intent.amount = amount;
    intent.currency = currency;
    form::merge_some(&mut intent.metadata, wishes.metadata);
    replace(&mut intent.customer, wishes.customer);
    replace(&mut intent.description, wishes.description);
    replace(&mut intent.receipt_email, wishes.receipt_email);
    replace(&mut intent.setup_future_usage, wishes.setup_future_usage.map(str::to_owned));
    replace(&mut intent.statement_descriptor, wishes.statement_descriptor);
    replace(&mut intent.statement_descriptor_suffix, wishes.statement_descriptor_suffix);
    if !wishes.types.is_empty() {
        intent.types = wishes.types;
    }
    if let Some(method) = wishes.payment_method {
        confirm::choose(turn, id, &method)?;
    }
    Ok(find(&turn.world.stripe, id)?.json())
}

fn replace(field: &mut Option<String>, wish: Option<String>) {
    if wish.is_some() {
        *field = wish;
    }
}

/// Refuses an operation that the intent's status does not allow; the answer shows the intent.
pub(super) fn unexpected(intent: &Intent, message: &str) -> StripeError {
    StripeError::state("payment_intent_unexpected_state", message)
        .with("payment_intent", intent.json())
}

/// `POST /v1/payment_intents/{id}/confirm`
pub(super) fn confirm(
    turn: &mut Turn<'_>,
    id: &str,
    mut params: Params,
) -> Result<Value, StripeError> {
    params.ignore(WITHOUT_EFFECT);
    let secret = params.text("client_secret")?;
    let wishes = Wishes {
        amount: None,
        currency: None,
        customer: None,
        description: None,
        metadata: None,
        receipt_email: params.text("receipt_email")?,
        setup_future_usage: params.one_of("setup_future_usage", &["off_session", "on_session"])?,
        statement_descriptor: None,
        statement_descriptor_suffix: None,
        payment_method: params.text("payment_method")?,
        types: Vec::new(),
    };
    let how = wishes::confirming(&mut params)?;
    params.finish()?;
    let intent = find(&turn.world.stripe, id)?;
    if secret.as_ref().is_some_and(|secret| *secret != intent.client_secret) {
        return Err(StripeError::missing("payment_intent", id, "intent"));
    }
    wishes::check_return_url(intent.automatic.as_deref(), &how)?;
    let intent = turn.world.stripe.intents.find_mut(id).expect("it was found before");
    replace(&mut intent.setup_future_usage, wishes.setup_future_usage.map(str::to_owned));
    replace(&mut intent.receipt_email, wishes.receipt_email);
    let Confirming { off_session, return_url } = how;
    let payment_method = wishes.payment_method;
    confirm::confirm(turn, id, &Attempt { payment_method, off_session, return_url })?;
    Ok(find(&turn.world.stripe, id)?.json())
}

/// `POST /v1/payment_intents/{id}/cancel`
pub(super) fn cancel(
    turn: &mut Turn<'_>,
    id: &str,
    mut params: Params,
) -> Result<Value, StripeError> {
    let reasons = &["duplicate", "fraudulent", "requested_by_customer", "abandoned"];
    let reason = params.one_of("cancellation_reason", reasons)?;
    params.finish()?;
    let intent = find(&turn.world.stripe, id)?;
    sessions::check_free(&turn.world.stripe, intent.session.as_ref())?;
    match intent.status {
        Status::Succeeded | Status::Canceled | Status::Processing => {
            let status = intent.status.as_str();
            let text = format!(
                "You cannot cancel this PaymentIntent because it has a status of {status}. Only a \
                 PaymentIntent with one of the following statuses may be canceled: \
                 requires_payment_method, requires_capture, requires_confirmation, requires_action."
            );
            return Err(unexpected(intent, &text));
        }
        Status::RequiresPaymentMethod
        | Status::RequiresConfirmation
        | Status::RequiresAction
        | Status::RequiresCapture => {}
    }
    stop(turn, id, reason);
    Ok(find(&turn.world.stripe, id)?.json())
}

/// Cancels an intent that is open.
pub(super) fn stop(turn: &mut Turn<'_>, id: &str, reason: Option<&str>) {
    let now = turn.unix();
    let intent = turn.world.stripe.intents.find_mut(id).expect("it was found before");
    intent.status = Status::Canceled;
    intent.canceled_at = Some(now);
    intent.cancellation_reason = reason.map(str::to_owned);
    intent.next_action = None;
    intent.amount_capturable = 0;
    tell(turn, "payment_intent.canceled", id);
}

/// `POST /v1/payment_intents/{id}/capture`
pub(super) fn capture(
    turn: &mut Turn<'_>,
    id: &str,
    mut params: Params,
) -> Result<Value, StripeError> {
    let amount = params.integer("amount_to_capture")?;
    let metadata = params.metadata()?;
    params.ignore(&["final_capture", "statement_descriptor", "statement_descriptor_suffix"]);
    params.finish()?;
    let intent = find(&turn.world.stripe, id)?;
    if intent.status != Status::RequiresCapture {
        let text = format!(
            "This PaymentIntent could not be captured because it has a status of {}. Only a \
             PaymentIntent with one of the following statuses may be captured: requires_capture.",
            intent.status.as_str()
        );
        return Err(unexpected(intent, &text));
    }
    let amount = amount.unwrap_or(intent.amount);
    if amount < 1 || amount > intent.amount_capturable {
        let text = "The remaining amount to capture for this PaymentIntent is smaller than that.";
        return Err(StripeError::invalid(text).code("amount_too_large").param("amount_to_capture"));
    }
    let intent = turn.world.stripe.intents.find_mut(id).expect("it was found before");
    form::merge_some(&mut intent.metadata, metadata);
    confirm::capture(turn, id, amount);
    refunds::tell_charge_of(turn, "charge.captured", id);
    tell(turn, "payment_intent.succeeded", id);
    sessions::on_intent(turn, id, Status::RequiresCapture);
    refunds::dispute_if_troubled(turn, id);
    Ok(find(&turn.world.stripe, id)?.json())
}
