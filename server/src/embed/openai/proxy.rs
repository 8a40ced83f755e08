//! The way to a server through a proxy, where the environment names one as it does for curl and most other programs:
//! `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in capitals or not.
//!
//! ```text
//! https://server   CONNECT server:443 at the proxy, then TLS with the server itself: the proxy sees neither texts nor key
//! http://server    the whole request goes to the proxy, which passes it on
//! loopback         always direct
//! ```

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tower::Service;

/// The longest head of an answer to CONNECT.
const HEAD_BYTES_MAX: usize = 8 << 10;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A proxy that takes HTTP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    address: Uri,
    /// What it is to be told of the caller.
    pub(super) authorization: Option<HeaderValue>,
    /// The variable that names it, for messages.
    variable: &'static str,
}

impl Proxy {
    /// The proxy for this server; `None`: the way is direct. `variable` reads the environment.
    ///
    /// # Errors
    /// A proxy that is not understood: to call the server directly instead could be what the proxy is there to prevent.
    pub(super) fn of(server: &Uri, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let names: [&'static str; 4] = if server.scheme_str() == Some("https") {
            ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        } else {
            ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        };
        let set = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let Some((name, value)) = names.into_iter().find_map(|name| Some((name, set(name)?))) else { return Ok(None) };
        let exceptions = set("NO_PROXY").or_else(|| set("no_proxy")).unwrap_or_default();
        if is_direct(server, &exceptions) {
            return Ok(None);
        }
        let (address, authorization) = parse(&value).ok_or_else(|| {
            format!("{name} names no proxy such as http://proxy:3128 (https and socks ones are not understood); unset it, or name the server in NO_PROXY")
        })?;
        Ok(Some(Self { address, authorization, variable: name }))
    }
}

/// The address of a proxy, and the credentials in it.
fn parse(text: &str) -> Option<(Uri, Option<HeaderValue>)> {
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some(_) => return None,
        None => text,
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (credentials, place) = match authority.rsplit_once('@') {
        Some((credentials, place)) => (Some(credentials), place),
        None => (None, authority),
    };
    let address: Uri = format!("http://{place}/").parse().ok()?;
    address.host().filter(|host| !host.is_empty())?;
    let names_port = place.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    if names_port && address.port_u16().is_none() {
        return None;
    }
    let authorization = credentials.map(|credentials| {
        let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(decoded(credentials)))).ok()?;
        value.set_sensitive(true);
        Some(value)
    });
    match authorization {
        Some(None) => None,
        found => Some((address, found.flatten())),
    }
}

/// Text with `%20` and the like turned back.
fn decoded(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

/// Whether a server is reached without a proxy: on loopback, or as `NO_PROXY` says: `*`, or hosts with all that is below them,
/// with or without a port.
fn is_direct(server: &Uri, exceptions: &str) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
    if host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        return true;
    }
    let port = port(server);
    exceptions.split(',').map(|exception| exception.trim().to_ascii_lowercase()).any(|exception| {
        let (name, wanted) = match exception.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') => (name.to_owned(), digits.parse::<u16>().ok()),
            _ => (exception.trim_matches(['[', ']']).to_owned(), None),
        };
        let name = name.trim_start_matches("*.").trim_start_matches('.');
        let below = || host.strip_suffix(name).is_some_and(|front| front.is_empty() || front.ends_with('.'));
        exception == "*" || (!name.is_empty() && below() && wanted.is_none_or(|wanted| wanted == port))
    })
}

fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 })
}

/// Makes connections, through the proxy where there is one.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    proxy: Option<Arc<Proxy>>,
}

impl Connector {
    pub(super) fn new(tcp: HttpConnector, proxy: Option<Proxy>) -> Self {
        Self { tcp, proxy: proxy.map(Arc::new) }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Way>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let proxy = self.proxy.clone();
        let connecting = self.tcp.call(proxy.as_ref().map_or_else(|| server.clone(), |proxy| proxy.address.clone()));
        Box::pin(async move {
            let connected = connecting.await;
            let Some(proxy) = proxy else {
                return Ok(TokioIo::new(Way { stream: connected?.into_inner(), forwards: false }));
            };
            let told = |problem: String| BoxError::from(format!("the proxy of {}: {problem}", proxy.variable));
            let mut stream = connected.map_err(|error| told(error.to_string()))?.into_inner();
            let is_tunnel = server.scheme_str() == Some("https");
            if is_tunnel {
                tunnel(&mut stream, &proxy, &server).await.map_err(|error| told(error.to_string()))?;
            }
            Ok(TokioIo::new(Way { stream, forwards: !is_tunnel }))
        })
    }
}

/// Has the proxy connect to the server; what is written from then on goes there.
async fn tunnel(stream: &mut TcpStream, proxy: &Proxy, server: &Uri) -> io::Result<()> {
    let target = format!("{}:{}", server.host().unwrap_or_default(), port(server));
    let mut ask = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n").into_bytes();
    if let Some(value) = &proxy.authorization {
        ask.extend_from_slice(b"proxy-authorization: ");
        ask.extend_from_slice(value.as_bytes());
        ask.extend_from_slice(b"\r\n");
    }
    ask.extend_from_slice(b"\r\n");
    stream.write_all(&ask).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // Byte by byte, so that nothing behind the head is taken.
        head.push(stream.read_u8().await?);
        if head.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("its answer has no end"));
        }
    }
    let head = String::from_utf8_lossy(&head);
    match head.split_whitespace().nth(1) {
        Some(status) if status.len() == 3 && status.starts_with('2') => Ok(()),
        status => Err(io::Error::other(format!("it answered {}", status.unwrap_or("no status")))),
    }
}

