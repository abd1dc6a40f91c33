//! PayPal's refunds in our words: made once, found again, read (Payments v2).

use chrono::{DateTime, Duration, Utc};
use serde::Deserialize;
use serde_json::json;

use super::PayPal;
use super::links::{self, Link, is_id};
use super::money::Amount;
use super::orders::{self, CAPTURES, Capture, Details, Order, Payee};
use crate::gateways::{
    CaptureRef, DisputeKind, DisputeStage, DisputeState, GatewayError, RefundRequest, RefundState,
    RefundStatus,
};

/// PayPal keeps a refund's request id for 45 days; five of them are for clocks and slow queues.
const REQUEST_ID_LIFE: Duration = Duration::days(40);

#[derive(Deserialize)]
pub(super) struct Refund {
    id: String,
    status: String,
    status_details: Option<Details>,
    amount: Amount,
    custom_id: Option<String>,
    invoice_id: Option<String>,
    payer: Option<Payee>,
    #[serde(default)]
    links: Vec<Link>,
}

impl Refund {
    /// The refund of ours that it names. PayPal copies the capture's ids to a refund made at its
    /// dashboard, so a custom id that is also the payment's says nothing.
    fn names_refund(&self, payment: Option<&str>) -> Option<String> {
        let named = self.custom_id.as_deref()?;
        let invoice = self.invoice_id.as_deref().unwrap_or_default();
        let is_of_invoice = invoice
            .strip_prefix(named)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        let is_payments = payment == Some(named) || is_of_invoice;
        (!is_payments).then(|| named.to_owned())
    }

    /// Our words for it. `payment` is what its capture names, where that is known.
    fn into_state(
        self,
        known: &CaptureRef,
        payment: Option<&str>,
        merchant_id: Option<&str>,
    ) -> Result<RefundState, GatewayError> {
        let status = match self.status.as_str() {
            "COMPLETED" => RefundStatus::Succeeded,
            "PENDING" => RefundStatus::Pending,
            "FAILED" | "CANCELLED" => RefundStatus::Failed,
            other => return Err(GatewayError::Malformed(format!("refund status {other}"))),
        };
        if !is_id(&self.id) {
            return Err(GatewayError::Malformed("the refund's id".to_owned()));
        }
        let failure_code = (status == RefundStatus::Failed).then(|| {
            let reason = self.status_details.as_ref().and_then(|details| details.reason.clone());
            reason.unwrap_or_else(|| self.status.clone())
        });
        let capture_id = self.capture_id().or_else(|| known.capture_id.clone());
        Ok(RefundState {
            capture: CaptureRef { object_id: known.object_id.clone(), capture_id },
            amount: self.amount.money()?,
            status,
            names_refund: self.names_refund(payment),
            is_ours: orders::is_us(self.payer.as_ref(), merchant_id),
            failure_code,
            id: self.id,
        })
    }

    /// The capture it refunds, from its link upwards.
    fn capture_id(&self) -> Option<String> {
        links::id_upwards(&self.links, CAPTURES)
    }
}

impl PayPal {
    /// Sends money back, once: a repeat that PayPal may have forgotten, or that it refuses because
    /// there is too little left, first looks for the refund that names ours.
    pub(super) async fn make_refund(
        &self,
        request: &RefundRequest,
        now: DateTime<Utc>,
    ) -> Result<RefundState, GatewayError> {
        if now - request.first_asked_at > REQUEST_ID_LIFE
            && let Some(made) = self.find_refund(request).await?
        {
            return Ok(made);
        }
        let capture = CaptureRef {
            object_id: request.capture.object_id.clone(),
            capture_id: Some(self.capture_to_refund(&request.capture).await?),
        };
        let path =
            format!("{CAPTURES}{}/refund", capture.capture_id.as_deref().unwrap_or_default());
        let body = json!({
            "amount": Amount::of(request.amount)?,
            "custom_id": request.refund_id.to_string(),
            "note_to_payer": "Refund",
        });
        let key = format!("refund-{}", request.refund_id);
        let payment = request.payment_id.to_string();
        match self.api.post::<Refund>(&path, &key, &body).await.map_err(GatewayError::from) {
            Ok(refund) => {
                let merchant_id = self.merchant_id.as_deref();
                let mut made = refund.into_state(&capture, Some(&payment), merchant_id)?;
                // The answer to our own key is our refund, even where it does not repeat the id.
                made.names_refund.get_or_insert_with(|| request.refund_id.to_string());
                Ok(made)
            }
            Err(GatewayError::Refused { code }) if may_be_made(&code) => {
                self.find_refund(request).await?.ok_or(GatewayError::Refused { code })
            }
            Err(error) => Err(error),
        }
    }

    async fn capture_to_refund(&self, capture: &CaptureRef) -> Result<String, GatewayError> {
        if let Some(id) = &capture.capture_id {
            return is_id(id).then(|| id.clone()).ok_or(GatewayError::NotFound);
        }
        let object_id = capture.object_id.as_deref().ok_or(GatewayError::NotFound)?;
        let order: Order = self.read_order(object_id).await?;
        let code = "NOTHING_CAPTURED".to_owned();
        order.capture_id().ok_or(GatewayError::Refused { code })
    }

    async fn find_refund(
        &self,
        request: &RefundRequest,
    ) -> Result<Option<RefundState>, GatewayError> {
        let ours = request.refund_id.to_string();
        let refunds = self.list_refunds(&request.capture).await?;
        Ok(refunds.into_iter().find(|refund| refund.names_refund.as_ref() == Some(&ours)))
    }

