//! Customers' tokens (RFC 7519): one algorithm a key, strict claims (rules.md).

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use secrecy::ExposeSecret;
use serde_json::{Map, Value};

use crate::config::{Errors, Jwt};
use crate::customers::Identity;
use crate::ids::CustomerId;

/// A token that proves nothing. It says nothing of why: the log does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the token is not valid: {0}")]
pub struct Unauthenticated(pub &'static str);

/// Clocks of issuers may be off by so much.
const LEEWAY_SECONDS: u64 = 30;

/// A longer token is refused before it is decoded.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The keys that tokens are checked with.
pub struct Keys {
    trusted: Vec<(Algorithm, DecodingKey)>,
    issuer: Option<String>,
    audience: Option<String>,
    id_claims: Vec<String>,
}

impl Keys {
    /// Reads the configured keys.
    pub fn new(settings: &Jwt) -> Result<Self, Errors> {
        let mut trusted = Vec::new();
        if let Some(secret) = &settings.hs256_secret {
            let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
            trusted.push((Algorithm::HS256, key));
        }
        if let Some(pem) = &settings.public_key {
            let key = public_key(pem.as_bytes()).ok_or_else(|| {
                let expected = "JWT_PUBLIC_KEY is not the PEM of an RSA, P-256 or Ed25519 key";
                Errors(vec![expected.to_owned()])
            })?;
            trusted.push(key);
        }
        Ok(Self {
            trusted,
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            id_claims: settings
                .id_claim
                .clone()
                .map_or_else(|| vec!["user_id".to_owned(), "sub".to_owned()], |claim| vec![claim]),
        })
    }

    /// Who holds this token.
    pub fn verify(&self, token: &str) -> Result<Identity, Unauthenticated> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Unauthenticated("too long"));
        }
        let header = decode_header(token).map_err(|_| Unauthenticated("header"))?;
        let key = self.trusted.iter().find(|(algorithm, _)| *algorithm == header.alg);
        let (algorithm, key) = key.ok_or(Unauthenticated("algorithm"))?;
        let validation = self.validation(*algorithm);
        let claims = decode::<Map<String, Value>>(token, key, &validation)
            .map_err(|_| Unauthenticated("signature or claims"))?
            .claims;
        self.identity(&claims)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.validate_aud = self.audience.is_some();
        let mut required = vec!["exp"];
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn identity(&self, claims: &Map<String, Value>) -> Result<Identity, Unauthenticated> {
        let is_whole = |name: &str| claims.get(name).is_none_or(Value::is_i64);
        if !claims.get("exp").is_some_and(Value::is_i64) || !is_whole("nbf") {
            return Err(Unauthenticated("a time that is no whole number"));
        }
        if claims.get("token_type").is_some_and(|kind| kind != "access") {
            return Err(Unauthenticated("not an access token"));
        }
        let claim = self.id_claims.iter().find_map(|name| claims.get(name));
        let external_id = match claim {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) if number.is_i64() => number.to_string(),
            Some(_) | None => return Err(Unauthenticated("no id")),
        };
        if external_id.is_empty() || external_id.len() > 255 || external_id.contains('\0') {
            return Err(Unauthenticated("no id"));
        }
        let text = |name: &str| {
            let value = claims.get(name).and_then(Value::as_str)?;
            (value.len() <= 320 && !value.contains('\0')).then(|| value.to_owned())
        };
        Ok(Identity {
            id: CustomerId::of(&external_id),
            email: text("email"),
            name: text("name"),
            external_id,
        })
    }
}

/// The key in a PEM, with the one algorithm that it is for.
fn public_key(pem: &[u8]) -> Option<(Algorithm, DecodingKey)> {
    let rsa = || DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key));
    let ec = || DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key));
    let ed = || DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key));
    ed().or_else(|_| ec()).or_else(|_| rsa()).ok()
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;
    use crate::clock::wall_now;

    /// Throw-away keys of the tests.
    const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/jwt_keys");

    fn pem(name: &str) -> String {
        std::fs::read_to_string(format!("{KEYS}/{name}.pem")).unwrap()
    }

    fn settings(public_key: Option<String>) -> Jwt {
        Jwt { hs256_secret: None, public_key, issuer: None, audience: None, id_claim: None }
    }

    fn token(algorithm: Algorithm, key: &EncodingKey, more: &Value) -> String {
        let mut claims = json!({ "sub": "u-1", "exp": wall_now().timestamp() + 600 });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        encode(&Header::new(algorithm), &claims, key).unwrap()
    }

    #[test]
    fn each_kind_of_public_key_proves_its_own_algorithm_only() {
        let ed = EncodingKey::from_ed_pem(pem("ed.private").as_bytes()).unwrap();
        let ec = EncodingKey::from_ec_pem(pem("ec.private").as_bytes()).unwrap();
        let rsa = EncodingKey::from_rsa_pem(pem("rsa.private").as_bytes()).unwrap();
        let signers = [
            ("ed", Algorithm::EdDSA, &ed),
            ("ec", Algorithm::ES256, &ec),
            ("rsa", Algorithm::RS256, &rsa),
        ];
        for (name, own, _) in &signers {
            let keys = Keys::new(&settings(Some(pem(&format!("{name}.public"))))).unwrap();
            for (_, algorithm, signer) in &signers {
                let verdict = keys.verify(&token(*algorithm, signer, &json!({})));
                assert_eq!(verdict.is_ok(), algorithm == own, "{name} {algorithm:?}");
            }
            // The public key's text as a shared secret: the classic confusion.
            let text = EncodingKey::from_secret(pem(&format!("{name}.public")).as_bytes());
            assert!(keys.verify(&token(Algorithm::HS256, &text, &json!({}))).is_err());
        }
        let keys = Keys::new(&settings(Some(pem("rsa.public")))).unwrap();
        assert!(keys.verify(&token(Algorithm::RS512, &rsa, &json!({}))).is_err());
        assert!(keys.verify(&token(Algorithm::PS256, &rsa, &json!({}))).is_err());
    }

    #[test]
    fn audience_and_issuer_are_compared_when_configured() {
        let ed = EncodingKey::from_ed_pem(pem("ed.private").as_bytes()).unwrap();
        let keys = Keys::new(&Jwt {
            issuer: Some("https://id.example.com".to_owned()),
            audience: Some("tollgate".to_owned()),
            ..settings(Some(pem("ed.public")))
        })
        .unwrap();
        let is_good = |more: Value| keys.verify(&token(Algorithm::EdDSA, &ed, &more)).is_ok();
        let issuer = "https://id.example.com";
        assert!(is_good(json!({ "aud": "tollgate", "iss": issuer })));
        assert!(is_good(json!({ "aud": ["other", "tollgate"], "iss": issuer })));
        assert!(!is_good(json!({ "aud": "other", "iss": issuer })));
        assert!(!is_good(json!({ "aud": "tollgate", "iss": "https://other.example.com" })));
        assert!(!is_good(json!({ "aud": "tollgate" })));
        assert!(!is_good(json!({ "iss": issuer })));
        assert!(!is_good(json!({})));
    }
}
