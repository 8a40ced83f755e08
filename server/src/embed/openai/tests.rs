//! Against a server that answers by a script.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use super::*;

/// Any variable that is always set will do for a key.
const KEY_VARIABLE: &str = "PATH";

/// What the server does with one request.
enum Step {
    /// Vectors of this dimension.
    Vectors(usize),
    /// The length of each text and a 1, the last text first.
    Lengths,
    /// This status, header and body.
    Answer(u16, &'static str, Value),
    /// Nothing for this long, then a hang-up.
    Silence(Duration),
    /// A hang-up at once.
    HangUp,
    /// An answer that ends too early.
    Half,
}

/// A request as it arrived: head and body.
type Seen = (String, Value);

/// Serves one request for each step, and tells of each; after the last one, nobody is there.
fn server(script: Vec<Step>) -> (String, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/", listener.local_addr().unwrap());
    let (tell, seen) = channel();
    std::thread::spawn(move || {
        for step in script {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let request = read_request(&stream);
            let texts = request.1["input"].as_array().cloned().unwrap_or_default();
            let _ = tell.send(request);
            // A client that gave up has hung up.
            let _ = play(&mut stream, step, &texts);
        }
    });
    (url, seen)
}

fn read_request(stream: &TcpStream) -> Seen {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line.to_lowercase());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (head, serde_json::from_slice(&body).unwrap_or_default())
}

