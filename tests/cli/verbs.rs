//! Every verb on one development server, with its exit code and its two streams.

use std::net::TcpListener;
use std::path::Path;

use crate::support::{
    CONFLICT, DEADLINE, DONE, FAILED, INTERRUPTED, NOT_FOUND, PRECONDITION, Server, UNAVAILABLE, USAGE, full_disk,
    interrupted, json_lines, run_at, run_with, short_of_room, silent,
};

#[test]
fn every_verb_works_on_a_development_server() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    adding_and_reading(&server);
    searching(&server);
    watching(&server);
    an_export_is_imported_as_it_was(&server, directory.path());
    spaces(&server);
    updating(&server);
    files_go_in_as_they_came_out(&server, directory.path());
    deleting(&server);
    wrong_arguments(&server);
    looking_after_a_cluster(&server, directory.path());
    contexts(&server, directory.path());
    let status = json_lines(&server.ok(&["status", "-o", "json"])).remove(0);
    assert_eq!((status["leader_id"].as_u64(), status["members"].as_array().map(Vec::len)), (Some(1), Some(1)));

    let (endpoint, data) = (server.endpoint.clone(), directory.path().join("data"));
    assert_eq!(server.stop(), 0, "a server that is asked to stop ends well");
    let ran = run_at(&endpoint, &["count"], "");
    assert_eq!(ran.code, UNAVAILABLE, "{ran:?}");
    assert!(ran.stderr.contains("hint: start a node with `cairn dev`"), "{ran:?}");
    inspecting(&data, &directory.path().join("cairn/root.key"));
}

fn adding_and_reading(server: &Server) {
    let add = ["add", "Ada takes oat milk in her coffee", "--id", "milk", "--user", "ada", "--kind", "preference"];
    let printed = server.ok(&[&add[..], &["--meta", "topic=coffee", "--meta", "cups=2"]].concat());
    assert_eq!(printed, "milk\tcreated\t1\n");
    let piped = server.run_with_input(&["add", "--id", "work", "--user", "ben"], "Ben starts work at seven\n");
    assert_eq!((piped.code, piped.stdout.as_str()), (DONE, "work\tcreated\t1\n"), "{piped:?}");
    assert_eq!(server.ok(&[&add[..], &["--meta", "topic=coffee"]].concat()), "milk\treplaced\t2\n");
    assert!(server.fails(&[&add[..], &["--insert"]].concat(), CONFLICT).contains("milk"));

    // A repetition under the same request id changes nothing more.
    let once = ["add", "said once", "--id", "once", "--request-id", "r1"];
    assert_eq!(server.ok(&once), server.ok(&once));

    let memory = json_lines(&server.ok(&["get", "work", "-o", "json"])).remove(0);
    assert_eq!(
        (memory["content"].as_str(), memory["scope"]["user_id"].as_str()),
        (Some("Ben starts work at seven"), Some("ben"))
    );
    server.ok(&["add", "kept apart", "--id", "apart", "--namespace", "team/x"]);
    assert_eq!(server.ok(&["namespaces"]), "team/x\t1\n");
    let below = json_lines(&server.ok(&["namespaces", "team", "-o", "json"])).remove(0);
    assert_eq!((below["path"].as_str(), below["memory_count"].as_u64()), (Some("team/x"), Some(1)));
    let none = server.run(&["namespaces", "tea"]);
    assert_eq!((none.code, none.stdout.as_str(), none.stderr.contains("--namespace")), (DONE, "", true), "{none:?}");
    assert!(server.fails(&["namespaces", "a//b"], USAGE).contains("prefix"));
    server.ok(&["rm", "apart", "--yes"]);

    let missing = server.run(&["get", "work", "nobody"]);
    assert_eq!(missing.code, NOT_FOUND, "{missing:?}");
    assert!(missing.stdout.starts_with("work\t") && missing.stderr.contains("nobody"), "{missing:?}");
    assert!(missing.stderr.contains("hint: list what is there with `cairn ls`"), "{missing:?}");

    let listed = server.ok(&["ls", "--order", "oldest"]);
    let ids: Vec<&str> = listed.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(ids, ["work", "milk", "once"]);
    let some = server.run(&["ls", "-n", "2"]);
    assert_eq!((some.code, some.stdout.lines().count()), (DONE, 2));
    assert!(some.stderr.contains("--all"), "{some:?}");

    assert_eq!(server.ok(&["count"]), "3\n");
    assert_eq!(server.ok(&["count", "--user", "ada"]), "1\n");
    assert_eq!(
        server.ok(&["count", "--filter", "metadata.topic in [\"coffee\", \"tea\"] and not kind = \"fact\""]),
        "1\n"
    );
    assert_eq!(server.ok(&["count", "--filter", "{\"field\": \"metadata.topic\", \"exists\": false}"]), "2\n");
}

