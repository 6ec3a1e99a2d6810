//! Who is let in, and what a browser is told to refuse.
//!
//! Guarantees:
//! * a request is answered only if it names this server by an address, by `localhost` or by a name that was configured: a name
//!   of somebody else that resolves to here (DNS rebinding) is refused;
//! * a request that a browser makes for another site's page is refused;
//! * where there is a token, nothing but the question for it is answered without it, and how long comparing takes says nothing
//!   about it;
//! * every answer tells the browser to load and run nothing but this server's own files, and to be framed by nobody.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Form, Request, State};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, HOST, HeaderName, LOCATION, ORIGIN,
    REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::files;
use crate::segment::hash_of_text;

/// Where the token is asked for.
pub(super) const LOGIN: &str = "/login";

/// Characters that a token has at least: 128 bits in hexadecimal digits, so that nobody guesses it however fast they try.
const SHORTEST: usize = 32;

/// The cookie that says that the token was shown.
const SESSION: &str = "nanoseg-page";

/// What is sent with every answer. Styles and scripts are files of their own, so that nothing inline is ever run.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the page's token from {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It can be guessed.
    #[error(
        "the page's token in {} has fewer than {SHORTEST} characters: make one by `openssl rand -hex 32`",
        path.display()
    )]
    Short {
        /// Which.
        path: PathBuf,
    },
}

/// What a browser has to show. Only its hash is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    hash: String,
}

impl Token {
    /// Reads it from a file. Space around it does not belong to it.
    pub(super) fn read(path: &Path) -> Result<Self, TokenError> {
        let text = std::fs::read_to_string(path).map_err(|source| TokenError::Read {
            path: path.to_owned(),
            source,
        })?;
        let text = text.trim();
        if text.len() < SHORTEST {
            return Err(TokenError::Short { path: path.to_owned() });
        }
        Ok(Self::of(text))
    }

    fn of(text: &str) -> Self {
        Self {
            hash: hash_of_text(text),
        }
    }

    /// Hashes are compared: what is guessed has no character in common with what it is compared with.
    fn is(&self, shown: &str) -> bool {
        *self == Self::of(shown)
    }

    /// What a browser carries afterwards. Whoever learns it can look at this page, and learns nothing about the token.
    fn session(&self) -> String {
        hash_of_text(&format!("session {}", self.hash))
            .trim_start_matches("sha256:")
            .to_owned()
    }
}

/// Who is let in.
#[derive(Clone, Debug)]
pub(super) struct Door {
    token: Option<Token>,
    hosts: Arc<[String]>,
}

impl Door {
    pub(super) fn new(token: Option<Token>, hosts: &[String]) -> Self {
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Self { token, hosts }
    }

    /// Whether a browser that says so means this server.
    fn is_called(&self, host: &str) -> bool {
        let name = name_of(host);
        name == "localhost" || name.parse::<IpAddr>().is_ok() || self.hosts.contains(&name)
    }

    /// Why a request is refused; `Ok` if it is not.
    fn judge(&self, request: &Request) -> Result<(), Refusal> {
        let headers = request.headers();
        let host = word(headers, &HOST).ok_or(Refusal::Host)?;
        if !self.is_called(host) {
            return Err(Refusal::Host);
        }
        let posts = request.method() == Method::POST && request.uri().path() == LOGIN;
        if !(posts || request.method() == Method::GET || request.method() == Method::HEAD) {
            return Err(Refusal::Method);
        }
        let origin = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
        if origin.is_some_and(|origin| origin.split_once("://").is_none_or(|(_, own)| own != host)) {
            return Err(Refusal::Elsewhere);
        }
        let site = HeaderName::from_static("sec-fetch-site");
        // Only following a link from elsewhere to the page itself is harmless.
        let harmless = request.uri().path() == "/";
        if !harmless && word(headers, &site).is_some_and(|site| !matches!(site, "same-origin" | "none")) {
            return Err(Refusal::Elsewhere);
        }
        let Some(token) = &self.token else {
            return Ok(());
        };
        let open = posts || files::is_open(request.uri().path());
        if open || shows(headers, token) {
            return Ok(());
        }
        Err(Refusal::NoToken)
    }
}

/// A host without its port, in lower case and without an IPv6 address's brackets.
fn name_of(host: &str) -> String {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _port)| name),
    };
    name.to_ascii_lowercase()
}

fn word<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn shows(headers: &HeaderMap, token: &Token) -> bool {
    let bearer = word(headers, &AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let session = token.session();
    let mut cookies = word(headers, &COOKIE).unwrap_or_default().split("; ");
    bearer.is_some_and(|shown| token.is(shown))
        || cookies.any(|cookie| {
            let value = cookie.strip_prefix(SESSION).and_then(|rest| rest.strip_prefix('='));
            value.is_some_and(|value| hash_of_text(value) == hash_of_text(&session))
        })
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Host,
    Method,
    Elsewhere,
    NoToken,
}

impl Refusal {
    fn answer(self, path: &str) -> Response {
        let sentence = |status: StatusCode, text: &'static str| (status, text).into_response();
        match self {
            Self::Host => sentence(
                StatusCode::MISDIRECTED_REQUEST,
                "This server is not known by that name: use its address, or add the name by --page-host.\n",
            ),
            Self::Method => {
                let mut answer = sentence(StatusCode::METHOD_NOT_ALLOWED, "Nothing can be changed here.\n");
                answer
                    .headers_mut()
                    .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                answer
            }
            Self::Elsewhere => sentence(StatusCode::FORBIDDEN, "Another site's page may not ask here.\n"),
            Self::NoToken if path == "/" => files::login(""),
            Self::NoToken => sentence(
                StatusCode::UNAUTHORIZED,
                "Show the token: open / in a browser, or send `Authorization: Bearer TOKEN`.\n",
            ),
        }
    }
}

/// Stands before every route.
pub(super) async fn guard(State(door): State<Door>, request: Request, next: Next) -> Response {
    let mut answer = match door.judge(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.answer(request.uri().path()),
    };
    let headers = answer.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        // With less a browser keeps the origin of the token's own form to itself, and that would be taken for another site's.
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), microphone=(), geolocation=()",
        ),
        // What is shown is about now, and about a cluster: nothing of it is to be found in a cache.
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// What the question for the token is answered with.
#[derive(Deserialize)]
pub(super) struct Answer {
    token: String,
}

