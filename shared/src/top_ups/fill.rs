//! Buying the pack that an account below its line asks for.

use chrono::{DateTime, Duration, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::rules::{self, Bought, Decision, Last, OffReason, PENDING_LOOK, Standing};
use super::{Order, Setting, setting, store};
use crate::App;
use crate::customers;
use crate::error::Error;
use crate::events::{self, Event, EventKind};
use crate::ids::{CustomerId, PaymentId};
use crate::methods::{self, Method};
use crate::payments::{self, Charge, Glance, PaymentStatus};
use crate::plans::{self, Plan};
use crate::subscriptions;
use crate::tokens;

/// Packs that one job buys, one after the other, where one is too small; the sweep goes on.
const ROUNDS: usize = 10;

/// What is left to do outside of the transaction.
enum Step {
    Done,
    /// Something changed meanwhile: look again.
    Again,
    /// The payment of this order is to be made, or to be asked for again.
    Charge(Order),
    /// This failed payment could still be paid: it must end before another one is made.
    Cancel(PaymentId),
}

/// Looks at a customer's account and buys what it asks for, within his limits. May be repeated:
/// one gap of the account is one payment.
///
/// The order is committed before the gateway hears of it, with the payment's id, which is the
/// gateway's idempotency key; whoever comes after a crash goes on with the same order.
pub async fn fill(app: &App, customer_id: CustomerId) -> Result<(), Error> {
    for _round in 0..ROUNDS {
        match step(app, customer_id).await? {
            Step::Done => return Ok(()),
            Step::Again => {}
            Step::Charge(order) => {
                if !charge(app, customer_id, &order).await? {
                    return Ok(());
                }
            }
            Step::Cancel(payment_id) => {
                match payments::cancel(app, customer_id, payment_id).await {
                    Ok(_) => {}
                    // It is being paid after all: what comes of it is seen at the next look.
                    Err(Error::Conflict(_)) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

/// What can be bought, and with what: read before the customer is locked. An order names both, so
/// that what changed since does no harm.
struct Means {
    plan_id: i32,
    plan: Option<Plan>,
    method: Option<Method>,
}

impl Means {
    async fn read(app: &App, customer_id: CustomerId, setting: &Setting) -> Result<Self, Error> {
        let plan = match plans::sold(app, setting.plan_id).await {
            Ok(plan) => Some(plan).filter(|plan| plan.duration_days.is_none()),
            Err(Error::PlanUnavailable) => None,
            Err(error) => return Err(error),
        };
        let method = methods::list(app, customer_id).await?.into_iter().next();
        Ok(Self { plan_id: setting.plan_id, plan, method })
    }
}

/// Ends the pending order if its payment has ended, and decides what is next.
async fn step(app: &App, customer_id: CustomerId) -> Result<Step, Error> {
    let mut db = app.db.acquire().await?;
    let Some(before) = store::find(&mut db, customer_id).await? else { return Ok(Step::Done) };
    drop(db);
    let means = Means::read(app, customer_id, &before).await?;
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    customers::lock(&mut tx, customer_id).await?;
    let mut look = Look {
        customer_id,
        setting: store::find(&mut tx, customer_id).await?.ok_or(Error::NotFound("top-up"))?,
        last: store::last_order(&mut tx, customer_id).await?,
        glance: None,
        link: setting::link(&app.config),
        now,
        told: 0,
    };
    if let Some(step) = look.conclude(&mut tx).await? {
        tx.commit().await?;
        return Ok(step);
    }
    if look.setting.off.is_some() {
        store::set_look(&mut tx, customer_id, None, None).await?;
        tx.commit().await?;
        return Ok(Step::Done);
    }
    if look.setting.plan_id != means.plan_id {
        tx.commit().await?;
        return Ok(Step::Again);
    }
    let step = look.go_on(&mut tx, &means).await?;
    tx.commit().await?;
    Ok(step)
}

/// A look at a customer under his lock.
struct Look {
    customer_id: CustomerId,
    setting: Setting,
    last: Option<Order>,
    /// The newest order's payment.
    glance: Option<Glance>,
    /// Where a customer finishes a payment that wants him.
    link: String,
    now: DateTime<Utc>,
    /// How many events were recorded.
    told: i64,
}

impl Look {
    /// Books how the newest order ended; a step where it has not, which comes before all else.
    async fn conclude(&mut self, db: &mut PgConnection) -> Result<Option<Step>, Error> {
        let Some(order) = self.last.clone().filter(|order| !order.is_paid) else {
            return Ok(None);
        };
        self.glance = payments::glance(db, self.customer_id, order.payment_id).await?;
        let is_open = order.concluded_at.is_none();
        match self.glance.as_ref().map(|glance| glance.status) {
            Some(PaymentStatus::Completed | PaymentStatus::Refunded) => {
                self.paid(db, order).await?;
                Ok(None)
            }
            Some(PaymentStatus::Failed | PaymentStatus::Cancelled) if is_open => {
                let code = self.glance.as_ref().and_then(|glance| glance.failure_code.clone());
                let code = code.unwrap_or_else(|| "cancelled".to_owned());
                self.failed(db, order, &code).await?;
                Ok(None)
            }
            None if is_open && self.setting.off.is_some() => {
                store::conclude(db, self.customer_id, &order, Some("switched_off"), self.now)
                    .await?;
                self.last = store::last_order(db, self.customer_id).await?;
                Ok(None)
            }
            None | Some(PaymentStatus::Pending) if is_open => {
                let next = Some(self.now + PENDING_LOOK);
                store::set_look(db, self.customer_id, Some(order.asked_at), next).await?;
                let is_mine = self.glance.as_ref().is_none_or(|glance| {
                    // Later on, the reconciliation of payments looks for it.
                    !glance.has_object && self.now - order.created_at < PENDING_LOOK
                });
                Ok(Some(if is_mine { Step::Charge(order) } else { Step::Done }))
            }
            None
            | Some(PaymentStatus::Pending | PaymentStatus::Failed | PaymentStatus::Cancelled) => {
                Ok(None)
            }
        }
    }

    async fn paid(&mut self, db: &mut PgConnection, order: Order) -> Result<(), Error> {
        store::conclude(db, self.customer_id, &order, None, self.now).await?;
        store::set_failures(db, self.customer_id, 0).await?;
        self.setting.failures = 0;
        let facts = json!({
            "payment_id": order.payment_id,
            "plan_id": order.plan_id,
            "amount": order.amount.to_decimal().to_string(),
            "currency": order.amount.currency,
        });
        self.tell(db, EventKind::TopUpCompleted, Some(order.payment_id), facts).await?;
        self.last = store::last_order(db, self.customer_id).await?;
        Ok(())
    }

    /// Counts a failed payment; the second in a row switches off.
    async fn failed(
        &mut self,
        db: &mut PgConnection,
        order: Order,
        code: &str,
    ) -> Result<(), Error> {
        store::conclude(db, self.customer_id, &order, Some(code), self.now).await?;
        self.setting.failures += 1;
        store::set_failures(db, self.customer_id, self.setting.failures).await?;
        let mut facts = json!({
            "payment_id": order.payment_id,
            "plan_id": order.plan_id,
            "amount": order.amount.to_decimal().to_string(),
            "currency": order.amount.currency,
            "failure_code": code,
            "failures": self.setting.failures,
        });
        if code == setting::NEEDS_CUSTOMER {
            facts["link"] = Value::from(self.link.clone());
        }
        self.tell(db, EventKind::TopUpFailed, Some(order.payment_id), facts).await?;
        self.last = store::last_order(db, self.customer_id).await?;
        if self.setting.failures >= rules::MOST_FAILURES && self.setting.off.is_none() {
            self.switch_off(db, OffReason::Declined).await?;
        }
        Ok(())
    }

    async fn switch_off(&mut self, db: &mut PgConnection, why: OffReason) -> Result<(), Error> {
        store::switch_off(db, self.customer_id, why, self.now).await?;
        self.setting.off = Some((why, self.now));
        tokens::set_top_up(db, self.customer_id, None, None, self.now).await?;
        let payment_id = self.last.as_ref().map(|order| order.payment_id);
        let facts = json!({ "reason": why.as_str(), "payment_id": payment_id });
        self.tell(db, EventKind::TopUpDisabled, payment_id, facts).await
    }

    /// Records an event, later than the one before: what is told at one instant has no order.
    async fn tell(
        &mut self,
        db: &mut PgConnection,
        kind: EventKind,
        payment_id: Option<PaymentId>,
        facts: Value,
    ) -> Result<(), Error> {
        let at = self.now + Duration::microseconds(self.told);
        self.told += 1;
        let mut event = Event::of_system(self.customer_id, kind, at);
        event.subject_id = payment_id.map(PaymentId::uuid);
        event.after = facts;
        events::record(db, &[event]).await
    }

    /// Decides, and writes down what was decided.
    async fn go_on(&mut self, db: &mut PgConnection, means: &Means) -> Result<Step, Error> {
        let (customer_id, now) = (self.customer_id, self.now);
        let standing = self.standing(db, means).await?;
        match rules::decide(&standing, now) {
            Decision::Rest => {
                let line = Some(self.setting.threshold);
                tokens::set_top_up(db, customer_id, line, None, now).await?;
                store::set_look(db, customer_id, None, None).await?;
                Ok(Step::Done)
            }
            Decision::Wait(until) => {
                store::set_look(db, customer_id, standing.since, Some(until)).await?;
                Ok(Step::Done)
            }
            Decision::SwitchOff(why) => {
                self.switch_off(db, why).await?;
                store::set_look(db, customer_id, None, None).await?;
                Ok(Step::Done)
            }
            Decision::Buy(asked_at) => self.order(db, means, asked_at).await,
        }
    }

    /// Writes an order down; first the failed one before it must be beyond being paid.
    async fn order(
        &self,
        db: &mut PgConnection,
        means: &Means,
        asked_at: DateTime<Utc>,
    ) -> Result<Step, Error> {
        let (customer_id, now) = (self.customer_id, self.now);
        let next_look = Some(now + PENDING_LOOK);
        if let (Some(last), Some(glance)) = (&self.last, &self.glance)
            && glance.status == PaymentStatus::Failed
            && glance.has_object
        {
            store::set_look(db, customer_id, Some(asked_at), next_look).await?;
            return Ok(Step::Cancel(last.payment_id));
        }
        let (Some(plan), Some(method)) = (&means.plan, &means.method) else {
            return Err(Error::Bug("bought without a plan or a method"));
        };
        let order = Order {
            asked_at,
            payment_id: PaymentId::new(now),
            method_id: method.id,
            plan_id: plan.id,
            plan_version: plan.version,
            amount: plan.price,
            is_paid: false,
            created_at: now,
            concluded_at: None,
        };
        if !store::insert_order(db, customer_id, &order).await? {
            return Err(Error::Bug("a gap was answered twice"));
        }
        let line = Some(self.setting.threshold);
        tokens::set_top_up(db, customer_id, line, Some(asked_at), now).await?;
        store::set_look(db, customer_id, Some(asked_at), next_look).await?;
        Ok(Step::Charge(order))
    }

    /// Reads what the decision rests on; the account's lock is taken last.
    async fn standing(&self, db: &mut PgConnection, means: &Means) -> Result<Standing, Error> {
        let customer_id = self.customer_id;
        let setting = &self.setting;
        let period = Period::read(db, customer_id, setting, self.now).await?;
        let has_dispute = payments::has_open_dispute(db, customer_id).await?;
        let need = tokens::top_up_need(db, customer_id, self.now).await?;
        Ok(Standing {
            line: setting.threshold,
            available: need.available,
            since: need.since,
            is_spendable: need.is_spendable,
            is_blocked: has_dispute || need.has_debt,
            has_method: means.method.is_some(),
            price: means.plan.as_ref().map(|plan| plan.price),
            agreed: setting.price,
            limits: setting.limits,
            bought: period.bought,
            period_ends_at: period.frees_at,
            last: self.last.as_ref().map(|order| Last {
                asked_at: order.asked_at,
                concluded_at: order.concluded_at,
                is_paid: order.is_paid,
            }),
        })
    }
}

/// The time to which the limits apply, and what was bought in it.
pub(super) struct Period {
    /// Its start.
    pub(super) starts_at: DateTime<Utc>,
    /// When something may be bought again once the limits are reached.
    pub(super) frees_at: DateTime<Utc>,
    /// What was bought in it.
    pub(super) bought: Bought,
}

impl Period {
    /// The subscription's period that runs, or else the last thirty days.
    pub(super) async fn read(
        db: &mut PgConnection,
        customer_id: CustomerId,
        setting: &Setting,
        now: DateTime<Utc>,
    ) -> Result<Self, Error> {
        let currency = setting.price.currency;
        if let Some((starts_at, ends_at)) =
            subscriptions::running_period(db, customer_id, now).await?
        {
            let from = starts_at - Duration::microseconds(1);
            let (bought, _) = store::bought(db, customer_id, from, currency).await?;
            return Ok(Self { starts_at, frees_at: ends_at, bought });
        }
        let starts_at = now - rules::ROLLING_PERIOD;
        let (bought, first_at) = store::bought(db, customer_id, starts_at, currency).await?;
        let frees_at = first_at.unwrap_or(now) + rules::ROLLING_PERIOD;
        Ok(Self { starts_at, frees_at, bought })
    }
}

/// Charges an order's payment; false where nothing more can be done now.
async fn charge(app: &App, customer_id: CustomerId, order: &Order) -> Result<bool, Error> {
    let charge = Charge {
        customer_id,
        payment_id: order.payment_id,
        plan_id: order.plan_id,
        plan_version: order.plan_version,
        method_id: order.method_id,
    };
    match payments::charge_saved(app, &charge).await {
        Ok(_) => Ok(true),
        Err(Error::NotFound("payment method")) => end_unmade(app, customer_id, order).await,
        Err(error) => Err(error),
    }
}

/// Ends an order whose method was removed before its payment was made. A payment that was made
/// goes on: the gateway knows whether it can be charged.
async fn end_unmade(app: &App, customer_id: CustomerId, order: &Order) -> Result<bool, Error> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    customers::lock(&mut tx, customer_id).await?;
    let made = payments::glance(&mut tx, customer_id, order.payment_id).await?;
    if made.is_some() {
        return Ok(false);
    }
    store::conclude(&mut tx, customer_id, order, Some("payment_method_gone"), now).await?;
    tx.commit().await?;
    Ok(true)
}
