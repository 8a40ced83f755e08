//! Which web pages may call the API. Programs send neither `Origin` nor a foreign `Host`, and pass.
//!
//! A browser sends requests of any page to any address, loopback included. Without this, a page of anybody could write to
//! a node on the reader's own machine, and read from it by pointing its own name at 127.0.0.1 (DNS rebinding). So:
//!
//! - A request that names another origin than its own host is refused, unless `http.cors_origins` lists that origin.
//! - On a loopback listener the host must be a loopback address, `localhost`, or one of `http.hosts`.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::refusal::Refusal;
use crate::config::HttpSection;
use crate::error::{LEADER_METADATA, Problem};

/// How long a browser may keep the answer to a preflight, in seconds.
const PREFLIGHT_SECONDS_MAX: u64 = 600;

/// Headers that a page may send.
const REQUEST_HEADERS: &str = "authorization, content-type, grpc-timeout";

/// See the module.
#[derive(Debug)]
pub(super) struct Guard {
    origins: Vec<String>,
    hosts: Vec<String>,
    loopback: bool,
}

impl Guard {
    /// The rules of this configuration, on a listener that is on loopback or not.
    pub(super) fn new(section: &HttpSection, loopback: bool) -> Self {
        Self { origins: section.cors_origins.clone(), hosts: section.hosts.clone(), loopback }
    }

    /// Lets a request pass.
    ///
    /// # Errors
    /// PERMISSION_DENIED that names the host or the origin, and the setting that would let it pass.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = text(headers, header::HOST);
        if self.loopback && !host.is_none_or(|host| self.is_own_host(host)) {
            let host = host.unwrap_or_default();
            let problem =
                Problem::denied("HOST_NOT_ALLOWED", format!("this node does not answer as {host:?}; see http.hosts"));
            return Err(Refusal::with_http(StatusCode::FORBIDDEN, problem));
        }
        match text(headers, header::ORIGIN) {
            Some(origin) if !self.allows(origin) && !is_same(origin, host) => {
                let message = format!("pages of {origin:?} may not call this node; see http.cors_origins");
                Err(Refusal::with_http(StatusCode::FORBIDDEN, Problem::denied("ORIGIN_NOT_ALLOWED", message)))
            }
            _ => Ok(()),
        }
    }

    fn is_own_host(&self, host: &str) -> bool {
        let name = name(host);
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        name.eq_ignore_ascii_case("localhost")
            || address.is_ok_and(|address| address.is_loopback())
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed == "*" || allowed == origin)
    }

    /// The answer to a browser that asks before it sends.
    pub(super) fn preflight(&self, methods: &str) -> Response {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        if let Ok(methods) = HeaderValue::from_str(methods) {
            headers.insert(header::ALLOW, methods.clone());
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(PREFLIGHT_SECONDS_MAX));
        response
    }

    /// Tells a browser that the page may read the answer.
    pub(super) fn mark(&self, request: Option<&HeaderValue>, response: &mut Response) {
        if self.origins.is_empty() {
            return;
        }
        let headers = response.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        let Some(origin) = request.filter(|origin| origin.to_str().is_ok_and(|origin| self.allows(origin))) else {
            return;
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let exposed = format!("{LEADER_METADATA}, retry-after");
        if let Ok(exposed) = HeaderValue::from_str(&exposed) {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    // What is no text is not of this node either.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// A host without its port.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether a page comes from the host that it calls.
fn is_same(origin: &str, host: Option<&str>) -> bool {
    origin.split_once("://").is_some_and(|(_, authority)| Some(authority) == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(guard: &Guard, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        guard.check(&headers).is_ok()
    }

    fn guard(origins: &[&str], hosts: &[&str], loopback: bool) -> Guard {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Guard { origins: list(origins), hosts: list(hosts), loopback }
    }

    #[test]
    fn a_foreign_name_for_loopback_is_refused() {
        let closed = guard(&[], &[], true);
        for own in ["127.0.0.1:7482", "localhost", "LOCALHOST:7482", "[::1]:7482", "127.0.0.9"] {
            assert!(passes(&closed, own, None), "{own}");
        }
        for foreign in ["evil.example:7482", "192.0.2.1:7482", "localhost.evil.example", ""] {
            assert!(!passes(&closed, foreign, None), "{foreign}");
        }
        assert!(passes(&guard(&[], &["cairn.example"], true), "cairn.example:443", None));
        assert!(passes(&guard(&[], &[], false), "node1.example:7482", None));
    }

    #[test]
    fn foreign_pages_are_refused_unless_listed() {
        let closed = guard(&[], &[], true);
        assert!(passes(&closed, "localhost:7482", Some("http://localhost:7482")));
        for origin in ["https://evil.example", "http://localhost:3000", "null"] {
            assert!(!passes(&closed, "localhost:7482", Some(origin)), "{origin}");
        }
        let open = guard(&["http://localhost:3000"], &[], true);
        assert!(passes(&open, "localhost:7482", Some("http://localhost:3000")));
        assert!(!passes(&open, "localhost:7482", Some("https://evil.example")));
        assert!(passes(&guard(&["*"], &[], true), "localhost:7482", Some("https://any.example")));
    }

    #[test]
    fn only_listed_pages_may_read_answers() {
        let open = guard(&["https://app.example"], &[], false);
        let origin = HeaderValue::from_static("https://app.example");
        let mut response = open.preflight("GET, POST");
        open.mark(Some(&origin), &mut response);
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_METHODS], "GET, POST");
        let mut response = Response::default();
        open.mark(Some(&HeaderValue::from_static("https://other.example")), &mut response);
        assert!(response.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none());
        let mut response = Response::default();
        guard(&[], &[], false).mark(Some(&origin), &mut response);
        assert!(response.headers().is_empty());
    }
}
