//! The end of a run: the gateways' truth against our payments, our payments against the ledger.

use std::collections::{BTreeMap, BTreeSet};

use shared::check;
use shared::payments::Difference;
use simulator::Truth;

use super::world::{News, World};

/// One payment as our books have it; money in minor units.
#[derive(Debug, sqlx::FromRow)]
struct Ours {
    id: String,
    status: String,
    amount: i64,
    captured: i64,
    refunded: i64,
    /// Refunds that left the customer his tokens.
    refunded_only: i64,
    disputed: i64,
    lost: i64,
    /// Tokens that its capture gave, and those that were taken back of them.
    given: Option<i64>,
    taken: Option<i64>,
}

const OURS: &str = "
    select p.id::text, p.status::text, p.amount_minor as amount,
           coalesce(o.captured, 0)::bigint as captured,
           coalesce(r.refunded, 0)::bigint as refunded,
           coalesce(r.refunded_only, 0)::bigint as refunded_only,
           coalesce(d.disputed, 0)::bigint as disputed, coalesce(l.lost, 0)::bigint as lost,
           g.tokens as given, g.taken
    from payments p
    left join lateral (select sum(captured_minor) as captured from payment_objects o
                       where o.customer_id = p.customer_id and o.payment_id = p.id) o on true
    left join lateral (select sum(amount_minor) as refunded,
                              sum(amount_minor) filter (where choice = 'none') as refunded_only
                       from refunds r where r.customer_id = p.customer_id
                        and r.payment_id = p.id and r.status <> 'failed') r on true
    left join lateral (select sum(amount_minor) as disputed from disputes d
                       where d.customer_id = p.customer_id and d.payment_id = p.id
                         and d.stage = 'open') d on true
    left join lateral (select sum(least(m.lost, m.captured - m.refunded)) as lost
                       from payment_money m
                       where m.customer_id = p.customer_id and m.payment_id = p.id) l on true
    left join grants g on g.customer_id = p.customer_id and g.source_kind = 'payment'
      and g.source_id = p.id
    order by p.id";

/// What the audit found, for the report.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Payments by how they ended.
    pub(super) statuses: BTreeMap<String, u64>,
    /// Events by status.
    pub(super) events: BTreeMap<String, u64>,
    /// What the gateways hold of the money captured, in minor units.
    pub(super) kept_minor: i64,
    /// Payments that do not agree, each with why; all of them are on the quarantine list.
    pub(super) disagreeing: Vec<String>,
}

/// What the gateways say of one payment, over all its objects.
#[derive(Debug, Default, PartialEq, Eq)]
struct Theirs {
    captured: i64,
    refunded: i64,
    disputed: i64,
    lost: i64,
    /// Objects that keep money.
    keeping: usize,
}

impl Theirs {
    fn add(&mut self, truth: &Truth) {
        self.captured += truth.captured_minor;
        self.refunded += truth.refunded_minor;
        self.disputed += truth.disputed_minor;
        let lost = truth.lost_minor.min(truth.captured_minor - truth.refunded_minor);
        self.lost += lost;
        let keeps = truth.captured_minor > truth.refunded_minor + lost;
        self.keeping += usize::from(keeps);
    }
}

