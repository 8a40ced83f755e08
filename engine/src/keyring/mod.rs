//! Keys and who they belong to: the root key, and the keyring file that it opens.
//!
//! ```text
//!   root key (file or environment; never stored by Cairn)
//!     └─ wraps the key-encryption keys, versioned            ┐
//!          └─ wrap, per tenant, data key (versioned)         │ the keyring file
//!             and lookup key; tenant 0 is the system         ┘
//!               └─ seal records; wrap the keys of files (in those files' headers)
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `root_key` | the root key and where it may come from |
//! | `format` | the byte map of the keyring file |
//! | `durable_file` | files that are replaced atomically and survive a crash at any step |
//! | `wrap` | wrapping of a tenant's keys under a key-encryption key |
//! | `tenant_keys` | the prepared keys of one tenant, which seal and open its data |
//! | `error` | [`KeyringError`], [`KeyError`] |
//!
//! The keyring lies beside the store, never in it, in no snapshot and in no archived log: whoever holds a backup of the
//! data holds no keys, and destroying a tenant's keys here destroys what they sealed everywhere.

mod durable_file;
mod error;
mod format;
mod root_key;
mod tenant_keys;
mod wrap;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_proto::storage::{TenantTombstone, WrappedTenantKeys};
use parking_lot::{Mutex, RwLock};

pub use error::{KeyError, KeyringError};
pub use root_key::RootKey;
pub use tenant_keys::TenantKeys;

use crate::crypto::{ClusterId, FileKey, KeyId, SecretKey, StoredFileKey, TenantId};
use format::Contents;
use wrap::{Keks, OpenedKeys};

#[cfg(test)]
mod tests;

/// What [`Keyring::install_tenant_keys`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The keys were not there; they are now, durably.
    New,
    /// The same keys were there already.
    Present,
    /// The tenant's keys were destroyed since; nothing was installed.
    Destroyed,
}

/// What the keyring holds of one tenant.
enum Tenant {
    Live { wrapped: Vec<WrappedTenantKeys>, keys: Arc<TenantKeys> },
    Destroyed(TenantTombstone),
}

struct State {
    keks: Arc<Keks>,
    tenants: BTreeMap<TenantId, Tenant>,
}

/// The keys of one node, all opened, and the file that keeps them.
///
/// Invariants:
/// - What memory holds, the file held durably before: every change is written, synced and renamed into place first.
/// - The system (tenant 0) always has keys.
/// - A destroyed tenant never has keys again.
/// - All versions of a tenant's keys share one lookup key.
pub struct Keyring {
    path: PathBuf,
    root: RootKey,
    cluster_id: ClusterId,
    system: Arc<TenantKeys>,
    state: RwLock<State>,
    /// Held over a change, so that changes reach the file one after the other while readers go on.
    changing: Mutex<()>,
}

impl Keyring {
    /// Makes the keyring of a new cluster, with a key-encryption key and the system's keys, in a new file at `path`.
    ///
    /// # Errors
    /// [`KeyringError::Exists`] when there is a file already; [`KeyringError::Io`].
    pub fn create(path: &Path, root: &RootKey, cluster_id: ClusterId) -> Result<Keyring, KeyringError> {
        let keks = Keks::generate()?;
        let system = keks.new_tenant_keys(cluster_id, TenantId::SYSTEM, KeyId(1), &SecretKey::generate()?)?;
        let contents = Contents { cluster_id, keks, tenants: vec![system], tombstones: Vec::new() };
        durable_file::create_new(path, &contents.encode(root)?)?;
        Keyring::from_contents(path, root, contents)
    }

    /// Opens the keyring file at `path`.
    ///
    /// # Errors
    /// [`KeyringError::NotFound`], [`KeyringError::WrongRootKey`], [`KeyringError::Damaged`],
    /// [`KeyringError::NewerFormat`], [`KeyringError::Io`].
    pub fn open(path: &Path, root: &RootKey) -> Result<Keyring, KeyringError> {
        durable_file::remove_leftovers(path)?;
        let bytes = durable_file::read(path)?;
        let contents = Contents::decode(&format!("keyring file {}", path.display()), &bytes, root)?;
        Keyring::from_contents(path, root, contents)
    }

