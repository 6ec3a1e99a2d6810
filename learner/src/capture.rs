//! The programs in the kernel and the maps they fill.
//!
//! Guarantees:
//! * Programs are attached by links that this process holds: when it ends, however it ends, they are gone, unless it was told
//!   where to pin them. Then they go on to count, and the next process goes on where this one was.
//! * What was under way when the programs were attached is not taken to begin then: until a grace after both were attached
//!   is over, the first datagram between two ports does not say who began the exchange.
//! * A flow is taken out of the kernel's map only after its counts were read, and are kept where something is pinned; what it was
//!   when it left counts.

mod keeping;
mod records;
mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::pin::PinError;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader, Pod, include_bytes_aligned};
use nanoseg_ebpf::exchange::Begun;
use nanoseg_ebpf::kept::{self, Header, LAYOUT, MAPS};
use nanoseg_ebpf::packet::DOMAIN;
use nanoseg_ebpf::{Address, Answer, FlowEntry, FlowKey, FlowRecord, FlowSlot, LossKey, Reason, Role, Transport, name};
use nanoseg_graph::flow;

use self::keeping::Keeping;
pub(crate) use self::keeping::KeptCounts;
use self::records::Plain;
use crate::bpf::{self, Place};
use crate::clock::monotonic_ns;
use crate::pins::{Found, Pins, PinsError};
use crate::preflight::{CgroupTree, shows_accepts_of_ipv6};
use crate::table;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nanoseg-capture"));

