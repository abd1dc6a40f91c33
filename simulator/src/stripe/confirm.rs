//! What a bank makes of a payment: approval, refusal, a question to the payer, or an answer later.

use serde_json::{Value, json};

use super::cards::{AUTHENTICATION_FAILED, AUTHENTICATION_REQUIRED, Decline, Verdict};
use super::charges::{Charge, Ending};
use super::error::StripeError;
use super::intents::{self, tell, unexpected};
use super::objects::{PaymentMethod, Status};
use super::{customers, methods, refunds, sessions};
use crate::ids;
use crate::world::Turn;

/// How one tries to pay.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    /// A test method, a card number or a saved method; none: the one already chosen.
    pub(crate) payment_method: Option<String>,
    /// Whether the payer is away.
    pub(crate) off_session: bool,
    /// Where the payer returns to after proving who they are.
    pub(crate) return_url: Option<String>,
}

/// Sets the payment method of an intent without charging it.
pub(super) fn choose(turn: &mut Turn<'_>, id: &str, method: &str) -> Result<(), StripeError> {
    let customer = intents::find(&turn.world.stripe, id)?.customer.clone();
    let method = methods::resolve(turn, method, customer.as_deref())?;
    let intent = turn.world.stripe.intents.find_mut(id).expect("it was found before");
    intent.payment_method = Some(method);
    intent.status = Status::RequiresConfirmation;
    Ok(())
}

/// Tries to pay an intent. A refusal leaves it open for another card.
pub(crate) fn confirm(turn: &mut Turn<'_>, id: &str, attempt: &Attempt) -> Result<(), StripeError> {
    let intent = intents::find(&turn.world.stripe, id)?;
    match intent.status {
        Status::RequiresPaymentMethod | Status::RequiresConfirmation | Status::RequiresAction => {}
        Status::Succeeded => {
            let text = "You cannot confirm this PaymentIntent because it has already succeeded \
                        after being previously confirmed.";
            return Err(unexpected(intent, text));
        }
        Status::Processing | Status::RequiresCapture | Status::Canceled => {
            let status = intent.status.as_str();
            let text = format!(
                "You cannot confirm this PaymentIntent because it has a status of {status}. Only a \
                 PaymentIntent with one of the following statuses may be confirmed: \
                 requires_confirmation, requires_action, requires_payment_method."
            );
            return Err(unexpected(intent, &text));
        }
    }
    if let Some(customer) = &intent.customer {
        customers::check(&turn.world.stripe, customer)?;
    }
    if let Some(method) = &attempt.payment_method {
        choose(turn, id, method)?;
    }
    let Some(method) = method_of(turn, id) else {
        let text = "You cannot confirm this PaymentIntent because it's missing a payment method. \
                    You can either update the PaymentIntent with a payment method and then confirm \
                    it again, or confirm it again directly with a payment method.";
        return Err(unexpected(intents::find(&turn.world.stripe, id)?, text));
    };
    match method.card().verdict {
        Verdict::Approve => approve(turn, id),
        Verdict::Decline(reason) => return Err(refuse(turn, id, reason)),
        Verdict::Authenticate { always: false } if method.is_authenticated => approve(turn, id),
        Verdict::Authenticate { .. } if attempt.off_session => {
            return Err(refuse(turn, id, AUTHENTICATION_REQUIRED));
        }
        Verdict::Authenticate { .. } => ask(turn, id, attempt.return_url.as_deref()),
        Verdict::Process => process(turn, id),
    }
    Ok(())
}

/// Ends the question that [`confirm`] put to the payer.
pub(crate) fn authenticate(turn: &mut Turn<'_>, id: &str, proven: bool) -> Result<(), StripeError> {
    let intent = intents::find(&turn.world.stripe, id)?;
    if intent.status != Status::RequiresAction {
        return Err(unexpected(intent, "This PaymentIntent does not wait for authentication."));
    }
    if !proven {
        return Err(refuse(turn, id, AUTHENTICATION_FAILED));
    }
    let intent = turn.world.stripe.intents.find_mut(id).expect("it was found before");
    intent.next_action = None;
    let method = intent.payment_method.clone();
    if let Some(method) = method.and_then(|id| turn.world.stripe.methods.find_mut(&id)) {
        method.is_authenticated = true;
    }
    approve(turn, id);
    Ok(())
}

