//! Sealed files: written once, each under a key of its own. See the byte map in `mod.rs`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zeroize::{Zeroize, Zeroizing};

use super::Place;
use crate::crypto::{FRAME_OVERHEAD, FileKey, FrameOpener, FrameSealer, TenantId};
use crate::error::{Error, Result};
use crate::spaces::EMBEDDING_ID;

const FORMAT: u8 = 1;
const MAGIC: &[u8; 7] = b"CairnIx";
/// Bytes of the header before the length of the wrapped key.
const BOUND: usize = 36;
/// Plaintext of a frame.
const FRAME_BYTES: usize = 1 << 20;
/// Kinds of frames.
const MORE: u8 = 1;
const LAST: u8 = 2;
/// A file that says that it is longer is damaged.
const FILE_BYTES_MAX: u64 = 4 << 30;

impl Place<'_> {
    fn header(&self, file: u64) -> [u8; BOUND] {
        let mut header = [0; BOUND];
        header[0] = FORMAT;
        header[1..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&self.space.tenant.to_le_bytes());
        header[16..24].copy_from_slice(&self.space.space.to_le_bytes());
        header[24..26].copy_from_slice(&EMBEDDING_ID.to_le_bytes());
        header[26..28].copy_from_slice(&self.sealer.group().0.to_le_bytes());
        header[28..36].copy_from_slice(&file.to_le_bytes());
        header
    }

    /// Writes a new file durably, except for its name. Returns its length.
    pub(super) fn write_file(&self, path: &Path, file: u64, plain: &[u8]) -> Result<u64> {
        let keys = self.sealer.tenant_of_caller(TenantId(self.space.tenant))?;
        let cannot = |e| Error::internal("an index checkpoint cannot be sealed").with_source(e);
        let header = self.header(file);
        let key = FileKey::generate().map_err(cannot)?;
        let wrapped = keys.wrap_file_key(&key, &aad(&header)).map_err(cannot)?;
        let mut bytes = Vec::with_capacity(plain.len() + plain.len() / FRAME_BYTES * 32 + 256);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&(wrapped.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&wrapped);
        let mut sealer = FrameSealer::new(key, self.sealer.keyring().cluster_id(), file);
        let last = plain.len().saturating_sub(1) / FRAME_BYTES;
        for number in 0..=last {
            let part = &plain[number * FRAME_BYTES..plain.len().min((number + 1) * FRAME_BYTES)];
            bytes.extend_from_slice(&((part.len() + FRAME_OVERHEAD) as u32).to_le_bytes());
            let kind = if number == last { LAST } else { MORE };
            sealer.seal_into(number as u64, kind, part, &mut bytes).map_err(cannot)?;
        }
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(&bytes)?;
            file.sync_all()
        })();
        written.map_err(|e| io_error("write", path, e))?;
        Ok(bytes.len() as u64)
    }

    /// The plaintext of a file; `None`: it is not there. `expected`: its number, where it is known.
    pub(super) fn read_file(&self, path: &Path, expected: Option<u64>) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let bytes = match std::fs::metadata(path).and_then(|metadata| {
            if metadata.len() > FILE_BYTES_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { std::fs::read(path) }
        }) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", path, error)),
        };
        self.open(&bytes, expected).map(Some)
    }

    fn open(&self, bytes: &[u8], expected: Option<u64>) -> Result<Zeroizing<Vec<u8>>> {
        let damaged = |what: &str| Error::corruption(format!("a file of an index checkpoint {what}"));
        let header = bytes.get(..BOUND).ok_or_else(|| damaged("is too short"))?;
        if header[0] != FORMAT {
            return Err(damaged(&format!("has format {}, this release reads {FORMAT}", header[0])));
        }
        let number = expected.unwrap_or_else(|| {
            let mut number = [0; 8];
            number.copy_from_slice(&header[28..36]);
            u64::from_le_bytes(number)
        });
        if header != self.header(number) {
            return Err(damaged("is of another index"));
        }
        let length =
            bytes.get(BOUND..BOUND + 2).map_or(0, |length| usize::from(length[0]) | usize::from(length[1]) << 8);
        let wrapped = bytes.get(BOUND + 2..BOUND + 2 + length).ok_or_else(|| damaged("is too short"))?;
        let keys = self.sealer.tenant_of_caller(TenantId(self.space.tenant))?;
        let key = keys
            .unwrap_file_key(wrapped, &aad(header))
            .map_err(|e| damaged("has a key that does not open").with_source(e))?;
        let opener = FrameOpener::new(&key, self.sealer.keyring().cluster_id(), number);
        let mut plain = Zeroizing::new(Vec::with_capacity(bytes.len()));
        let mut frame = Vec::new();
        let mut rest = &bytes[BOUND + 2 + length..];
        for frame_no in 0.. {
            let (length, behind) = rest.split_first_chunk().ok_or_else(|| damaged("ends early"))?;
            let sealed = behind.split_at_checked(u32::from_le_bytes(*length) as usize);
            let (sealed, behind) = sealed.ok_or_else(|| damaged("ends early"))?;
            let kind = if behind.is_empty() { LAST } else { MORE };
            frame.clear();
            frame.extend_from_slice(sealed);
            let opened = opener.open_in_place(frame_no, kind, &mut frame);
            opened.map_err(|e| damaged("is not what was written").with_source(e))?;
            plain.extend_from_slice(&frame);
            rest = behind;
            if kind == LAST {
                break;
            }
        }
        frame.zeroize();
        Ok(plain)
    }
}

fn aad(header: &[u8]) -> Vec<u8> {
    [b"cairn.index", header].concat()
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| io_error("sync", dir, e))
}

/// An error of the file system, as one that differs between nodes.
pub(super) fn io_error(action: &str, path: &Path, error: io::Error) -> Error {
    Error::internal(format!("cannot {action} {}: {error}", path.display())).with_source(error)
}
