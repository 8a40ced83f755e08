//! How a node comes to a cluster and its keys, from a fixed list of peers.
//!
//! ```text
//!   keyring on disk? --yes--> open it                                                             (any later start)
//!        |no
//!   ask every peer: who are you, which cluster?  --one knows this id with another directory--> refuse
//!        |                                        --they name different clusters-------------> refuse
//!        |--a cluster--> fetch its keyring, open it, say so, store it
//!        |     '--"not a member yet"--> ask again, until somebody has added this node
//!        |--none, this is the lowest id, does not join, and every peer has answered--> make cluster id and keys
//!        '--otherwise--> ask again
//! ```
//!
//! Each step ends with one atomic file, so a crash anywhere leads back to the same place: the incarnation is drawn before
//! the first question, the keyring appears whole or not at all, and the identity takes the cluster id from the keyring.
//! Peers bind an id to a directory when its node says that it has opened the keyring, which is before it can vote; a node
//! with a wrong root key leaves no trace.
//!
//! Only the lowest id makes a cluster, and only when nobody has one; its incarnation is known to every member that fetched
//! keys, so it cannot come back with an empty disk and make a second one.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_engine::crypto::ClusterId;
use cairn_engine::keyring::{Keyring, KeyringError, RootKey};
use cairn_proto::peer::{FetchKeyringRequest, FetchKeyringResponse, HelloRequest, HelloResponse};
use tonic::Status;

use crate::config::Peer;
use crate::error::StartError;
use crate::identity::{Identity, cluster_id_of, incarnation_of};
use crate::network::{Lane, Peers, with_deadline, within};

/// How long to wait between two rounds of questions.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long a peer may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often to say what is being waited for.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// What one round of questions has brought.
#[derive(Debug, Default)]
struct Answers {
    /// Peers that belong to a cluster.
    members: Vec<(u64, ClusterId)>,
    /// Peers that belong to none.
    without: Vec<u64>,
    /// Peers that did not answer.
    silent: Vec<u64>,
}

/// What to do after a round.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Fetch the keyring from this peer.
    FetchFrom(u64, ClusterId),
    /// Make a cluster.
    Create,
    /// Ask again; why.
    Wait(String),
}

/// Whom the configuration names.
#[derive(Clone, Copy)]
pub(crate) struct Listed<'a> {
    /// The peers, this node included.
    pub(crate) peers: &'a [Peer],
    /// Whether they belong to a cluster already.
    pub(crate) join: bool,
}

/// Opens the keyring, or comes by one. Afterwards the identity names the cluster.
pub(crate) async fn join(
    identity: &Arc<Identity>,
    peers: &Peers,
    listed: Listed<'_>,
    keyring_path: &Path,
    root_key: &RootKey,
) -> Result<Keyring, StartError> {
    let keyring = if keyring_path.exists() {
        let keyring = Keyring::open(keyring_path, root_key).map_err(|error| key_error(&error))?;
        refuse_strangers(identity, peers, listed.peers, keyring.cluster_id()).await?;
        keyring
    } else if identity.cluster_id().is_some() {
        return Err(StartError::Damaged {
            path: keyring_path.to_path_buf(),
            reason: "it is missing, but this node has joined a cluster".to_string(),
        });
    } else {
        obtain_keyring(identity, peers, listed, keyring_path, root_key).await?
    };
    match identity.cluster_id() {
        None => identity.join(keyring.cluster_id())?,
        Some(cluster_id) if cluster_id == keyring.cluster_id() => {}
        Some(cluster_id) => {
            return Err(StartError::Key(format!(
                "{} belongs to cluster {}, but this node to {cluster_id}: put the right file in its place",
                keyring_path.display(),
                keyring.cluster_id(),
            )));
        }
    }
    Ok(keyring)
}

/// One round of questions, so that a directory that comes from elsewhere is noticed before it is served. Peers that do
/// not answer say nothing against it.
async fn refuse_strangers(
    identity: &Identity,
    peers: &Peers,
    listed: &[Peer],
    cluster_id: ClusterId,
) -> Result<(), StartError> {
    let answers = ask_all(identity, peers, listed).await?;
    match answers.members.iter().find(|(_, other)| *other != cluster_id) {
        None => Ok(()),
        Some((peer_id, other)) => Err(StartError::ForeignCluster(format!(
            "this directory belongs to cluster {cluster_id}, node {peer_id} to {other}: put the right directory in its place"
        ))),
    }
}

