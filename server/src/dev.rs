//! `cairn dev`: one node for one developer. On loopback only, without tokens, and loud about it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use cairn_engine::keyring::RootKey;
use cairn_proto::v1;
use clap::Args;

use crate::config::{Config, GRPC_PORT, LocalEntry};
use crate::process::{EXIT_FAILED, EXIT_USAGE, block_on, exit_code, refuse, say, serve, user_directory};
use crate::run::{Handle, Listeners};
use crate::telemetry::start_logging;

/// The space that is always there.
const SPACE: &str = "default";

/// Its dimension: that of the small sentence models, so that their vectors fit too.
const DIMENSION: u32 = 384;

/// The name of the embedder that `--model` adds.
const LOCAL: &str = "local";

/// How long a node of one takes to elect itself, many times over.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `cairn dev`.
#[derive(Debug, Args)]
pub struct DevArguments {
    /// Keeps the data in this directory; without it, in a temporary one that is removed at the end.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// The loopback address for clients; the two ports above it are for peers and HTTP.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from(([127, 0, 0, 1], GRPC_PORT)))]
    listen: SocketAddr,

    /// Serves the sentence model in this directory as the embedder `local`; a new space `default` uses it.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,

    /// What is logged: error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: String,
}

/// Where a development server keeps things.
struct Places {
    data: PathBuf,
    root_key: PathBuf,
    new_root_key: bool,
    /// Removes the directory at the end, where it is a temporary one.
    temporary: Option<tempfile::TempDir>,
}

/// A sentence model for the space `default`.
struct Model {
    directory: PathBuf,
    dimension: u32,
}

impl Model {
    /// Reads what is to be known before the model itself is loaded.
    fn read(directory: &Path) -> Result<Self, String> {
        let path = directory.join("config.json");
        let refused = |problem: &dyn std::fmt::Display| {
            format!("--model {}: {problem}; `make model` fetches a model", directory.display())
        };
        let bytes = std::fs::read(&path).map_err(|error| refused(&format!("config.json: {error}")))?;
        let config: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| refused(&error))?;
        let dimension = config["hidden_size"].as_u64().and_then(|size| u32::try_from(size).ok());
        let dimension = dimension.ok_or_else(|| refused(&"config.json has no hidden_size"))?;
        Ok(Self { directory: directory.to_owned(), dimension })
    }
}

/// Runs a development server until it is told to stop.
#[must_use]
pub fn dev(arguments: &DevArguments) -> ExitCode {
    let places = match places(arguments.data.as_deref()) {
        Ok(places) => places,
        Err(reason) => return refuse(&reason, EXIT_FAILED),
    };
    let config = match configuration(arguments, &places) {
        Ok(config) => config,
        Err(reason) => return refuse(&reason, EXIT_USAGE),
    };
    let model = match arguments.model.as_deref().map(Model::read).transpose() {
        Ok(model) => model,
        Err(reason) => return refuse(&reason, EXIT_USAGE),
    };
    if let Err(error) = start_logging(&config.log) {
        return refuse(&format!("cannot log: {error}"), EXIT_FAILED);
    }
    let listeners = match Listeners::bind(&config) {
        Ok(listeners) => listeners,
        Err(error) => {
            let hint = "is another node running? --listen 127.0.0.1:PORT takes other ports";
            return refuse(&format!("{error}; {hint}"), exit_code(&error));
        }
    };
    let code = block_on(serve(config, listeners, async |handle: Handle| {
        if !handle.wait_ready(PATIENCE).await {
            return Err((handle, "the node did not become ready; see the log".to_owned()));
        }
        match handle.ensure_space(default_space(model.as_ref())).await {
            Ok(space) => {
                say(&banner(&handle, &places, model.as_ref(), &space));
                Ok(handle)
            }
            Err(reason) => Err((handle, format!("cannot make the space {SPACE}: {reason}"))),
        }
    }));
    if let Some(directory) = places.temporary {
        // What is left lies in the system's directory for temporary files.
        let _ = directory.close();
    }
    code
}

