//! One POST over HTTP or HTTPS, with connections that are kept. TLS is rustls on aws-lc-rs with the system's certificates.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, RETRY_AFTER, USER_AGENT,
};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::proxy::{Connector, Proxy};
use crate::error::Chain;

/// The largest answer that is read: 2,048 vectors of 4,096 dimensions with 8 bytes a value.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// How long a connection may take to come up.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// How long an idle connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A client for one address.
pub(super) struct Http {
    transport: Transport,
    uri: Uri,
    headers: HeaderMap,
}

enum Transport {
    Plain(Client<Connector, Full<Bytes>>),
    Tls(Client<HttpsConnector<Connector>, Full<Bytes>>),
}

/// What a server answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

impl Http {
    /// A client for `<base>/embeddings`, which keeps at most `connections_max` idle connections. `variable` reads the environment,
    /// which may name a proxy.
    ///
    /// # Errors
    /// What is wrong with the address, the key, the proxy, or the system's certificates.
    pub(super) fn new(
        base: &str,
        secret: Option<&str>,
        connections_max: usize,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let uri: Uri = format!("{}/embeddings", base.trim_end_matches('/'))
            .parse()
            .map_err(|error| format!("{base:?} is no address: {error}"))?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("cairn/", env!("CARGO_PKG_VERSION"))));
        if let Some(secret) = secret {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", secret.trim()))
                .map_err(|_| "the key holds characters that no header can carry".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }

        let is_secure = uri.scheme_str() == Some("https");
        let proxy = Proxy::of(&uri, variable)?;
        // Through a tunnel, it is the proxy alone that is told it; see `proxy.rs`.
        if let Some(value) = proxy.as_ref().and_then(|proxy| proxy.authorization.clone()).filter(|_| !is_secure) {
            headers.insert(PROXY_AUTHORIZATION, value);
        }
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_PATIENCE));
        let connector = Connector::new(connector, proxy);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_MAX).pool_max_idle_per_host(connections_max);
        let transport = if is_secure {
            let tls = HttpsConnectorBuilder::new()
                .with_native_roots()
                .map_err(|error| format!("the system's certificates cannot be read: {error}"))?;
            Transport::Tls(builder.build(tls.https_only().enable_http1().wrap_connector(connector)))
        } else {
            Transport::Plain(builder.build(connector))
        };
        Ok(Self { transport, uri, headers })
    }

    /// Sends a body and reads the whole answer. Dropping the future gives up the connection.
    ///
    /// # Errors
    /// Why there is no whole answer.
    pub(super) async fn post(&self, body: Bytes) -> Result<Answer, String> {
        let mut request = Request::post(self.uri.clone()).body(Full::new(body)).map_err(|error| error.to_string())?;
        request.headers_mut().clone_from(&self.headers);
        let response = match &self.transport {
            Transport::Plain(client) => client.request(request).await,
            Transport::Tls(client) => client.request(request).await,
        };
        let response = response.map_err(|error| Chain(&error).to_string())?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(seconds);
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("the answer broke off: {error}"))?.to_bytes();
        Ok(Answer { status, retry_after, body })
    }
}

/// A `Retry-After` in seconds. Its other form, a date, is not read: it depends on two clocks.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    let seconds: f64 = value.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}
