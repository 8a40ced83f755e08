//! A node in this process, and short ways to talk to it.

use std::path::Path;
use std::time::Duration;

use cairn_proto::v1;
use cairn_proto::v1::cluster_service_client::ClusterServiceClient;
use cairn_proto::v1::memory_service_client::MemoryServiceClient;
use cairn_proto::v1::space_service_client::SpaceServiceClient;
use cairn_server::config::Config;
use cairn_server::{Handle, run};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

/// A node with a directory of its own.
pub(crate) struct TestNode {
    pub(crate) handle: Handle,
    pub(crate) memories: MemoryServiceClient<Channel>,
    pub(crate) spaces: SpaceServiceClient<Channel>,
    pub(crate) cluster: ClusterServiceClient<Channel>,
    pub(crate) channel: Channel,
    directory: tempfile::TempDir,
}

impl TestNode {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A node whose configuration `change` has changed.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_root_key(&directory.path().join("root.key"));
        Self::start_in(directory, change).await
    }

    async fn start_in(directory: tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = configuration(directory.path());
        change(&mut config);
        let handle = run(config).await.unwrap();
        assert!(handle.wait_ready(Duration::from_secs(60)).await, "the node became ready");
        let address = format!("http://{}", handle.addresses().grpc);
        let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
        Self {
            handle,
            memories: MemoryServiceClient::new(channel.clone()),
            spaces: SpaceServiceClient::new(channel.clone()),
            cluster: ClusterServiceClient::new(channel.clone()),
            channel,
            directory,
        }
    }

    /// Stops the node and starts it again on the same directory.
    pub(crate) async fn restart(self) -> Self {
        let Self { handle, directory, memories, spaces, cluster, channel } = self;
        drop((memories, spaces, cluster, channel));
        handle.stop().await;
        Self::start_in(directory, |_| {}).await
    }

    /// A node with the space `notes`: dimension 4, cosine, without an embedder, and an indexed field `topic`.
    pub(crate) async fn with_notes() -> Self {
        let mut node = Self::start().await;
        let mut space = space("notes", 4, "");
        space.fields.push(v1::IndexedField { path: "topic".into(), r#type: v1::FieldType::Keyword.into() });
        node.create(space).await;
        node
    }

    /// Bytes of all files of the store.
    pub(crate) fn store_bytes(&self) -> u64 {
        fn bytes_below(dir: &Path) -> u64 {
            let entries: Vec<_> = std::fs::read_dir(dir).map(|entries| entries.flatten().collect()).unwrap_or_default();
            let bytes = |entry: std::fs::DirEntry| {
                let path = entry.path();
                // A file that the store removes meanwhile takes nothing any more.
                let length = || entry.metadata().map_or(0, |metadata| metadata.len());
                if path.is_dir() {
                    bytes_below(&path)
                } else if path.extension().is_some_and(|extension| extension == "sst" || extension == "blob") {
                    length()
                } else {
                    0
                }
            };
            entries.into_iter().map(bytes).sum()
        }
        bytes_below(self.directory.path())
    }

    pub(crate) async fn create(&mut self, space: v1::Space) -> v1::Space {
        let request = v1::CreateSpaceRequest { space: Some(space), request_id: String::new() };
        self.spaces.create_space(request).await.unwrap().into_inner().space.unwrap()
    }

    pub(crate) async fn add(&mut self, space: &str, memories: Vec<v1::Memory>) -> v1::AddMemoriesResponse {
        let request = v1::AddMemoriesRequest { space: space.into(), memories, ..Default::default() };
        self.memories.add_memories(request).await.unwrap().into_inner()
    }

    pub(crate) async fn count(&mut self, space: &str) -> u64 {
        let request = v1::CountMemoriesRequest { space: space.into(), ..Default::default() };
        self.memories.count_memories(request).await.unwrap().into_inner().count
    }

    /// GET over HTTP: the status code and the body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.http("GET", path, &[], b"").await;
        (answer.status, answer.body)
    }

    /// GET over HTTP of a stream without an end.
    pub(crate) async fn open(&self, path: &str) -> Lines {
        let mut stream = tokio::net::TcpStream::connect(self.handle.addresses().http).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        Lines(tokio::io::BufReader::new(stream))
    }

    /// A request over HTTP 1.0, whose answers are never in chunks. `headers` are lines; without one of its own, the host is localhost.
    pub(crate) async fn http(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut stream = tokio::net::TcpStream::connect(self.handle.addresses().http).await.unwrap();
        let mut head = format!("{method} {path} HTTP/1.0\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|header| header.starts_with("host:")) {
            head.push_str("host: localhost\r\n");
        }
        headers.iter().for_each(|header| head.push_str(&format!("{header}\r\n")));
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        // A node that refuses by the head alone need not read the body.
        let _ = stream.write_all(body).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }
}

