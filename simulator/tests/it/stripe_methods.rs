//! Cards kept for later payments at Stripe.

use serde_json::{Value, json};

use crate::kit::{Answer, Kit};

async fn customer(kit: &Kit) -> String {
    kit.post("/v1/customers", &[("email", "jenny@example.com")]).await.id()
}

async fn attach(kit: &Kit, customer: &str, card: &str) -> String {
    let path = format!("/v1/payment_methods/{card}/attach");
    kit.post(&path, &[("customer", customer)]).await.id()
}

/// Charges a saved method of a customer who is not there.
async fn renew(kit: &Kit, customer: &str, method: &str) -> Answer {
    let form = [
        ("amount", "1099"),
        ("currency", "usd"),
        ("customer", customer),
        ("payment_method", method),
        ("off_session", "true"),
        ("confirm", "true"),
    ];
    kit.post("/v1/payment_intents", &form).await
}

/// Returns the body of the latest event of a kind.
fn last(kit: &Kit, kind: &str) -> Value {
    let events = kit.simulator.events();
    let event = events.iter().rev().find(|event| event.kind == kind).unwrap();
    serde_json::from_slice(&event.body).unwrap()
}

#[tokio::test]
async fn a_first_payment_keeps_its_card_for_the_customer_and_says_so() {
    let kit = Kit::start().await;
    let customer = customer(&kit).await;
    let form = [
        ("amount", "1099"),
        ("currency", "usd"),
        ("customer", customer.as_str()),
        ("setup_future_usage", "off_session"),
    ];
    let first = kit.post("/v1/payment_intents", &form).await.id();

    kit.simulator.pay_stripe(&first, "pm_card_visa").unwrap();

    let attached = last(&kit, "payment_method.attached");
    assert_eq!(attached["data"]["object"]["customer"], customer.as_str());
    let method = attached["data"]["object"]["id"].as_str().unwrap();
    assert_eq!(renew(&kit, &customer, method).await.body["status"], "succeeded");
    let told = kit.kinds().into_iter().filter(|kind| kind == "payment_method.attached").count();
    assert_eq!(told, 1, "a card that is kept already is not attached again");
}

