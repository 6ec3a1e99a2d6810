//! Where the ledgers of a lab are: a folder for each workload and host outside, in it a file for each pod that there was.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use super::place::Place;
use crate::peer::{Call, Ledger};

/// Runs of one `CronJob` whose ledgers stay.
const MOST_FILES: usize = 100;

/// The folder of one workload or host.
pub(super) fn folder(place: &Place, who: &str) -> PathBuf {
    place.ledgers().join(who.replace('/', "."))
}

/// Removes the oldest ledgers of a workload whose pods come and go.
pub(super) fn trim(folder: &Path) -> Result<(), Error> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .map_err(Error::file("read", folder))?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
        })
        .collect();
    files.sort();
    let over = files.len().saturating_sub(MOST_FILES);
    files
        .iter()
        .take(over)
        .try_for_each(|(_, path)| fs::remove_file(path).map_err(Error::file("removed", path)))
}

/// The calls of one workload, oldest first.
pub(super) fn of(place: &Place, who: &str) -> Result<Vec<Call>, Error> {
    read(&folder(place, who))
}

/// The calls of everybody, oldest first.
pub(super) fn all(place: &Place) -> Result<Vec<Call>, Error> {
    let folder = place.ledgers();
    let mut calls = Vec::new();
    for entry in fs::read_dir(&folder).map_err(Error::file("read", &folder))? {
        calls.extend(read(&entry.map_err(Error::file("read", &folder))?.path())?);
    }
    calls.sort_by_key(|call| call.at);
    Ok(calls)
}

fn read(folder: &Path) -> Result<Vec<Call>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(Error::File {
                doing: "read",
                path: folder.to_owned(),
                source,
            });
        }
    };
    let mut calls = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::file("read", folder))?.path();
        // The older half of a ledger is read with the newer one.
        if !path.to_string_lossy().ends_with(".older.jsonl") {
            calls.extend(Ledger::read(&path).map_err(Error::file("read", &path))?);
        }
    }
    calls.sort_by_key(|call| call.at);
    Ok(calls)
}
