//! The customer's subscription.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use shared::methods;
use shared::subscriptions::{self, View};

use super::{plans, user};
use crate::ApiState;
use crate::extract::Customer;
use crate::problem::Problem;

/// The newest subscription; 404 for one who never had any.
pub(crate) async fn current(
    State(state): State<ApiState>,
    Customer(customer): Customer,
) -> Result<Json<Value>, Problem> {
    let view = subscriptions::current(&state.app, customer.id).await?;
    let is_on_file = methods::is_on_file(&state.app, customer.id).await?;
    Ok(Json(body(&view, is_on_file, state.app.clock.now())))
}

/// A subscription on the wire.
pub(super) fn body(view: &View, is_on_file: bool, now: DateTime<Utc>) -> Value {
    let renews_at = view
        .ends_at
        .filter(|_| view.is_active && view.plan.is_recurring && !view.cancel_at_period_end);
    json!({
        "id": view.id,
        "user": user(&view.external_id),
        "user_email": view.email,
        "plan_id": view.plan.id,
        "plan_name": view.plan.name,
        "plan_details": plans::body(&view.plan),
        "queued_plan": view.queued_plan.as_ref().map(plans::body),
        "status": view.status.as_str(),
        "is_active": view.is_active,
        "is_subscription_active": view.is_spendable,
        "start_date": view.starts_at,
        "end_date": view.ends_at,
        "days_remaining": view.ends_at.map(|end| (end - now).num_days().max(0)),
        "tokens_remaining": view.tokens_remaining,
        "tokens_held": 0,
        "tokens_included": view.plan.tokens_included,
        "trial_end": null,
        "cancel_at_period_end": view.cancel_at_period_end,
        "canceled_at": view.canceled_at,
        "renews_at": renews_at,
        "payment_method_on_file": is_on_file,
        "created_at": view.created_at,
        "updated_at": view.updated_at,
    })
}