/// A stream over HTTP.
pub(crate) struct Lines(tokio::io::BufReader<tokio::net::TcpStream>);

impl Lines {
    /// The next line that is not a sign of life.
    pub(crate) async fn line(&mut self) -> serde_json::Value {
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(Duration::from_secs(30), self.0.read_line(&mut line)).await;
            assert_ne!(read.unwrap().unwrap(), 0, "the stream ended");
            // Behind the head comes an empty line.
            match serde_json::from_str::<serde_json::Value>(&line) {
                Ok(value) if value.get("progress").is_none() => return value,
                _ => {}
            }
        }
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub(crate) fn write_root_key(path: &Path) {
    cairn_engine::keyring::RootKey::generate_file(path).unwrap();
}

/// Free ports on loopback, everything in `directory`, and quick elections.
pub(crate) fn configuration(directory: &Path) -> Config {
    let mut config = Config::default();
    config.node.data_dir = directory.join("data");
    config.root_key.file = Some(directory.join("root.key"));
    for address in [&mut config.listen.grpc, &mut config.listen.peer, &mut config.listen.http] {
        address.set_port(0);
    }
    config.storage.block_cache = 8 << 20;
    config.storage.write_buffer = 4 << 20;
    config.shutdown.grace = Duration::from_secs(5);
    config
}

pub(crate) fn space(name: &str, dimension: u32, embedder: &str) -> v1::Space {
    let dense = v1::DenseEmbedding { dimension, ..Default::default() };
    let embedding = v1::Embedding {
        kind: Some(v1::embedding::Kind::Dense(dense)),
        embedder: embedder.into(),
        ..Default::default()
    };
    v1::Space { name: name.into(), embeddings: vec![embedding], ..Default::default() }
}

pub(crate) fn vector(values: &[f32]) -> v1::Vector {
    let data = v1::vector::Data::Dense(v1::DenseVector { values: values.to_vec() });
    v1::Vector { embedding: String::new(), data: Some(data) }
}

pub(crate) fn memory(id: &str, content: &str, values: &[f32]) -> v1::Memory {
    let vectors = if values.is_empty() { Vec::new() } else { vec![vector(values)] };
    v1::Memory { id: id.into(), content: content.into(), vectors, ..Default::default() }
}

pub(crate) fn text(value: &str) -> v1::Value {
    v1::Value { kind: Some(v1::value::Kind::StringValue(value.into())) }
}

/// `field eq value`.
pub(crate) fn equals(field: &str, value: v1::Value) -> v1::Filter {
    let condition = v1::Condition { field: field.into(), test: Some(v1::condition::Test::Eq(value)) };
    v1::Filter { node: Some(v1::filter::Node::Where(condition)) }
}

pub(crate) fn by_vector(space: &str, values: &[f32]) -> v1::SearchMemoriesRequest {
    let vectors = v1::QueryVectors { vectors: vec![vector(values)] };
    let query = Some(v1::search_memories_request::Query::Vectors(vectors));
    v1::SearchMemoriesRequest { space: space.into(), query, ..Default::default() }
}

pub(crate) fn by_text(space: &str, text: &str) -> v1::SearchMemoriesRequest {
    let query = Some(v1::search_memories_request::Query::Text(text.into()));
    v1::SearchMemoriesRequest { space: space.into(), query, ..Default::default() }
}

/// The reason in a status's ErrorInfo.
pub(crate) fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// The fields in a status's BadRequest, with what is said of them.
pub(crate) fn violations(status: &Status) -> Vec<(String, String)> {
    let details = status.get_error_details();
    let found = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    found.into_iter().map(|violation| (violation.field, violation.description)).collect()
}
