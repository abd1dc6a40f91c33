//! A certification authority of the simulator's own: root, intermediate, and the leaves PayPal would have.

use std::sync::OnceLock;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, Error, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rsa::RsaPrivateKey;
use rsa::pkcs8::EncodePrivateKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The name PayPal's signing certificate has in its sandbox.
const SIGNER_NAME: &str = "messageverificationcerts.sandbox.paypal.com";

/// Hosts that serve the signing certificate.
const API_NAMES: [&str; 2] = ["api.sandbox.paypal.com", "api-m.sandbox.paypal.com"];

/// PayPal signs with RSA of at least this size.
const SIGNER_BITS: usize = 2048;

/// All that was issued.
pub(crate) struct Authority {
    /// The root, to be trusted by tests and by nothing else.
    pub(crate) root_pem: String,
    /// The signer's leaf, then the intermediate.
    pub(crate) signer_pem: String,
    /// The signer's key, PKCS #8.
    pub(crate) signer_key: Vec<u8>,
    /// The API host's leaf, then the intermediate.
    pub(crate) api_chain: Vec<CertificateDer<'static>>,
    /// The API host's key.
    pub(crate) api_key: PrivateKeyDer<'static>,
}

/// Issues everything, valid from yesterday for a year.
pub(crate) fn issue(now: DateTime<Utc>) -> Result<Authority, Error> {
    let root = CertifiedIssuer::self_signed(
        authority("Simulator Root CA", BasicConstraints::Unconstrained, now),
        KeyPair::generate()?,
    )?;
    let intermediate = CertifiedIssuer::signed_by(
        authority("Simulator Intermediate CA", BasicConstraints::Constrained(0), now),
        KeyPair::generate()?,
        &root,
    )?;
    let signer_key = signer_key();
    let signer_pair = KeyPair::try_from(&PrivatePkcs8KeyDer::from(signer_key))?;
    let signer = leaf(&[SIGNER_NAME], now)?.signed_by(&signer_pair, &intermediate)?;
    let api_pair = KeyPair::generate()?;
    let api = leaf(&API_NAMES, now)?.signed_by(&api_pair, &intermediate)?;
    Ok(Authority {
        root_pem: root.pem(),
        signer_pem: format!("{}{}", signer.pem(), intermediate.pem()),
        signer_key: signer_key.to_vec(),
        api_chain: vec![api.der().clone(), intermediate.der().clone()],
        api_key: PrivatePkcs8KeyDer::from(api_pair.serialize_der()).into(),
    })
}

/// Returns the process's signing key; making one takes too long to do so for every simulator.
fn signer_key() -> &'static [u8] {
    static KEY: OnceLock<Vec<u8>> = OnceLock::new();
    KEY.get_or_init(|| {
        let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, SIGNER_BITS);
        let der = key.expect("random primes are found").to_pkcs8_der();
        der.expect("a fresh key is writable").as_bytes().to_vec()
    })
}

fn dated(mut params: CertificateParams, now: DateTime<Utc>) -> CertificateParams {
    let day = |at: DateTime<Utc>| {
        let part = |number: u32| u8::try_from(number).expect("months and days are small");
        date_time_ymd(at.year(), part(at.month()), part(at.day()))
    };
    params.not_before = day(now - TimeDelta::days(1));
    params.not_after = day(now + TimeDelta::days(365));
    params.use_authority_key_identifier_extension = true;
    params
}

fn authority(name: &str, depth: BasicConstraints, now: DateTime<Utc>) -> CertificateParams {
    let mut params = dated(CertificateParams::default(), now);
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, "Payment simulator (not PayPal)");
    params.is_ca = IsCa::Ca(depth);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(names: &[&str], now: DateTime<Utc>) -> Result<CertificateParams, Error> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = dated(CertificateParams::new(names.clone())?, now);
    params.distinguished_name.push(DnType::CommonName, names[0].as_str());
    params.distinguished_name.push(DnType::OrganizationName, "Payment simulator (not PayPal)");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}
