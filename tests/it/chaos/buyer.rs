//! One customer of a run: buys, pays in one of many ways, spends, buys again.

use std::sync::Arc;

use harness::token;
use serde_json::{Value, json};
use simulator::{Funding, Gateway};

use super::dice::Dice;
use super::world::{World, gateway_of};

/// A request is repeated as often as this after answers that say nothing.
const TRIES: usize = 6;

/// What a payer does at Stripe.
#[derive(Debug, Clone, Copy)]
enum AtStripe {
    Pays(&'static str),
    IsDeclinedThenPays,
    IsDeclined,
    Proves,
    FailsToProveThenPays,
    PaysByBank,
    Leaves,
    CancelsWhilePaying,
    SwitchesWhilePaying,
}

/// What a payer does at PayPal.
#[derive(Debug, Clone, Copy)]
enum AtPayPal {
    Approves,
    IsDeclinedThenApproves,
    IsDeclined,
    ApprovesSlowMoney,
    ApprovesAndTakesBack,
    Leaves,
    CancelsWhileApproving,
}

const AT_STRIPE: &[(u64, AtStripe)] = &[
    (38, AtStripe::Pays("pm_card_visa")),
    (3, AtStripe::Pays("pm_card_createDispute")),
    (2, AtStripe::Pays("pm_card_createDisputeInquiry")),
    (4, AtStripe::Pays("pm_card_pendingRefund")),
    (4, AtStripe::Pays("pm_card_refundFail")),
    (9, AtStripe::IsDeclinedThenPays),
    (4, AtStripe::IsDeclined),
    (7, AtStripe::Proves),
    (4, AtStripe::FailsToProveThenPays),
    (8, AtStripe::PaysByBank),
    (6, AtStripe::Leaves),
    (6, AtStripe::CancelsWhilePaying),
    (5, AtStripe::SwitchesWhilePaying),
];

const AT_PAYPAL: &[(u64, AtPayPal)] = &[
    (52, AtPayPal::Approves),
    (9, AtPayPal::IsDeclinedThenApproves),
    (4, AtPayPal::IsDeclined),
    (12, AtPayPal::ApprovesSlowMoney),
    (5, AtPayPal::ApprovesAndTakesBack),
    (8, AtPayPal::Leaves),
    (10, AtPayPal::CancelsWhileApproving),
];

/// A customer.
pub(super) struct Buyer {
    pub(super) world: Arc<World>,
    pub(super) user: String,
    pub(super) dice: Dice,
    /// How many payments he opens.
    pub(super) quota: usize,
}

impl Buyer {
    /// Opens all his payments, and does something with each.
    pub(super) async fn live(mut self) {
        // A purchase that is refused, or answered with an open one, opens none.
        for _ in 0..self.quota * 20 {
            if self.payments().await >= self.quota {
                return;
            }
            self.visit().await;
        }
        panic!("{} could not open {} payments", self.user, self.quota);
    }

    async fn payments(&self) -> usize {
        let list = self.world.app.get(&self.user, "payments/").await;
        list.as_array().map_or(0, Vec::len)
    }

    async fn visit(&mut self) {
        let plan = self.dice.pick(&[(5, 1), (1, 2), (6, 3)]);
        let method = self.dice.pick(&[(1, "stripe"), (1, "paypal")]);
        let quantity = if plan == 3 { 1 + self.dice.below(3) } else { 1 };
        let body = json!({ "plan_id": plan, "payment_method": method, "quantity": quantity });
        let is_page = method == "stripe" && self.dice.percent(25);
        let path = if is_page { "stripe/checkout-session/" } else { "purchase/" };
        let Some(purchase) = self.ask(path, &body).await else { return };
        let object = purchase["transaction_id"].as_str().or(purchase["session_id"].as_str());
        if let Some(object) = object.map(str::to_owned) {
            match gateway_of(&object) {
                Gateway::Stripe => self.pay_stripe(&object, &purchase, &body).await,
                Gateway::PayPal => self.pay_paypal(&object, &purchase).await,
            }
        }
        if self.dice.percent(60) {
            let spend = json!({ "tokens": 1 + self.dice.below(400) });
            let _refused_or_not = self.ask("tokens/consume/", &spend).await;
        }
    }

