//! Accepts connections, and bounds what one of them may cost: time, memory, number.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::ApiState;
use crate::router::router;

/// What a connection may take. Tests set shorter times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the connection's start, or the last answer, until a request's headers are there.
    pub headers: Duration,
    /// From there until its body is there.
    pub body: Duration,
    /// For running requests after the order to stop.
    pub drain: Duration,
    /// Open connections; more wait to be accepted.
    pub connections: usize,
}

impl Default for Limits {
    /// A stalled peer is dropped after 10 s, well before its place is missed; platforms kill 30 s
    /// after the order to stop; 4,096 connections of 64 KiB fit a small machine.
    fn default() -> Self {
        Self {
            headers: Duration::from_secs(10),
            body: Duration::from_secs(10),
            drain: Duration::from_secs(25),
            connections: 4_096,
        }
    }
}

/// Most bytes of a request's headers: Stripe's and PayPal's have some 2 KiB.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// A limiter of addresses forgets those that were quiet, and counts are logged, this often.
const TEND_EVERY: Duration = Duration::from_mins(1);

/// The other end of a request's connection. Headers that claim another one decide nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Serves until `stop` completes, then lets running requests end, for 25 s at most.
pub async fn serve(
    state: ApiState,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let limits = state.limits;
    let guard = Arc::clone(&state.guard);
    let router = router(state);
    let (stopping, is_stopping) = watch::channel(false);
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let mut minute = tokio::time::interval(TEND_EVERY);
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            (stream, peer, place) = accept(&listener, &places) => {
                let talked = talk(stream, peer, router.clone(), limits, is_stopping.clone());
                connections.spawn(async move {
                    talked.await;
                    drop(place);
                });
            }
            Some(_) = connections.join_next() => {}
            _ = minute.tick() => guard.tend(),
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        tracing::warn!("requests were still running when the time to stop was over");
    }
    Ok(())
}

/// The next connection, once there is a place for it. May be cancelled without losing one.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let place = Arc::clone(places).acquire_owned().await.expect("never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of file handles, most likely: others need time to close some.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Answers the requests of one connection until it ends, or its requests after the order to stop.
async fn talk(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    mut is_stopping: watch::Receiver<bool>,
) {
    // Fails on a connection that is gone, which reading finds out.
    let _gone = stream.set_nodelay(true);
    let application = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        application.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .max_buf_size(MAX_HEADER_BYTES);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let stopped = async {
        // An error means that serving has ended, which stops as well.
        drop(is_stopping.wait_for(|is_stopping| *is_stopping).await);
    };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
