//! A real node on a real small disk: what it does while the disk fills up, while it is full, and when there is space again.
//!
//! The disk is a tmpfs in a mount namespace that ends with the test, so that nothing of it is seen outside. The test runs itself again
//! within the namespace; where none can be made, it says that it skipped.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cairn_client::{Client, ErrorKind, Memory, NewSpace, Query, RetryPolicy, Space};
use cairn_tests::TestCluster;

/// Set within the namespace.
const INSIDE: &str = "CAIRN_TEST_SMALL_DISK";
const DISK_MEBIBYTES: u32 = 96;
const SETTINGS: &str = "limits: { disk_reserve: 40MiB }\nstorage: { log_segment: 4MiB, write_buffer: 2MiB }\n";
const CONTENT_BYTES: usize = 64 << 10;
/// Nodes look at their disks once a second; until then no more than a part of the reserve may be written.
const PAUSE: Duration = Duration::from_millis(15);
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `script` as root of a mount namespace of its own; `None` where there is none to be had.
fn in_namespace(script: &str, arguments: &[&str]) -> Option<Command> {
    let as_root: &[&str] = &["--mount"];
    let as_user: &[&str] = &["--map-root-user", "--mount"];
    let command = |options: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(options).args(["sh", "-c"]);
        command
    };
    let probe = tempfile::tempdir().unwrap();
    let works = |options: &&&[&str]| {
        let mount = "mount -t tmpfs -o size=1m cairn \"$0\"";
        command(options).arg(mount).arg(probe.path()).output().is_ok_and(|output| output.status.success())
    };
    let options = [as_root, as_user].iter().find(works).copied()?;
    let mut command = command(options);
    command.arg(script).args(arguments);
    Some(command)
}

#[test]
fn a_disk_that_fills_up_costs_nothing_that_was_acknowledged() {
    if std::env::var_os(INSIDE).is_some() {
        return;
    }
    let mount = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    let script = format!(
        "mount -t tmpfs -o size={DISK_MEBIBYTES}m,mode=700 cairn \"$0\" && TMPDIR=\"$0\" exec \"$1\" --exact on_the_small_disk --ignored --nocapture"
    );
    let Some(mut command) = in_namespace(&script, &[mount.path().to_str().unwrap(), own.to_str().unwrap()]) else {
        // Past what the test harness keeps to itself of a test that passes.
        writeln!(std::io::stderr(), "SKIPPED the test of a disk that fills up: no mount namespace can be made here")
            .unwrap();
        return;
    };
    let output = command.env(INSIDE, mount.path()).output().unwrap();
    let (told, failures) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "{told}\n{failures}");
}

/// What cannot be compressed.
fn content(number: u64) -> String {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = format!("memory {number}: ");
    while text.len() < CONTENT_BYTES {
        // xorshift64, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push(char::from(b'!' + (state % 90) as u8));
    }
    text
}

fn memory(number: u64) -> Memory {
    Memory::new(content(number)).id(format!("m{number}")).vector(vec![1.0, number as f32])
}

/// Writes until a write is refused for want of space; returns the ids of what was acknowledged.
async fn fill(space: &Space) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for number in 0.. {
        match space.add(memory(number)).await {
            Ok(_) => acknowledged.insert(format!("m{number}")),
            Err(refused) => {
                assert_eq!((refused.kind(), refused.reason()), (ErrorKind::Overloaded, Some("DISK_LOW")), "{refused}");
                assert!(refused.retry_after().is_some_and(|wait| !wait.is_zero()), "{refused}");
                return acknowledged;
            }
        };
        tokio::time::sleep(PAUSE).await;
    }
    unreachable!("no disk is endless")
}

/// Fails unless exactly these memories are there, whole.
async fn assert_holds(space: &Space, expected: &BTreeSet<String>) {
    assert_eq!(space.count().await.unwrap().count, expected.len() as u64);
    let ids: Vec<&String> = expected.iter().collect();
    for some in ids.chunks(20) {
        let found = space.get(some.iter().map(|id| id.as_str())).await.unwrap();
        assert_eq!(found.missing_ids, Vec::<String>::new());
        for memory in found.memories {
            let number = memory.id.trim_start_matches('m').parse().unwrap();
            assert!(memory.content == content(number), "{} is not what was written", memory.id);
        }
    }
}

/// Takes all that is free.
fn fill_up(path: &Path) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    for bytes in [1 << 20, 1 << 12, 1] {
        let zeros = vec![0_u8; bytes];
        while file.write_all(&zeros).is_ok() {}
    }
}

/// Waits until a write is taken again.
async fn until_added(space: &Space, memory: Memory) {
    let begun = Instant::now();
    while let Err(refused) = space.add(memory.clone()).await {
        assert_eq!(refused.kind(), ErrorKind::Overloaded, "{refused}");
        assert!(begun.elapsed() < PATIENCE, "still refused: {refused}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "is run by the test above, on its disk"]
async fn on_the_small_disk() {
    let mount = std::env::var_os(INSIDE).unwrap();
    let mount = Path::new(&mount);
    let mut cluster = TestCluster::new(1);
    assert!(cluster.node(1).data.starts_with(mount), "the node is to live on the small disk");
    let config = cluster.directory().join("node-1.yaml");
    OpenOptions::new().append(true).open(&config).unwrap().write_all(SETTINGS.as_bytes()).unwrap();
    cluster.start_node(1).unwrap();
    cluster.wait_until_ready().await.unwrap();

    // A refusal is to be seen, not waited out.
    let client = Client::builder().endpoints(cluster.endpoints()).retry(RetryPolicy::none()).build().unwrap();
    client.create_space(NewSpace::new("notes", 2)).await.unwrap();
    let space = client.space("notes");
    let mut expected = fill(&space).await;
    assert!(expected.len() > 50, "{} writes on a disk of {DISK_MEBIBYTES} MiB", expected.len());

    // Nearly full: reads and deletes are served.
    assert_holds(&space, &expected).await;
    let gone: Vec<String> = expected.iter().take(20).cloned().collect();
    let deleted = space.delete(&gone).await.unwrap();
    assert_eq!(deleted.count, 20);
    expected.retain(|id| !gone.contains(id));
    assert_eq!(space.search(Query::vector(vec![1.0, 1.0])).limit(5).await.unwrap().hits.len(), 5);

    // Full to the last byte: reads go on, and the node with them.
    let ballast = mount.join("ballast");
    fill_up(&ballast);
    let refused = space.add(memory(1_000_000)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded, "{refused}");
    assert_holds(&space, &expected).await;

    // Space comes back, first what somebody else had taken, then a larger disk.
    std::fs::remove_file(&ballast).unwrap();
    let larger = format!("remount,size={}m", DISK_MEBIBYTES * 2);
    assert!(Command::new("mount").args(["-o", &larger]).arg(mount).status().unwrap().success());
    until_added(&space, memory(1_000_001)).await;
    expected.insert("m1000001".to_owned());
    assert_holds(&space, &expected).await;

    cluster.kill(1).unwrap();
    cluster.start_node(1).unwrap();
    cluster.wait_until_ready().await.unwrap();
    assert_holds(&space, &expected).await;
}
