//! The SDK against servers that fail by script.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::mock::{Mock, Step};
use crate::{ChangeKind, Client, ErrorKind, Memory, Position, RetryPolicy, Timestamp, Value};

/// Waits so short that tests do not notice them.
fn impatient() -> RetryPolicy {
    RetryPolicy {
        backoff_initial: Duration::from_millis(1),
        backoff_max: Duration::from_millis(5),
        ..RetryPolicy::default()
    }
}

fn client_of(mocks: &[&Mock]) -> Client {
    let endpoints = mocks.iter().map(|mock| mock.address.clone());
    Client::builder().endpoints(endpoints).retry(impatient()).build().unwrap()
}

fn busy(retry_after: Duration) -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(Code::ResourceExhausted, "the queue is full", details)
}

#[tokio::test]
async fn retries_of_a_write_carry_the_same_request_id() {
    let unavailable = || Step::Fail(Status::unavailable("no leader"));
    let mock = Mock::start([unavailable(), unavailable(), Step::Answer]).await;
    let space = client_of(&[&mock]).space("default");
    space.add("first").await.unwrap();
    space.add("second").await.unwrap();
    let ids: Vec<String> = mock.seen().into_iter().map(|seen| seen.request_id).collect();
    assert_eq!(ids.len(), 4);
    assert!(!ids[0].is_empty() && ids[0].len() <= 64);
    assert_eq!((&ids[0], &ids[0]), (&ids[1], &ids[2]));
    assert_ne!(ids[2], ids[3]);
}

#[tokio::test]
async fn the_callers_request_id_is_kept() {
    let mock = Mock::start([Step::Fail(Status::unavailable("no leader"))]).await;
    let space = client_of(&[&mock]).space("default");
    space.delete(["a"]).request_id("mine").await.unwrap();
    assert!(mock.seen().iter().all(|seen| seen.request_id == "mine"));
    assert_eq!(mock.seen().len(), 2);
}