async fn obtain_keyring(
    identity: &Arc<Identity>,
    peers: &Peers,
    listed: Listed<'_>,
    keyring_path: &Path,
    root_key: &RootKey,
) -> Result<Keyring, StartError> {
    let mut said_at: Option<Instant> = None;
    let asked = Asked { identity, peers, listed: listed.peers, keyring_path, root_key };
    for round in 0_usize.. {
        let answers = ask_all(identity, peers, listed.peers).await?;
        let reason = match decide(&answers, identity.node_id(), listed, round)? {
            Step::Create => {
                let cluster_id = ClusterId::generate().map_err(|error| StartError::Key(error.to_string()))?;
                tracing::info!(%cluster_id, "no peer has a cluster: this node makes one");
                identity.set_founder(true)?;
                return Keyring::create(keyring_path, root_key, cluster_id).map_err(|error| key_error(&error));
            }
            Step::FetchFrom(peer_id, cluster_id) => match fetch_opened(asked, peer_id, cluster_id).await? {
                Ok(fetched) => return store(identity, keyring_path, root_key, cluster_id, &fetched),
                Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                    return Err(StartError::IdInUse { node_id: identity.node_id(), peer_id });
                }
                // The peer says what is to be done.
                Err(status) if status.code() == tonic::Code::NotFound => status.message().to_string(),
                Err(status) => format!("node {peer_id} did not hand out the keyring: {}", status.message()),
            },
            Step::Wait(reason) => reason,
        };
        if said_at.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            tracing::info!(reason, "waiting to form or join a cluster");
            said_at = Some(Instant::now());
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Err(StartError::Stopped)
}

async fn ask_all(identity: &Identity, peers: &Peers, listed: &[Peer]) -> Result<Answers, StartError> {
    let node_id = identity.node_id();
    let others = listed.iter().filter(|peer| peer.id != node_id);
    let asked = others.map(|peer| async move { (peer, hello(identity, peers, peer).await) });
    let mut answers = Answers::default();
    for (peer, answer) in futures::future::join_all(asked).await {
        let Ok(answer) = answer else {
            answers.silent.push(peer.id);
            continue;
        };
        if answer.node_id != peer.id {
            return Err(StartError::Config(format!(
                "{} is listed as node {}, but node {} answers there: correct the list of peers",
                peer.peer_address, peer.id, answer.node_id
            )));
        }
        if answer.removed {
            return Err(StartError::Removed { node_id, peer_id: peer.id });
        }
        if answer.id_in_use {
            return Err(StartError::IdInUse { node_id, peer_id: peer.id });
        }
        match cluster_id_of(&answer.cluster_id) {
            Some(cluster_id) => answers.members.push((peer.id, cluster_id)),
            None => answers.without.push(peer.id),
        }
    }
    Ok(answers)
}

/// `round` counts the rounds of questions: members are asked for the keyring in turns, since one may not know yet that
/// this node was added.
fn decide(answers: &Answers, node_id: u64, listed: Listed<'_>, round: usize) -> Result<Step, StartError> {
    let turn = round.checked_rem(answers.members.len()).unwrap_or(0);
    if let Some(&(peer_id, cluster_id)) = answers.members.get(turn) {
        return match answers.members.iter().find(|(_, other)| *other != cluster_id) {
            None => Ok(Step::FetchFrom(peer_id, cluster_id)),
            Some((other_id, other)) => Err(StartError::ForeignCluster(format!(
                "node {peer_id} belongs to cluster {cluster_id}, node {other_id} to {other}: correct the list of peers"
            ))),
        };
    }
    if listed.join {
        return Ok(Step::Wait("no listed peer belongs to a cluster, and this node joins one".to_string()));
    }
    let lowest = listed.peers.iter().map(|peer| peer.id).min().unwrap_or(node_id);
    if lowest != node_id {
        return Ok(Step::Wait(format!("node {lowest} makes the cluster, and has not done so yet")));
    }
    if answers.silent.is_empty() {
        return Ok(Step::Create);
    }
    Ok(Step::Wait(format!("these nodes must answer first, once: {:?}", answers.silent)))
}

