//! A reader of two-dimensional `.npy` files of float16, float32 or int32 in rows, which is all that the benches need.

use std::path::Path;

use crate::BenchError;

/// A table of numbers, row after row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table<T> {
    /// How many numbers a row has.
    pub(crate) columns: usize,
    /// All numbers.
    pub(crate) values: Vec<T>,
}

impl<T> Table<T> {
    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    /// A row.
    pub(crate) fn row(&self, row: usize) -> &[T] {
        &self.values[row * self.columns..][..self.columns]
    }
}

/// Reads float16 or float32.
pub(crate) fn read_floats(path: &Path) -> Result<Table<f32>, BenchError> {
    let file = File::read(path)?;
    let values = match file.kind.as_str() {
        "<f2" => file.numbers(|bytes: [u8; 2]| half::f16::from_le_bytes(bytes).to_f32()),
        "<f4" => file.numbers(f32::from_le_bytes),
        other => return Err(file.error(format!("has values of type {other}, not <f2 or <f4"))),
    };
    file.table(values)
}

/// Reads int32.
pub(crate) fn read_integers(path: &Path) -> Result<Table<i32>, BenchError> {
    let file = File::read(path)?;
    if file.kind != "<i4" {
        return Err(file.error(format!("has values of type {}, not <i4", file.kind)));
    }
    let values = file.numbers(i32::from_le_bytes);
    file.table(values)
}

/// A file taken apart.
struct File {
    path: String,
    kind: String,
    shape: [usize; 2],
    data: Vec<u8>,
}

impl File {
    fn read(path: &Path) -> Result<Self, BenchError> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| BenchError::File { path: name.clone(), source })?;
        parse(&bytes, &name).ok_or(BenchError::Format {
            path: name,
            reason: "is not a .npy file of a two-dimensional table in rows".into(),
        })
    }

    fn numbers<T, const N: usize>(&self, read: impl Fn([u8; N]) -> T) -> Vec<T> {
        self.data.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
    }

    fn table<T>(&self, values: Vec<T>) -> Result<Table<T>, BenchError> {
        let [rows, columns] = self.shape;
        if columns == 0 || rows.checked_mul(columns) != Some(values.len()) {
            return Err(self.error(format!("has {} values, not {rows} x {columns}", values.len())));
        }
        Ok(Table { columns, values })
    }

    fn error(&self, reason: String) -> BenchError {
        BenchError::Format { path: self.path.clone(), reason }
    }
}

/// Reads version 1 to 3 of the format: a magic word, a version, the header's length, a header such as
/// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, and the numbers.
fn parse(bytes: &[u8], path: &str) -> Option<File> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let ([major, _minor], rest) = rest.split_first_chunk()?;
    let (length, rest) = if *major == 1 {
        let (length, rest) = rest.split_first_chunk()?;
        (usize::from(u16::from_le_bytes(*length)), rest)
    } else {
        let (length, rest) = rest.split_first_chunk()?;
        (u32::from_le_bytes(*length) as usize, rest)
    };
    let (header, data) = rest.split_at_checked(length)?;
    let header = std::str::from_utf8(header).ok()?;
    if !after(header, "'fortran_order':")?.starts_with("False") {
        return None;
    }
    let kind = after(header, "'descr':")?.strip_prefix('\'')?.split('\'').next()?.to_owned();
    let shape = after(header, "'shape':")?.strip_prefix('(')?.split(')').next()?;
    let mut sizes = shape.split(',').map(|size| size.trim().parse::<usize>());
    let shape = [sizes.next()?.ok()?, sizes.next()?.ok()?];
    Some(File { path: path.to_owned(), kind, shape, data: data.to_vec() })
}

fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.split_once(key).map(|(_, rest)| rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn tables_are_read_and_others_refused() {
        let data: Vec<u8> = [1i32, -2, 3, 4].iter().flat_map(|number| number.to_le_bytes()).collect();
        let parsed = parse(&file("<i4", "(2, 2)", &data), "x").unwrap();
        let table = parsed.table(parsed.numbers(i32::from_le_bytes)).unwrap();
        assert_eq!((table.rows(), table.row(1)), (2, &[3, 4][..]));
        assert!(parsed.table(vec![1, 2, 3]).is_err());
        assert!(parse(&file("<i4", "(4,)", &data), "x").is_none());
        assert!(parse(b"\x93NUMPY\x01\x00\xff\xff", "x").is_none());
        assert!(parse(b"PK", "x").is_none());
    }
}