fn searching(server: &Server) {
    let text = server.run(&["search", "milk in the coffee", "-n", "1"]);
    let fields: Vec<&str> = text.stdout.trim_end().split('\t').collect();
    assert_eq!((text.code, fields[1]), (DONE, "milk"), "{text:?}");
    assert_eq!(text.stderr.matches("shared words, not meaning").count(), 1, "{text:?}");

    let filtered = server.ok(&["search", "milk in the coffee", "--where", "scope.user_id = \"ben\"", "-o", "json"]);
    let hits = json_lines(&filtered).remove(0)["hits"].clone();
    assert_eq!((hits.as_array().map(Vec::len), hits[0]["memory"]["id"].as_str()), (Some(1), Some("work")));
}

fn an_export_is_imported_as_it_was(server: &Server, directory: &Path) {
    let create = ["space", "create", "from", "--dimension", "3"];
    server.ok(&create);
    let line = |number: u32| {
        format!(
            "{{\"id\": \"e{number}\", \"content\": \"note {number}\", \"kind\": \"fact\", \"importance\": 0.1, \
             \"vector\": [{number}, 0.1, -2.5e-3], \"created_at\": \"2025-01-02T03:04:05.{number:06}Z\", \
             \"expires_at\": \"2999-01-01T00:00:00Z\", \"metadata\": {{\"n\": {number}, \"list\": [1.5, null, true]}}}}\n"
        )
    };
    let path = directory.join("export.jsonl");
    std::fs::write(&path, (0..1_200).map(line).collect::<String>()).unwrap();
    let path = path.to_str().unwrap();
    let import = ["import", path, "--space", "from", "--user", "ann", "--import-id", "i1"];
    assert_eq!(server.ok(&import), "1,200 memories: 1,200 created\n");
    assert_eq!(server.ok(&import), "1,200 memories: 1,200 created\n", "the same import again is the same answer");
    let exported = server.ok(&["export", "--space", "from"]);
    assert_eq!(exported.lines().count(), 1_200);
    let first = json_lines(&exported).remove(0);
    assert_eq!((first["version"].as_u64(), first["scope"]["user_id"].as_str()), (Some(1), Some("ann")));

    server.ok(&["space", "create", "to", "--dimension", "3"]);
    let back = server.run_with_input(&["import", "-", "--space", "to"], &exported);
    assert_eq!(back.stdout, "1,200 memories: 1,200 created\n", "{back:?}");
    let file = directory.join("again.jsonl");
    let file = file.to_str().unwrap();
    let told = server.run(&["export", file, "--space", "to", "--user", "ann"]);
    assert_eq!((told.code, told.stdout.as_str()), (DONE, ""), "{told:?}");
    assert!(told.stderr.contains("cairn watch --space to --user ann --after "), "{told:?}");
    let again = std::fs::read_to_string(file).unwrap();
    let without_time_of_writing = |text: &str| {
        let mut memories = json_lines(text);
        for memory in &mut memories {
            memory.as_object_mut().unwrap().remove("updated_at");
        }
        memories
    };
    assert!(without_time_of_writing(&again) == without_time_of_writing(&exported), "an export of the import differs");
    let taken = server.fails(&["export", file, "--space", "to"], USAGE);
    assert!(taken.contains("again.jsonl is there already") && taken.contains("hint: choose another name"), "{taken}");

    let bad = "{\"content\": \"a\"}\n{\"content\": 3}\n{\"content\": \"b\"}\n";
    let ran = server.run_with_input(&["import", "-", "--space", "to"], bad);
    assert_eq!((ran.code, ran.stderr.contains("-:2: content: is not a string")), (USAGE, true), "{ran:?}");
    let ran = server.run_with_input(&["import", "-", "--space", "to", "--skip-bad-lines"], bad);
    assert_eq!((ran.code, ran.stdout.as_str()), (USAGE, "2 memories: 2 created\n"), "{ran:?}");
    let wrong = "{\"content\": \"a\", \"vector\": [1, 2, 3]}\n\n{\"content\": \"b\", \"vector\": [1]}\n";
    let ran = server.run_with_input(&["import", "-", "--space", "to"], wrong);
    assert_eq!((ran.code, ran.stderr.contains("-:3: batch.memories[1].vectors[0]")), (USAGE, true), "{ran:?}");
    // What cannot be read at all has no line to correct, nor one to skip.
    for more in [&[][..], &["--skip-bad-lines"]] {
        let said = server.fails(&[&["import", directory.to_str().unwrap(), "--space", "to"], more].concat(), USAGE);
        assert!(said.contains("cannot read") && !said.contains("hint: correct"), "{said}");
    }
    let full = full_disk(&server.endpoint, &["export", "-", "--space", "to"]);
    assert!(full.code == FAILED && full.stderr.contains("cannot write to standard output: No space left"), "{full:?}");
    a_broken_export_leaves_nothing(server, &directory.join("exports"));
    for space in ["from", "to"] {
        server.ok(&["space", "rm", space, "--yes"]);
    }
}