fn configuration(arguments: &DevArguments, places: &Places) -> Result<Config, String> {
    let listen = arguments.listen;
    if !listen.ip().is_loopback() {
        return Err(format!("--listen {listen}: cairn dev has no authentication and listens on loopback only"));
    }
    let above = |ports: u16| match listen.port() {
        0 => Ok(SocketAddr::new(listen.ip(), 0)),
        port => port
            .checked_add(ports)
            .map(|port| SocketAddr::new(listen.ip(), port))
            .ok_or_else(|| format!("--listen {listen}: there must be two ports above it")),
    };
    let mut config = Config::default();
    config.node.data_dir.clone_from(&places.data);
    config.root_key.file = Some(places.root_key.clone());
    config.listen.grpc = listen;
    config.listen.peer = above(1)?;
    config.listen.http = above(2)?;
    config.log.level.clone_from(&arguments.log);
    let models =
        arguments.model.iter().map(|directory| LocalEntry { directory: directory.clone(), ..LocalEntry::default() });
    config.embedders.local = models.collect();
    // The only key that comes from the caller as it is.
    config.validate().map_err(|error| error.to_string().replacen("log.level", "--log", 1))?;
    Ok(config)
}

fn places(data: Option<&Path>) -> Result<Places, String> {
    let Some(data) = data else {
        let directory = tempfile::Builder::new()
            .prefix("cairn-dev-")
            .tempdir()
            .map_err(|error| format!("cannot make a temporary directory: {error}"))?;
        let (data, root_key) = (directory.path().join("data"), directory.path().join("root.key"));
        RootKey::generate_file(&root_key).map_err(|error| error.to_string())?;
        return Ok(Places { data, root_key, new_root_key: true, temporary: Some(directory) });
    };
    let root_key = user_directory()?.join("root.key");
    let new_root_key = !root_key.exists();
    if new_root_key {
        make_root_key(&root_key, data)?;
    }
    Ok(Places { data: data.to_owned(), root_key, new_root_key, temporary: None })
}

/// Makes the user's root key, unless data is there already that only a lost key opens.
fn make_root_key(path: &Path, data: &Path) -> Result<(), String> {
    let occupied = std::fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        return Err(format!(
            "{} holds data and the root key {} is missing: put the key back, or name another directory with --data",
            data.display(),
            path.display()
        ));
    }
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent).map_err(|error| format!("cannot make {}: {error}", parent.display()))?;
    RootKey::generate_file(path).map(|_| ()).map_err(|error| error.to_string())
}

fn default_space(model: Option<&Model>) -> v1::Space {
    let (embedder, dimension) = model.map_or(("hash", DIMENSION), |model| (LOCAL, model.dimension));
    let dense = v1::DenseEmbedding { dimension, metric: v1::Metric::Cosine.into(), ..Default::default() };
    let embedding = v1::Embedding {
        embedder: embedder.to_owned(),
        kind: Some(v1::embedding::Kind::Dense(dense)),
        ..v1::Embedding::default()
    };
    v1::Space { name: SPACE.to_owned(), embeddings: vec![embedding], ..v1::Space::default() }
}

/// What the developer is told: what this is, where things lie, what to type next.
fn banner(handle: &Handle, places: &Places, model: Option<&Model>, space: &v1::Space) -> String {
    let addresses = handle.addresses();
    let (command, endpoint) = (command_name(), endpoint_option(addresses.grpc));
    let lifetime = if places.temporary.is_some() { "removed when this ends" } else { "durable" };
    let served = model.zip(handle.model_of(LOCAL)).map(|(model, label)| (model.dimension, label));
    let (space, note) = about_space(space, served, &format!("{command} space create notes{endpoint}"));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "\nCairn {version}, development server\n\
         \n  NOT FOR PRODUCTION: no authentication, no TLS. Every program on this machine can read and change the data.\n\
         \n  data       {data} ({lifetime})\
         \n  root key   {key}\
         \n  space      {space}\
         \n  gRPC       {grpc}\
         \n  HTTP       http://{http}/v1/spaces  /health  /metrics{model}",
        version = env!("CARGO_PKG_VERSION"),
        data = places.data.display(),
        key = places.root_key.display(),
        grpc = addresses.grpc,
        http = addresses.http,
        model = model.map_or_else(String::new, |model| format!("\n  model      {}", model.directory.display())),
    );
    if places.new_root_key && places.temporary.is_none() {
        let _ = writeln!(
            text,
            "\n  The root key is new. It opens everything in the data directory: without that file the data is lost for\
             \n  good. Keep a copy of it in another place."
        );
    }
    if let Some(note) = note {
        let _ = writeln!(text, "\n  NOTE: {note}");
    }
    let _ = write!(
        text,
        "\nTry in another terminal:\n\
         \n  {command} add \"Maria drinks her coffee black, without sugar\" --user maria{endpoint}\
         \n  {command} search \"how does Maria like her coffee\"{endpoint}\
         \n  {command} status{endpoint}\n\
         \nCtrl-C stops the server."
    );
    text
}

