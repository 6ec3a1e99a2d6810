//! Flows: learners' reports, JSON lines with both ends named, and what Hubble exports; plain or gzip.
//!
//! What a file is, is told by what is in it: gzip by its first two bytes, a report by its first key, and each line by its
//! shape. Files are read line by line; what is held is at most one line.

mod hubble;
mod line;

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use nanoseg_graph::flow::Report;
use nanoseg_graph::recorded::Recorded;

use super::fault::{Fault, Syntax};
use super::place::{FLOW_EXTENSIONS, Place, ReadError, files, open};
use line::Line;

/// The longest line that is read. Hubble's longest, with every label and header of an HTTP request, have some tens of KiB.
const LONGEST_LINE: usize = 1 << 20;

/// Keys that mean nothing are told up to so many: more are another format, and one sentence says so as well as a thousand.
const UNKNOWN_KEYS: usize = 10;

/// How much of a file must be seen to find its first key.
const BEGINNING: usize = 4096;

/// Something that flows hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// All of a learner's report.
    Report(Box<Report>),
    /// A connection with both ends named.
    Connection(Box<Recorded>),
    /// A connection, and an address that is the reporting node's own.
    OnNode {
        /// The connection.
        connection: Box<Recorded>,
        /// The node.
        node: String,
        /// Its address.
        address: IpAddr,
    },
    /// A line that is well-formed and tells of no connection.
    Skipped(Skip),
}

/// Why a line tells of no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// A packet from the listener back to the initiator.
    Reply,
    /// Nothing in the line says which end opened the connection.
    UnknownDirection,
    /// ICMP or another protocol without ports.
    NoPorts,
    /// An address translation inside a socket, not a packet.
    Translation,
    /// No verdict: nothing says what became of it.
    NoVerdict,
    /// An event that is no flow: lost events, a node's status, an agent's message.
    NoFlow,
}

impl Skip {
    /// A few words for a person, of one line as of many.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Reply => "in reply",
            Self::UnknownDirection => "without a word on who opened the connection",
            Self::NoPorts => "of protocols without ports",
            Self::Translation => "of address translation inside a socket",
            Self::NoVerdict => "without a verdict",
            Self::NoFlow => "without a flow",
        }
    }
}

/// Where in the flows.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The file.
    pub file: &'a Path,
    /// The line, from 1; of a report, its first.
    pub line: u64,
}

