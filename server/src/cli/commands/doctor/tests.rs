//! Each check at both sides of its limits, and the whole report.

use std::path::Path;
use std::time::Duration;

use cairn_client::proto;

use super::cluster::{self, Offset};
use super::finding::{Finding, Grade, listing};
use super::machine;

fn member(node_id: u64) -> proto::Member {
    let state = proto::NodeState {
        version: "0.1.0".to_owned(),
        supported_cluster_version: 1,
        applied_index: 1_000,
        digest: "aa".to_owned(),
        disk_used_bytes: 20 << 30,
        disk_free_bytes: 80 << 30,
        ..Default::default()
    };
    let role = if node_id == 1 { proto::MemberRole::Leader } else { proto::MemberRole::Voter };
    proto::Member { node_id, role: role.into(), reachable: true, state: Some(state), ..Default::default() }
}

fn status() -> proto::GetClusterStatusResponse {
    let members = (1..=3).map(member).collect();
    proto::GetClusterStatusResponse {
        node_id: 2,
        leader_id: 1,
        committed_index: 1_000,
        cluster_version: 1,
        members,
        ..Default::default()
    }
}

fn offset(node_id: u64, ahead_ms: i64) -> Offset {
    Offset { node_id, ahead_ms, error_ms: 3 }
}

#[test]
fn a_quorum_needs_a_leader_and_most_voters() {
    let mut status = status();
    assert_eq!(cluster::quorum(&status).grade, Grade::Ok);
    status.members[2].reachable = false;
    let found = cluster::quorum(&status);
    assert_eq!((found.grade, found.advice.contains("node 3")), (Grade::Warn, true));
    status.members[1].reachable = false;
    assert_eq!(cluster::quorum(&status).grade, Grade::Fail);
    let leaderless = proto::GetClusterStatusResponse { leader_id: 0, ..self::status() };
    assert_eq!(cluster::quorum(&leaderless).grade, Grade::Fail);
}

#[test]
fn clocks_are_judged_within_what_is_known() {
    let grade = |offsets: &[Offset]| cluster::clocks(offsets, 3).grade;
    assert_eq!(grade(&[offset(1, 0), offset(2, 503), offset(3, -1)]), Grade::Warn);
    assert_eq!(grade(&[offset(1, 0), offset(2, 502)]), Grade::Ok, "the difference may be that of the round trips");
    assert_eq!(grade(&[offset(1, -6_000), offset(2, 6_000)]), Grade::Fail);
    assert_eq!(grade(&[offset(1, 60_000), offset(2, 60_001)]), Grade::Warn, "our own clock is no member's");
    assert_eq!(grade(&[]), Grade::Warn);
    assert!(cluster::clocks(&[offset(1, 0)], 3).seen.ends_with("of 1 of 3"));
}

#[test]
fn versions_digests_lag_and_disks_have_limits() {
    let mut status = status();
    status.members[1].state.as_mut().unwrap().version = "0.2.0".to_owned();
    assert_eq!(cluster::versions(&status).grade, Grade::Warn);
    status.members[1].state.as_mut().unwrap().digest = "bb".to_owned();
    assert_eq!(cluster::digests(&status).grade, Grade::Fail);
    let lag = |committed| cluster::lag(&member(1), committed).unwrap().grade;
    assert_eq!((lag(11_000), lag(11_001)), (Grade::Ok, Grade::Warn));
    let disk = |used: u64, free: u64| {
        let mut member = member(1);
        let state = member.state.as_mut().unwrap();
        (state.disk_used_bytes, state.disk_free_bytes) = (used, free);
        cluster::disk(&member).unwrap().grade
    };
    assert_eq!(
        (disk(79, 21), disk(85, 15), disk(97, 3), disk(0, 0)),
        (Grade::Ok, Grade::Warn, Grade::Fail, Grade::Fail)
    );
    assert_eq!(cluster::disk(&proto::Member::default()), None);
}

#[test]
fn machines_have_limits_too() {
    let files = |limit| machine::open_files(limit).grade;
    assert_eq!(
        (files(Some(1_023)), files(Some(8_191)), files(Some(8_192)), files(None)),
        (Grade::Fail, Grade::Warn, Grade::Ok, Grade::Ok)
    );
    let free = |gib: u64| machine::free_space(Path::new("data"), gib << 30).grade;
    assert_eq!((free(0), free(9), free(10)), (Grade::Fail, Grade::Warn, Grade::Ok));
    let syncs = |slowest_ms: u64| {
        let times = (0..64).map(|time| Duration::from_millis(if time == 63 { slowest_ms } else { 1 })).collect();
        machine::sync_latency(Path::new("data"), times).grade
    };
    assert_eq!((syncs(50), syncs(51), syncs(601)), (Grade::Ok, Grade::Warn, Grade::Fail));
}

#[test]
fn the_report_says_what_to_do() {
    let mut status = status();
    status.members[2].reachable = false;
    let mut findings: Vec<Finding> = vec![
        machine::open_files(Some(1_024)),
        machine::free_space(Path::new("/var/lib/cairn"), 300 << 30),
        machine::sync_latency(Path::new("/var/lib/cairn"), vec![Duration::from_micros(1_400); 64]),
        cluster::quorum(&status),
        cluster::versions(&status),
        cluster::digests(&status),
        cluster::clocks(&[offset(1, 2), offset(2, 11_000)], 3),
    ];
    findings.extend(cluster::lag(&status.members[0], 1_000));
    findings.extend(cluster::disk(&status.members[0]));
    crate::cli::snapshot::check("doctor_table", &listing(&findings).to_table(150, false));
    crate::cli::snapshot::check("doctor_lines", &listing(&findings).to_lines());
}
