//! Reading a server's own log files from a position that was taken earlier. Read-only.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The most that one reading returns; what lies before is left out and said so by the caller's count of bytes.
const READ_MAX: u64 = 16 << 20;

/// How far every log file of a server had been written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPosition(BTreeMap<String, u64>);

/// The files of a log folder, oldest name first, with their sizes.
pub(crate) fn files(folder: &Path) -> io::Result<BTreeMap<String, u64>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("postgresql.log") {
            files.insert(name, entry.metadata()?.len());
        }
    }
    Ok(files)
}

pub(crate) fn position(folder: &Path) -> io::Result<LogPosition> {
    files(folder).map(LogPosition)
}

/// What was written since, as text.
pub(crate) fn since(folder: &Path, position: &LogPosition) -> io::Result<String> {
    let mut text = Vec::new();
    for (name, size) in files(folder)? {
        let from = position.0.get(&name).copied().unwrap_or(0).max(size.saturating_sub(READ_MAX));
        if size > from {
            let mut file = std::fs::File::open(folder.join(&name))?;
            file.seek(SeekFrom::Start(from))?;
            file.take(size - from).read_to_end(&mut text)?;
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The last `bytes` of everything a server wrote, for error messages.
pub(crate) fn tail(folder: &Path, bytes: usize) -> String {
    let text = since(folder, &LogPosition::default()).unwrap_or_default();
    let mut from = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_owned()
}
