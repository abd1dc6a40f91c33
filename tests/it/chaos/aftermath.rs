//! What becomes of captured money: refunds by operators and at the gateways, disputes, reversals.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use simulator::{
    DisputeOutcome, Gateway, PayPalDisputeOutcome, PayPalRefundOutcome, Refusal, Truth,
};

use super::dice::Dice;
use super::world::World;

/// What becomes of a capture.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Stays,
    OperatorRefunds(Option<u64>),
    OperatorRefundsTwice,
    DashboardRefunds(Option<u64>),
    BothRefund,
    RefundFailsAtLast,
    Contested(End),
    AskedAbout,
    Reversed,
}

/// How a dispute ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Won,
    Lost,
    Open,
}

const FATES: &[(u64, Fate)] = &[
    (40, Fate::Stays),
    (9, Fate::OperatorRefunds(None)),
    (12, Fate::OperatorRefunds(Some(30))),
    (4, Fate::OperatorRefundsTwice),
    (5, Fate::DashboardRefunds(None)),
    (6, Fate::DashboardRefunds(Some(40))),
    (4, Fate::BothRefund),
    (3, Fate::RefundFailsAtLast),
    (4, Fate::Contested(End::Won)),
    (4, Fate::Contested(End::Lost)),
    (3, Fate::Contested(End::Open)),
    (3, Fate::AskedAbout),
    (3, Fate::Reversed),
];

/// One captured object, and what is done to it.
pub(super) struct Aftermath {
    pub(super) world: Arc<World>,
    pub(super) truth: Truth,
    pub(super) dice: Dice,
}

impl Aftermath {
    /// Lets its fate happen.
    pub(super) async fn happen(mut self) {
        let fate = self.dice.pick(FATES);
        match fate {
            Fate::Stays => {}
            Fate::OperatorRefunds(percent) => self.operate(percent, "a").await,
            Fate::OperatorRefundsTwice => {
                self.operate(Some(50), "a").await;
                self.operate(Some(50), "b").await;
            }
            Fate::DashboardRefunds(percent) => drop(self.at_dashboard(percent)),
            Fate::BothRefund => {
                tokio::join!(self.operate(Some(40), "a"), async {
                    drop(self.at_dashboard(Some(40)));
                });
            }
            Fate::RefundFailsAtLast => {
                if let Ok(refund) = self.at_dashboard(Some(60)) {
                    drop(self.end_refund(&refund, false));
                }
            }
            Fate::Contested(end) => self.contest(end),
            Fate::AskedAbout => self.ask_about(),
            Fate::Reversed => match self.truth.gateway {
                Gateway::PayPal => drop(self.world.app.simulator.reverse_paypal(self.capture())),
                Gateway::Stripe => self.contest(End::Lost),
            },
        }
    }

    fn capture(&self) -> &str {
        &self.truth.capture_ids[0]
    }

    fn part(&self, percent: Option<u64>) -> Option<i64> {
        percent.map(|percent| self.truth.captured_minor * i64::try_from(percent).unwrap() / 100)
    }

    /// An operator's refund, repeated with its key until it is answered.
    async fn operate(&self, percent: Option<u64>, key: &str) {
        let Some(payment_id) = self.truth.payment_id.clone() else { return };
        let choice =
            self.dice.clone().pick(&[(3, "proportional"), (1, "unused_only"), (1, "none")]);
        let amount = self.part(percent).map(|minor| format!("{}.{:02}", minor / 100, minor % 100));
        let body = json!({ "amount": amount, "reason": "asked for", "tokens": choice,
                           "idempotency_key": key });
        let url = self.world.app.url(&format!("admin/payments/{payment_id}/refund/"));
        for _ in 0..6 {
            let request = self.world.app.http.post(&url).bearer_auth(&self.world.operator);
            let Ok(answer) = request.json(&body).send().await else { continue };
            let status = answer.status();
            self.world.count(format!("operator's refund {status}"));
            let text = answer.json::<Value>().await.unwrap_or_default();
            assert_ne!(status, 500, "refund: {text}");
            if !status.is_server_error() {
                return;
            }
        }
    }