async fn hello(identity: &Identity, peers: &Peers, peer: &Peer) -> Result<HelloResponse, Status> {
    let mut client = client_of(peers, peer)?;
    let request = HelloRequest {
        node_id: identity.node_id(),
        incarnation: Bytes::copy_from_slice(&identity.incarnation()),
        cluster_id: Bytes::new(),
    };
    within(ASK_TIMEOUT, client.hello(with_deadline(request, ASK_TIMEOUT))).await
}

/// What a fetch needs to know.
#[derive(Clone, Copy)]
struct Asked<'a> {
    identity: &'a Identity,
    peers: &'a Peers,
    listed: &'a [Peer],
    keyring_path: &'a Path,
    root_key: &'a RootKey,
}

/// Fetches the keyring, and has this directory bound to the node's id once the root key has opened what came.
async fn fetch_opened(
    asked: Asked<'_>,
    peer_id: u64,
    cluster_id: ClusterId,
) -> Result<Result<FetchKeyringResponse, Status>, StartError> {
    let fetched = match fetch(asked, peer_id, false).await {
        Ok(fetched) => fetched,
        Err(status) => return Ok(Err(status)),
    };
    let aside = asked.keyring_path.with_extension("fetched");
    remove_if_there(&aside)?;
    let opened = import(&aside, asked.root_key, cluster_id, &fetched).map(drop);
    remove_if_there(&aside)?;
    opened?;
    Ok(fetch(asked, peer_id, true).await)
}

fn remove_if_there(path: &Path) -> Result<(), StartError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StartError::io(path)(error)),
        _ => Ok(()),
    }
}

async fn fetch(asked: Asked<'_>, peer_id: u64, opened: bool) -> Result<FetchKeyringResponse, Status> {
    let Asked { identity, peers, listed, .. } = asked;
    let peer = listed.iter().find(|peer| peer.id == peer_id);
    let mut client = client_of(peers, peer.ok_or_else(|| Status::not_found("the peer is not listed"))?)?;
    let request = FetchKeyringRequest {
        node_id: identity.node_id(),
        incarnation: Bytes::copy_from_slice(&identity.incarnation()),
        opened,
    };
    within(ASK_TIMEOUT, client.fetch_keyring(with_deadline(request, ASK_TIMEOUT))).await
}

fn client_of(
    peers: &Peers,
    peer: &Peer,
) -> Result<cairn_proto::peer::peer_service_client::PeerServiceClient<tonic::transport::Channel>, Status> {
    let client = peers.client(peer.id, &peer.peer_address, Lane::Control);
    client.map_err(|error| Status::unavailable(error.to_string()))
}

/// Remembers whom the cluster knows, then stores the keyring, which makes the node a member.
fn store(
    identity: &Identity,
    keyring_path: &Path,
    root_key: &RootKey,
    cluster_id: ClusterId,
    fetched: &FetchKeyringResponse,
) -> Result<Keyring, StartError> {
    for known in &fetched.known_nodes {
        if let Some(incarnation) = incarnation_of(&known.incarnation) {
            identity.sight(known.node_id, incarnation)?;
        }
    }
    identity.set_founder(false)?;
    import(keyring_path, root_key, cluster_id, fetched)
}

fn import(
    path: &Path,
    root_key: &RootKey,
    cluster_id: ClusterId,
    fetched: &FetchKeyringResponse,
) -> Result<Keyring, StartError> {
    let keyring = Keyring::import(path, &fetched.keyring, root_key).map_err(|error| key_error(&error))?;
    if keyring.cluster_id() != cluster_id {
        return Err(StartError::ForeignCluster(format!(
            "a peer of cluster {cluster_id} handed out the keyring of cluster {}",
            keyring.cluster_id()
        )));
    }
    Ok(keyring)
}

