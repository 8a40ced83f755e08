//! What the verbs print, word for word: commands on one server in order, each with standard output, standard error
//! (behind `stderr:`) and exit code, held by `transcripts/`. What differs from run to run is masked, digit by digit.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --release -p cairn-tests --test cli` writes the files anew.

use std::path::{Path, PathBuf};

use cairn_tests::{TestCluster, cairn_binary};

use crate::support::{DEADLINE, DONE, OVERLOAD, Ran, Server, UNAVAILABLE, run_with, silent};

/// Where nobody listens.
const NOBODY: &str = "http://127.0.0.1:9";

/// A run of commands, as it is written down.
struct Transcript {
    text: String,
    endpoint: String,
    directory: PathBuf,
}

impl Transcript {
    fn new(endpoint: &str, directory: &Path) -> Self {
        Self { text: String::new(), endpoint: endpoint.to_owned(), directory: directory.to_owned() }
    }

    /// A heading.
    fn about(&mut self, what: &str) {
        self.text.push_str(&format!("# {what}\n\n"));
    }

    /// Runs a command and writes down what it printed; returns how it ended.
    fn run(&mut self, line: &str) -> Ran {
        self.run_masked(line, "", &masked)
    }

    fn run_with_input(&mut self, line: &str, input: &str) -> Ran {
        self.run_masked(line, input, &masked)
    }

    fn run_masked(&mut self, line: &str, input: &str, mask: &dyn Fn(&str) -> String) -> Ran {
        let home = self.directory.to_str().unwrap();
        let words = words(&line.replace("DIR", home));
        let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = run_with(&[("CAIRN_ENDPOINT", &self.endpoint), ("XDG_CONFIG_HOME", home)], &arguments, input);
        let mut told = ran.stdout.clone();
        told.extend(ran.stderr.lines().map(|line| format!("{}\n", format!("stderr: {line}").trim_end())));
        // The program may have been built under another name.
        let binary = cairn_binary();
        let told = told.replace(binary.file_name().unwrap().to_str().unwrap(), "cairn");
        let told = mask(&told.replace(home, "DIR").replace(&self.endpoint, "http://NODE"));
        self.text.push_str(&format!("$ cairn {line}\n{told}exit {}\n\n", ran.code));
        ran
    }

    /// Runs a command in each form.
    fn in_each_form(&mut self, line: &str) {
        for form in ["", " -o table", " -o json"] {
            self.run(&format!("{line}{form}"));
        }
    }

    /// Compares all of it with `transcripts/NAME.txt`.
    fn check(self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("cli/transcripts/{name}.txt"));
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, &self.text).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            self.text,
            expected,
            "{name} is not what {} holds; UPDATE_SNAPSHOTS=1 writes it anew",
            path.display()
        );
    }
}

/// The words of a line; blanks within quotes are part of a word.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            _ => words.last_mut().unwrap().push(character),
        }
    }
    words
}

/// A text without what differs from run to run.
fn masked(text: &str) -> String {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "-_:.".contains(character);
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        let length = rest[start..].find(|character| !is_part(character)).unwrap_or(rest.len() - start);
        let (before, behind) = rest.split_at(start);
        let (word, after) = behind.split_at(length);
        out.push_str(before);
        out.push_str(&masked_word(word));
        rest = after;
    }
    out + rest
}

/// Times, generated ids and positions: as long as they were, so that columns stay where they are.
fn masked_word(word: &str) -> String {
    let shaped = |shape: &str| {
        let fits = |(character, form): (char, char)| match form {
            '0' => character.is_ascii_digit(),
            'x' => character.is_ascii_hexdigit(),
            other => character == other,
        };
        word.len() == shape.len() && word.chars().zip(shape.chars()).all(fits)
    };
    let zeros = || word.chars().map(|each| if each.is_ascii_digit() { '0' } else { each }).collect();
    let is_position = (word.len() == 20 || word.len() == 26) && (word.starts_with("AQAA") || word.starts_with("AgAA"));
    if word.get(..19).is_some_and(|start| start.as_bytes()[10] == b'T' && start[..4].parse::<u32>().is_ok()) {
        // As many digits of the second as there are without zeros at the end.
        return "0000-00-00T00:00:00.000000Z".to_owned();
    }
    if shaped("0000-00-00") || shaped("00:00:00Z") {
        return zeros();
    }
    if shaped("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx") {
        return "00000000-0000-0000-0000-000000000000".to_owned();
    }
    if is_position { "POSITION".to_owned() } else { word.to_owned() }
}