#[tokio::test]
async fn a_refused_renewal_says_why_and_whether_to_try_again() {
    let kit = Kit::start().await;
    let customer = customer(&kit).await;
    let cases = [
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds", "try_again_later"),
        ("pm_card_visa_chargeDeclinedLostCard", "lost_card", "do_not_try_again"),
        ("pm_card_visa_chargeDeclinedStolenCard", "stolen_card", "do_not_try_again"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", "do_not_try_again"),
        ("pm_card_chargeCustomerFail", "generic_decline", "try_again_later"),
    ];

    for (card, reason, advice) in cases {
        let method = attach(&kit, &customer, card).await;
        let refused = renew(&kit, &customer, &method).await;
        let error = &refused.body["error"];
        assert_eq!((refused.status, error["type"].as_str()), (402, Some("card_error")), "{card}");
        assert_eq!(error["decline_code"], reason);
        assert_eq!(error["advice_code"], advice);
        assert_eq!(error["payment_intent"]["status"], "requires_payment_method");
        let told = last(&kit, "payment_intent.payment_failed");
        assert_eq!(told["data"]["object"]["id"], error["payment_intent"]["id"]);
    }
}

#[tokio::test]
async fn a_card_taken_from_its_customer_pays_no_more() {
    let kit = Kit::start().await;
    let customer = customer(&kit).await;
    let method = attach(&kit, &customer, "pm_card_visa").await;
    let default = [("invoice_settings[default_payment_method]", method.as_str())];
    kit.post(&format!("/v1/customers/{customer}"), &default).await;

    let detached = kit.post(&format!("/v1/payment_methods/{method}/detach"), &[]).await;
    let again = kit.post(&format!("/v1/payment_methods/{method}/detach"), &[]).await;
    let refused = renew(&kit, &customer, &method).await;
    let back = format!("/v1/payment_methods/{method}/attach");
    let back = kit.post(&back, &[("customer", customer.as_str())]).await;

    assert_eq!(detached.body["customer"], Value::Null);
    assert_eq!((again.status, refused.status, back.status), (400, 400, 400));
    let told = last(&kit, "payment_method.detached");
    assert_eq!(told["data"]["previous_attributes"], json!({ "customer": customer }));
    let read = kit.get(&format!("/v1/customers/{customer}")).await;
    assert_eq!(read.body["invoice_settings"]["default_payment_method"], Value::Null);
}

#[tokio::test]
async fn the_card_and_the_open_intent_of_a_deleted_customer_pay_no_more() {
    let kit = Kit::start().await;
    let customer = customer(&kit).await;
    let method = attach(&kit, &customer, "pm_card_visa").await;
    let form = [("amount", "1099"), ("currency", "usd"), ("customer", customer.as_str())];
    let open = kit.post("/v1/payment_intents", &form).await.id();

    let path = format!("/v1/customers/{customer}");
    kit.send(kit.stripe_request("DELETE", &path)).await.unwrap();

    assert_eq!(renew(&kit, &customer, &method).await.code(), "resource_missing");
    assert_eq!(
        kit.simulator.pay_stripe(&open, "pm_card_visa").unwrap_err().code,
        "resource_missing"
    );
    assert!(kit.simulator.truth().iter().all(|truth| truth.captured_minor == 0));
}

#[tokio::test]
async fn another_customers_card_is_refused() {
    let kit = Kit::start().await;
    let (owner, other) = (customer(&kit).await, customer(&kit).await);
    let method = attach(&kit, &owner, "pm_card_visa").await;

    let refused = renew(&kit, &other, &method).await;
    let taken = format!("/v1/payment_methods/{method}/attach");
    let taken = kit.post(&taken, &[("customer", other.as_str())]).await;

    assert_eq!((refused.status, taken.status), (400, 400));
    assert_eq!(refused.body["error"]["param"], "payment_method");
}

#[tokio::test]
async fn a_customers_cards_are_listed_newest_first_at_both_addresses() {
    let kit = Kit::start().await;
    let customer = customer(&kit).await;
    let first = attach(&kit, &customer, "pm_card_visa").await;
    let second = attach(&kit, &customer, "pm_card_mastercard").await;

    let own = kit.get(&format!("/v1/customers/{customer}/payment_methods?type=card")).await;
    let all = kit.get(&format!("/v1/payment_methods?customer={customer}&limit=1")).await;
    let banks = kit.get(&format!("/v1/payment_methods?customer={customer}&type=sepa_debit")).await;
    let nobody = kit.get("/v1/payment_methods?customer=cus_x").await;
    let one = kit.get(&format!("/v1/customers/{customer}/payment_methods/{first}")).await;
    let wrong = kit.get(&format!("/v1/customers/cus_x/payment_methods/{first}")).await;

    assert_eq!(own.body["data"][0]["id"], second.as_str());
    assert_eq!(own.body["data"][1]["id"], first.as_str());
    assert_eq!(all.body["has_more"], true);
    assert_eq!(banks.body["data"], json!([]));
    assert_eq!(nobody.code(), "resource_missing");
    assert_eq!((one.id(), wrong.status), (first, 404));
}

#[tokio::test]
async fn a_kept_cards_metadata_can_be_changed() {
    let kit = Kit::start().await;
    let customer = customer(&kit).await;
    let method = attach(&kit, &customer, "pm_card_visa").await;

    let path = format!("/v1/payment_methods/{method}");
    let changed = kit.post(&path, &[("metadata[a]", "1")]).await;
    let unknown = kit.post(&path, &[("colour", "red")]).await;

    assert_eq!(changed.body["metadata"], json!({ "a": "1" }));
    assert_eq!(unknown.code(), "parameter_unknown");
    let told = last(&kit, "payment_method.updated");
    assert_eq!(told["data"]["previous_attributes"], json!({ "metadata": { "a": null } }));
}

#[tokio::test]
async fn customers_are_found_by_their_address() {
    let kit = Kit::start().await;
    let jenny = customer(&kit).await;
    kit.post("/v1/customers", &[("email", "tom@example.com")]).await;

    let found = kit.get("/v1/customers?email=jenny%40example.com").await;

    assert_eq!(found.body["data"].as_array().unwrap().len(), 1);
    assert_eq!(found.body["data"][0]["id"], jenny.as_str());
}

#[tokio::test]
async fn an_intent_at_the_bank_or_paid_cannot_be_cancelled_an_open_one_with_a_reason() {
    let kit = Kit::start().await;
    let (open, waiting) = (kit.intent().await.id(), kit.intent().await.id());
    let paid = kit.paid_intent().await;
    kit.simulator.pay_stripe(&waiting, "pm_usBankAccount_processing").unwrap();
    let cancel = async |id: &str| {
        let form = [("cancellation_reason", "abandoned")];
        kit.post(&format!("/v1/payment_intents/{id}/cancel"), &form).await
    };

    let (open, waiting, paid) = (cancel(&open).await, cancel(&waiting).await, cancel(&paid).await);

    assert_eq!(open.body["cancellation_reason"], "abandoned");
    assert_eq!(waiting.code(), "payment_intent_unexpected_state");
    assert_eq!(paid.code(), "payment_intent_unexpected_state");
    assert_eq!(paid.body["error"]["payment_intent"]["status"], "succeeded");
}

#[tokio::test]
async fn intents_are_listed_by_when_they_were_made() {
    let kit = Kit::start().await;
    let first = kit.intent().await;
    kit.simulator.advance_clock(chrono::TimeDelta::seconds(60));
    let second = kit.intent().await;
    let cut = first.body["created"].as_i64().unwrap() + 30;

    let later = kit.get(&format!("/v1/payment_intents?created[gte]={cut}")).await;
    let earlier = kit.get(&format!("/v1/payment_intents?created[lt]={cut}&limit=5")).await;

    assert_eq!(later.body["data"][0]["id"], second.id().as_str());
    assert_eq!(earlier.body["data"][0]["id"], first.id().as_str());
    assert_eq!(earlier.body["data"].as_array().unwrap().len(), 1);
}
