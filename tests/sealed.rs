//! What lies on the disk: nothing of a tenant that could be read, and nothing that could be changed unnoticed.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use cairn_client::{Client, FieldType, Memory, NewSpace, Query, field};
use cairn_tests::{ClusterError, TestCluster, files};

const SPACE: &str = "zanzibar-space";
const COUNT: usize = 200;

/// Values whose bytes are not likely to stand anywhere by chance.
fn vector(number: usize) -> Vec<f32> {
    (0..16).map(|place| ((number * 16 + place) as f32 * 0.734_51).sin()).collect()
}

fn id(number: usize) -> String {
    format!("identifier-wombat-{number:04}")
}

fn content(number: usize) -> String {
    format!("The quokka keeps its ledger number {number} under the baobab.")
}

/// Nodes that keep even this small index in checkpoints.
async fn start(nodes: u64) -> TestCluster {
    let mut cluster = TestCluster::new(nodes);
    for id in 1..=nodes {
        let config = cluster.directory().join(format!("node-{id}.yaml"));
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text + "storage: { index_checkpoint_from: 50 }\n").unwrap();
        cluster.start_node(id).unwrap();
    }
    cluster.wait_until_ready().await.unwrap();
    cluster
}

/// The files of a node's checkpoint, once there is one.
async fn checkpoint_files(data: &Path) -> Vec<PathBuf> {
    loop {
        let below = |path: &PathBuf| path.strip_prefix(data).map(Path::to_path_buf).unwrap_or_default();
        let is_of_checkpoint = |path: &PathBuf| below(path).components().any(|part| part.as_os_str() == "index");
        // Files may come and go meanwhile.
        let files: Vec<_> = files::below(data).unwrap_or_default().into_iter().filter(is_of_checkpoint).collect();
        if files.iter().any(|path| path.ends_with("MANIFEST")) {
            return files;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn fill(client: &Client) {
    let space = NewSpace::new(SPACE, 16).field("marmotkey", FieldType::Keyword).history_depth(3);
    client.create_space(space).await.unwrap();
    let space = client.space(SPACE);
    for number in 0..COUNT {
        let memory = Memory::new(content(number))
            .id(id(number))
            .kind("kind-capybara")
            .agent("agent-axolotl")
            .user(format!("user-pangolin-{}", number % 7))
            .session("session-okapi")
            .namespace("namespace-tapir/below-ibex")
            .metadata("marmotkey", format!("value-lemur-{}", number % 5))
            .metadata("otherkeylynx", "value-ocelot")
            .vector(vector(number));
        let add = space
            .add(memory)
            .actor("actor-kinkajou")
            .reason("reason-numbat")
            .request_id(format!("request-dugong-{number}"));
        add.await.unwrap();
    }
    space.delete([id(0)]).await.unwrap();
    space.search(Query::vector(vector(3))).filter(field("metadata.marmotkey").eq("value-lemur-3")).await.unwrap();
}

/// Everything that must not be found, in words and as bytes.
fn secrets() -> Vec<(&'static str, Vec<u8>)> {
    let mut secrets: Vec<(&str, Vec<u8>)> = [
        "quokka",
        "baobab",
        "wombat",
        "capybara",
        "axolotl",
        "pangolin",
        "okapi",
        "tapir",
        "ibex",
        "marmotkey",
        "lemur",
        "otherkeylynx",
        "ocelot",
        "kinkajou",
        "numbat",
        "dugong",
        "zanzibar",
    ]
    .into_iter()
    .map(|word| (word, word.as_bytes().to_vec()))
    .collect();
    for number in [0, 1, COUNT - 1] {
        let bytes: Vec<u8> = vector(number)[..3].iter().flat_map(|value| value.to_le_bytes()).collect();
        secrets.push(("three values of a vector", bytes));
    }
    secrets
}

fn assert_nothing_readable(directory: &Path) {
    let secrets = secrets();
    let mut read = 0;
    for path in files::below(directory).unwrap() {
        let bytes = fs::read(&path).unwrap();
        read += bytes.len();
        for (name, secret) in &secrets {
            assert!(!files::contains(&bytes, secret), "{} holds {name} in the clear", path.display());
        }
    }
    // The memories are in there somewhere: 16 values of each at least.
    assert!(read > COUNT * 64, "only {read} bytes lie in {}", directory.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_tenant_lies_readable_on_any_disk_nor_in_a_log() {
    let mut cluster = start(3).await;
    fill(&cluster.client()).await;
    // Each node makes its index, and soon its checkpoint, when it is asked.
    for id in 1..=3 {
        cluster.client_of(id).space(SPACE).search(Query::vector(vector(3))).await.unwrap();
        assert!(checkpoint_files(&cluster.node(id).data).await.len() >= 3);
    }
    // Killed: everything is in the Raft log. Stopped: it has been flushed into the store too.
    cluster.kill(1).unwrap();
    assert_nothing_readable(&cluster.node(1).data);
    cluster.stop(2).await.unwrap();
    cluster.stop(3).await.unwrap();
    assert_nothing_readable(cluster.directory());
}

/// A file with one byte changed, and where.
struct Damage {
    path: PathBuf,
    offset: usize,
}

/// Places that cover every kind of file: its start, its middle and its end.
fn damages(data: &Path) -> Vec<Damage> {
    let mut damages = Vec::new();
    for path in files::below(data).unwrap() {
        let length = fs::metadata(&path).unwrap().len() as usize;
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // RocksDB's own diary and the empty lock files are never read back.
        if length == 0 || name.starts_with("LOG") {
            continue;
        }
        let relative = path.strip_prefix(data).unwrap().to_owned();
        let mut offsets = vec![0, length / 3, length / 2, length - 1];
        offsets.dedup();
        damages.extend(offsets.into_iter().map(|offset| Damage { path: relative.clone(), offset }));
    }
    damages
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

/// Every memory is as it was written, or an error says that it cannot be read; never missing, never another.
async fn assert_no_wrong_answer(client: &Client, damage: &str) {
    let space = client.space(SPACE);
    for number in 1..COUNT {
        let Ok(found) = space.get([id(number)]).await else { continue };
        let text = found.memories.first().map(|memory| memory.content.clone());
        assert_eq!(text, Some(content(number)), "{damage}: a wrong answer");
    }
    if let Ok(found) = space.search(Query::vector(vector(3))).await {
        assert_eq!(found.hits.first().map(|hit| hit.memory.id.clone()), Some(id(3)), "{damage}: a wrong hit");
    }
    if let Ok(counted) = space.count().await {
        assert_eq!(counted.count, COUNT as u64 - 1, "{damage}: a wrong count");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_in_any_file_leads_to_a_refusal_and_never_to_a_wrong_answer() {
    let mut cluster = start(1).await;
    fill(&cluster.client()).await;
    checkpoint_files(&cluster.node(1).data).await;
    cluster.stop(1).await.unwrap();
    let data = cluster.node(1).data.clone();
    let sound = cluster.directory().join("sound");
    files::copy(&data, &sound).unwrap();

    let mut refused = 0;
    for damage in damages(&sound) {
        fs::remove_dir_all(&data).unwrap();
        files::copy(&sound, &data).unwrap();
        flip(&data.join(&damage.path), damage.offset);
        let what = format!("{} with byte {} changed", damage.path.display(), damage.offset);
        cluster.start_node(1).unwrap();
        match cluster.wait_until_ready().await {
            Ok(()) => assert_no_wrong_answer(&cluster.client(), &what).await,
            Err(ClusterError::Ended { log, .. }) => {
                assert!(!log.contains("panicked"), "{what}: {log}");
                refused += 1;
            }
            Err(error) => panic!("{what}: {error}"),
        }
        cluster.kill(1).unwrap();
    }
    assert!(refused > 0, "no damage was noticed");
}
