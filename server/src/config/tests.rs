use std::io::Write as _;
use std::time::Duration;

use super::*;

const REFERENCE: &str = include_str!("../../../deploy/cairn.reference.yaml");

fn load(yaml: &str, environment: &[(&str, &str)], overrides: &[&str]) -> Result<Config, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(yaml.as_bytes()).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Config::load(Some(file.path()), environment, &overrides)
}

fn refusal(yaml: &str, environment: &[(&str, &str)], overrides: &[&str]) -> String {
    let text = load(yaml, environment, overrides).unwrap_err().to_string();
    assert!(!text.contains('\n'), "a refusal is one line: {text}");
    text
}

/// All keys of a value, with their sections.
fn keys(value: &serde_json::Value, prefix: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(entries) => {
            for (name, entry) in entries {
                keys(entry, &format!("{prefix}.{name}"), found);
            }
        }
        _ => found.push(prefix.to_owned()),
    }
}

#[test]
fn the_reference_file_holds_every_key_with_its_default() {
    let loaded = load(REFERENCE, &[], &[]).unwrap();
    assert_eq!(loaded, Config::default());

    let written: serde_json::Value = Figment::new().merge(Yaml::string(REFERENCE)).extract().unwrap();
    let expected = serde_json::to_value(Config::default()).unwrap();
    let (mut written_keys, mut expected_keys) = (Vec::new(), Vec::new());
    keys(&written, "", &mut written_keys);
    keys(&expected, "", &mut expected_keys);
    written_keys.sort();
    expected_keys.sort();
    assert_eq!(written_keys, expected_keys);
}

#[test]
fn later_sources_win() {
    let yaml = "node: { id: 3 }\nlimits: { request_timeout: 2s }";
    let loaded = load(yaml, &[("CAIRN_NODE__ID", "4"), ("CAIRN_LOG__FORMAT", "json")], &["node.id=5"]).unwrap();
    assert_eq!(loaded.node.id, 5);
    assert_eq!(loaded.log.format, LogFormat::Json);
    assert_eq!(loaded.limits.request_timeout, Duration::from_secs(2));
    assert_eq!(loaded.limits.request_timeout_max, LimitsSection::default().request_timeout_max);
}

#[test]
fn peers_can_come_from_the_environment() {
    let peers = r#"[{id=1,peer_address="a:7481",client_address="a:7480"},{id=2,peer_address="b:7481",client_address="b:7480"}]"#;
    let loaded = load("", &[("CAIRN_CLUSTER__PEERS", peers)], &[]).unwrap();
    assert_eq!(loaded.members().len(), 2);
    assert_eq!(loaded.members()[1].peer_address, "b:7481");
}

#[test]
fn embedders_take_defaults_for_what_they_leave_out() {
    let yaml = "embedders: { openai: [ { name: small, url: 'http://127.0.0.1:11434/v1', model: nomic-embed-text, timeout: 3s } ] }";
    let loaded = load(yaml, &[], &[]).unwrap().embedders.openai.remove(0);
    assert_eq!((loaded.timeout, loaded.attempts), (Duration::from_secs(3), 4));
    assert!(refusal("embedders: { openai: [ { name: a, key: b } ] }", &[], &[]).contains("key"));
}

#[test]
fn other_variables_of_cairn_are_no_configuration() {
    let environment = [("CAIRN_ROOT_KEY", "secret"), ("CAIRN_ENDPOINT", "http://127.0.0.1:1"), ("PATH", "/bin")];
    assert_eq!(load("", &environment, &[]).unwrap(), Config::default());
}

#[test]
fn a_node_without_peers_is_a_cluster_of_one() {
    let members = Config::default().members();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].client_address, "127.0.0.1:7480");
}

#[test]
fn unknown_keys_are_refused_by_name_and_source() {
    let text = refusal("listen:\n  grcp: 127.0.0.1:1", &[], &[]);
    assert!(text.contains("unknown key listen.grcp") && text.contains("grpc, peer, http"), "{text}");
    let text = refusal("nodes: {}", &[], &[]);
    assert!(text.contains("unknown key nodes"), "{text}");
    let text = refusal("", &[("CAIRN_NODE__IDD", "1")], &[]);
    assert!(text.contains("unknown key node.idd;") && text.contains("CAIRN_NODE__IDD"), "{text}");
    let text = refusal("", &[], &["raft.heart=1s"]);
    assert!(text.contains("unknown key raft.heart;") && text.contains("--set"), "{text}");
    let text =
        refusal("cluster: { peers: [ { id: 1, peer_address: 'a:1', client_address: 'a:2', weight: 3 } ] }", &[], &[]);
    assert!(text.contains("weight"), "{text}");
}

#[test]
fn wrong_types_name_the_key() {
    for (yaml, key) in [
        ("node: { id: one }", "node.id"),
        ("limits: { request_timeout: 10 }", "limits.request_timeout"),
        ("limits: { request_timeout: soon }", "limits.request_timeout"),
        ("storage: { block_cache: 64MB }", "storage.block_cache"),
        ("listen: { grpc: localhost }", "listen.grpc"),
        ("log: { format: xml }", "log.format"),
        ("node: 7", "node"),
    ] {
        let text = refusal(yaml, &[], &[]);
        assert!(text.contains(key) && !text.contains("``"), "{yaml}: {text}");
    }
    assert!(refusal("node: [", &[], &[]).contains("line"));
    assert!(refusal("", &[], &["node=1"]).contains("SECTION.KEY=VALUE"));
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Some(Path::new("no/such.yaml")), [], &[]).unwrap_err();
    assert!(error.to_string().starts_with("cannot read the configuration no/such.yaml"), "{error}");
}

