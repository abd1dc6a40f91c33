//! Booking money that arrived without a gateway.

use super::object::{heard, manual_object};
use super::{PaymentStatus, store};
use crate::App;
use crate::error::Error;
use crate::gateways::{Captured, GatewayName, ObjectFacts};
use crate::ids::PaymentId;

/// Books the whole amount of a manual payment as arrived, as an operator says. May be repeated.
///
/// Refused with a conflict for payments of a gateway: only the gateway says that they were paid.
pub async fn confirm(
    app: &App,
    payment_id: PaymentId,
    reference: Option<&str>,
) -> Result<PaymentStatus, Error> {
    let mut db = app.db.acquire().await?;
    let payment =
        store::find_by_id(&mut db, payment_id).await?.ok_or(Error::NotFound("payment"))?;
    drop(db);
    if payment.method.gateway() != GatewayName::Manual {
        return Err(Error::Conflict("only its gateway can say that it was paid".to_owned()));
    }
    match payment.status {
        PaymentStatus::Completed | PaymentStatus::Refunded => return Ok(payment.status),
        PaymentStatus::Cancelled => {
            return Err(Error::Conflict("the payment was cancelled".to_owned()));
        }
        PaymentStatus::Pending | PaymentStatus::Failed => {}
    }
    let captured = Captured {
        amount: payment.amount,
        capture_id: reference.map(|reference| format!("manual:{payment_id}:{reference}")),
        at: app.clock.now(),
    };
    let facts = ObjectFacts { captured: Some(captured), ..ObjectFacts::default() };
    let after = heard(app, &payment, &manual_object(&payment, facts)).await?;
    Ok(after.status)
}
