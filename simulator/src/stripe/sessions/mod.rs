//! Checkout sessions: hosted pages that pay or keep a card, complete or expire, and say so.

mod create;
mod object;

use serde_json::Value;

pub(super) use self::create::create;
pub(crate) use self::object::{Mode, Session, SessionStatus};
use super::confirm::{self, Attempt};
use super::error::StripeError;
use super::form::{self, Params};
use super::lists::{Page, Span};
use super::objects::{Intent, Status};
use super::{Books, customers, intents, setups};
use crate::ids;
use crate::world::{News, Turn};

/// The address of a payer of whom we know none.
const SOMEBODY: &str = "buyer@example.com";

fn find<'a>(books: &'a Books, id: &str) -> Result<&'a Session, StripeError> {
    books.sessions.find(id).ok_or_else(|| StripeError::missing("checkout.session", id, "id"))
}

fn find_mut<'a>(turn: &'a mut Turn<'_>, id: &str) -> &'a mut Session {
    turn.world.stripe.sessions.find_mut(id).expect("it was found before")
}

fn tell(turn: &mut Turn<'_>, kind: &str, id: &str) {
    let session = turn.world.stripe.sessions.find(id).expect("it was found before");
    let payment_id = session.payment_id();
    let news = News { kind, object: session.json(), object_id: id, payment_id };
    turn.tell_stripe(news);
}

/// Pays, or keeps a card, as the payer does on the page; gives the intent's status.
///
/// A refusal leaves the session open for another card.
pub(crate) fn pay(turn: &mut Turn<'_>, id: &str, method: &str) -> Result<String, StripeError> {
    expire_due(turn);
    let session = find(&turn.world.stripe, id)?;
    check_open(session, "paid")?;
    let (mode, setup) = (session.mode, session.setup_intent.clone());
    let attempt = Attempt { payment_method: Some(method.to_owned()), ..Attempt::default() };
    match mode {
        Mode::Payment => {
            let intent = intent_of(turn, id);
            confirm::confirm(turn, &intent, &attempt)?;
        }
        Mode::Setup => {
            let setup = setup.expect("a session in setup mode has an intent");
            meet_customer(turn, id);
            let customer = find(&turn.world.stripe, id)?.customer.clone();
            setups::give_customer(turn, &setup, customer);
            setups::confirm(turn, &setup, &attempt)?;
        }
    }
    Ok(intent_status(&turn.world.stripe, id).map_or_else(String::new, |s| s.as_str().to_owned()))
}

/// Answers the bank's question to the payer; gives the intent's status.
pub(crate) fn authenticate(
    turn: &mut Turn<'_>,
    id: &str,
    proven: bool,
) -> Result<String, StripeError> {
    let session = find(&turn.world.stripe, id)?;
    check_open(session, "authenticated")?;
    match (session.payment_intent.clone(), session.setup_intent.clone()) {
        (Some(intent), _) => confirm::authenticate(turn, &intent, proven)?,
        (None, Some(setup)) => setups::authenticate(turn, &setup, proven)?,
        (None, None) => return Err(StripeError::invalid("Nobody has tried to pay yet.")),
    }
    Ok(intent_status(&turn.world.stripe, id).map_or_else(String::new, |s| s.as_str().to_owned()))
}

/// Returns where the session's intent stands, if it has one.
pub(crate) fn intent_status(books: &Books, id: &str) -> Option<Status> {
    let session = books.sessions.find(id)?;
    let intent = session.payment_intent.as_ref().and_then(|id| books.intents.find(id));
    let setup = session.setup_intent.as_ref().and_then(|id| books.setups.find(id));
    intent.map(|intent| intent.status).or(setup.map(|setup| setup.status))
}

fn check_open(session: &Session, verb: &str) -> Result<(), StripeError> {
    match session.status {
        SessionStatus::Open => Ok(()),
        SessionStatus::Complete | SessionStatus::Expired => {
            let text = format!(
                "Only Checkout Sessions with a status in [\"open\"] can be {verb}. This Checkout \
                 Session has a status of {}.",
                session.status.as_str()
            );
            Err(StripeError::invalid(text).saved())
        }
    }
}

