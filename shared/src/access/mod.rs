//! Who may call.

mod api_keys;
mod jwt;
mod store;

pub use api_keys::{
    KeyRefused, Scope, Service, create_key, looks_like_key, revoke_key, verify_key,
};
pub use jwt::{Keys, Unauthenticated};
