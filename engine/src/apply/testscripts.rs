//! Runs the scripts in `testscripts/`: commands, their outcomes, and the rows that they change, for reading.
//!
//! ```text
//! time SECONDS                     the leader's clock, seconds after the start
//! tenant NUMBER NAME
//! space NAME [dim=N] [dedup=true] [ttl=SECONDS] [rank=integer] [history=DEPTH] [embedder=NAME]
//! drop NAME
//! set SPACE [dedup=BOOL] [ttl=SECONDS] [field=PATH] [version=N] [request=R]     ttl=0: none
//! build [rows=N]                   a step of what changes of spaces have left to do
//! alias NAME [SPACE]               without a space: the alias is removed
//! add SPACE ID... [content=T] [user=U] [namespace=N] [kind=K] [rank=N] [vector=X,Y] [ttl=SECONDS] [created=SECONDS]
//!                 [meta=PATH:TEXT] [mode=insert] [request=R] [actor=A] [reason=R] [embedded=NAME]
//! update SPACE ID [mask=PATH,PATH] [expect=VERSION] and what `add` takes, but for the mode
//! history SPACE ID                 what GetMemoryHistory says, in pages of 2
//! fill SPACE N                     N memories, named #1, #2 and so on in the order of their keys
//! delete SPACE ID... [request=R]
//! wipe SPACE [user=U] [below=RANK] [all=true] [request=R]     one step of a delete by selection
//! expire
//! blank | membership TEXT | again                             `again` applies the last entry a second time
//! ```
//!
//! `+` is a new row, `~` a changed one, `-` a removed one. Lookup ids are shown as what they stand for, times as seconds
//! after the start. Rewrite the expected output with `UPDATE_GOLDENFILES=1`.

mod update;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;

use cairn_proto::storage::command::Body;
use cairn_proto::v1;
use goldenscript::ArgumentConsumer;

use crate::api::{ApplyEntry, Embedded, EntryBody, Principal, WriteRequest};
use crate::crypto::{ClusterId, TenantId};
use crate::engine::Engine;
use crate::keyring::{Keyring, RootKey};
use crate::notation::{self, Notation};
use crate::options::{Limits, Options};
use crate::position::LogId;
use crate::store::keys::{Key, LookupDomain, LookupId, prefix_of_kind};
use crate::store::overlay::row_digest;

const START_MICROS: i64 = 1_767_225_600_000_000;
const SECOND: i64 = 1_000_000;

type Failure = Box<dyn Error>;
type Rows = BTreeMap<Vec<u8>, (String, String)>;

struct Script {
    _dir: tempfile::TempDir,
    engine: Engine,
    now: i64,
    last: Option<ApplyEntry>,
    /// What lookup ids stand for.
    names: BTreeMap<LookupId, String>,
    rows: Rows,
}

impl Script {
    fn new() -> Self {
        let dir = tempfile::TempDir::new().unwrap();
        let root = RootKey::from_bytes(&[7; 32]);
        let keyring = Keyring::create(&dir.path().join("keyring"), &root, ClusterId([9; 16])).unwrap();
        let limits = Limits { delete_scan_rows_max: 2, feed_changes_max: 6, ..Limits::default() };
        let options = Options { limits, ..Options::new(dir.path().join("store")) };
        let engine = Engine::open(&options, Arc::new(keyring)).unwrap();
        let mut script =
            Self { _dir: dir, engine, now: START_MICROS, last: None, names: BTreeMap::new(), rows: Rows::new() };
        script.rows = script.read_rows().unwrap();
        script
    }

    fn apply(&mut self, body: EntryBody) -> Result<String, Failure> {
        let index = self.engine.applied().log_id.map_or(0, |id| id.index) + 1;
        let entry = ApplyEntry { log_id: LogId { term: 1, node_id: 1, index }, body };
        self.last = Some(entry.clone());
        self.apply_entry(&entry)
    }