/// Fails unless truth, payments and ledger agree, or the quarantine list names what does not.
pub(super) async fn audit(world: &World, differences: &[Difference]) -> Findings {
    let mut wrong = broken(world).await;
    let mut theirs: BTreeMap<String, Theirs> = BTreeMap::new();
    for truth in world.app.simulator.truth() {
        if let Some(id) = &truth.payment_id {
            theirs.entry(id.clone()).or_default().add(&truth);
        }
    }
    let ours: Vec<Ours> = sqlx::query_as(OURS).fetch_all(&world.app.app.db).await.unwrap();
    let mut findings = Findings::default();
    let named = named(world, differences).await;
    for payment in &ours {
        *findings.statuses.entry(payment.status.clone()).or_default() += 1;
        let theirs = theirs.remove(&payment.id).unwrap_or_default();
        findings.kept_minor += theirs.captured - theirs.refunded - theirs.lost;
        if let Some(why) = disagreement(world, payment, &theirs) {
            if !named.contains(&payment.id) {
                wrong.push(format!("a third state: {why}: {}", story(world, &payment.id).await));
            }
            findings.disagreeing.push(format!("{}: {why}", payment.id));
        }
    }
    let nobodys: Vec<_> = theirs.iter().filter(|(_, theirs)| theirs.captured > 0).collect();
    assert!(nobodys.is_empty(), "money of no payment of ours: {nobodys:?}");
    findings.events = events(world).await;
    wrong.extend(unexplained(world).await);
    let alerts = harness::logs::alerts();
    let alerts = alerts.iter().filter(|line| line.contains("ERROR")).count();
    assert!(wrong.is_empty(), "seed {}, {alerts} alerts:\n{}", world.seed, wrong.join("\n\n"));
    findings
}

/// The books' own invariants that do not hold.
async fn broken(world: &World) -> Vec<String> {
    let mut broken = Vec::new();
    for finding in check::run(&world.app.app.db, shared::tokens::Depth::Full, world.app.clock.now())
        .await
        .unwrap()
    {
        if finding.violations > 0 {
            let example = finding.example.clone().unwrap_or_default();
            let payment = example.split(' ').next_back().unwrap_or_default();
            broken.push(format!("{finding:?}: {}", story(world, payment).await));
        }
    }
    broken
}

/// Everything that is known of a payment, for whoever reads why a run failed.
pub(super) async fn story(world: &World, payment: &str) -> String {
    let rows = "
        select 'payment ' || to_jsonb(p)::text from payments p where id = $1
        union all select 'object ' || to_jsonb(o)::text from payment_objects o where payment_id = $1
        union all select 'refund ' || to_jsonb(r)::text from refunds r where payment_id = $1
        union all select 'dispute ' || to_jsonb(d)::text from disputes d where payment_id = $1
        union all select 'lot ' || to_jsonb(g)::text from grants g where source_id = $1
        union all select 'event ' || kind || ' ' || status || ' ' || coalesce(last_error, '')
            from webhook_events e where exists (
                select from gateway_objects o where o.payment_id = $1
                   and position(o.object_id in convert_from(e.payload, 'UTF8')) > 0)";
    let Ok(id) = payment.parse::<uuid::Uuid>() else { return payment.to_owned() };
    let rows: Vec<String> =
        sqlx::query_scalar(rows).bind(id).fetch_all(&world.app.app.db).await.unwrap();
    let truths = world.app.simulator.truth();
    let truths = truths.iter().filter(|truth| truth.payment_id.as_deref() == Some(payment));
    let truths: Vec<_> = truths.map(|truth| format!("truth {truth:?}")).collect();
    format!("{payment}\n  {}\n  {}", rows.join("\n  "), truths.join("\n  "))
}

fn disagreement(world: &World, ours: &Ours, theirs: &Theirs) -> Option<String> {
    let pairs = [
        ("captured", ours.captured, theirs.captured),
        ("refunded", ours.refunded, theirs.refunded),
        ("disputed", ours.disputed, theirs.disputed),
        ("lost", ours.lost, theirs.lost),
    ];
    // Without any news nobody tells us what became of captured money.
    let told = if world.news == News::None { 1 } else { pairs.len() };
    for (what, ours, theirs) in pairs.into_iter().take(told) {
        if ours != theirs {
            return Some(format!("{what} {ours} here, {theirs} there"));
        }
    }
    let is_paid = matches!(ours.status.as_str(), "completed" | "refunded");
    if is_paid != (theirs.captured > 0) {
        return Some(format!("{} with {} captured", ours.status, theirs.captured));
    }
    if world.news == News::None {
        return None;
    }
    if theirs.keeping > 1 {
        return Some("captured twice and kept".to_owned());
    }
    tokens(ours, theirs)
}