/// A disk that is full is played by a limit on the size of files.
fn a_broken_export_leaves_nothing(server: &Server, directory: &Path) {
    std::fs::create_dir(directory).unwrap();
    let file = directory.join("m.jsonl");
    let export = ["export", file.to_str().unwrap(), "--space", "to"];
    let broken = short_of_room(&server.endpoint, &export);
    assert!(broken.code == FAILED && broken.stderr.contains("m.jsonl: File too large"), "{broken:?}");
    assert!(broken.stderr.contains("hint: nothing was kept of it"), "{broken:?}");
    assert_eq!(directory.read_dir().unwrap().count(), 0, "nothing is left of it");
    // Nobody answers there.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", deaf.local_addr().unwrap());
    let has_begun = || directory.read_dir().unwrap().count() == 1;
    let broken_off = interrupted(&nobody, &export, has_begun);
    assert!(broken_off.code == INTERRUPTED && broken_off.stderr.contains("nothing was kept"), "{broken_off:?}");
    assert_eq!(directory.read_dir().unwrap().count(), 0, "nothing is left of it");
    server.ok(&export);
    let nowhere = directory.join("nowhere/m.jsonl");
    let said = server.fails(&["export", nowhere.to_str().unwrap(), "--space", "to"], USAGE);
    assert!(said.contains("hint: name a file in a directory"), "{said}");
}

fn watching(server: &Server) {
    server.ok(&["space", "create", "news", "--dimension", "2"]);
    let first = json_lines(&server.ok(&["add", "one", "--id", "a", "--space", "news", "-o", "json"])).remove(0);
    let position = first["position"].as_str().unwrap();
    server.ok(&["add", "two", "--id", "b", "--user", "ann", "--space", "news"]);
    server.ok(&["rm", "a", "--yes", "--space", "news"]);
    let lines = server.ok(&["watch", "--after", position, "-n", "2", "--space", "news"]);
    let seen: Vec<Vec<&str>> = lines.lines().map(|line| line.split('\t').skip(1).take(3).collect()).collect();
    assert_eq!(seen, [["created", "b", "1"], ["deleted", "a", "1"]]);
    let watch = ["watch", "--after", position, "-n", "1", "--user", "ann", "--include-memory", "-o", "json"];
    let json = json_lines(&server.ok(&[&watch[..], &["--space", "news"]].concat())).remove(0);
    assert_eq!((json["change"].as_str(), json["memory"]["content"].as_str()), (Some("created"), Some("two")));
    assert!(server.fails(&["watch", "--after", "soon", "--space", "news"], USAGE).contains("after"));
    server.fails(&["watch", "--include-memory", "--space", "news"], USAGE);
    server.ok(&["space", "rm", "news", "--yes"]);
}

