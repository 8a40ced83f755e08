//! Requests on their way in: everything about a write that needs no state, and the answers on the way out.
//!
//! ```text
//!   WriteRequest ──checks──▶ ids made, fingerprint taken ──▶ Mutation ──sealed──▶ Command
//!   Outcome + position ──respond──▶ WriteResponse, or the error that the failure stands for
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `limits` | every limit as a constant |
//! | `path` | names of fields in violations |
//! | `memory`, `space`, `update_space` | checks of what a request carries |
//! | `update`, `mask` | updates of a memory, and which of its fields they change |
//! | `respond` | outcomes as answers |

pub(crate) mod limits;
pub(crate) mod mask;
pub(crate) mod memory;
pub(crate) mod path;
mod respond;
pub(crate) mod space;
mod update;
pub(crate) mod update_space;

pub(crate) use respond::respond;
pub(crate) use update::text_to_embed;

use std::collections::HashMap;

use cairn_index::Schema;
use cairn_proto::storage::command::Body;
use cairn_proto::storage::mutation::Operation;
use cairn_proto::storage::{
    AddMemories, Command, CreateSpace, CreateTenant, DeleteMemories, DeleteSpace, Mutation, PackedContent, RequestKey,
    SealedMutation, SetAlias,
};
use cairn_proto::v1;
use cairn_proto::v1::delete_memories_request::Target;
use prost::Message;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::api::{Embedded, Principal, WriteRequest};
use crate::content::pack_content;
use crate::crypto::TenantId;
use crate::error::{Error, Result};
use crate::filters;
use crate::store::sealing::{Place, Sealer};
use limits::{CALL_BYTES_MAX, ITEMS_MAX, NAME_BYTES_MAX, REASON_BYTES_MAX, REQUEST_ID_BYTES_MAX, WORD_BYTES_MAX};
use path::{FieldPath, Violations};

/// What was called, as a part of what makes a request unique. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Method {
    AddMemories = 1,
    UpdateMemory = 2,
    DeleteMemories = 3,
    CreateSpace = 4,
    UpdateSpace = 5,
    DeleteSpace = 6,
    SetAlias = 7,
}

/// The cluster version that all commands of this release need.
const COMMAND_CLUSTER_VERSION: u32 = 1;

/// See [`crate::Engine::prepare_embedded`]. The fingerprint is of what the caller sent, without the vectors that were made
/// for it, so that a retry is recognized also where an embedder gives slightly other vectors the second time.
pub(crate) fn prepare(
    sealer: &Sealer,
    principal: &Principal,
    request: WriteRequest,
    embedded: Option<Embedded>,
) -> Result<Command> {
    let (method, request_id, fingerprint, operation) = match request {
        WriteRequest::AddMemories(mut request) => {
            let request_id = std::mem::take(&mut request.request_id);
            let fingerprint = fingerprint(Method::AddMemories, &request);
            (Method::AddMemories, request_id, fingerprint, add_memories(request, embedded)?)
        }
        WriteRequest::UpdateMemory(mut request) => {
            let request_id = std::mem::take(&mut request.request_id);
            let fingerprint = fingerprint(Method::UpdateMemory, &request);
            (Method::UpdateMemory, request_id, fingerprint, update::update_memory(request, embedded)?)
        }
        WriteRequest::DeleteMemories(mut request) => {
            let request_id = std::mem::take(&mut request.request_id);
            let fingerprint = fingerprint(Method::DeleteMemories, &request);
            (Method::DeleteMemories, request_id, fingerprint, delete_memories(request)?)
        }
        WriteRequest::CreateSpace(mut request) => {
            let request_id = std::mem::take(&mut request.request_id);
            let fingerprint = fingerprint(Method::CreateSpace, &request);
            let space = request.space.unwrap_or_default();
            let operation = Operation::CreateSpace(CreateSpace { space: Some(space::checked_space(&space)?) });
            (Method::CreateSpace, request_id, fingerprint, operation)
        }
        WriteRequest::DeleteSpace(mut request) => {
            let request_id = std::mem::take(&mut request.request_id);
            let fingerprint = fingerprint(Method::DeleteSpace, &request);
            check_space_name("name", &request.name)?;
            let operation = Operation::DeleteSpace(DeleteSpace { name: request.name });
            (Method::DeleteSpace, request_id, fingerprint, operation)
        }
        WriteRequest::UpdateSpace(request) => {
            identified(Method::UpdateSpace, request, |request| &mut request.request_id, update_space::update_space)?
        }
        WriteRequest::SetAlias(request) => {
            identified(Method::SetAlias, request, |request| &mut request.request_id, set_alias)?
        }
    };
    let request = request_key(principal, method, request_id, fingerprint)?;
    let packed_bytes = packed_bytes(&operation);
    let mutation = Mutation { request: Some(request), operation: Some(operation) };
    let plain = mutation.encode_to_vec();
    let (key_id, payload) = sealer.seal_packed(Place::Command, principal.tenant.0, &plain, packed_bytes)?;
    Ok(Command {
        cluster_version: COMMAND_CLUSTER_VERSION,
        stamp_micros: 0,
        tenant_id: principal.tenant.0,
        body: Some(Body::Sealed(SealedMutation { key_id, payload: payload.into() })),
    })
}