/// Makes the customer that the session was asked to make, or that keeping the card needs.
fn meet_customer(turn: &mut Turn<'_>, id: &str) {
    let session = turn.world.stripe.sessions.find(id).expect("it was found before");
    let is_wanted = session.customer_creation.as_deref() == Some("always")
        || session.plan.setup_future_usage.is_some();
    if session.customer.is_some() || !is_wanted {
        return;
    }
    let email = session.customer_email.clone().unwrap_or_else(|| SOMEBODY.into());
    let customer = customers::meet(turn, email);
    find_mut(turn, id).customer = Some(customer);
}

/// Returns the session's intent; the first try to pay makes it.
fn intent_of(turn: &mut Turn<'_>, id: &str) -> String {
    let session = turn.world.stripe.sessions.find(id).expect("it was found before");
    if let Some(intent) = &session.payment_intent {
        return intent.clone();
    }
    meet_customer(turn, id);
    let now = turn.unix();
    let session = turn.world.stripe.sessions.find_mut(id).expect("it was found before");
    let intent_id = ids::stripe("pi");
    session.payment_intent = Some(intent_id.clone());
    let plan = session.plan.clone();
    let intent = Intent {
        client_secret: format!("{intent_id}_secret_{}", ids::token(25)),
        id: intent_id.clone(),
        created: now,
        amount: session.amount.expect("a session that pays has an amount"),
        amount_received: 0,
        amount_capturable: 0,
        currency: session.currency.clone().expect("a session that pays has a currency"),
        customer: session.customer.clone(),
        description: plan.description,
        metadata: plan.metadata,
        capture_method: plan.capture_method.unwrap_or_else(|| "automatic_async".into()),
        setup_future_usage: plan.setup_future_usage,
        receipt_email: plan.receipt_email,
        statement_descriptor: plan.statement_descriptor,
        statement_descriptor_suffix: plan.statement_descriptor_suffix,
        automatic: None,
        types: session.types.clone(),
        status: Status::RequiresPaymentMethod,
        payment_method: None,
        latest_charge: None,
        last_error: None,
        next_action: None,
        canceled_at: None,
        cancellation_reason: None,
        session: Some(id.to_owned()),
    };
    turn.effects.push(intent_id.clone());
    turn.world.stripe.intents.insert(intent);
    intents::tell(turn, "payment_intent.created", &intent_id);
    intent_id
}

/// Lets the session of an intent follow it; `was` is where the intent stood before.
pub(super) fn on_intent(turn: &mut Turn<'_>, intent: &str, was: Status) {
    let books = &turn.world.stripe;
    let intent = books.intents.find(intent).expect("it was found before");
    let Some(id) = intent.session.clone() else { return };
    let is_open = books.sessions.find(&id).is_some_and(|s| s.status == SessionStatus::Open);
    match (intent.status, was) {
        (Status::Succeeded, Status::Processing) => {
            find_mut(turn, &id).payment_status = "paid".into();
            tell(turn, "checkout.session.async_payment_succeeded", &id);
        }
        (Status::RequiresPaymentMethod, Status::Processing) => {
            tell(turn, "checkout.session.async_payment_failed", &id);
        }
        // Captured by the merchant, long after the payer had finished.
        (Status::Succeeded, Status::RequiresCapture) => {
            find_mut(turn, &id).payment_status = "paid".into();
        }
        (Status::Succeeded, _) if is_open => complete(turn, &id, "paid"),
        (Status::Processing | Status::RequiresCapture, _) if is_open => {
            complete(turn, &id, "unpaid");
        }
        (_, _) => {}
    }
}

/// Completes the session of a setup intent that has succeeded.
pub(super) fn on_setup(turn: &mut Turn<'_>, setup: &str) {
    let setup = turn.world.stripe.setups.find(setup).expect("it was found before");
    if let Some(id) = setup.session.clone() {
        complete(turn, &id, "no_payment_required");
    }
}

fn complete(turn: &mut Turn<'_>, id: &str, payment_status: &str) {
    let books = &turn.world.stripe;
    let session = books.sessions.find(id).expect("it was found before");
    let known = session.customer.as_ref().and_then(|id| customers::email(books, id));
    let email = session.customer_email.clone().or(known).unwrap_or_else(|| SOMEBODY.into());
    let session = find_mut(turn, id);
    session.status = SessionStatus::Complete;
    session.payment_status = payment_status.into();
    session.payer_email = Some(email);
    tell(turn, "checkout.session.completed", id);
}