fn spaces(server: &Server) {
    let create = ["space", "create", "points", "--dimension", "2", "--metric", "l2", "--field", "topic:keyword"];
    assert_eq!(server.ok(&create), "points\n");
    assert!(server.fails(&create, CONFLICT).contains("points"));
    for (id, vector) in [("a", "0,0"), ("b", "[1, 0]"), ("c", "-3,4")] {
        server.ok(&["--space", "points", "add", id, "--id", id, "--vector", vector]);
    }
    let near = server.ok(&["search", "--space", "points", "--vector", "-0.4,0", "-n", "2", "--exact"]);
    let ids: Vec<&str> = near.lines().filter_map(|line| line.split('\t').nth(1)).collect();
    assert_eq!(ids, ["a", "b"]);

    let hint = server.fails(&["search", "some text", "--space", "points"], PRECONDITION);
    assert!(hint.contains("hint: bring a vector"), "{hint}");
    let wrong = server.fails(&["search", "--space", "points", "--vector", "1,2,3"], USAGE);
    assert!(wrong.contains("vectors[0]"), "{wrong}");
    let unknown = server.fails(&["ls", "--space", "nowhere"], NOT_FOUND);
    assert!(unknown.contains("hint: list the spaces"), "{unknown}");

    let listed = server.ok(&["space", "ls"]);
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(names, ["default", "points"]);
    let info = json_lines(&server.ok(&["space", "get", "points", "-o", "json"])).remove(0);
    assert_eq!((info["statistics"]["vectors"].as_u64(), info["metric"].as_str()), (Some(3), Some("l2")));

    assert_eq!(server.ok(&["space", "update", "points", "--history", "3", "--default-ttl", "30d"]), "2\n");
    let update = ["space", "update", "points", "--add-field", "rank:integer", "--remove-field", "topic", "-o", "json"];
    let updated = json_lines(&server.ok(&update)).remove(0);
    assert_eq!((updated["fields"][0]["path"].as_str(), updated["history_depth"].as_u64()), (Some("rank"), Some(3)));
    assert!(server.fails(&update, USAGE).contains("topic"));
    assert!(server.fails(&["space", "update", "points"], USAGE).contains("nothing to change"));
    let old = ["space", "update", "points", "--dedup", "true", "--if-version", "2"];
    let stale = server.fails(&old, CONFLICT);
    assert!(stale.contains("version 3") && stale.contains("`cairn space get points`"), "{stale}");
    assert!(stale.contains("--if-version") && !stale.contains("--expect"), "{stale}");
    assert_eq!(server.ok(&["space", "update", "points", "--default-ttl", "none"]), "4\n");

    assert_eq!(server.ok(&["space", "alias", "live", "points"]), "\n");
    assert_eq!(server.ok(&["count", "--space", "live"]), "3\n");
    assert!(server.fails(&["space", "alias", "live", "nowhere"], NOT_FOUND).contains("nowhere"));
    assert!(server.fails(&["space", "alias", "default", "points"], CONFLICT).contains("default"));
    assert!(server.fails(&["space", "rm", "live", "--yes"], USAGE).contains("points"));
    assert_eq!(server.ok(&["space", "alias", "live", "--remove"]), "points\n");
    server.fails(&["count", "--space", "live"], NOT_FOUND);

    assert!(server.fails(&["space", "rm", "points"], USAGE).contains("--yes"));
    assert_eq!(server.ok(&["space", "rm", "points", "--yes"]), "3\n");
    server.fails(&["space", "get", "points"], NOT_FOUND);
}