fn key_error(error: &KeyringError) -> StartError {
    StartError::Key(crate::state_machine::error_chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Timing;

    const CLUSTER: ClusterId = ClusterId([1; 16]);
    const OTHER: ClusterId = ClusterId([2; 16]);

    fn peers() -> Vec<Peer> {
        let peer = |id| Peer { id, peer_address: format!("h{id}:1"), client_address: String::new() };
        [3, 1, 2].map(peer).to_vec()
    }

    fn decide_on(answers: &Answers, node_id: u64) -> Result<Step, StartError> {
        decide(answers, node_id, Listed { peers: &peers(), join: false }, 0)
    }

    #[test]
    fn only_the_lowest_id_makes_a_cluster_and_only_once_all_have_none() {
        let none = Answers { without: vec![2, 3], ..Answers::default() };
        assert_eq!(decide_on(&none, 1).unwrap(), Step::Create);
        assert!(matches!(decide_on(&none, 2).unwrap(), Step::Wait(_)));
        let silent = Answers { without: vec![2], silent: vec![3], ..Answers::default() };
        assert!(matches!(decide_on(&silent, 1).unwrap(), Step::Wait(_)));
    }

    #[test]
    fn whoever_finds_a_cluster_joins_it() {
        let found = Answers { members: vec![(3, CLUSTER)], without: vec![2], silent: vec![] };
        assert_eq!(decide_on(&found, 1).unwrap(), Step::FetchFrom(3, CLUSTER));
    }

    #[test]
    fn a_node_that_joins_makes_no_cluster_and_asks_the_members_in_turns() {
        let peers = peers();
        let listed = Listed { peers: &peers, join: true };
        let none = Answers { without: vec![2, 3], ..Answers::default() };
        assert!(matches!(decide(&none, 1, listed, 0).unwrap(), Step::Wait(_)));
        let found = Answers { members: vec![(2, CLUSTER), (3, CLUSTER)], ..Answers::default() };
        for (round, peer_id) in [(0, 2), (1, 3), (2, 2)] {
            assert_eq!(decide(&found, 1, listed, round).unwrap(), Step::FetchFrom(peer_id, CLUSTER));
        }
    }

    #[test]
    fn two_clusters_are_refused() {
        let found = Answers { members: vec![(1, CLUSTER), (3, OTHER)], ..Answers::default() };
        assert!(matches!(decide_on(&found, 2), Err(StartError::ForeignCluster(_))));
    }

    #[test]
    fn a_single_node_makes_its_cluster_at_once() {
        let alone = vec![Peer { id: 7, peer_address: "h:1".to_string(), client_address: String::new() }];
        let listed = Listed { peers: &alone, join: false };
        assert_eq!(decide(&Answers::default(), 7, listed, 0).unwrap(), Step::Create);
    }

    /// Every state that a crash can leave behind between the first file and the last leads to the same cluster.
    #[tokio::test]
    async fn a_crash_at_any_step_is_made_good() {
        let root_key = RootKey::from_bytes(&[7; 32]);
        let listed = vec![Peer { id: 1, peer_address: "127.0.0.1:1".to_string(), client_address: String::new() }];
        for crash_after in ["nothing", "identity", "founder", "keyring", "everything"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("keyring");
            let mut made = None;
            if crash_after != "nothing" {
                let identity = Identity::open(dir.path(), 1).unwrap();
                if crash_after != "identity" {
                    identity.set_founder(true).unwrap();
                }
                if matches!(crash_after, "keyring" | "everything") {
                    made = Some(Keyring::create(&path, &root_key, CLUSTER).unwrap().cluster_id());
                }
                if crash_after == "everything" {
                    identity.join(CLUSTER).unwrap();
                }
            }
            let identity = Arc::new(Identity::open(dir.path(), 1).unwrap());
            let peers = Peers::new(Arc::clone(&identity), &listed, Timing::default());
            let named = Listed { peers: &listed, join: false };
            let keyring = join(&identity, &peers, named, &path, &root_key).await.unwrap();
            assert_eq!(identity.cluster_id(), Some(keyring.cluster_id()), "{crash_after}");
            assert!(identity.is_founder(), "{crash_after}");
            assert!(made.is_none_or(|made| made == keyring.cluster_id()), "{crash_after}");
        }
    }

    #[tokio::test]
    async fn a_keyring_of_another_cluster_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root_key = RootKey::from_bytes(&[7; 32]);
        let path = dir.path().join("keyring");
        let identity = Arc::new(Identity::open(dir.path(), 1).unwrap());
        identity.join(CLUSTER).unwrap();
        let peers = Peers::new(Arc::clone(&identity), &[], Timing::default());
        let missing = join(&identity, &peers, Listed { peers: &[], join: false }, &path, &root_key).await.unwrap_err();
        assert!(matches!(missing, StartError::Damaged { .. }), "{missing}");
        Keyring::create(&path, &root_key, OTHER).unwrap();
        let refused = join(&identity, &peers, Listed { peers: &[], join: false }, &path, &root_key).await.unwrap_err();
        assert!(matches!(refused, StartError::Key(_)), "{refused}");
    }
}