#[test]
fn values_out_of_range_name_the_key() {
    let two_peers = "cluster: { peers: [ { id: 1, peer_address: 'a:1', client_address: 'a:2' }, { id: 1, peer_address: 'b:1', client_address: 'b:2' } ] }";
    for (yaml, key) in [
        ("node: { id: 0 }", "node.id"),
        ("node: { data_dir: '' }", "node.data_dir"),
        ("root_key: { environment: '' }", "root_key"),
        (two_peers, "cluster.peers[1].id"),
        ("cluster: { peers: [ { id: 2, peer_address: 'a:1', client_address: 'a:2' } ] }", "cluster.peers"),
        (
            "cluster: { peers: [ { id: 1, peer_address: 'a', client_address: 'a:2' } ] }",
            "cluster.peers[0].peer_address",
        ),
        (
            "cluster: { peers: [ { id: 1, peer_address: 'a:1', client_address: 'a:1' } ] }",
            "cluster.peers[0].client_address",
        ),
        ("listen: { http: '127.0.0.1:7480' }", "listen.http"),
        ("listen: { grpc: '0.0.0.0:7480' }", "listen.grpc"),
        ("listen: { peer: '0.0.0.0:7481' }", "listen.peer"),
        ("listen: { http: '0.0.0.0:7482' }", "listen.http"),
        ("http: { body_max: 1B }", "http.body_max"),
        ("http: { cors_origins: ['https://app.example/'] }", "http.cors_origins[0]"),
        ("limits: { request_timeout: 1h }", "limits.request_timeout"),
        ("limits: { writes_in_flight: 0 }", "limits.writes_in_flight"),
        ("limits: { reads_in_flight: 0 }", "limits.reads_in_flight"),
        ("limits: { read_threads: 5000 }", "limits.read_threads"),
        ("storage: { write_buffer: 1KiB }", "storage.write_buffer"),
        ("storage: { index_memory: 1KiB }", "storage.index_memory"),
        ("storage: { index_idle: 1s }", "storage.index_idle"),
        ("storage: { log_segment: 1KiB }", "storage.log_segment"),
        ("limits: { disk_reserve: 100MiB }", "limits.disk_reserve"),
        ("storage: { index_checkpoint_from: 0 }", "storage.index_checkpoint_from"),
        ("embedders: { openai: [ { name: Big } ] }", "embedders.openai[0].name"),
        ("embedders: { openai: [ { name: hash } ] }", "embedders.openai[0].name"),
        ("embedders: { openai: [ { name: a, url: 'ftp://x', model: m } ] }", "embedders.openai[0].url"),
        ("embedders: { openai: [ { name: a, url: 'http://x' } ] }", "embedders.openai[0].model"),
        (
            "embedders: { openai: [ { name: a, url: 'http://x', model: m, attempts: 0 } ] }",
            "embedders.openai[0].attempts",
        ),
        (
            "embedders: { openai: [ { name: a, url: 'http://x', model: m, dimension: 4097 } ] }",
            "embedders.openai[0].dimension",
        ),
        (
            "embedders: { openai: [ { name: a, url: 'http://x', model: m, dimension: 3, send_dimensions: true } ] }",
            "embedders.openai[0].dimension",
        ),
        ("embedders: { local: [ { name: hash, directory: m } ] }", "embedders.local[0].name"),
        ("embedders: { local: [ {} ] }", "embedders.local[0].directory"),
        ("raft: { snapshot_after: 1KiB }", "raft.snapshot_after"),
        ("raft: { snapshot_interval: 10ms }", "raft.snapshot_interval"),
        ("raft: { snapshot_rate: 1KiB }", "raft.snapshot_rate"),
        ("raft: { heartbeat: 1ms }", "raft.heartbeat"),
        ("raft: { heartbeat: 500ms }", "raft.election_timeout_min"),
        ("raft: { election_timeout_max: 600ms }", "raft.election_timeout_max"),
        ("log: { level: 'cairn=loud' }", "log.level"),
        ("ready: { lag_entries_max: 10001 }", "ready.lag_entries_max"),
        ("shutdown: { grace: 1h }", "shutdown.grace"),
    ] {
        let text = refusal(yaml, &[], &[]);
        assert!(text.starts_with(&format!("{key}: ")), "{yaml}: {text}");
    }
}

#[test]
fn listening_beyond_loopback_can_be_accepted() {
    let yaml = "listen: { grpc: '0.0.0.0:7480' }\nsecurity: { allow_unauthenticated_remote: true }";
    assert!(load(yaml, &[], &[]).is_ok());
}

#[test]
fn probes_alone_may_listen_beyond_loopback() {
    assert!(load("listen: { http: '0.0.0.0:7482' }\nhttp: { api: false }", &[], &[]).is_ok());
}
