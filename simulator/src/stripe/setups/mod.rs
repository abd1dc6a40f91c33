//! Setup intents: made, read, changed, confirmed, cancelled.

mod object;

use serde_json::Value;

pub(crate) use self::object::Setup;
use super::cards::{AUTHENTICATION_FAILED, Card, Decline, Verdict};
use super::confirm::{self, Attempt};
use super::error::StripeError;
use super::form::{self, Metadata, Params};
use super::lists::{Page, Span};
use super::objects::Status;
use super::wishes::{self, Confirming};
use super::{Books, customers, methods, sessions};
use crate::ids;
use crate::world::{News, Turn};

/// The card that can be kept although it refuses every charge.
const KEPT_THOUGH_BAD: &str = "4000000000000341";

/// Parameters that are accepted and change nothing here.
const WITHOUT_EFFECT: &[&str] = &[
    "attach_to_self",
    "excluded_payment_method_types",
    "flow_directions",
    "mandate_data",
    "payment_method_configuration",
    "payment_method_options",
    "single_use",
    "use_stripe_sdk",
];

/// Finds a setup intent named in the path.
pub(super) fn find<'a>(books: &'a Books, id: &str) -> Result<&'a Setup, StripeError> {
    books.setups.find(id).ok_or_else(|| StripeError::missing("setupintent", id, "intent"))
}

fn find_mut<'a>(turn: &'a mut Turn<'_>, id: &str) -> &'a mut Setup {
    turn.world.stripe.setups.find_mut(id).expect("it was found before")
}

/// Tells of a setup intent.
pub(super) fn tell(turn: &mut Turn<'_>, kind: &str, id: &str) {
    let setup = turn.world.stripe.setups.find(id).expect("it was found before");
    let news = News { kind, object: setup.json(), object_id: id, payment_id: setup.payment_id() };
    turn.tell_stripe(news);
}

/// What a setup intent is made with.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) customer: Option<String>,
    pub(super) description: Option<String>,
    pub(super) metadata: Metadata,
    pub(super) usage: Option<&'static str>,
    pub(super) automatic: Option<String>,
    pub(super) types: Vec<String>,
    pub(super) session: Option<String>,
}

/// Makes a setup intent; the caller tells of it.
pub(super) fn make(turn: &mut Turn<'_>, plan: Plan) -> String {
    let id = ids::stripe("seti");
    let setup = Setup {
        client_secret: format!("{id}_secret_{}", ids::token(25)),
        id: id.clone(),
        created: turn.unix(),
        customer: plan.customer,
        description: plan.description,
        metadata: plan.metadata,
        usage: plan.usage.unwrap_or("off_session").into(),
        automatic: plan.automatic,
        types: if plan.types.is_empty() { vec!["card".into()] } else { plan.types },
        status: Status::RequiresPaymentMethod,
        payment_method: None,
        latest_attempt: None,
        last_error: None,
        next_action: None,
        cancellation_reason: None,
        session: plan.session,
    };
    turn.effects.push(id.clone());
    turn.world.stripe.setups.insert(setup);
    id
}

/// Takes a customer who is there.
fn customer(turn: &Turn<'_>, params: &mut Params) -> Result<Option<String>, StripeError> {
    let customer = params.text("customer")?;
    if let Some(customer) = &customer {
        customers::check(&turn.world.stripe, customer)?;
    }
    Ok(customer)
}

/// `POST /v1/setup_intents`
pub(super) fn create(turn: &mut Turn<'_>, mut params: Params) -> Result<Value, StripeError> {
    params.ignore(WITHOUT_EFFECT);
    let types = params.list("payment_method_types")?;
    let mut metadata = Metadata::new();
    form::merge_some(&mut metadata, params.metadata()?);
    let plan = Plan {
        customer: customer(turn, &mut params)?,
        description: params.text("description")?,
        metadata,
        usage: params.one_of("usage", &["off_session", "on_session"])?,
        automatic: wishes::automatic(&mut params, !types.is_empty())?,
        types,
        session: None,
    };
    let method = params.text("payment_method")?;
    let confirm = params.boolean("confirm")?.unwrap_or(false);
    let return_url = params.text("return_url")?;
    params.finish()?;
    if return_url.is_some() && !confirm {
        let text = "You can only set `return_url` when `confirm` is true.";
        return Err(StripeError::invalid(text).param("return_url"));
    }
    if confirm {
        let how = Confirming { off_session: false, return_url: return_url.clone() };
        wishes::check_return_url(plan.automatic.as_deref(), &how)?;
    }
    let id = make(turn, plan);
    if let Some(method) = method {
        choose(turn, &id, &method)?;
    }
    tell(turn, "setup_intent.created", &id);
    if confirm {
        self::confirm(turn, &id, &Attempt { return_url, ..Attempt::default() })?;
    }
    Ok(find(&turn.world.stripe, &id)?.json())
}