    fn apply_entry(&mut self, entry: &ApplyEntry) -> Result<String, Failure> {
        let outcome = self.engine.apply(std::slice::from_ref(entry))?.remove(0);
        let mut output = format!("{}\n", notation::outcome(&outcome));
        let after = self.read_rows()?;
        let mut lines = Vec::new();
        for (key, (label, value)) in &self.rows {
            match after.get(key) {
                None => lines.push((key[2], label, format!("- {label}"))),
                Some((_, now)) if now != value => lines.push((key[2], label, format!("~ {label} = {now}"))),
                Some(_) => {}
            }
        }
        for (key, (label, value)) in after.iter().filter(|(key, _)| !self.rows.contains_key(*key)) {
            let value = if value.is_empty() { String::new() } else { format!(" = {value}") };
            lines.push((key[2], label, format!("+ {label}{value}")));
        }
        // In the order of the kinds and then of the names, since lookup ids sort differently under every key.
        lines.sort();
        for (_, _, line) in lines {
            writeln!(output, "{line}")?;
        }
        self.rows = after;
        Ok(output)
    }

    fn write(&mut self, request: WriteRequest) -> Result<String, Failure> {
        self.write_embedded(request, None)
    }

    fn write_embedded(&mut self, request: WriteRequest, embedded: Option<Embedded>) -> Result<String, Failure> {
        let me = Principal::new(TenantId::DEFAULT, "me");
        let prepared = match embedded {
            Some(embedded) => self.engine.prepare_embedded(&me, request, embedded),
            None => self.engine.prepare(&me, request),
        };
        let mut command = match prepared {
            Ok(command) => command,
            Err(error) => return Ok(format!("refused: {error}\n")),
        };
        command.stamp_micros = self.now;
        self.apply(EntryBody::Command(command))
    }

    fn learn(&mut self, domain: LookupDomain, space: Option<u64>, parts: &[&[u8]], name: &str) -> Result<(), Failure> {
        let sealer = self.engine.sealer();
        let space = space.map(u64::to_be_bytes);
        let parts: Vec<&[u8]> = space.iter().map(|space| space.as_slice()).chain(parts.iter().copied()).collect();
        let tenant = u64::from(domain != LookupDomain::TenantName);
        self.names.insert(sealer.lookup_id(tenant, domain, &parts)?, name.to_string());
        Ok(())
    }

    /// Notes what the ids of memories stand for, in the first few spaces.
    fn learn_memories(&mut self, ids: &[String]) -> Result<(), Failure> {
        for id in ids {
            for space in 1..4 {
                self.learn(LookupDomain::MemoryId, Some(space), &[id.as_bytes()], id)?;
            }
        }
        Ok(())
    }

    fn learn_request(&mut self, method: u32, request: &str) -> Result<(), Failure> {
        let parts: [&[u8]; 3] = [b"me", &method.to_le_bytes(), request.as_bytes()];
        self.learn(LookupDomain::Request, None, &parts, request)
    }

    fn read_rows(&self) -> Result<Rows, Failure> {
        let view = self.engine.store().view();
        let group = view.sealer().group();
        let start = prefix_of_kind(group, crate::store::keys::Kind::Meta);
        let end = prefix_of_kind(group, crate::store::keys::Kind::Build).prefix_end();
        let mut cursor = view.cursor(&start, &end, false);
        let mut rows = Rows::new();
        let mut digest = 0u128;
        while let Some((bytes, value)) = cursor.item()? {
            let (_, key) = Key::decode(bytes)?;
            let plain = view.sealer().open_row(&key, value)?;
            if key.kind().in_digest() {
                digest = digest.wrapping_add(row_digest(group, &key, &plain));
            }
            if let Some(shown) = self.show_record(&key, &plain)? {
                rows.insert(bytes.to_vec(), (self.notation(|notation| notation.key(&key)), shown));
            }
            cursor.advance();
        }
        assert_eq!(digest.to_le_bytes(), self.engine.applied().digest, "the digest is that of the rows");
        Ok(rows)
    }

