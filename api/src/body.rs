//! Reads whole bodies before anything looks at them: so much, so long, and no more.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;

use crate::problem::Problem;

/// What a body may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) bytes: usize,
    pub(crate) time: Duration,
}

/// Why a body is not there.
enum Unread {
    TooLarge,
    Broken,
}

/// Passes a request on with its whole body in memory, or answers 413, 408 or 400.
///
/// After any doubt where this request ends, the connection is closed: whatever follows on it is
/// never taken for a request.
pub(crate) async fn read_whole(
    State(bounds): State<Bounds>,
    request: Request,
    next: Next,
) -> Response {
    let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let (parts, body) = request.into_parts();
    let announced = parts.headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let problem = match tokio::time::timeout(bounds.time, read(body, announced, bounds.bytes)).await
    {
        Ok(Ok(bytes)) => {
            let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
            return if is_chunked { closing(response) } else { response };
        }
        Ok(Err(Unread::TooLarge)) => {
            let detail = "The body is too large.";
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
        }
        Ok(Err(Unread::Broken)) => {
            let detail = "The body could not be read.";
            Problem::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
        }
        Err(_elapsed) => {
            let detail = "The body did not arrive in time.";
            Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail)
        }
    };
    closing(problem.into_response())
}

/// Keeps at most `limit` bytes. Reads, without keeping it, as much again before it refuses: an
/// answer to somebody who is still sending would be lost in a reset.
async fn read(mut body: Body, announced: Option<usize>, limit: usize) -> Result<Bytes, Unread> {
    if announced.is_some_and(|announced| announced > 2 * limit) {
        return Err(Unread::TooLarge);
    }
    let mut kept = Vec::with_capacity(announced.unwrap_or(0).min(limit));
    let mut seen = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(Unread::Broken) };
        let Ok(part) = frame.into_data() else { continue };
        seen = seen.saturating_add(part.len());
        if seen <= limit {
            kept.extend_from_slice(&part);
        } else if seen > 2 * limit {
            break;
        }
    }
    if seen > limit { Err(Unread::TooLarge) } else { Ok(kept.into()) }
}

fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