    /// POSTs until there is an answer; `None`: refused, or never answered.
    async fn ask(&self, path: &str, body: &Value) -> Option<Value> {
        for _ in 0..TRIES {
            let request = self.world.app.http.post(self.world.app.url(path));
            let sent = request.bearer_auth(token(&self.user)).json(body).send().await;
            let Ok(answer) = sent else { continue };
            let status = answer.status();
            if status.is_success() {
                return answer.json().await.ok();
            }
            self.world.count(format!("{path} {status}").replace(&payment_of(path), "…"));
            assert_ne!(status, 500, "{path}: {}", answer.text().await.unwrap());
            if status.is_client_error() {
                return None;
            }
        }
        None
    }

    async fn pay_stripe(&mut self, object: &str, purchase: &Value, body: &Value) {
        let act = self.dice.pick(AT_STRIPE);
        let simulator = &self.world.app.simulator;
        let is_page = object.starts_with("cs_");
        let pay = |method: &str| {
            let paid = if is_page {
                simulator.pay_stripe_session(object, method)
            } else {
                simulator.pay_stripe(object, method)
            };
            // What a gateway refuses, such as paying twice, is part of life.
            drop(paid);
        };
        let prove = |success| {
            let proven = if is_page {
                simulator.authenticate_stripe_session(object, success)
            } else {
                simulator.authenticate_stripe(object, success)
            };
            drop(proven);
        };
        match act {
            AtStripe::Pays(method) => pay(method),
            AtStripe::IsDeclinedThenPays => {
                pay("pm_card_chargeDeclined");
                pay("pm_card_visa");
            }
            AtStripe::IsDeclined => pay("pm_card_visa_chargeDeclinedLostCard"),
            AtStripe::Proves => {
                pay("pm_card_authenticationRequired");
                prove(true);
            }
            AtStripe::FailsToProveThenPays => {
                pay("pm_card_authenticationRequired");
                prove(false);
                pay("pm_card_mastercard");
            }
            AtStripe::PaysByBank => pay("pm_usBankAccount_processing"),
            AtStripe::Leaves => {}
            AtStripe::CancelsWhilePaying => {
                tokio::join!(self.cancel(purchase), async { pay("pm_card_visa") });
            }
            AtStripe::SwitchesWhilePaying => {
                let path = if is_page { "purchase/" } else { "stripe/checkout-session/" };
                let (other, ()) = tokio::join!(self.ask(path, body), async { pay("pm_card_visa") });
                let other = other.unwrap_or_default();
                let id = other["transaction_id"].as_str().or(other["session_id"].as_str());
                match id {
                    Some(id) if id.starts_with("cs_") => {
                        drop(simulator.pay_stripe_session(id, "pm_card_visa"));
                    }
                    Some(id) => drop(simulator.pay_stripe(id, "pm_card_visa")),
                    None => {}
                }
            }
        }
    }

    async fn pay_paypal(&mut self, order: &str, purchase: &Value) {
        let act = self.dice.pick(AT_PAYPAL);
        let returns = self.dice.percent(50);
        let simulator = &self.world.app.simulator;
        let approve = |funding| drop(simulator.approve_paypal_with(order, funding));
        match act {
            AtPayPal::Approves => {
                approve(Funding::Instant);
                self.come_back(order, returns).await;
            }
            AtPayPal::IsDeclinedThenApproves => {
                approve(Funding::Declines);
                self.come_back(order, true).await;
                approve(Funding::Instant);
                self.come_back(order, returns).await;
            }
            AtPayPal::IsDeclined => {
                approve(Funding::Declines);
                self.come_back(order, returns).await;
            }
            AtPayPal::ApprovesSlowMoney => {
                approve(Funding::Pending);
                self.come_back(order, returns).await;
            }
            AtPayPal::ApprovesAndTakesBack => {
                approve(Funding::Instant);
                drop(simulator.reverse_paypal_approval(order));
            }
            AtPayPal::Leaves => {}
            AtPayPal::CancelsWhileApproving => {
                tokio::join!(self.cancel(purchase), async {
                    approve(Funding::Instant);
                    self.come_back(order, returns).await;
                });
            }
        }
    }

    /// The payer's browser, back from PayPal, unless it was closed.
    async fn come_back(&self, order: &str, returns: bool) {
        if returns {
            let url = self.world.app.url(&format!("paypal/return/?token={order}"));
            let _lost_or_not = self.world.app.http.get(url).send().await;
        }
    }

    async fn cancel(&self, purchase: &Value) {
        let id = purchase["payment_id"].as_str().unwrap();
        let _refused_or_not = self.ask(&format!("payments/{id}/cancel/"), &json!({})).await;
    }
}

/// The id in a path, so that reports do not name each payment.
fn payment_of(path: &str) -> String {
    let id = path.split('/').find(|part| part.len() == 36);
    id.unwrap_or("no payment").to_owned()
}
