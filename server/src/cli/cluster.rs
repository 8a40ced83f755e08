//! The state of the cluster as text.

use cairn_client::{Timestamp, proto};
use serde_json::{Value as Json, json};

use super::output::{Cell, Details, Form, Listing, bytes_for_people, duration_for_people};

type Status = proto::GetClusterStatusResponse;

/// The cluster and its members.
pub(crate) fn status_to_text(status: &Status, form: Form) -> String {
    let leader = if status.leader_id == 0 { "not known".to_owned() } else { format!("node {}", status.leader_id) };
    let mut details = Details::new();
    details
        .add("cluster", Cell::text(&status.cluster_id))
        .add("leader", Cell::both(leader, status.leader_id.to_string()))
        .add("term", Cell::number(status.term))
        .add("committed", Cell::number(status.committed_index))
        .add("version", Cell::number(status.cluster_version.into()))
        .add("asked", Cell::both(format!("node {}", status.node_id), status.node_id.to_string()));
    let mut text = details.to_text(form);
    let members = member_listing(&status.members);
    match form {
        Form::Table { width, styled } => {
            text.push('\n');
            text.push_str(&members.to_table(width, styled));
        }
        // The first word tells the members' lines from the others.
        Form::Lines | Form::Json => {
            text.extend(members.to_lines().lines().map(|line| format!("member\t{line}\n")));
        }
    }
    text
}

/// What stands before each showing of a cluster that is watched: a terminal is cleared; elsewhere a table is told from the
/// one before it, and every line of the other forms stands for itself.
pub(crate) fn before_frame(form: Form, on_terminal: bool, number: u64) -> &'static str {
    match (form, on_terminal, number) {
        // Cursor to the top, then clear from there.
        (Form::Table { .. }, true, _) => "\u{1b}[H\u{1b}[J",
        (Form::Table { .. }, false, 1..) => "\n",
        _ => "",
    }
}

/// The members as a listing.
pub(crate) fn member_listing(members: &[proto::Member]) -> Listing {
    let mut listing = Listing::new(&[
        "NODE", "ROLE", "STATE", "CLIENTS", "APPLIED", "DURABLE", "LOG", "MEMORIES", "DISK", "UPTIME", "VERSION",
        "DIGEST",
    ]);
    for member in members {
        let mut cells = vec![
            Cell::number(member.node_id),
            Cell::text(role_word(member.role())),
            Cell::text(state_word(member)),
            Cell::text(&member.client_address),
        ];
        match &member.state {
            Some(state) => cells.extend(state_cells(state)),
            None => cells.extend((0..8).map(|_| Cell::default())),
        }
        listing.row(cells);
    }
    listing
}

fn state_cells(state: &proto::NodeState) -> [Cell; 8] {
    let log_entries = (state.last_log_index + 1).saturating_sub(state.first_log_index);
    let uptime_s = state.uptime.map_or(0, |uptime| uptime.seconds);
    [
        Cell::number(state.applied_index),
        Cell::number(state.durable_applied_index),
        Cell::number(log_entries),
        Cell::number(state.memories),
        Cell::both(bytes_for_people(state.disk_used_bytes), state.disk_used_bytes.to_string()).right(),
        Cell::both(duration_for_people(uptime_s), uptime_s.to_string()).right(),
        Cell::text(&state.version),
        // Enough to compare by eye; the other forms have all of it.
        Cell::both(state.digest.chars().take(8).collect::<String>(), &state.digest),
    ]
}

fn role_word(role: proto::MemberRole) -> &'static str {
    match role {
        proto::MemberRole::Unspecified => "",
        proto::MemberRole::Leader => "leader",
        proto::MemberRole::Voter => "voter",
        proto::MemberRole::Learner => "learner",
    }
}

fn state_word(member: &proto::Member) -> &'static str {
    match (member.reachable, member.state.as_ref().is_some_and(|state| state.draining)) {
        (false, _) => "unreachable",
        (true, true) => "draining",
        (true, false) => "ok",
    }
}

/// Members that have applied the same entries must hold the same rows; a sentence where two do not.
pub(crate) fn digest_warning(status: &Status) -> Option<String> {
    let states = || status.members.iter().filter_map(|member| Some((member.node_id, member.state.as_ref()?)));
    for (node, state) in states().filter(|(_, state)| !state.digest.is_empty()) {
        let differing = states().find(|(_, other)| {
            other.applied_index == state.applied_index && !other.digest.is_empty() && other.digest != state.digest
        });
        if let Some((other, _)) = differing {
            return Some(format!(
                "warning: nodes {node} and {other} differ at index {}: their digests must be equal; keep the data directories and report this",
                state.applied_index
            ));
        }
    }
    None
}