/// Ends an intent that waits for the bank: paid, or refused.
pub(crate) fn settle(turn: &mut Turn<'_>, id: &str, is_paid: bool) -> Result<(), StripeError> {
    let intent = intents::find(&turn.world.stripe, id)?;
    if intent.status != Status::Processing {
        return Err(unexpected(intent, "This PaymentIntent does not wait for the bank."));
    }
    if is_paid {
        approve(turn, id);
    } else {
        let reason = Decline {
            code: "payment_method_customer_decline",
            bank_code: "",
            advice: None,
            message: "The customer's bank refused the payment.",
        };
        // The merchant hears of it by an event; there is no call to refuse.
        let _ = refuse(turn, id, reason);
    }
    Ok(())
}

fn status_of(turn: &Turn<'_>, id: &str) -> Status {
    turn.world.stripe.intents.find(id).expect("it was found before").status
}

fn method_of(turn: &Turn<'_>, id: &str) -> Option<PaymentMethod> {
    let books = &turn.world.stripe;
    let method = books.intents.find(id)?.payment_method.as_ref()?;
    books.methods.find(method).cloned()
}

/// Makes the charge of an intent, or ends the pending one it has.
fn charge(turn: &mut Turn<'_>, id: &str, ending: Ending) -> String {
    let now = turn.unix();
    let method = method_of(turn, id).expect("a charge has a method");
    let books = &mut turn.world.stripe;
    let intent = books.intents.find_mut(id).expect("it was found before");
    if intent.status == Status::Processing
        && let Some(charge) =
            intent.latest_charge.as_ref().and_then(|id| books.charges.find_mut(id))
    {
        charge.ending = ending;
        return charge.id.clone();
    }
    let charge = Charge {
        id: ids::stripe("ch"),
        created: now,
        amount: intent.amount,
        amount_captured: 0,
        amount_refunded: 0,
        currency: intent.currency.clone(),
        customer: intent.customer.clone(),
        description: intent.description.clone(),
        metadata: intent.metadata.clone(),
        is_captured: false,
        is_disputed: false,
        ending,
        payment_intent: id.to_owned(),
        payment_method: method.id.clone(),
        number: method.number.clone(),
        aftermath: method.card().aftermath,
    };
    let charge_id = charge.id.clone();
    intent.latest_charge = Some(charge_id.clone());
    books.charges.insert(charge);
    turn.effects.push(charge_id.clone());
    charge_id
}

/// Takes the money, or sets it aside if it shall be captured by hand.
fn approve(turn: &mut Turn<'_>, id: &str) {
    let was = status_of(turn, id);
    charge(turn, id, Ending::Succeeded);
    let books = &mut turn.world.stripe;
    let intent = books.intents.find_mut(id).expect("it was found before");
    intent.last_error = None;
    intent.next_action = None;
    let is_manual = intent.capture_method == "manual";
    let method = intent.payment_method.clone().expect("a paid intent has a method");
    let keeper = intent.customer.clone().filter(|_| intent.setup_future_usage.is_some());
    if let Some(customer) = keeper {
        methods::keep(turn, &method, &customer);
    } else if let Some(method) = books.methods.find_mut(&method) {
        method.is_spent = method.customer.is_none();
    }
    let intent = turn.world.stripe.intents.find_mut(id).expect("it was found before");
    if is_manual {
        intent.status = Status::RequiresCapture;
        intent.amount_capturable = intent.amount;
        refunds::tell_charge_of(turn, "charge.succeeded", id);
        tell(turn, "payment_intent.amount_capturable_updated", id);
        sessions::on_intent(turn, id, was);
        return;
    }
    let amount = intent.amount;
    capture(turn, id, amount);
    refunds::tell_charge_of(turn, "charge.succeeded", id);
    tell(turn, "payment_intent.succeeded", id);
    sessions::on_intent(turn, id, was);
    refunds::dispute_if_troubled(turn, id);
}