/// Bytes of an operation that do not shrink: packed texts, and vectors.
fn packed_bytes(operation: &Operation) -> usize {
    let of_vectors = |memory: &v1::Memory| memory.vectors.iter().map(Message::encoded_len).sum::<usize>();
    match operation {
        Operation::AddMemories(add) => {
            let texts: usize = add.packed_contents.iter().map(|content| content.packed.len()).sum();
            texts + add.memories.iter().map(of_vectors).sum::<usize>()
        }
        Operation::UpdateMemory(update) => {
            let text = update.packed_content.as_ref().map_or(0, |content| content.packed.len());
            text + update.memory.as_ref().map_or(0, of_vectors)
        }
        _ => 0,
    }
}

/// A request without its id, its fingerprint, and what it asks for.
fn identified<R: Message>(
    method: Method,
    mut request: R,
    request_id: fn(&mut R) -> &mut String,
    operation: fn(R) -> Result<Operation>,
) -> Result<(Method, String, Vec<u8>, Operation)> {
    let request_id = std::mem::take(request_id(&mut request));
    let fingerprint = fingerprint(method, &request);
    Ok((method, request_id, fingerprint, operation(request)?))
}

/// See [`crate::Engine::prepare_create_tenant`].
pub(crate) fn prepare_create_tenant(sealer: &Sealer, tenant: TenantId, name: &str) -> Result<Command> {
    let mut violations = Violations::default();
    space::check_name(name, &FieldPath::root("name"), &mut violations);
    violations.into_result()?;
    let keys = sealer
        .keyring()
        .new_tenant_keys(tenant)
        .map_err(|e| Error::already_exists("tenant", &tenant.to_string()).with_source(e))?;
    let (system_key_id, sealed_name) = sealer.seal(Place::TenantName, 0, name.as_bytes())?;
    let create = CreateTenant { keys: Some(keys), system_key_id, sealed_name: sealed_name.into() };
    Ok(system_command(Body::CreateTenant(create)))
}

/// A command of the system, without a stamp.
pub(crate) fn system_command(body: Body) -> Command {
    Command { cluster_version: COMMAND_CLUSTER_VERSION, stamp_micros: 0, tenant_id: 0, body: Some(body) }
}

fn fingerprint(method: Method, request: &impl Message) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update((method as u32).to_le_bytes());
    hash.update(request.encode_to_vec());
    hash.finalize()[..16].to_vec()
}

fn request_key(principal: &Principal, method: Method, request_id: String, fingerprint: Vec<u8>) -> Result<RequestKey> {
    let mut violations = Violations::default();
    violations.check_bytes(&FieldPath::root("request_id"), &request_id, 0, REQUEST_ID_BYTES_MAX);
    violations.into_result()?;
    let generated = request_id.is_empty();
    Ok(RequestKey {
        principal: principal.name.clone(),
        method: method as u32,
        request_id: if generated { draw_id() } else { request_id },
        fingerprint: fingerprint.into(),
        generated,
    })
}

/// A new id: drawn here, before the command is proposed, so that all replicas apply the same one.
#[expect(clippy::disallowed_methods, reason = "drawn once, and replicated from here on")]
fn draw_id() -> String {
    Uuid::now_v7().to_string()
}

/// Checks the name or alias that a request names a space by.
pub(crate) fn check_space_name(field: &str, name: &str) -> Result<()> {
    let mut violations = Violations::default();
    violations.check_bytes(&FieldPath::root(field), name, 1, NAME_BYTES_MAX);
    violations.into_result()
}

/// Whether a memory is written with content and without a vector.
pub(crate) fn wants_vector(memory: &v1::Memory) -> bool {
    memory.vectors.is_empty() && !memory.content.is_empty()
}

