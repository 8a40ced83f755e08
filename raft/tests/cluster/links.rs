//! Clusters in this process whose nodes reach each other through links that can be harmed.

use cairn_links::Links;
use cairn_raft::{Node, NodeConfig};

use crate::support::Cluster;

/// Starts all nodes of `cluster`, which reach each other through links, and waits until they are ready.
pub(crate) async fn start_linked(cluster: &mut Cluster) -> Links {
    let nodes = cluster.ids().into_iter().map(|id| (id, cluster.peer_address(id).parse().unwrap()));
    let links = Links::between(&nodes.collect::<Vec<_>>()).await.unwrap();
    cluster.start_all_as(|config| Node::start(through(&links, config))).await;
    links
}

fn through(links: &Links, mut config: NodeConfig) -> NodeConfig {
    let id = config.node_id;
    for peer in config.peers.iter_mut().filter(|peer| peer.id != id) {
        peer.peer_address = links.address(id, peer.id).to_string();
    }
    config
}
