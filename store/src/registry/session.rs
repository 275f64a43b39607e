//! Requests to one repository of a registry: which scheme, who we are, asking again, following redirects.
//!
//! Rules: credentials go to the registry's own host, and to the place that it names for tokens, nowhere else; a redirect takes none
//! along and never leads from `https` to `http`; plain HTTP is spoken only to this machine and to hosts that the user named as insecure.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::challenge::Challenge;
use super::login::{Login, Logins};
use super::reference::is_loopback;
use super::{Error, Reference};
use crate::http::{Answer, Call, Client, Content, Failure, Place, join, percent_encode, split};
use crate::nix::hash::to_base64;

/// How often something is asked before we give up.
pub(super) const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
const MOST_REDIRECTS: usize = 10;
/// Of a token's answer, and of what an error says.
const MOST_WORDS: u64 = 1 << 20;

/// What happens on the way, for whoever shows it.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A part begins to be sent or fetched.
    Started {
        /// `push` or `pull`.
        phase: &'static str,
        /// Its digest.
        what: &'a str,
        /// Its bytes.
        size: u64,
    },
    /// So many of its bytes have passed.
    Advanced {
        /// As at the start.
        what: &'a str,
        /// So far.
        bytes: u64,
    },
    /// It is there.
    Finished {
        /// As at the start.
        phase: &'static str,
        /// As at the start.
        what: &'a str,
    },
}

/// Shows what happens.
pub trait Listener: Send + Sync {
    /// Called from any thread.
    fn hear(&self, event: Event<'_>);
}

/// What this machine and its user say of registries.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Who we are where.
    pub logins: Logins,
    /// Hosts (`host` or `host:port`) that may be spoken to in plain HTTP.
    pub insecure: BTreeSet<String>,
    /// Not zero once the user has interrupted.
    pub interrupt: Arc<AtomicI32>,
}

impl PartialEq for Settings {
    /// What was read; who interrupts is the same for all.
    fn eq(&self, other: &Self) -> bool {
        self.logins == other.logins && self.insecure == other.insecure
    }
}

impl Eq for Settings {}

/// With what registries are asked; shared by all threads.
pub struct Access {
    /// Speaks HTTP.
    pub client: Client,
    /// Who we are, and what is allowed.
    pub settings: Settings,
    /// Is told what happens.
    pub listener: Option<Box<dyn Listener>>,
}

impl Access {
    /// Fails once the user has interrupted.
    pub(super) fn check_interrupt(&self) -> Result<(), Error> {
        match self.settings.interrupt.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(Error::Interrupted),
        }
    }

    pub(super) fn tell(&self, event: Event<'_>) {
        if let Some(listener) = &self.listener {
            listener.hear(event);
        }
    }
}

/// What is to be done with the repository, as tokens are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Right {
    Pull,
    Push,
}

impl Right {
    fn actions(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Pull => "read",
            Self::Push => "write to",
        }
    }
}

/// What is sent along.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    None,
    Bytes(&'a [u8]),
}

