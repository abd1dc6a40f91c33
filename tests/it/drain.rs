//! The order to stop: what runs may end, nothing new begins, and nobody waits for ever.

use std::time::Duration;

use harness::TestApp;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No wait may take longer.
const DEADLINE: Duration = Duration::from_secs(30);

struct Server {
    address: String,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

/// A second API over the application's state that can be told to stop.
async fn serve(app: &TestApp, drain: Duration) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut state = app.api.clone();
    state.limits.drain = drain;
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(api::serve(state, listener, async move {
        let _dropped_is_stopped = stopped.await;
    }));
    Server { address, stop, served }
}

/// Starts a webhook and leaves out the last byte of its body.
async fn started(app: &TestApp, address: &str, body: &[u8]) -> TcpStream {
    let mut head =
        format!("POST /api/v1/billing/webhooks/stripe/ HTTP/1.1\r\ncontent-length: {}", body.len());
    for (name, value) in app.simulator.signed_stripe(body) {
        head = format!("{head}\r\n{name}: {value}");
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}\r\nexpect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
    // The server asks for the body once it has taken up the request.
    let mut answer = [0; 25];
    timeout(DEADLINE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&body[..body.len() - 1]).await.unwrap();
    stream
}

fn event() -> Vec<u8> {
    json!({ "id": "evt_1", "object": "event", "type": "plan.created" }).to_string().into_bytes()
}

#[tokio::test]
async fn a_running_request_ends_after_the_order_to_stop_and_no_other_begins() {
    let app = TestApp::start().await;
    let server = serve(&app, DEADLINE).await;
    let mut idle = TcpStream::connect(&server.address).await.unwrap();
    let mut running = started(&app, &server.address, &event()).await;

    server.stop.send(()).unwrap();
    let mut rest = Vec::new();
    timeout(DEADLINE, idle.read_to_end(&mut rest)).await.expect("idle ones are closed").unwrap();
    assert!(TcpStream::connect(&server.address).await.is_err(), "nobody listens any more");
    running.write_all(b"}").await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, running.read_to_string(&mut answer)).await.unwrap().unwrap();

    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(timeout(DEADLINE, server.served).await.unwrap().unwrap().is_ok());
    assert_eq!(app.scalar("select count(*) from webhook_events").await, 1);
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_the_process() {
    let app = TestApp::start().await;
    let server = serve(&app, Duration::from_millis(50)).await;
    let _running = started(&app, &server.address, &event()).await;

    server.stop.send(()).unwrap();

    assert!(timeout(DEADLINE, server.served).await.unwrap().unwrap().is_ok());
    assert_eq!(app.scalar("select count(*) from webhook_events").await, 0);
}