/// `GET /v1/setup_intents/{id}`
pub(super) fn fetch(turn: &Turn<'_>, id: &str, mut params: Params) -> Result<Value, StripeError> {
    let secret = params.text("client_secret")?;
    params.finish()?;
    let setup = find(&turn.world.stripe, id)?;
    if secret.is_some_and(|secret| secret != setup.client_secret) {
        return Err(StripeError::missing("setupintent", id, "intent"));
    }
    Ok(setup.json())
}

/// `GET /v1/setup_intents`
pub(super) fn list(turn: &Turn<'_>, mut params: Params) -> Result<Value, StripeError> {
    let page = Page::take(&mut params)?;
    let customer = params.text("customer")?;
    let method = params.text("payment_method")?;
    let span = Span::take(&mut params, "created")?;
    params.finish()?;
    let found = turn.world.stripe.setups.iter().rev().filter(|setup| {
        (customer.is_none() || setup.customer == customer)
            && (method.is_none() || setup.payment_method == method)
            && span.contains(setup.created)
    });
    let found = found.map(|setup| (setup.id.as_str(), setup)).collect();
    page.cut("/v1/setup_intents", found, Setup::json)
}

/// `POST /v1/setup_intents/{id}`
pub(super) fn update(
    turn: &mut Turn<'_>,
    id: &str,
    mut params: Params,
) -> Result<Value, StripeError> {
    params.ignore(WITHOUT_EFFECT);
    let customer = customer(turn, &mut params)?;
    let description = params.text("description")?;
    let metadata = params.metadata()?;
    let method = params.text("payment_method")?;
    params.finish()?;
    find(&turn.world.stripe, id)?;
    let setup = find_mut(turn, id);
    setup.customer = customer.or(setup.customer.take());
    setup.description = description.or(setup.description.take());
    form::merge_some(&mut setup.metadata, metadata);
    if let Some(method) = method {
        choose(turn, id, &method)?;
    }
    Ok(find(&turn.world.stripe, id)?.json())
}

/// Names the customer whom a checkout session has met.
pub(super) fn give_customer(turn: &mut Turn<'_>, id: &str, customer: Option<String>) {
    find_mut(turn, id).customer = customer;
}

/// `POST /v1/setup_intents/{id}/confirm`
pub(super) fn confirm_by_call(
    turn: &mut Turn<'_>,
    id: &str,
    mut params: Params,
) -> Result<Value, StripeError> {
    params.ignore(WITHOUT_EFFECT);
    let secret = params.text("client_secret")?;
    let payment_method = params.text("payment_method")?;
    let return_url = params.text("return_url")?;
    params.finish()?;
    let setup = find(&turn.world.stripe, id)?;
    if secret.is_some_and(|secret| secret != setup.client_secret) {
        return Err(StripeError::missing("setupintent", id, "intent"));
    }
    let how = Confirming { off_session: false, return_url: return_url.clone() };
    wishes::check_return_url(setup.automatic.as_deref(), &how)?;
    confirm(turn, id, &Attempt { payment_method, off_session: false, return_url })?;
    Ok(find(&turn.world.stripe, id)?.json())
}

/// `POST /v1/setup_intents/{id}/cancel`
pub(super) fn cancel(
    turn: &mut Turn<'_>,
    id: &str,
    mut params: Params,
) -> Result<Value, StripeError> {
    let reasons = &["abandoned", "duplicate", "requested_by_customer"];
    let reason = params.one_of("cancellation_reason", reasons)?;
    params.finish()?;
    let setup = find(&turn.world.stripe, id)?;
    sessions::check_free(&turn.world.stripe, setup.session.as_ref())?;
    check_open(setup, "cancel")?;
    stop(turn, id, reason);
    Ok(find(&turn.world.stripe, id)?.json())
}

/// Cancels a setup intent that is open.
pub(super) fn stop(turn: &mut Turn<'_>, id: &str, reason: Option<&str>) {
    let setup = find_mut(turn, id);
    setup.status = Status::Canceled;
    setup.cancellation_reason = reason.map(str::to_owned);
    setup.next_action = None;
    tell(turn, "setup_intent.canceled", id);
}

fn check_open(setup: &Setup, verb: &str) -> Result<(), StripeError> {
    match setup.status {
        Status::RequiresPaymentMethod | Status::RequiresConfirmation | Status::RequiresAction => {
            Ok(())
        }
        Status::Processing | Status::RequiresCapture | Status::Succeeded | Status::Canceled => {
            let status = setup.status.as_str();
            let text =
                format!("You cannot {verb} this SetupIntent because it has a status of {status}.");
            Err(unexpected(setup, &text))
        }
    }
}

