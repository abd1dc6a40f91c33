//! What payers, their banks and the merchant's dashboard do at Stripe, for tests and the control API.

use super::disputes::{self, DisputeOutcome};
use super::refunds;
use crate::acts::Refusal;
use crate::world::{Cause, Core, Turn};
use crate::{Simulator, stripe};

impl Core {
    /// Does something at Stripe that no call of its API asked for.
    pub(super) fn act<T>(
        &self,
        act: impl FnOnce(&mut Turn<'_>) -> Result<T, stripe::StripeError>,
    ) -> Result<T, Refusal> {
        self.turn(Cause::default(), |turn| Ok(act(turn)?))
    }
}

impl Simulator {
    /// Refunds an intent at the dashboard: the refund names nothing of ours. Gives its id.
    ///
    /// `amount` is in minor units; none: all that is left.
    pub fn refund_stripe(&self, intent_id: &str, amount: Option<i64>) -> Result<String, Refusal> {
        self.inner.core.act(|turn| refunds::at_dashboard(turn, intent_id, amount))
    }

    /// Takes back a refund that is `pending`; it becomes `canceled`.
    pub fn cancel_stripe_refund(&self, refund_id: &str) -> Result<(), Refusal> {
        self.inner.core.act(|turn| refunds::call_off(turn, refund_id))
    }

    /// Has the payer's bank contest an intent's or a charge's money; gives the dispute's id.
    ///
    /// An inquiry moves no money. `amount` is in minor units; none: all that was not refunded.
    pub fn open_stripe_dispute(
        &self,
        intent_or_charge: &str,
        inquiry: bool,
        amount: Option<i64>,
    ) -> Result<String, Refusal> {
        self.inner.core.act(|turn| disputes::open(turn, intent_or_charge, inquiry, amount))
    }

    /// Turns an open inquiry into a dispute that withdraws the money.
    pub fn escalate_stripe_dispute(&self, dispute_id: &str) -> Result<(), Refusal> {
        self.inner.core.act(|turn| disputes::escalate(turn, dispute_id))
    }

    /// Ends a dispute. An inquiry can only be `WarningClosed`, a dispute `Won` or `Lost`.
    pub fn settle_stripe_dispute(
        &self,
        dispute_id: &str,
        outcome: DisputeOutcome,
    ) -> Result<(), Refusal> {
        self.inner.core.act(|turn| disputes::settle(turn, dispute_id, outcome))
    }
}
