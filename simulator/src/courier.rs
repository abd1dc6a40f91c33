//! One attempt: signs an event as of now and posts it, whole or damaged as told.

use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use crate::Gateway;
use crate::delivery::Flight;
use crate::faults::Trouble;
use crate::world::Core;

/// Makes the client that delivers. It trusts nobody over TLS: endpoints are on the loopback interface.
pub(crate) fn client() -> io::Result<reqwest::Client> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        // A redirect is not an acceptance.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(io::Error::other)
}

/// Sends one attempt and returns the endpoint's status, or `None` if there was no answer.
pub(crate) async fn send(core: &Core, flight: &Flight) -> Option<u16> {
    let (headers, body) = packed(core, flight);
    match flight.trouble {
        Some(Trouble::SlowBody { ms }) => {
            let pause = Some(Duration::from_millis(ms));
            dribble(&flight.url, &headers, &body, body.len(), pause).await
        }
        Some(Trouble::TruncatedBody) => {
            dribble(&flight.url, &headers, &body[..body.len() / 2], body.len(), None).await
        }
        Some(_) | None => {
            let mut request = core.client.post(&flight.url);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            Some(request.body(body).send().await.ok()?.status().as_u16())
        }
    }
}

/// Signs the event, then damages what the fault says.
fn packed(core: &Core, flight: &Flight) -> (Vec<(String, String)>, Vec<u8>) {
    let mut body = flight.event.body.clone();
    let now = core.clock.now();
    let (signed_at, is_forged) = match flight.trouble {
        Some(Trouble::StaleTime { seconds }) => {
            (now - chrono::TimeDelta::seconds(i64::from(seconds)), false)
        }
        Some(Trouble::FutureTime { seconds }) => {
            (now + chrono::TimeDelta::seconds(i64::from(seconds)), false)
        }
        Some(Trouble::WrongSecret) => (now, true),
        Some(_) | None => (now, false),
    };
    let mut headers = match flight.event.gateway {
        Gateway::Stripe => crate::stripe::signing::headers(core, &body, signed_at, is_forged),
        Gateway::PayPal => crate::paypal::signing::headers(core, &body, signed_at, is_forged),
    };
    match flight.trouble {
        Some(Trouble::FlipByte) => {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        Some(Trouble::Gzip) => headers.push(("Content-Encoding".into(), "gzip".into())),
        Some(Trouble::WrongContentType) => {
            headers.retain(|(name, _)| name != "Content-Type");
            headers.push(("Content-Type".into(), "text/plain".into()));
        }
        Some(_) | None => {}
    }
    (headers, body)
}

/// Posts over a bare connection: in eight parts with pauses, or less than was announced.
async fn dribble(
    url: &str,
    headers: &[(String, String)],
    body: &[u8],
    announced: usize,
    duration: Option<Duration>,
) -> Option<u16> {
    let url = Url::parse(url).ok()?;
    let address = (url.host_str()?.to_owned(), url.port_or_known_default()?);
    let mut stream = TcpStream::connect((address.0.as_str(), address.1)).await.ok()?;
    let mut head = format!("POST {} HTTP/1.1\r\nHost: {}\r\n", url.path(), url.authority());
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "Content-Length: {announced}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let parts = 8;
    for part in body.chunks(body.len().div_ceil(parts).max(1)) {
        stream.write_all(part).await.ok()?;
        if let Some(duration) = duration {
            tokio::time::sleep(duration / u32::try_from(parts).unwrap_or(1)).await;
        }
    }
    if body.len() < announced {
        return None;
    }
    let mut answer = vec![0; 64];
    let length = stream.read(&mut answer).await.ok()?;
    let text = String::from_utf8_lossy(&answer[..length]).into_owned();
    text.split(' ').nth(1)?.parse().ok()
}
