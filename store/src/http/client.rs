//! Asks one address, through the proxies and with the certificates of this machine, and follows redirects.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::transport::{Connector, DefaultConnector, TcpConnector};
use ureq::{Agent, Body, Proxy, SendBody};

use super::Place;
use super::address::{Parts, join, percent_encode, redact, split};
use super::forward::Forward;
use super::names::Names;
const MOST_REDIRECTS: usize = 10;

/// How long a server may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// To be found and to take a connection.
    pub connect: Duration,
    /// To say something more, within a request or an answer.
    pub silence: Duration,
}

impl Patience {
    /// Whether what failed may be asked again: not of a server that is asked on the way to something else.
    pub fn is_long(&self) -> bool {
        self.silence >= Duration::from_secs(5)
    }
}

impl Default for Patience {
    /// What a mirror far away may need.
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), silence: Duration::from_secs(30) }
    }
}

/// Why a place did not give what was asked.
#[derive(Debug)]
pub enum Failure {
    /// The user interrupted.
    Interrupted,
    /// The bytes are not the ones asked for.
    Lie {
        /// Digest or size.
        actual: String,
        /// Digest or size.
        expected: String,
    },
    /// The server answered, and not with the file.
    Status(u16),
    /// No answer, or not all of it.
    Transport {
        /// In words.
        reason: String,
        /// Whether asking again may help.
        passing: bool,
    },
}

impl Failure {
    /// A failure that will be the same when asked again.
    pub fn lasting(reason: impl Into<String>) -> Self {
        Self::Transport { reason: reason.into(), passing: false }
    }

    /// Whether asking again may help. 408, 425, 429: RFC 9110, 8470, 6585; 5xx is the server's own trouble.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Interrupted | Self::Lie { .. } => false,
            Self::Status(status) => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::Transport { passing, .. } => *passing,
        }
    }

    /// Whether the server says that there is no such file.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Status(404 | 410))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => formatter.write_str("interrupted"),
            Self::Lie { actual, expected } => write!(formatter, "gave {actual}, expected {expected}"),
            Self::Status(status) => {
                match ureq::http::StatusCode::from_u16(*status).ok().and_then(|it| it.canonical_reason()) {
                    Some(words) => write!(formatter, "{status} {words}"),
                    None => write!(formatter, "{status}"),
                }
            }
            Self::Transport { reason, .. } => formatter.write_str(reason),
        }
    }
}

impl Failure {
    fn of(error: ureq::Error, patience: Patience) -> Self {
        let passing = match &error {
            ureq::Error::Io(error) => !matches!(
                error.kind(),
                // Nobody listens; a certificate is wrong (rustls). Neither changes within seconds.
                io::ErrorKind::ConnectionRefused | io::ErrorKind::InvalidData
            ),
            ureq::Error::Timeout(timeout) => !matches!(timeout, ureq::Timeout::Connect),
            ureq::Error::Protocol(_) | ureq::Error::ConnectionFailed => true,
            _ => false,
        };
        let (connect, silence) = (patience.connect.as_secs_f64(), patience.silence.as_secs_f64());
        let reason = match &error {
            ureq::Error::Io(error) => error.to_string(),
            ureq::Error::Timeout(ureq::Timeout::Connect) => format!("no connection within {connect} s"),
            ureq::Error::Timeout(ureq::Timeout::Resolve) => format!("no name server answered within {connect} s"),
            ureq::Error::Timeout(_) => format!("silent for {silence} s"),
            error => error.to_string(),
        };
        Self::Transport { reason, passing }
    }
}

/// What a server answered.
pub struct Answer {
    /// Where, after redirects.
    pub url: String,
    /// 200 or 206 for a file; of [`Client::call`] any.
    pub status: u16,
    /// Header fields.
    pub headers: HeaderMap,
    /// What follows.
    pub body: Box<dyn Read + Send>,
}

impl Answer {
    /// A header field's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What is sent along with a request.
pub enum Content<'a> {
    /// Nothing.
    None,
    /// These bytes.
    Bytes(&'a [u8]),
    /// What a reader gives, in chunks unless its length is known. It can be sent only once: no redirect is followed.
    Stream(&'a mut dyn Read, Option<u64>),
}

/// One request.
pub struct Call<'a, 'c> {
    /// `GET`, `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE`.
    pub method: &'a str,
    /// Header fields.
    pub headers: &'a [(&'a str, String)],
    /// What is sent.
    pub content: Content<'c>,
}

