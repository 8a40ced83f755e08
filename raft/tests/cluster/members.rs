//! Changes of the members, with and without mishaps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cairn_proto::v1::{Member, MemberRole};
use cairn_raft::{MembershipError, Node, ReadLevel, StartError};
use tokio::task::JoinSet;

use crate::links::start_linked;
use crate::scripted::Follower;
use crate::snapshots::write_until_purged;
use crate::support::{
    Cluster, PATIENCE, absent, count, eventually, in_time, memory, missing, ready, space, try_write, write,
};

/// Writers that go on through a node until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    writers: JoinSet<Vec<String>>,
}

impl Load {
    fn begin(name: &'static str, nodes: &[Arc<Node>]) -> Self {
        let mut load = Self { stop: Arc::default(), written: Arc::default(), writers: JoinSet::new() };
        for (number, node) in nodes.iter().enumerate() {
            let (stop, written, node) = (Arc::clone(&load.stop), Arc::clone(&load.written), Arc::clone(node));
            load.writers.spawn(async move {
                let mut acknowledged = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let id = format!("{name}-{number}-{}", acknowledged.len());
                    // Its retries are those of the node: no call may fail.
                    try_write(&node, memory(&id, "tea"), in_time()).await.unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                    acknowledged.push(id);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                acknowledged
            });
        }
        load
    }

    async fn some_more(&self) {
        let before = self.written.load(Ordering::Relaxed);
        eventually("writes go on", || self.written.load(Ordering::Relaxed) >= before + 10).await;
    }

    async fn end(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut acknowledged = Vec::new();
        while let Some(written) = self.writers.join_next().await {
            acknowledged.extend(written.unwrap());
        }
        acknowledged
    }
}