/// The cluster and its members, as JSON.
pub(crate) fn status_to_json(status: &Status) -> Json {
    let members: Json = status.members.iter().map(member_to_json).collect();
    json!({
        "cluster_id": status.cluster_id,
        "node_id": status.node_id,
        "leader_id": status.leader_id,
        "term": status.term,
        "committed_index": status.committed_index,
        "cluster_version": status.cluster_version,
        "members": members,
    })
}

/// One member, as JSON.
pub(crate) fn member_to_json(member: &proto::Member) -> Json {
    let state = member.state.as_ref().map(|state| {
        json!({
            "version": state.version,
            "supported_cluster_version": state.supported_cluster_version,
            "applied_index": state.applied_index,
            "durable_applied_index": state.durable_applied_index,
            "digest": state.digest,
            "first_log_index": state.first_log_index,
            "last_log_index": state.last_log_index,
            "disk_used_bytes": state.disk_used_bytes,
            "disk_free_bytes": state.disk_free_bytes,
            "uptime_s": state.uptime.map(|uptime| uptime.seconds),
            "clock": state.clock.map(|clock| Timestamp::from(clock).to_string()),
            "draining": state.draining,
            "memories": state.memories,
        })
    });
    json!({
        "node_id": member.node_id,
        "peer_address": member.peer_address,
        "client_address": member.client_address,
        "role": role_word(member.role()),
        "reachable": member.reachable,
        "matched_index": member.matched_index,
        "state": state,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::snapshot;

    fn member(node_id: u64, role: proto::MemberRole, digest: &str) -> proto::Member {
        let state = proto::NodeState {
            version: "0.1.0".to_owned(),
            supported_cluster_version: 1,
            applied_index: 12_345,
            durable_applied_index: 12_000,
            digest: digest.to_owned(),
            first_log_index: 2_346,
            last_log_index: 12_345,
            disk_used_bytes: 54_321_987,
            disk_free_bytes: 9_876_543_210,
            uptime: Some(prost_types::Duration { seconds: 93_784, nanos: 0 }),
            clock: Some(Timestamp::from_micros(1_750_000_000_000_000).into()),
            draining: false,
            memories: 4_321,
        };
        proto::Member {
            node_id,
            peer_address: format!("127.0.0.1:{}", 7_580 + node_id),
            client_address: format!("127.0.0.1:{}", 7_480 + node_id),
            role: role.into(),
            reachable: true,
            matched_index: Some(12_345),
            state: Some(state),
        }
    }

    fn status() -> Status {
        use proto::MemberRole::{Leader, Voter};
        let digest = "9f86d081884c7d659a2feaa0c55ad015";
        let lost = proto::Member { reachable: false, state: None, ..member(3, Voter, digest) };
        Status {
            cluster_id: "0198b2d4-7c1a-7d3e-9f00-5a2b6c7d8e9f".to_owned(),
            node_id: 2,
            leader_id: 1,
            term: 7,
            committed_index: 12_345,
            cluster_version: 1,
            members: vec![member(1, Leader, digest), member(2, Voter, digest), lost],
        }
    }

    #[test]
    fn a_status_in_each_form() {
        let table = Form::Table { width: 140, styled: false };
        snapshot::check("status_table", &status_to_text(&status(), table));
        snapshot::check("status_lines", &status_to_text(&status(), Form::Lines));
        snapshot::check("status_json", &format!("{:#}\n", status_to_json(&status())));
    }

    #[test]
    fn a_watched_status_in_each_form() {
        let table = Form::Table { width: 140, styled: false };
        let mut text = String::new();
        for (title, form, on_terminal) in
            [("a terminal", table, true), ("a table in a pipe", table, false), ("lines in a pipe", Form::Lines, false)]
        {
            text.push_str(&format!("== {title}\n"));
            for number in 0..2 {
                text.push_str(&before_frame(form, on_terminal, number).replace('\u{1b}', "ESC"));
                text.push_str(&status_to_text(&status(), form));
            }
        }
        snapshot::check("status_watched", &text);
    }

    #[test]
    fn different_digests_at_one_index_are_shouted_about() {
        assert_eq!(digest_warning(&status()), None);
        let mut bad = status();
        bad.members[1].state.as_mut().unwrap().digest = "00".to_owned();
        assert!(digest_warning(&bad).unwrap().contains("nodes 1 and 2 differ at index 12345"));
        // Behind is not different.
        bad.members[1].state.as_mut().unwrap().applied_index = 12_000;
        assert_eq!(digest_warning(&bad), None);
    }
}
