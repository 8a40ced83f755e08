//! The machine that the verb runs on: what a node here would meet.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use cairn_engine::keyring::RootKey;
use rustix::process::{Resource, getrlimit};

use super::finding::{Finding, Grade};
use crate::cli::args::DoctorArgs;
use crate::cli::output::bytes_for_people;
use crate::config::Config;

/// Open files that a node with some thousand spaces may need, and that it cannot do without.
const OPEN_FILES_WARN: u64 = 8_192;
const OPEN_FILES_FAIL: u64 = 1_024;

/// How often a sync is measured, and how much is written before each: the size of a small batch of the log.
const SYNCS: usize = 64;
const SYNC_BYTES: usize = 4_096;

/// The slowest sync in a hundred. A leader that syncs for longer than an election timeout loses its followers.
const SYNC_WARN: Duration = Duration::from_millis(50);
const SYNC_FAIL: Duration = Duration::from_millis(600);

/// Free bytes below which a node has no room for a snapshot.
const FREE_WARN: u64 = 10 << 30;
const FREE_FAIL: u64 = 1 << 30;

/// All checks of the machine that the arguments allow.
pub(super) fn check(args: &DoctorArgs) -> Vec<Finding> {
    let mut findings = vec![open_files(getrlimit(Resource::Nofile).current)];
    let mut directory = args.data.clone();
    if let Some(file) = &args.config {
        match Config::load(Some(file), std::env::vars(), &[]) {
            Ok(config) => {
                findings.push(Finding::ok("configuration", format!("{}: {}", file.display(), summary(&config))));
                findings.push(root_key(&config));
                directory = directory.or(Some(config.node.data_dir));
            }
            Err(error) => {
                let advice = "mend it; deploy/cairn.reference.yaml describes every key";
                findings.push(Finding::new(Grade::Fail, "configuration", error.to_string(), advice));
            }
        }
    }
    if let Some(directory) = directory {
        findings.extend(directory_checks(&directory));
    }
    findings
}

fn summary(config: &Config) -> String {
    let members = config.members().len();
    format!("node {}, {members} {}", config.node.id, if members == 1 { "member" } else { "members" })
}

/// `None`: without a limit.
pub(super) fn open_files(limit: Option<u64>) -> Finding {
    let Some(limit) = limit else { return Finding::ok("open files", "no limit") };
    let grade = match limit {
        ..OPEN_FILES_FAIL => Grade::Fail,
        OPEN_FILES_FAIL..OPEN_FILES_WARN => Grade::Warn,
        _ => Grade::Ok,
    };
    Finding::new(
        grade,
        "open files",
        format!("at most {limit} in this session"),
        "raise it with `ulimit -n 65536`, or LimitNOFILE= in a unit of systemd",
    )
}

fn root_key(config: &Config) -> Finding {
    let section = &config.root_key;
    let read = match &section.file {
        Some(path) => RootKey::from_file(path).map(|_| path.display().to_string()),
        None => {
            RootKey::from_env(&section.environment).map(|_| format!("environment variable {}", section.environment))
        }
    };
    match read {
        Ok(place) => Finding::ok("root key", place),
        Err(error) => {
            let advice = "put the key there: `openssl rand -hex 32` makes one for a new cluster";
            Finding::new(Grade::Fail, "root key", error.to_string(), advice)
        }
    }
}

fn directory_checks(directory: &Path) -> Vec<Finding> {
    // A node makes the directory at its first start.
    let existing = directory.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    let failed = |check, error: &dyn std::fmt::Display| {
        let seen = format!("{}: {error}", existing.display());
        Finding::new(Grade::Fail, check, seen, "name the node's directory with --data, and run this as the node's user")
    };
    let free = match rustix::fs::statvfs(existing) {
        Ok(stat) => free_space(existing, stat.f_bavail * stat.f_frsize),
        Err(error) => failed("free space", &error),
    };
    let syncs = match measure_syncs(existing) {
        Ok(times) => sync_latency(existing, times),
        Err(error) => failed("sync latency", &error),
    };
    vec![free, syncs]
}

pub(super) fn free_space(directory: &Path, free: u64) -> Finding {
    let grade = match free {
        ..FREE_FAIL => Grade::Fail,
        FREE_FAIL..FREE_WARN => Grade::Warn,
        _ => Grade::Ok,
    };
    let seen = format!("{}: {} free", directory.display(), bytes_for_people(free));
    Finding::new(grade, "free space", seen, "free some space, or move the data directory to a larger disk")
}

/// Writes and syncs like the log does, into a file that is removed.
fn measure_syncs(directory: &Path) -> std::io::Result<Vec<Duration>> {
    let mut file = tempfile::Builder::new().prefix(".cairn-doctor-").tempfile_in(directory)?;
    let block = [0_u8; SYNC_BYTES];
    // Preallocated, as the log's segments are, so that only data is synced.
    for _ in 0..SYNCS {
        file.write_all(&block)?;
    }
    file.as_file().sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    (0..SYNCS)
        .map(|_| {
            file.write_all(&block)?;
            let began = Instant::now();
            file.as_file().sync_data()?;
            Ok(began.elapsed())
        })
        .collect()
}

/// `times` must not be empty.
pub(super) fn sync_latency(directory: &Path, mut times: Vec<Duration>) -> Finding {
    times.sort();
    let (median, slow) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let seen = format!("{}: median {}, slowest in a hundred {}", directory.display(), ms(median), ms(slow));
    let advice = "every write waits for a sync: use a local SSD, and no disk that others keep busy";
    Finding::new(Grade::above(slow, SYNC_WARN, SYNC_FAIL), "sync latency", seen, advice)
}
