//! Disputes: opened by a payer's bank, answered by the merchant, decided by the bank.

mod object;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::object::{Dispute, DisputeStatus};
use self::object::{EVIDENCE, Movement};
use super::Books;
use super::cards::Card;
use super::error::StripeError;
use super::form::{self, Metadata, Params};
use super::lists::{Page, Span};
use crate::ids;
use crate::world::{News, Turn};

/// How a dispute ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisputeOutcome {
    /// The money comes back to the merchant.
    Won,
    /// The payer keeps the money.
    Lost,
    /// An inquiry ends without a dispute; no money moved.
    WarningClosed,
}

fn find<'a>(books: &'a Books, id: &str) -> Result<&'a Dispute, StripeError> {
    books.disputes.find(id).ok_or_else(|| StripeError::missing("dispute", id, "id"))
}

/// Returns whether a dispute keeps the money of a charge from being given back by the merchant.
pub(super) fn holds(books: &Books, charge: &str) -> bool {
    books.disputes.iter().any(|dispute| dispute.charge == charge && dispute.status.holds_money())
}

/// Opens a dispute of an intent's or a charge's money: an inquiry, or a chargeback at once.
///
/// `amount` is all that was not refunded, unless said otherwise. Refused while another one is open.
pub(crate) fn open(
    turn: &mut Turn<'_>,
    object: &str,
    is_inquiry: bool,
    amount: Option<i64>,
) -> Result<String, StripeError> {
    let books = &turn.world.stripe;
    let charge = match books.intents.find(object) {
        Some(intent) => intent.latest_charge.as_deref().unwrap_or_default(),
        None => object,
    };
    let missing = || StripeError::missing("charge", object, "charge");
    let charge = books.charges.find(charge).ok_or_else(missing)?;
    let id = charge.id.clone();
    let is_contested = books.disputes.iter().any(|dispute| {
        dispute.charge == id && (dispute.status.holds_money() || dispute.status.is_open_inquiry())
    });
    if is_contested {
        return Err(StripeError::invalid(format!("Charge {id} is disputed already.")));
    }
    let amount = amount.unwrap_or_else(|| charge.refundable());
    if amount < 1 || amount > charge.amount_captured {
        let text = format!("Charge {id} has no {amount} that could be disputed.");
        return Err(StripeError::invalid(text).param("amount"));
    }
    let dispute = Dispute {
        id: ids::stripe("du"),
        created: turn.now.timestamp(),
        amount,
        currency: charge.currency.clone(),
        charge: id.clone(),
        payment_intent: charge.payment_intent.clone(),
        brand: Card::find(&charge.number).expect("a charge is of a known card").brand.into(),
        status: if is_inquiry {
            DisputeStatus::WarningNeedsResponse
        } else {
            DisputeStatus::NeedsResponse
        },
        is_inquiry,
        metadata: Metadata::new(),
        evidence: BTreeMap::new(),
        submissions: 0,
        movements: Vec::new(),
    };
    Ok(begin(turn, dispute))
}

fn begin(turn: &mut Turn<'_>, dispute: Dispute) -> String {
    let id = dispute.id.clone();
    let is_inquiry = dispute.is_inquiry;
    let charge = turn.world.stripe.charges.find_mut(&dispute.charge);
    charge.expect("it was found before").is_disputed = true;
    turn.effects.push(id.clone());
    turn.world.stripe.disputes.insert(dispute);
    tell(turn, "charge.dispute.created", &id, None);
    if !is_inquiry {
        move_money(turn, &id, true);
    }
    id
}

/// Turns an open inquiry into a chargeback: the money is withdrawn.
pub(crate) fn escalate(turn: &mut Turn<'_>, id: &str) -> Result<(), StripeError> {
    let status = find(&turn.world.stripe, id)?.status;
    if !status.is_open_inquiry() {
        let text = format!("Dispute {id} is {} and no open inquiry.", status.as_str());
        return Err(StripeError::invalid(text));
    }
    change(turn, id, "charge.dispute.updated", |dispute| {
        dispute.status = DisputeStatus::NeedsResponse;
        dispute.is_inquiry = false;
    });
    move_money(turn, id, true);
    Ok(())
}

/// Ends a dispute as the bank decides. An inquiry can only be closed, a chargeback won or lost.
pub(crate) fn settle(
    turn: &mut Turn<'_>,
    id: &str,
    outcome: DisputeOutcome,
) -> Result<(), StripeError> {
    let status = find(&turn.world.stripe, id)?.status;
    let (is_fitting, end) = match outcome {
        DisputeOutcome::Won => (status.is_open_chargeback(), DisputeStatus::Won),
        DisputeOutcome::Lost => (status.is_open_chargeback(), DisputeStatus::Lost),
        DisputeOutcome::WarningClosed => (status.is_open_inquiry(), DisputeStatus::WarningClosed),
    };
    if !is_fitting {
        let (is, end) = (status.as_str(), end.as_str());
        return Err(StripeError::invalid(format!("Dispute {id} is {is} and cannot become {end}.")));
    }
    change(turn, id, "charge.dispute.closed", |dispute| dispute.status = end);
    if end == DisputeStatus::Won {
        move_money(turn, id, false);
    }
    Ok(())
}

