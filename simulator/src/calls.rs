//! The way of an API call, the same for both gateways: journal, faults, then the gateway itself.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::Gateway;
use crate::faults::Trouble;
use crate::journal::Call;
use crate::server::Kill;
use crate::world::{Cause, Core};

/// Requests larger than this are refused; the largest real ones are event bodies to verify.
const LARGEST_REQUEST_BYTES: usize = 1 << 20;

/// How long an answer waits at most for its events to be delivered first.
const LONGEST_HOLD: Duration = Duration::from_secs(5);

/// A call as it came in.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) request_id: String,
    pub(crate) key: Option<String>,
}

impl Inbound {
    /// Returns a header that is plain text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the parts of the path.
    pub(crate) fn segments(&self) -> Vec<&str> {
        self.path.split('/').filter(|part| !part.is_empty()).collect()
    }

    /// Returns what the events of this call name as their cause.
    pub(crate) fn cause(&self) -> Cause {
        Cause { request_id: Some(self.request_id.clone()), idempotency_key: self.key.clone() }
    }
}

/// An answer before it becomes bytes.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Payload,
    pub(crate) is_replay: bool,
    pub(crate) effects: Vec<String>,
}

/// What an answer carries.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    Json(Value),
    Text(&'static str, String),
    Empty,
}

