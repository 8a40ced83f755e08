//! What the fuzz targets try: decoders of bytes that come from disks and callers.
//!
//! The files are those of `engine` and `raft`, compiled here a second time without RocksDB: with its C++ under a sanitizer a
//! build would take most of an hour. Their names for each other hold, since the modules stand where they stand there.

#![allow(dead_code, unused_imports, reason = "only parts of the files are used here")]

extern crate self as cairn_engine;
extern crate self as cairn_proto;
extern crate self as rocksdb;

/// In the place of RocksDB's errors, which are turned into ours in one file that is needed here.
#[derive(Debug, thiserror::Error)]
#[error("never made")]
pub struct Error;

/// The kind of [`Error`].
#[derive(Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The one that is asked for.
    Corruption,
}

impl Error {
    /// Its kind.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Corruption
    }
}

#[allow(clippy::all)]
mod generated {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/cairn.v1.rs"));
    }

    pub mod storage {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/cairn.storage.v1.rs"));
        }
    }
}

pub use generated::{storage::v1 as storage, v1};

#[path = "../../engine/src/crypto/mod.rs"]
pub mod crypto;
#[path = "../../engine/src/error.rs"]
pub mod error;
#[path = "../../engine/src/filters.rs"]
mod filters;
#[path = "../../engine/src/keyring/mod.rs"]
pub mod keyring;
#[path = "../../engine/src/position.rs"]
pub mod position;
#[path = "../../engine/src/time.rs"]
mod time;

#[path = "."]
mod reads {
    #[path = "../../engine/src/reads/page.rs"]
    mod page;

    /// The cursor in a token.
    pub(crate) fn cursor(sealer: &crate::store::sealing::Sealer, token: &str) -> crate::error::Result<Vec<u8>> {
        page::Pages::new(sealer, 1, "list", &cairn_proto::v1::Scope::default()).cursor(token)
    }

    /// The token of a cursor.
    pub(crate) fn token(sealer: &crate::store::sealing::Sealer, cursor: &[u8]) -> crate::error::Result<String> {
        page::Pages::new(sealer, 1, "list", &cairn_proto::v1::Scope::default()).token(cursor)
    }
}

#[path = "."]
mod requests {
    #[path = "../../engine/src/requests/limits.rs"]
    pub(crate) mod limits;
    #[path = "../../engine/src/requests/memory.rs"]
    pub(crate) mod memory;
    #[path = "../../engine/src/requests/path.rs"]
    pub(crate) mod path;
}

#[path = "."]
mod store {
    #[path = "../../engine/src/store/keys.rs"]
    pub(crate) mod keys;
    #[path = "../../engine/src/store/sealing.rs"]
    pub(crate) mod sealing;
}

#[path = "."]
mod wal {
    #[path = "../../raft/src/wal/frame.rs"]
    pub(crate) mod frame;

    use std::convert::Infallible;

    use cairn_engine::crypto::FRAME_OVERHEAD;
    use frame::{FRAME_HEADER_BYTES, FrameKind};

    /// Parses the bytes at every place; then as the payload of a frame; then as a frame whose checksum is right.
    pub(crate) fn frames(data: &[u8]) {
        for offset in 0..data.len().min(64) {
            if let Some(found) = frame::parse(data, offset, 0) {
                assert!(found.bytes <= data.len() - offset && found.sealed.len() < found.bytes);
            }
        }
        frame::proves_synced(data, 0, 0);

        let mut payload = data.to_vec();
        payload.resize(data.len().max(FRAME_OVERHEAD), 0);
        let mut made = Vec::new();
        let Ok(()) = frame::encode(&mut made, FrameKind::Entry, 7, 0, |out| -> Result<(), Infallible> {
            out.extend_from_slice(&payload);
            Ok(())
        });
        let found = frame::parse(&made, 0, 7).expect("what was written is read");
        assert_eq!((found.sealed, found.bytes), (payload.as_slice(), made.len()));
        assert!(frame::parse(&made, 0, 8).is_none(), "of another group");

        let mut forged = data.to_vec();
        if forged.len() >= FRAME_HEADER_BYTES {
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&forged[..4]);
            hasher.update(&forged[8..]);
            let checksum = hasher.finalize();
            forged[4..8].copy_from_slice(&checksum.to_le_bytes());
            if let Some(found) = frame::parse_cut_out(&forged, u64::MAX, frame::u32_at(&forged, 12)) {
                assert!(found.bytes <= forged.len() && found.sealed.len() + FRAME_HEADER_BYTES <= found.bytes);
            }
        }
    }
}

use std::sync::{Arc, OnceLock};

use cairn_index::Schema;
use prost::Message as _;

use crate::crypto::{ClusterId, TenantId};
use crate::keyring::{Keyring, RootKey};
use crate::position::{GroupId, Position};
use crate::requests::path::{FieldPath, Violations};
use crate::store::sealing::{Place, Sealer};

/// Frames of the log.
pub fn frames(data: &[u8]) {
    wal::frames(data);
}

/// A filter as a caller sends it, checked and tried on a document without any field.
pub fn filters(data: &[u8]) {
    let Ok(filter) = v1::Filter::decode(data) else { return };
    if let Ok(checked) = filters::selection("", None, Some(&filter), &Schema::default()) {
        checked.matches(&());
    }
}

/// Page tokens and positions as callers send them, and the plain text of tokens that were sealed here.
pub fn page_tokens(data: &[u8]) {
    let sealer = sealer();
    let text = String::from_utf8_lossy(data);
    assert!(text.is_empty() || reads::cursor(sealer, &text).is_err(), "no token of ours was made by chance");
    if let Ok(position) = Position::decode("after", &text) {
        assert_eq!(Position::decode("after", &position.encode()).expect("what was written is read"), position);
    }
    let token = reads::token(sealer, data).expect("sealing does not fail");
    if let Ok(cursor) = reads::cursor(sealer, &token) {
        assert_eq!(cursor, data);
    }
    let (_, sealed) = sealer.seal(Place::PageToken, 1, data).expect("sealing does not fail");
    assert_eq!(sealer.open(Place::PageToken, 1, &sealed).expect("what was sealed is opened"), data);
    let _ = sealer.open(Place::PageToken, 1, data);
}

/// A memory as a caller sends it, with its metadata and vectors.
pub fn values(data: &[u8]) {
    let Ok(memory) = v1::Memory::decode(data) else { return };
    let mut violations = Violations::default();
    let _ = requests::memory::check_memory(&memory, &FieldPath::root("memory"), &mut violations);
    let _ = violations.into_result();
}

/// Keys of a tenant, made once.
fn sealer() -> &'static Sealer {
    static SEALER: OnceLock<Sealer> = OnceLock::new();
    SEALER.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory for keys");
        let root = RootKey::generate_file(&directory.path().join("root.key")).expect("a root key");
        let keyring = Keyring::create(&directory.path().join("keyring"), &root, ClusterId([7; 16])).expect("a keyring");
        let wrapped = keyring.new_tenant_keys(TenantId(1)).expect("keys");
        keyring.install_tenant_keys(&wrapped).expect("keys");
        Sealer::new(Arc::new(keyring), GroupId(0))
    })
}
