//! [`Sample`]: what a node takes of the machine.

use std::io;
use std::path::Path;

use crate::files;

/// What one node holds at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// Resident memory of the process.
    pub resident_bytes: u64,
    /// Its open files.
    pub open_files: u64,
    /// Bytes of all files below its data directory.
    pub disk_bytes: u64,
}

impl Sample {
    /// Looks at the process of a node and at its data directory.
    ///
    /// # Errors
    /// A process that is gone.
    pub fn of(process: u32, data: &Path) -> io::Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().map_err(io::Error::other)?;
        let open_files = std::fs::read_dir(format!("/proc/{process}/fd"))?.count() as u64;
        // Files come and go under the walk.
        let sizes = files::below(data).unwrap_or_default().into_iter().filter_map(|path| path.metadata().ok());
        Ok(Self { resident_bytes: kibibytes * 1024, open_files, disk_bytes: sizes.map(|file| file.len()).sum() })
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            resident_bytes: self.resident_bytes.max(other.resident_bytes),
            open_files: self.open_files.max(other.open_files),
            disk_bytes: self.disk_bytes.max(other.disk_bytes),
        }
    }
}