/// As [`masked`], and without what counts bytes and seconds, whose width differs too.
fn masked_counts(text: &str) -> String {
    let mut out = String::new();
    for line in masked(text).lines() {
        let zeros: String = line.chars().map(|each| if each.is_ascii_digit() { '0' } else { each }).collect();
        let mut words: Vec<String> = zeros.split_inclusive([' ', '\t']).map(short_word).collect();
        words.retain(|word| word != " ");
        // A member's last word is its digest, shortened or whole.
        if zeros.contains("leader") && zeros.contains(':') {
            words.pop();
            words.push("DIGEST".to_owned());
        }
        out.push_str(&format!("{}\n", words.concat()));
    }
    out
}

/// A word and what stands behind it, where any number is as long as another, and any age and unit the same.
fn short_word(word: &str) -> String {
    let (text, behind) = word.split_at(word.trim_end_matches([' ', '\t']).len());
    let is_age = text.starts_with('0') && text.ends_with(['s', 'm', 'h', 'd']) && !text.contains(['.', ':', '-']);
    let mut short = String::new();
    for each in text.chars().filter(|_| !is_age) {
        if each != '0' || !short.ends_with('0') {
            short.push(each);
        }
    }
    let short = match short.as_str() {
        _ if is_age => "0s",
        "B" | "KiB" | "MiB" | "GiB" => "MiB",
        "0.0" => "0",
        other => other,
    };
    format!("{short}{behind}")
}

/// As [`masked`], and without how long an answer was waited for, which is a little less than was allowed.
fn masked_wait(text: &str) -> String {
    let masked = masked(text);
    match masked.split_once("within ").and_then(|(before, rest)| Some((before, rest.split_once(" ms")?.1))) {
        Some((before, behind)) => format!("{before}within 200 ms{behind}"),
        None => masked,
    }
}

#[test]
fn every_verb_prints_what_was_reviewed() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut transcript = Transcript::new(&server.endpoint, directory.path());
    spaces(&mut transcript);
    memories(&mut transcript);
    files(&mut transcript);
    mistakes(&mut transcript);
    members_and_contexts(&mut transcript);
    transcript.check("verbs");
}

fn spaces(transcript: &mut Transcript) {
    transcript.about("Spaces");
    transcript.run("space create points --dimension 2 --metric l2 --field topic:keyword --history 5");
    transcript.run("space create points --dimension 2");
    transcript.run("space create more --dimension 2 -o table");
    transcript.in_each_form("space get points");
    transcript.run("space update points --default-ttl 30d");
    transcript.run("space update points --history 6 --if-version 1");
    transcript.run("space update points --add-field rank:integer -o table");
    transcript.run("space alias live points");
    transcript.run("space alias live points -o table");
    transcript.in_each_form("space ls");
    transcript.run("space alias live --remove");
    transcript.run("space alias live --remove");
    transcript.run("space rm more");
    transcript.run("space rm more --yes -o table");
}

fn memories(transcript: &mut Transcript) {
    transcript.about("Memories");
    let add =
        "add 'Ada drinks tea' --space points --id ada --user ada --kind fact --vector 3,4 --expires-at 2999-01-01";
    transcript.run(&format!("{add} --meta topic=tea --meta cup.size=3"));
    transcript.run(&format!("{add} --insert"));
    transcript.run(
        "add 'kept apart' --space points --id apart --namespace team/x --vector 0,1 --expires-at 2999-01-01 -o table",
    );
    transcript.run_with_input("add --space points --id piped --vector 1,0 -o json", "from a pipe\n");
    transcript.in_each_form("get ada --space points");
    transcript.run("get ada nobody --space points");
    transcript.in_each_form("ls --space points --order oldest");
    transcript.run("ls --space points -n 1 --order oldest");
    transcript.in_each_form("search --space points --vector 0,0 --exact -n 2");
    transcript.run("search --space points --vector 0,0 --filter 'metadata.topic = \"tea\"'");
    transcript.in_each_form("count --space points");
    transcript.in_each_form("namespaces --space points");
    transcript.run("update ada --space points --kind habit --actor cli --reason 'she said so'");
    transcript.run("update ada --space points --kind fact --expect 1");
    transcript.run("update ada 'Ada drinks coffee' --space points");
    transcript.run("update ada 'Ada drinks coffee' --space points --clear vector -o table");
    transcript.in_each_form("history ada --space points");
    transcript.run("rm piped --space points");
    transcript.run("rm piped --space points --yes -o table");
    transcript.run("rm --user ada --space points --yes -o json");
}

