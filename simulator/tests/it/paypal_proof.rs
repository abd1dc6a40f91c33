//! PayPal's webhook signatures, proven the way the product must prove them: from the root alone.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};
use simulator::Simulator;
use webpki::ring::{ECDSA_P256_SHA256, RSA_PKCS1_2048_8192_SHA256};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::kit::{Kit, Received};

const NAME: &str = "messageverificationcerts.sandbox.paypal.com";

/// A client that knows `api.sandbox.paypal.com` at the simulator's port and trusts only its root.
fn tls_client(simulator: &Simulator) -> reqwest::Client {
    let root = CertificateDer::from_pem_slice(simulator.paypal_root_pem().as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address: SocketAddr = simulator.paypal_tls_addr();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .resolve("api.sandbox.paypal.com", address)
        .build()
        .unwrap()
}

async fn fetch_chain(kit: &Kit, url: &str) -> Vec<CertificateDer<'static>> {
    let response = tls_client(&kit.simulator).get(url).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let pem = response.text().await.unwrap();
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

async fn verify(kit: &Kit, received: &Received) {
    let chain = fetch_chain(kit, received.header("paypal-cert-url")).await;
    let root = CertificateDer::from_pem_slice(kit.simulator.paypal_root_pem().as_bytes()).unwrap();
    let anchor = anchor_from_trusted_cert(&root).unwrap();
    let leaf = EndEntityCert::try_from(&chain[0]).unwrap();
    leaf.verify_for_usage(
        &[RSA_PKCS1_2048_8192_SHA256, ECDSA_P256_SHA256],
        &[anchor],
        &chain[1..],
        UnixTime::now(),
        KeyUsage::server_auth(),
        None,
        None,
    )
    .unwrap();
    leaf.verify_is_valid_for_subject_name(&ServerName::try_from(NAME).unwrap()).unwrap();
    let text = format!(
        "{}|{}|{}|{}",
        received.header("paypal-transmission-id"),
        received.header("paypal-transmission-time"),
        kit.simulator.settings().paypal_webhook_id,
        crc32fast::hash(&received.body),
    );
    let signature = BASE64_STANDARD.decode(received.header("paypal-transmission-sig")).unwrap();
    leaf.verify_signature(RSA_PKCS1_2048_8192_SHA256, text.as_bytes(), &signature).unwrap();
}

#[tokio::test]
async fn a_delivered_event_is_proven_by_the_root_alone() {
    let kit = Kit::start().await;
    let endpoint = kit.endpoint(&[]).await;
    let token = kit.token().await;
    kit.captured_order(&token).await;

    let received = endpoint.first("PAYMENT.CAPTURE.COMPLETED").await;

    assert_eq!(received.header("paypal-auth-algo"), "SHA256withRSA");
    let url = received.header("paypal-cert-url");
    assert!(url.starts_with("https://api.sandbox.paypal.com/v1/notifications/certs/CERT-"));
    verify(&kit, &received).await;
}

#[tokio::test]
async fn a_body_signed_in_process_is_proven_too() {
    let kit = Kit::start().await;
    let mut headers = axum::http::HeaderMap::new();
    for (name, value) in kit.simulator.signed_paypal(b"{}") {
        let name: axum::http::HeaderName = name.parse().unwrap();
        headers.insert(name, value.parse().unwrap());
    }

    verify(&kit, &Received { headers, body: "{}".into() }).await;
}

#[tokio::test]
async fn the_verifying_call_knows_a_genuine_event_from_a_changed_one() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    kit.captured_order(&token).await;
    let event = &kit.simulator.events()[1];
    let headers = kit.simulator.signed_paypal(&event.body);
    let header = |name: &str| headers.iter().find(|(known, _)| known == name).unwrap().1.clone();
    let question = |webhook_id: &str, event: &str| {
        let fields = json!({
            "auth_algo": header("PAYPAL-AUTH-ALGO"),
            "cert_url": header("PAYPAL-CERT-URL"),
            "transmission_id": header("PAYPAL-TRANSMISSION-ID"),
            "transmission_sig": header("PAYPAL-TRANSMISSION-SIG"),
            "transmission_time": header("PAYPAL-TRANSMISSION-TIME"),
            "webhook_id": webhook_id,
        });
        let fields = fields.to_string();
        format!("{},\"webhook_event\":{event}}}", fields.strip_suffix('}').unwrap())
    };
    let ask = async |body: String| {
        let path = "/v1/notifications/verify-webhook-signature";
        let request = kit.paypal_request(&token, "POST", path).body(body);
        kit.send(request).await.unwrap().body["verification_status"].clone()
    };
    let body = String::from_utf8(event.body.clone()).unwrap();
    let webhook_id = &kit.simulator.settings().paypal_webhook_id;

    assert_eq!(ask(question(webhook_id, &body)).await, "SUCCESS");
    assert_eq!(ask(question("ANOTHER", &body)).await, "FAILURE");
    assert_eq!(ask(question(webhook_id, &body.replace("10.99", "99.99"))).await, "FAILURE");
    let spaced = body.replacen(':', ": ", 1);
    assert_eq!(ask(question(webhook_id, &spaced)).await, "FAILURE", "the raw text counts");
}

#[tokio::test]
async fn an_unknown_certificate_is_not_there() {
    let kit = Kit::start().await;
    let url = "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1";

    let answer = kit.send(tls_client(&kit.simulator).get(url)).await.unwrap();

    assert_eq!(answer.status, 404);
    assert_eq!(answer.body["name"], Value::from("RESOURCE_NOT_FOUND"));
}
