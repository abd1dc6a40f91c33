//! PayPal's signature: RSA over transmission id, time, webhook id and the body's checksum.

use std::io;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use ring::rand::SystemRandom;
use ring::signature::{self, KeyPair, RsaKeyPair, UnparsedPublicKey};
use rustls::ServerConfig;
use uuid::Uuid;

use super::certificates;
use crate::ids;
use crate::world::Core;

/// The host that certificate addresses name, whatever port really serves them.
const HOST: &str = "api.sandbox.paypal.com";

/// Keys and certificates of one simulator.
#[derive(Debug)]
pub(crate) struct Keyring {
    pub(crate) root_pem: String,
    /// What `GET /v1/notifications/certs/{id}` answers.
    pub(crate) signer_pem: String,
    pub(crate) certificate_id: String,
    pub(crate) tls: Arc<ServerConfig>,
    signer: RsaKeyPair,
}

/// What a signature is made of, beside the body.
pub(super) struct Transmission<'a> {
    pub(super) id: &'a str,
    pub(super) time: &'a str,
    pub(super) webhook_id: &'a str,
}

impl Keyring {
    /// Makes keys and certificates, valid from yesterday for a year.
    pub(crate) fn new(now: DateTime<Utc>) -> io::Result<Self> {
        let authority = certificates::issue(now).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(authority.api_chain, authority.api_key)
            .map_err(io::Error::other)?;
        let signer = RsaKeyPair::from_pkcs8(&authority.signer_key)
            .map_err(|rejected| io::Error::other(rejected.to_string()))?;
        let certificate_id = format!("CERT-{}-{}-{}", ids::hex(8), ids::hex(8), ids::hex(8));
        Ok(Keyring {
            root_pem: authority.root_pem,
            signer_pem: authority.signer_pem,
            certificate_id,
            tls: Arc::new(tls),
            signer,
        })
    }

    /// Returns the address of the signing certificate, as PayPal names it.
    pub(super) fn certificate_url(&self) -> String {
        format!("https://{HOST}/v1/notifications/certs/{}", self.certificate_id)
    }

    fn sign(&self, text: &str) -> String {
        let mut signature = vec![0; self.signer.public().modulus_len()];
        self.signer
            .sign(
                &signature::RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                text.as_bytes(),
                &mut signature,
            )
            .expect("the buffer is as long as the modulus");
        BASE64_STANDARD.encode(signature)
    }

    /// Returns whether a signature in base64 is ours over this body.
    pub(super) fn verify(&self, of: &Transmission<'_>, body: &[u8], signature: &str) -> bool {
        let Ok(signature) = BASE64_STANDARD.decode(signature) else { return false };
        let key = self.signer.public_key().as_ref();
        UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, key)
            .verify(signed_text(of, body).as_bytes(), &signature)
            .is_ok()
    }
}

fn signed_text(of: &Transmission<'_>, body: &[u8]) -> String {
    format!("{}|{}|{}|{}", of.id, of.time, of.webhook_id, crc32fast::hash(body))
}

/// Returns the headers of an event's POST, signed as of `at`; a forged one is for another webhook.
pub(crate) fn headers(
    core: &Core,
    body: &[u8],
    at: DateTime<Utc>,
    is_forged: bool,
) -> Vec<(String, String)> {
    let id = Uuid::now_v7().to_string();
    let time = at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let webhook_id =
        if is_forged { "WEBHOOK-OF-SOMEBODY-ELSE" } else { &core.settings.paypal_webhook_id };
    let transmission = Transmission { id: &id, time: &time, webhook_id };
    let signature = core.keyring.sign(&signed_text(&transmission, body));
    vec![
        ("PAYPAL-TRANSMISSION-ID".into(), id),
        ("PAYPAL-TRANSMISSION-TIME".into(), time),
        ("PAYPAL-TRANSMISSION-SIG".into(), signature),
        ("PAYPAL-CERT-URL".into(), core.keyring.certificate_url()),
        ("PAYPAL-AUTH-ALGO".into(), "SHA256withRSA".into()),
        ("PAYPAL-AUTH-VERSION".into(), "v2".into()),
        ("Content-Type".into(), "application/json".into()),
        ("User-Agent".into(), "PayPal/AUHD-214.0-58843070".into()),
    ]
}