/// A connection to the server or to a proxy.
pub(super) struct Way {
    stream: TcpStream,
    /// Whether a proxy passes on whole requests, which then must name their server.
    forwards: bool,
}

impl Connection for Way {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.forwards)
    }
}

impl AsyncRead for Way {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Way {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn of(server: &str, environment: &[(&str, &str)]) -> Result<Option<Proxy>, String> {
        let read = |name: &str| environment.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        Proxy::of(&server.parse().unwrap(), read)
    }

    fn address(server: &str, environment: &[(&str, &str)]) -> String {
        of(server, environment).unwrap().map_or_else(|| "direct".to_owned(), |proxy| proxy.address.to_string())
    }

    #[test]
    fn the_environment_names_the_proxy() {
        let (plain, secure) = ("http://a.example/v1", "https://a.example/v1");
        let both = [("HTTP_PROXY", "http://p:1"), ("https_proxy", "p:2/")];
        assert_eq!((address(plain, &both), address(secure, &both)), ("http://p:1/".into(), "http://p:2/".into()));
        assert_eq!(address(plain, &[("all_proxy", "p:3"), ("HTTP_PROXY", " ")]), "http://p:3/");
        assert_eq!(address(plain, &[("HTTPS_PROXY", "p:3")]), "direct");
        for local in ["http://localhost:1/v1", "http://127.0.0.1/v1", "http://[::1]:8080/v1"] {
            assert_eq!(address(local, &both), "direct", "{local}");
        }
        for bad in ["socks5://p:1", "https://p:1", "http://", "http://p:port"] {
            assert!(
                of(secure, &[("HTTPS_PROXY", bad)]).unwrap_err().starts_with("HTTPS_PROXY names no proxy"),
                "{bad}"
            );
        }
        let known = of(secure, &[("HTTPS_PROXY", "http://me:p%40ss@p:1")]).unwrap().unwrap();
        assert_eq!(known.authorization.unwrap(), format!("Basic {}", STANDARD.encode("me:p@ss")));
    }

    #[test]
    fn exceptions_hold_for_a_host_and_all_below_it() {
        let way = |server: &str, exceptions: &str| address(server, &[("ALL_PROXY", "p:1"), ("NO_PROXY", exceptions)]);
        for (server, exceptions, direct) in [
            ("http://a.example/", "*", true),
            ("http://a.example/", "b.example, A.example", true),
            ("http://a.example/", ".example", true),
            ("http://a.example/", "*.example", true),
            ("http://a.example/", "ample", false),
            ("http://a.example/", "", false),
            ("http://a.example:8080/", "a.example:8080", true),
            ("https://a.example/", "a.example:443", true),
            ("http://a.example/", "a.example:443", false),
            ("http://10.0.0.7/", "10.0.0.7", true),
            ("http://[fd00::1]/", "[fd00::1]", true),
        ] {
            assert_eq!(way(server, exceptions) == "direct", direct, "{server} {exceptions:?}");
        }
    }

    /// A proxy that answers CONNECT with this status, and the head that it was sent.
    async fn tunnelled(status: &str) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("me:secret@{}", listener.local_addr().unwrap());
        let proxy = of("https://a.example/v1", &[("HTTPS_PROXY", &proxy)]).unwrap();
        let answer = format!("HTTP/1.1 {status} x\r\nvia: y\r\n\r\n");
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 500];
            let length = stream.read(&mut head).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut first = [0; 4];
            let _ = stream.read_exact(&mut first).await;
            let _ = stream.write_all(&first).await;
            String::from_utf8_lossy(&head[..length]).into_owned()
        });
        let mut connector = Connector::new(
            {
                let mut tcp = HttpConnector::new();
                tcp.enforce_http(false);
                tcp
            },
            proxy,
        );
        let result = match connector.call("https://a.example/v1".parse().unwrap()).await {
            Ok(way) => {
                let mut way = way.into_inner();
                way.write_all(b"ping").await.unwrap();
                let mut echo = [0; 4];
                way.read_exact(&mut echo).await.unwrap();
                assert_eq!(&echo, b"ping");
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        };
        (result, serving.await.unwrap())
    }

    #[tokio::test]
    async fn a_server_without_tls_is_asked_through_the_proxy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://me:secret@{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1_000];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let read = |name: &str| (name == "HTTP_PROXY").then(|| proxy.clone());
        let http = super::super::http::Http::new("http://a.example:8080/v1", None, 1, read).unwrap();
        let answer = http.post("{}".into()).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"hi"[..]));
        let request = serving.await.unwrap();
        assert!(request.starts_with("POST http://a.example:8080/v1/embeddings HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("proxy-authorization: Basic {}", STANDARD.encode("me:secret"))), "{request}");
    }

    #[tokio::test]
    async fn a_tunnel_leads_to_the_server() {
        let (result, head) = tunnelled("200").await;
        assert_eq!(result, Ok(()));
        assert!(head.starts_with("CONNECT a.example:443 HTTP/1.1\r\nhost: a.example:443\r\n"), "{head}");
        assert!(head.contains(&format!("proxy-authorization: Basic {}", STANDARD.encode("me:secret"))), "{head}");
        let (result, _) = tunnelled("407").await;
        assert_eq!(result, Err("the proxy of HTTPS_PROXY: it answered 407".to_owned()));
    }
}