/// What the space `default` does with text, and what to do where that is not what was asked for: a space keeps the embedder that
/// it was made with, whatever the server is started with. `served`: dimension and label of the model that is served.
fn about_space(space: &v1::Space, served: Option<(u32, String)>, create: &str) -> (String, Option<String>) {
    let embedding = space.embeddings.first().cloned().unwrap_or_default();
    let dimension = match embedding.kind {
        Some(v1::embedding::Kind::Dense(dense)) => dense.dimension,
        _ => 0,
    };
    let name = &space.name;
    let another = |dimension: u32| {
        format!("A space that matches meanings:\n\n  {create} --dimension {dimension} --embedder {LOCAL}")
    };
    let (does, note) = match (embedding.embedder.as_str(), served) {
        ("", _) => ("no embedder (bring vectors)".to_owned(), None),
        ("hash", served) => {
            let note = |(dimension, _)| {
                let another = another(dimension);
                format!(
                    "the space {name} was made before and keeps its embedder `hash`, so the model does nothing in it.\n  {another}"
                )
            };
            ("embedder `hash` (matches words, not meanings)".to_owned(), served.map(note))
        }
        (LOCAL, Some((_, label))) if label == embedding.model => {
            (format!("embedder `{LOCAL}` (matches meanings)"), None)
        }
        (LOCAL, Some((dimension, _))) => {
            let another = another(dimension);
            let note = format!("the space {name} was made with another model, so text is refused there.\n  {another}");
            (format!("embedder `{LOCAL}` with the model {}", embedding.model), Some(note))
        }
        (LOCAL, None) => {
            let note = format!(
                "the space {name} was made with a model, which is not served now, so text is refused there. Start\n  \
                 with --model DIR; `make model` fetches one, and `make run` serves it then."
            );
            (format!("embedder `{LOCAL}`, not served now"), Some(note))
        }
        (other, _) => (format!("embedder `{other}`"), None),
    };
    (format!("{name}: {dimension} dimensions, {does}"), note)
}

/// How the caller can call this program again: relative to the current directory where it lies below it.
fn command_name() -> String {
    let called = std::env::args().next().unwrap_or_else(|| "cairn".to_owned());
    let path = Path::new(&called);
    let below = std::env::current_dir().ok().and_then(|current| path.strip_prefix(current).ok().map(Path::to_owned));
    below.map_or(called.clone(), |relative| format!("./{}", relative.display()))
}

fn endpoint_option(address: SocketAddr) -> String {
    if address == SocketAddr::from(([127, 0, 0, 1], GRPC_PORT)) {
        String::new()
    } else {
        format!(" --endpoint http://{address}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_with(embedder: &str, model: &str) -> v1::Space {
        let mut space = default_space(Some(&Model { directory: PathBuf::new(), dimension: 384 }));
        (space.embeddings[0].embedder, space.embeddings[0].model) = (embedder.to_owned(), model.to_owned());
        space
    }

    #[test]
    fn a_space_that_does_not_use_the_model_says_so() {
        let about = |space: &v1::Space, served: Option<&str>| {
            about_space(space, served.map(|label| (384, label.to_owned())), "cairn space create notes")
        };
        let (words, note) = about(&made_with("hash", ""), None);
        assert!(words.contains("matches words, not meanings") && note.is_none(), "{words} {note:?}");
        let (meanings, note) = about(&made_with("local", "sha256:1"), Some("sha256:1"));
        assert!(meanings.contains("(matches meanings)") && note.is_none(), "{meanings} {note:?}");
        for (space, served, told) in [
            (made_with("hash", ""), Some("sha256:1"), "keeps its embedder `hash`"),
            (made_with("local", "sha256:2"), Some("sha256:1"), "made with another model"),
            (made_with("local", "sha256:1"), None, "--model DIR"),
        ] {
            let (line, note) = about(&space, served);
            let note = note.unwrap();
            assert!(!line.contains("(matches meanings)") && note.contains(told), "{line} {note}");
            let creates = "cairn space create notes --dimension 384 --embedder local";
            assert_eq!(note.contains(creates), served.is_some(), "{note}");
        }
    }
}