/// How much the kernel holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Flows.
    pub(crate) flows: u32,
    /// Live UDP exchanges.
    pub(crate) exchanges: u32,
}

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    #[error("the kernel did not load the capture programs{hint}")]
    Load {
        hint: &'static str,
        #[source]
        source: Box<EbpfError>,
    },
    #[error("the kernel did not accept the program {name}{hint}")]
    Program {
        name: &'static str,
        hint: &'static str,
        #[source]
        source: Box<ProgramError>,
    },
    #[error("the compiled programs have no {name}: the build is broken, build again")]
    Missing { name: &'static str },
    #[error("cannot open the cgroup folder {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot attach {name} to the cgroup folder {}", path.display())]
    Attach {
        name: &'static str,
        path: PathBuf,
        #[source]
        source: Box<ProgramError>,
    },
    #[error("cannot read the kernel's map {name}")]
    Read {
        name: &'static str,
        #[source]
        source: MapError,
    },
    #[error("cannot read all of the kernel's map {name}")]
    ReadAll { name: &'static str, source: io::Error },
    #[error("cannot take an entry out of the kernel's map {name}")]
    Take { name: &'static str, source: io::Error },
    #[error("cannot write the kernel's map {name}")]
    Write {
        name: &'static str,
        #[source]
        source: MapError,
    },
    #[error("cannot pin {name}")]
    Pin {
        name: &'static str,
        #[source]
        source: PinError,
    },
    #[error(transparent)]
    Pins(#[from] PinsError),
}

/// What was not recorded, since the programs were loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// By reason, over all cgroups.
    pub(crate) totals: [u64; Reason::ALL.len()],
    /// Losses by cgroup id and reason, as far as there was room to count them so.
    pub(crate) by_cgroup: BTreeMap<(u64, u32), u64>,
}

/// The loaded and attached programs.
pub(crate) struct Capture {
    flows: HashMap<MapData, Plain<FlowSlot>, Plain<FlowEntry>>,
    /// The same map, to be read as a whole.
    all_flows: OwnedFd,
    admitted: HashMap<MapData, u64, u64>,
    released: HashMap<MapData, u64, u64>,
    /// How many keys of each cgroup were taken out and are not counted in `released` yet.
    unreleased: BTreeMap<u64, u64>,
    losses: HashMap<MapData, Plain<LossKey>, u64>,
    counters: PerCpuArray<MapData, u64>,
    /// The node's own addresses, as the programs know them.
    node: HashMap<MapData, Address, u8>,
    /// Only where something is pinned.
    keeping: Option<Keeping>,
    /// How many flows there is room for.
    flows_capacity: u32,
    /// Whether a listener of IPv6 is seen to accept.
    shows_accepts_of_ipv6: bool,
    /// Holds the programs and their links.
    _programs: Ebpf,
}

/// Keys that are new in the kernel's map. Only a hint: what does not fit is found by the next [`Capture::scan`].
pub(crate) struct Announcements(RingBuf<MapData>);

impl Announcements {
    /// The next announced key.
    pub(crate) fn next(&mut self) -> Option<FlowKey> {
        self.0.next().and_then(|bytes| records::read::<FlowKey>(&bytes))
    }
}

impl AsRawFd for Announcements {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Packets of name servers. What does not fit is counted by [`Reason::Unheard`].
pub(crate) struct Answers(RingBuf<MapData>);

impl Answers {
    /// The next packet.
    pub(crate) fn next(&mut self) -> Option<Answer> {
        self.0.next().and_then(|bytes| records::read::<Answer>(&bytes))
    }
}

impl AsRawFd for Answers {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// What is pinned, and since when is counted.
pub(crate) struct Beginning {
    /// Where to pin, if anywhere.
    pub(crate) pins: Option<Pins>,
    /// What is there.
    pub(crate) found: Found,
    /// Nanoseconds since the Unix epoch.
    pub(crate) epoch: u64,
}

/// Loads the programs and attaches them to the tree, or goes on with what is pinned. `udp_grace` is how long after the
/// beginning an exchange of datagrams may have begun before it.
pub(crate) fn start(
    tree: &CgroupTree,
    sizes: Sizes,
    udp_grace: Duration,
    beginning: &Beginning,
) -> Result<(Capture, Announcements, Answers), CaptureError> {
    let Beginning { pins, found, epoch } = beginning;
    let pinned = pins.as_ref().zip(match found {
        Found::Whole { epoch: _, flows } => Some(*flows),
        Found::Nothing | Found::Other(_) => None,
    });
    let flows_capacity = pinned.map_or(sizes.flows, |(_, flows)| flows);
    let sizes = Sizes {
        flows: flows_capacity,
        ..sizes
    };
    let mut programs = load(sizes, pins.is_some(), pinned.map(|(pins, _)| pins))?;
    let folder = File::open(&tree.root).map_err(|source| CaptureError::Open {
        path: tree.root.clone(),
        source,
    })?;
    let mut links = Vec::new();
    for (name, kind) in [
        (name::INGRESS, CgroupSkbAttachType::Ingress),
        (name::EGRESS, CgroupSkbAttachType::Egress),
    ] {
        let program = programs.program_mut(name).ok_or(CaptureError::Missing { name })?;
        let refused = |source: ProgramError| CaptureError::Program {
            name,
            hint: hint(&source),
            source: Box::new(source),
        };
        let program: &mut CgroupSkb = program.try_into().map_err(refused)?;
        program.load().map_err(refused)?;
        if let Some((pins, _)) = pinned {
            pins.replace(name, program.fd().map_err(refused)?.as_fd())?;
            continue;
        }
        let attached = program
            .attach(&folder, kind, CgroupAttachMode::Single)
            .map_err(|source| CaptureError::Attach {
                name,
                path: tree.root.clone(),
                source: Box::new(source),
            })?;
        if pins.is_some() {
            links.push((name, program.take_link(attached).map_err(refused)?));
        }
    }
    match pinned {
        // An older one must not take for its own what this one keeps there.
        Some((pins, _)) => write_header(pins, [(Header::Layout, LAYOUT)])?,
        None => end_grace_after(&mut programs, udp_grace)?,
    }
    let mut discarded = 0;
    if let (Some(pins), None) = (pins, pinned) {
        // The new programs are attached: what passes from now on is counted by them. Of what the old ones counted only what
        // was not reported is lost, which may be something of each flow; of how many, where not even that can be read, nobody
        // knows.
        if let Found::Other(_) = found {
            discarded = pins.flows().unwrap_or(1);
        }
        pins.clear()?;
        pin(pins, &programs, *epoch)?;
        for (name, link) in links {
            let link = FdLink::try_from(link).map_err(|_no_link| CaptureError::Missing { name })?;
            // From here on the folder holds it.
            drop(
                link.pin(pins.path(name))
                    .map_err(|source| CaptureError::Pin { name, source })?,
            );
        }
    }
    let announcements = Announcements(take(&mut programs, name::ANNOUNCEMENTS)?);
    let answers = Answers(take(&mut programs, name::ANSWERS)?);
    let keeping = match pins {
        Some(_) => Some(Keeping::new(&mut programs, discarded)?),
        None => None,
    };
    let name = name::FLOWS;
    let Some(Map::HashMap(map)) = programs.map(name) else {
        return Err(CaptureError::Missing { name });
    };
    let all_flows = map
        .fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| CaptureError::ReadAll { name, source })?;
    let capture = Capture {
        all_flows,
        flows: take(&mut programs, name::FLOWS)?,
        admitted: take(&mut programs, name::ADMITTED)?,
        released: take(&mut programs, name::RELEASED)?,
        unreleased: BTreeMap::new(),
        losses: take(&mut programs, name::LOSSES)?,
        counters: take(&mut programs, name::COUNTERS)?,
        node: take(&mut programs, name::NODE)?,
        keeping,
        flows_capacity,
        shows_accepts_of_ipv6: shows_accepts_of_ipv6(),
        _programs: programs,
    };
    Ok((capture, announcements, answers))
}

/// Loads the maps, or takes those that are pinned in `taken`.
fn load(sizes: Sizes, is_kept: bool, taken: Option<&Pins>) -> Result<Ebpf, CaptureError> {
    let Sizes { flows, exchanges } = sizes;
    let share = Begun::share(exchanges);
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries(name::FLOWS, flows)
        .override_global(name::FLOWS_CAPACITY, &flows, true)
        .map_max_entries(name::EXCHANGES, exchanges)
        .map_max_entries(name::CROWDED, exchanges)
        .override_global(name::EXCHANGES_SHARE, &share, true);
    if is_kept {
        loader
            .map_max_entries(name::ARCHIVE, kept::ARCHIVED)
            .map_max_entries(name::OWNERS, kept::OWNERS);
    }
    if let Some(pins) = taken {
        for name in MAPS {
            loader.map_pin_path(name, pins.path(name));
        }
    }
    loader.load(OBJECT).map_err(|source| CaptureError::Load {
        hint: hint(&source),
        source: Box::new(source),
    })
}

/// Pins every map. Without a link the next learner takes none of it for whole.
fn pin(pins: &Pins, programs: &Ebpf, epoch: u64) -> Result<(), CaptureError> {
    for name in MAPS {
        let map = programs.map(name).ok_or(CaptureError::Missing { name })?;
        map.pin(pins.path(name))
            .map_err(|source| CaptureError::Pin { name, source })?;
    }
    write_header(pins, pins.beginning(epoch))
}

fn write_header<const N: usize>(pins: &Pins, values: [(Header, u64); N]) -> Result<(), CaptureError> {
    let name = name::HEADER;
    let map = MapData::from_pin(pins.path(name)).map_err(|source| CaptureError::Write { name, source })?;
    let mut map: Array<MapData, u64> =
        Array::try_from(Map::Array(map)).map_err(|source| CaptureError::Write { name, source })?;
    for (place, value) in values {
        map.set(place as u32, value, 0)
            .map_err(|source| CaptureError::Write { name, source })?;
    }
    Ok(())
}

/// Tells the programs when they can trust that they see the first datagram of every exchange. Until they are told they do
/// not, so that one of them may be attached before the other.
fn end_grace_after(programs: &mut Ebpf, udp_grace: Duration) -> Result<(), CaptureError> {
    let name = name::GRACE_END;
    let map = programs.map_mut(name).ok_or(CaptureError::Missing { name })?;
    let mut map: Array<_, u64> = Array::try_from(map).map_err(|source| CaptureError::Write { name, source })?;
    let grace_ns = u64::try_from(udp_grace.as_nanos()).unwrap_or(u64::MAX);
    map.set(0, monotonic_ns().saturating_add(grace_ns), 0)
        .map_err(|source| CaptureError::Write { name, source })
}

/// Takes a key out of a map. Says whether it was there.
fn remove<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, key: &K, name: &'static str) -> Result<bool, CaptureError> {
    let is_missing = |error: &MapError| match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.kind() == io::ErrorKind::NotFound,
        _ => false,
    };
    match map.remove(key) {
        Ok(()) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(source) => Err(CaptureError::Write { name, source }),
    }
}

fn take<T: TryFrom<Map>>(programs: &mut Ebpf, name: &'static str) -> Result<T, CaptureError> {
    programs
        .take_map(name)
        .and_then(|map| T::try_from(map).ok())
        .ok_or(CaptureError::Missing { name })
}

/// What to do about an error of the `bpf` system call.
fn hint(error: &(dyn std::error::Error + 'static)) -> &'static str {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // EACCES is the verifier's, EPERM is about permission.
        match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
            .map(rustix::io::Errno::from_raw_os_error)
        {
            Some(rustix::io::Errno::PERM) => {
                return ": not permitted; the capabilities are there, so look at seccomp, AppArmor or SELinux profiles and kernel lockdown";
            }
            Some(rustix::io::Errno::NOMEM | rustix::io::Errno::TOOBIG) => {
                return ": no memory for its maps; choose a smaller --map-entries";
            }
            _ => cause = error.source(),
        }
    }
    ""
}

impl Capture {
    /// What the kernel counted for one key.
    pub(crate) fn record(&self, key: &FlowKey) -> Result<Option<FlowRecord>, CaptureError> {
        match self.flows.get(&Plain(key.slot()), 0) {
            Ok(Plain(entry)) => Ok((entry.key == *key).then(|| self.whole(key, entry.record))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(CaptureError::Read {
                name: name::FLOWS,
                source,
            }),
        }
    }

    /// Whether a cgroup began to ask a name server.
    pub(crate) fn asked(&self, cgroup: u64, server: IpAddr, transport: flow::Transport) -> Result<bool, CaptureError> {
        let key = FlowKey {
            cgroup,
            peer: table::words(server),
            port: DOMAIN,
            transport: match transport {
                flow::Transport::Tcp => Transport::Tcp as u8,
                flow::Transport::Udp => Transport::Udp as u8,
                flow::Transport::Sctp => Transport::Sctp as u8,
                flow::Transport::Icmp => Transport::Icmp as u8,
            },
            role: Role::Source as u8,
            pad: 0,
        };
        Ok(self.record(&key)?.is_some())
    }

    /// With what the kernel does not show: a program sees a request come only if somebody listens, so it was accepted.
    fn whole(&self, key: &FlowKey, record: FlowRecord) -> FlowRecord {
        let is_hidden = !self.shows_accepts_of_ipv6
            && key.role == Role::Destination as u8
            && key.transport == Transport::Tcp as u8
            && table::address(key.peer).is_ipv6();
        FlowRecord {
            established: if is_hidden {
                record.established.max(record.attempted)
            } else {
                record.established
            },
            ..record
        }
    }

    /// Calls with every flow that the kernel holds. A flow that is there all the while is seen once; others perhaps.
    pub(crate) fn scan(&self, each: impl FnMut(FlowKey, FlowRecord)) -> Result<(), CaptureError> {
        self.scan_part(Place::default(), usize::MAX, each).map(drop)
    }

    /// The same with so many of them, from a place on. Returns where it goes on.
    pub(crate) fn scan_part(
        &self,
        from: Place,
        most: usize,
        mut each: impl FnMut(FlowKey, FlowRecord),
    ) -> Result<Place, CaptureError> {
        let each = |_: &Plain<FlowSlot>, Plain(entry): &Plain<FlowEntry>| {
            each(entry.key, self.whole(&entry.key, entry.record));
        };
        bpf::part(self.all_flows.as_fd(), from, most, each).map_err(|source| CaptureError::ReadAll {
            name: name::FLOWS,
            source,
        })
    }

    /// Tells the programs which addresses the node has now, beside those of `before`. Those that there is no room for are not known to
    /// lead anything back.
    pub(crate) fn tell_addresses(
        &mut self,
        now: &BTreeSet<IpAddr>,
        before: &BTreeSet<IpAddr>,
    ) -> Result<(), CaptureError> {
        let name = name::NODE;
        for address in before.difference(now) {
            remove(&mut self.node, &table::words(*address), name)?;
        }
        for address in now.difference(before) {
            match self.node.insert(table::words(*address), 0, 0) {
                Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
                    return Ok(());
                }
                outcome => outcome.map_err(|source| CaptureError::Write { name, source })?,
            }
        }
        Ok(())
    }

    /// How many flows there is room for.
    pub(crate) const fn capacity(&self) -> u32 {
        self.flows_capacity
    }

    /// What was not recorded.
    pub(crate) fn counters(&self) -> Result<Counters, CaptureError> {
        let mut counters = Counters::default();
        for (reason, total) in Reason::ALL.into_iter().zip(&mut counters.totals) {
            *total = self.total(reason)?;
        }
        for entry in &self.losses {
            let (Plain(key), count) = entry.map_err(|source| CaptureError::Read {
                name: name::LOSSES,
                source,
            })?;
            counters.by_cgroup.insert((key.cgroup, key.reason), count);
        }
        Ok(counters)
    }

    /// What was not recorded for one reason, in all.
    pub(crate) fn total(&self, reason: Reason) -> Result<u64, CaptureError> {
        match self.counters.get(&(reason as u32), 0) {
            Ok(values) => Ok(values.iter().sum()),
            // A map that was taken over has no place for what its version did not count.
            Err(MapError::KeyNotFound) => Ok(0),
            Err(source) => Err(CaptureError::Read {
                name: name::COUNTERS,
                source,
            }),
        }
    }

    /// Takes the count of a loss out of the kernel's map, of a cgroup that is gone: its place is another one's then. `told` is
    /// how much was taken out before.
    pub(crate) fn forgive(&mut self, key: LossKey, told: u64) -> Result<u64, CaptureError> {
        let name = name::LOSSES;
        let count = match self.losses.get(&Plain(key), 0) {
            Ok(count) => count,
            Err(MapError::KeyNotFound) => return Ok(told),
            Err(source) => return Err(CaptureError::Read { name, source }),
        };
        self.keep_loss(key, told, count)?;
        remove(&mut self.losses, &Plain(key), name)?;
        Ok(told + count)
    }
}