    /// Stores a keyring that another member exported in a new file at `path`.
    ///
    /// # Errors
    /// As [`Keyring::create`] and [`Keyring::open`].
    pub fn import(path: &Path, exported: &[u8], root: &RootKey) -> Result<Keyring, KeyringError> {
        let contents = Contents::decode(RECEIVED, exported, root)?;
        durable_file::create_new(path, &contents.encode(root)?)?;
        Keyring::from_contents(path, root, contents)
    }

    /// The whole keyring as bytes for another member of this cluster, sealed under the root key.
    ///
    /// # Errors
    /// [`KeyringError::Crypto`] when the operating system gives no random bytes.
    pub fn export(&self) -> Result<Vec<u8>, KeyringError> {
        self.contents(&self.state.read()).encode(&self.root)
    }

    /// Takes over whatever an exported keyring of the same cluster holds beyond this one: for a member that installs a
    /// snapshot and so never sees the log entries that carried newer keys. Tombstones of either side win.
    ///
    /// # Errors
    /// [`KeyringError::WrongCluster`], [`KeyringError::Refused`] when keys contradict each other, and as [`Keyring::open`].
    pub fn merge(&self, exported: &[u8]) -> Result<(), KeyringError> {
        let theirs = Contents::decode(RECEIVED, exported, &self.root)?;
        if theirs.cluster_id != self.cluster_id {
            let place = RECEIVED.to_owned();
            return Err(KeyringError::WrongCluster { place, found: theirs.cluster_id, expected: self.cluster_id });
        }
        self.change(|state| {
            let keks = state.keks.union(&theirs.keks)?;
            let mut changed = keks.len() != state.keks.len();
            state.keks = Arc::new(keks);
            for tombstone in theirs.tombstones {
                changed |= state.destroy(tombstone);
            }
            for wrapped in theirs.tenants {
                changed |= state.install(self.cluster_id, wrapped)? == Installed::New;
            }
            Ok(((), changed))
        })
    }

    /// The cluster that this keyring belongs to.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// Makes the keys of a new tenant, wrapped, without installing them: they travel in a log entry first.
    ///
    /// # Errors
    /// [`KeyringError::Refused`] when the tenant has, or had, keys.
    pub fn new_tenant_keys(&self, tenant: TenantId) -> Result<WrappedTenantKeys, KeyringError> {
        let state = self.state.read();
        if state.tenants.contains_key(&tenant) {
            return Err(KeyringError::Refused { tenant, what: "this tenant has, or had, keys already" });
        }
        state.keks.new_tenant_keys(self.cluster_id, tenant, KeyId(1), &SecretKey::generate()?)
    }

    /// Makes the next version of a tenant's data key, wrapped together with its unchanging lookup key, without
    /// installing them. Once they are installed, new values are sealed under it and older versions only open.
    ///
    /// # Errors
    /// [`KeyringError::Refused`] when the tenant has no keys.
    pub fn rotated_tenant_keys(&self, tenant: TenantId) -> Result<WrappedTenantKeys, KeyringError> {
        let state = self.state.read();
        let newest = match state.tenants.get(&tenant) {
            Some(Tenant::Live { wrapped, .. }) => wrapped.last(),
            _ => None,
        };
        let newest = newest.ok_or(KeyringError::Refused { tenant, what: "it has no keys that could be rotated" })?;
        let lookup_key = state.keks.unwrap(self.cluster_id, newest)?.lookup_key;
        state.keks.new_tenant_keys(self.cluster_id, tenant, KeyId(newest.data_key_version + 1), &lookup_key)
    }

    /// Installs wrapped keys durably: the file is replaced and synced before this returns. Doing it again with the same
    /// keys changes nothing.
    ///
    /// # Errors
    /// [`KeyringError::Refused`] when they contradict keys that are there; [`KeyringError::Crypto`] when they do not
    /// open; [`KeyringError::Io`].
    pub fn install_tenant_keys(&self, wrapped: &WrappedTenantKeys) -> Result<Installed, KeyringError> {
        if wrapped.tenant_id == TenantId::SYSTEM.0 {
            return Err(KeyringError::Refused { tenant: TenantId::SYSTEM, what: "the system's keys are made once" });
        }
        self.change(|state| {
            let installed = state.install(self.cluster_id, wrapped.clone())?;
            Ok((installed, installed == Installed::New))
        })
    }