/// Takes what flows hold, in order. An error ends the reading and is returned.
pub trait Visitor {
    /// Why the reading was ended.
    type Error;
    /// Something was read, or could not be.
    fn visit(&mut self, at: At<'_>, entry: Result<Entry, Fault>) -> Result<(), Self::Error>;
    /// Something is odd, and nothing was left out.
    fn warn(&mut self, fault: Fault);
    /// These files are about to be read.
    fn begin(&mut self, _files: &[PathBuf]) {}
    /// What a file holds is read through what becomes of it here, so that somebody may see how far reading has come.
    fn watch(&mut self, bytes: Box<dyn Read>) -> Box<dyn Read> {
        bytes
    }
}

/// Why reading ended before the end.
#[derive(Debug)]
pub enum Ended<E> {
    /// The path cannot be read at all.
    Read(ReadError),
    /// The visitor did not want more.
    Visitor(E),
}

/// Reads the files of a path, or standard input.
pub fn read<V: Visitor>(path: &Path, visitor: &mut V) -> Result<(), Ended<V::Error>> {
    let files = files(path, &FLOW_EXTENSIONS).map_err(Ended::Read)?;
    visitor.begin(&files);
    for file in files {
        let bytes = match open(&file) {
            Ok(bytes) => bytes,
            Err(source) if file == path => return Err(Ended::Read(ReadError::Path { path: file, source })),
            Err(source) => {
                let fault = unreadable(&file, source);
                visitor
                    .visit(At { file: &file, line: 0 }, Err(fault))
                    .map_err(Ended::Visitor)?;
                continue;
            }
        };
        let bytes = visitor.watch(bytes);
        read_from(&file, bytes, visitor).map_err(Ended::Visitor)?;
    }
    Ok(())
}

/// Reads the bytes of one file.
pub fn read_from<V: Visitor>(file: &Path, bytes: impl Read, visitor: &mut V) -> Result<(), V::Error> {
    let mut bytes = BufReader::with_capacity(1 << 16, bytes);
    // A buffer's first filling has at least two bytes of a file that has two, also from a pipe: nobody writes single bytes.
    match bytes.fill_buf() {
        Ok([0x1f, 0x8b, ..]) => lines_or_report(
            file,
            BufReader::with_capacity(1 << 16, MultiGzDecoder::new(bytes)),
            visitor,
        ),
        Ok(_) => lines_or_report(file, bytes, visitor),
        Err(source) => visitor.visit(At { file, line: 1 }, Err(unreadable(file, source))),
    }
}

fn unreadable(file: &Path, source: io::Error) -> Fault {
    Fault::Unreadable {
        file: file.to_owned(),
        source,
    }
}

fn lines_or_report<V: Visitor>(file: &Path, mut bytes: impl BufRead, visitor: &mut V) -> Result<(), V::Error> {
    let mut start = Vec::new();
    // A pipe may give a few bytes at a time, and the first key must be seen whole.
    if let Err(source) = (&mut bytes).take(BEGINNING as u64).read_to_end(&mut start) {
        return visitor.visit(At { file, line: 1 }, Err(unreadable(file, source)));
    }
    let bytes = io::Cursor::new(start.clone()).chain(bytes);
    if is_report(&start) {
        let report = report_from(file, bytes).map(|report| Entry::Report(Box::new(report)));
        return visitor.visit(At { file, line: 1 }, report);
    }
    lines(file, bytes, visitor)
}

/// Whether the first key is one of a learner's report.
fn is_report(start: &[u8]) -> bool {
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    let Some(inside) = text.strip_prefix('{') else {
        return false;
    };
    let key = inside
        .trim_start()
        .strip_prefix('"')
        .and_then(|key| key.split('"').next());
    matches!(key, Some("origin" | "flows" | "losses" | "node_addresses"))
}

fn lines<V: Visitor>(file: &Path, mut bytes: impl BufRead, visitor: &mut V) -> Result<(), V::Error> {
    let mut buffer = Vec::new();
    let mut told = BTreeSet::new();
    let mut line = 0;
    loop {
        line += 1;
        let at = At { file, line };
        match next_line(&mut bytes, &mut buffer) {
            Ok(Next::End) => return Ok(()),
            Ok(Next::TooLong) => {
                let why = format!("it is longer than {LONGEST_LINE} bytes");
                visitor.visit(at, Err(bad_line(at, None, why)))?;
                continue;
            }
            Ok(Next::Line) => {}
            // Of a gzip stream that breaks off nothing more can be read, and what was read is used.
            Err(source) => return visitor.visit(at, Err(unreadable(file, source))),
        }
        let mut text = buffer.trim_ascii();
        if line == 1 {
            text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii();
        }
        if text.is_empty() {
            continue;
        }
        match Line::parse(text) {
            Ok(parsed) => {
                for key in &parsed.unknown {
                    if told.len() < UNKNOWN_KEYS && told.insert(key.to_string()) {
                        visitor.warn(Fault::UnknownKey {
                            file: file.to_owned(),
                            line,
                            key: key.to_string(),
                        });
                    }
                }
                let entry = parsed.entry().map_err(|(field, why)| bad_line(at, Some(field), why));
                visitor.visit(at, entry)?;
            }
            Err((field, why)) => visitor.visit(at, Err(bad_line(at, field, why)))?,
        }
    }
}

fn bad_line(At { file, line }: At<'_>, field: Option<String>, why: String) -> Fault {
    Fault::Line {
        file: file.to_owned(),
        line,
        field,
        source: Syntax(why),
    }
}

enum Next {
    Line,
    TooLong,
    End,
}

fn next_line(bytes: &mut impl BufRead, buffer: &mut Vec<u8>) -> io::Result<Next> {
    buffer.clear();
    let read = bytes.by_ref().take(LONGEST_LINE as u64 + 1).read_until(b'\n', buffer)?;
    if read == 0 {
        return Ok(Next::End);
    }
    if read <= LONGEST_LINE || buffer.ends_with(b"\n") {
        return Ok(Next::Line);
    }
    // The rest of it is passed over, a piece at a time.
    loop {
        let piece = bytes.fill_buf()?;
        let (taken, ended) = match piece.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (piece.len(), piece.is_empty()),
        };
        bytes.consume(taken);
        if ended {
            return Ok(Next::TooLong);
        }
    }
}

/// A learner's report.
pub fn report(file: &Path) -> Result<Report, Fault> {
    let bytes = open(file).map_err(|source| unreadable(file, source))?;
    report_from(file, BufReader::new(bytes))
}

fn report_from(file: &Path, bytes: impl Read) -> Result<Report, Fault> {
    let place = Place {
        file: PathBuf::from(file),
        document: 1,
        line: 1,
    };
    let mut json = serde_json::Deserializer::from_reader(bytes);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let source = error.into_inner();
        if source.is_data() {
            Fault::Field { place, field, source }
        } else {
            Fault::Syntax {
                place,
                language: "JSON",
                source: Syntax(source.to_string()),
            }
        }
    })
}

#[cfg(test)]
mod tests;
