//! The engine: one group's state, its store and its partitions.

use std::path::Path;
use std::sync::Arc;

use cairn_proto::{storage, v1};

use crate::api::{AppliedState, ApplyEntry, Checkpoint, Principal, ReadPoint, WriteRequest, WriteResponse};
use crate::crypto::TenantId;
use crate::error::{Error, Result};
use crate::keyring::Keyring;
use crate::options::Options;
use crate::position::{LogId, Position};

/// The newest cluster version whose commands this release applies.
pub const SUPPORTED_CLUSTER_VERSION: u32 = 1;

/// One group's state: records in RocksDB, partitions in memory. All methods block; none needs `&mut`.
pub struct Engine {
    options: Options,
    keyring: Arc<Keyring>,
}

impl Engine {
    /// Opens the store in `options.dir`, or makes it. A directory of another cluster, another program or a newer release
    /// is [`crate::ErrorKind::Refused`].
    pub fn open(options: &Options, keyring: Arc<Keyring>) -> Result<Self> {
        options.validate()?;
        Ok(Self { options: options.clone(), keyring })
    }

    /// The keyring that the engine was opened with.
    #[must_use]
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Checks everything about a write that needs no state, makes ids, and seals it as a command without a stamp.
    pub fn prepare(&self, principal: &Principal, request: WriteRequest) -> Result<storage::Command> {
        let _ = (&self.options, principal, request);
        Err(Error::unimplemented("prepare"))
    }

    /// The command that makes a tenant with new keys. Where the tenant is there already, its outcome is ALREADY_EXISTS.
    pub fn prepare_create_tenant(&self, tenant: TenantId, name: &str) -> Result<storage::Command> {
        let _ = (tenant, name);
        Err(Error::unimplemented("prepare_create_tenant"))
    }

    /// The command that removes what has expired at `now_micros`; `None` where nothing has. For the leader, from time to
    /// time, and again while its outcome says `unfinished`.
    pub fn prepare_expiry(&self, now_micros: i64) -> Result<Option<storage::Command>> {
        let _ = now_micros;
        Err(Error::unimplemented("prepare_expiry"))
    }

    /// Applies committed entries, in order: one atomic write for all of them. Entries at or below the applied index are
    /// skipped, with an empty `Done` as their outcome. A failed command is an outcome; an `Err` means that the node must
    /// stop ([`Error::is_deterministic`] is false).
    pub fn apply(&self, entries: &[ApplyEntry]) -> Result<Vec<storage::Outcome>> {
        let _ = entries;
        Err(Error::unimplemented("apply"))
    }

    /// What has been applied and can be read.
    #[must_use]
    pub fn applied(&self) -> AppliedState {
        AppliedState::default()
    }

    /// The last entry that would still be applied after a crash of the machine; the log must keep all that follow it.
    pub fn durable_applied(&self) -> Result<Option<LogId>> {
        Ok(None)
    }

    /// Makes everything that is applied durable.
    pub fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Makes a consistent copy in a directory that must not be there yet; on the same file system it costs little.
    pub fn checkpoint(&self, dir: &Path) -> Result<Checkpoint> {
        let _ = dir;
        Err(Error::unimplemented("checkpoint"))
    }

    /// An outcome as the answer to the client; a failure as the error that it stands for.
    pub fn respond(&self, outcome: &storage::Outcome, position: Position) -> Result<WriteResponse> {
        let _ = (outcome, position);
        Err(Error::unimplemented("respond"))
    }

    /// See `MemoryService.GetMemories`.
    pub fn get_memories(
        &self,
        principal: &Principal,
        request: &v1::GetMemoriesRequest,
        at: &ReadPoint,
    ) -> Result<v1::GetMemoriesResponse> {
        let _ = (principal, request, at);
        Err(Error::unimplemented("GetMemories"))
    }

    /// See `MemoryService.ListMemories`.
    pub fn list_memories(
        &self,
        principal: &Principal,
        request: &v1::ListMemoriesRequest,
        at: &ReadPoint,
    ) -> Result<v1::ListMemoriesResponse> {
        let _ = (principal, request, at);
        Err(Error::unimplemented("ListMemories"))
    }

    /// See `MemoryService.SearchMemories`. The query must be a vector: the caller has turned text into one.
    pub fn search_memories(
        &self,
        principal: &Principal,
        request: &v1::SearchMemoriesRequest,
        at: &ReadPoint,
    ) -> Result<v1::SearchMemoriesResponse> {
        let _ = (principal, request, at);
        Err(Error::unimplemented("SearchMemories"))
    }

    /// See `MemoryService.CountMemories`.
    pub fn count_memories(
        &self,
        principal: &Principal,
        request: &v1::CountMemoriesRequest,
        at: &ReadPoint,
    ) -> Result<v1::CountMemoriesResponse> {
        let _ = (principal, request, at);
        Err(Error::unimplemented("CountMemories"))
    }

    /// See `MemoryService.ListNamespaces`.
    pub fn list_namespaces(
        &self,
        principal: &Principal,
        request: &v1::ListNamespacesRequest,
        at: &ReadPoint,
    ) -> Result<v1::ListNamespacesResponse> {
        let _ = (principal, request, at);
        Err(Error::unimplemented("ListNamespaces"))
    }

    /// See `SpaceService.GetSpace`.
    pub fn get_space(
        &self,
        principal: &Principal,
        request: &v1::GetSpaceRequest,
        at: &ReadPoint,
    ) -> Result<v1::GetSpaceResponse> {
        let _ = (principal, request, at);
        Err(Error::unimplemented("GetSpace"))
    }

    /// See `SpaceService.ListSpaces`.
    pub fn list_spaces(
        &self,
        principal: &Principal,
        request: &v1::ListSpacesRequest,
        at: &ReadPoint,
    ) -> Result<v1::ListSpacesResponse> {
        let _ = (principal, request, at);
        Err(Error::unimplemented("ListSpaces"))
    }

    /// How many memories all spaces hold together, expired ones that are not removed yet included.
    pub fn memories(&self) -> Result<u64> {
        Ok(0)
    }
}