/// Closes the inquiry about a charge that the merchant has paid back in full.
pub(super) fn end_inquiry(turn: &mut Turn<'_>, charge: &str) {
    let mut disputes = turn.world.stripe.disputes.iter();
    let open =
        disputes.find(|dispute| dispute.charge == charge && dispute.status.is_open_inquiry());
    if let Some(id) = open.map(|dispute| dispute.id.clone()) {
        change(turn, &id, "charge.dispute.closed", |dispute| {
            dispute.status = DisputeStatus::WarningClosed;
        });
    }
}

fn move_money(turn: &mut Turn<'_>, id: &str, is_withdrawal: bool) {
    let created = turn.unix();
    let kind = if is_withdrawal {
        "charge.dispute.funds_withdrawn"
    } else {
        "charge.dispute.funds_reinstated"
    };
    change(turn, id, kind, |dispute| {
        let amount = if is_withdrawal { -dispute.amount } else { dispute.amount };
        dispute.movements.push(Movement { id: ids::stripe("txn"), created, amount });
    });
}

fn change(turn: &mut Turn<'_>, id: &str, kind: &str, edit: impl FnOnce(&mut Dispute)) {
    let dispute = turn.world.stripe.disputes.find_mut(id).expect("it was found before");
    let before = dispute.json();
    edit(dispute);
    tell(turn, kind, id, Some(&before));
}

fn tell(turn: &mut Turn<'_>, kind: &str, id: &str, before: Option<&Value>) {
    let books = &turn.world.stripe;
    let dispute = books.disputes.find(id).expect("it was found before");
    let intent = books.intents.find(&dispute.payment_intent);
    let payment_id = intent.and_then(super::objects::Intent::payment_id);
    let news = News { kind, object: dispute.json(), object_id: id, payment_id };
    match before {
        Some(before) => turn.tell_stripe_change(news, before),
        None => turn.tell_stripe(news),
    }
}

/// `GET /v1/disputes`
pub(super) fn list(turn: &Turn<'_>, mut params: Params) -> Result<Value, StripeError> {
    let page = Page::take(&mut params)?;
    let charge = params.text("charge")?;
    let intent = params.text("payment_intent")?;
    let span = Span::take(&mut params, "created")?;
    params.finish()?;
    let found = turn.world.stripe.disputes.iter().rev().filter(|dispute| {
        charge.as_ref().is_none_or(|charge| *charge == dispute.charge)
            && intent.as_ref().is_none_or(|intent| *intent == dispute.payment_intent)
            && span.contains(dispute.created)
    });
    let found = found.map(|dispute| (dispute.id.as_str(), dispute)).collect();
    page.cut("/v1/disputes", found, Dispute::json)
}

/// `GET /v1/disputes/{id}`
pub(super) fn fetch(turn: &Turn<'_>, id: &str, params: Params) -> Result<Value, StripeError> {
    params.finish()?;
    Ok(find(&turn.world.stripe, id)?.json())
}

/// `POST /v1/disputes/{id}`: hands in evidence, at once unless `submit` is false.
///
/// As with Stripe's test mode, `winning_evidence` and `losing_evidence` decide the dispute.
pub(super) fn update(
    turn: &mut Turn<'_>,
    id: &str,
    mut params: Params,
) -> Result<Value, StripeError> {
    let wish = params.metadata()?;
    let is_submitted = params.boolean("submit")?.unwrap_or(true);
    let mut evidence = BTreeMap::new();
    if let Some(mut texts) = params.map("evidence")? {
        texts.ignore(&["enhanced_evidence"]);
        for name in EVIDENCE {
            if let Some(text) = texts.text(name)? {
                evidence.insert((*name).to_owned(), text);
            }
        }
        texts.finish()?;
    }
    params.finish()?;
    let dispute = find(&turn.world.stripe, id)?;
    let is_open = dispute.status.is_open_inquiry() || dispute.status.is_open_chargeback();
    if !evidence.is_empty() && !is_open {
        return Err(closed(dispute));
    }
    let is_answer = is_submitted && !evidence.is_empty();
    let verdict = evidence.get("uncategorized_text").filter(|_| is_answer).cloned();
    change(turn, id, "charge.dispute.updated", |dispute| {
        form::merge_some(&mut dispute.metadata, wish);
        dispute.evidence.extend(evidence);
        if is_answer {
            dispute.submissions += 1;
            dispute.status = if dispute.status.is_open_inquiry() {
                DisputeStatus::WarningUnderReview
            } else {
                DisputeStatus::UnderReview
            };
        }
    });
    let is_inquiry = find(&turn.world.stripe, id)?.status.is_open_inquiry();
    match verdict.as_deref() {
        Some("winning_evidence") if is_inquiry => settle(turn, id, DisputeOutcome::WarningClosed)?,
        Some("winning_evidence") => settle(turn, id, DisputeOutcome::Won)?,
        Some("losing_evidence") if !is_inquiry => settle(turn, id, DisputeOutcome::Lost)?,
        Some(_) | None => {}
    }
    fetch(turn, id, Params::default())
}

/// `POST /v1/disputes/{id}/close`: gives in.
pub(super) fn close(turn: &mut Turn<'_>, id: &str, params: Params) -> Result<Value, StripeError> {
    params.finish()?;
    let dispute = find(&turn.world.stripe, id)?;
    if !dispute.status.is_open_chargeback() {
        return Err(closed(dispute));
    }
    settle(turn, id, DisputeOutcome::Lost)?;
    fetch(turn, id, Params::default())
}

fn closed(dispute: &Dispute) -> StripeError {
    let status = dispute.status.as_str();
    let text = format!("This dispute cannot be changed: it has a status of {status}.");
    StripeError::invalid(text).saved()
}