fn updating(server: &Server) {
    server.ok(&["space", "create", "versions", "--history", "5", "--embedder", "hash"]);
    fn verb<'a>(verb: &[&'a str]) -> Vec<&'a str> {
        [verb, &["--space", "versions"]].concat()
    }
    server.ok(&verb(&["add", "Ada drinks tea", "--id", "ada", "--user", "ada", "--meta", "cup.size=3"]));
    let update = ["update", "ada", "Ada drinks coffee", "--meta", "cup.sort=mug", "--clear", "user", "--expect", "1"];
    let why = ["--actor", "cli", "--reason", "she said so"];
    assert_eq!(server.ok(&verb(&[&update[..], &why].concat())), "ada\tupdated\t2\n");
    let stale = server.fails(&verb(&update), CONFLICT);
    assert!(stale.contains("has version 2, not 1") && stale.contains("hint: see its version"), "{stale}");
    let found = server.ok(&verb(&["search", "coffee", "-n", "1", "-o", "json"]));
    let hit = json_lines(&found).remove(0)["hits"][0]["memory"].clone();
    assert_eq!((hit["id"].as_str(), hit["scope"].is_null()), (Some("ada"), true), "{hit}");
    assert_eq!(hit["metadata"]["cup"], serde_json::json!({"size": 3, "sort": "mug"}));

    let history = json_lines(&server.ok(&verb(&["history", "ada", "-o", "json"])));
    assert_eq!(history.len(), 2);
    assert_eq!((history[0]["actor"].as_str(), history[0]["reason"].as_str()), (Some("cli"), Some("she said so")));
    assert_eq!(
        (history[1]["change"].as_str(), history[1]["memory"]["content"].as_str()),
        (Some("created"), Some("Ada drinks tea"))
    );
    let newest = server.run(&verb(&["history", "ada", "-n", "1"]));
    assert!(newest.stdout.starts_with("2\tupdated\t") && newest.stderr.contains("--all"), "{newest:?}");

    assert!(server.fails(&verb(&["update", "ada"]), USAGE).contains("nothing to change"));
    assert!(server.fails(&verb(&["update", "ada", "--clear", "id"]), USAGE).contains("is not one of text"));
    server.fails(&verb(&["update", "nobody", "--kind", "x"]), NOT_FOUND);
    server.ok(&verb(&["rm", "ada", "--yes"]));
    server.fails(&verb(&["history", "ada"]), NOT_FOUND);

    server.ok(&["space", "create", "bare", "--dimension", "2"]);
    server.ok(&["add", "one", "--id", "a", "--vector", "1,0", "--space", "bare"]);
    let needed = server.fails(&["update", "a", "two", "--space", "bare"], PRECONDITION);
    assert!(needed.contains("hint: bring one with --vector"), "{needed}");
    assert_eq!(server.ok(&["update", "a", "two", "--clear", "vector", "--space", "bare"]), "a\tupdated\t2\n");
}

fn files_go_in_as_they_came_out(server: &Server, directory: &Path) {
    let lines: String = (0..1_500)
        .map(|number| format!("{{\"id\": \"f{number}\", \"content\": \"note {number}\", \"metadata\": {{\"n\": {number}, \"due\": {{\"$time\": \"2026-02-03T14:40:00Z\"}}}}}}\n"))
        .collect();
    let path = directory.join("notes.jsonl");
    std::fs::write(&path, lines).unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(server.ok(&["add", "--file", path, "--user", "import"]), "1,500 memories: 1,500 created\n");
    let out = server.ok(&["ls", "--all", "--user", "import", "-o", "json"]);
    assert_eq!(out.lines().count(), 1_500);
    server.ok(&["space", "create", "copy", "--embedder", "hash"]);
    let copied = server.run_with_input(&["add", "--file", "-", "--space", "copy"], &out);
    assert_eq!(copied.stdout, "1,500 memories: 1,500 created\n", "{copied:?}");
    let again = server.ok(&["ls", "--all", "--space", "copy", "-o", "json"]);
    let without_times = |text: &str| {
        let mut memories = json_lines(text);
        for memory in &mut memories {
            memory.as_object_mut().unwrap().remove("updated_at");
        }
        memories.sort_by_key(|memory| memory["id"].to_string());
        memories
    };
    assert_eq!(without_times(&again), without_times(&out));

    std::fs::write(directory.join("bad.jsonl"), "{\"content\": \"fine\"}\n{\"text\": \"not a field\"}\n").unwrap();
    let bad = directory.join("bad.jsonl");
    let said = server.fails(&["add", "--file", bad.to_str().unwrap()], USAGE);
    assert!(said.contains("bad.jsonl:2: text: is not a field of a memory"), "{said}");
}

fn deleting(server: &Server) {
    let said = server.fails(&["rm", "milk", "not milk", "--space", "default"], USAGE);
    assert!(said.contains("hint: say so with `cairn rm milk 'not milk' --space default --yes`"), "{said}");
    let (_listener, silent) = silent();
    let over = run_at(&silent, &["rm", "--user", "nobody", "--timeout", "200ms", "--yes"], "");
    assert_eq!(over.code, DEADLINE, "{over:?}");
    assert!(over.stderr.contains("`cairn rm --timeout 60s --user nobody --request-id "), "{over:?}");
    assert_eq!(server.ok(&["rm", "milk", "nobody", "--yes"]), "1\n");
    server.fails(&["rm", "--yes"], USAGE);
    assert_eq!(server.ok(&["rm", "--user", "import", "--where", "metadata.n < 500", "--yes"]), "500\n");
    assert_eq!(server.ok(&["count", "--user", "import"]), "1000\n");
    assert_eq!(server.ok(&["rm", "--all", "--yes"]), "1002\n");
    let empty = server.run(&["ls"]);
    assert_eq!((empty.code, empty.stdout.as_str()), (DONE, ""), "{empty:?}");
}

