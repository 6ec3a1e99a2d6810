//! Names of addresses, from what name servers answered.
//!
//! Laws:
//! * An answer counts only for who asked that server: a datagram that somebody sends unasked names nothing. What it names is what
//!   was asked for, through however many aliases, and only addresses at their end.
//! * A name holds as long as the answer says, at least for [`SHORTEST`], and names only flows of that time.
//! * Memory is bounded, for each pod and in all, and what goes over is counted. A name is never more than a word for people: no
//!   flow and no policy depends on it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use nanoseg_ebpf::Transport as Carrier;
use nanoseg_ebpf::packet::{Bytes as _, message_of};
use nanoseg_graph::container::ContainerRef;
use nanoseg_graph::flow::{Flow, Named, Reporter, Subject, Transport};
use nanoseg_graph::name::DnsName;
use simple_dns::rdata::RData;
use simple_dns::{Name, Packet, PacketFlag, RCODE};

/// Names of addresses that wait for a flow, of one pod or unit.
const MOST_OF_ONE: usize = 512;

/// The same, of all: about 2 MiB.
const MOST: usize = 8192;

/// Who asks connects soon, also where the answer says that it must not be kept.
const SHORTEST: Duration = Duration::from_secs(30);

/// A flow may seem to be seen that much before it was: programs know the time as of the kernel's last tick.
const TICK: Duration = Duration::from_millis(10);

/// No answer is kept longer, whatever it says.
const LONGEST: Duration = Duration::from_hours(24);

/// How much longer a name that is told already has to hold until that is told, too.
const WORTH_TELLING: Duration = Duration::from_mins(1);

/// Aliases that are followed: resolvers give up at about as many.
const ALIASES: usize = 16;

/// What could not be used, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unused {
    /// Answers that are none, or that are cut off before their first address.
    pub(crate) unreadable: u64,
    /// Answers to who did not ask.
    pub(crate) unasked: u64,
    /// Names that were too many.
    pub(crate) surplus: u64,
    /// Answers for which the kernel had no room.
    pub(crate) unheard: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    first: Timestamp,
    until: Timestamp,
}

impl Held {
    fn extend(&mut self, other: Self) {
        self.first = self.first.min(other.first);
        self.until = self.until.max(other.until);
    }
}

/// Names of one address.
type Holding = BTreeMap<DnsName, Held>;

/// Names that were asked for, and those of them that a flow uses.
#[derive(Debug, Default)]
pub(crate) struct Names {
    waiting: BTreeMap<Subject, BTreeMap<IpAddr, Holding>>,
    held: usize,
    told: BTreeMap<(Subject, IpAddr), Holding>,
    flows_version: u64,
    unused: Unused,
}

impl Names {
    /// Takes in a packet of a name server as it is on the wire. `asked` says whether `subject` has asked that server.
    pub(crate) fn hear(
        &mut self,
        packet: &[u8],
        subject: &Subject,
        at: Timestamp,
        asked: impl FnOnce(IpAddr, Transport) -> bool,
    ) {
        let Some((carrier, begin)) = message_of(packet) else {
            return;
        };
        // An acknowledgement, or a length that comes before its message.
        let Some(payload) = packet.get(begin..).filter(|payload| payload.len() > 2) else {
            return;
        };
        let Some(server) = sender(packet) else { return };
        let transport = match carrier {
            Carrier::Udp => Transport::Udp,
            Carrier::Tcp | Carrier::Sctp | Carrier::Icmp => Transport::Tcp,
        };
        if !asked(server, transport) {
            self.unused.unasked += 1;
            return;
        }
        let answers = match transport {
            Transport::Udp | Transport::Sctp | Transport::Icmp => answer(payload).map(|answer| vec![answer]),
            Transport::Tcp => streamed(payload).or_else(|| answer(payload).map(|answer| vec![answer])),
        };
        let Some(answers) = answers else {
            self.unused.unreadable += 1;
            return;
        };
        let pod = who_asks(subject);
        let first = at.checked_sub(TICK).unwrap_or(at);
        for Answer { name, addresses } in answers {
            for (address, ttl) in addresses {
                let holds = Duration::from_secs(ttl.into()).clamp(SHORTEST, LONGEST);
                let until = at.checked_add(holds).unwrap_or(Timestamp::MAX);
                self.hold(&pod, address, &name, Held { first, until });
            }
        }
    }

