//! What a node refuses to start with: each time it ends by itself, soon, and the log says what to do.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets an error has failed")]

use std::fs;
use std::process::Command;

use cairn_client::{Memory, NewSpace};
use cairn_tests::{ClusterError, TestCluster, cairn_binary, files};

/// Starts a node that must refuse, and returns the end of its log.
async fn refusal(cluster: &mut TestCluster, id: u64) -> String {
    cluster.start_node(id).unwrap();
    match cluster.wait_until_ready().await {
        Err(ClusterError::Ended { node, status, log }) => {
            assert_eq!(node, id);
            assert!(!status.success(), "node {id} ended with {status}");
            assert!(!log.contains("panicked"), "{log}");
            log
        }
        other => panic!("node {id} should have refused, but: {other:?}"),
    }
}

#[track_caller]
fn assert_says(log: &str, words: &[&str]) {
    let last = log.lines().last().unwrap_or_default().to_lowercase();
    assert!(words.iter().all(|word| last.contains(word)), "{words:?} are not all in the last line of: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_root_key_is_refused() {
    let mut cluster = TestCluster::start(1).await;
    cluster.stop(1).await.unwrap();
    fs::write(cluster.directory().join("root.key"), "ab".repeat(32)).unwrap();
    assert_says(&refusal(&mut cluster, 1).await, &["root key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut cluster = TestCluster::new(1);
    let key = cluster.directory().join("root.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_says(&refusal(&mut cluster, 1).await, &["root.key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_disk_under_an_id_that_the_cluster_knows_is_refused() {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client();
    client.create_space(NewSpace::new("notes", 2)).await.unwrap();
    client.space("notes").add(Memory::new("kept").vector(vec![1.0, 0.0])).await.unwrap();
    cluster.stop(2).await.unwrap();
    fs::remove_dir_all(&cluster.node(2).data).unwrap();
    assert_says(&refusal(&mut cluster, 2).await, &["2"]);
    assert_eq!(client.space("notes").count().await.unwrap().count, 1, "the others go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_directory_of_another_node_is_refused() {
    let mut cluster = TestCluster::start(3).await;
    cluster.stop(1).await.unwrap();
    cluster.stop(2).await.unwrap();
    fs::remove_dir_all(&cluster.node(2).data).unwrap();
    files::copy(&cluster.node(1).data, &cluster.node(2).data).unwrap();
    assert_says(&refusal(&mut cluster, 2).await, &["node"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_directory_of_another_cluster_is_refused() {
    let mut one = TestCluster::start(3).await;
    let mut other = TestCluster::start(3).await;
    one.stop(2).await.unwrap();
    other.stop(2).await.unwrap();
    // The same root key, so that it is the cluster's identity that is refused.
    fs::copy(other.directory().join("root.key"), one.directory().join("root.key")).unwrap();
    fs::remove_dir_all(&one.node(2).data).unwrap();
    files::copy(&other.node(2).data, &one.node(2).data).unwrap();
    assert_says(&refusal(&mut one, 2).await, &["data directory"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_place_of_the_data_directory_is_refused() {
    let mut cluster = TestCluster::new(1);
    fs::write(&cluster.node(1).data, "notes").unwrap();
    assert_says(&refusal(&mut cluster, 1).await, &["error:", "is not a directory", "name one"]);
    assert_eq!(fs::read(&cluster.node(1).data).unwrap(), b"notes", "the file is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_is_refused() {
    let cluster = TestCluster::start(1).await;
    let mut second = TestCluster::new(1);
    let configuration = second.directory().join("node-1.yaml");
    let text = fs::read_to_string(&configuration).unwrap();
    let here = second.node(1).data.display().to_string();
    let text = text.replace(&here, &cluster.node(1).data.display().to_string());
    let key = second.directory().join("root.key").display().to_string();
    let text = text.replace(&key, &cluster.directory().join("root.key").display().to_string());
    fs::write(&configuration, text).unwrap();
    assert_says(&refusal(&mut second, 1).await, &["in use"]);
}

#[test]
fn an_unreadable_configuration_is_one_line_and_exit_code_2() {
    for (name, content, word) in [
        ("missing.yaml", None, "missing.yaml"),
        ("broken.yaml", Some("node: ["), "broken.yaml"),
        ("unknown.yaml", Some("node:\n  idd: 1\n"), "idd"),
        ("type.yaml", Some("node:\n  id: many\n"), "id"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let output = Command::new(cairn_binary()).arg("start").arg("--config").arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "{name}: {said}");
        assert!(said.contains(word), "{name}: {said}");
    }
}
