//! `tollgate token`: a customer's token for development.

use std::process::ExitCode;

use jsonwebtoken::{EncodingKey, Header, encode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use shared::clock::wall_now;
use shared::config::{Config, Environment};

use crate::{Done, say};

/// Whose token.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The application's id of the user.
    user_id: String,
    /// Hours that it is valid.
    #[arg(long, default_value_t = 24)]
    hours: u32,
}

/// Prints a token signed with `JWT_HS256_SECRET`; refused in production.
pub(crate) fn run(options: &Options) -> Done {
    let config = Config::from_env()?;
    if config.environment == Environment::Production {
        return Err("tokens are made for development only".into());
    }
    let secret = config.jwt.hs256_secret.ok_or("JWT_HS256_SECRET is not set")?;
    say(mint(&secret, &options.user_id, options.hours)?);
    Ok(ExitCode::SUCCESS)
}

/// A token of the shape that Django's SimpleJWT makes.
pub(crate) fn mint(
    secret: &SecretString,
    user_id: &str,
    hours: u32,
) -> Result<String, jsonwebtoken::errors::Error> {
    let expires_at = wall_now() + chrono::Duration::hours(i64::from(hours));
    let claims = json!({
        "token_type": "access",
        "user_id": user_id,
        "email": format!("{user_id}@example.com"),
        "exp": expires_at.timestamp(),
    });
    let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
    encode(&Header::default(), &claims, &key)
}
