//! A file system for a kernel to start with: an archive as `cpio` writes it (`newc`), which the kernel unpacks into memory.

use std::collections::BTreeSet;
use std::path::Path;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    known: BTreeSet<String>,
}

impl Archive {
    /// Adds a folder and those it is in.
    pub(crate) fn folder(&mut self, path: &str) {
        if let Some(parent) = Path::new(path)
            .parent()
            .and_then(Path::to_str)
            .filter(|parent| parent.len() > 1)
        {
            self.folder(parent);
        }
        if self.known.insert(path.to_owned()) {
            self.entry(path, FOLDER, &[]);
        }
    }

    /// Adds a file and the folders it is in, once.
    pub(crate) fn file(&mut self, path: &str, contents: &[u8]) {
        if let Some(parent) = Path::new(path)
            .parent()
            .and_then(Path::to_str)
            .filter(|parent| parent.len() > 1)
        {
            self.folder(parent);
        }
        if self.known.insert(path.to_owned()) {
            self.entry(path, PROGRAM, contents);
        }
    }

    /// The whole archive.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.entry("/TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) {
        let name = path.trim_start_matches('/');
        let number = u32::try_from(self.known.len()).unwrap();
        let [length, name_length] = [contents.len(), name.len() + 1].map(|length| u32::try_from(length).unwrap());
        // Inode, mode, owner, group, links, time, length, devices, length of the name, checksum of none.
        let fields = [number, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(contents);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
