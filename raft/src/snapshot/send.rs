//! The sending side of a snapshot: offer it, learn what the receiver lacks, send that.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_proto::peer::peer_service_client::PeerServiceClient;
use cairn_proto::peer::{
    OfferSnapshotRequest, PeerHeader, SendSnapshotRequest, SnapshotChunk, SnapshotManifest, SnapshotStart,
    send_snapshot_request::Part,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{SnapshotDir, Traffic};
use crate::types::{Vote, vote_from_proto, vote_to_proto};

/// Pieces that wait to be sent.
const QUEUE: usize = 4;

/// Why a snapshot did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The receiver, or the way to it.
    #[error(transparent)]
    Peer(#[from] tonic::Status),
    /// This node could not read its own snapshot.
    #[error("the snapshot cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// How the pieces are sent.
pub(crate) struct Pace {
    /// Bytes of one piece.
    pub(crate) chunk_bytes: usize,
    /// Bytes in a second at most, so that the log keeps its share of disk and network.
    pub(crate) bytes_per_second: u64,
    /// Where what was sent is counted.
    pub(crate) traffic: Arc<Traffic>,
}

/// Sends `snapshot` and waits until it is installed; returns the receiver's vote.
pub(crate) async fn send(
    client: &mut PeerServiceClient<Channel>,
    header: PeerHeader,
    vote: &Vote,
    snapshot: Arc<SnapshotDir>,
    keyring: Bytes,
    pace: Pace,
) -> Result<Vote, SendError> {
    let hashed = Arc::clone(&snapshot);
    let manifest =
        tokio::task::spawn_blocking(move || hashed.manifest().cloned()).await.map_err(io::Error::other)??;
    let offer = OfferSnapshotRequest {
        header: Some(header.clone()),
        vote: Some(vote_to_proto(vote)),
        manifest: Some(manifest.clone()),
    };
    let received = client.offer_snapshot(offer).await?.into_inner().received_bytes;

    let (parts, queue) = mpsc::channel(QUEUE);
    let start = SnapshotStart {
        header: Some(header),
        vote: Some(vote_to_proto(vote)),
        manifest: Some(manifest.clone()),
        keyring,
    };
    let reader = tokio::spawn(read_parts(snapshot, manifest, received, start, pace, parts));
    let answer = client.send_snapshot(ReceiverStream::new(queue)).await;
    // A local read error ends the stream early, which the receiver reports as an incomplete snapshot: the cause is here.
    reader.await.map_err(io::Error::other)??;
    let vote = answer?.into_inner().vote.unwrap_or_default();
    Ok(vote_from_proto(&vote))
}

async fn read_parts(
    snapshot: Arc<SnapshotDir>,
    manifest: SnapshotManifest,
    received: Vec<u64>,
    start: SnapshotStart,
    pace: Pace,
    parts: mpsc::Sender<SendSnapshotRequest>,
) -> io::Result<()> {
    if parts.send(SendSnapshotRequest { part: Some(Part::Start(start)) }).await.is_err() {
        return Ok(());
    }
    let mut due = tokio::time::Instant::now();
    for (number, file) in (0_u32..).zip(&manifest.files) {
        let mut offset = received.get(number as usize).copied().unwrap_or(0);
        while offset < file.size {
            let length = usize::try_from(file.size - offset).unwrap_or(usize::MAX).min(pace.chunk_bytes.max(1));
            let data = read_piece(snapshot.path().join(&file.name), offset, length).await?;
            let chunk = SnapshotChunk { file: number, offset, crc32: crc32fast::hash(&data), data };
            if parts.send(SendSnapshotRequest { part: Some(Part::Chunk(chunk)) }).await.is_err() {
                // The receiver has ended the call; its answer says why.
                return Ok(());
            }
            offset += length as u64;
            pace.traffic.count_sent(length as u64);
            // What was missed while the receiver was slow is not made up for.
            due = due.max(tokio::time::Instant::now()) + time_of(length as u64, pace.bytes_per_second);
            tokio::time::sleep_until(due).await;
        }
    }
    Ok(())
}

/// How long `bytes` take at most `bytes_per_second`.
fn time_of(bytes: u64, bytes_per_second: u64) -> Duration {
    Duration::from_micros(bytes.saturating_mul(1_000_000) / bytes_per_second.max(1))
}

async fn read_piece(path: PathBuf, offset: u64, length: usize) -> io::Result<Bytes> {
    let read = move || {
        let mut data = vec![0; length];
        File::open(&path)?.read_exact_at(&mut data, offset)?;
        Ok(Bytes::from(data))
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_take_their_time() {
        assert_eq!(time_of(1 << 20, 64 << 20), Duration::from_micros(15_625));
        assert_eq!(time_of(0, 1), Duration::ZERO);
        assert_eq!(time_of(u64::MAX, 0).as_secs(), u64::MAX / 1_000_000, "no rate is no division by zero");
    }
}
