//! `Idempotency-Key`, as gateways.md §1.5 has it.

use chrono::TimeDelta;
use simulator::{Fault, Trouble};

use crate::kit::Kit;

const FORM: &[(&str, &str)] = &[("amount", "1099"), ("currency", "usd")];
const PATH: &str = "/v1/payment_intents";

#[tokio::test]
async fn the_same_key_and_parameters_give_the_same_answer_and_one_intent() {
    let kit = Kit::start().await;

    let first = kit.post_with_key(PATH, FORM, "pi-create:1").await;
    let second = kit.post_with_key(PATH, FORM, "pi-create:1").await;

    assert_eq!(first.id(), second.id());
    assert_eq!(first.header("idempotent-replayed"), "");
    assert_eq!(second.header("idempotent-replayed"), "true");
    assert_eq!(second.header("original-request"), first.header("request-id"));
    assert_eq!(kit.simulator.truth().len(), 1);
    let calls = kit.simulator.calls();
    assert_eq!(calls[0].effects, [first.id()]);
    assert!(calls[1].replayed && calls[1].effects.is_empty());
}

#[tokio::test]
async fn the_same_key_with_other_parameters_or_another_address_is_refused() {
    let kit = Kit::start().await;
    let id = kit.post_with_key(PATH, FORM, "key").await.id();

    let form = [("amount", "2000"), ("currency", "usd")];
    let amount = kit.post_with_key(PATH, &form, "key").await;
    let address = kit.post_with_key(&format!("{PATH}/{id}/cancel"), &[], "key").await;

    for refused in [amount, address] {
        assert_eq!(refused.status, 400);
        assert_eq!(refused.body["error"]["type"], "idempotency_error");
    }
}

#[tokio::test]
async fn a_failure_that_was_saved_is_given_again() {
    let kit = Kit::start().await;
    kit.simulator.set_fault(Fault::once(Trouble::ErrorAfter));

    let first = kit.post_with_key(PATH, FORM, "key").await;
    let second = kit.post_with_key(PATH, FORM, "key").await;

    assert_eq!((first.status, second.status), (500, 500));
    assert_eq!(second.header("idempotent-replayed"), "true");
    assert_eq!(second.body["error"]["type"], "api_error");
    assert_eq!(kit.simulator.truth().len(), 1, "the intent exists all the same");
}

#[tokio::test]
async fn a_failure_before_execution_is_not_saved() {
    let kit = Kit::start().await;
    kit.simulator.set_fault(Fault::once(Trouble::ErrorBefore));

    let first = kit.post_with_key(PATH, FORM, "key").await;
    let second = kit.post_with_key(PATH, FORM, "key").await;

    assert_eq!((first.status, second.status), (500, 200));
    assert_eq!(kit.simulator.truth().len(), 1);
}

#[tokio::test]
async fn a_refused_parameter_does_not_use_up_the_key() {
    let kit = Kit::start().await;
    let form = [("amount", "1"), ("currency", "usd")];

    let refused = kit.post_with_key(PATH, &form, "key").await;
    let good = kit.post_with_key(PATH, FORM, "key").await;

    assert_eq!((refused.status, good.status), (400, 200));
}

#[tokio::test]
async fn a_decline_is_saved_so_the_same_key_never_charges_again() {
    let kit = Kit::start().await;
    let id = kit.intent().await.id();
    let path = format!("{PATH}/{id}/confirm");
    let form = [("payment_method", "pm_card_chargeDeclined"), ("return_url", "https://shop.test/")];

    let first = kit.post_with_key(&path, &form, "renew:1").await;
    let second = kit.post_with_key(&path, &form, "renew:1").await;

    assert_eq!((first.status, second.status), (402, 402));
    assert_eq!(second.header("idempotent-replayed"), "true");
    let failures = kit.kinds().iter().filter(|kind| *kind == "charge.failed").count();
    assert_eq!(failures, 1);
}

#[tokio::test]
async fn a_key_in_use_is_a_conflict() {
    let kit = Kit::start().await;
    kit.simulator.set_fault(Fault::once(Trouble::Slow { ms: 300 }));

    let (one, other) =
        tokio::join!(kit.post_with_key(PATH, FORM, "key"), kit.post_with_key(PATH, FORM, "key"));

    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let conflict = if one.status == 409 { one } else { other };
    assert_eq!(conflict.code(), "idempotency_key_in_use");
    assert_eq!(conflict.header("stripe-should-retry"), "true");
    assert_eq!(kit.post_with_key(PATH, FORM, "key").await.status, 200, "the conflict is not saved");
}

#[tokio::test]
async fn a_caller_who_hangs_up_is_served_all_the_same() {
    let kit = Kit::start().await;
    kit.simulator.set_fault(Fault::once(Trouble::Slow { ms: 100 }));
    let request = kit.stripe_request("POST", PATH).form(FORM).header("idempotency-key", "key");
    let request = request.timeout(std::time::Duration::from_millis(20));

    assert!(kit.send(request).await.unwrap_err().is_timeout());

    crate::kit::until("the intent is made", || kit.simulator.truth().into_iter().next()).await;
    assert_eq!(kit.post_with_key(PATH, FORM, "key").await.header("idempotent-replayed"), "true");
    assert_eq!(kit.simulator.truth().len(), 1);
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day_and_then_charges_again() {
    let kit = Kit::start().await;
    let first = kit.post_with_key(PATH, FORM, "key").await.id();

    kit.simulator.advance_clock(TimeDelta::hours(25));
    let second = kit.post_with_key(PATH, FORM, "key").await.id();

    assert_ne!(first, second);
}

#[tokio::test]
async fn a_key_is_not_heeded_on_a_read() {
    let kit = Kit::start().await;
    let read = || kit.stripe_request("GET", PATH).header("idempotency-key", "key");

    kit.send(read()).await.unwrap();
    let second = kit.send(read()).await.unwrap();

    assert_eq!(second.header("idempotent-replayed"), "");
}