    /// Destroys a tenant's keys durably and for ever, and leaves a tombstone. A second call returns the first tombstone.
    /// Keys that someone still holds through an [`Arc`] go when that is dropped.
    ///
    /// # Errors
    /// [`KeyringError::Refused`] for the system; [`KeyringError::Io`].
    pub fn destroy_tenant(&self, tenant: TenantId, destroyed_at_micros: i64) -> Result<TenantTombstone, KeyringError> {
        if tenant == TenantId::SYSTEM {
            return Err(KeyringError::Refused { tenant, what: "the system's keys are never destroyed" });
        }
        self.change(|state| {
            if let Some(Tenant::Destroyed(tombstone)) = state.tenants.get(&tenant) {
                return Ok((*tombstone, false));
            }
            let tombstone = TenantTombstone { tenant_id: tenant.0, destroyed_at_micros };
            let changed = state.destroy(tombstone);
            Ok((tombstone, changed))
        })
    }

    /// The keys of a tenant.
    ///
    /// # Errors
    /// [`KeyError::Unknown`], [`KeyError::Destroyed`].
    pub fn tenant(&self, tenant: TenantId) -> Result<Arc<TenantKeys>, KeyError> {
        match self.state.read().tenants.get(&tenant) {
            Some(Tenant::Live { keys, .. }) => Ok(Arc::clone(keys)),
            Some(Tenant::Destroyed(_)) => Err(KeyError::Destroyed(tenant)),
            None => Err(KeyError::Unknown(tenant)),
        }
    }

    /// The system's own keys.
    #[must_use]
    pub fn system(&self) -> Arc<TenantKeys> {
        Arc::clone(&self.system)
    }

    /// The tenants that have keys, without the system, in order.
    #[must_use]
    pub fn tenant_ids(&self) -> Vec<TenantId> {
        let live = |(id, tenant): (&TenantId, &Tenant)| {
            (*id != TenantId::SYSTEM && matches!(tenant, Tenant::Live { .. })).then_some(*id)
        };
        self.state.read().tenants.iter().filter_map(live).collect()
    }

    /// Wraps the key of a file under the system's data key, for that file's header. `aad` names the file and its
    /// writer: the key unwraps nowhere else.
    ///
    /// # Errors
    /// [`KeyringError::Crypto`] when the operating system gives no random bytes.
    pub fn wrap_file_key(&self, key: &FileKey, aad: &[u8]) -> Result<Vec<u8>, KeyringError> {
        Ok(self.system.wrap_file_key(key, aad)?)
    }

    /// Unwraps what [`Keyring::wrap_file_key`] made with the same `aad`.
    ///
    /// # Errors
    /// [`KeyringError::Crypto`] when the bytes are damaged, belong to another file or to another cluster.
    pub fn unwrap_file_key(&self, wrapped: &[u8], aad: &[u8]) -> Result<StoredFileKey, KeyringError> {
        Ok(self.system.unwrap_file_key(wrapped, aad)?)
    }

    fn from_contents(path: &Path, root: &RootKey, contents: Contents) -> Result<Keyring, KeyringError> {
        let place = || format!("keyring file {}", path.display());
        let mut state = State { keks: Arc::new(contents.keks), tenants: BTreeMap::new() };
        for tombstone in contents.tombstones {
            state.destroy(tombstone);
        }
        for wrapped in contents.tenants {
            let installed = state.install(contents.cluster_id, wrapped);
            if !matches!(installed, Ok(Installed::New)) {
                return Err(KeyringError::Damaged { place: place(), what: "its keys contradict each other" });
            }
        }
        let Some(Tenant::Live { keys, .. }) = state.tenants.get(&TenantId::SYSTEM) else {
            return Err(KeyringError::Damaged { place: place(), what: "the system's keys are missing" });
        };
        Ok(Keyring {
            path: path.to_owned(),
            root: root.clone(),
            cluster_id: contents.cluster_id,
            system: Arc::clone(keys),
            state: RwLock::new(state),
            changing: Mutex::new(()),
        })
    }

    fn contents(&self, state: &State) -> Contents {
        let mut contents = Contents {
            cluster_id: self.cluster_id,
            keks: (*state.keks).clone(),
            tenants: Vec::new(),
            tombstones: Vec::new(),
        };
        for tenant in state.tenants.values() {
            match tenant {
                Tenant::Live { wrapped, .. } => contents.tenants.extend(wrapped.iter().cloned()),
                Tenant::Destroyed(tombstone) => contents.tombstones.push(*tombstone),
            }
        }
        contents
    }