    fn notation<R>(&self, show: impl FnOnce(&Notation<'_>) -> R) -> R {
        let name = |id: &LookupId| self.names.get(id).map_or("?", String::as_str).to_owned();
        show(&Notation { name: &name, time: &seconds })
    }

    /// The record of a row; `None` for rows that are not shown: the header, and requests whose id nobody chose.
    fn show_record(&self, key: &Key, plain: &[u8]) -> Result<Option<String>, Failure> {
        match key {
            Key::Meta(crate::store::keys::MetaItem::Header) => Ok(None),
            Key::Request { request, .. } | Key::RequestExpiry { request, .. } if !self.names.contains_key(request) => {
                Ok(None)
            }
            _ => Ok(Some(self.notation(|notation| notation.record(key, plain))?)),
        }
    }
}

fn seconds(micros: i64) -> String {
    format!("{}s", (micros - START_MICROS) as f64 / SECOND as f64)
}

fn number(args: &mut ArgumentConsumer<'_>, key: &str) -> Result<Option<i64>, Failure> {
    Ok(args.take_key(key).map(str::parse).transpose()?)
}

fn owned(args: &mut ArgumentConsumer<'_>, key: &str) -> Option<String> {
    args.take_key(key).map(str::to_string)
}

fn rest(args: &mut ArgumentConsumer<'_>) -> Vec<String> {
    std::iter::from_fn(|| args.next_pos().map(str::to_string)).collect()
}

fn duration(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

impl Script {
    fn space(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Failure> {
        let name = args.next_pos().ok_or("a name is missing")?.to_string();
        self.learn(LookupDomain::SpaceName, None, &[name.as_bytes()], &name)?;
        let dimension = number(args, "dim")?.unwrap_or(2) as u32;
        let dense = v1::DenseEmbedding { dimension, ..Default::default() };
        let embedder = owned(args, "embedder").unwrap_or_default();
        let embedding = v1::Embedding { kind: Some(v1::embedding::Kind::Dense(dense)), embedder, ..Default::default() };
        let fields = args
            .take_key("rank")
            .map(|_| v1::IndexedField { path: "rank".into(), r#type: v1::FieldType::Integer as i32 });
        let space = v1::Space {
            name,
            embeddings: vec![embedding],
            fields: fields.into_iter().collect(),
            dedup_by_content: args.take_key("dedup").is_some(),
            default_ttl: number(args, "ttl")?.map(duration),
            history_depth: number(args, "history")?.unwrap_or_default() as u32,
            ..Default::default()
        };
        self.write(WriteRequest::CreateSpace(v1::CreateSpaceRequest { space: Some(space), ..Default::default() }))
    }

    /// A memory without an id, of the arguments that say what it holds.
    fn memory(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<v1::Memory, Failure> {
        let namespace = owned(args, "namespace");
        if let Some(path) = &namespace {
            for space in 1..4 {
                self.learn(LookupDomain::Namespace, Some(space), &[path.as_bytes()], path)?;
            }
        }
        let rank = number(args, "rank")?.map(|rank| v1::Value { kind: Some(v1::value::Kind::IntegerValue(rank)) });
        let mut metadata: BTreeMap<_, _> = rank.into_iter().map(|rank| ("rank".to_string(), rank)).collect();
        update::take_metadata(args, &mut metadata)?;
        let created = number(args, "created")?.map(|seconds| START_MICROS + seconds * SECOND);
        Ok(v1::Memory {
            scope: Some(v1::Scope { user_id: owned(args, "user"), namespace, ..Default::default() }),
            kind: owned(args, "kind").unwrap_or_default(),
            content: owned(args, "content").unwrap_or_default(),
            metadata,
            vectors: update::take_vector(args, "vector")?.into_iter().collect(),
            expiry: number(args, "ttl")?.map(|seconds| v1::memory::Expiry::Ttl(duration(seconds))),
            created_at: created.map(crate::time::timestamp_of_micros),
            ..Default::default()
        })
    }

    fn add(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Failure> {
        let space = args.next_pos().ok_or("a space is missing")?.to_string();
        let memory = self.memory(args)?;
        let insert = args.take_key("mode").is_some_and(|mode| mode == "insert");
        let request_id = owned(args, "request").unwrap_or_default();
        self.learn_request(1, &request_id)?;
        let (actor, reason) = (owned(args, "actor"), owned(args, "reason"));
        let embedded = update::take_embedded(args)?;
        let ids = rest(args);
        self.learn_memories(&ids)?;
        let request = WriteRequest::AddMemories(v1::AddMemoriesRequest {
            space,
            memories: ids.into_iter().map(|id| v1::Memory { id, ..memory.clone() }).collect(),
            write_mode: if insert { v1::WriteMode::Insert as i32 } else { 0 },
            request_id,
            actor: actor.unwrap_or_default(),
            reason: reason.unwrap_or_default(),
        });
        self.write_embedded(request, embedded)
    }

    fn fill(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Failure> {
        let space = args.next_pos().ok_or("a space is missing")?.to_string();
        let count: usize = args.next_pos().ok_or("a number is missing")?.parse()?;
        let sealer = self.engine.sealer();
        let number = 1u64.to_be_bytes();
        // Ids are drawn until their keys sort as their names do.
        let mut ids: Vec<(LookupId, String)> = Vec::new();
        let mut draw = 0;
        while ids.len() < count {
            let id = format!("#{}", ids.len() + 1);
            let candidate = format!("{id}{}", "'".repeat(draw));
            let key = sealer.lookup_id(1, LookupDomain::MemoryId, &[&number, candidate.as_bytes()])?;
            let share = ((ids.len() + 1) * 256 / count) as u8;
            let from = (ids.len() * 256 / count) as u8;
            if key[0] >= from && key[0] < share.wrapping_sub(1) {
                ids.push((key, candidate));
                draw = 0;
            } else {
                draw += 1;
            }
        }
        for (key, id) in &ids {
            self.names.insert(*key, id.trim_end_matches('\'').to_string());
        }
        let memories = ids.into_iter().map(|(_, id)| v1::Memory { id, ..Default::default() }).collect();
        let request = v1::AddMemoriesRequest { space, memories, ..Default::default() };
        Ok(self.write(WriteRequest::AddMemories(request))?.replace('\'', ""))
    }

    fn delete(&mut self, args: &mut ArgumentConsumer<'_>, selection: bool) -> Result<String, Failure> {
        let space = args.next_pos().ok_or("a space is missing")?.to_string();
        let request_id = owned(args, "request").unwrap_or_default();
        self.learn_request(3, &request_id)?;
        let target = if selection {
            let user_id = owned(args, "user");
            let filter = number(args, "below")?.map(|below| v1::Filter {
                node: Some(v1::filter::Node::Where(v1::Condition {
                    field: "metadata.rank".into(),
                    test: Some(v1::condition::Test::Lt(v1::Value { kind: Some(v1::value::Kind::IntegerValue(below)) })),
                })),
            });
            v1::delete_memories_request::Target::Selection(v1::Selection {
                scope: user_id.map(|user| v1::Scope { user_id: Some(user), ..Default::default() }),
                filter,
                all: args.take_key("all").is_some(),
            })
        } else {
            v1::delete_memories_request::Target::Ids(v1::MemoryIds { ids: rest(args) })
        };
        self.write(WriteRequest::DeleteMemories(v1::DeleteMemoriesRequest { space, target: Some(target), request_id }))
    }

    fn build(&mut self, rows: Option<i64>) -> Result<String, Failure> {
        let Some(mut command) = self.engine.prepare_build()? else { return Ok("nothing is left to do\n".to_string()) };
        command.stamp_micros = self.now;
        if let (Some(Body::AdvanceSpaceBuild(advance)), Some(rows)) = (&mut command.body, rows) {
            advance.rows_max = rows as u32;
        }
        self.apply(EntryBody::Command(command))
    }

    fn set(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Failure> {
        let name = args.next_pos().ok_or("a space is missing")?.to_string();
        let mut space = v1::Space { name, ..Default::default() };
        let mut paths = Vec::new();
        if let Some(dedup) = args.take_key("dedup") {
            space.dedup_by_content = dedup == "true";
            paths.push("dedup_by_content".to_string());
        }
        if let Some(seconds) = number(args, "ttl")? {
            space.default_ttl = (seconds > 0).then(|| duration(seconds));
            paths.push("default_ttl".to_string());
        }
        if let Some(path) = owned(args, "field") {
            space.fields.push(v1::IndexedField { path, r#type: v1::FieldType::Integer as i32 });
            paths.push("fields".to_string());
        }
        let expected_version = number(args, "version")?.unwrap_or_default() as u64;
        let update_mask = Some(prost_types::FieldMask { paths });
        let request_id = owned(args, "request").unwrap_or_default();
        self.learn_request(5, &request_id)?;
        let request = v1::UpdateSpaceRequest { space: Some(space), update_mask, expected_version, request_id };
        self.write(WriteRequest::UpdateSpace(request))
    }

    fn tenant(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Failure> {
        let tenant: u64 = args.next_pos().ok_or("a number is missing")?.parse()?;
        let name = args.next_pos().ok_or("a name is missing")?.to_string();
        self.learn(LookupDomain::TenantName, None, &[name.as_bytes()], &name)?;
        match self.engine.prepare_create_tenant(TenantId(tenant), &name) {
            Ok(mut command) => {
                command.stamp_micros = self.now;
                self.apply(EntryBody::Command(command))
            }
            Err(error) => Ok(format!("refused: {error}\n")),
        }
    }
}

impl goldenscript::Runner for Script {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &goldenscript::Command, _: &goldenscript::Context) -> Result<String, Failure> {
        let mut args = command.consume_args();
        let output = match command.name.as_str() {
            "time" => {
                self.now = START_MICROS + args.next_pos().ok_or("seconds are missing")?.parse::<i64>()? * SECOND;
                String::new()
            }
            "tenant" => self.tenant(&mut args)?,
            "space" => self.space(&mut args)?,
            "drop" => {
                let name = args.next_pos().ok_or("a name is missing")?.to_string();
                self.write(WriteRequest::DeleteSpace(v1::DeleteSpaceRequest { name, ..Default::default() }))?
            }
            "set" => self.set(&mut args)?,
            "build" => {
                let rows = number(&mut args, "rows")?;
                self.build(rows)?
            }
            "alias" => {
                let alias = args.next_pos().ok_or("an alias is missing")?.to_string();
                self.learn(LookupDomain::SpaceName, None, &[alias.as_bytes()], &alias)?;
                let space = args.next_pos().map(str::to_string).unwrap_or_default();
                self.write(WriteRequest::SetAlias(v1::SetAliasRequest { alias, space, ..Default::default() }))?
            }
            "add" => self.add(&mut args)?,
            "update" => self.update(&mut args)?,
            "history" => self.history(&mut args)?,
            "fill" => self.fill(&mut args)?,
            "delete" => self.delete(&mut args, false)?,
            "wipe" => self.delete(&mut args, true)?.replace('\'', ""),
            "expire" => match self.engine.prepare_expiry(self.now)? {
                Some(mut command) => {
                    command.stamp_micros = self.now;
                    self.apply(EntryBody::Command(command))?
                }
                None => "nothing is due\n".to_string(),
            },
            "blank" => self.apply(EntryBody::Blank)?,
            "membership" => {
                let membership = args.next_pos().ok_or("a membership is missing")?.as_bytes().to_vec();
                self.apply(EntryBody::Membership { encoded: membership.into(), node_ids: vec![1] })?
            }
            "again" => {
                let entry = self.last.clone().ok_or("nothing was applied yet")?;
                self.apply_entry(&entry)?
            }
            other => return Err(format!("unknown command {other}").into()),
        };
        args.reject_next()?;
        Ok(output)
    }
}

fn run(name: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/apply/testscripts").join(name);
    goldenscript::run(&mut Script::new(), path).unwrap();
}

#[test]
fn tenants_and_spaces() {
    run("tenants_and_spaces");
}

#[test]
fn aliases() {
    run("aliases");
}

#[test]
fn space_updates() {
    run("space_updates");
}

#[test]
fn memories() {
    run("memories");
}

#[test]
fn updates() {
    run("updates");
}

#[test]
fn histories() {
    run("histories");
}

#[test]
fn embedded_content() {
    run("embedded_content");
}

#[test]
fn exactly_once() {
    run("exactly_once");
}

#[test]
fn delete_by_selection() {
    run("delete_by_selection");
}

#[test]
fn expiry() {
    run("expiry");
}

#[test]
fn content_dedup() {
    run("content_dedup");
}
