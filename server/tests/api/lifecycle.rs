//! A node that starts, is probed, is overloaded, stops and comes back.

use std::time::Duration;

use cairn_proto::v1;
use cairn_server::{RunError, run};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::support::{TestNode, configuration, memory, reason, space, write_root_key};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let mut node = TestNode::with_notes().await;
    node.add("notes", (0..50).map(|id| memory(&format!("id-{id}"), "kept", &[1.0, 2.0, 3.0, 4.0])).collect()).await;
    let mut node = node.restart().await;
    assert_eq!(node.count("notes").await, 50);
    let request = v1::GetMemoriesRequest { space: "notes".into(), ids: vec!["id-7".into()], ..Default::default() };
    assert_eq!(node.memories.get_memories(request).await.unwrap().into_inner().memories[0].content, "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_answer() {
    let mut node = TestNode::with_notes().await;
    node.add("notes", vec![memory("a", "one", &[])]).await;
    let missing = v1::CountMemoriesRequest { space: "nowhere".into(), ..Default::default() };
    node.memories.count_memories(missing).await.unwrap_err();
    for page in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(node.get(page).await, (200, "ok\n".to_owned()), "{page}");
    }
    let (code, health) = node.get("/health").await;
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    assert_eq!((code, health["status"].as_str(), health["role"].as_str()), (200, Some("ready"), Some("leader")));

    let (code, metrics) = node.get("/metrics").await;
    assert_eq!(code, 200);
    for line in [
        r#"memory_operations_total{operation="add",outcome="ok"} 1"#,
        r#"memory_operations_total{operation="create_space",outcome="ok"} 1"#,
        r#"memory_operations_total{operation="count",outcome="not_found"} 1"#,
        r#"memory_operation_duration_seconds_count{operation="add"} 1"#,
        "cairn_raft_leader 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert!(!metrics.contains("nowhere"), "no name of a caller's becomes a label");
    let (_, json) = node.get("/metrics/json").await;
    let samples: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(samples.as_array().unwrap().iter().any(|sample| sample["name"] == "cairn_ready" && sample["value"] == 1));
    assert_eq!(node.get("/nothing").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_is_shed_with_a_time_to_wait() {
    let mut node = TestNode::start_with(|config| config.limits.writes_in_flight = 1).await;
    node.create(space("notes", 4, "")).await;
    let calls = (0..64).map(|_| {
        let mut api = node.memories.clone();
        let memories = vec![memory("", "x", &[])];
        async move {
            api.add_memories(v1::AddMemoriesRequest { space: "notes".into(), memories, ..Default::default() }).await
        }
    });
    let answers = futures::future::join_all(calls).await;
    let done = answers.iter().filter(|answer| answer.is_ok()).count();
    let shed: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert!(done > 0 && !shed.is_empty(), "{done} done, {} shed", shed.len());
    for status in shed {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
        let details = status.get_error_details();
        assert!(details.retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
        assert!(details.quota_failure().is_some());
    }
    assert_eq!(node.count("notes").await, done as u64, "what was shed was not written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_kept() {
    let mut node = TestNode::with_notes().await;
    let mut request = tonic::Request::new(v1::CountMemoriesRequest { space: "notes".into(), ..Default::default() });
    request.metadata_mut().insert("grpc-timeout", "1n".parse().unwrap());
    let status = node.memories.count_memories(request).await.unwrap_err();
    // The client gives up at the same time, with CANCELLED, and may be the first.
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_the_health_does_not_hold_up_the_stop() {
    let node = TestNode::start_with(|config| config.shutdown.grace = Duration::from_secs(60)).await;
    let mut health = HealthClient::new(node.channel.clone());
    let request = HealthCheckRequest { service: String::new() };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    tokio::time::timeout(Duration::from_secs(30), node.handle.stop())
        .await
        .expect("the stop does not wait for the watch");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_when_the_data_directory_is_free() {
    let node = TestNode::start().await;
    let read_by_a_call = node.handle.node().engine();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(read_by_a_call);
    });
    // A start that finds the directory in use fails.
    node.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_cannot_succeed_is_refused_in_one_line() {
    async fn refusal(config: cairn_server::config::Config) -> String {
        match run(config).await {
            Ok(_) => panic!("the node started"),
            Err(error) => error.to_string(),
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let missing_key = refusal(configuration(directory.path())).await;
    assert!(missing_key.contains("root.key"), "{missing_key}");

    write_root_key(&directory.path().join("root.key"));
    let handle = run(configuration(directory.path())).await.unwrap();
    let in_use = refusal(configuration(directory.path())).await;
    assert!(in_use.contains("in use"), "{in_use}");

    let mut taken = configuration(directory.path());
    taken.listen.http = handle.addresses().http;
    let error = run(taken).await.err().unwrap();
    assert!(matches!(error, RunError::Listen { key: "listen.http", .. }), "{error}");
    handle.stop().await;

    std::fs::remove_file(directory.path().join("root.key")).unwrap();
    write_root_key(&directory.path().join("root.key"));
    let wrong_key = refusal(configuration(directory.path())).await;
    assert!(wrong_key.contains("another root key"), "{wrong_key}");
    for line in [missing_key, in_use, wrong_key] {
        assert!(!line.contains('\n'), "{line}");
    }
}