/// Ends an open session, and its intent with it.
pub(crate) fn expire(turn: &mut Turn<'_>, id: &str) -> Result<(), StripeError> {
    let session = find(&turn.world.stripe, id)?;
    check_open(session, "expired")?;
    let (intent, setup) = (session.payment_intent.clone(), session.setup_intent.clone());
    find_mut(turn, id).status = SessionStatus::Expired;
    if let Some(intent) = intent {
        intents::stop(turn, &intent, Some("automatic"));
    }
    if let Some(setup) = setup {
        setups::stop(turn, &setup, None);
    }
    tell(turn, "checkout.session.expired", id);
    Ok(())
}

/// Ends the open sessions whose time is over.
pub(crate) fn expire_due(turn: &mut Turn<'_>) {
    let now = turn.unix();
    let sessions = turn.world.stripe.sessions.iter();
    let due = sessions.filter(|s| s.status == SessionStatus::Open && s.expires_at <= now);
    let due: Vec<_> = due.map(|session| session.id.clone()).collect();
    for id in due {
        expire(turn, &id).expect("it is open");
    }
}

/// Refuses to touch the intent of an open session but through the session.
pub(super) fn check_free(books: &Books, session: Option<&String>) -> Result<(), StripeError> {
    let session = session.and_then(|id| books.sessions.find(id));
    match session {
        Some(session) if session.status == SessionStatus::Open => {
            let text = "You cannot cancel the intent of a Checkout Session. Expire the Checkout \
                        Session instead.";
            Err(StripeError::invalid(text).saved())
        }
        Some(_) | None => Ok(()),
    }
}

/// `GET /v1/checkout/sessions`
pub(super) fn list(turn: &mut Turn<'_>, mut params: Params) -> Result<Value, StripeError> {
    let page = Page::take(&mut params)?;
    let customer = params.text("customer")?;
    let intent = params.text("payment_intent")?;
    let status = params.one_of("status", &["open", "complete", "expired"])?;
    let email = match params.map("customer_details")? {
        None => None,
        Some(mut details) => {
            let email = details.required("email")?;
            details.finish()?;
            Some(email)
        }
    };
    let span = Span::take(&mut params, "created")?;
    params.finish()?;
    expire_due(turn);
    let found = turn.world.stripe.sessions.iter().rev().filter(|session| {
        (customer.is_none() || session.customer == customer)
            && (intent.is_none() || session.payment_intent == intent)
            && (email.is_none() || session.payer_email == email)
            && status.is_none_or(|status| status == session.status.as_str())
            && span.contains(session.created)
    });
    let found = found.map(|session| (session.id.as_str(), session)).collect();
    page.cut("/v1/checkout/sessions", found, Session::json)
}

/// `GET /v1/checkout/sessions/{id}`
pub(super) fn fetch(turn: &mut Turn<'_>, id: &str, params: Params) -> Result<Value, StripeError> {
    params.finish()?;
    expire_due(turn);
    Ok(find(&turn.world.stripe, id)?.json())
}

/// `GET /v1/checkout/sessions/{id}/line_items`
pub(super) fn items(turn: &Turn<'_>, id: &str, mut params: Params) -> Result<Value, StripeError> {
    let page = Page::take(&mut params)?;
    params.finish()?;
    let url = format!("/v1/checkout/sessions/{id}/line_items");
    page.cut(&url, find(&turn.world.stripe, id)?.items(), |item| item)
}

/// `POST /v1/checkout/sessions/{id}`
pub(super) fn update(
    turn: &mut Turn<'_>,
    id: &str,
    mut params: Params,
) -> Result<Value, StripeError> {
    let wish = params.metadata()?;
    params.finish()?;
    find(&turn.world.stripe, id)?;
    form::merge_some(&mut find_mut(turn, id).metadata, wish);
    fetch(turn, id, Params::default())
}

/// `POST /v1/checkout/sessions/{id}/expire`
pub(super) fn expire_by_call(
    turn: &mut Turn<'_>,
    id: &str,
    params: Params,
) -> Result<Value, StripeError> {
    params.finish()?;
    expire_due(turn);
    expire(turn, id)?;
    Ok(find(&turn.world.stripe, id)?.json())
}
