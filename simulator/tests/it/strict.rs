//! Our objects, read by the strict types of the client that the product uses.

use serde_json::{Value, json};
use stripe::{Client, ClientBuilder, RequestStrategy, StripeError};
use stripe_client_core::{RequestBuilder, StripeMethod};
use stripe_core::customer::{CreateCustomer, DeleteCustomer, ListCustomer, RetrieveCustomer};
use stripe_core::dispute::{CloseDispute, ListDispute, RetrieveDispute};
use stripe_core::payment_intent::{
    CancelPaymentIntent, ConfirmPaymentIntent, CreatePaymentIntent, ListPaymentIntent,
    RetrievePaymentIntent,
};
use stripe_core::refund::{CreateRefund, ListRefund, RetrieveRefund};
use stripe_core::setup_intent::{CreateSetupIntent, RetrieveSetupIntent};
use stripe_core::{PaymentIntent, PaymentIntentStatus, SetupIntentStatus};
use stripe_shared::{CheckoutSession, DisputeStatus, PaymentMethod, SetupIntent};
use stripe_types::Currency;

use crate::kit::Kit;

fn client(kit: &Kit) -> Client {
    ClientBuilder::new("sk_test_simulator")
        .url(kit.simulator.stripe_url())
        .request_strategy(RequestStrategy::Once)
        .build()
        .unwrap()
}

fn metadata() -> std::collections::HashMap<String, String> {
    [("payment_id".to_owned(), "payment-1".to_owned())].into()
}

async fn create(client: &Client) -> PaymentIntent {
    let request = CreatePaymentIntent::new(1099, Currency::USD)
        .metadata(metadata())
        .description("Starter")
        .automatic_payment_methods(
            stripe_core::payment_intent::CreatePaymentIntentAutomaticPaymentMethods::new(true),
        );
    request.send(client).await.unwrap()
}

