//! [`TestCluster`]: a cluster of real processes that ends with the test.
//!
//! ```no_run
//! # async fn example() {
//! let mut cluster = cairn_tests::TestCluster::start(3).await;
//! cluster.client().space("default").add("Ada prefers oat milk").await.unwrap();
//! cluster.kill(1).unwrap();
//! cluster.start_node(1).unwrap();
//! cluster.wait_until_ready().await.unwrap();
//! # }
//! ```
//!
//! The processes run the program that `CAIRN_BIN` names, or that cargo has built beside the test; `make test` builds it first.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use cairn_client::Client;
use cairn_client::proto::NodeState;
use cairn_demo::cluster::{Cluster, cairn_binary};
use tempfile::TempDir;
use tokio::runtime::Builder;

const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// How long the end of a test waits for nodes that can still hear of each other's last entries, and for their answers.
const SETTLED_AT_THE_END_WITHIN: Duration = Duration::from_secs(1);
const ANSWERED_AT_THE_END_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A [`Cluster`] in a temporary directory. When a test fails, it shows the end of each node's log and keeps the directory. However
/// it ends, nodes that run then and have applied the same entries must have the same state.
#[derive(Debug)]
pub struct TestCluster {
    cluster: Cluster,
    /// Empty once the directory is to be kept.
    directory: Option<TempDir>,
}

impl TestCluster {
    /// Starts `nodes` nodes and waits until all are ready.
    ///
    /// # Panics
    /// Where they do not become ready.
    pub async fn start(nodes: u64) -> Self {
        Self::start_with(nodes, "").await
    }

    /// As [`TestCluster::start`]; each configuration ends with `settings`, which are whole sections that it does not have yet.
    ///
    /// # Panics
    /// Where the nodes do not become ready.
    #[expect(clippy::panic, reason = "a test that cannot start its nodes has failed")]
    pub async fn start_with(nodes: u64, settings: &str) -> Self {
        let mut this = Self::new(nodes);
        for id in 1..=nodes {
            let path = this.cluster.directory().join(format!("node-{id}.yaml"));
            let written = std::fs::read_to_string(&path).and_then(|text| std::fs::write(&path, text + settings));
            written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            this.start_node(id).unwrap_or_else(|error| panic!("{error}"));
        }
        this.wait_until_ready().await.unwrap_or_else(|error| panic!("{error}"));
        this
    }

    /// Writes the configurations of `nodes` nodes and starts nothing.
    ///
    /// # Panics
    /// Where the files cannot be written.
    #[must_use]
    #[expect(clippy::panic, reason = "a test that cannot write its files has failed")]
    pub fn new(nodes: u64) -> Self {
        let directory = tempfile::Builder::new().prefix("cairn-test-").tempdir();
        let directory = directory.unwrap_or_else(|error| panic!("no temporary directory: {error}"));
        let cluster = Cluster::new(&cairn_binary(), directory.path(), nodes);
        let cluster = cluster.unwrap_or_else(|error| panic!("{error}"));
        Self { cluster, directory: Some(directory) }
    }

    /// A client of all nodes.
    ///
    /// # Panics
    /// Never, since the addresses are well formed.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_at(self.cluster.endpoints())
    }

    /// A client of one node only, so that it is this node that answers.
    ///
    /// # Panics
    /// Where there is no such node.
    #[must_use]
    pub fn client_of(&self, id: u64) -> Client {
        self.client_at(vec![self.cluster.node(id).endpoint()])
    }

    /// What the nodes that run and answer say of themselves at the end of a test.
    fn last_states(&self) -> Vec<(u64, NodeState)> {
        let running: Vec<_> = self.cluster.nodes().iter().filter(|node| node.process_id().is_some()).collect();
        let ask = async {
            let asked = Instant::now();
            loop {
                let mut states = Vec::new();
                for node in &running {
                    states.extend(node.state(ANSWERED_AT_THE_END_WITHIN).await.ok().map(|state| (node.id, state)));
                }
                let is_settled = states.iter().all(|(_, state)| state.applied_index == states[0].1.applied_index);
                if is_settled || asked.elapsed() > SETTLED_AT_THE_END_WITHIN {
                    return states;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        // A test ends on a thread that has a runtime already.
        let states = std::thread::scope(|scope| {
            let asking = scope.spawn(|| Some(Builder::new_current_thread().enable_all().build().ok()?.block_on(ask)));
            asking.join().ok().flatten()
        });
        states.unwrap_or_default()
    }

    /// Waits until all running nodes have applied the same entries, and returns their digest.
    ///
    /// # Panics
    /// Where they do not come together in a minute, or their digests differ.
    #[expect(clippy::panic, reason = "a test whose nodes differ has failed")]
    pub async fn wait_until_equal(&self) -> String {
        let states = self.cluster.settled_states(SETTLED_WITHIN).await.unwrap_or_else(|error| panic!("{error}"));
        let (_, first) = &states[0];
        let behind = states.iter().find(|(_, state)| state.applied_index != first.applied_index);
        assert!(behind.is_none(), "a node has not come as far as another: {behind:?}, {first:?}");
        assert_eq!(difference(&states), None);
        first.digest.clone()
    }

    #[expect(clippy::panic, reason = "the addresses are our own")]
    fn client_at(&self, endpoints: Vec<String>) -> Client {
        Client::builder().endpoints(endpoints).build().unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Deref for TestCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl DerefMut for TestCluster {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}

/// Two nodes that have applied the same entries and have another digest, if there are such.
fn difference(states: &[(u64, NodeState)]) -> Option<String> {
    states.iter().find_map(|(id, state)| {
        let differs = |other: &NodeState| other.applied_index == state.applied_index && other.digest != state.digest;
        let (other_id, other) = states.iter().find(|(_, other)| differs(other))?;
        Some(format!("nodes {id} and {other_id} differ: {state:?}, {other:?}"))
    })
}

impl Drop for TestCluster {
    #[expect(clippy::print_stderr, clippy::panic, reason = "a failed test should say why")]
    fn drop(&mut self) {
        let is_panicking = std::thread::panicking();
        let difference = if is_panicking { None } else { difference(&self.last_states()) };
        if !is_panicking && difference.is_none() {
            return;
        }
        for node in self.cluster.nodes() {
            eprintln!("--- the end of node {}'s log\n{}", node.id, node.log_tail());
        }
        if let Some(directory) = self.directory.take() {
            eprintln!("--- logs and data are in {}", directory.keep().display());
        }
        if let Some(difference) = difference {
            panic!("{difference}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(applied_index: u64, digest: &str) -> NodeState {
        NodeState { applied_index, digest: digest.to_owned(), ..NodeState::default() }
    }

    #[test]
    fn nodes_differ_that_have_another_digest_at_the_same_index() {
        let (ahead, one, other) = ((1, state(8, "a")), (2, state(7, "b")), (3, state(7, "c")));
        assert_eq!(difference(&[ahead.clone(), one.clone()]), None);
        assert!(difference(&[ahead, one, other]).unwrap().starts_with("nodes 2 and 3 differ"));
        assert_eq!(difference(&[]), None);
    }
}