    fn hold(&mut self, asker: &Subject, address: IpAddr, name: &DnsName, held: Held) {
        let known = self
            .waiting
            .get_mut(asker)
            .and_then(|addresses| addresses.get_mut(&address)?.get_mut(name));
        if let Some(known) = known {
            known.extend(held);
            return;
        }
        let of_one = |names: &Self| -> usize {
            let addresses = names.waiting.get(asker).into_iter().flat_map(BTreeMap::values);
            addresses.map(BTreeMap::len).sum()
        };
        if self.held >= MOST || of_one(self) >= MOST_OF_ONE {
            self.tidy(held.first);
            if self.held >= MOST || of_one(self) >= MOST_OF_ONE {
                self.unused.surplus += 1;
                return;
            }
        }
        let addresses = self.waiting.entry(asker.clone()).or_default();
        addresses.entry(address).or_default().insert(name.clone(), held);
        self.held += 1;
    }

    /// Forgets what does not hold any more.
    pub(crate) fn tidy(&mut self, now: Timestamp) {
        for addresses in self.waiting.values_mut() {
            for names in addresses.values_mut() {
                names.retain(|_, held| held.until >= now);
            }
            addresses.retain(|_, names| !names.is_empty());
        }
        self.waiting.retain(|_, addresses| !addresses.is_empty());
        let addresses = self.waiting.values().flat_map(BTreeMap::values);
        self.held = addresses.map(BTreeMap::len).sum();
    }

    /// Up to which version flows were looked at by [`Names::tell`].
    pub(crate) const fn flows_version(&self) -> u64 {
        self.flows_version
    }

    /// Gives flows that changed, up to a version of their table, their names. Whatever was answered before them has been heard.
    /// Says whether there is something to tell.
    pub(crate) fn tell(&mut self, flows: impl Iterator<Item = Flow>, version: u64) -> bool {
        self.flows_version = version;
        // To go through a large table costs.
        if self.waiting.is_empty() {
            return false;
        }
        let mut news = false;
        for Flow { key, tally } in flows.filter(|flow| flow.key.reporter == Reporter::Source) {
            let asker = who_asks(&key.subject);
            let Some(names) = self.waiting.get(&asker).and_then(|addresses| addresses.get(&key.peer)) else {
                continue;
            };
            let holds = |held: &Held| held.first <= tally.last_seen && tally.first_seen <= held.until;
            for (name, held) in names.iter().filter(|(_, held)| holds(held)) {
                let told = self.told.entry((asker.clone(), key.peer)).or_default();
                if let Some(known) = told.get_mut(name) {
                    news |= held.until.duration_since(known.until) > WORTH_TELLING.try_into().unwrap_or_default();
                    known.extend(*held);
                    continue;
                }
                told.insert(name.clone(), *held);
                let dropped = (told.len() > DnsName::KEPT).then(|| told.pop_last()).flatten();
                news |= dropped.is_none_or(|(dropped, _)| dropped != *name);
            }
        }
        news
    }

    /// Forgets the names that none of these flows uses: of all that are told.
    pub(crate) fn keep_those_of(&mut self, flows: impl Iterator<Item = Flow>) {
        // To go through a large table costs.
        if self.told.is_empty() {
            return;
        }
        let mut kept = BTreeMap::new();
        for Flow { key, tally: _ } in flows.filter(|flow| flow.key.reporter == Reporter::Source) {
            let used = (who_asks(&key.subject), key.peer);
            if let Some(names) = self.told.remove(&used) {
                kept.insert(used, names);
            }
        }
        self.told = kept;
    }