fn files(transcript: &mut Transcript) {
    transcript.about("Files");
    let line = |number: u32| {
        format!(
            "{{\"id\": \"f{number}\", \"content\": \"note {number}\", \"vector\": [{number}, 1], \"created_at\": \"2025-01-02T03:04:0{number}Z\", \"expires_at\": \"2999-01-01T00:00:00Z\"}}\n"
        )
    };
    let path = transcript.directory.join("notes.jsonl");
    std::fs::write(&path, (0..3).map(line).collect::<String>() + "{\"text\": 1}\n").unwrap();
    transcript.run("import DIR/notes.jsonl --space points --import-id i1");
    transcript.run("import DIR/notes.jsonl --space points --skip-bad-lines -o json");
    transcript.run("import DIR/nowhere.jsonl --space points");
    transcript.run("export DIR/all.jsonl --space points");
    transcript.run("export DIR/all.jsonl --space points");
    transcript.run("export --space points --where 'id = \"f1\"'");
    transcript.run("export --space points --where 'kind = \"none\"'");
    let position = transcript.run("add second --id w --space points --vector 0,0 -o json");
    let position: serde_json::Value = serde_json::from_str(&position.stdout).unwrap();
    let position = position["position"].as_str().unwrap().to_owned();
    transcript.run("update w --kind x --space points");
    for form in ["", " -o table", " -o json"] {
        transcript.run(&format!("watch --after {position} -n 1 --space points{form}"));
    }
    transcript.text = transcript.text.replace(&position, "POSITION");
}

fn mistakes(transcript: &mut Transcript) {
    transcript.about("Mistakes");
    transcript.run("ls --space nowhere");
    transcript.run("search 'some text' --space points");
    transcript.run("search --space points --vector 1,2,3");
    transcript.run("ls --filter 'kind = fact'");
    transcript.run("ls --include-vectors");
    transcript.run("add ' '");
    transcript.run("add x --ttl soon");
    transcript.run("frobnicate");
    transcript.run("get a --at-least nonsense");
    transcript.run("watch --after nonsense");
    transcript.run("inspect DIR/nowhere");
    transcript.run("inspect DIR");
    let (_listener, silent) = silent();
    for verb in ["count", "add x"] {
        let line = format!("{verb} --endpoint {silent} --timeout 200ms");
        assert_eq!(transcript.run_masked(&line, "", &masked_wait).code, DEADLINE);
    }
    transcript.text = transcript.text.replace(&silent, "http://SILENT");
    assert_eq!(transcript.run(&format!("count --endpoint {NOBODY}")).code, UNAVAILABLE);
}

fn members_and_contexts(transcript: &mut Transcript) {
    transcript.about("Members");
    for line in ["status", "status -o table", "node ls", "status --watch=10ms -n 2 -o table"] {
        assert_eq!(transcript.run_masked(line, "", &masked_counts).code, DONE);
    }
    transcript.run("node promote 7");
    transcript.run("node remove 7");
    transcript.run("node remove 7 --yes");
    transcript.run("node drain 7");
    transcript.run("node transfer-leader 7");

    transcript.about("Contexts");
    transcript.run("context ls");
    transcript.run("context add home");
    transcript.run("context add home --endpoint http://127.0.0.1:7480 --space notes");
    transcript.run("context add home --endpoint http://127.0.0.1:7490");
    transcript.in_each_form("context ls");
    transcript.run("context use work");
    transcript.run("context rm home");
}

/// A node whose indexes have no memory refuses every search.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_sheds_load_prints_what_was_reviewed() {
    let cluster = TestCluster::start_with(1, "storage: { index_memory: 1MiB }\n").await;
    let directory = tempfile::tempdir().unwrap();
    let mut transcript = Transcript::new(&cluster.node(1).endpoint(), directory.path());
    transcript.about("A node whose indexes have no memory");
    transcript.run("space create notes --dimension 4096");
    let vector = vec!["1"; 4_096].join(",");
    let line = format!("{{\"vector\": [{vector}]}}\n");
    std::fs::write(directory.path().join("vector"), vector).unwrap();
    std::fs::write(directory.path().join("many.jsonl"), line.repeat(100)).unwrap();
    transcript.run("import DIR/many.jsonl --space notes");
    let search = "search --vector-file DIR/vector --space notes --timeout 20s";
    assert_eq!(transcript.run_masked(search, "", &masked_counts).code, OVERLOAD);
    assert_eq!(transcript.run("count --space notes").code, DONE);
    transcript.check("overload");
}