fn wrong_arguments(server: &Server) {
    let pointed = server.fails(&["ls", "--filter", "kind = fact"], USAGE);
    assert!(pointed.contains("  kind = fact\n         ^"), "{pointed}");
    let limit = server.fails(&["search", "x", "-n", "5000"], USAGE);
    assert!(limit.contains("limit"), "{limit}");
    server.fails(&["add", "x", "--ttl", "soon"], USAGE);
    assert!(server.fails(&["add", " "], USAGE).contains("the text is empty"));
    let unknown = server.fails(&["space", "create", "x", "--embedder", "gpt"], PRECONDITION);
    assert!(unknown.contains("this node has: hash") && unknown.contains("--embedder"), "{unknown}");
    server.fails(&["ls", "--include-vectors"], USAGE);
    server.fails(&["ls", "--endpoint", "https://127.0.0.1:1"], USAGE);
    server.fails(&["ls", "--at-least", "nonsense"], USAGE);
    server.fails(&["frobnicate"], USAGE);
}

fn inspecting(data: &Path, root_key: &Path) {
    let (data, root_key) = (data.to_str().unwrap(), root_key.to_str().unwrap());
    let ran = run_at("http://127.0.0.1:1", &["inspect", data, "--root-key", root_key, "-o", "json"], "");
    assert_eq!(ran.code, DONE, "{ran:?}");
    let report = json_lines(&ran.stdout).remove(0);
    assert_eq!((report["node_id"].as_u64(), report["in_use"].as_bool()), (Some(1), Some(false)));
    assert_eq!(report["keyring"]["cluster_id"], report["cluster_id"]);
    assert!(report["segments"].as_array().is_some_and(|segments| !segments.is_empty()), "{report}");
    let rows = report["store"]["rows"].as_array().unwrap();
    assert!(rows.iter().any(|kind| kind["kind"] == "meta"), "{report}");
    let show = |more: &[&str]| {
        run_at("http://127.0.0.1:1", &[&["inspect", data, "--root-key", root_key, "--rows"], more].concat(), "")
    };
    let all = show(&["--all"]);
    assert_eq!((all.code, all.stderr.as_str()), (DONE, ""), "{all:?}");
    let expected =
        ["space_name 1/default = space 1\n", "tenant_name default = 1\n", "memory 1/", " = \"two\" v2 created="];
    assert!(expected.iter().all(|text| all.stdout.contains(text)), "{all:?}");
    assert!(!all.stdout.contains("cannot be shown"), "{all:?}");
    let some = show(&["--kind", "space", "-n", "1", "-o", "json"]);
    let row = json_lines(&some.stdout).remove(0);
    assert_eq!((row["kind"].as_str(), some.stderr.contains("--all")), (Some("space"), true), "{some:?}");
    let unknown = show(&["--kind", "memories"]);
    assert!(unknown.code == USAGE && unknown.stderr.contains("memory, vector"), "{unknown:?}");
    let sealed = run_at("http://127.0.0.1:1", &["inspect", data, "--rows"], "");
    assert!(sealed.code == USAGE && sealed.stderr.contains("--root-key"), "{sealed:?}");

    // Of a damaged store all is told that can be read, and what cannot.
    let generation = Path::new(data).join("group-0/gen-000001");
    let file = generation.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|end| end == "sst")).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.iter_mut().skip(100).take(500).for_each(|byte| *byte ^= 0x55);
    std::fs::write(&file, bytes).unwrap();
    let damaged = run_at("http://127.0.0.1:1", &["inspect", data, "-o", "json"], "");
    let report = json_lines(&damaged.stdout).remove(0);
    assert_eq!((damaged.code, report["node_id"].as_u64()), (1, Some(1)), "{damaged:?}");
    assert!(report["store"]["problem"].as_str().is_some_and(|text| text.contains("sst")), "{damaged:?}");
    assert!(damaged.stderr.contains("hint: "), "{damaged:?}");
    let table = run_at("http://127.0.0.1:1", &["inspect", data, "-o", "table"], "");
    assert!(table.code == 1 && table.stdout.contains("gen-000001"), "{table:?}");

    let elsewhere = run_at("http://127.0.0.1:1", &["inspect", "/"], "");
    assert!(elsewhere.code == USAGE && elsewhere.stderr.contains("no data directory of Cairn"), "{elsewhere:?}");
    assert!(elsewhere.stderr.contains("hint: give the data directory of a node"), "{elsewhere:?}");
    let key = run_at("http://127.0.0.1:1", &["inspect", data, "--root-key", "/dev/null"], "");
    assert!(key.code == PRECONDITION && key.stderr.contains("hint: give the root key"), "{key:?}");
}