/// Asks servers. Connections are kept and shared by all threads.
pub struct Client {
    environment: BTreeMap<String, String>,
    patience: Patience,
    agents: Mutex<HashMap<Route, Agent>>,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Route {
    /// By asking a proxy for it, in plain HTTP.
    Forward,
    /// Directly or through a proxy's tunnel, and whether certificates are needed: reading those takes longer than many a transfer.
    Through(Option<String>, bool),
}

impl Client {
    /// A client that honours the proxies and certificates that the caller's environment names (`https_proxy`, `SSL_CERT_FILE`, …).
    pub fn new(environment: BTreeMap<String, String>, patience: Patience) -> Self {
        Self { environment, patience, agents: Mutex::default() }
    }

    /// Whether what failed may be asked again.
    pub fn is_patient(&self) -> bool {
        self.patience.is_long()
    }

    /// Asks a place; redirects are followed, every other answer than 2xx is a failure.
    pub fn get(&self, place: &Place, headers: &[(&str, String)]) -> Result<Answer, Failure> {
        good(self.call(place, Call { method: "GET", headers, content: Content::None })?)
    }

    /// Sends some bytes to a place. A redirect is followed with the same bytes.
    pub fn post(&self, place: &Place, headers: &[(&str, String)], body: &[u8]) -> Result<Answer, Failure> {
        good(self.call(place, Call { method: "POST", headers, content: Content::Bytes(body) })?)
    }

    /// Makes a request and gives the answer, whatever its status. Redirects are followed, except with a stream: what is sent
    /// along stays the same, and user name and password go to the same host only.
    pub fn call(&self, place: &Place, mut call: Call<'_, '_>) -> Result<Answer, Failure> {
        let mut url = place.url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let response = self.ask_once(place, &url, &mut call)?;
            let status = response.status().as_u16();
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            match (status, location) {
                (301 | 302 | 303 | 307 | 308, Some(location)) if !matches!(call.content, Content::Stream(..)) => {
                    let next = join(&url, location);
                    url = without_foreign_user(&url, next);
                }
                _ => {
                    let (head, body) = response.into_parts();
                    let body = Box::new(body.into_reader());
                    return Ok(Answer { url, status, headers: head.headers, body });
                }
            }
        }
        Err(Failure::lasting(format!("more than {MOST_REDIRECTS} redirects")))
    }

    /// Makes one request and gives the answer, whatever it is: for whoever must see where a redirect leads before anything goes there.
    pub fn exchange(&self, place: &Place, mut call: Call<'_, '_>) -> Result<Answer, Failure> {
        let (head, body) = self.ask_once(place, &place.url, &mut call)?.into_parts();
        let (url, status) = (place.url.clone(), head.status.as_u16());
        Ok(Answer { url, status, headers: head.headers, body: Box::new(body.into_reader()) })
    }

