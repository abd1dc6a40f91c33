//! Reading the gateways' own lists of events, for those whose webhook was lost.

use chrono::{DateTime, Duration, Utc};

use super::store::{self, NewEvent};
use crate::App;
use crate::clock::wall_now;
use crate::error::Error;
use crate::gateways::{GatewayName, Span};
use crate::ids::WebhookEventId;
use crate::jobs::Job;

/// Read again each time: an event may appear in the list after younger ones.
const OVERLAP: Duration = Duration::minutes(15);

/// How far back the first reading looks: gateways try that long to deliver.
const FIRST: Duration = Duration::days(3);

/// Inserts every event of the gateway's list that its webhook has not brought, and rings for it.
///
/// What is in the list came over an authenticated connection: it needs no signature. May be
/// repeated: an event that is stored is left alone. Returns how many were new.
pub async fn fetch_missed(app: &App, name: GatewayName) -> Result<usize, Error> {
    let Ok(gateway) = app.gateways.get(name) else { return Ok(0) };
    let billing = app.clock.now();
    let wall = wall_now();
    let cursor = store::cursor(&app.db, name).await?;
    let from = cursor.unwrap_or(billing.min(wall) - FIRST) - OVERLAP;
    let span = Span { from, until: billing.max(wall) + Duration::hours(1) };
    let mut count = 0;
    let mut page_cursor = None;
    loop {
        let page = gateway.events_since(&span, page_cursor.as_deref()).await?;
        for fetched in &page.items {
            let id = WebhookEventId::new(wall_now());
            let new = NewEvent::of(id, name, fetched.event.clone(), &fetched.payload, billing);
            let mut connection = app.db.acquire().await?;
            if !store::insert(&mut connection, &[&new]).await?.is_empty() {
                count += 1;
                app.doorbell.ring(Job::ProcessWebhookEvent { event_id: id, attempt: 0 });
            }
        }
        match page.next {
            Some(next) => page_cursor = Some(next),
            None => break,
        }
    }
    store::set_cursor(&app.db, name, billing.min(wall), billing).await?;
    if count > 0 {
        tracing::warn!(gateway = name.as_str(), count, "events whose webhook did not come");
    }
    Ok(count)
}

/// The job that reads the list of a gateway, once a tick.
pub fn fetch_jobs(app: &App, tick: DateTime<Utc>) -> Vec<Job> {
    [GatewayName::Stripe, GatewayName::Paypal]
        .into_iter()
        .filter(|name| app.gateways.get(*name).is_ok())
        .map(|gateway| Job::FetchEvents { gateway, tick: tick.timestamp() })
        .collect()
}
