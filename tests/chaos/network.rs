//! What lies between the nodes, and how it is harmed: proxies on loopback or, where `scripts/chaos.sh` could make them, network
//! namespaces, one for each node, whose packets the one of the clients passes on.
//!
//! ```text
//!   namespace NAME-1: node 1 ── veth ──┐
//!   namespace NAME-2: node 2 ── veth ──┼── namespace NAME: the clients, members that come and go, and nftables
//!   namespace NAME-3: node 3 ── veth ──┘
//! ```
//!
//! A proxy harms the connections that one node opens to another, with their answers. A rule of nftables takes the packets from one
//! node to another, so that a connection either way stands still: neither end hears that what it said has come.

use std::cell::Cell;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use cairn_links::Links;
use cairn_tests::TestCluster;

use super::NODES;

/// Names the namespaces; `scripts/chaos.sh` sets it.
const NAMESPACES: &str = "CAIRN_CHAOS_NAMESPACES";
/// Where everything in the clients' namespace is reached, as `scripts/chaos.sh` has it.
const HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const CHAIN: &str = "inet cairn_faults between";
/// What lies between node and node in a network that loses much.
const LOST_PERCENT: u32 = 20;

/// What lies between the nodes of a cluster.
pub(crate) enum Network {
    Proxies(Links),
    Namespaces { is_harmed: Cell<bool> },
}

fn host(id: u64) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, id as u8, 1)
}

impl Network {
    /// Puts the nodes of a cluster that has not been started yet where they reach each other through the network.
    pub(crate) async fn between(cluster: &mut TestCluster) -> Self {
        match std::env::var(NAMESPACES) {
            Ok(name) => Self::namespaces(cluster, &name),
            Err(_) => Self::proxies(cluster).await,
        }
    }

    fn namespaces(cluster: &mut TestCluster, name: &str) -> Self {
        for id in 1..=NODES {
            cluster.place(id, host(id), &["ip", "netns", "exec", &format!("{name}-{id}")]).unwrap();
        }
        let chain =
            format!("add table inet cairn_faults; add chain {CHAIN} {{ type filter hook forward priority 1; }}");
        nft(&chain);
        Self::Namespaces { is_harmed: Cell::new(false) }
    }

    async fn proxies(cluster: &TestCluster) -> Self {
        let nodes: Vec<_> = cluster.nodes().iter().map(|node| (node.id, node.peer)).collect();
        let links = Links::between(&nodes).await.unwrap();
        for from in 1..=NODES {
            let path = cluster.directory().join(format!("node-{from}.yaml"));
            let mut text = std::fs::read_to_string(&path).unwrap();
            for to in (1..=NODES).filter(|to| *to != from) {
                let direct = format!("peer_address: \"{}\"", cluster.node(to).peer);
                assert!(text.contains(&direct), "{text}");
                text = text.replace(&direct, &format!("peer_address: \"{}\"", links.address(from, to)));
            }
            std::fs::write(&path, text).unwrap();
        }
        Self::Proxies(links)
    }

    /// Puts a node that has not been started where all others reach it. Nothing between them is ever harmed.
    pub(crate) fn let_in(&self, cluster: &mut TestCluster, id: u64) {
        if let Self::Namespaces { .. } = self {
            cluster.place(id, HUB, &[]).unwrap();
        }
    }

    /// Cuts a node off from all others.
    pub(crate) fn cut_off(&self, node: u64) {
        match self {
            Self::Proxies(links) => links.cut_off(node),
            Self::Namespaces { .. } => {
                let others = (1..=NODES).filter(|other| *other != node);
                self.rule(
                    others.flat_map(|other| [(node, other), (other, node)]),
                    "meta l4proto tcp reject with tcp reset",
                );
            }
        }
    }

    /// Cuts what `from` says to `to`.
    pub(crate) fn cut(&self, from: u64, to: u64) {
        match self {
            Self::Proxies(links) => links.cut(from, to),
            Self::Namespaces { .. } => self.rule([(from, to)], "meta l4proto tcp reject with tcp reset"),
        }
    }

    /// Has `to` hear nothing more from `from`, without anybody noticing.
    pub(crate) fn silence(&self, from: u64, to: u64) {
        match self {
            Self::Proxies(links) => links.silence(from, to),
            Self::Namespaces { .. } => self.rule([(from, to)], "drop"),
        }
    }

    /// Makes everything between all nodes late: by as much as `time`, or by what it takes to send again what is lost.
    pub(crate) fn impair(&self, time: Duration) -> &'static str {
        match self {
            Self::Proxies(links) => {
                links.delay(time);
                "delay"
            }
            Self::Namespaces { .. } => {
                let pairs = (1..=NODES).flat_map(|from| (1..=NODES).map(move |to| (from, to)));
                self.rule(
                    pairs.filter(|(from, to)| from != to),
                    &format!("numgen random mod 100 < {LOST_PERCENT} drop"),
                );
                "loss"
            }
        }
    }

    /// Takes all harm back.
    pub(crate) fn mend(&self) {
        match self {
            Self::Proxies(links) => links.mend(),
            Self::Namespaces { is_harmed } => {
                nft(&format!("flush chain {CHAIN}"));
                is_harmed.set(false);
            }
        }
    }

    /// Whether there is any.
    pub(crate) fn is_harmed(&self) -> bool {
        match self {
            Self::Proxies(links) => links.are_harmed(),
            Self::Namespaces { is_harmed } => is_harmed.get(),
        }
    }

    /// Has something done with all packets from one node to another.
    fn rule(&self, pairs: impl IntoIterator<Item = (u64, u64)>, what: &str) {
        let Self::Namespaces { is_harmed } = self else { return };
        let mut rules = String::new();
        for (from, to) in pairs {
            let _ = writeln!(rules, "add rule {CHAIN} ip saddr {} ip daddr {} {what}", host(from), host(to));
        }
        nft(&rules);
        is_harmed.set(true);
    }
}

/// Carries out commands of nftables, all or none.
fn nft(commands: &str) {
    let done = Command::new("nft").arg(commands).output().unwrap();
    assert!(done.status.success(), "{commands}: {}", String::from_utf8_lossy(&done.stderr));
}
