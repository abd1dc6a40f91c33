//! Accepts connections, in the clear or over TLS, and can cut one off without an answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Cuts the connection that a request came by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kill(Arc<Notify>);

impl Kill {
    /// Resets the connection; never returns, since nobody is left to answer to.
    pub(crate) async fn strike(&self) -> Infallible {
        self.0.notify_one();
        std::future::pending().await
    }
}

/// Binds a port of the loopback interface.
pub(crate) async fn bind(port: u16) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves until dropped; all its connections end with it.
pub(crate) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, tls.clone(), router.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Out of file handles, most likely: give others time to close some.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router) {
    // Small answers must not wait for the other side's acknowledgement.
    let _ = stream.set_nodelay(true);
    match tls {
        None => {
            if let Some(stream) = talk(stream, router).await {
                let _ = stream.set_zero_linger();
            }
        }
        Some(acceptor) => {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            if let Some(stream) = talk(stream, router).await {
                let _ = stream.get_ref().0.set_zero_linger();
            }
        }
    }
}

/// Answers requests until the connection ends; returns it if it is to be reset.
async fn talk<S>(stream: S, router: Router) -> Option<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let kill = Kill::default();
    let killed = Arc::clone(&kill.0);
    let application = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(kill.clone());
        application.call(request)
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = &mut connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
            None
        }
        () = killed.notified() => Some(connection.into_parts().io.into_inner()),
    }
}