fn everything() -> Vec<String> {
    ["latest_charge", "customer", "payment_method"].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn an_intent_is_read_in_every_state_with_all_it_can_expand() {
    let kit = Kit::start().await;
    let client = client(&kit);
    let customer = CreateCustomer::new().email("jenny@example.com").send(&client).await.unwrap();
    let request = CreatePaymentIntent::new(1099, Currency::USD)
        .customer(customer.id.as_str())
        .setup_future_usage(stripe_core::PaymentIntentSetupFutureUsage::OffSession);
    let intent = request.send(&client).await.unwrap();
    assert_eq!(intent.status, PaymentIntentStatus::RequiresPaymentMethod);
    let read = || RetrievePaymentIntent::new(intent.id.clone()).expand(everything());

    kit.simulator.pay_stripe(intent.id.as_str(), "pm_card_chargeDeclined").unwrap_err();
    let declined = read().send(&client).await.unwrap();
    kit.simulator.pay_stripe(intent.id.as_str(), "4000002500003155").unwrap();
    let asked = read().send(&client).await.unwrap();
    kit.simulator.authenticate_stripe(intent.id.as_str(), true).unwrap();
    let paid = read().send(&client).await.unwrap();

    assert!(declined.last_payment_error.is_some());
    assert_eq!(asked.status, PaymentIntentStatus::RequiresAction);
    assert!(asked.next_action.is_some());
    assert_eq!(paid.status, PaymentIntentStatus::Succeeded);
    assert_eq!(paid.amount_received, 1099);
    let charge = paid.latest_charge.unwrap();
    assert_eq!(charge.as_object().unwrap().amount_captured, 1099);
    assert!(paid.payment_method.unwrap().as_object().unwrap().card.is_some());
    let list = ListPaymentIntent::new().customer(customer.id.as_str()).send(&client).await;
    assert_eq!(list.unwrap().data.len(), 1);
}

#[tokio::test]
async fn a_confirmation_that_redirects_and_a_cancelled_intent_are_read() {
    let kit = Kit::start().await;
    let client = client(&kit);
    let intent = create(&client).await;

    let confirm = ConfirmPaymentIntent::new(intent.id.clone())
        .payment_method("pm_card_authenticationRequired")
        .return_url("https://shop.test/");
    let asked = confirm.send(&client).await.unwrap();
    let cancelled = CancelPaymentIntent::new(intent.id.clone()).send(&client).await.unwrap();

    let action = asked.next_action.unwrap();
    assert_eq!(action.redirect_to_url.unwrap().return_url.as_deref(), Some("https://shop.test/"));
    assert_eq!(cancelled.status, PaymentIntentStatus::Canceled);
}

#[tokio::test]
async fn a_decline_is_read_with_the_intent_in_it() {
    let kit = Kit::start().await;
    let client = client(&kit);
    let request = CreatePaymentIntent::new(1099, Currency::USD)
        .payment_method("pm_card_chargeDeclinedInsufficientFunds")
        .confirm(true)
        .return_url("https://shop.test/");

    let error = request.send(&client).await.unwrap_err();

    let StripeError::Stripe(error, status) = error else { panic!("{error}") };
    assert_eq!(status, 402);
    assert_eq!(error.decline_code.as_deref(), Some("insufficient_funds"));
    assert_eq!(error.payment_intent.unwrap().status, PaymentIntentStatus::RequiresPaymentMethod);
}

#[tokio::test]
async fn refunds_and_customers_are_read() {
    let kit = Kit::start().await;
    let client = client(&kit);
    let intent = create(&client).await;
    kit.simulator.pay_stripe(intent.id.as_str(), "pm_card_visa").unwrap();

    let refund = CreateRefund::new()
        .payment_intent(intent.id.as_str())
        .amount(400)
        .metadata(metadata())
        .expand(vec!["charge".to_owned(), "payment_intent".to_owned()])
        .send(&client)
        .await
        .unwrap();
    let read = RetrieveRefund::new(refund.id.clone()).send(&client).await.unwrap();
    kit.simulator.settle_stripe_refund(refund.id.as_str(), false).unwrap();
    let list = ListRefund::new().payment_intent(intent.id.as_str()).send(&client).await.unwrap();
    let customer = CreateCustomer::new().metadata(metadata()).send(&client).await.unwrap();
    RetrieveCustomer::new(customer.id.clone()).send(&client).await.unwrap();
    let customers = ListCustomer::new().send(&client).await.unwrap();
    DeleteCustomer::new(customer.id.clone()).send(&client).await.unwrap();
    RetrieveCustomer::new(customer.id.clone()).send(&client).await.unwrap();

    assert_eq!(refund.charge.unwrap().as_object().unwrap().amount_refunded, 400);
    assert_eq!(read.status.as_deref(), Some("succeeded"));
    assert_eq!(list.data[0].failure_reason.as_deref(), Some("expired_or_canceled_card"));
    assert_eq!(customers.data.len(), 1);
}

#[tokio::test]
async fn disputes_are_read_from_inquiry_to_loss() {
    let kit = Kit::start().await;
    let client = client(&kit);
    let intent = kit.paid_intent().await;
    let id = kit.simulator.open_stripe_dispute(&intent, true, None).unwrap();

    let expand = ["charge", "payment_intent"].map(str::to_owned).to_vec();
    let asked = RetrieveDispute::new(id.as_str()).expand(expand).send(&client).await.unwrap();
    kit.simulator.escalate_stripe_dispute(&id).unwrap();
    let listed = ListDispute::new().payment_intent(intent.as_str()).send(&client).await.unwrap();
    let lost = CloseDispute::new(id.as_str()).send(&client).await.unwrap();

    assert_eq!(asked.status, DisputeStatus::WarningNeedsResponse);
    assert!(asked.charge.as_object().unwrap().disputed);
    assert!(asked.payment_method_details.unwrap().card.is_some());
    assert_eq!(listed.data[0].balance_transactions[0].net, -1099 - 1500);
    assert_eq!(lost.status, DisputeStatus::Lost);
}

#[tokio::test]
async fn a_setup_intent_is_read_in_every_state() {
    let kit = Kit::start().await;
    let client = client(&kit);
    let customer = CreateCustomer::new().email("jenny@example.com").send(&client).await.unwrap();
    let request = CreateSetupIntent::new().customer(customer.id.as_str()).metadata(metadata());
    let setup = request.send(&client).await.unwrap();
    let id = setup.id.as_str();
    let expand = ["customer", "payment_method"].map(str::to_owned).to_vec();
    let read = || RetrieveSetupIntent::new(id).expand(expand.clone());

    kit.simulator.setup_stripe(id, "pm_card_chargeDeclined").unwrap_err();
    let refused = read().send(&client).await.unwrap();
    kit.simulator.setup_stripe(id, "4000002500003155").unwrap();
    let asked = read().send(&client).await.unwrap();
    kit.simulator.authenticate_stripe_setup(id, true).unwrap();
    let kept: SetupIntent = read().send(&client).await.unwrap();

    assert!(refused.last_setup_error.is_some());
    assert_eq!(asked.status, SetupIntentStatus::RequiresAction);
    assert!(asked.next_action.is_some());
    assert_eq!(kept.status, SetupIntentStatus::Succeeded);
    let method: &PaymentMethod = kept.payment_method.as_ref().unwrap().as_object().unwrap();
    assert!(method.card.is_some() && method.customer.is_some());
}

#[tokio::test]
async fn a_checkout_session_is_read_open_complete_and_expired() {
    let kit = Kit::start().await;
    let client = client(&kit);
    let form = [
        ("mode", "payment"),
        ("line_items[0][price_data][currency]", "usd"),
        ("line_items[0][price_data][unit_amount]", "1099"),
        ("line_items[0][price_data][product_data][name]", "Starter"),
        ("line_items[0][quantity]", "1"),
        ("success_url", "http://shop.test/done"),
        ("payment_intent_data[setup_future_usage]", "off_session"),
    ];
    let paid = kit.post("/v1/checkout/sessions", &form).await.id();
    let expired = kit.post("/v1/checkout/sessions", &form).await.id();
    let form = [("mode", "setup"), ("success_url", "http://shop.test/done")];
    let setup = kit.post("/v1/checkout/sessions", &form).await.id();
    let read = async |id: &str, expand: &str| {
        let query = std::collections::HashMap::from([("expand", vec![expand])]);
        let path = format!("/checkout/sessions/{id}");
        let request = RequestBuilder::new(StripeMethod::Get, path).query(&query);
        request.customize::<CheckoutSession>().send(&client).await.unwrap()
    };

    let open = read(&paid, "line_items").await;
    kit.simulator.pay_stripe_session(&paid, "pm_card_visa").unwrap();
    let done = read(&paid, "payment_intent.latest_charge").await;
    kit.simulator.expire_stripe_session(&expired).unwrap();
    let over = read(&expired, "customer").await;
    kit.simulator.pay_stripe_session(&setup, "pm_card_visa").unwrap();
    let kept = read(&setup, "setup_intent").await;

    assert_eq!(open.line_items.unwrap().data[0].amount_total, 1099);
    assert!(open.url.is_some() && open.payment_intent.is_none());
    assert_eq!(done.status.unwrap().as_str(), "complete");
    let intent = done.payment_intent.unwrap();
    assert!(intent.as_object().unwrap().latest_charge.as_ref().unwrap().as_object().is_some());
    assert!(done.customer_details.unwrap().email.is_some());
    assert_eq!(over.status.unwrap().as_str(), "expired");
    assert_eq!(kept.payment_status.as_str(), "no_payment_required");
    assert!(kept.setup_intent.unwrap().as_object().is_some());
}

/// Returns the names of all fields, with the paths to them.
fn fields(value: &Value, path: &str, found: &mut Vec<String>) {
    if let Value::Object(map) = value {
        for (name, value) in map {
            let path = format!("{path}.{name}");
            fields(value, &path, found);
            found.push(path);
        }
    }
}

#[tokio::test]
async fn events_have_the_fields_of_real_ones() {
    let kit = Kit::start().await;
    kit.intent().await;
    let event = kit.simulator.events().remove(0);
    let body: Value = serde_json::from_slice(&event.body).unwrap();

    let mut ours = Vec::new();
    fields(&body, "", &mut ours);

    // The fields of a `payment_intent.created` as recorded in Stripe's own fixtures.
    for name in [
        "api_version",
        "created",
        "id",
        "livemode",
        "object",
        "pending_webhooks",
        "request.id",
        "request.idempotency_key",
        "type",
    ] {
        assert!(ours.contains(&format!(".{name}")), "{name}");
    }
    for name in [
        "amount",
        "amount_capturable",
        "amount_details",
        "amount_received",
        "application",
        "application_fee_amount",
        "automatic_payment_methods",
        "canceled_at",
        "cancellation_reason",
        "capture_method",
        "client_secret",
        "confirmation_method",
        "created",
        "currency",
        "customer",
        "customer_account",
        "description",
        "excluded_payment_method_types",
        "id",
        "last_payment_error",
        "latest_charge",
        "livemode",
        "metadata",
        "next_action",
        "object",
        "on_behalf_of",
        "payment_method",
        "payment_method_configuration_details",
        "payment_method_options",
        "payment_method_types",
        "processing",
        "receipt_email",
        "review",
        "setup_future_usage",
        "shipping",
        "source",
        "statement_descriptor",
        "statement_descriptor_suffix",
        "status",
        "transfer_data",
        "transfer_group",
    ] {
        assert!(ours.contains(&format!(".data.object.{name}")), "{name}");
    }
    assert_eq!(body["request"]["idempotency_key"], json!(null));
}
