//! The nodes that a client may ask, and which one it asks next.
//!
//! Any node serves any call: it forwards writes to the leader. Asking the leader itself saves that hop, so nodes say who
//! leads, and writes follow that hint where it names one of the configured endpoints. Hints to other addresses are
//! ignored: a node must not be able to send a client, and what it carries, to a place that nobody configured.

use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint as TonicEndpoint, Uri};

use crate::error::Error;

/// Connecting to a node that is up takes a fraction of this, also between regions.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection without a sign of life for this long is probed, so that a node that vanished is noticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long the answer to a probe may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a call changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    Read,
    Write,
}

/// The nodes, and what is known of them. `preferred` and `leader` are indexes into `nodes`.
pub(crate) struct Endpoints {
    nodes: Vec<Node>,
    choice: Mutex<Choice>,
}

#[derive(Clone, Copy)]
struct Choice {
    preferred: usize,
    leader: Option<usize>,
}

struct Node {
    /// As the caller gave it, with a scheme.
    address: String,
    /// `host:port`, to recognize hints by.
    authority: String,
    endpoint: TonicEndpoint,
    /// Made on first use, since that needs a runtime and building a client should not.
    channel: OnceLock<Channel>,
}

impl Endpoints {
    /// # Errors
    /// `Configuration` where the list is empty or an address is none.
    pub(crate) fn new(addresses: &[String]) -> Result<Self, Error> {
        if addresses.is_empty() {
            return Err(Error::configuration("no endpoint: give at least one, such as http://127.0.0.1:7480"));
        }
        let nodes = addresses.iter().map(|address| Node::new(address)).collect::<Result<_, _>>()?;
        Ok(Self { nodes, choice: Mutex::new(Choice { preferred: 0, leader: None }) })
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The node to ask now.
    pub(crate) fn pick(&self, kind: CallKind) -> usize {
        let choice = self.choice.lock();
        match kind {
            CallKind::Read => choice.preferred,
            CallKind::Write => choice.leader.unwrap_or(choice.preferred),
        }
    }

    pub(crate) fn channel(&self, index: usize) -> Channel {
        let node = &self.nodes[index];
        node.channel.get_or_init(|| node.endpoint.connect_lazy()).clone()
    }

    pub(crate) fn address(&self, index: usize) -> &str {
        &self.nodes[index].address
    }

    /// Notes who leads, as a node said.
    pub(crate) fn hint(&self, leader: &str) {
        let authority = authority_of(leader);
        if let Some(index) = self.nodes.iter().position(|node| node.authority == authority) {
            self.choice.lock().leader = Some(index);
        }
    }

    /// Notes that a node failed: the next call goes to the one behind it in the list.
    pub(crate) fn failed(&self, index: usize) {
        let mut choice = self.choice.lock();
        if choice.leader == Some(index) {
            choice.leader = None;
        }
        // Another call may have moved on already; two failures of one node must not skip a good one.
        if choice.preferred == index {
            choice.preferred = (index + 1) % self.nodes.len();
        }
    }
}

impl Node {
    fn new(address: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::configuration(format!("endpoint `{address}`: {why}"));
        let with_scheme = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let uri: Uri = with_scheme.parse().map_err(|_| bad("is not an address such as http://127.0.0.1:7480"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(bad("this build has no TLS; use http:// on a private network")),
            _ => return Err(bad("must begin with http://")),
        }
        if uri.port_u16().is_none() {
            return Err(bad("has no port; client calls go to 7480 by default"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("must end with the port"));
        }
        let endpoint = TonicEndpoint::from(uri)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(false);
        let authority = authority_of(&with_scheme).to_owned();
        let address = with_scheme.trim_end_matches('/').to_owned();
        Ok(Self { address, authority, endpoint, channel: OnceLock::new() })
    }
}

/// `host:port` of an address with or without a scheme.
fn authority_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Endpoints {
        Endpoints::new(&["http://a:1".to_owned(), "b:2".to_owned(), "http://c:3/".to_owned()]).unwrap()
    }

    #[test]
    fn writes_follow_a_hint_to_a_configured_endpoint_only() {
        let endpoints = three();
        endpoints.hint("c:3");
        assert_eq!((endpoints.pick(CallKind::Write), endpoints.pick(CallKind::Read)), (2, 0));
        endpoints.hint("http://b:2");
        assert_eq!(endpoints.pick(CallKind::Write), 1);
        endpoints.hint("evil:2");
        assert_eq!(endpoints.pick(CallKind::Write), 1);
    }

    #[test]
    fn a_failed_node_is_left_and_two_failures_of_it_skip_nobody() {
        let endpoints = three();
        endpoints.failed(0);
        endpoints.failed(0);
        assert_eq!(endpoints.pick(CallKind::Read), 1);
        endpoints.failed(1);
        endpoints.failed(2);
        assert_eq!(endpoints.pick(CallKind::Read), 0);
    }

    #[test]
    fn a_failed_leader_is_forgotten() {
        let endpoints = three();
        endpoints.hint("b:2");
        endpoints.failed(1);
        assert_eq!(endpoints.pick(CallKind::Write), 0);
    }

    #[test]
    fn addresses_that_cannot_work_are_refused_with_a_reason() {
        let message = |address: &str| Endpoints::new(&[address.to_owned()]).err().map(|error| error.to_string());
        assert!(message("https://a:1").unwrap().contains("no TLS"));
        assert!(message("http://a").unwrap().contains("no port"));
        assert!(message("http://a:1/path").unwrap().contains("end with the port"));
        assert!(message("ftp://a:1").unwrap().contains("http://"));
        assert!(message("a b").unwrap().contains("not an address"));
        assert_eq!(message("127.0.0.1:7480"), None);
        assert!(Endpoints::new(&[]).is_err());
    }
}