    fn ask_once(&self, place: &Place, url: &str, call: &mut Call<'_, '_>) -> Result<Response<Body>, Failure> {
        let parts = split(url).ok_or_else(|| Failure::lasting(format!("`{}` is not an address", redact(url))))?;
        let proxy = match place.proxy.as_deref() {
            Some("DIRECT" | "false") => None,
            Some(proxy) => Some(proxy.to_owned()),
            None => self.proxy(&parts),
        };
        // A proxy may be written without its scheme.
        let proxy = proxy.map(|proxy| if proxy.contains("://") { proxy } else { format!("http://{proxy}") });
        let forward = proxy.as_deref().and_then(split).filter(|proxy| proxy.scheme == "http" && parts.scheme == "http");
        let mut request = ureq::http::Request::builder().method(call.method);
        let agent = match &forward {
            Some(proxy) => {
                let target = Parts { path: parts.path, user: None, ..*proxy };
                request = request.uri(target.plain()).header("host", parts.host);
                if let Some(authorization) = proxy.authorization() {
                    request = request.header("proxy-authorization", authorization);
                }
                self.agent(Route::Forward)?
            }
            None => {
                request = request.uri(parts.plain());
                self.agent(Route::Through(proxy, parts.scheme == "https"))?
            }
        };
        for (name, value) in call.headers {
            request = request.header(*name, value);
        }
        if let Some(authorization) = parts.authorization() {
            request = request.header("authorization", authorization);
        } else if let Some(token) = &place.token
            && split(&place.url).is_some_and(|asked| (asked.scheme, asked.host) == (parts.scheme, parts.host))
        {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let bad = |error: ureq::http::Error| Failure::lasting(error.to_string());
        let result = match &mut call.content {
            Content::None => agent.run(request.body(()).map_err(bad)?),
            Content::Bytes(bytes) => agent.run(request.body(*bytes).map_err(bad)?),
            Content::Stream(reader, length) => {
                if let Some(length) = length {
                    request = request.header("content-length", length.to_string());
                }
                agent.run(request.body(SendBody::from_reader(reader)).map_err(bad)?)
            }
        };
        result.map_err(|error| Failure::of(error, self.patience))
    }

    fn agent(&self, route: Route) -> Result<Agent, Failure> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&route) {
            return Ok(agent.clone());
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("forge/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(self.patience.connect))
            .timeout_resolve(Some(self.patience.connect))
            // One that sends the head of its answer letter by letter is silent, too.
            .timeout_recv_response(Some(self.patience.silence))
            .timeout_per_read(Some(self.patience.silence))
            .timeout_per_write(Some(self.patience.silence))
            .max_idle_connections_per_host(8);
        let agent: Agent = match &route {
            Route::Forward => {
                let connector = ().chain(TcpConnector::default()).chain(Forward);
                Agent::with_parts(config.build(), connector, Names::default())
            }
            Route::Through(proxy, secure) => {
                if let Some(proxy) = proxy {
                    let bad = |error| Failure::lasting(format!("`{}` is not a proxy: {error}", redact(proxy)));
                    config = config.proxy(Some(Proxy::new(proxy).map_err(bad)?));
                }
                if *secure {
                    config = config.tls_config(self.tls()?);
                }
                Agent::with_parts(config.build(), DefaultConnector::default(), Names::default())
            }
        };
        agents.insert(route, agent.clone());
        Ok(agent)
    }

    /// The certificate authorities: those that the environment names, else the host's.
    fn tls(&self) -> Result<TlsConfig, Failure> {
        let file = self.variable("SSL_CERT_FILE").map(Path::new);
        let directories = self.variable("SSL_CERT_DIR").unwrap_or_default();
        let mut certificates = Vec::new();
        for directory in directories.split(':').filter(|directory| !directory.is_empty()) {
            certificates.extend(rustls_native_certs::load_certs_from_paths(None, Some(Path::new(directory))).certs);
        }
        if file.is_some() {
            certificates.extend(rustls_native_certs::load_certs_from_paths(file, None).certs);
        }
        if certificates.is_empty() {
            certificates = rustls_native_certs::load_native_certs().certs;
        }
        if certificates.is_empty() {
            return Err(Failure::lasting(
                "this machine has no certificate authorities (package `ca-certificates`, `SSL_CERT_FILE`)",
            ));
        }
        let certificates: Vec<_> =
            certificates.iter().map(|it| Certificate::from_der(it.as_ref()).to_owned()).collect();
        Ok(TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::Specific(Arc::new(certificates)))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build())
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The proxy by which an address would be asked, for those who connect by themselves.
    pub fn proxy_for(&self, url: &str) -> Option<String> {
        self.proxy(&split(url)?)
    }

    /// The proxy that the environment names for an address, as curl(1) reads it, upper case `HTTP_PROXY` included: no
    /// web server calls us.
    fn proxy(&self, parts: &Parts<'_>) -> Option<String> {
        let either = |name: &str| self.variable(name).or_else(|| self.variable(&name.to_ascii_uppercase()));
        let proxy = either(&format!("{}_proxy", parts.scheme)).or_else(|| either("all_proxy"))?;
        let exempt = either("no_proxy").is_some_and(|list| is_exempt(list, parts));
        (!exempt).then(|| proxy.to_owned())
    }
}

/// Whether `no_proxy` names a host: itself, a domain above it, or `*`; with or without a port.
fn is_exempt(list: &str, parts: &Parts<'_>) -> bool {
    let name = parts.host_name().to_ascii_lowercase();
    list.split([',', ' ']).map(|entry| entry.trim().to_ascii_lowercase()).filter(|entry| !entry.is_empty()).any(
        |entry| {
            let domain = entry.trim_start_matches('*').trim_start_matches('.');
            entry == "*"
                || entry == parts.host.to_ascii_lowercase()
                || !domain.is_empty()
                    && (name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
        },
    )
}

/// An answer with 2xx.
fn good(answer: Answer) -> Result<Answer, Failure> {
    match answer.status {
        200..=299 => Ok(answer),
        status => Err(Failure::Status(status)),
    }
}

/// A redirect keeps user name and password on the same host only.
fn without_foreign_user(from: &str, to: String) -> String {
    let (Some(before), Some(after)) = (split(from), split(&to)) else { return to };
    match (before.user, after.user) {
        (Some(user), None) if before.host == after.host && before.scheme == after.scheme => {
            let user: Vec<_> = user.split(':').map(|part| part.replace('@', &percent_encode("@"))).collect();
            format!("{}://{}@{}{}", after.scheme, user.join(":"), after.host, after.path)
        }
        _ => to,
    }
}
