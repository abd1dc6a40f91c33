//! A wire between us and a gateway that a test can cut: refused, hanging, reset, or losing answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, copy, copy_bidirectional, sink};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// It reaches the gateway.
    Whole,
    /// Nobody listens.
    Refuses,
    /// It is accepted and never answered; nothing reaches the gateway.
    Hangs,
    /// It is reset once something was sent; nothing reaches the gateway.
    Resets,
    /// What is sent reaches the gateway; no answer ever comes back.
    LosesAnswers,
}

/// A wire to one gateway. It is cut for good when this is dropped.
pub struct Proxy {
    addr: SocketAddr,
    wire: watch::Sender<Wire>,
    most: Arc<AtomicUsize>,
}

impl Proxy {
    /// Lays a wire to `target`, an address like `http://127.0.0.1:12111`.
    pub fn start(target: &str) -> Self {
        let target = target.strip_prefix("http://").unwrap().parse().unwrap();
        let socket = bound(([127, 0, 0, 1], 0).into());
        let addr = socket.local_addr().unwrap();
        let (wire, now) = watch::channel(Wire::Whole);
        let most = Arc::default();
        tokio::spawn(serve(listening(socket), target, now, Arc::clone(&most)));
        Self { addr, wire, most }
    }

    /// Where to connect instead.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The most connections that were open at once since the wire last changed.
    pub fn most_at_once(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// Changes what becomes of connections; those that are open are cut.
    pub fn set(&self, wire: Wire) {
        self.wire.send(wire).unwrap();
    }
}

/// A socket that holds its port and refuses connections until it listens.
fn bound(addr: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(addr).unwrap();
    socket
}

fn listening(socket: TcpSocket) -> TcpListener {
    socket.listen(1_024).unwrap()
}

async fn serve(
    mut listener: TcpListener,
    target: SocketAddr,
    mut wire: watch::Receiver<Wire>,
    most: Arc<AtomicUsize>,
) {
    let addr = listener.local_addr().unwrap();
    loop {
        let now = *wire.borrow_and_update();
        if now == Wire::Refuses {
            drop(listener);
            let closed = bound(addr);
            if wire.changed().await.is_err() {
                return;
            }
            listener = listening(closed);
            continue;
        }
        // Dropped when the wire changes: that cuts all of them.
        let mut connections = JoinSet::new();
        most.store(0, Ordering::SeqCst);
        loop {
            // Ends are counted before beginnings.
            tokio::select! {
                biased;
                Some(_ended) = connections.join_next() => {}
                changed = wire.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                accepted = listener.accept() => {
                    connections.spawn(carry(accepted.unwrap().0, target, now));
                    most.fetch_max(connections.len(), Ordering::SeqCst);
                }
            }
        }
    }
}

async fn carry(mut ours: TcpStream, target: SocketAddr, wire: Wire) {
    match wire {
        Wire::Whole => {
            let Ok(mut theirs) = TcpStream::connect(target).await else { return };
            let _cut = copy_bidirectional(&mut ours, &mut theirs).await;
        }
        Wire::Refuses => {}
        Wire::Hangs => {
            let _cut = copy(&mut ours, &mut sink()).await;
        }
        Wire::Resets => {
            let _sent = ours.read(&mut [0; 1]).await;
            let _reset_on_drop = ours.set_zero_linger();
        }
        Wire::LosesAnswers => {
            let Ok(theirs) = TcpStream::connect(target).await else { return };
            let (mut answers, mut questions) = theirs.into_split();
            let asking = copy(&mut ours, &mut questions);
            let losing = async { copy(&mut answers, &mut sink()).await };
            let _cut = tokio::join!(asking, losing);
        }
    }
}
