//! The sending side of a snapshot: offer it, learn what the receiver lacks, send that.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use cairn_proto::peer::peer_service_client::PeerServiceClient;
use cairn_proto::peer::{
    OfferSnapshotRequest, PeerHeader, SendSnapshotRequest, SnapshotChunk, SnapshotManifest, SnapshotStart,
    send_snapshot_request::Part,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::SnapshotDir;
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

/// Sends `snapshot` and waits until it is installed; returns the receiver's vote.
pub(crate) async fn send(
    client: &mut PeerServiceClient<Channel>,
    header: PeerHeader,
    vote: &Vote,
    snapshot: Arc<SnapshotDir>,
    keyring: Bytes,
    chunk_bytes: usize,
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
    let reader = tokio::spawn(read_parts(snapshot, manifest, received, start, chunk_bytes, parts));
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
    chunk_bytes: usize,
    parts: mpsc::Sender<SendSnapshotRequest>,
) -> io::Result<()> {
    if parts.send(SendSnapshotRequest { part: Some(Part::Start(start)) }).await.is_err() {
        return Ok(());
    }
    for (number, file) in (0_u32..).zip(&manifest.files) {
        let mut offset = received.get(number as usize).copied().unwrap_or(0);
        while offset < file.size {
            let length = usize::try_from(file.size - offset).unwrap_or(usize::MAX).min(chunk_bytes.max(1));
            let data = read_piece(snapshot.path().join(&file.name), offset, length).await?;
            let chunk = SnapshotChunk { file: number, offset, crc32: crc32fast::hash(&data), data };
            if parts.send(SendSnapshotRequest { part: Some(Part::Chunk(chunk)) }).await.is_err() {
                // The receiver has ended the call; its answer says why.
                return Ok(());
            }
            offset += length as u64;
        }
    }
    Ok(())
}

async fn read_piece(path: PathBuf, offset: u64, length: usize) -> io::Result<Bytes> {
    let read = move || {
        let mut data = vec![0; length];
        File::open(&path)?.read_exact_at(&mut data, offset)?;
        Ok(Bytes::from(data))
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}
