//! `cairn inspect`: what a data directory holds, read without a server and without changing it.

use std::sync::Arc;

use cairn_client::Timestamp;
use cairn_engine::crypto::ClusterId;
use cairn_engine::keyring::{Keyring, RootKey};
use cairn_engine::{ErrorKind, RowText, inspect_rows};
use cairn_raft::StartError;
use cairn_raft::inspect::{DirectoryReport, inspect};
use serde_json::{Value as Json, json};

use crate::cli::args::InspectArgs;
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::output::{Cell, Details, Form, Listing, Output, bytes_for_people, grouped};
use crate::cli::render::{row_line, row_to_json};

/// The hint where something else was given.
const GIVE_DIRECTORY: &str = "give the data directory of a node, such as ./data";

/// The hint where rows cannot be read.
const REPLACE_NODE: &str =
    "the records of a damaged store come back from the other nodes: replace this one by a new node";

/// What the keyring says without showing a key.
struct KeyringReport {
    cluster_id: String,
    tenants: usize,
}

pub(super) fn run(args: &InspectArgs, mut out: Output) -> Result<()> {
    if !args.dir.is_dir() {
        return Err(Failure::usage(format!("{} is not a directory", args.dir.display())).with_hint(GIVE_DIRECTORY));
    }
    let report = inspect(&args.dir).map_err(|error| not_inspected(&error))?;
    if args.rows {
        return rows(args, &report, out);
    }
    let keyring = open_keyring(args, &report)?.map(|keyring| KeyringReport {
        cluster_id: uuid_text(keyring.cluster_id()),
        tenants: keyring.tenant_ids().len(),
    });
    match out.form {
        Form::Json => out.json(&to_json(&report, keyring.as_ref()))?,
        form => out.result(to_text(&report, keyring.as_ref(), form))?,
    }
    if report.in_use {
        out.note("note: a node is running in this directory; what it has not flushed yet is not shown");
    }
    out.flush()?;
    match report.store.map(|generation| generation.store) {
        Some(Err(problem)) => Err(Failure::new(Exit::Other, problem).with_hint(REPLACE_NODE)),
        _ => Ok(()),
    }
}

/// Says what can be done where nothing can be read.
fn not_inspected(error: &StartError) -> Failure {
    let message = error.to_string();
    match error {
        StartError::ForeignDirectory { .. } => Failure::usage(message).with_hint(GIVE_DIRECTORY),
        StartError::Io { .. } => {
            Failure::new(Exit::Other, message).with_hint("run it as the user that the node runs as")
        }
        // The others say themselves what to do.
        _ => Failure::new(Exit::Other, message),
    }
}

/// A cluster's id as `cairn status` shows it.
fn uuid_text(id: ClusterId) -> String {
    uuid::Uuid::from_bytes(id.0).to_string()
}

/// Prints rows as they are read: a store may be larger than the memory.
fn rows(args: &InspectArgs, report: &DirectoryReport, mut out: Output) -> Result<()> {
    let missing = |what: &str| {
        Failure::new(Exit::Precondition, format!("{}: there is no {what}", args.dir.display()))
            .with_hint("a node makes it when it starts for the first time")
    };
    let keyring = open_keyring(args, report)?.ok_or_else(|| missing("keyring"))?;
    let generation = report.store.as_ref().ok_or_else(|| missing("store yet"))?;
    let store = args.dir.join("group-0").join(&generation.name);
    let limit = if args.all { u64::MAX } else { args.limit };
    let (mut printed, mut more, mut failure) = (0, false, None);
    let time = |micros: i64| Timestamp::from_micros(micros).to_string();
    let mut each = |row: RowText| {
        if printed == limit {
            more = true;
            return false;
        }
        printed += 1;
        let written = match out.form {
            Form::Json => out.json(&row_to_json(&row)),
            _ => out.result(row_line(&row)),
        };
        failure = written.err();
        failure.is_none()
    };
    inspect_rows(&store, &Arc::new(keyring), &args.kinds, &time, &mut each).map_err(|error| rows_not_read(&error))?;
    if let Some(error) = failure {
        return Err(error.into());
    }
    if more {
        let shown = grouped(printed);
        out.note(format!("note: there are more than these {shown}; see all with --all, or more with -n"));
    }
    Ok(out.flush()?)
}

fn rows_not_read(error: &cairn_engine::Error) -> Failure {
    match error.kind() {
        // A kind that there is not; the message lists those that there are.
        ErrorKind::InvalidArgument { .. } => Failure::usage(error.to_string()),
        _ => Failure::new(Exit::Other, error.to_string()).with_hint(REPLACE_NODE),
    }
}

fn open_keyring(args: &InspectArgs, report: &DirectoryReport) -> Result<Option<Keyring>> {
    let (Some(key_file), Some(path)) = (&args.root_key, &report.keyring) else { return Ok(None) };
    let failure = |error: cairn_engine::keyring::KeyringError| {
        Failure::new(Exit::Precondition, error.to_string()).with_hint(
            "give the root key that the node starts with; `cairn dev` keeps its own in ~/.config/cairn/root.key",
        )
    };
    let root = RootKey::from_file(key_file).map_err(failure)?;
    Ok(Some(Keyring::open(path, &root).map_err(failure)?))
}

fn keyring_word(report: &DirectoryReport, keyring: Option<&KeyringReport>) -> String {
    match (&report.keyring, keyring) {
        (None, _) => "missing".to_owned(),
        (Some(_), None) => "sealed; --root-key opens it".to_owned(),
        (Some(_), Some(keyring)) => format!("cluster {}, tenants with keys: {}", keyring.cluster_id, keyring.tenants),
    }
}

