//! WatchMemories: what a client sees of the changes of a space.

use std::time::Duration;

use cairn_proto::v1;
use cairn_proto::v1::watch_memories_response::Message;
use tonic::{Code, Status, Streaming};

use crate::support::{TestNode, memory, reason, violations};

type Stream = Streaming<v1::WatchMemoriesResponse>;

fn request(after: &str) -> v1::WatchMemoriesRequest {
    v1::WatchMemoriesRequest { space: "notes".into(), after: after.into(), ..Default::default() }
}

async fn watch(node: &mut TestNode, request: v1::WatchMemoriesRequest) -> Result<Stream, Status> {
    node.memories.watch_memories(request).await.map(tonic::Response::into_inner)
}

/// The next message of any kind, in good time.
async fn message(stream: &mut Stream) -> Result<Option<Message>, Status> {
    let next = tokio::time::timeout(Duration::from_secs(30), stream.message()).await.expect("a watch is never silent");
    Ok(next?.map(|response| response.message.unwrap()))
}

/// The next change.
async fn change(stream: &mut Stream) -> v1::MemoryChange {
    loop {
        if let Message::Change(change) = message(stream).await.unwrap().unwrap() {
            return change;
        }
    }
}

/// The failure that ends a stream.
async fn end(stream: &mut Stream) -> Status {
    loop {
        match message(stream).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => return status,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_where_it_begins_and_then_every_change() {
    let mut node = TestNode::with_notes().await;
    node.add("notes", vec![memory("before", "old", &[])]).await;
    let mut stream = watch(&mut node, request("")).await.unwrap();
    let Some(Message::Progress(begin)) = message(&mut stream).await.unwrap() else { panic!("no position first") };
    let written = node.add("notes", vec![memory("a", "one", &[]), memory("b", "two", &[])]).await;
    let (first, second) = (change(&mut stream).await, change(&mut stream).await);
    assert_eq!((first.id.as_str(), first.r#type()), ("a", v1::ChangeType::Created));
    assert_eq!((second.id.as_str(), second.memory), ("b", None));
    assert_eq!(second.position, written.position, "the last change of a write stands where the write says");

    // From within a write, and from before it.
    let mut stream = watch(&mut node, request(&first.position)).await.unwrap();
    assert_eq!(change(&mut stream).await.id, "b");
    let with_memory = v1::WatchMemoriesRequest { include_memory: true, ..request(&begin.position) };
    let mut stream = watch(&mut node, with_memory).await.unwrap();
    assert_eq!(change(&mut stream).await.memory.unwrap().content, "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_cluster_says_when_a_memory_expires() {
    let mut node = TestNode::with_notes().await;
    let mut stream = watch(&mut node, request("")).await.unwrap();
    let ttl = v1::memory::Expiry::Ttl(prost_types::Duration { seconds: 1, nanos: 0 });
    node.add("notes", vec![v1::Memory { expiry: Some(ttl), ..memory("a", "short", &[]) }]).await;
    assert_eq!(change(&mut stream).await.r#type(), v1::ChangeType::Created);
    let gone = change(&mut stream).await;
    assert_eq!((gone.r#type(), gone.id.as_str(), gone.version), (v1::ChangeType::Expired, "a", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_stays_fresh() {
    let mut node = TestNode::with_notes().await;
    node.create(crate::support::space("other", 4, "")).await;
    let mut stream = watch(&mut node, request("")).await.unwrap();
    let Some(Message::Progress(begin)) = message(&mut stream).await.unwrap() else { panic!("no position first") };
    let elsewhere = node.add("other", vec![memory("x", "noise", &[])]).await;
    let Some(Message::Progress(sign)) = message(&mut stream).await.unwrap() else { panic!("no sign of life") };
    assert_ne!(sign.position, begin.position);
    let mut stream = watch(&mut node, request(&elsewhere.position)).await.unwrap();
    node.add("notes", vec![memory("a", "one", &[])]).await;
    assert_eq!(change(&mut stream).await.id, "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_watches_are_refused_and_ends_are_explained() {
    let mut node = TestNode::with_notes().await;
    let status = watch(&mut node, request("yesterday")).await.unwrap_err();
    assert_eq!((status.code(), violations(&status)[0].0.as_str()), (Code::InvalidArgument, "after"));
    let nowhere = v1::WatchMemoriesRequest { space: "nowhere".into(), ..request("") };
    let status = watch(&mut node, nowhere).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "SPACE_NOT_FOUND"));
    let scope = v1::Scope { user_id: Some(String::new()), ..Default::default() };
    let status = watch(&mut node, v1::WatchMemoriesRequest { scope: Some(scope), ..request("") }).await.unwrap_err();
    assert_eq!(violations(&status)[0].0, "scope.user_id");

    let mut stream = watch(&mut node, request("")).await.unwrap();
    let delete = v1::DeleteSpaceRequest { name: "notes".into(), request_id: String::new() };
    node.spaces.delete_space(delete).await.unwrap();
    let status = end(&mut stream).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "SPACE_NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_are_bounded_and_the_unread_are_shed() {
    let mut node = TestNode::start_with(|config| {
        config.limits.streams_in_flight = 1;
        config.limits.stream_stall_timeout = Duration::from_millis(200);
    })
    .await;
    node.create(crate::support::space("notes", 4, "")).await;
    let with_memory = v1::WatchMemoriesRequest { include_memory: true, ..request("") };
    let mut stream = watch(&mut node, with_memory).await.unwrap();
    let status = watch(&mut node, request("")).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    // More than the connection and the stream's own page hold.
    let text = "x".repeat(500_000);
    for number in 0..40 {
        node.add("notes", vec![memory(&format!("m{number}"), &text, &[])]).await;
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    let (mut last, mut seen) = (String::new(), 0);
    let status = loop {
        match message(&mut stream).await {
            Ok(Some(Message::Change(change))) => (last, seen) = (change.position, seen + 1),
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "SLOW_READER"));
    let mut stream = watch(&mut node, request(&last)).await.unwrap();
    assert_eq!(change(&mut stream).await.id, format!("m{seen}"), "and it goes on where it was shed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_after_a_restart() {
    let mut node = TestNode::with_notes().await;
    let mut stream = watch(&mut node, request("")).await.unwrap();
    node.add("notes", vec![memory("a", "one", &[])]).await;
    let position = change(&mut stream).await.position;
    node.add("notes", vec![memory("b", "two", &[])]).await;
    let ended = tokio::spawn(async move { end(&mut stream).await });
    let mut node = node.restart().await;
    let status = ended.await.unwrap();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "NODE_STOPPED"));
    let mut stream = watch(&mut node, request(&position)).await.unwrap();
    assert_eq!(change(&mut stream).await.id, "b");
}
