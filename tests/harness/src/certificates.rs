//! A server of certificates in PayPal's place: answers what it is told to, and counts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Datelike, Duration, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What the server answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A 200 with this text.
    Text(String),
    /// This status line and headers, without a body.
    Head(&'static str),
    /// Nothing: the connection stays open.
    Silence,
    /// A 200 whose body does not end before ten megabytes.
    Flood,
}

/// The server; it ends with the test's runtime.
pub struct CertificateServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// The authority that its own certificate is of, and any test's that wants one.
    pub authority: Authority,
    connections: Arc<AtomicUsize>,
    answer: Arc<Mutex<Answer>>,
}

/// An authority that exists for one test.
pub type Authority = CertifiedIssuer<'static, KeyPair>;

impl CertificateServer {
    /// Starts it as `api.sandbox.paypal.com` and `api.paypal.com`, answering 404.
    pub async fn start() -> Self {
        let authority = authority("Tests' Root CA");
        let key = KeyPair::generate().unwrap();
        let mut leaf = leaf("api.sandbox.paypal.com", 30);
        let live = SanType::DnsName("api.paypal.com".try_into().unwrap());
        leaf.subject_alt_names.push(live);
        let leaf = leaf.signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(Mutex::new(Answer::Head("404 Not Found\r\n")));
        let (counted, told) = (Arc::clone(&connections), Arc::clone(&answer));
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(tls));
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(talk(stream, acceptor.clone(), Arc::clone(&told)));
            }
        });
        Self { address, authority, connections, answer }
    }

    /// Sets what it answers from now on.
    pub fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Connections so far. Every answer closes its connection: as many as questions, or more.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn talk(stream: TcpStream, acceptor: TlsAcceptor, answer: Arc<Mutex<Answer>>) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut question = vec![0; 8 * 1024];
    let Ok(_) = stream.read(&mut question).await else { return };
    let answer = answer.lock().unwrap().clone();
    let head = match &answer {
        Answer::Silence => return std::future::pending().await,
        Answer::Text(text) => format!("200 OK\r\ncontent-length: {}\r\n", text.len()),
        Answer::Flood => "200 OK\r\n".to_owned(),
        Answer::Head(head) => format!("{head}content-length: 0\r\n"),
    };
    let head = format!("HTTP/1.1 {head}connection: close\r\n\r\n");
    let _gone = stream.write_all(head.as_bytes()).await;
    match answer {
        Answer::Text(text) => drop(stream.write_all(text.as_bytes()).await),
        Answer::Flood => {
            let part = vec![b'x'; 64 * 1024];
            for _ in 0..160 {
                if stream.write_all(&part).await.is_err() {
                    break;
                }
            }
        }
        Answer::Head(_) | Answer::Silence => {}
    }
    let _gone = stream.shutdown().await;
}

/// Makes an authority that nobody trusts yet.
pub fn authority(name: &str) -> Authority {
    CertifiedIssuer::self_signed(authority_of(name), KeyPair::generate().unwrap()).unwrap()
}

/// Makes an authority below another.
pub fn authority_below(name: &str, above: &Authority) -> Authority {
    CertifiedIssuer::signed_by(authority_of(name), KeyPair::generate().unwrap(), above).unwrap()
}

fn authority_of(name: &str) -> CertificateParams {
    let mut params = valid(CertificateParams::default(), -1, 30);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The wish for a certificate of that name, valid from yesterday for so many days; or, where they
/// are negative, until so many days ago.
pub fn leaf(name: &str, days: i64) -> CertificateParams {
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let mut params = valid(params, (-1).min(days - 10), days);
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// Makes the wish one that is valid between these days from now.
pub fn valid(mut params: CertificateParams, from: i64, until: i64) -> CertificateParams {
    let day = |days| {
        let at: DateTime<Utc> = shared::clock::wall_now() + Duration::days(days);
        let part = |number: u32| u8::try_from(number).unwrap();
        date_time_ymd(at.year(), part(at.month()), part(at.day()))
    };
    params.not_before = day(from);
    params.not_after = day(until);
    params
}