#[tokio::test]
async fn the_server_says_how_long_to_wait() {
    let wait = Duration::from_millis(200);
    let mock = Mock::start([Step::Fail(busy(wait))]).await;
    let started = Instant::now();
    client_of(&[&mock]).space("default").add("x").await.unwrap();
    assert!(started.elapsed() >= wait);
    assert_eq!(mock.seen().len(), 2);
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_is_not_begun() {
    let mock = Mock::start([Step::Fail(busy(Duration::from_secs(60)))]).await;
    let error = client_of(&[&mock]).space("default").add("x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));
    assert_eq!(mock.seen().len(), 1);
}

#[tokio::test]
async fn what_is_wrong_is_not_sent_again() {
    let codes = [
        (Code::InvalidArgument, ErrorKind::InvalidArgument),
        (Code::NotFound, ErrorKind::NotFound),
        (Code::AlreadyExists, ErrorKind::AlreadyExists),
        (Code::Aborted, ErrorKind::Conflict),
        (Code::FailedPrecondition, ErrorKind::FailedPrecondition),
        (Code::ResourceExhausted, ErrorKind::Overloaded),
        (Code::PermissionDenied, ErrorKind::PermissionDenied),
        (Code::Internal, ErrorKind::Internal),
    ];
    for (code, kind) in codes {
        let mock = Mock::start([Step::Fail(Status::new(code, "no"))]).await;
        let error = client_of(&[&mock]).space("default").add("x").await.unwrap_err();
        assert_eq!((error.kind(), error.attempts(), mock.seen().len()), (kind, 1, 1), "{code:?}");
    }
}

#[tokio::test]
async fn violations_reach_the_caller() {
    let mut details = ErrorDetails::new();
    details
        .set_error_info("INVALID_FIELD", "cairn", [])
        .add_bad_request_violation("memories[0].vectors[0]", "has 3 values, the space has 384 dimensions");
    let status = Status::with_error_details(Code::InvalidArgument, "memories[0].vectors[0]: wrong dimension", details);
    let mock = Mock::start([Step::Fail(status)]).await;
    let memory = Memory::new("x").vector([1.0, 2.0, 3.0]);
    let error = client_of(&[&mock]).space("default").add(memory).await.unwrap_err();
    assert_eq!(error.reason(), Some("INVALID_FIELD"));
    assert_eq!(error.violations()[0].field, "memories[0].vectors[0]");
    assert_eq!(error.endpoint(), Some(format!("http://{}", mock.address).as_str()));
}

#[tokio::test]
async fn a_call_ends_by_its_deadline_and_the_server_knows_it() {
    let mock = Mock::start([Step::Hang, Step::Hang]).await;
    let started = Instant::now();
    let deadline = Duration::from_millis(300);
    let error = client_of(&[&mock]).space("default").add("x").deadline(deadline).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(started.elapsed() >= deadline && started.elapsed() < Duration::from_secs(5));
    assert!(mock.seen()[0].timeout.is_some());
}

#[tokio::test]
async fn a_node_that_hangs_leaves_time_for_the_next_one() {
    let hanging = Mock::start([Step::Hang]).await;
    let healthy = Mock::start([]).await;
    let client = client_of(&[&hanging, &healthy]);
    client.space("default").add("x").deadline(Duration::from_secs(2)).await.unwrap();
    assert_eq!(hanging.seen()[0].request_id, healthy.seen()[0].request_id);
}

#[tokio::test]
async fn calls_move_on_from_a_node_that_is_down_and_stay_there() {
    let healthy = Mock::start([]).await;
    let down = "127.0.0.1:1".to_owned();
    let client = Client::builder().endpoints([down, healthy.address.clone()]).retry(impatient()).build().unwrap();
    for _ in 0..3 {
        assert_eq!(client.space("default").count().await.unwrap().count, 7);
    }
    assert_eq!(healthy.seen().len(), 3);
}

#[tokio::test]
async fn nobody_home_is_unavailable_and_says_where() {
    let client = Client::builder().endpoints(["127.0.0.1:1"]).retry(RetryPolicy::none()).build().unwrap();
    let error = client.space("default").count().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_transport());
    assert!(error.to_string().contains("cannot reach http://127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn an_impatient_caller_hears_early_that_nobody_is_home() {
    let policy = RetryPolicy { unreachable_max: 1, ..impatient() };
    let client = Client::builder().endpoints(["127.0.0.1:1", "127.0.0.1:2"]).retry(policy).build().unwrap();
    let error = client.space("default").count().await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Unavailable, 2));
}

#[tokio::test]
async fn writes_follow_the_leader_and_reads_stay() {
    let leader = Mock::start([]).await;
    let follower = Mock::start([Step::AnswerWithLeader(leader.address.clone())]).await;
    let space = client_of(&[&follower, &leader]).space("default");
    space.add("one").await.unwrap();
    space.add("two").await.unwrap();
    space.count().await.unwrap();
    assert_eq!((follower.seen().len(), leader.seen().len()), (2, 1));
}

#[tokio::test]
async fn an_error_with_a_hint_leads_to_the_leader() {
    let leader = Mock::start([]).await;
    let mut details = ErrorDetails::new();
    details.set_error_info("NOT_LEADER", "cairn", [("cairn-leader".to_owned(), leader.address.clone())]);
    let refusal = Status::with_error_details(Code::Unavailable, "lost leadership", details);
    let follower = Mock::start([Step::Fail(refusal)]).await;
    let idle = Mock::start([]).await;
    client_of(&[&follower, &idle, &leader]).space("default").add("x").await.unwrap();
    assert_eq!((follower.seen().len(), idle.seen().len(), leader.seen().len()), (1, 0, 1));
}

#[tokio::test]
async fn a_list_streams_over_all_pages() {
    let mock = Mock::start([]).await;
    let list = client_of(&[&mock]).space("default").list().page_size(2);
    let ids: Vec<String> = list.stream().map_ok(|memory| memory.id).try_collect().await.unwrap();
    assert_eq!(ids, ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]);
    let asked = mock.listed();
    assert!(asked.iter().all(|request| request.page_size == 2));
    let tokens: Vec<&str> = asked.iter().map(|request| request.page_token.as_str()).collect();
    assert_eq!(tokens, ["", "1", "2"]);
}