    /// All refunds that the capture's order shows.
    pub(super) async fn list_refunds(
        &self,
        capture: &CaptureRef,
    ) -> Result<Vec<RefundState>, GatewayError> {
        let order_id = match (&capture.object_id, &capture.capture_id) {
            (Some(id), _) => id.clone(),
            (None, Some(id)) => self.order_of(id).await?,
            (None, None) => return Err(GatewayError::NotFound),
        };
        let order: Order = self.read_order(&order_id).await?;
        let (object_id, payment, refunds) = order.into_refunds();
        let known =
            CaptureRef { object_id: Some(object_id), capture_id: capture.capture_id.clone() };
        let is_of_it = |refund: &Refund| {
            let named = refund.capture_id();
            capture.capture_id.is_none() || named.is_none() || named == capture.capture_id
        };
        let refunds = refunds.into_iter().filter(is_of_it);
        refunds
            .map(|refund| {
                refund.into_state(&known, payment.as_deref(), self.merchant_id.as_deref())
            })
            .collect()
    }

    /// Where a refund stands.
    pub(super) async fn read_refund(&self, id: &str) -> Result<RefundState, GatewayError> {
        let refund: Refund = self.api.get(&refund_path(id)?).await?;
        let capture_id = refund.capture_id();
        // Without an invoice only the capture tells whether the id is the refund's own.
        let capture = match &capture_id {
            Some(capture_id) if refund.custom_id.is_some() && refund.invoice_id.is_none() => {
                Some(self.read_capture(capture_id).await?)
            }
            Some(_) | None => None,
        };
        let payment = capture.as_ref().and_then(|capture| capture.custom_id.clone());
        let object_id = capture.as_ref().and_then(Capture::order_id);
        let known = CaptureRef { object_id, capture_id };
        refund.into_state(&known, payment.as_deref(), self.merchant_id.as_deref())
    }

    /// Money that was taken back: its resource is shaped as a refund. Where PayPal does not show
    /// it as one, the capture must say that its money is gone.
    pub(super) async fn read_reversal(
        &self,
        id: &str,
        capture_id: &str,
    ) -> Result<DisputeState, GatewayError> {
        let (amount, is_ours) = match self.api.get::<Refund>(&refund_path(id)?).await {
            Ok(refund) => {
                // A forged event may name a refund of ours, whose money is counted already.
                let is_refund_of_ours = refund.names_refund(None).is_some();
                let is_of_another = refund.capture_id().is_some_and(|named| named != capture_id);
                if is_refund_of_ours || is_of_another {
                    return Err(GatewayError::NotFound);
                }
                let is_ours = orders::is_us(refund.payer.as_ref(), self.merchant_id.as_deref());
                (refund.amount.money()?, is_ours)
            }
            Err(GatewayError::NotFound) => {
                let capture = self.read_capture(capture_id).await?;
                if !matches!(capture.status.as_str(), "REFUNDED" | "REVERSED") {
                    return Err(GatewayError::NotFound);
                }
                (capture.amount.money()?, capture.is_ours(self.merchant_id.as_deref()))
            }
            Err(error) => return Err(error),
        };
        Ok(DisputeState {
            id: id.to_owned(),
            kind: DisputeKind::Reversal,
            capture: CaptureRef { object_id: None, capture_id: Some(capture_id.to_owned()) },
            amount,
            stage: DisputeStage::Lost,
            is_ours,
            reason: None,
        })
    }
}

fn refund_path(id: &str) -> Result<String, GatewayError> {
    if !is_id(id) {
        return Err(GatewayError::NotFound);
    }
    Ok(format!("/v2/payments/refunds/{id}"))
}

/// Whether PayPal may refuse with this issue because the refund was made before.
fn may_be_made(code: &str) -> bool {
    matches!(
        code,
        "CAPTURE_FULLY_REFUNDED"
            | "REFUND_AMOUNT_EXCEEDED"
            | "REFUND_IS_RESTRICTED"
            | "DUPLICATE_INVOICE_ID"
            | "DUPLICATE_TRANSACTION"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUNDED: &str =
        include_str!("../../../../tests/vectors/paypal_events/payment.capture.refunded.json");

    fn refund() -> serde_json::Value {
        let event: serde_json::Value = serde_json::from_str(REFUNDED).unwrap();
        event["resource"].clone()
    }

    fn state(refund: serde_json::Value) -> Result<RefundState, GatewayError> {
        let refund: Refund = serde_json::from_value(refund).unwrap();
        refund.into_state(&CaptureRef::default(), None, None)
    }

    #[test]
    fn the_capture_is_known_by_the_link_upwards() {
        let state = state(refund()).unwrap();
        assert_eq!(state.capture.capture_id.as_deref(), Some("2GG279541U471931P"));
        assert_eq!(state.amount.minor, 1_099);
        assert_eq!(state.status, RefundStatus::Succeeded);
    }

    #[test]
    fn a_copied_payment_id_names_no_refund() {
        let mut refund = refund();
        assert_eq!(state(refund.clone()).unwrap().names_refund, None, "as the vector has it");

        refund["invoice_id"] = "{{PAYMENT_ID}}-2".into();
        assert_eq!(state(refund.clone()).unwrap().names_refund, None, "of a second attempt");

        refund["custom_id"] = "{{REFUND_ID}}".into();
        assert_eq!(state(refund).unwrap().names_refund.as_deref(), Some("{{REFUND_ID}}"));
    }

    #[test]
    fn failed_and_cancelled_refunds_leave_the_money_with_us() {
        for status in ["FAILED", "CANCELLED"] {
            let mut refund = refund();
            refund["status"] = status.into();
            let state = state(refund).unwrap();
            assert_eq!(state.status, RefundStatus::Failed);
            assert_eq!(state.failure_code.as_deref(), Some(status));
        }
        let mut refund = refund();
        refund["status"] = "NEW".into();
        assert!(state(refund).is_err());
    }
}