fn add_memories(mut request: v1::AddMemoriesRequest, embedded: Option<Embedded>) -> Result<Operation> {
    check_space_name("space", &request.space)?;
    let (mut embedded_by, mut made) = (None, "");
    if let Some(embedded) = embedded {
        if embedded.vectors.iter().any(Option::is_some) {
            made = " with the vectors that the server made";
        }
        for (memory, vector) in request.memories.iter_mut().zip(embedded.vectors) {
            if wants_vector(memory) {
                memory.vectors.extend(vector);
            }
        }
        embedded_by = Some(embedded.by.into());
    }
    let mut violations = Violations::default();
    let path = FieldPath::root("memories");
    check_items(&path, request.memories.len(), &mut violations);
    let bytes = request.encoded_len();
    if bytes > CALL_BYTES_MAX {
        violations.add(&path, format!("the call has {bytes} bytes{made}; at most {CALL_BYTES_MAX} are allowed"));
    }
    violations.check_bytes(&FieldPath::root("actor"), &request.actor, 0, WORD_BYTES_MAX);
    violations.check_bytes(&FieldPath::root("reason"), &request.reason, 0, REASON_BYTES_MAX);
    let insert_only = match v1::WriteMode::try_from(request.write_mode) {
        Ok(mode) => mode == v1::WriteMode::Insert,
        Err(_) => {
            violations.add(&FieldPath::root("write_mode"), "must be UPSERT or INSERT");
            false
        }
    };
    let mut first_use = HashMap::new();
    for (position, memory) in request.memories.iter().enumerate().take(ITEMS_MAX) {
        let path = path.at(position);
        memory::check_memory(memory, &path, &mut violations)?;
        if !memory.id.is_empty()
            && let Some(first) = first_use.insert(memory.id.as_str(), position)
        {
            violations.add(&path.field("id"), format!("is the same as that of memories[{first}]"));
        }
        if violations.is_full() {
            break;
        }
    }
    violations.into_result()?;

    let mut memories = request.memories;
    for memory in &mut memories {
        if memory.id.is_empty() {
            memory.id = draw_id();
        }
        memory.updated_at = None;
        memory.version = 0;
        memory.content_hash.clear();
    }
    let packed_contents = packed_contents(&mut memories)?;
    let (space, actor, reason) = (request.space, request.actor, request.reason);
    let add = AddMemories { space, memories, insert_only, actor, reason, embedded_by, packed_contents };
    Ok(Operation::AddMemories(add))
}

/// The texts of memories, taken out of them where they are worth packing; nothing where none is.
fn packed_contents(memories: &mut [v1::Memory]) -> Result<Vec<PackedContent>> {
    let packed = memories.iter_mut().map(pack_content).collect::<Result<Vec<_>>>()?;
    let is_empty = packed.iter().all(|content| content.packed.is_empty());
    Ok(if is_empty { Vec::new() } else { packed })
}

fn delete_memories(request: v1::DeleteMemoriesRequest) -> Result<Operation> {
    check_space_name("space", &request.space)?;
    let (ids, scope, filter) = match request.target {
        Some(Target::Ids(ids)) => {
            check_ids(&FieldPath::root("ids").field("ids"), &ids.ids)?;
            (ids.ids, None, None)
        }
        Some(Target::Selection(selection)) => {
            check_selection(&selection)?;
            (Vec::new(), selection.scope, selection.filter)
        }
        None => return Err(Error::invalid("target", "must set ids or selection")),
    };
    Ok(Operation::DeleteMemories(DeleteMemories { space: request.space, ids, scope, filter }))
}

fn set_alias(request: v1::SetAliasRequest) -> Result<Operation> {
    let mut violations = Violations::default();
    space::check_name(&request.alias, &FieldPath::root("alias"), &mut violations);
    violations.check_bytes(&FieldPath::root("space"), &request.space, 0, NAME_BYTES_MAX);
    violations.into_result()?;
    Ok(Operation::SetAlias(SetAlias { alias: request.alias, space: request.space }))
}

/// Checks a list of ids: 1 to 1,000, each 1 to 255 bytes.
pub(crate) fn check_ids(path: &FieldPath<'_>, ids: &[String]) -> Result<()> {
    let mut violations = Violations::default();
    check_items(path, ids.len(), &mut violations);
    for (position, id) in ids.iter().enumerate().take(ITEMS_MAX) {
        violations.check_bytes(&path.at(position), id, 1, WORD_BYTES_MAX);
    }
    violations.into_result()
}

fn check_items(path: &FieldPath<'_>, count: usize, violations: &mut Violations) {
    if count == 0 || count > ITEMS_MAX {
        violations.add(path, format!("has {count} items; 1 to {ITEMS_MAX} are allowed"));
    }
}

/// A delete by selection has to say what it means: an empty selection is refused rather than taken for everything.
fn check_selection(selection: &v1::Selection) -> Result<()> {
    let path = FieldPath::root("selection");
    let mut violations = Violations::default();
    if let Some(scope) = &selection.scope {
        memory::check_scope(scope, &path.field("scope"), &mut violations);
    }
    let narrows =
        selection.scope.as_ref().is_some_and(|scope| *scope != v1::Scope::default()) || selection.filter.is_some();
    if selection.all && narrows {
        violations.add(&path.field("all"), "must not be set beside a scope or a filter");
    }
    if !selection.all && !narrows {
        violations.add(&path, "must hold a scope value or a filter, or set all");
    }
    violations.into_result()?;
    filters::selection("selection.", None, selection.filter.as_ref(), &Schema::default()).map(|_| ())
}
