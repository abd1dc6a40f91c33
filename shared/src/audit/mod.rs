//! What operators did: written before it is done, never changed.

mod store;

use crate::App;
use crate::error::Error;

/// One deed of an operator.
#[derive(Debug, Clone)]
pub struct Deed<'a> {
    /// Who: `key:<api key id>`.
    pub actor: &'a str,
    /// What: `payment.refund`.
    pub action: &'static str,
    /// To what: its id.
    pub subject: String,
    /// Why, in his words.
    pub reason: &'a str,
    /// What was asked for.
    pub asked: serde_json::Value,
    /// The request it came with.
    pub request_id: Option<&'a str>,
}

/// Writes a deed down. It is written first, so that nothing is done unrecorded.
pub async fn record(app: &App, deed: &Deed<'_>) -> Result<(), Error> {
    Ok(store::insert(&app.db, deed, app.clock.now()).await?)
}
