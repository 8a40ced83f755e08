//! What can go wrong with root keys and keyrings.

use std::path::PathBuf;

use crate::crypto::{ClusterId, CryptoError, TenantId};

/// Why a root key or a keyring cannot be used. Every message is one line and says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// No root key where one was expected.
    #[error("no root key in {place}: generate one with `openssl rand -hex 32`, or supply the one this cluster has")]
    RootKeyMissing {
        /// The file or variable.
        place: String,
    },
    /// Others may read the root key file.
    #[error("root key file {path} is open to others (mode {mode:04o}): run `chmod 600 {path}`", path = .path.display())]
    RootKeyExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The text is not a key.
    #[error("{place} holds no root key ({what}): it must be 32 random bytes as 64 hex digits or as base64")]
    RootKeyMalformed {
        /// The file or variable.
        place: String,
        /// What is wrong with it; never the text itself.
        what: &'static str,
    },
    /// The keyring was sealed under another root key.
    #[error("{place} was sealed under another root key: supply the root key that this cluster was created with")]
    WrongRootKey {
        /// Which keyring.
        place: String,
    },
    /// There is no keyring file.
    #[error("no keyring file at {path}: this node has no cluster yet, or the file was lost; in that case copy it from another member", path = .path.display())]
    NotFound {
        /// Where it should be.
        path: PathBuf,
    },
    /// A file is in the way of a new one.
    #[error("{path} exists already and is not replaced: move it away if it is not needed", path = .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The bytes of the keyring are not as they were written.
    #[error("{place} is damaged ({what}): put the keyring file of another member, or its backup, in its place")]
    Damaged {
        /// Which keyring.
        place: String,
        /// What does not fit.
        what: &'static str,
    },
    /// A newer release wrote the keyring.
    #[error(
        "{place} has format {found}, this release reads up to format {supported}: start the release that wrote it, or a newer one"
    )]
    NewerFormat {
        /// Which keyring.
        place: String,
        /// The format that was found.
        found: u8,
        /// The newest format that this release reads.
        supported: u8,
    },
    /// A keyring of another cluster was offered.
    #[error("{place} belongs to cluster {found}, this node to cluster {expected}: check the list of peers")]
    WrongCluster {
        /// Which keyring.
        place: String,
        /// The cluster that it names.
        found: ClusterId,
        /// The cluster that this node belongs to.
        expected: ClusterId,
    },
    /// Keys that contradict those in the keyring, or that nobody may install.
    #[error("keys of tenant {tenant} are refused: {what}")]
    Refused {
        /// The tenant.
        tenant: TenantId,
        /// Why.
        what: &'static str,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Wrapped keys do not open, or no random bytes were to be had.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// Why a tenant has no usable keys. Both are facts of the replicated state, the same on every member that has applied
/// the same log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The keyring has never held keys of this tenant.
    #[error("tenant {0} has no keys in the keyring")]
    Unknown(TenantId),
    /// Its keys were destroyed; what they sealed can never be opened again.
    #[error("the keys of tenant {0} were destroyed")]
    Destroyed(TenantId),
}