    /// Works out a change on a copy, makes the file hold it, and only then shows it to readers. `work` returns its
    /// result and whether anything changed.
    fn change<T>(&self, work: impl FnOnce(&mut State) -> Result<(T, bool), KeyringError>) -> Result<T, KeyringError> {
        let _changing = self.changing.lock();
        let mut next = self.state.read().copy();
        let (result, changed) = work(&mut next)?;
        if changed {
            durable_file::replace(&self.path, &self.contents(&next).encode(&self.root)?)?;
            *self.state.write() = next;
        }
        Ok(result)
    }
}

/// How messages name a keyring that came over the network.
const RECEIVED: &str = "the keyring received from another member";

impl State {
    fn copy(&self) -> State {
        let copy = |tenant: &Tenant| match tenant {
            Tenant::Live { wrapped, keys } => Tenant::Live { wrapped: wrapped.clone(), keys: Arc::clone(keys) },
            Tenant::Destroyed(tombstone) => Tenant::Destroyed(*tombstone),
        };
        State {
            keks: Arc::clone(&self.keks),
            tenants: self.tenants.iter().map(|(id, tenant)| (*id, copy(tenant))).collect(),
        }
    }

    /// Leaves a tombstone; `false` when there was one already. The system is passed over.
    fn destroy(&mut self, tombstone: TenantTombstone) -> bool {
        let tenant = TenantId(tombstone.tenant_id);
        if tenant == TenantId::SYSTEM || matches!(self.tenants.get(&tenant), Some(Tenant::Destroyed(_))) {
            return false;
        }
        self.tenants.insert(tenant, Tenant::Destroyed(tombstone));
        true
    }

    fn install(&mut self, cluster_id: ClusterId, wrapped: WrappedTenantKeys) -> Result<Installed, KeyringError> {
        let tenant = TenantId(wrapped.tenant_id);
        let refused = |what| Err(KeyringError::Refused { tenant, what });
        if wrapped.data_key_version == 0 {
            return refused("versions of data keys start at 1");
        }
        match self.tenants.entry(tenant) {
            Entry::Occupied(entry) if matches!(entry.get(), Tenant::Destroyed(_)) => Ok(Installed::Destroyed),
            Entry::Vacant(entry) => {
                let opened = self.keks.unwrap(cluster_id, &wrapped)?;
                let keys = TenantKeys::new(tenant, vec![opened.data_key(&wrapped)], &opened.lookup_key);
                entry.insert(Tenant::Live { wrapped: vec![wrapped], keys: Arc::new(keys) });
                Ok(Installed::New)
            }
            Entry::Occupied(mut entry) => {
                let Tenant::Live { wrapped: all, keys } = entry.get_mut() else { return Ok(Installed::Destroyed) };
                let opened = self.keks.unwrap(cluster_id, &wrapped)?;
                let known: Vec<OpenedKeys> =
                    all.iter().map(|known| self.keks.unwrap(cluster_id, known)).collect::<Result<_, _>>()?;
                if known.iter().any(|known| known.lookup_key != opened.lookup_key) {
                    return refused("another lookup key than the one that is installed");
                }
                let same_version = all.iter().position(|known| known.data_key_version == wrapped.data_key_version);
                if let Some(at) = same_version {
                    let same = known[at].data_key == opened.data_key;
                    return if same { Ok(Installed::Present) } else { refused("another data key of the same version") };
                }
                all.push(wrapped);
                all.sort_by_key(|keys| keys.data_key_version);
                let opened: Vec<OpenedKeys> =
                    all.iter().map(|known| self.keks.unwrap(cluster_id, known)).collect::<Result<_, _>>()?;
                let data_keys = all.iter().zip(&opened).map(|(wrapped, opened)| opened.data_key(wrapped)).collect();
                *keys = Arc::new(TenantKeys::new(tenant, data_keys, &opened[0].lookup_key));
                Ok(Installed::New)
            }
        }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Keyring")
            .field("path", &self.path)
            .field("cluster_id", &self.cluster_id)
            .field("tenants", &self.state.read().tenants.len())
            .finish_non_exhaustive()
    }
}