/// Takes the token, and has the browser carry a sign that it was shown.
pub(super) async fn login(State(door): State<Door>, Form(Answer { token: shown }): Form<Answer>) -> Response {
    let Some(token) = door.token.as_ref().filter(|token| token.is(shown.trim())) else {
        return files::login("That is not the token.");
    };
    // `Secure`: browsers send it by TLS, and to their own machine.
    let cookie = format!(
        "{SESSION}={}; Path=/; HttpOnly; SameSite=Strict; Secure; Max-Age=43200",
        token.session()
    );
    (
        StatusCode::SEE_OTHER,
        [(LOCATION, "/".to_owned()), (SET_COOKIE, cookie)],
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn other_names_sites_and_methods_are_refused() {
        let door = Door::new(None, &["Nanoseg.Example".to_owned()]);
        let host = ("host", "127.0.0.1:8080");
        for (method, path, headers, expected) in [
            ("GET", "/", &[host][..], Ok(())),
            ("HEAD", "/api/map", &[("host", "LOCALHOST")], Ok(())),
            ("GET", "/", &[("host", "[::1]:9")], Ok(())),
            ("GET", "/", &[("host", "nanoseg.example:443")], Ok(())),
            ("GET", "/", &[("host", "evil.example")], Err(Refusal::Host)),
            (
                "GET",
                "/",
                &[("host", "127.0.0.1.evil.example:8080")],
                Err(Refusal::Host),
            ),
            ("GET", "/", &[("host", "localhost.evil.example")], Err(Refusal::Host)),
            ("GET", "/", &[("host", "")], Err(Refusal::Host)),
            ("GET", "/", &[], Err(Refusal::Host)),
            ("POST", "/api/map", &[host], Err(Refusal::Method)),
            ("DELETE", "/", &[host], Err(Refusal::Method)),
            ("OPTIONS", "/api/map", &[host], Err(Refusal::Method)),
            ("GET", "/api/map", &[host, ("origin", "http://127.0.0.1:8080")], Ok(())),
            (
                "GET",
                "/api/map",
                &[host, ("origin", "http://127.0.0.1:8081")],
                Err(Refusal::Elsewhere),
            ),
            ("GET", "/api/map", &[host, ("origin", "null")], Err(Refusal::Elsewhere)),
            (
                "GET",
                "/api/map",
                &[host, ("origin", "https://evil.example")],
                Err(Refusal::Elsewhere),
            ),
            ("GET", "/api/map", &[host, ("sec-fetch-site", "same-origin")], Ok(())),
            (
                "GET",
                "/api/map",
                &[host, ("sec-fetch-site", "cross-site")],
                Err(Refusal::Elsewhere),
            ),
            (
                "GET",
                "/api/map",
                &[host, ("sec-fetch-site", "same-site")],
                Err(Refusal::Elsewhere),
            ),
            ("GET", "/", &[host, ("sec-fetch-site", "cross-site")], Ok(())),
        ] {
            assert_eq!(
                door.judge(&request(method, path, headers)),
                expected,
                "{method} {path} {headers:?}"
            );
        }
    }

    #[test]
    fn without_the_token_there_is_only_the_question_for_it() {
        let door = Door::new(Some(Token::of(SECRET)), &[]);
        let session = format!("other=1; {SESSION}={}", Token::of(SECRET).session());
        let bearer = format!("Bearer {SECRET}");
        let wrong = format!("Bearer {SECRET}0");
        let host = ("host", "localhost:8080");
        for (path, headers, expected) in [
            ("/", &[host][..], Err(Refusal::NoToken)),
            ("/api/map", &[host], Err(Refusal::NoToken)),
            ("/page.js", &[host], Err(Refusal::NoToken)),
            ("/style.css", &[host], Ok(())),
            ("/api/map", &[host, ("authorization", &bearer)], Ok(())),
            ("/api/map", &[host, ("authorization", &wrong)], Err(Refusal::NoToken)),
            ("/api/map", &[host, ("authorization", SECRET)], Err(Refusal::NoToken)),
            ("/api/map", &[host, ("cookie", &session)], Ok(())),
            ("/api/map", &[host, ("cookie", "nanoseg-page=")], Err(Refusal::NoToken)),
            ("/api/map", &[host, ("cookie", "nanoseg-page=0")], Err(Refusal::NoToken)),
        ] {
            assert_eq!(
                door.judge(&request("GET", path, headers)),
                expected,
                "{path} {headers:?}"
            );
        }
    }

    #[test]
    fn a_token_that_can_be_guessed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, format!("  {SECRET}\n")).unwrap();
        assert_eq!(Token::read(&path).unwrap(), Token::of(SECRET));
        std::fs::write(&path, "secret\n").unwrap();
        assert!(matches!(Token::read(&path), Err(TokenError::Short { .. })));
    }
}