    fn at_dashboard(&self, percent: Option<u64>) -> Result<String, Refusal> {
        let simulator = &self.world.app.simulator;
        let minor = self.part(percent);
        match self.truth.gateway {
            Gateway::Stripe => simulator.refund_stripe(&self.truth.object_id, minor),
            Gateway::PayPal => simulator.refund_paypal(self.capture(), minor),
        }
    }

    fn end_refund(&self, refund: &str, success: bool) -> Result<(), Refusal> {
        let simulator = &self.world.app.simulator;
        match self.truth.gateway {
            Gateway::Stripe => simulator.settle_stripe_refund(refund, success),
            Gateway::PayPal => simulator.settle_paypal_refund(refund, success),
        }
    }

    fn open_dispute(&self, is_inquiry: bool) -> Result<String, Refusal> {
        let simulator = &self.world.app.simulator;
        match self.truth.gateway {
            Gateway::Stripe => {
                simulator.open_stripe_dispute(&self.truth.object_id, is_inquiry, None)
            }
            Gateway::PayPal => simulator.open_paypal_dispute(self.capture(), is_inquiry),
        }
    }

    /// At PayPal an inquiry always becomes a claim: its money counts as held from the first day.
    fn ask_about(&self) {
        if let Ok(dispute) = self.open_dispute(true)
            && self.truth.gateway == Gateway::PayPal
        {
            drop(self.world.app.simulator.escalate_paypal_dispute(&dispute));
        }
    }

    fn contest(&self, end: End) {
        let Ok(dispute) = self.open_dispute(false) else { return };
        if end == End::Open {
            return;
        }
        let simulator = &self.world.app.simulator;
        let is_won = end == End::Won;
        let ended = match self.truth.gateway {
            Gateway::Stripe => {
                let outcome = if is_won { DisputeOutcome::Won } else { DisputeOutcome::Lost };
                simulator.settle_stripe_dispute(&dispute, outcome)
            }
            Gateway::PayPal => {
                let outcome = if is_won {
                    PayPalDisputeOutcome::ResolvedSellerFavour
                } else {
                    PayPalDisputeOutcome::ResolvedBuyerFavour
                };
                simulator.settle_paypal_dispute(&dispute, outcome)
            }
        };
        drop(ended);
    }
}

/// Banks answer: whatever is under way at the gateways ends, well or badly.
pub(super) fn settle_all(world: &World, dice: &mut Dice) {
    let simulator = &world.app.simulator;
    for truth in simulator.truth() {
        if truth.gateway == Gateway::Stripe && truth.status == "processing" {
            drop(simulator.settle_stripe(&truth.object_id, dice.percent(60)));
        }
    }
    let events = simulator.events();
    let of = |kinds: &[&str]| -> BTreeSet<String> {
        let events = events.iter().filter(|event| kinds.contains(&event.kind.as_str()));
        events.map(|event| event.object_id.clone()).collect()
    };
    for capture in of(&["PAYMENT.CAPTURE.PENDING"]) {
        drop(simulator.settle_paypal(&capture, dice.percent(60)));
    }
}

/// Refunds that pend end, well or badly.
pub(super) fn settle_refunds(world: &World, dice: &mut Dice) {
    let simulator = &world.app.simulator;
    let calls = simulator.calls();
    let made: BTreeSet<&String> = calls.iter().flat_map(|call| &call.effects).collect();
    for id in made.iter().filter(|id| id.starts_with("re_")) {
        // One that succeeded stays so.
        let is_paid = dice.percent(70);
        if is_paid {
            drop(simulator.settle_stripe_refund(id, true));
        } else {
            drop(simulator.cancel_stripe_refund(id));
        }
    }
    let events = simulator.events();
    for event in events.iter().filter(|event| event.kind == "PAYMENT.REFUND.PENDING") {
        drop(simulator.settle_paypal_refund(&event.object_id, dice.percent(70)));
    }
}

/// Lets some of PayPal's refunds begin badly.
pub(super) fn spoil_a_refund(world: &World, dice: &mut Dice) {
    let outcome = dice.pick(&[(1, PayPalRefundOutcome::Pending), (1, PayPalRefundOutcome::Failed)]);
    world.app.simulator.begin_next_paypal_refund(outcome);
}
