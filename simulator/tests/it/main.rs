//! The simulator, over HTTP, as the product meets it.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod deliveries;
mod docs;
mod faults;
mod kit;
mod pages;
mod paypal;
mod paypal_captures;
mod paypal_disputes;
mod paypal_proof;
mod paypal_refunds;
mod paypal_vault;
mod required;
mod strict;
mod stripe;
mod stripe_disputes;
mod stripe_idempotency;
mod stripe_methods;
mod stripe_refunds;
mod stripe_sessions;
mod stripe_setups;