#[tokio::test]
async fn a_stream_ends_after_an_error() {
    let mock = Mock::start([Step::Answer, Step::Fail(Status::not_found("space"))]).await;
    let mut stream = client_of(&[&mock]).space("default").list().stream();
    assert!(stream.try_next().await.unwrap().is_some());
    assert!(stream.try_next().await.unwrap().is_some());
    assert_eq!(stream.try_next().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(stream.try_next().await.unwrap(), None);
}

#[tokio::test]
async fn a_position_of_a_write_is_for_a_later_read() {
    let mock = Mock::start([]).await;
    let space = client_of(&[&mock]).space("default");
    let added = space.add("x").await.unwrap();
    assert_eq!(added.position, Position::from("p1"));
    space.list().at_least(added.position).await.unwrap();
    let level = mock.listed()[0].consistency.clone().unwrap().level;
    assert_eq!(level, Some(crate::proto::consistency::Level::AtLeast("p1".to_owned())));
}

#[tokio::test]
async fn an_update_names_what_it_changes_and_is_sent_again_under_one_id() {
    let mock = Mock::start([Step::Fail(Status::unavailable("no leader"))]).await;
    let update = client_of(&[&mock]).space("notes").update("m1");
    let update = update.content("new").metadata("a.b", 1).metadata("a.c", "x").clear("metadata.d").user("ada");
    let update = update.clear("scope.session_id").ttl(Duration::from_secs(5)).never_expires().content("newer");
    let updated = update.expected_version(3).actor("me").reason("because").await.unwrap();
    assert_eq!((updated.memory.version, updated.position), (2, Position::from("p5")));

    let sent = mock.updated();
    assert_eq!((sent.len(), &sent[0]), (2, &sent[1]));
    assert!(!sent[0].request_id.is_empty());
    let paths = &sent[0].update_mask.as_ref().unwrap().paths;
    let named =
        ["content", "metadata.a.b", "metadata.a.c", "metadata.d", "scope.user_id", "scope.session_id", "expires_at"];
    assert_eq!(paths, &named, "what is said twice is named once, and the last word counts");
    let memory = Memory::from(sent[0].memory.clone().unwrap());
    assert_eq!((memory.id.as_str(), memory.content.as_str(), memory.expires), ("m1", "newer", None));
    assert_eq!(memory.metadata["a"].get("b").and_then(Value::as_integer), Some(1));
    assert_eq!(memory.metadata["a"].get("c").and_then(Value::as_str), Some("x"));
    assert_eq!(memory.scope.user_id.as_deref(), Some("ada"));
    assert_eq!((sent[0].expected_version, sent[0].actor.as_str(), sent[0].reason.as_str()), (3, "me", "because"));
}

#[tokio::test]
async fn namespaces_below_a_path_stream_over_all_pages() {
    let mock = Mock::start(vec![]).await;
    let namespaces = client_of(&[&mock]).space("notes").namespaces().below("team").page_size(1);
    let page = namespaces.clone().await.unwrap();
    assert_eq!((page.next_page_token.as_deref(), page.position.as_str()), (Some("1"), "p7"));
    let all: Vec<_> = namespaces.stream().try_collect().await.unwrap();
    let all: Vec<_> = all.iter().map(|namespace| (namespace.path.as_str(), namespace.memory_count)).collect();
    assert_eq!(all, [("team/a", 3), ("team/b", 3)]);
}

#[tokio::test]
async fn a_history_streams_over_all_pages() {
    let mock = Mock::start([]).await;
    let history = client_of(&[&mock]).space("notes").history("m1").page_size(1);
    let page = history.clone().await.unwrap();
    assert_eq!((page.revisions.len(), page.next_page_token.as_deref()), (1, Some("1")));
    let revisions: Vec<_> = history.stream().try_collect().await.unwrap();
    let said: Vec<_> = revisions.iter().map(|revision| (revision.memory.version, revision.change)).collect();
    assert_eq!(said, [(2, ChangeKind::Updated), (1, ChangeKind::Created)]);
    let first = &revisions[0];
    let who = (first.actor.as_str(), first.reason.as_str(), first.principal.as_str());
    assert_eq!(who, ("ada", "why not", "token"));
    assert_eq!(first.changed_at, Some(Timestamp::from_micros(7_000_000)));
}

#[test]
fn a_client_is_built_outside_of_a_runtime() {
    assert!(Client::builder().build().is_ok());
}

mod watches {
    use futures::StreamExt;

    use super::*;
    use crate::proto::watch_memories_response::Message;
    use crate::{ChangeKind, WatchEvent, proto};

    type Told = Result<proto::WatchMemoriesResponse, Status>;

    fn change(id: &str, position: &str) -> Told {
        let change = proto::MemoryChange {
            r#type: proto::ChangeType::Created.into(),
            id: id.to_owned(),
            version: 1,
            position: position.to_owned(),
            ..Default::default()
        };
        Ok(proto::WatchMemoriesResponse { message: Some(Message::Change(change)) })
    }

    fn progress(position: &str) -> Told {
        let progress = proto::WatchProgress { position: position.to_owned() };
        Ok(proto::WatchMemoriesResponse { message: Some(Message::Progress(progress)) })
    }

    fn broken() -> Told {
        Err(Status::unavailable("the node is stopping"))
    }

    #[tokio::test]
    async fn a_broken_watch_goes_on_behind_its_last_event() {
        let mock = Mock::start([]).await;
        mock.tell([
            vec![progress("p0"), change("a", "p1"), broken()],
            vec![broken()],
            // An end without a reason is taken for a broken one.
            vec![change("b", "p2")],
            vec![progress("p3"), Err(Status::out_of_range("no longer kept"))],
        ]);
        let events: Vec<_> = client_of(&[&mock]).space("default").watch().stream().collect().await;
        let positions: Vec<_> = events.iter().flatten().map(|event| event.position().to_string()).collect();
        assert_eq!(positions, ["p0", "p1", "p2", "p3"]);
        assert!(matches!(&events[1], Ok(WatchEvent::Change(change)) if change.kind == ChangeKind::Created));
        assert_eq!(events.last().unwrap().as_ref().unwrap_err().kind(), ErrorKind::OutOfRange);
        assert_eq!(mock.watched(), ["", "p1", "p1", "p2"]);
    }

    #[tokio::test]
    async fn another_node_takes_over() {
        let (first, second) = (Mock::start([]).await, Mock::start([]).await);
        first.tell([vec![progress("p0"), broken()]]);
        second.tell([vec![change("a", "p1"), Err(Status::not_found("gone"))]]);
        let events: Vec<_> = client_of(&[&first, &second]).space("default").watch().stream().collect().await;
        assert_eq!(events.iter().flatten().count(), 2);
        assert_eq!((first.watched().len() >= 2, second.watched()), (true, vec!["p0".to_owned()]));
    }

    #[tokio::test]
    async fn patience_has_an_end_and_a_first_connection_has_its_deadline() {
        let mock = Mock::start([]).await;
        let watch = client_of(&[&mock]).space("default").watch().after("p9").patience(Duration::ZERO);
        mock.tell([vec![progress("p9"), broken()]]);
        let events: Vec<_> = watch.stream().collect().await;
        assert_eq!(events.len(), 2);
        assert_eq!(events[1].as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
        let client = Client::builder().endpoints([mock.address.clone()]).retry(RetryPolicy::none()).build().unwrap();
        let events: Vec<_> = client.space("default").watch().stream().collect().await;
        assert_eq!(events.len(), 1);
        assert!(events[0].is_err());
    }
}

mod imports {
    use futures::{StreamExt, stream};

    use super::*;
    use crate::{BATCH_COUNT_MAX, ImportProgress, Result};

    fn memories(count: usize) -> impl futures::Stream<Item = Memory> + Send + 'static {
        stream::iter((0..count).map(|number| Memory::new("text").id(number.to_string())))
    }

    async fn import(mock: &Mock, count: usize) -> Vec<Result<ImportProgress>> {
        client_of(&[mock]).space("default").import("i").stream(memories(count)).collect().await
    }

    /// The ids of all batches by their offsets; a batch that is sent again must be the same.
    fn arrived(mock: &Mock) -> Vec<String> {
        let mut batches = std::collections::BTreeMap::new();
        for (offset, ids) in mock.imported() {
            if let Some(earlier) = batches.insert(offset, ids.clone()) {
                assert_eq!(earlier, ids, "the batch at {offset} has changed");
            }
        }
        batches.into_values().flatten().collect()
    }

    fn numbers(count: usize) -> Vec<String> {
        (0..count).map(|number| number.to_string()).collect()
    }

    #[tokio::test]
    async fn memories_arrive_in_batches_and_each_is_acknowledged() {
        let mock = Mock::start([]).await;
        let count = BATCH_COUNT_MAX * 2 + 7;
        let progress = import(&mock, count).await;
        let ends: Vec<_> = progress.iter().map(|progress| progress.as_ref().unwrap().acknowledged).collect();
        assert_eq!(ends, [1_000, 2_000, 2_007]);
        assert_eq!(arrived(&mock), numbers(count));
        assert!(import(&mock, 0).await.is_empty());
    }

    #[tokio::test]
    async fn what_was_not_acknowledged_is_sent_again() {
        let mock = Mock::start([]).await;
        let broken = || Status::unavailable("the node is stopping");
        mock.break_imports([(0, broken()), (2, broken()), (0, broken()), (1, broken())]);
        let count = BATCH_COUNT_MAX * 9 + 1;
        let progress = import(&mock, count).await;
        let ends: Vec<_> = progress.iter().map(|progress| progress.as_ref().unwrap().acknowledged).collect();
        assert_eq!(ends, (1..=9).map(|number| number * 1_000).chain([9_001]).collect::<Vec<u64>>());
        assert_eq!(arrived(&mock), numbers(count));
    }

    #[tokio::test]
    async fn a_batch_that_is_wrong_ends_the_import() {
        let mock = Mock::start([]).await;
        mock.break_imports([(1, Status::invalid_argument("batch.memories[3].id: too long"))]);
        let progress = import(&mock, BATCH_COUNT_MAX * 3).await;
        assert_eq!(progress.len(), 2);
        assert_eq!(progress[1].as_ref().unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[tokio::test]
    async fn an_import_can_begin_where_another_one_ended() {
        let mock = Mock::start([]).await;
        let space = client_of(&[&mock]).space("default");
        let progress: Vec<_> = space.import("i").from_offset(500).stream(memories(10)).collect().await;
        assert_eq!(progress[0].as_ref().unwrap().acknowledged, 510);
        assert_eq!(mock.imported()[0].0, 500);
    }

    #[tokio::test]
    async fn large_memories_make_small_batches() {
        let mock = Mock::start([]).await;
        let large = stream::iter((0..7).map(|number| Memory::new("x".repeat(1_000_000)).id(number.to_string())));
        let progress: Vec<_> = client_of(&[&mock]).space("default").import("i").stream(large).collect().await;
        assert!(progress.len() >= 3 && progress.iter().all(Result::is_ok), "{progress:?}");
        assert_eq!(arrived(&mock), numbers(7));
    }
}
