//! Who may call.

mod jwt;

pub use jwt::{Keys, Unauthenticated};