fn voters(node: &Node) -> Vec<u64> {
    let is_voter = |role: MemberRole| matches!(role, MemberRole::Leader | MemberRole::Voter);
    node.status().members.iter().filter(|member| is_voter(member.role())).map(|member| member.node_id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_to_five_and_shrinks_to_three_under_load() {
    let mut cluster = Cluster::running(1).await;
    write(cluster.node(1), space()).await;
    let first = Arc::clone(cluster.node(1));
    let load = Load::begin("first", &[Arc::clone(&first), first]);
    for id in 2..=5 {
        // Through any node: followers forward.
        cluster.grow(id, id - 1).await;
        ready(cluster.node(id)).await;
        load.some_more().await;
    }
    assert_eq!(voters(cluster.node(1)), [1, 2, 3, 4, 5]);
    let through = Load::begin("later", &[Arc::clone(cluster.node(4)), Arc::clone(cluster.node(5))]);
    through.some_more().await;
    // Whoever leads, hands over before it goes; node 1 has served the load.
    cluster.node(5).transfer_leadership(Some(2), in_time()).await.unwrap();
    let acknowledged = load.end().await;
    for id in [2, 1] {
        let remaining = cluster.node(5).remove_member(id, in_time()).await.unwrap();
        assert!(remaining.iter().all(|member| member.node_id != id));
        through.some_more().await;
    }
    assert_eq!(voters(cluster.node(4)), [3, 4, 5]);
    let later = through.end().await;
    for id in [1, 2] {
        let reason = tokio::time::timeout(PATIENCE, cluster.node(id).failed()).await.unwrap();
        assert!(reason.contains("removed from the cluster"), "{reason}");
        cluster.stop(id).await;
    }
    for node in cluster.nodes() {
        assert_eq!(missing(node, &acknowledged[..acknowledged.len().min(500)]).await, Vec::<String>::new());
        assert_eq!(count(node, ReadLevel::Linearizable).await as usize, acknowledged.len() + later.len());
    }
    cluster.assert_equal().await;
}

/// What the metrics say of the members may be older than what is applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_a_change_shows_it() {
    let cluster = Cluster::running(1).await;
    let node = cluster.node(1);
    let ids = |members: &[Member]| members.iter().map(|member| member.node_id).collect::<Vec<u64>>();
    for id in 2..200 {
        assert_eq!(node.add_member(absent(id), in_time()).await.unwrap().node_id, id);
        assert_eq!(ids(&node.remove_member(id, in_time()).await.unwrap()), [1]);
    }
}

/// On a busy machine reports are late, and a node that has just started has heard of few.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_waits_to_hear_of_the_nodes_that_it_needs() {
    let mut cluster = Cluster::of(3);
    cluster.timing.hearing_patience = PATIENCE;
    let links = start_linked(&mut cluster).await;
    let leader = cluster.leader().await;
    let [unheard, removed] = *cluster.others(leader) else { panic!("three nodes") };
    links.cut_off(unheard);
    let node = cluster.node(leader);
    let is_silent = |member: &Member| member.node_id == unheard && !member.reachable;
    eventually("the node is missed", || node.status().members.iter().any(is_silent)).await;
    let back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        links.mend();
    };
    let (remaining, ()) = tokio::join!(node.remove_member(removed, in_time()), back);
    assert!(remaining.unwrap().iter().all(|member| member.node_id != removed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_replaced_under_a_new_id() {
    let mut cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    let dead = cluster.leader().await;
    cluster.stop(dead).await;
    let left = cluster.leader().await;
    write(cluster.node(left), memory("m1", "tea")).await;
    let through = cluster.follower().await;
    cluster.node(through).remove_member(dead, in_time()).await.unwrap();
    // Asked again, it is as it was to be.
    cluster.node(through).remove_member(dead, in_time()).await.unwrap();
    cluster.grow(4, through).await;
    ready(cluster.node(4)).await;
    assert_eq!(count(cluster.node(4), ReadLevel::Linearizable).await, 1);

    // The dead node returns with its old disk, which does not know that it was removed.
    let refused = cluster.try_start(dead).await.err().unwrap();
    assert!(matches!(refused, StartError::Removed { node_id, .. } if node_id == dead), "{refused}");
    // Nor with an empty one.
    std::fs::remove_dir_all(cluster.data_dir(dead)).unwrap();
    let refused = cluster.try_start(dead).await.err().unwrap();
    assert!(matches!(refused, StartError::Removed { .. }), "{refused}");
    let again = cluster.node(through).add_member(absent(dead), in_time()).await.unwrap_err();
    assert!(matches!(again, MembershipError::Retired { node_id } if node_id == dead), "{again}");
    cluster.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_that_finds_its_peers_later_stops_itself() {
    let mut cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    let gone = cluster.follower().await;
    cluster.node(1).remove_member(gone, in_time()).await.unwrap();
    let reason = tokio::time::timeout(PATIENCE, cluster.node(gone).failed()).await.unwrap();
    assert!(reason.contains("removed from the cluster"), "{reason}");
    assert!(!cluster.node(gone).is_alive());
    // What it knew of the cluster has not been disturbed by it.
    cluster.stop(gone).await;
    let left = cluster.leader().await;
    write(cluster.node(left), memory("m1", "tea")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_replica_serves_reads_and_has_no_vote() {
    let mut cluster = Cluster::running(1).await;
    write(cluster.node(1), space()).await;
    let peer = cluster.newcomer(2);
    // It waits until somebody has added it.
    let early = tokio::time::timeout(Duration::from_millis(500), Node::start(cluster.config(2))).await;
    assert!(early.is_err(), "it is no member yet");
    let added = cluster.node(1).add_member(peer.clone(), in_time()).await.unwrap();
    assert_eq!(added.role(), MemberRole::Learner);
    let again = cluster.node(1).add_member(peer, in_time()).await.unwrap();
    assert_eq!(again.node_id, 2, "adding it again changes nothing");
    let replica = cluster.start(2).await;
    ready(&replica).await;
    for n in 1..=20 {
        write(cluster.node(1), memory(&format!("m{n}"), "tea")).await;
        assert_eq!(count(&replica, ReadLevel::Linearizable).await, n);
    }
    assert_eq!(count(&replica, ReadLevel::MaxStaleness(Duration::from_secs(60))).await, 20);
    write(&replica, memory("through", "tea")).await;
    // Its absence does not keep the cluster from writing.
    drop(replica);
    cluster.stop(2).await;
    write(cluster.node(1), memory("later", "tea")).await;
    let replica = cluster.start(2).await;
    assert_eq!(count(&replica, ReadLevel::Linearizable).await, 22);
    let refused = replica.transfer_leadership(Some(2), in_time()).await.unwrap_err();
    assert!(matches!(refused, MembershipError::Refused(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joining_node_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::of(1);
    cluster.limits.snapshot_bytes = 4096;
    cluster.start_all().await;
    write(cluster.node(1), space()).await;
    let written = write_until_purged(&cluster, 1).await;
    cluster.grow(2, 1).await;
    assert_eq!(count(cluster.node(2), ReadLevel::Linearizable).await, written);
    assert!(cluster.node(2).stats().snapshot_bytes_received > 0);
    cluster.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_cannot_be_made_are_refused() {
    let mut cluster = Cluster::of(1);
    cluster.timing.hearing_patience = Duration::from_millis(100);
    cluster.start_all().await;
    let node = Arc::clone(cluster.node(1));
    let refused = node.remove_member(1, in_time()).await.unwrap_err();
    assert!(matches!(refused, MembershipError::Refused(_)), "the last voter: {refused}");
    for refused in [node.remove_member(9, in_time()).await.err(), node.promote_member(9, in_time()).await.err()] {
        assert!(matches!(refused, Some(MembershipError::NotFound { node_id: 9 })), "{refused:?}");
    }
    let other_place = node.add_member(absent(1), in_time()).await.unwrap_err();
    assert!(matches!(other_place, MembershipError::AlreadyExists(_)), "{other_place}");
    let mut same_place = absent(2);
    same_place.peer_address = cluster.peer_address(1);
    let same_place = node.add_member(same_place, in_time()).await.unwrap_err();
    assert!(matches!(same_place, MembershipError::AlreadyExists(_)), "{same_place}");

    // Added and never started: it gets no vote, with which the cluster could not decide any more.
    node.add_member(absent(3), in_time()).await.unwrap();
    let absent = node.promote_member(3, in_time()).await.unwrap_err();
    assert!(matches!(absent, MembershipError::NotCaughtUp(_)), "{absent}");
    node.remove_member(3, in_time()).await.unwrap();

    // Without a majority there is an answer before the deadline.
    cluster.grow(4, 1).await;
    cluster.stop(4).await;
    let deadline = Instant::now() + Duration::from_secs(4);
    let refused = node.add_member(self::absent(5), deadline).await.unwrap_err();
    assert!(matches!(refused, MembershipError::Unavailable(_)), "{refused}");
    assert!(Instant::now() < deadline + PATIENCE, "it ends long after its deadline");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_hands_over_and_is_not_chosen_again() {
    let cluster = Cluster::running(3).await;
    write(cluster.node(1), space()).await;
    let leader = cluster.leader().await;
    let through = cluster.follower().await;
    let state = cluster.node(through).drain_node(leader, true, in_time()).await.unwrap();
    assert!(state.draining);
    assert!(!cluster.node(leader).is_ready());
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    let asked = Arc::clone(cluster.node(next));
    eventually("the mark is known", || {
        let status = asked.status();
        let drained = status.members.into_iter().find(|member| member.node_id == leader);
        drained.and_then(|member| member.state).is_some_and(|state| state.draining)
    })
    .await;
    let third = cluster.node(through).transfer_leadership(None, in_time()).await.unwrap();
    assert!(third != next && third != leader, "{third}");
    let state = cluster.node(through).drain_node(leader, false, in_time()).await.unwrap();
    assert!(!state.draining);
    ready(cluster.node(leader)).await;
    let refused = cluster.node(1).drain_node(9, true, in_time()).await.unwrap_err();
    assert!(matches!(refused, MembershipError::NotFound { node_id: 9 }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_of_a_moment_ago_waits_to_hear_how_far_its_successor_is() {
    let mut cluster = Cluster::of(3);
    let (second, third) = (Follower::serve(&cluster, 2), Follower::serve(&cluster, 3));
    second.hold_answers();
    third.hold_answers();
    let node = cluster.start(1).await;
    eventually("node 1 is elected", || node.status().leader_id == Some(1)).await;
    let handing_over = tokio::spawn(async move {
        let deadline = Instant::now() + Duration::from_secs(4);
        node.transfer_leadership(Some(2), deadline).await
    });
    second.received(|received| received.entries + received.commits > 0).await;
    second.release_answers();
    third.release_answers();
    let outcome = handing_over.await.unwrap().unwrap_err();
    // The follower of this test never campaigns, so the handover comes that far and no further.
    assert!(matches!(&outcome, MembershipError::Unavailable(_)), "{outcome}");
    assert_eq!(second.received(|received| received.transfers > 0).await.transfers, 1);
}

/// A leader that handed over to a node far behind would leave the cluster without one until that node has caught up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_to_no_node_that_is_far_behind() {
    const IN_FLIGHT_MAX: u64 = 64;
    const WRITTEN: u64 = 2 * IN_FLIGHT_MAX;
    let mut cluster = Cluster::of(3);
    cluster.limits.proposals_in_flight_max = IN_FLIGHT_MAX as usize;
    let links = start_linked(&mut cluster).await;
    write(cluster.node(1), space()).await;
    let (leader, behind) = (cluster.leader().await, cluster.follower().await);
    let (node, term) = (cluster.node(leader), cluster.node(leader).status().term);

    links.cut_off(behind);
    for number in 0..WRITTEN {
        write(node, memory(&format!("m{number}"), "tea")).await;
    }
    let refused = node.transfer_leadership(Some(behind), in_time()).await.unwrap_err();
    let expected = format!("node {behind} has not caught up");
    assert!(matches!(&refused, MembershipError::Refused(reason) if *reason == expected), "{refused}");
    assert_eq!((node.status().leader_id, node.status().term), (Some(leader), term), "nothing has changed");
    write(node, memory("later", "tea")).await;

    links.mend();
    assert_eq!(count(cluster.node(behind), ReadLevel::Linearizable).await, WRITTEN + 1);
    assert_eq!(node.transfer_leadership(Some(behind), in_time()).await.unwrap(), behind);
    assert_eq!(cluster.leader().await, behind);
}
