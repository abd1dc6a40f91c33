//! Events on their way to an endpoint.

use std::fmt::Write;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use simulator::{DisputeOutcome, Gateway, Settings};

use crate::kit::{Kit, Received, until};

fn quick() -> Settings {
    Settings { first_retry_after: Duration::from_millis(5), ..Settings::default() }
}

/// Returns whether one of the header's `v1` is the body's under this secret.
fn is_signed(received: &Received, secret: &str) -> bool {
    let header = received.header("stripe-signature");
    let mut fields = header.split(',').filter_map(|field| field.split_once('='));
    let time = fields.clone().find(|(name, _)| *name == "t").expect("a time").1;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    mac.update(format!("{time}.").as_bytes());
    mac.update(&received.body);
    let expected = mac.finalize().into_bytes().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    fields.any(|(name, value)| name == "v1" && value == expected)
}

#[tokio::test]
async fn an_event_is_sent_again_until_it_is_accepted_and_signed_each_time() {
    let kit = Kit::start_with(quick()).await;
    let endpoint = kit.endpoint(&[500, 302, 404]).await;

    let id = kit.intent().await.id();

    until("delivered", || (kit.simulator.pending_deliveries() == 0).then_some(())).await;
    let received = endpoint.received();
    assert_eq!(received.len(), 4);
    assert!(received.iter().all(|one| one.json()["data"]["object"]["id"] == id.as_str()));
    assert!(received.iter().all(|one| one.body == received[0].body));
    assert!(received.iter().all(|one| is_signed(one, "whsec_simulator")));
    let attempts = kit.simulator.attempts();
    let statuses: Vec<_> = attempts.iter().map(|attempt| attempt.status).collect();
    assert_eq!(statuses, [Some(500), Some(302), Some(404), Some(200)]);
    assert_eq!(attempts[3].number, 4);
    let listed = kit.get("/v1/events?delivery_success=true").await;
    assert_eq!(listed.body["data"][0]["pending_webhooks"], 0);
}

#[tokio::test]
async fn during_a_roll_of_secrets_each_of_them_signs() {
    let secrets = vec!["whsec_new".into(), "whsec_old".into()];
    let settings = Settings { stripe_webhook_secrets: secrets, ..Settings::default() };
    let kit = Kit::start_with(settings).await;
    let endpoint = kit.endpoint(&[]).await;

    kit.intent().await;

    let received = endpoint.first("payment_intent.created").await;
    assert!(is_signed(&received, "whsec_new") && is_signed(&received, "whsec_old"));
    assert!(!is_signed(&received, "whsec_other"));
}

#[tokio::test]
async fn held_deliveries_go_when_they_are_let_go() {
    let kit = Kit::start().await;
    let endpoint = kit.endpoint(&[]).await;
    kit.simulator.pause_deliveries();

    kit.paid_intent().await;
    assert_eq!(kit.simulator.pending_deliveries(), 3);
    assert!(endpoint.received().is_empty());
    kit.simulator.resume_deliveries();

    endpoint.first("payment_intent.succeeded").await;
}

#[tokio::test]
async fn what_was_not_accepted_follows_the_endpoint_to_its_new_address() {
    let kit = Kit::start_with(quick()).await;
    let nobody = "http://127.0.0.1:9/webhooks/stripe";
    kit.simulator.set_webhook_urls(Some(nobody.into()), None);
    kit.intent().await;
    until("tried", || (!kit.simulator.attempts().is_empty()).then_some(())).await;

    let endpoint = kit.endpoint(&[]).await;

    endpoint.first("payment_intent.created").await;
    assert_eq!(kit.simulator.attempts()[0].status, None);
}

#[tokio::test]
async fn without_an_endpoint_events_are_kept_and_can_be_sent_later() {
    let kit = Kit::start().await;
    kit.intent().await;
    assert_eq!(kit.simulator.pending_deliveries(), 0);
    let event = kit.simulator.events().remove(0);

    let endpoint = kit.endpoint(&[]).await;
    assert!(kit.simulator.redeliver(&event.id));

    assert_eq!(endpoint.first("payment_intent.created").await.body, event.body);
    assert!(!kit.simulator.redeliver("evt_unknown"));
}

#[tokio::test]
async fn a_test_can_post_an_event_itself() {
    let kit = Kit::start().await;
    kit.intent().await;
    let event = kit.simulator.events().remove(0);
    let mut headers = axum::http::HeaderMap::new();
    for (name, value) in kit.simulator.signed(&event) {
        let name: axum::http::HeaderName = name.parse().unwrap();
        headers.insert(name, value.parse().unwrap());
    }

    assert_eq!(event.gateway, Gateway::Stripe);
    assert!(is_signed(&Received { headers, body: event.body.into() }, "whsec_simulator"));
}

#[tokio::test]
async fn a_second_start_knows_what_the_first_one_kept() {
    let folder = std::env::temp_dir().join(format!("simulator-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let state_file = Some(folder.join("state.json"));
    let first = Kit::start_with(Settings { state_file: state_file.clone(), ..quick() }).await;
    first.simulator.set_webhook_urls(Some("http://127.0.0.1:9/".into()), None);
    let id = first.paid_intent().await;
    let order = first.order(&first.token().await).await.id();
    let form = [("amount", "1099"), ("currency", "usd")];
    first.post_with_key("/v1/payment_intents", &form, "key").await;
    let dispute = first.simulator.open_stripe_dispute(&id, false, None).unwrap();
    let setup = first.post("/v1/setup_intents", &[]).await.id();
    let form_setup = [("mode", "setup"), ("success_url", "http://shop.test/")];
    let session = first.post("/v1/checkout/sessions", &form_setup).await.id();
    let events = first.simulator.events();
    drop(first);

    let second = Kit::start_with(Settings { state_file, ..quick() }).await;
    let endpoint = second.endpoint(&[]).await;

    assert_eq!(second.get(&format!("/v1/payment_intents/{id}")).await.body["status"], "succeeded");
    assert_eq!(second.order(&second.token().await).await.id(), order);
    assert_eq!(second.simulator.events(), events);
    second.simulator.settle_stripe_dispute(&dispute, DisputeOutcome::Lost).unwrap();
    assert_eq!(second.simulator.setup_stripe(&setup, "pm_card_visa").as_deref(), Ok("succeeded"));
    let paid = second.simulator.pay_stripe_session(&session, "pm_card_visa");
    assert_eq!(paid.as_deref(), Ok("succeeded"));
    let again = second.post_with_key("/v1/payment_intents", &form, "key").await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    endpoint.first("payment_intent.succeeded").await;
    drop(second);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn dropping_the_last_handle_frees_the_ports() {
    let kit = Kit::start().await;
    let port = kit.simulator.stripe_url().rsplit(':').next().unwrap().parse().unwrap();
    drop(kit);

    let settings = || Settings { stripe_port: port, ..Settings::default() };
    let wait = async {
        while simulator::Simulator::start(settings()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
}
