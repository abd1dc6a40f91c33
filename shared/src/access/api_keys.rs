//! Keys of services: shown once, stored as a digest.

use chrono::{DateTime, Utc};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Unauthenticated, store};
use crate::App;
use crate::clock::wall_now;
use crate::config::Environment;
use crate::error::Error;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Operate: refunds, confirmations, events.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 1] = [Self::Admin];

    /// The word in requests and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "admin" => Ok(Self::Admin),
            _ => Err(format!("{text} is no scope: admin")),
        }
    }
}

/// Who calls with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The key's public part.
    pub key_id: String,
    /// What it is called.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
}

impl Service {
    /// Who did it, as it is recorded.
    pub fn principal(&self) -> String {
        format!("key:{}", self.key_id)
    }

    /// Whether the key may do this.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|held| held == scope.as_str())
    }
}

/// How every key begins, so that secret scanners know it.
const PREFIX: &str = "tgk_";
/// Letters of the public part.
const ID_LENGTH: usize = 8;
/// Letters of the secret part: 165 bits.
const SECRET_LENGTH: usize = 32;
/// Letters of the checksum: a mistyped key is refused without asking the database.
const SUM_LENGTH: usize = 8;

/// Makes a key and returns its text, which cannot be read again.
pub async fn create_key(
    app: &App,
    name: &str,
    scopes: &[Scope],
    expires_at: Option<DateTime<Utc>>,
) -> Result<SecretString, Error> {
    if name.is_empty() || name.len() > 100 {
        return Err(Error::invalid("name", "must be 1 to 100 characters"));
    }
    let mode = match app.config.environment {
        Environment::Production => "live",
        Environment::Development | Environment::Test => "test",
    };
    let id = random_letters(ID_LENGTH);
    let body = format!("{PREFIX}{mode}_{id}{}", random_letters(SECRET_LENGTH));
    let text = format!("{body}{:0SUM_LENGTH$x}", crc32fast::hash(body.as_bytes()));
    let digest = Sha256::digest(text.as_bytes()).to_vec();
    let scopes: Vec<String> = scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
    store::insert_key(&app.db, (&id, name), &digest, &scopes, expires_at, app.clock.now()).await?;
    Ok(text.into())
}

/// Lower-case letters and digits from the system's random source.
fn random_letters(length: usize) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let random = SystemRandom::new();
    let mut letters = String::with_capacity(length);
    while letters.len() < length {
        let mut byte = [0];
        random.fill(&mut byte).expect("the system has random numbers");
        // 252 is the largest multiple of 36 in a byte: no letter is more likely than another.
        if byte[0] < 252 {
            letters.push(char::from(LETTERS[usize::from(byte[0]) % 36]));
        }
    }
    letters
}

/// Who holds this key; refused once it is revoked or over.
pub async fn verify_key(app: &App, text: &str) -> Result<Service, KeyRefused> {
    let id = id_of(text).ok_or(Unauthenticated("not a key of ours"))?;
    let stored = store::find_key(&app.db, id).await?;
    let stored = stored.ok_or(Unauthenticated("no such key"))?;
    let digest = Sha256::digest(text.as_bytes());
    if !bool::from(digest.as_slice().ct_eq(&stored.secret_sha256)) {
        return Err(Unauthenticated("wrong secret").into());
    }
    let is_over = stored.expires_at.is_some_and(|end| end <= wall_now());
    if is_over || stored.revoked_at.is_some() {
        return Err(Unauthenticated("revoked or over").into());
    }
    Ok(Service { key_id: id.to_owned(), name: stored.name, scopes: stored.scopes })
}

/// The public part of a key whose form and checksum are right.
fn id_of(text: &str) -> Option<&str> {
    let is_plain =
        text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let rest = text.strip_prefix(PREFIX)?;
    let rest = rest.strip_prefix("live_").or_else(|| rest.strip_prefix("test_"))?;
    if !is_plain || rest.len() != ID_LENGTH + SECRET_LENGTH + SUM_LENGTH {
        return None;
    }
    let (body, sum) = text.split_at(text.len() - SUM_LENGTH);
    let is_right = u32::from_str_radix(sum, 16).ok() == Some(crc32fast::hash(body.as_bytes()));
    is_right.then(|| &rest[..ID_LENGTH])
}

/// Whether text looks like a key at all, so that a bearer is not taken for a token.
pub fn looks_like_key(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// Revokes a key; one that is revoked stays so.
pub async fn revoke_key(app: &App, id: &str) -> Result<(), Error> {
    if store::revoke_key(&app.db, id, wall_now()).await? {
        Ok(())
    } else {
        Err(Error::NotFound("API key"))
    }
}

/// Why a key was not taken.
#[derive(Debug, thiserror::Error)]
pub enum KeyRefused {
    /// It proves nothing.
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    /// It could not be looked up.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_key_is_refused_by_its_form() {
        let body =
            format!("tgk_test_{}{}", random_letters(ID_LENGTH), random_letters(SECRET_LENGTH));
        let text = format!("{body}{:08x}", crc32fast::hash(body.as_bytes()));
        assert_eq!(id_of(&text), Some(&text[9..17]));
        let mut wrong = text.clone().into_bytes();
        wrong[20] = if wrong[20] == b'a' { b'b' } else { b'a' };
        assert_eq!(id_of(&String::from_utf8(wrong).unwrap()), None);
        assert_eq!(id_of(&text[..text.len() - 1]), None);
        assert_eq!(id_of("tgk_live_ä"), None);
        assert_eq!(id_of(""), None);
    }
}
