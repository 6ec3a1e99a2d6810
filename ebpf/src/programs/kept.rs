//! Maps that no program touches: they are here so that they are loaded with the others. Learners that pin make them larger.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use nanoseg_ebpf::FlowKey;
use nanoseg_ebpf::kept::{Archived, Header, Owner};

#[map]
static ARCHIVE: HashMap<FlowKey, Archived> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
static OWNERS: HashMap<u64, Owner> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
static HEADER: Array<u64> = Array::with_max_entries(Header::PLACES, 0);
