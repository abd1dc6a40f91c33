//! What really happened to the money, gateway object by gateway object.

use serde::Serialize;

use crate::Gateway;
use crate::money;
use crate::paypal::CaptureOutcome;
use crate::stripe::DisputeStatus;
use crate::world::World;

/// One payment intent or order, as the gateway's own books have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Truth {
    /// Whose books.
    pub gateway: Gateway,
    /// The intent's or order's id.
    pub object_id: String,
    /// The gateway's status word.
    pub status: String,
    /// Our payment's id, from `metadata.payment_id` or `custom_id`.
    pub payment_id: Option<String>,
    /// ISO 4217, upper case.
    pub currency: String,
    /// Decimals of the amounts below, by the gateway's own count for this currency.
    pub decimals: u32,
    /// What was asked for.
    pub amount_minor: i64,
    /// What was taken.
    pub captured_minor: i64,
    /// What was given back.
    pub refunded_minor: i64,
    /// Held by open disputes; an inquiry holds nothing.
    pub disputed_minor: i64,
    /// Lost to disputes or reversals, for good.
    pub lost_minor: i64,
    /// How many times money was taken; more than one is a double charge.
    pub captures: usize,
    /// Ids of the captured charges or captures.
    pub capture_ids: Vec<String>,
    /// The customer charged, where one was named.
    pub customer: Option<String>,
}

/// Returns the truth of every object, Stripe's first, oldest first.
pub(crate) fn all(world: &World) -> Vec<Truth> {
    let mut truths = stripe(world);
    truths.extend(paypal(world));
    truths
}

fn stripe(world: &World) -> Vec<Truth> {
    let books = &world.stripe;
    let mut truths: Vec<Truth> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for intent in books.intents.iter() {
        places.insert(intent.id.as_str(), truths.len());
        truths.push(Truth {
            gateway: Gateway::Stripe,
            object_id: intent.id.clone(),
            status: intent.status.as_str().into(),
            payment_id: intent.payment_id(),
            currency: intent.currency.to_uppercase(),
            decimals: money::stripe_decimals(&intent.currency).unwrap_or(2),
            amount_minor: intent.amount,
            captured_minor: 0,
            refunded_minor: 0,
            disputed_minor: 0,
            lost_minor: 0,
            captures: 0,
            capture_ids: Vec::new(),
            customer: intent.customer.clone(),
        });
    }
    for charge in books.charges.iter().filter(|charge| charge.amount_captured > 0) {
        let truth = &mut truths[places[charge.payment_intent.as_str()]];
        truth.captured_minor += charge.amount_captured;
        truth.refunded_minor += charge.amount_refunded;
        truth.captures += 1;
        truth.capture_ids.push(charge.id.clone());
    }
    for dispute in books.disputes.iter() {
        let truth = &mut truths[places[dispute.payment_intent.as_str()]];
        if dispute.status.is_open_chargeback() {
            truth.disputed_minor += dispute.amount;
        } else if dispute.status == DisputeStatus::Lost {
            truth.lost_minor += dispute.amount;
        }
    }
    truths
}

fn paypal(world: &World) -> Vec<Truth> {
    let books = &world.paypal;
    let orders = books.orders.iter().map(|order| {
        let captures = order.captures.iter().filter_map(|id| books.captures.find(id));
        let captures = captures.filter(|capture| capture.outcome == CaptureOutcome::Completed);
        let captures: Vec<_> = captures.collect();
        Truth {
            gateway: Gateway::PayPal,
            object_id: order.id.clone(),
            status: order.status.as_str().into(),
            payment_id: order.custom_id.clone(),
            currency: order.amount.currency.clone(),
            decimals: money::paypal_decimals(&order.amount.currency).unwrap_or(2),
            amount_minor: order.amount.minor,
            captured_minor: captures.iter().map(|capture| capture.amount.minor).sum(),
            refunded_minor: captures.iter().map(|it| books.refunded_minor(&it.id)).sum(),
            disputed_minor: captures.iter().map(|it| books.disputed_minor(it)).sum(),
            lost_minor: captures.iter().map(|it| books.lost_minor(it)).sum(),
            captures: captures.len(),
            capture_ids: captures.iter().map(|capture| capture.id.clone()).collect(),
            customer: None,
        }
    });
    orders.collect()
}
