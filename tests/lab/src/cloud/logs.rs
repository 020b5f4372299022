//! `DescribeDBLogFiles` and `DownloadDBLogFilePortion`: the servers' own log files, as they are on disk.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use crate::cloud::Cloud;
use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::params::Params;
use crate::wire::xml::Element;

/// The most that one portion holds: 1 MB or 10 000 lines, whichever comes first.
const PORTION_BYTES: u64 = 1 << 20;
const PORTION_LINES: i64 = 10_000;

struct LogFile {
    name: String,
    path: PathBuf,
    written: u64,
    size: u64,
}

pub(crate) fn describe(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let contains = params.get("FilenameContains");
    let since = params.number("FileLastWritten")?.and_then(|v| u64::try_from(v).ok()).unwrap_or(0);
    let least = params.number("FileSize")?.and_then(|v| u64::try_from(v).ok()).unwrap_or(0);
    let found: Vec<LogFile> = files(cloud, params)?
        .into_iter()
        .filter(|f| contains.is_none_or(|part| f.name.contains(part)))
        .filter(|f| f.written >= since && f.size >= least)
        .collect();
    let (page, marker) = params.page(found, 1000)?;
    let list = page.into_iter().map(|f| {
        Element::new("DescribeDBLogFilesDetails")
            .with("LogFileName", f.name)
            .with("LastWritten", f.written)
            .with("Size", f.size)
    });
    Ok(Some(Element::new("").list("DescribeDBLogFiles", list).maybe("Marker", marker)))
}

pub(crate) fn download(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let name = params.require("LogFileName")?;
    let file = files(cloud, params)?.into_iter().find(|f| f.name == name);
    let file = file.ok_or_else(|| {
        Refusal::new("DBLogFileNotFoundFault", 404, format!("DBLog File: {name}, is not found on the DB instance"))
    })?;
    let lines = params.number("NumberOfLines")?.map(|n| n.clamp(1, PORTION_LINES));
    let start = match (params.get("Marker").filter(|m| !m.is_empty()), lines) {
        (Some(marker), _) => {
            let offset = marker.rsplit(':').next().and_then(|n| n.parse::<u64>().ok());
            offset.ok_or_else(|| Refusal::value(format!("Invalid marker: {marker}")))?
        }
        (None, Some(lines)) => tail_start(&file, lines)?,
        (None, None) => 0,
    };
    let (text, end) = portion(&file, start, lines.unwrap_or(PORTION_LINES))?;
    Ok(Some(
        Element::new("")
            .with("LogFileData", text)
            .with("Marker", format!("1:{end}"))
            .with("AdditionalDataPending", end < file.size),
    ))
}

fn files(cloud: &Cloud, params: &Params) -> Answer<Vec<LogFile>> {
    let identifier = params.identifier("DBInstanceIdentifier")?;
    let folder = {
        let state = cloud.state();
        let instance = state.instance(&identifier)?;
        let not_ready = || Refusal::new("DBInstanceNotReady", 400, format!("DB instance {identifier} is not ready."));
        match (&instance.server, &instance.logs) {
            (Some(server), _) => server.log_dir(),
            (None, Some(folder)) => folder.clone(),
            (None, None) => return Err(not_ready()),
        }
    };
    let entries =
        std::fs::read_dir(&folder).map_err(|error| Refusal::internal(format!("reading the log folder: {error}")))?;
    let mut found: Vec<LogFile> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let meta = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            let written = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            Some(LogFile {
                name: format!("error/{}", entry.file_name().to_string_lossy()),
                path: entry.path(),
                written: u64::try_from(written.as_millis()).unwrap_or(u64::MAX),
                size: meta.len(),
            })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Whole lines from `start`, and where they end. A last line that is still being written is left for the next call.
fn portion(file: &LogFile, start: u64, lines: i64) -> Answer<(String, u64)> {
    let trouble = |error: std::io::Error| Refusal::internal(format!("reading a log file: {error}"));
    let mut reader = BufReader::new(File::open(&file.path).map_err(trouble)?);
    reader.seek(SeekFrom::Start(start)).map_err(trouble)?;
    let mut reader = reader.take(PORTION_BYTES);
    let (mut bytes, mut count) = (Vec::new(), 0);
    while count < lines {
        let before = bytes.len();
        if reader.read_until(b'\n', &mut bytes).map_err(trouble)? == 0 {
            break;
        }
        if bytes.last() != Some(&b'\n') {
            bytes.truncate(before);
            break;
        }
        count += 1;
    }
    let end = start + bytes.len() as u64;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), end))
}

/// Where the last `lines` lines begin.
fn tail_start(file: &LogFile, lines: i64) -> Answer<u64> {
    let trouble = |error: std::io::Error| Refusal::internal(format!("reading a log file: {error}"));
    let from = file.size.saturating_sub(PORTION_BYTES);
    let mut handle = File::open(&file.path).map_err(trouble)?;
    handle.seek(SeekFrom::Start(from)).map_err(trouble)?;
    let mut bytes = Vec::new();
    handle.take(PORTION_BYTES).read_to_end(&mut bytes).map_err(trouble)?;
    let wanted = usize::try_from(lines).unwrap_or(1);
    let end = bytes.strip_suffix(b"\n").map_or(bytes.len(), <[u8]>::len);
    let breaks: Vec<usize> =
        bytes[..end].iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
    let begin = if breaks.len() < wanted { 0 } else { breaks[breaks.len() - wanted] };
    Ok(from + begin as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> LogFile {
        let path = std::env::temp_dir().join(format!("lab-log-{:x}", rand::random::<u64>()));
        std::fs::write(&path, text).expect("temporary file");
        LogFile { name: "error/x".into(), path, written: 0, size: text.len() as u64 }
    }

    #[test]
    fn portions_are_whole_lines_and_join_up() {
        let log = file("one\ntwo\nthree\nhalf");
        let (first, end) = portion(&log, 0, 2).expect("read");
        assert_eq!((first.as_str(), end), ("one\ntwo\n", 8));
        let (rest, end) = portion(&log, end, 10).expect("read");
        assert_eq!((rest.as_str(), end), ("three\n", 14));
        std::fs::remove_file(log.path).expect("removed");
    }

    #[test]
    fn the_tail_begins_at_a_line() {
        let log = file("one\ntwo\nthree\n");
        assert_eq!(tail_start(&log, 1).expect("read"), 8);
        assert_eq!(tail_start(&log, 50).expect("read"), 0);
        std::fs::remove_file(log.path).expect("removed");
    }
}