fn to_text(report: &DirectoryReport, keyring: Option<&KeyringReport>, form: Form) -> String {
    let cluster = report.cluster_id.map_or_else(|| "none yet".to_owned(), uuid_text);
    let seen: Vec<String> = report.seen_nodes.iter().map(ToString::to_string).collect();
    let log_bytes = report.segments.iter().map(|segment| segment.bytes).sum::<u64>();
    let mut details = Details::new();
    details
        .add("node", Cell::number(report.node_id))
        .add("cluster", Cell::text(cluster))
        .add("incarnation", Cell::text(hex::encode(&report.incarnation)))
        .add("peers met", Cell::text(seen.join(" ")))
        .add("in use", Cell::text(if report.in_use { "yes" } else { "no" }))
        .add("keyring", Cell::text(keyring_word(report, keyring)))
        .add("log segments", Cell::number(report.segments.len() as u64))
        .add("log size", Cell::both(bytes_for_people(log_bytes), log_bytes.to_string()))
        .add("snapshots", Cell::number(report.snapshots.len() as u64));
    let Some(generation) = &report.store else {
        return details.to_text(form);
    };
    details.add("store", Cell::text(&generation.name));
    let Ok(store) = &generation.store else {
        return details.to_text(form);
    };
    let applied = store.applied.map(|at| format!("index {}, term {}", at.index, at.term)).unwrap_or_default();
    details
        .add("applied", Cell::both(applied, store.applied.map_or(0, |at| at.index).to_string()))
        .add("stamp", Cell::time((store.stamp_micros > 0).then(|| Timestamp::from_micros(store.stamp_micros))))
        .add("digest", Cell::text(&store.digest))
        .add("version", Cell::number(store.cluster_version.into()));
    let mut rows = Listing::new(&["ROWS", "COUNT", "SIZE"]);
    for kind in &store.rows {
        let size = Cell::both(bytes_for_people(kind.bytes), kind.bytes.to_string()).right();
        rows.row(vec![Cell::text(kind.kind), Cell::number(kind.rows), size]);
    }
    match form {
        Form::Table { width, styled } => format!("{}\n{}", details.to_text(form), rows.to_table(width, styled)),
        Form::Lines | Form::Json => {
            let lines = rows.to_lines();
            let rows: String = lines.lines().map(|line| format!("rows\t{line}\n")).collect();
            details.to_text(form) + &rows
        }
    }
}

fn to_json(report: &DirectoryReport, keyring: Option<&KeyringReport>) -> Json {
    let segments: Json =
        report.segments.iter().map(|segment| json!({"name": segment.name, "bytes": segment.bytes})).collect();
    let store = report.store.as_ref().map(|generation| {
        let store = match &generation.store {
            Ok(store) => store,
            Err(problem) => return json!({"generation": generation.name, "problem": problem}),
        };
        let rows: Json =
            store.rows.iter().map(|kind| json!({"kind": kind.kind, "rows": kind.rows, "bytes": kind.bytes})).collect();
        json!({
            "generation": generation.name,
            "applied_index": store.applied.map(|at| at.index),
            "applied_term": store.applied.map(|at| at.term),
            "stamp_micros": store.stamp_micros,
            "digest": store.digest,
            "cluster_version": store.cluster_version,
            "rows": rows,
        })
    });
    json!({
        "node_id": report.node_id,
        "cluster_id": report.cluster_id.map(uuid_text),
        "incarnation": hex::encode(&report.incarnation),
        "seen_nodes": report.seen_nodes,
        "in_use": report.in_use,
        "keyring": keyring.map(|keyring| json!({"cluster_id": keyring.cluster_id, "tenants": keyring.tenants})),
        "segments": segments,
        "snapshots": report.snapshots,
        "store": store,
    })
}

#[cfg(test)]
mod tests {
    use cairn_engine::{LogId, RowsReport, StoreReport};
    use cairn_raft::inspect::{FileReport, GenerationReport};

    use super::*;
    use crate::cli::snapshot;

    fn report(store: std::result::Result<StoreReport, String>) -> DirectoryReport {
        DirectoryReport {
            node_id: 2,
            cluster_id: Some(ClusterId([0x17; 16])),
            incarnation: vec![0xab; 16],
            seen_nodes: vec![1, 3],
            in_use: false,
            keyring: Some("data/keyring".into()),
            segments: vec![FileReport { name: "00000000000000000001.wal".to_owned(), bytes: 64 << 20 }],
            snapshots: vec!["snap-7".to_owned()],
            store: Some(GenerationReport { name: "gen-000003".to_owned(), store }),
        }
    }

    #[test]
    fn a_directory_in_each_form() {
        let store = StoreReport {
            applied: Some(LogId { term: 4, node_id: 1, index: 1_234 }),
            stamp_micros: 1_750_000_000_000_000,
            digest: "8a72ff00".to_owned(),
            cluster_version: 1,
            rows: vec![RowsReport { kind: "memory", rows: 12_345, bytes: 6 << 20 }],
        };
        let keyring = KeyringReport { cluster_id: uuid_text(ClusterId([0x17; 16])), tenants: 1 };
        let whole = report(Ok(store));
        let damaged = report(Err("cannot read the store in data: Corruption: block checksum mismatch".to_owned()));
        let table = Form::Table { width: 100, styled: false };
        let mut text = String::new();
        for (report, keyring) in [(&whole, Some(&keyring)), (&whole, None), (&damaged, None)] {
            for form in [table, Form::Lines] {
                text.push_str(&to_text(report, keyring, form));
                text.push('\n');
            }
            text.push_str(&format!("{}\n\n", to_json(report, keyring)));
        }
        snapshot::check("inspect", &text);
    }
}
