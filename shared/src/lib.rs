//! The business of Tollgate: plans, payments, subscriptions, tokens, webhooks.
//!
//! A folder per concept, a file per operation, one rules file (pure) and one store file (SQL) each.
//! Dependencies point one way: webhooks > payments > subscriptions > tokens > the small modules.

pub mod access;
pub mod app;
pub mod audit;
pub mod check;
pub mod clock;
pub mod coalesce;
pub mod config;
pub mod customers;
pub mod db;
pub mod error;
pub mod events;
pub mod gateways;
pub mod ids;
pub mod jobs;
pub mod methods;
pub mod money;
pub mod payments;
pub mod plans;
pub mod subscriptions;
pub mod tokens;
pub mod webhooks;

pub use app::App;
pub use clock::Clock;
pub use error::Error;
