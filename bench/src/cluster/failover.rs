//! What the death of a leader costs: kill -9, and the time until a write is acknowledged again.

use std::time::{Duration, Instant};

use cairn_client::Client;
use cairn_demo::cluster::Cluster;

use super::failed;
use super::load::Measured;
use super::nodes::{PLAIN, add};
use super::report::{Report, Row};
use crate::BenchError;

/// How long a cluster may take to acknowledge again.
const PATIENCE: Duration = Duration::from_secs(60);
/// The cluster runs so long between two deaths.
const BETWEEN: Duration = Duration::from_secs(2);

/// Kills the leader `rounds` times; the latencies of the row are those from the kill to the next acknowledgement.
pub(super) async fn measure(cluster: &mut Cluster, rounds: usize, report: &mut Report) -> Result<(), BenchError> {
    let mut measured = Measured::default();
    for round in 0..rounds {
        tokio::time::sleep(BETWEEN).await;
        let client = Client::builder().endpoints(cluster.endpoints()).deadline(PATIENCE).build().map_err(failed)?;
        let leader = client.status().await.map_err(failed)?.leader_id;
        add(&client, PLAIN, 2_000_000 + round, 0).await.map_err(failed)?;
        cluster.kill(leader).map_err(failed)?;
        let killed = Instant::now();
        add(&client, PLAIN, 2_000_000 + round, 1).await.map_err(failed)?;
        measured.add(killed.elapsed());
        cluster.start_node(leader).map_err(failed)?;
        cluster.wait_until_ready().await.map_err(failed)?;
    }
    measured.sort();
    report.row(&Row::new("cairn", cluster.nodes().len() as u64, "failover", 1, measured))
}