/// One repository, spoken to.
pub struct Session<'a> {
    pub(super) access: &'a Access,
    /// Which; without tag and digest.
    pub(super) reference: Reference,
    /// `https://host`, once it is known who answers.
    base: OnceLock<String>,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    /// What the registry last wanted to be shown.
    challenge: Option<Challenge>,
    login: Option<Option<Login>>,
    tokens: HashMap<(Right, Option<String>), (String, Instant)>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Refusals {
    errors: Vec<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl<'a> Session<'a> {
    /// Asks nothing yet.
    pub fn new(access: &'a Access, reference: &Reference) -> Self {
        Self { access, reference: reference.bare(), base: OnceLock::new(), shown: Mutex::default() }
    }

    /// The repository.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    fn host(&self) -> String {
        self.reference.host.clone()
    }

    pub(super) fn bad(&self, reason: impl Into<String>) -> Error {
        Error::Bad { host: self.host(), reason: reason.into() }
    }

    pub(super) fn not_found(&self, what: impl Into<String>) -> Error {
        Error::NotFound { host: self.host(), what: what.into() }
    }

    pub(super) fn unreachable(&self, reason: impl Into<String>) -> Error {
        Error::Unreachable { host: self.host(), reason: reason.into() }
    }

    fn failed(&self, failure: Failure) -> Error {
        match failure {
            Failure::Interrupted => Error::Interrupted,
            failure => self.unreachable(failure.to_string()),
        }
    }

    fn place(&self, url: &str) -> Place {
        let direct = split(url).is_some_and(|parts| is_loopback(parts.host));
        Place { proxy: direct.then(|| "DIRECT".to_owned()), ..Place::new(url) }
    }

    /// `https://host`, or `http://host` where that is allowed and answers.
    fn base(&self) -> Result<&str, Error> {
        if let Some(base) = self.base.get() {
            return Ok(base);
        }
        let host = &self.reference.host;
        let schemes: &[&str] = match (self.access.settings.insecure.contains(host), self.reference.is_loopback()) {
            // This machine's registries mostly speak plainly; of others the secure way is tried first.
            (_, true) => &["http", "https"],
            (true, false) => &["https", "http"],
            (false, false) => &["https"],
        };
        let mut refusal = None;
        for (index, scheme) in schemes.iter().enumerate() {
            let last = index + 1 == schemes.len();
            match self.retrying(|| self.once("GET", &format!("{scheme}://{host}/v2/"), &[], Body::None)) {
                // What a server of the other scheme says to this one.
                Ok(answer) if answer.status == 400 && !last => {}
                Ok(answer) => {
                    let field = answer.header("www-authenticate").map(str::to_owned);
                    let challenge = field.as_deref().and_then(Challenge::parse);
                    self.shown.lock().unwrap_or_else(PoisonError::into_inner).challenge = challenge;
                    return Ok(self.base.get_or_init(|| format!("{scheme}://{host}")));
                }
                Err(error @ Error::Interrupted) => return Err(error),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(refusal.unwrap_or_else(|| self.unreachable("no scheme to speak")))
    }

    /// Whether a registry answers there at all.
    pub fn greet(&self) -> Result<(), Error> {
        self.base().map(drop)
    }

    /// The address of something in the repository.
    pub(super) fn url(&self, rest: &str) -> Result<String, Error> {
        Ok(format!("{}/v2/{}/{rest}", self.base()?, self.reference.repository))
    }

    /// Whether an address is the registry's own, where credentials may go.
    fn is_own(&self, url: &str) -> bool {
        let own = |base: &String| url.strip_prefix(base.as_str()).is_some_and(|rest| rest.starts_with('/'));
        self.base.get().is_some_and(own)
    }

    /// An address that the registry named, if it may be followed.
    pub(super) fn follow(&self, from: &str, location: &str) -> Result<String, Error> {
        let next = join(from, location);
        let parts = split(&next).ok_or_else(|| self.bad("it redirects to what is no address"))?;
        if parts.user.is_some() {
            return Err(self.bad("it redirects to an address with a user name"));
        }
        if parts.scheme == "http" && from.starts_with("https:") {
            return Err(self.bad("it redirects from https to plain http"));
        }
        Ok(next)
    }

    fn once(&self, method: &str, url: &str, headers: &[(&str, String)], body: Body<'_>) -> Result<Answer, Failure> {
        let content = match body {
            Body::None => Content::None,
            Body::Bytes(bytes) => Content::Bytes(bytes),
        };
        self.access.client.exchange(&self.place(url), Call { method, headers, content })
    }

    /// Asks, and asks again while that may help.
    fn retrying(&self, mut ask: impl FnMut() -> Result<Answer, Failure>) -> Result<Answer, Error> {
        // Who is asked on the way to something else is asked once.
        let attempts = if self.access.client.is_patient() { ATTEMPTS } else { 1 };
        let mut attempt = 1;
        loop {
            self.access.check_interrupt()?;
            let pause = match ask() {
                Ok(answer) if is_passing(answer.status) && attempt < attempts => retry_after(&answer),
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.is_passing() && attempt < attempts => None,
                Err(failure) => return Err(self.failed(failure)),
            };
            self.pause(attempt, pause)?;
            attempt += 1;
        }
    }

    /// Waits a little longer every time, and ends when the user interrupts.
    pub(super) fn pause(&self, attempt: u32, asked: Option<Duration>) -> Result<(), Error> {
        let pause = asked.unwrap_or(FIRST_PAUSE * 3u32.pow(attempt.saturating_sub(1).min(3))).min(LONGEST_PAUSE);
        let until = Instant::now() + pause;
        while Instant::now() < until {
            self.access.check_interrupt()?;
            std::thread::sleep(Duration::from_millis(50).min(pause));
        }
        Ok(())
    }

    /// Asks with the right to do something, and follows redirects of what is only read.
    pub(super) fn call(
        &self,
        right: Right,
        method: &str,
        url: &str,
        headers: &[(&str, String)],
        body: Body<'_>,
    ) -> Result<Answer, Error> {
        let mut url = url.to_owned();
        let mut renewed = false;
        for _ in 0..=MOST_REDIRECTS {
            let mut all = headers.to_vec();
            let own = self.is_own(&url);
            if own && let Some(authorization) = self.authorization(right, None)? {
                all.push(("authorization", authorization));
            }
            let answer = self.retrying(|| self.once(method, &url, &all, body))?;
            let location = answer.header("location").map(str::to_owned);
            match (answer.status, location) {
                (301 | 302 | 303 | 307 | 308, Some(location)) if matches!(method, "GET" | "HEAD") => {
                    url = self.follow(&url, &location)?;
                }
                // A token may have run out, or the registry may want to be shown more than `/v2/` does.
                (401, _) if own && !renewed => {
                    renewed = true;
                    self.renew(&answer);
                }
                _ => return Ok(answer),
            }
        }
        Err(self.bad(format!("more than {MOST_REDIRECTS} redirects")))
    }

    /// Posts nothing, showing just these header fields.
    pub(super) fn call_as(&self, url: &str, headers: &[(&str, String)]) -> Result<Answer, Error> {
        self.retrying(|| self.once("POST", url, headers, Body::Bytes(&[])))
    }

    /// Sends what can be sent only once. An answer that wants other credentials is the caller's to begin anew with.
    pub(super) fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, String)],
        reader: &mut dyn Read,
        length: u64,
    ) -> Result<Answer, Failure> {
        let mut all = headers.to_vec();
        let interrupted = |_| Failure::Interrupted;
        self.access.check_interrupt().map_err(interrupted)?;
        if self.is_own(url) {
            let authorization = self.authorization(Right::Push, None);
            all.extend(
                authorization.map_err(|error| Failure::lasting(error.to_string()))?.map(|text| ("authorization", text)),
            );
        }
        let content = Content::Stream(reader, Some(length));
        self.access.client.exchange(&self.place(url), Call { method, headers: &all, content })
    }

    /// Forgets what was shown, and remembers what is wanted now.
    pub(super) fn renew(&self, answer: &Answer) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.tokens.clear();
        if let Some(challenge) = answer.header("www-authenticate").and_then(Challenge::parse) {
            shown.challenge = Some(challenge);
        }
    }

    /// Whether there is a login for this repository.
    fn login(&self) -> Result<Option<Login>, Error> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(login) = &shown.login {
            return Ok(login.clone());
        }
        let login = self.access.settings.logins.find(&self.reference)?;
        shown.login = Some(login.clone());
        Ok(login)
    }

    /// What is shown to the registry: nothing while it does not ask. `also`: another repository of it that is to be read.
    pub(super) fn authorization(&self, right: Right, also: Option<&str>) -> Result<Option<String>, Error> {
        let challenge = self.shown.lock().unwrap_or_else(PoisonError::into_inner).challenge.clone();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(match self.login()? {
                Some(Login::Password(user, password)) => Some(basic(&user, &password)),
                Some(Login::Bearer(token)) => Some(format!("Bearer {token}")),
                _ => None,
            }),
            Some(Challenge::Bearer { realm, service, .. }) => {
                let key = (right, also.map(str::to_owned));
                if let Some((token, until)) = self.shown.lock().unwrap_or_else(PoisonError::into_inner).tokens.get(&key)
                    && *until > Instant::now()
                {
                    return Ok(Some(format!("Bearer {token}")));
                }
                let (token, until) = self.token(right, also, &realm, service.as_deref())?;
                let authorization = format!("Bearer {token}");
                self.shown.lock().unwrap_or_else(PoisonError::into_inner).tokens.insert(key, (token, until));
                Ok(Some(authorization))
            }
        }
    }

    /// Asks the place that the registry named for a token.
    fn token(
        &self,
        right: Right,
        also: Option<&str>,
        realm: &str,
        service: Option<&str>,
    ) -> Result<(String, Instant), Error> {
        let parts = split(realm).ok_or_else(|| self.bad("it sends us for a token to what is no address"))?;
        let plain = self.base.get().is_some_and(|base| base.starts_with("http:"));
        if parts.user.is_some() || parts.scheme == "http" && !plain && !is_loopback(parts.host) {
            return Err(self.bad("it sends us for a token to a place that is not secure"));
        }
        let login = self.login()?;
        if let Some(Login::Bearer(token)) = login {
            return Ok((token, Instant::now() + Duration::from_secs(3600)));
        }
        let mut fields = Vec::new();
        fields.extend(service.map(|service| ("service", service.to_owned())));
        fields.push(("scope", format!("repository:{}:{}", self.reference.repository, right.actions())));
        fields.extend(also.map(|also| ("scope", format!("repository:{also}:pull"))));
        let form = |fields: &[(&str, String)]| {
            let pair = |(name, value): &(&str, String)| format!("{name}={}", percent_encode(value));
            fields.iter().map(pair).collect::<Vec<_>>().join("&")
        };
        let answer = match &login {
            Some(Login::Identity(secret)) => {
                fields.push(("grant_type", "refresh_token".to_owned()));
                fields.push(("client_id", "forge".to_owned()));
                fields.push(("refresh_token", secret.clone()));
                let kind = [("content-type", "application/x-www-form-urlencoded".to_owned())];
                let body = form(&fields);
                self.retrying(|| self.once("POST", realm, &kind, Body::Bytes(body.as_bytes())))?
            }
            login => {
                let mut headers = Vec::new();
                if let Some(Login::Password(user, password)) = login {
                    headers.push(("authorization", basic(user, password)));
                    fields.push(("account", user.clone()));
                }
                let separator = if realm.contains('?') { '&' } else { '?' };
                let url = format!("{realm}{separator}{}", form(&fields));
                self.retrying(|| self.once("GET", &url, &headers, Body::None))?
            }
        };
        if answer.status != 200 {
            return Err(self.denied(right, answer));
        }
        let text = small(answer).map_err(|reason| self.bad(reason))?;
        let answer: TokenAnswer =
            serde_json::from_slice(&text).map_err(|_| self.bad("its tokens' place gives no token"))?;
        let token = answer.token.or(answer.access_token).filter(|token| is_shown(token));
        let token = token.ok_or_else(|| self.bad("its tokens' place gives no token"))?;
        // A moment earlier than it says: the request has a way to go. Sixty seconds where it says nothing (the specification).
        let lasts = Duration::from_secs(answer.expires_in.unwrap_or(60).clamp(60, 86_400)) - Duration::from_secs(10);
        Ok((token, Instant::now() + lasts))
    }

    fn denied(&self, right: Right, answer: Answer) -> Error {
        let logged_in = self.login().is_ok_and(|login| login.is_some());
        Error::Denied {
            host: self.host(),
            repository: self.reference.repository.clone(),
            action: right.words(),
            reason: said(answer),
            logged_in,
        }
    }

    /// The error for an answer that is not the one hoped for.
    pub(super) fn refused(&self, right: Right, what: impl Into<String>, answer: Answer) -> Error {
        match answer.status {
            401 | 403 => self.denied(right, answer),
            404 => self.not_found(what),
            status => Error::Status { host: self.host(), status, what: what.into(), reason: said(answer) },
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", to_base64(format!("{user}:{password}").as_bytes()))
}

/// Whether a token can be shown in a header field.
fn is_shown(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| (0x21..0x7f).contains(&byte))
}

fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502..=504)
}

/// What a server asks to be waited, in seconds.
fn retry_after(answer: &Answer) -> Option<Duration> {
    Some(Duration::from_secs(answer.header("retry-after")?.trim().parse().ok()?))
}

/// The body of a small answer.
pub(super) fn small(answer: Answer) -> Result<Vec<u8>, String> {
    bounded(answer, MOST_WORDS)
}

/// The body of an answer, which may have so many bytes.
pub(super) fn bounded(answer: Answer, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    answer.body.take(most + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > most {
        return Err(format!("it has more than {most} bytes where it should be small"));
    }
    Ok(bytes)
}

/// The first of the errors that a registry lists, as one line.
fn said(answer: Answer) -> String {
    let Ok(bytes) = small(answer) else { return String::new() };
    let Ok(refusals) = serde_json::from_slice::<Refusals>(&bytes) else { return String::new() };
    let Some(Refusal { code, message }) = refusals.errors.into_iter().next() else { return String::new() };
    let text = if message.is_empty() { code } else { message };
    text.chars().filter(|character| !character.is_control()).take(200).collect()
}