/// The lot's tokens by the rule, reckoned anew from the gateways' money. A payment that was
/// captured twice is left to `check`, which knows which capture counts.
fn tokens(ours: &Ours, theirs: &Theirs) -> Option<String> {
    let gone = theirs.refunded + theirs.lost;
    let (Some(given), Some(taken)) = (ours.given, ours.taken) else {
        return (theirs.captured > gone).then(|| "paid and not granted".to_owned());
    };
    if theirs.captured != ours.amount {
        return (theirs.captured == 0).then(|| "granted without a capture".to_owned());
    }
    let due = i128::from(given) * i128::from(gone - ours.refunded_only);
    let due = (due + i128::from(ours.amount) - 1) / i128::from(ours.amount);
    (due != i128::from(taken)).then(|| format!("{taken} of {given} tokens taken, {due} are due"))
}

/// Why an event may end in quarantine: it, or what was read for it, named other money than ours.
const EXPLAINED: [&str; 5] =
    ["amount is", "currency is", "captured is", "it refunds", "it contests"];

/// What tells that an object collected nothing and never will.
const ENDINGS: [&str; 2] = ["checkout.session.expired", "payment_intent.canceled"];

/// Payments that the quarantine list names: by an event, or by a difference that is not healed.
async fn named(world: &World, differences: &[Difference]) -> BTreeSet<String> {
    let named = differences.iter().filter(|difference| !difference.is_healed);
    let mut named: BTreeSet<String> =
        named.filter_map(|difference| difference.payment_id).map(|id| id.to_string()).collect();
    let events: Vec<Vec<u8>> = sqlx::query_scalar(
        "select payload from webhook_events where status not in ('processed', 'ignored')",
    )
    .fetch_all(&world.app.app.db)
    .await
    .unwrap();
    let ids: Vec<(String, String)> = sqlx::query_as(
        "select object_id, payment_id::text from gateway_objects
         union all select gateway_refund_id, payment_id::text from refunds
                   where gateway_refund_id is not null
         union all select id::text, id::text from payments",
    )
    .fetch_all(&world.app.app.db)
    .await
    .unwrap();
    for payload in events {
        let payload = String::from_utf8_lossy(&payload);
        let its = ids.iter().filter(|(id, _)| payload.contains(id.as_str()));
        named.extend(its.map(|(_, payment_id)| payment_id.clone()));
    }
    named
}

/// Events that are open, have failed, or are in quarantine without having named wrong money.
async fn unexplained(world: &World) -> Vec<String> {
    let rows: Vec<(String, String, String, Vec<u8>)> = sqlx::query_as(
        "select kind, status::text, coalesce(last_error, ''), payload from webhook_events
         where status not in ('processed', 'ignored')",
    )
    .fetch_all(&world.app.app.db)
    .await
    .unwrap();
    let is_explained = |kind: &str, status: &str, why: &str| {
        let is_money = EXPLAINED.iter().any(|reason| why.contains(reason));
        // Of two objects that a kept fault led to, the one that nobody ever learned of.
        let is_twin = ENDINGS.contains(&kind) && why.contains("no payment of ours owns");
        status == "quarantined" && (is_money || is_twin)
    };
    let rows = rows.into_iter().filter(|(kind, status, why, _)| !is_explained(kind, status, why));
    rows.map(|(kind, status, why, body)| {
        format!("{kind} is {status}: {why}: {}", String::from_utf8_lossy(&body))
    })
    .collect()
}

async fn events(world: &World) -> BTreeMap<String, u64> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select status::text, count(*) from webhook_events group by 1 order by 1")
            .fetch_all(&world.app.app.db)
            .await
            .unwrap();
    rows.into_iter().map(|(status, count)| (status, count.unsigned_abs())).collect()
}
