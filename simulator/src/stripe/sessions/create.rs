//! A new checkout session: what one may ask of it, and what Stripe refuses.

use serde_json::Value;

use super::object::{IntentPlan, Item, Mode, Session, SessionStatus};
use crate::ids;
use crate::stripe::error::StripeError;
use crate::stripe::form::{self, Metadata, Params};
use crate::stripe::{customers, setups, wishes};
use crate::world::Turn;

/// How long a session stays open unless said otherwise; also the longest.
const LONGEST_SECONDS: i64 = 24 * 3600;

/// The shortest a session may be open.
const SHORTEST_SECONDS: i64 = 30 * 60;

/// Parameters that are accepted and change nothing here.
const WITHOUT_EFFECT: &[&str] = &[
    "adaptive_pricing",
    "after_expiration",
    "allow_promotion_codes",
    "billing_address_collection",
    "branding_settings",
    "consent_collection",
    "custom_text",
    "customer_update",
    "excluded_payment_method_types",
    "invoice_creation",
    "name_collection",
    "origin_context",
    "payment_method_collection",
    "payment_method_configuration",
    "payment_method_data",
    "payment_method_options",
    "phone_number_collection",
    "saved_payment_method_options",
    "submit_type",
    "wallet_options",
];

/// Who pays.
struct Payer {
    customer: Option<String>,
    email: Option<String>,
    creation: Option<&'static str>,
}

/// `POST /v1/checkout/sessions`
pub(in crate::stripe) fn create(
    turn: &mut Turn<'_>,
    mut params: Params,
) -> Result<Value, StripeError> {
    params.ignore(WITHOUT_EFFECT);
    params.one_of("ui_mode", &["hosted", "hosted_page"])?;
    let mode = match params.one_of("mode", &["payment", "setup"])? {
        Some("setup") => Mode::Setup,
        Some(_) => Mode::Payment,
        None => return Err(StripeError::missing_param("mode")),
    };
    let success_url = params.required("success_url")?;
    let cancel_url = params.text("cancel_url")?;
    for (name, url) in [("success_url", Some(&success_url)), ("cancel_url", cancel_url.as_ref())] {
        if url.is_some_and(|url| url::Url::parse(url).is_err()) {
            return Err(StripeError::invalid("Not a valid URL").code("url_invalid").param(name));
        }
    }
    let payer = payer(turn, &mut params)?;
    let items = items(&mut params)?;
    let plan = plan(&mut params, mode)?;
    let client_reference_id = params.text("client_reference_id")?;
    let locale = params.text("locale")?;
    let types = params.list("payment_method_types")?;
    let mut metadata = Metadata::new();
    form::merge_some(&mut metadata, params.metadata()?);
    let expires_at = expires_at(turn.unix(), params.integer("expires_at")?)?;
    let currency = params.text("currency")?.map(|currency| currency.to_lowercase());
    params.finish()?;
    let (currency, amount) = total(mode, &items, currency)?;
    let id = format!("cs_test_a1{}", ids::token(56));
    let session = Session {
        created: turn.unix(),
        expires_at,
        mode,
        status: SessionStatus::Open,
        payment_status: match mode {
            Mode::Payment => "unpaid".into(),
            Mode::Setup => "no_payment_required".into(),
        },
        currency,
        amount,
        items,
        success_url,
        cancel_url,
        client_reference_id,
        customer: payer.customer,
        customer_creation: payer.creation.map(str::to_owned),
        customer_email: payer.email,
        payer_email: None,
        locale,
        metadata,
        types: if types.is_empty() { vec!["card".into()] } else { types },
        plan,
        payment_intent: None,
        setup_intent: None,
        page: format!("{}/c/pay/{id}", turn.core.stripe_url),
        id,
    };
    Ok(insert(turn, session))
}

/// Adds the session. In setup mode its intent is there at once, a payment's comes with the payer.
fn insert(turn: &mut Turn<'_>, mut session: Session) -> Value {
    turn.effects.push(session.id.clone());
    if session.mode == Mode::Setup {
        let plan = setups::Plan {
            customer: session.customer.clone(),
            description: session.plan.description.clone(),
            metadata: session.plan.metadata.clone(),
            types: session.types.clone(),
            session: Some(session.id.clone()),
            ..setups::Plan::default()
        };
        let setup = setups::make(turn, plan);
        setups::tell(turn, "setup_intent.created", &setup);
        session.setup_intent = Some(setup);
    }
    let json = session.json();
    turn.world.stripe.sessions.insert(session);
    json
}

fn payer(turn: &Turn<'_>, params: &mut Params) -> Result<Payer, StripeError> {
    let payer = Payer {
        customer: params.text("customer")?,
        email: params.text("customer_email")?,
        creation: params.one_of("customer_creation", &["always", "if_required"])?,
    };
    let Some(customer) = &payer.customer else {
        return Ok(Payer { creation: payer.creation.or(Some("if_required")), ..payer });
    };
    let other = if payer.email.is_some() {
        "customer_email"
    } else if payer.creation.is_some() {
        "customer_creation"
    } else {
        customers::check(&turn.world.stripe, customer)?;
        return Ok(payer);
    };
    let text = format!("You may only specify one of these parameters: customer, {other}.");
    Err(StripeError::invalid(text))
}

