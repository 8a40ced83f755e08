//! The SDK against servers that fail by script.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::mock::{Mock, Step};
use crate::{Client, ErrorKind, Memory, Position, RetryPolicy};

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

#[test]
fn a_client_is_built_outside_of_a_runtime() {
    assert!(Client::builder().build().is_ok());
}
