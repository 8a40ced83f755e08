//! A node whose disk fails a sync: the whole process, since that is what must end.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use cairn_raft::{Node, ReadLevel};

use crate::disks::Trouble;
use crate::support::{Cluster, count, in_time, memory, missing, ready, space, try_write, write};

/// Where the process that is to end keeps its data; set for that process only.
const DATA_DIR: &str = "CAIRN_TEST_FAILED_SYNC";
/// What a line says before the id of a memory that was acknowledged; the test harness may say something before that.
const ACKNOWLEDGED: &str = "acknowledged ";
const SIGABRT: i32 = 6;

/// The kernel reports a failed write-back once, and the pages count as clean from then on: whoever goes on acknowledges what
/// no disk holds. So nobody goes on, and the next process writes anew what it finds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_the_process_and_costs_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::of(1);
    // Without a core file, which nobody asked for.
    let output = Command::new("sh")
        .args(["-c", "ulimit -c 0; exec \"$0\" --exact failed_sync::until_a_sync_fails --ignored --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .env(DATA_DIR, cluster.data_dir(1))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.signal(), Some(SIGABRT), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    let acknowledged: Vec<String> =
        told.lines().filter_map(|line| line.split_once(ACKNOWLEDGED)).map(|(_, id)| id.to_string()).collect();
    assert_eq!(acknowledged, ["m0", "m1", "m2", "m3", "m4"], "nothing is acknowledged that was not synced");

    let node = cluster.start(1).await;
    cluster.ready().await;
    assert_eq!(missing(&node, &acknowledged).await, Vec::<String>::new());
    write(&node, memory("later", "tea")).await;
    // What was asked for and not acknowledged may be there or not.
    assert!(count(&node, ReadLevel::Linearizable).await > acknowledged.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is run by the test above, in a process that ends"]
async fn until_a_sync_fails() {
    let mut config = Cluster::of(1).config(1);
    config.data_dir = PathBuf::from(std::env::var_os(DATA_DIR).unwrap());
    let disk = Trouble::default();
    let node = Node::start_in(config, disk.environment()).await.unwrap();
    ready(&node).await;
    write(&node, space()).await;
    for number in 0..5 {
        write(&node, memory(&format!("m{number}"), "tea")).await;
        println!("{ACKNOWLEDGED}m{number}");
    }
    disk.break_down();
    if try_write(&node, memory("m5", "tea"), in_time()).await.is_ok() {
        println!("{ACKNOWLEDGED}m5");
    }
    // The call may be answered a moment before the end.
    tokio::time::sleep(Duration::from_secs(10)).await;
}