impl Answer {
    pub(crate) fn json(status: StatusCode, body: Value) -> Self {
        Answer {
            status,
            headers: Vec::new(),
            body: Payload::Json(body),
            is_replay: false,
            effects: Vec::new(),
        }
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn into_response(self, is_cut: bool) -> Response {
        let (kind, mut bytes) = match self.body {
            Payload::Json(body) => ("application/json", body.to_string().into_bytes()),
            Payload::Text(kind, text) => (kind, text.into_bytes()),
            Payload::Empty => ("application/json", Vec::new()),
        };
        if is_cut {
            bytes.truncate(bytes.len() / 2);
        }
        let mut response = (self.status, Body::from(bytes)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// Whether a call runs as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It does, and is remembered.
    Well,
    /// It fails before it does anything, and that failure is remembered.
    FailsIdle,
    /// It does everything, and a failure is remembered.
    FailsDone,
}

/// What the two gateways differ in.
pub(crate) trait Dialect: Send + Sync + 'static {
    const GATEWAY: Gateway;
    /// Name of the header with the caller's idempotency key.
    const KEY_HEADER: &'static str;
    /// A call that was understood and may be executed.
    type Prepared: Send + 'static;

    /// Names a new call.
    fn request_id() -> String;
    /// Checks who calls and what is asked; a repeated call is answered from memory.
    fn prepare(core: &Core, inbound: &Inbound) -> Result<Self::Prepared, Answer>;
    /// Does what is asked, at one instant.
    fn execute(core: &Core, inbound: &Inbound, prepared: Self::Prepared, fate: Fate) -> Answer;
    /// Says 429 or 5xx in the gateway's own words.
    fn failure(inbound: &Inbound, status: StatusCode) -> Answer;
}

/// What becomes of the connection.
enum Outcome {
    Response(Box<Response>),
    Reset,
}

/// Serves one call. It runs to its end even if the caller hangs up, as it would at the gateway.
pub(crate) async fn serve<D: Dialect>(State(core): State<Arc<Core>>, request: Request) -> Response {
    let kill = request.extensions().get::<Kill>().cloned().unwrap_or_default();
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST_REQUEST_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let key = parts.headers.get(D::KEY_HEADER).and_then(|value| value.to_str().ok());
    let inbound = Inbound {
        key: key.map(str::to_owned),
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
        request_id: D::request_id(),
    };
    match tokio::spawn(run::<D>(core, inbound)).await {
        Ok(Outcome::Response(response)) => *response,
        Ok(Outcome::Reset) => match kill.strike().await {},
        Err(error) => {
            tracing::error!(%error, "a simulated call failed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn run<D: Dialect>(core: Arc<Core>, inbound: Inbound) -> Outcome {
    let (number, trouble, first_event) = arrive::<D>(&core, &inbound);
    let answer = match &trouble {
        Some(Trouble::ErrorBefore) => Some(D::failure(&inbound, StatusCode::INTERNAL_SERVER_ERROR)),
        Some(Trouble::RateLimited { retry_after_s }) => Some(
            D::failure(&inbound, StatusCode::TOO_MANY_REQUESTS)
                .with("retry-after", retry_after_s.to_string()),
        ),
        Some(Trouble::ResetBefore) => return Outcome::Reset,
        Some(_) | None => None,
    };
    let mut answer = match answer {
        Some(answer) => answer,
        None => perform::<D>(&core, &inbound, trouble.as_ref()).await,
    };
    if trouble == Some(Trouble::AnswerAfterWebhook) {
        hold(&core, first_event).await;
    }
    let effects = std::mem::take(&mut answer.effects);
    if trouble == Some(Trouble::ResetAfter) {
        core.world().journal.close(number, |call| call.effects = effects);
        return Outcome::Reset;
    }
    if trouble == Some(Trouble::AnswerLost) {
        answer = D::failure(&inbound, StatusCode::BAD_GATEWAY);
    }
    falsify(&mut answer, trouble.as_ref());
    core.world().journal.close(number, |call| {
        call.status = Some(answer.status.as_u16());
        call.replayed = answer.is_replay;
        call.effects = effects;
    });
    Outcome::Response(Box::new(answer.into_response(trouble == Some(Trouble::MalformedAnswer))))
}

/// Writes the call down and asks what goes wrong with it.
fn arrive<D: Dialect>(core: &Core, inbound: &Inbound) -> (u64, Option<Trouble>, usize) {
    let at = core.clock.now();
    let world = &mut *core.world();
    let name = format!("{} {}", inbound.method, inbound.path);
    let trouble = world.faults.on_call(D::GATEWAY, &name);
    let number = world.journal.open(Call {
        number: 0,
        at,
        gateway: D::GATEWAY,
        method: inbound.method.to_string(),
        path: inbound.path.clone(),
        idempotency_key: inbound.key.clone(),
        request_id: inbound.request_id.clone(),
        status: None,
        replayed: false,
        trouble: trouble.clone(),
        effects: Vec::new(),
    });
    (number, trouble, world.outbox.events.len())
}

async fn perform<D: Dialect>(core: &Core, inbound: &Inbound, trouble: Option<&Trouble>) -> Answer {
    let prepared = match D::prepare(core, inbound) {
        Ok(prepared) => prepared,
        Err(answer) => return answer,
    };
    let fate = match trouble {
        Some(Trouble::Slow { ms }) => {
            tokio::time::sleep(Duration::from_millis(*ms)).await;
            Fate::Well
        }
        Some(Trouble::ErrorSaved) => Fate::FailsIdle,
        Some(Trouble::ErrorAfter) => Fate::FailsDone,
        Some(_) | None => Fate::Well,
    };
    D::execute(core, inbound, prepared, fate)
}

/// Waits until the events made since `first_event` were each tried once.
async fn hold(core: &Core, first_event: usize) {
    let tried = async {
        loop {
            let landed = core.landed.notified();
            tokio::pin!(landed);
            // Listening starts before looking, so that no landing falls between the two.
            landed.as_mut().enable();
            if core.world().outbox.attempted_since(first_event) {
                return;
            }
            landed.await;
        }
    };
    let _ = tokio::time::timeout(LONGEST_HOLD, tried).await;
}

/// Puts a wrong amount or currency into an answer.
fn falsify(answer: &mut Answer, trouble: Option<&Trouble>) {
    let Payload::Json(body) = &mut answer.body else { return };
    match trouble {
        Some(Trouble::WrongAmount) => change(body, &mut |name, value| match (name, &*value) {
            ("amount" | "amount_received", Value::Number(number)) => {
                *value = json!(number.as_i64().unwrap_or_default() + 1);
            }
            ("value", Value::String(text)) => *value = json!(format!("1{text}")),
            _ => {}
        }),
        Some(Trouble::WrongCurrency) => change(body, &mut |name, value| match name {
            "currency" => *value = json!("sek"),
            "currency_code" => *value = json!("SEK"),
            _ => {}
        }),
        Some(_) | None => {}
    }
}

fn change(value: &mut Value, edit: &mut impl FnMut(&str, &mut Value)) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                edit(name, field);
                change(field, edit);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| change(item, edit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