/// Books captured money on an intent and its charge.
pub(super) fn capture(turn: &mut Turn<'_>, id: &str, amount: i64) {
    let books = &mut turn.world.stripe;
    let intent = books.intents.find_mut(id).expect("it was found before");
    intent.status = Status::Succeeded;
    intent.amount_received = amount;
    intent.amount_capturable = 0;
    let charge = intent.latest_charge.as_ref().and_then(|id| books.charges.find_mut(id));
    let charge = charge.expect("captured money has a charge");
    charge.amount_captured = amount;
    charge.is_captured = true;
}

/// Books a refusal and returns it as the error the caller sees.
fn refuse(turn: &mut Turn<'_>, id: &str, reason: Decline) -> StripeError {
    let was = status_of(turn, id);
    let charge = charge(
        turn,
        id,
        Ending::Failed {
            code: reason.code.into(),
            decline_code: reason.bank_code.into(),
            message: reason.message.into(),
        },
    );
    let error = refusal(reason, method_of(turn, id).as_ref()).with("charge", json!(charge));
    let intent = turn.world.stripe.intents.find_mut(id).expect("it was found before");
    intent.status = Status::RequiresPaymentMethod;
    intent.payment_method = None;
    intent.next_action = None;
    intent.last_error = Some(Value::Object(error.fields()));
    let shown = intent.json();
    refunds::tell_charge_of(turn, "charge.failed", id);
    tell(turn, "payment_intent.payment_failed", id);
    sessions::on_intent(turn, id, was);
    error.with("payment_intent", shown)
}

/// Puts a bank's refusal of a card into Stripe's words.
pub(super) fn refusal(reason: Decline, method: Option<&PaymentMethod>) -> StripeError {
    let method = method.map_or(Value::Null, PaymentMethod::json);
    let mut error = StripeError::card(reason.code, reason.message).with("payment_method", method);
    if !reason.bank_code.is_empty() {
        error = error.with("decline_code", json!(reason.bank_code));
    }
    if let Some(advice) = reason.advice {
        error = error.with("advice_code", json!(advice));
    }
    error
}

/// Asks the payer to prove who they are.
fn ask(turn: &mut Turn<'_>, id: &str, return_url: Option<&str>) {
    let page = format!("{}/pay/{id}", turn.core.stripe_url);
    let intent = turn.world.stripe.intents.find_mut(id).expect("it was found before");
    intent.status = Status::RequiresAction;
    intent.next_action = Some(question(&page, &intent.client_secret, return_url));
    tell(turn, "payment_intent.requires_action", id);
}

/// Returns the `next_action` that sends the payer to one of our pages.
pub(super) fn question(page: &str, client_secret: &str, return_url: Option<&str>) -> Value {
    let mut page = url::Url::parse(page).expect("our address is a URL");
    page.query_pairs_mut().append_pair("client_secret", client_secret);
    if let Some(return_url) = return_url {
        page.query_pairs_mut().append_pair("return_url", return_url);
    }
    match return_url {
        Some(return_url) => json!({
            "type": "redirect_to_url",
            "redirect_to_url": { "url": page.as_str(), "return_url": return_url },
        }),
        None => json!({
            "type": "use_stripe_sdk",
            "use_stripe_sdk": { "type": "three_d_secure_redirect", "stripe_js": page.as_str() },
        }),
    }
}

/// Leaves the answer to the bank.
fn process(turn: &mut Turn<'_>, id: &str) {
    let was = status_of(turn, id);
    charge(turn, id, Ending::Pending);
    let intent = turn.world.stripe.intents.find_mut(id).expect("it was found before");
    intent.status = Status::Processing;
    refunds::tell_charge_of(turn, "charge.pending", id);
    tell(turn, "payment_intent.processing", id);
    sessions::on_intent(turn, id, was);
}
