//! What goes wrong on purpose.

use std::time::Duration;

use simulator::{Fault, Settings, Trouble, When};

use crate::kit::{Kit, until};

const FORM: &[(&str, &str)] = &[("amount", "1099"), ("currency", "usd")];
const PATH: &str = "/v1/payment_intents";

fn quick() -> Settings {
    Settings { first_retry_after: Duration::from_millis(5), ..Settings::default() }
}

#[tokio::test]
async fn a_reset_after_the_effect_leaves_the_effect() {
    let kit = Kit::start().await;
    kit.simulator.set_fault(Fault::once(Trouble::ResetAfter));
    let send = || kit.stripe_request("POST", PATH).form(FORM).header("idempotency-key", "key");

    let lost = kit.send(send()).await;
    let again = kit.send(send()).await.unwrap();

    assert!(lost.is_err());
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(kit.simulator.truth().len(), 1);
    let calls = kit.simulator.calls();
    assert_eq!((calls[0].status, calls[0].effects.len()), (None, 1));
}

#[tokio::test]
async fn a_reset_before_the_effect_leaves_nothing() {
    let kit = Kit::start().await;
    kit.simulator.set_fault(Fault::once(Trouble::ResetBefore));

    assert!(kit.send(kit.stripe_request("POST", PATH).form(FORM)).await.is_err());

    assert!(kit.simulator.truth().is_empty());
}

#[tokio::test]
async fn a_saved_failure_without_effect_is_replayed_for_ever() {
    let kit = Kit::start().await;
    kit.simulator.set_fault(Fault::once(Trouble::ErrorSaved));

    let first = kit.post_with_key(PATH, FORM, "key").await;
    let second = kit.post_with_key(PATH, FORM, "key").await;
    let other = kit.post_with_key(PATH, FORM, "key-2").await;

    assert_eq!((first.status, second.status, other.status), (500, 500, 200));
    assert_eq!(kit.simulator.truth().len(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_found_again_with_the_same_key() {
    let kit = Kit::start().await;
    kit.simulator.set_fault(Fault::once(Trouble::AnswerLost));

    let first = kit.post_with_key(PATH, FORM, "key").await;
    let second = kit.post_with_key(PATH, FORM, "key").await;

    assert_eq!((first.status, second.status), (502, 200));
    assert_eq!(kit.simulator.truth().len(), 1);
}

#[tokio::test]
async fn too_many_requests_say_when_to_come_again() {
    let kit = Kit::start().await;
    kit.simulator.set_fault(Fault::once(Trouble::RateLimited { retry_after_s: 2 }));

    let refused = kit.post(PATH, FORM).await;

    assert_eq!((refused.status, refused.code()), (429, "rate_limit"));
    assert_eq!(refused.header("retry-after"), "2");
}

#[tokio::test]
async fn an_answer_may_be_cut_or_name_another_amount_or_currency() {
    let kit = Kit::start().await;

    kit.simulator.set_fault(Fault::once(Trouble::MalformedAnswer));
    assert!(kit.post(PATH, FORM).await.body.is_null());
    kit.simulator.set_fault(Fault::once(Trouble::WrongAmount));
    assert_eq!(kit.post(PATH, FORM).await.body["amount"], 1100);
    kit.simulator.set_fault(Fault::once(Trouble::WrongCurrency));
    assert_eq!(kit.post(PATH, FORM).await.body["currency"], "sek");

    assert!(kit.simulator.truth().iter().all(|truth| truth.amount_minor == 1099));
}

#[tokio::test]
async fn an_answer_may_come_after_its_webhook() {
    let kit = Kit::start().await;
    let endpoint = kit.endpoint(&[]).await;
    kit.simulator.set_fault(Fault::once(Trouble::AnswerAfterWebhook));

    kit.post(PATH, FORM).await;

    assert_eq!(endpoint.received().len(), 1);
}

#[tokio::test]
async fn an_event_may_come_twice_or_never() {
    let kit = Kit::start().await;
    let endpoint = kit.endpoint(&[]).await;
    let kind = "payment_intent.succeeded";
    kit.simulator.set_fault(Fault::once(Trouble::Duplicate { times: 2 }).matching(kind));
    kit.simulator.set_fault(Fault::once(Trouble::Drop).matching("charge.succeeded"));

    kit.paid_intent().await;

    until("delivered", || (kit.simulator.pending_deliveries() == 0).then_some(())).await;
    let received: Vec<_> = endpoint.received().iter().map(crate::kit::Received::kind).collect();
    assert_eq!(received.iter().filter(|name| *name == kind).count(), 3);
    assert!(!received.contains(&"charge.succeeded".into()));
    assert!(kit.kinds().contains(&"charge.succeeded".into()), "it stays in the list of events");
    let missed = kit.get("/v1/events?delivery_success=false").await;
    assert_eq!(missed.body["data"][0]["type"], "charge.succeeded");
}

#[tokio::test]
async fn a_delayed_event_is_overtaken() {
    let kit = Kit::start().await;
    let endpoint = kit.endpoint(&[]).await;
    let delay = Fault::once(Trouble::Delay { ms: 100 }).matching("payment_intent.created");
    kit.simulator.set_fault(delay);

    kit.paid_intent().await;

    until("delivered", || (kit.simulator.pending_deliveries() == 0).then_some(())).await;
    assert_eq!(endpoint.received()[2].kind(), "payment_intent.created");
}

#[tokio::test]
async fn a_damaged_delivery_is_followed_by_a_good_one() {
    let troubles = [
        Trouble::WrongSecret,
        Trouble::FlipByte,
        Trouble::StaleTime { seconds: 600 },
        Trouble::FutureTime { seconds: 600 },
        Trouble::Gzip,
        Trouble::WrongContentType,
        Trouble::TruncatedBody,
        Trouble::SlowBody { ms: 40 },
    ];
    let kit = Kit::start_with(quick()).await;
    // The endpoint refuses each damaged delivery, as the product would.
    let endpoint = kit.endpoint(&[400; 6]).await;
    for trouble in &troubles {
        kit.simulator.set_fault(Fault::once(trouble.clone()));
    }

    kit.intent().await;

    until("delivered", || (kit.simulator.pending_deliveries() == 0).then_some(())).await;
    let attempts = kit.simulator.attempts();
    let struck: Vec<_> = attempts.iter().filter_map(|attempt| attempt.trouble.clone()).collect();
    assert_eq!(struck, troubles);
    assert_eq!(attempts[6].status, None, "half a body has no answer");
    assert_eq!(attempts[7].status, Some(200), "a slow body arrives in the end");
    let received = endpoint.received();
    assert_ne!(received[1].body, received[0].body);
    assert_eq!(received[4].header("content-encoding"), "gzip");
    assert_eq!(received[5].header("content-type"), "text/plain");
    assert_eq!(received[6].body, received[0].body);
}

#[tokio::test]
async fn chance_faults_are_the_same_for_the_same_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let kit = Kit::start_with(Settings { seed: 7, ..Settings::default() }).await;
        kit.simulator.set_fault(Fault {
            gateway: None,
            matching: String::new(),
            trouble: Trouble::ErrorBefore,
            when: When::PerMille(400),
        });
        let mut statuses = Vec::new();
        for _ in 0..20 {
            statuses.push(kit.post(PATH, FORM).await.status);
        }
        runs.push(statuses);
    }

    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].contains(&500) && runs[0].contains(&200));
}