    /// Every name that a flow uses, in a fixed order.
    pub(crate) fn told(&self) -> Vec<Named> {
        let all = self.told.iter().flat_map(|((subject, address), names)| {
            names.iter().map(|(name, held)| Named {
                subject: subject.clone(),
                address: *address,
                name: name.clone(),
                first_seen: held.first,
                until: held.until,
            })
        });
        all.collect()
    }

    /// Notes for how many answers the kernel had no room.
    pub(crate) const fn note_unheard(&mut self, count: u64) {
        self.unused.unheard = count;
    }

    /// What could not be used.
    pub(crate) const fn unused(&self) -> Unused {
        self.unused
    }
}

/// Containers of a pod have one resolver, and one of them may connect for another.
fn who_asks(subject: &Subject) -> Subject {
    match subject {
        Subject::Container(container) => Subject::Container(ContainerRef {
            container_id: String::new(),
            ..container.clone()
        }),
        Subject::Host(_) | Subject::Unknown(_) => subject.clone(),
    }
}

fn sender(packet: &[u8]) -> Option<IpAddr> {
    match packet.byte(0)? >> 4 {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?)),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(8..24)?).ok()?).to_canonical()),
    }
}

/// What was asked for, and the addresses that it has, each with how many seconds that holds.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    name: DnsName,
    addresses: Vec<(IpAddr, u32)>,
}

/// Messages with their lengths before them, the last perhaps cut off.
fn streamed(mut payload: &[u8]) -> Option<Vec<Answer>> {
    let mut answers = Vec::new();
    while let Some((length, rest)) = payload.split_first_chunk::<2>() {
        let (message, next) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        answers.push(answer(message)?);
        payload = next;
    }
    Some(answers)
}

/// Where a message says how many answers, authorities and additional records it has.
const ANSWERS: std::ops::Range<usize> = 6..8;
const OTHERS: std::ops::Range<usize> = 8..12;

/// Reads a message. One that says nothing of addresses has an answer without any; `None` is no answer, or one that is cut off
/// before its first record.
fn answer(message: &[u8]) -> Option<Answer> {
    let mut message = message.to_vec();
    // Nothing behind the answers names what was asked for.
    message.get_mut(OTHERS)?.fill(0);
    let mut count = u16::from_be_bytes(message.get(ANSWERS)?.try_into().ok()?);
    loop {
        message.get_mut(ANSWERS)?.copy_from_slice(&count.to_be_bytes());
        match Packet::parse(&message) {
            Ok(packet) => return read(&packet),
            // Of one that is cut off the first records are whole.
            Err(_) if count > 1 => count /= 2,
            Err(_) => return None,
        }
    }
}

fn read(packet: &Packet<'_>) -> Option<Answer> {
    let [question] = packet.questions.as_slice() else {
        return None;
    };
    let name = written(&question.qname)?;
    if !packet.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let mut answer = Answer {
        name: name.clone(),
        addresses: Vec::new(),
    };
    if packet.rcode() != RCODE::NoError {
        return Some(answer);
    }
    let (mut current, mut ttl) = (name, u32::MAX);
    for _ in 0..ALIASES {
        let mut alias = None;
        for record in &packet.answers {
            if written(&record.name).as_ref() != Some(&current) {
                continue;
            }
            match &record.rdata {
                RData::A(a) => answer
                    .addresses
                    .push((IpAddr::from(a.address.to_be_bytes()), ttl.min(record.ttl))),
                RData::AAAA(aaaa) => {
                    let address = IpAddr::from(aaaa.address.to_be_bytes()).to_canonical();
                    answer.addresses.push((address, ttl.min(record.ttl)));
                }
                RData::CNAME(target) => alias = written(&target.0).map(|target| (target, record.ttl)),
                _ => {}
            }
        }
        let Some((target, holds)) = alias.filter(|_| answer.addresses.is_empty()) else {
            break;
        };
        current = target;
        ttl = ttl.min(holds);
    }
    Some(answer)
}

fn written(name: &Name<'_>) -> Option<DnsName> {
    DnsName::from_labels(name.as_bytes())
}

#[cfg(test)]
mod tests;
