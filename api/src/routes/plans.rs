//! What is sold.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use shared::plans::{self, Kind, Plan};

use crate::ApiState;
use crate::problem::Problem;

type Plans = Result<Json<Vec<Value>>, Problem>;

/// All plans.
pub(crate) async fn all(State(state): State<ApiState>) -> Plans {
    list(&state, Kind::All).await
}

/// Packs: tokens without a duration.
pub(crate) async fn token(State(state): State<ApiState>) -> Plans {
    list(&state, Kind::Token).await
}

/// Plans with a duration.
pub(crate) async fn full(State(state): State<ApiState>) -> Plans {
    list(&state, Kind::Full).await
}

async fn list(state: &ApiState, kind: Kind) -> Plans {
    Ok(Json(plans::list(&state.app, kind).await?.iter().map(body).collect()))
}

/// A plan on the wire.
pub(super) fn body(plan: &Plan) -> Value {
    json!({
        "id": plan.id,
        "name": plan.name,
        "description": plan.description,
        "price": plan.price.to_decimal().to_string(),
        "currency": plan.price.currency,
        "tokens_included": plan.tokens_included,
        "duration_days": plan.duration_days,
        "is_recurring": plan.is_recurring,
        "is_active": plan.is_active,
        "trial_days": plan.trial_days,
        "features": plan.features,
        "created_at": plan.created_at,
        "updated_at": plan.updated_at,
    })
}