fn play(stream: &mut TcpStream, step: Step, texts: &[Value]) -> std::io::Result<()> {
    let mut answer = |status: u16, header: &str, body: String| {
        let length = body.len();
        write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n{header}\r\n\r\n{body}")
    };
    match step {
        Step::Vectors(dimension) => {
            answer(200, "x: y", json!({"data": [{"index": 0, "embedding": vec![1.0; dimension]}]}).to_string())
        }
        Step::Lengths => {
            let vectors = texts
                .iter()
                .enumerate()
                .rev()
                .map(|(index, text)| json!({"index": index, "embedding": [text.as_str().map(str::len), 1]}));
            answer(200, "x: y", json!({"data": vectors.collect::<Vec<_>>()}).to_string())
        }
        Step::Answer(status, header, body) => answer(status, header, body.to_string()),
        Step::Half => write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{{\"data\""),
        Step::Silence(time) => {
            std::thread::sleep(time);
            Ok(())
        }
        Step::HangUp => Ok(()),
    }
}

fn embedder(url: &str, change: impl FnOnce(&mut OpenAiEntry)) -> OpenAi {
    let mut entry = OpenAiEntry {
        url: url.to_owned(),
        model: "m".to_owned(),
        timeout: Duration::from_millis(300),
        ..Default::default()
    };
    change(&mut entry);
    OpenAi::new("embedders.openai[0]", "test", entry, Arc::new(Monitor::new(10))).unwrap()
}

/// Embeds on a thread for blocking work, as the service does.
async fn embed(
    embedder: &Arc<OpenAi>,
    texts: &[&str],
    dimension: usize,
    time: Duration,
) -> Result<Vec<Vec<f32>>, EmbedError> {
    let (embedder, texts) = (Arc::clone(embedder), texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    let work = move || {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        embedder.embed(&texts, dimension, Instant::now() + time)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

const LONG: Duration = Duration::from_secs(30);

/// Plays a script for one text and a space of dimension 3: the result, the requests that arrived, and the metrics.
async fn run(script: Vec<Step>) -> (Result<Vec<Vec<f32>>, EmbedError>, usize, String) {
    let (url, seen) = server(script);
    let embedder = Arc::new(embedder(&url, |_| {}));
    let result = embed(&embedder, &["text"], 3, LONG).await;
    (result, seen.try_iter().count(), embedder.monitor.metrics().render())
}

fn good() -> Vec<Vec<f32>> {
    vec![vec![1.0; 3]]
}

#[tokio::test]
async fn a_request_is_as_the_api_wants_it() {
    let (url, seen) = server(vec![Step::Vectors(3)]);
    let embedder = Arc::new(embedder(&url, |entry| {
        entry.api_key_environment = KEY_VARIABLE.to_owned();
        entry.send_dimensions = true;
    }));
    assert_eq!(embed(&embedder, &["text"], 3, LONG).await, Ok(good()));
    let (head, body) = seen.recv().unwrap();
    assert!(head.starts_with("post /v1/embeddings http/1.1"), "{head}");
    assert!(head.contains("authorization: bearer /") && head.contains("content-type: application/json"), "{head}");
    assert_eq!(body, json!({"model": "m", "input": ["text"], "dimensions": 3}));
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    let garbage = || Step::Answer(200, "x: y", json!({"vectors": []}));
    for (failure, outcome) in [
        (Step::Answer(500, "x: y", json!({})), "failed"),
        (Step::Answer(503, "retry-after: 0", json!({})), "failed"),
        (Step::Answer(429, "retry-after: 0.01", json!({})), "overloaded"),
        (Step::HangUp, "unreachable"),
        (Step::Half, "unreachable"),
        (garbage(), "malformed"),
        (Step::Answer(200, "x: y", json!({"data": [{"index": 0, "embedding": [0, 0, 0]}]})), "malformed"),
        (Step::Answer(200, "x: y", json!({"data": [{"index": 1, "embedding": [1, 0, 0]}]})), "malformed"),
        (Step::Answer(200, "x: y", json!({"data": []})), "malformed"),
        (Step::Silence(Duration::from_millis(400)), "timeout"),
    ] {
        let (result, requests, metrics) = run(vec![failure, Step::Vectors(3)]).await;
        assert_eq!((result, requests), (Ok(good()), 2), "{outcome}");
        for line in
            [outcome, "ok"].map(|name| format!("cairn_embed_requests_total{{embedder=\"test\",outcome=\"{name}\"}} 1"))
        {
            assert!(metrics.contains(&line), "{line} is not in {metrics}");
        }
        assert!(metrics.contains("cairn_embed_duration_seconds_count{embedder=\"test\"} 2"), "{metrics}");
    }
}

#[tokio::test]
async fn lasting_refusals_are_not_tried_again() {
    let error = json!({"error": {"message": "unknown\nkey"}});
    let (result, requests, _) = run(vec![Step::Answer(401, "x: y", error), Step::Vectors(3)]).await;
    assert_eq!(result, Err(EmbedError::Refused { embedder: "test", status: 401, message: "unknown key".to_owned() }));
    assert_eq!(requests, 1);
    let (result, requests, _) = run(vec![Step::Vectors(4), Step::Vectors(3)]).await;
    assert_eq!((result, requests), (Err(EmbedError::OtherDimension { embedder: "test", made: 4 }), 1));
}

#[tokio::test]
async fn attempts_are_bounded() {
    let script = (0..9).map(|_| Step::Answer(500, "x: y", json!({}))).collect();
    let (result, requests, _) = run(script).await;
    assert!(matches!(&result, Err(EmbedError::Unavailable { reason, .. }) if reason.contains("500")), "{result:?}");
    assert_eq!(requests, 4);
}

#[tokio::test]
async fn no_wait_passes_the_deadline() {
    let (url, seen) = server(vec![Step::Answer(429, "retry-after: 7", json!({})), Step::Vectors(3)]);
    let embedder = Arc::new(embedder(&url, |_| {}));
    let began = Instant::now();
    let result = embed(&embedder, &["text"], 3, Duration::from_secs(5)).await;
    let Err(EmbedError::Overloaded { retry_after, .. }) = result else { panic!("{result:?}") };
    assert_eq!(retry_after, Duration::from_secs(7), "the caller learns how long to wait");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(seen.try_iter().count(), 1);
}

#[tokio::test]
async fn a_dead_server_is_left_alone_and_found_again() {
    let (url, seen) = server(Vec::new());
    drop(seen);
    let embedder = Arc::new(embedder(&url, |entry| entry.attempts = 1));
    let mut last = Ok(Vec::new());
    for _ in 0..6 {
        last = embed(&embedder, &["text"], 3, LONG).await;
    }
    assert!(matches!(&last, Err(EmbedError::Unavailable { reason, .. }) if reason.contains("left alone")), "{last:?}");
    let metrics = embedder.monitor.metrics().render();
    assert!(metrics.contains("cairn_embed_circuit_open{embedder=\"test\"} 1"), "{metrics}");
    assert!(metrics.contains("outcome=\"circuit_open\"} 1"), "{metrics}");
}

#[tokio::test]
async fn many_texts_go_in_batches_and_come_back_in_order() {
    let (url, seen) = server(vec![Step::Lengths, Step::Lengths, Step::Lengths]);
    let embedder = Arc::new(embedder(&url, |entry| entry.batch_texts_max = 2));
    let vectors = embed(&embedder, &["a", "bb", "ccc", "dddd", "eeeee"], 2, LONG).await;
    assert_eq!(vectors, Ok((1_u8..=5).map(|length| vec![f32::from(length), 1.0]).collect()));
    let mut inputs: Vec<String> = seen.try_iter().map(|(_, body)| body["input"].to_string()).collect();
    inputs.sort();
    assert_eq!(inputs, [r#"["a","bb"]"#, r#"["ccc","dddd"]"#, r#"["eeeee"]"#]);
}

#[test]
fn batches_are_bounded_by_number_and_bytes() {
    let texts = ["aa", "b", "cccc", "d", "e", "f"];
    let cut =
        |texts_max, bytes_max| batches(&texts, texts_max, bytes_max).iter().map(|run| run.len()).collect::<Vec<_>>();
    assert_eq!(cut(10, 100), [6]);
    assert_eq!(cut(4, 100), [4, 2]);
    assert_eq!(cut(10, 3), [2, 1, 3]);
    assert_eq!(cut(1, 1), [1, 1, 1, 1, 1, 1]);
    assert!(batches(&[], 1, 1).is_empty());
}

#[test]
fn waits_grow_and_differ() {
    assert_eq!(wait(1, None, 0.5), WAIT_MIN);
    assert_eq!(wait(2, None, 0.0), WAIT_MIN);
    assert!(wait(3, None, 0.1) < wait(3, None, 0.9));
    assert!(wait(30, None, 1.0) <= WAIT_MAX * 2);
    assert!(wait(1, Some(LONG), 0.0) > LONG);
}

#[tokio::test]
async fn a_key_that_is_not_there_stops_the_start() {
    let entry = OpenAiEntry {
        url: "http://127.0.0.1:1".to_owned(),
        api_key_environment: "CAIRN_NO_SUCH_KEY".to_owned(),
        ..Default::default()
    };
    let made = OpenAi::new("embedders.openai[2]", "test", entry, Arc::new(Monitor::new(10)));
    let problem = made.err().unwrap().to_string();
    assert!(
        problem.starts_with("embedders.openai[2].api_key_environment: ") && problem.contains("CAIRN_NO_SUCH_KEY"),
        "{problem}"
    );
}
