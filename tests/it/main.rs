//! Integration tests: over HTTP and the queue, on a fresh database each.
#![expect(clippy::unwrap_used, reason = "a test ends where its ground gives way")]

mod access;
mod afterlife;
mod bench;
mod chaos;
mod corrections;
mod crash;
mod disputes;
mod drain;
mod faults;
mod gateway_errors;
mod holds;
mod hostile;
mod hostile_paypal;
mod hostile_stripe;
mod hostile_transport;
mod kill;
mod lifecycle;
mod model;
mod outage;
mod paypal;
mod paypal_gateway;
mod purchase;
mod refunds;
mod stripe_gateway;
mod take_back;
mod tamper;
mod tidy;
mod tokens;
mod top_up;
mod vectors;
mod webhooks;
mod writer;
