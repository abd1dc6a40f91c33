//! PayPal's signing certificates: fetched seldom, checked before they are kept.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reqwest::{Certificate, Client};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{
    CertificateDer, ServerName, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
};
use webpki::{EndEntityCert, KeyUsage, ring as algorithms};

use super::signature::{Environment, Rejection};

/// The certificate could not be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchFailed;

/// Where certificates come from.
#[async_trait]
pub trait FetchCertificate: Send + Sync {
    /// Fetches the PEM text at an address that was found to be PayPal's.
    async fn fetch(&self, url: &str) -> Result<Vec<u8>, FetchFailed>;
}

/// Fetches by HTTPS: no redirects, no proxy, 5 s and 64 KiB at most.
pub struct HttpsFetcher(Client);

/// Two certificates have some 4 KiB.
const MAX_PEM_BYTES: usize = 64 * 1024;

impl HttpsFetcher {
    /// Trusts `roots_pem` for TLS (the public authorities where it is `None`), and connects to
    /// `resolve` instead of asking DNS where that is set: both for development.
    pub fn new(
        environment: Environment,
        roots_pem: Option<&str>,
        resolve: Option<SocketAddr>,
    ) -> Result<Self, String> {
        let mut roots = Vec::new();
        if let Some(pem) = roots_pem {
            let pem = Certificate::from_pem_bundle(pem.as_bytes());
            roots.extend(pem.map_err(|_| "is no PEM of certificates".to_owned())?);
        } else {
            let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
            roots.extend(public.iter().filter_map(|der| Certificate::from_der(der).ok()));
        }
        let mut builder = Client::builder()
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(5))
            .tls_certs_only(roots);
        if let Some(address) = resolve {
            for host in environment.hosts() {
                builder = builder.resolve(host, address);
            }
        }
        builder.build().map(Self).map_err(|_| "makes no client".to_owned())
    }
}

#[async_trait]
impl FetchCertificate for HttpsFetcher {
    async fn fetch(&self, url: &str) -> Result<Vec<u8>, FetchFailed> {
        let sent = self.0.get(url).send().await;
        let mut response = sent.map_err(|_| FetchFailed)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchFailed);
        }
        let mut pem = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| FetchFailed)? {
            if pem.len() + chunk.len() > MAX_PEM_BYTES {
                return Err(FetchFailed);
            }
            pem.extend_from_slice(&chunk);
        }
        Ok(pem)
    }
}

/// A signer's certificate and those that lead to a root.
#[derive(Debug)]
pub struct Chain(Vec<CertificateDer<'static>>);

/// What real authorities sign certificates with; PayPal's own signatures are RSA with SHA-256.
static CHAIN_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
];

impl Chain {
    /// Reads PEM text: the first certificate is the signer's.
    fn parse(pem: &[u8]) -> Result<Self, Rejection> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(Self(certificates)),
            Ok(_) | Err(_) => Err(Rejection::CertParseFailed),
        }
    }

    fn signer(&self) -> Result<EndEntityCert<'_>, Rejection> {
        EndEntityCert::try_from(&self.0[0]).map_err(|_| Rejection::CertParseFailed)
    }

    /// Checks validity at `now`, the way to a root, and whose it is.
    pub fn check(
        &self,
        roots: &[TrustAnchor<'_>],
        name: &'static str,
        now: DateTime<Utc>,
    ) -> Result<(), Rejection> {
        let signer = self.signer()?;
        let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let usage = KeyUsage::server_auth();
        signer
            .verify_for_usage(CHAIN_ALGORITHMS, roots, &self.0[1..], at, usage, None, None)
            .map_err(|error| untrusted(&error))?;
        let name = ServerName::try_from(name).expect("a constant name is valid");
        signer.verify_is_valid_for_subject_name(&name).map_err(|_| Rejection::CertWrongSubject)
    }

    /// Checks a signature of the signer.
    pub fn verify_signature(&self, message: &[u8], signature: &[u8]) -> Result<(), Rejection> {
        let algorithm = algorithms::RSA_PKCS1_2048_8192_SHA256;
        match self.signer()?.verify_signature(algorithm, message, signature) {
            Ok(()) => Ok(()),
            Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {
                Err(Rejection::CertBadKey)
            }
            Err(_) => Err(Rejection::SignatureMismatch),
        }
    }
}

fn untrusted(error: &webpki::Error) -> Rejection {
    use webpki::Error as E;
    #[expect(clippy::wildcard_enum_match_arm, reason = "somebody else's enum of some forty words")]
    match error {
        E::CertExpired { .. } => Rejection::CertExpired,
        E::CertNotValidYet { .. } => Rejection::CertNotYetValid,
        E::BadDer => Rejection::CertParseFailed,
        _ => Rejection::CertUntrusted,
    }
}