fn items(params: &mut Params) -> Result<Vec<Item>, StripeError> {
    let mut items = Vec::new();
    for mut line in params.maps("line_items")? {
        line.ignore(&["adjustable_quantity", "dynamic_tax_rates", "metadata", "tax_rates"]);
        if let Some(price) = line.text("price")? {
            return Err(StripeError::missing("price", &price, &line.name_of("price")));
        }
        let name = line.name_of("price_data");
        let Some(mut price) = line.map("price_data")? else {
            return Err(StripeError::missing_param(&name));
        };
        price.ignore(&["tax_behavior"]);
        let currency = price.required("currency")?.to_lowercase();
        let unit = price.name_of("unit_amount");
        let unit_amount =
            price.integer("unit_amount")?.ok_or_else(|| StripeError::missing_param(&unit))?;
        let name = price.name_of("product_data");
        let mut product =
            price.map("product_data")?.ok_or_else(|| StripeError::missing_param(&name))?;
        product.ignore(&["description", "images", "metadata", "tax_code", "unit_label"]);
        let name = product.required("name")?;
        product.finish()?;
        price.finish()?;
        let missing = StripeError::missing_param(&line.name_of("quantity"));
        let quantity = line.integer("quantity")?.ok_or(missing)?;
        line.finish()?;
        if unit_amount < 0 || quantity < 1 {
            let text = "This value must be greater than or equal to 0.";
            return Err(StripeError::invalid(text).param(&unit));
        }
        items.push(Item {
            id: ids::stripe("li"),
            price: ids::stripe("price"),
            product: ids::stripe_short("prod"),
            name,
            currency,
            unit_amount,
            quantity,
        });
    }
    Ok(items)
}

/// Adds up what is bought, in its one currency.
fn total(
    mode: Mode,
    items: &[Item],
    currency: Option<String>,
) -> Result<(Option<String>, Option<i64>), StripeError> {
    match (mode, items.first()) {
        (Mode::Setup, None) => Ok((currency, None)),
        (Mode::Setup, Some(_)) => {
            let text = "You cannot use `line_items` in `setup` mode.";
            Err(StripeError::invalid(text).param("line_items"))
        }
        (Mode::Payment, None) => Err(StripeError::missing_param("line_items")),
        (Mode::Payment, Some(first)) => {
            if items.iter().any(|item| item.currency != first.currency) {
                let text = "All prices on a Checkout Session must be expressed in the same \
                            currency.";
                return Err(StripeError::invalid(text).param("line_items"));
            }
            let sum = items.iter().try_fold(0_i64, |sum, item| sum.checked_add(item.total()?));
            let sum = sum.unwrap_or(i64::MAX);
            wishes::check_amount(sum, &first.currency)?;
            Ok((Some(first.currency.clone()), Some(sum)))
        }
    }
}

/// Takes `payment_intent_data` or `setup_intent_data`, whichever the mode has.
fn plan(params: &mut Params, mode: Mode) -> Result<IntentPlan, StripeError> {
    let name = match mode {
        Mode::Payment => "payment_intent_data",
        Mode::Setup => "setup_intent_data",
    };
    let Some(mut map) = params.map(name)? else { return Ok(IntentPlan::default()) };
    let mut metadata = Metadata::new();
    form::merge_some(&mut metadata, map.metadata()?);
    let mut plan =
        IntentPlan { metadata, description: map.text("description")?, ..IntentPlan::default() };
    if mode == Mode::Payment {
        let usages = &["off_session", "on_session"];
        plan.setup_future_usage = map.one_of("setup_future_usage", usages)?.map(str::to_owned);
        let ways = &["automatic", "automatic_async", "manual"];
        plan.capture_method = map.one_of("capture_method", ways)?.map(str::to_owned);
        plan.receipt_email = map.text("receipt_email")?;
        plan.statement_descriptor = map.text("statement_descriptor")?;
        plan.statement_descriptor_suffix = map.text("statement_descriptor_suffix")?;
        map.ignore(&["shipping"]);
    }
    map.finish()?;
    Ok(plan)
}

fn expires_at(now: i64, wish: Option<i64>) -> Result<i64, StripeError> {
    let Some(at) = wish else { return Ok(now + LONGEST_SECONDS) };
    let refuse = |text| Err(StripeError::invalid(text).param("expires_at"));
    if at < now + SHORTEST_SECONDS {
        refuse(
            "The `expires_at` timestamp must be at least 30 minutes from Checkout Session creation.",
        )
    } else if at > now + LONGEST_SECONDS {
        refuse(
            "The `expires_at` timestamp must be less than 24 hours from Checkout Session creation.",
        )
    } else {
        Ok(at)
    }
}