fn unexpected(setup: &Setup, text: &str) -> StripeError {
    StripeError::state("setup_intent_unexpected_state", text).with("setup_intent", setup.json())
}

fn choose(turn: &mut Turn<'_>, id: &str, method: &str) -> Result<(), StripeError> {
    let setup = find(&turn.world.stripe, id)?;
    check_open(setup, "update")?;
    let customer = setup.customer.clone();
    let method = methods::resolve(turn, method, customer.as_deref())?;
    let setup = find_mut(turn, id);
    setup.payment_method = Some(method);
    setup.status = Status::RequiresConfirmation;
    Ok(())
}

/// Tries to keep a card. A refusal leaves the setup intent open for another one.
pub(crate) fn confirm(turn: &mut Turn<'_>, id: &str, attempt: &Attempt) -> Result<(), StripeError> {
    let setup = find(&turn.world.stripe, id)?;
    check_open(setup, "confirm")?;
    if let Some(customer) = &setup.customer {
        customers::check(&turn.world.stripe, customer)?;
    }
    if let Some(method) = &attempt.payment_method {
        choose(turn, id, method)?;
    }
    let setup = find(&turn.world.stripe, id)?;
    let method = setup.payment_method.as_ref().and_then(|id| turn.world.stripe.methods.find(id));
    let Some(card) = method.map(super::objects::PaymentMethod::card) else {
        let text = "You cannot confirm this SetupIntent because it's missing a payment method. \
                    Update the SetupIntent with a payment method and then confirm it again.";
        return Err(unexpected(setup, text));
    };
    find_mut(turn, id).latest_attempt = Some(ids::stripe("setatt"));
    match verdict(card) {
        Verdict::Approve | Verdict::Process => succeed(turn, id),
        Verdict::Decline(reason) => return Err(refuse(turn, id, reason)),
        Verdict::Authenticate { .. } => ask(turn, id, attempt.return_url.as_deref()),
    }
    Ok(())
}

fn verdict(card: &Card) -> Verdict {
    if card.number == KEPT_THOUGH_BAD { Verdict::Approve } else { card.verdict }
}

/// Ends the question that [`confirm`] put to the payer.
pub(crate) fn authenticate(turn: &mut Turn<'_>, id: &str, proven: bool) -> Result<(), StripeError> {
    let setup = find(&turn.world.stripe, id)?;
    if setup.status != Status::RequiresAction {
        return Err(unexpected(setup, "This SetupIntent does not wait for authentication."));
    }
    if !proven {
        let code = "setup_intent_authentication_failure";
        return Err(refuse(turn, id, Decline { code, ..AUTHENTICATION_FAILED }));
    }
    let method = setup.payment_method.clone();
    if let Some(method) = method.and_then(|id| turn.world.stripe.methods.find_mut(&id)) {
        method.is_authenticated = true;
    }
    succeed(turn, id);
    Ok(())
}

fn succeed(turn: &mut Turn<'_>, id: &str) {
    let setup = find_mut(turn, id);
    setup.status = Status::Succeeded;
    setup.next_action = None;
    setup.last_error = None;
    let method = setup.payment_method.clone().expect("a confirmed setup intent has a method");
    if let Some(customer) = setup.customer.clone() {
        methods::keep(turn, &method, &customer);
    }
    tell(turn, "setup_intent.succeeded", id);
    sessions::on_setup(turn, id);
}

fn refuse(turn: &mut Turn<'_>, id: &str, reason: Decline) -> StripeError {
    let setup = find(&turn.world.stripe, id).expect("it was found before");
    let method = setup.payment_method.as_ref().and_then(|id| turn.world.stripe.methods.find(id));
    let error = confirm::refusal(reason, method);
    let setup = find_mut(turn, id);
    setup.status = Status::RequiresPaymentMethod;
    setup.payment_method = None;
    setup.next_action = None;
    setup.last_error = Some(Value::Object(error.fields()));
    let shown = setup.json();
    tell(turn, "setup_intent.setup_failed", id);
    error.with("setup_intent", shown)
}

fn ask(turn: &mut Turn<'_>, id: &str, return_url: Option<&str>) {
    let page = format!("{}/setup/{id}", turn.core.stripe_url);
    let setup = find_mut(turn, id);
    setup.status = Status::RequiresAction;
    setup.next_action = Some(confirm::question(&page, &setup.client_secret, return_url));
    tell(turn, "setup_intent.requires_action", id);
}