/// Reads roots from PEM text, or takes the public authorities.
pub fn trust_anchors(pem: Option<&str>) -> Result<Vec<TrustAnchor<'static>>, String> {
    let Some(pem) = pem else { return Ok(webpki_roots::TLS_SERVER_ROOTS.to_vec()) };
    let anchors: Result<Vec<_>, ()> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(|der| {
            let der = der.map_err(drop)?;
            webpki::anchor_from_trusted_cert(&der).map(|anchor| anchor.to_owned()).map_err(drop)
        })
        .collect();
    match anchors {
        Ok(anchors) if !anchors.is_empty() => Ok(anchors),
        Ok(_) | Err(()) => Err("is no PEM of certificates".to_owned()),
    }
}

/// Chains that passed every check, by address.
///
/// What forged traffic may cause is bounded: 10 fetches a minute over all addresses, one at a
/// time, a failure remembered for 30 s; and only good chains are kept, at most 16. A known chain
/// is never waited for, and stays in use beyond its day where it cannot be fetched anew.
pub struct Cache {
    fetcher: Box<dyn FetchCertificate>,
    /// Never held while waiting.
    known: Mutex<Known>,
    /// Held while fetching: callers wait for one fetch instead of making their own.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    good: HashMap<String, (Arc<Chain>, DateTime<Utc>)>,
    failed: HashMap<String, (Rejection, DateTime<Utc>)>,
    fetches: VecDeque<DateTime<Utc>>,
}

/// PayPal uses a handful of certificates at a time.
const MAX_KEPT: usize = 16;
/// A chain is fetched again after that long.
const TTL: chrono::Duration = chrono::Duration::hours(24);
/// A failed address is left alone for that long.
const FAILURE_TTL: chrono::Duration = chrono::Duration::seconds(30);
/// Fetches in any minute.
const MAX_FETCHES: usize = 10;