/// `doctor`, `status --watch`, `completion`.
fn looking_after_a_cluster(server: &Server, directory: &Path) {
    let data = directory.join("data");
    let report = json_lines(&server.ok(&["doctor", "--data", data.to_str().unwrap(), "-o", "json"]));
    let checks: Vec<&str> = report.iter().map(|finding| finding["check"].as_str().unwrap()).collect();
    for check in ["open files", "free space", "sync latency", "quorum", "versions", "digests", "clocks", "disk"] {
        assert!(checks.contains(&check), "{check}: {report:?}");
    }
    assert!(!data.read_dir().unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().contains("doctor")));

    let bad = directory.join("bad.yaml");
    std::fs::write(&bad, "node: { id: 0 }").unwrap();
    let ran = server.run(&["doctor", "--offline", "--config", bad.to_str().unwrap()]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, "error: 1 check failed\n"), "{ran:?}");
    assert!(ran.stdout.contains("fail\tconfiguration\tnode.id: "), "{ran:?}");
    let ran = run_at("http://127.0.0.1:9", &["doctor", "--timeout", "1s"], "");
    assert!(ran.code == 1 && ran.stdout.contains("fail\tcluster\t"), "{ran:?}");

    let watched = json_lines(&server.ok(&["status", "--watch=50ms", "-n", "2", "-o", "json"]));
    assert_eq!((watched.len(), watched[1]["leader_id"].as_u64()), (2, Some(1)));
    assert!(server.fails(&["status", "-n", "2"], USAGE).contains("--watch"));

    for shell in ["bash", "zsh", "fish"] {
        let script = server.ok(&["completion", shell]);
        assert!(script.contains("search") && script.contains("cairn"), "{shell}");
    }
}

fn contexts(server: &Server, directory: &Path) {
    let home = directory.join("home");
    let run = |arguments: &[&str], more: &[(&str, &str)]| {
        run_with(&[&[("XDG_CONFIG_HOME", home.to_str().unwrap())], more].concat(), arguments, "")
    };
    let ok = |arguments: &[&str]| {
        let ran = run(arguments, &[]);
        assert_eq!(ran.code, DONE, "{arguments:?}: {ran:?}");
        ran.stdout
    };
    server.ok(&["space", "create", "elsewhere"]);
    let (here, nowhere) = (server.endpoint.as_str(), "http://127.0.0.1:9");
    ok(&["context", "add", "here", "--endpoint", here, "--space", "elsewhere"]);
    let listed = ok(&["context", "add", "nowhere", "--endpoint", nowhere]);
    assert_eq!(listed, format!("here\ttrue\t{here}\telsewhere\nnowhere\tfalse\t{nowhere}\t\n"));
    assert_eq!(run(&["context", "add", "here", "--endpoint", here], &[]).code, CONFLICT);
    assert_eq!(run(&["context", "add", "other"], &[]).code, USAGE);
    assert_eq!(run(&["context", "add", "other", "--endpoint", "ftp://127.0.0.1"], &[]).code, USAGE);

    assert_eq!(ok(&["count"]), "0\n", "the first context is used, with its space");
    ok(&["context", "use", "nowhere"]);
    assert_eq!(run(&["count"], &[]).code, UNAVAILABLE);
    assert_eq!(ok(&["count", "--context", "here"]), "0\n");
    assert_eq!(run(&["count"], &[("CAIRN_CONTEXT", "here")]).stdout, "0\n");
    assert_eq!(run(&["count"], &[("CAIRN_ENDPOINT", here), ("CAIRN_SPACE", "elsewhere")]).stdout, "0\n");
    ok(&["context", "rm", "nowhere"]);
    let gone = run(&["context", "use", "nowhere"], &[]);
    assert!(gone.code == NOT_FOUND && gone.stderr.contains("cairn context ls"), "{gone:?}");
    server.ok(&["space", "rm", "elsewhere", "--yes"]);
}
