//! Reading balances and what was spent.

use chrono::{DateTime, Duration, Utc};
use serde_json::Value;

use super::consume::is_spendable;
use super::lot::Lot;
use super::reserve::{HoldState, HoldStatus};
use super::{Tokens, store};
use crate::App;
use crate::error::Error;
use crate::ids::{CustomerId, EntryId, SubscriptionId};

/// What a customer has, as it would be after booking what is due.
#[derive(Debug, Clone, Default)]
pub struct Balance {
    /// All tokens that have not expired.
    pub remaining: Tokens,
    /// What is free to spend.
    pub available: Tokens,
    /// Of what remains: reserved by open holds.
    pub held: Tokens,
    /// Of what remains: frozen by an open dispute.
    pub frozen: Tokens,
    /// What is owed after refunds and lost disputes of what was spent, and by overdraft.
    pub debt: Tokens,
    /// Whether a spend of one token would be let through.
    pub is_spendable: bool,
    /// Whether lots without end are left, which outlive the plan.
    pub has_lasting: bool,
    /// The lots, in the order in which they are drawn; those paid ahead last.
    pub lots: Vec<Lot>,
    /// The open holds, of the customer and of services.
    pub holds: Vec<OpenHoldOf>,
    /// When nothing is left if spending goes on as in the last seven days; `None`: nothing was
    /// spent, or the end is farther than the calendar reaches.
    pub runs_out_at: Option<DateTime<Utc>>,
}

/// An open hold, for lists.
#[derive(Debug, Clone)]
pub struct OpenHoldOf {
    /// Who made it.
    pub principal: String,
    /// How it stands.
    pub state: HoldState,
}

/// How far back the forecast looks: a week evens out days and nights and weekends.
const FORECAST: Duration = Duration::days(7);

/// The customer's balance at `now`; nothing for one who never had tokens.
pub async fn balance(app: &App, customer_id: CustomerId) -> Result<Balance, Error> {
    let now = app.clock.now();
    let mut db = app.db.acquire().await?;
    let loaded = store::batch::load(&mut db, &[customer_id]).await?.remove(&customer_id);
    let Some(mut account) = loaded else { return Ok(Balance::default()) };
    let used = store::used_before(&mut db, customer_id, now - FORECAST).await?;
    drop(db);
    account.book_due(now);
    let available = account.available(now);
    let has_lasting =
        account.lots.iter().any(|lot| lot.expires_at.is_none() && lot.remaining > Tokens::ZERO);
    let until = if has_lasting { None } else { account.spendable_until };
    let spent = account.used.beyond(used);
    let open = account.holds.iter().filter(|hold| hold.status == HoldStatus::Open);
    let holds = open
        .map(|hold| OpenHoldOf { principal: hold.principal.clone(), state: hold.state() })
        .collect();
    Ok(Balance {
        remaining: account.balance,
        available,
        held: account.held,
        frozen: account.frozen(),
        debt: account.debt,
        is_spendable: is_spendable(available, until, now),
        has_lasting,
        holds,
        runs_out_at: forecast(available, spent, now),
        lots: in_order(account.lots),
    })
}

/// Lots with something left: opened ones in the order in which they are drawn, then those to come.
fn in_order(mut lots: Vec<Lot>) -> Vec<Lot> {
    lots.retain(|lot| lot.remaining > Tokens::ZERO);
    lots.sort_by_key(|lot| (!lot.is_opened, lot.draw_order()));
    lots
}

/// When `available` is used up at the rate of `spent` in [`FORECAST`].
fn forecast(available: Tokens, spent: Tokens, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    if spent == Tokens::ZERO {
        return None;
    }
    let seconds = u128::from(available.0) * u128::from(FORECAST.num_seconds().unsigned_abs())
        / u128::from(spent.0);
    let lasts = Duration::try_seconds(i64::try_from(seconds).ok()?)?;
    now.checked_add_signed(lasts)
}

/// One spend, for lists.
#[derive(Debug, Clone)]
pub struct Usage {
    /// The entry.
    pub id: EntryId,
    /// The subscription at that time.
    pub subscription_id: Option<SubscriptionId>,
    /// The customer's address, where known.
    pub email: Option<String>,
    /// The plan's name at that time's subscription.
    pub plan_name: Option<String>,
    /// How many tokens.
    pub tokens: Tokens,
    /// The caller's words.
    pub description: String,
    /// The caller's own members.
    pub metadata: Value,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// The customer's newest spends, at most `limit`.
pub async fn list_usage(
    app: &App,
    customer_id: CustomerId,
    limit: i64,
) -> Result<Vec<Usage>, Error> {
    Ok(store::usage(&app.db, customer_id, limit).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_goes_on_as_the_last_week_went() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        assert_eq!(forecast(Tokens(100), Tokens::ZERO, now), None);
        assert_eq!(forecast(Tokens(100), Tokens(700), now), Some(now + Duration::days(1)));
        assert_eq!(forecast(Tokens::ZERO, Tokens(700), now), Some(now));
        assert_eq!(
            forecast(Tokens(1_000_000_000_000), Tokens(1), now),
            None,
            "beyond the calendar"
        );
    }
}
