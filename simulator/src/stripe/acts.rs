//! What payers, their banks and the merchant's dashboard do at Stripe, for tests and the control API.

use std::sync::Arc;
use std::time::Duration;

use super::disputes::{self, DisputeOutcome};
use super::{confirm, refunds, sessions, setups};
use crate::acts::Refusal;
use crate::world::{Cause, Core, Turn};
use crate::{Simulator, paypal, stripe};

/// How late the end of a session may be noticed when nobody looks at it.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Ends what time ends, although nobody asks.
pub(crate) async fn watch(core: Arc<Core>) {
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        let now = core.clock.now().timestamp();
        let is_due = sessions::due(&core.world().stripe, now).next().is_some();
        if is_due {
            core.turn(Cause::default(), sessions::expire_due);
        }
    }
}

impl Core {
    /// Does something at Stripe that no call of its API asked for.
    pub(super) fn act<T>(
        &self,
        act: impl FnOnce(&mut Turn<'_>) -> Result<T, stripe::StripeError>,
    ) -> Result<T, Refusal> {
        self.turn(Cause::default(), |turn| Ok(act(turn)?))
    }

    /// Moves the clock, and ends what is over by then.
    pub(crate) fn advance(&self, by: chrono::TimeDelta) {
        self.clock.advance(by);
        self.turn(Cause::default(), |turn| {
            sessions::expire_due(turn);
            paypal::reverse_late_approvals(turn);
        });
    }
}

/// Tries a method on a setup intent; gives its status.
pub(super) fn set_up(
    turn: &mut Turn<'_>,
    id: &str,
    method: &str,
) -> Result<String, stripe::StripeError> {
    let payment_method = Some(method.to_owned());
    setups::confirm(turn, id, &confirm::Attempt { payment_method, ..Default::default() })?;
    Ok(setups::find(&turn.world.stripe, id)?.status.as_str().to_owned())
}

/// Answers the bank's question about a setup intent; gives its status.
pub(super) fn prove(
    turn: &mut Turn<'_>,
    id: &str,
    is_proven: bool,
) -> Result<String, stripe::StripeError> {
    setups::authenticate(turn, id, is_proven)?;
    Ok(setups::find(&turn.world.stripe, id)?.status.as_str().to_owned())
}

impl Simulator {
    /// Keeps a card as the payer does on a setup intent's page; gives the setup intent's status.
    pub fn setup_stripe(
        &self,
        setup_intent_id: &str,
        payment_method: &str,
    ) -> Result<String, Refusal> {
        self.inner.core.act(|turn| set_up(turn, setup_intent_id, payment_method))
    }

    /// Answers the bank's question about a setup intent; gives its status.
    pub fn authenticate_stripe_setup(
        &self,
        setup_intent_id: &str,
        success: bool,
    ) -> Result<String, Refusal> {
        self.inner.core.act(|turn| prove(turn, setup_intent_id, success))
    }

    /// Pays, or keeps a card, as the payer does on a checkout session's page.
    ///
    /// Gives the status of the session's intent: `processing` with a bank that answers later, to be
    /// ended by [`Simulator::settle_stripe`].
    pub fn pay_stripe_session(
        &self,
        session_id: &str,
        payment_method: &str,
    ) -> Result<String, Refusal> {
        self.inner.core.act(|turn| sessions::pay(turn, session_id, payment_method))
    }

    /// Answers the bank's question on a checkout session's page; gives the intent's status.
    pub fn authenticate_stripe_session(
        &self,
        session_id: &str,
        success: bool,
    ) -> Result<String, Refusal> {
        self.inner.core.act(|turn| sessions::authenticate(turn, session_id, success))
    }

    /// Ends an open checkout session as time does; its intent is cancelled with it.
    pub fn expire_stripe_session(&self, session_id: &str) -> Result<(), Refusal> {
        self.inner.core.act(|turn| sessions::expire(turn, session_id))
    }

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