impl Cache {
    /// An empty cache over `fetcher`.
    pub fn new(fetcher: Box<dyn FetchCertificate>) -> Self {
        Self { fetcher, known: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    /// The chain at `url`, checked now; fetched where it is not kept.
    pub async fn get(
        &self,
        url: &str,
        now: DateTime<Utc>,
        check: impl Fn(&Chain) -> Result<(), Rejection> + Sync,
    ) -> Result<Arc<Chain>, Rejection> {
        if let Some(answer) = self.known().answer(url, now) {
            return checked(answer?, &check);
        }
        let _turn = self.fetching.lock().await;
        if let Some(answer) = self.known().answer(url, now) {
            return checked(answer?, &check); // fetched by the caller before us
        }
        match self.fetch(url, now, &check).await {
            Ok(chain) => {
                self.known().keep(url, &chain, now);
                Ok(chain)
            }
            Err(rejection) => {
                let old = self.known().good.get(url).map(|(chain, _)| Arc::clone(chain));
                old.map_or(Err(rejection), |old| checked(old, &check))
            }
        }
    }

    async fn fetch(
        &self,
        url: &str,
        now: DateTime<Utc>,
        check: &(impl Fn(&Chain) -> Result<(), Rejection> + Sync),
    ) -> Result<Arc<Chain>, Rejection> {
        if !self.known().may_fetch(now) {
            return Err(Rejection::CertFetchFailed);
        }
        let fetched = self.fetcher.fetch(url).await;
        let chain = fetched
            .map_err(|FetchFailed| Rejection::CertFetchFailed)
            .and_then(|pem| Chain::parse(&pem))
            .and_then(|chain| checked(Arc::new(chain), check));
        if let Err(rejection) = chain {
            self.known().fail(url, rejection, now);
        }
        chain
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn checked(
    chain: Arc<Chain>,
    check: &impl Fn(&Chain) -> Result<(), Rejection>,
) -> Result<Arc<Chain>, Rejection> {
    check(&chain).map(|()| chain)
}

impl Known {
    /// What can be said without fetching; a chain older than a day while its address fails.
    fn answer(&self, url: &str, now: DateTime<Utc>) -> Option<Result<Arc<Chain>, Rejection>> {
        let good = self.good.get(url);
        let is_failing = self.failed.get(url).filter(|(_, until)| now < *until);
        match (good, is_failing) {
            (Some((chain, until)), _) if now < *until => Some(Ok(Arc::clone(chain))),
            (Some((chain, _)), Some(_)) => Some(Ok(Arc::clone(chain))),
            (None, Some((rejection, _))) => Some(Err(*rejection)),
            (Some(_) | None, None) => None,
        }
    }

    /// Counts a fetch, unless there were too many in the last minute.
    fn may_fetch(&mut self, now: DateTime<Utc>) -> bool {
        let minute = now - chrono::Duration::minutes(1);
        while self.fetches.front().is_some_and(|at| *at <= minute) {
            self.fetches.pop_front();
        }
        let may = self.fetches.len() < MAX_FETCHES;
        if may {
            self.fetches.push_back(now);
        }
        may
    }

    /// Remembers a failure; as many as there were fetches in 30 s, at most.
    fn fail(&mut self, url: &str, rejection: Rejection, now: DateTime<Utc>) {
        self.failed.retain(|_, (_, until)| now < *until);
        self.failed.insert(url.to_owned(), (rejection, now + FAILURE_TTL));
    }

    fn keep(&mut self, url: &str, chain: &Arc<Chain>, now: DateTime<Utc>) {
        self.failed.remove(url);
        if self.good.len() >= MAX_KEPT && !self.good.contains_key(url) {
            let oldest = self.good.iter().min_by_key(|(_, (_, until))| *until);
            if let Some(oldest) = oldest.map(|(url, _)| url.clone()) {
                self.good.remove(&oldest);
            }
        }
        self.good.insert(url.to_owned(), (Arc::clone(chain), now + TTL));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors");

    /// Serves one chain, or nothing once `is_down`; counts.
    #[derive(Clone, Default)]
    struct Served {
        calls: Arc<AtomicUsize>,
        at_once: Arc<AtomicUsize>,
        most_at_once: Arc<AtomicUsize>,
        is_down: Arc<std::sync::atomic::AtomicBool>,
    }

    #[async_trait]
    impl FetchCertificate for Served {
        async fn fetch(&self, _url: &str) -> Result<Vec<u8>, FetchFailed> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
            tokio::task::yield_now().await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            if self.is_down.load(Ordering::SeqCst) {
                return Err(FetchFailed);
            }
            Ok(std::fs::read(format!("{VECTORS}/paypal_certs/sandbox_leaf_chain.pem")).unwrap())
        }
    }

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    #[expect(clippy::unnecessary_wraps, reason = "stands in for a check that may refuse")]
    fn fine(_: &Chain) -> Result<(), Rejection> {
        Ok(())
    }

    #[tokio::test]
    async fn a_thousand_addresses_cause_ten_fetches_a_minute_and_sixteen_are_kept() {
        let served = Served::default();
        let cache = Cache::new(Box::new(served.clone()));
        for minute in 0..3 {
            let now = start() + chrono::Duration::minutes(minute);
            for index in 0..1_000 {
                let url = format!("https://x/{minute}-{index}");
                let _limited = cache.get(&url, now, fine).await;
            }
        }
        assert_eq!(served.calls.load(Ordering::SeqCst), 30);
        let known = cache.known();
        assert_eq!((known.good.len(), known.failed.len()), (MAX_KEPT, 0));
    }

    #[tokio::test]
    async fn only_chains_that_pass_are_kept_and_a_failure_is_remembered() {
        let served = Served::default();
        let cache = Cache::new(Box::new(served.clone()));
        let bad = |_: &Chain| Err(Rejection::CertUntrusted);
        for _ in 0..5 {
            let refused = cache.get("https://x/1", start(), bad).await;
            assert_eq!(refused.unwrap_err(), Rejection::CertUntrusted);
        }
        assert_eq!(served.calls.load(Ordering::SeqCst), 1);
        assert!(cache.known().good.is_empty());
        let later = start() + FAILURE_TTL;
        assert!(cache.get("https://x/1", later, fine).await.is_ok());
    }

    #[tokio::test]
    async fn many_callers_share_one_fetch() {
        let served = Served::default();
        let cache = Arc::new(Cache::new(Box::new(served.clone())));
        let mut callers = tokio::task::JoinSet::new();
        for index in 0..50 {
            let cache = Arc::clone(&cache);
            let url = format!("https://x/{}", index % 2);
            callers.spawn(async move { cache.get(&url, start(), fine).await.is_ok() });
        }
        assert!(callers.join_all().await.into_iter().all(|is_ok| is_ok));
        assert_eq!(served.calls.load(Ordering::SeqCst), 2);
        assert_eq!(served.most_at_once.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_known_chain_outlives_its_day_where_it_cannot_be_fetched_anew() {
        let served = Served::default();
        let cache = Cache::new(Box::new(served.clone()));
        cache.get("https://x/1", start(), fine).await.unwrap();
        served.is_down.store(true, Ordering::SeqCst);
        let next_day = start() + chrono::Duration::hours(25);

        assert!(cache.get("https://x/1", next_day, fine).await.is_ok());
        assert!(cache.get("https://x/1", next_day, fine).await.is_ok());
        let expired = |_: &Chain| Err(Rejection::CertExpired);
        let refused = cache.get("https://x/1", next_day, expired).await;

        assert_eq!(refused.unwrap_err(), Rejection::CertExpired);
        assert_eq!(served.calls.load(Ordering::SeqCst), 2);
    }
}
