//! The simulator, over HTTP, as the product meets it.

mod deliveries;
mod faults;
mod kit;
mod pages;
mod paypal;
mod paypal_proof;
mod strict;
mod stripe;
mod stripe_idempotency;
mod stripe_refunds;
