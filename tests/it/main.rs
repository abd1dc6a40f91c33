//! Integration tests: over HTTP and the queue, on a fresh database each.
#![expect(clippy::unwrap_used, reason = "a test ends where its ground gives way")]

mod access;
mod crash;
mod paypal;
mod paypal_gateway;
mod purchase;
mod stripe_gateway;
mod take_back;
mod tidy;
mod tokens;
mod webhooks;
