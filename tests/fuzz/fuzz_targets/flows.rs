//! Flows of any bytes: learners' reports, JSON lines, Hubble's, gzip of them; and the graph that comes of it.
#![no_main]

use std::convert::Infallible;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use nanoseg::read::Fault;
use nanoseg::read::flows::{At, Entry, Visitor, read_from};
use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::flow::FlowTable;
use nanoseg_graph::recorded::Recording;
use nanoseg_graph::resolve::{resolve, resolve_recorded};

#[derive(Default)]
struct Kept {
    table: FlowTable,
    recording: Recording,
}

impl Visitor for Kept {
    type Error = Infallible;

    fn visit(&mut self, _at: At<'_>, entry: Result<Entry, Fault>) -> Result<(), Infallible> {
        match entry {
            Ok(Entry::Report(report)) => {
                self.table.merge(&report);
            }
            Ok(Entry::Connection(connection) | Entry::OnNode { connection, .. }) => self.recording.add(*connection),
            Ok(Entry::Skipped(_)) => {}
            // Words as well: they are what a person sees.
            Err(fault) => drop(fault.to_string()),
        }
        Ok(())
    }

    fn warn(&mut self, fault: Fault) {
        drop(fault.to_string());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut kept = Kept::default();
    read_from(Path::new("fuzz"), bytes, &mut kept).unwrap_or_else(|never| match never {});
    let cluster = Cluster::new([]);
    let _graphs = (
        resolve(&kept.table, &cluster),
        resolve_recorded(&kept.recording, &kept.table, &cluster),
    );
});
