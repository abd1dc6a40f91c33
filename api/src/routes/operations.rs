//! Whether the process lives and can work.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use shared::db;

use crate::ApiState;
use crate::problem::Problem;

/// The process answers; the database is not asked.
pub(crate) async fn livez() -> (StatusCode, Json<serde_json::Value>) {
    (StatusCode::OK, Json(json!({ "status": "ok" })))
}

/// The database answers and has our schema; else 503.
pub(crate) async fn readyz(State(state): State<ApiState>) -> Response {
    if db::is_ready(&state.app.db).await {
        Json(json!({ "status": "ok" })).into_response()
    } else {
        Problem::unavailable().into_response()
    }
}
