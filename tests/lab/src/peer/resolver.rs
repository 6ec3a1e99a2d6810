//! Names to addresses, as a container's resolver does it: search domains, name servers in turn, one question a family.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use super::{Failure, PATIENCE, ResolverConfig};
use crate::app::HostName;

/// How often each name server is asked, as `resolv.conf` has it by default.
const ATTEMPTS: usize = 2;
/// The default of `resolv.conf`.
const DEFAULT_NDOTS: usize = 1;
/// Answers of a lab are small; a longer one is cut by the server, and what is there is used.
const LONGEST_ANSWER: usize = 4096;
const DNS_PORT: u16 = 53;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4, A records.
    V4,
    /// IPv6, AAAA records.
    V6,
}

/// Resolves names.
#[derive(Debug)]
pub struct Resolver {
    config: ResolverConfig,
    next_id: AtomicU16,
}

impl Resolver {
    /// Asks as `config` says.
    pub fn new(config: ResolverConfig) -> Self {
        let start = RandomState::new().hash_one(&config.search);
        Self {
            config,
            next_id: AtomicU16::new(u16::try_from(start & 0xffff).unwrap_or_default()),
        }
    }

    /// Asks as the file (`/etc/resolv.conf`) says. A file that is not there leaves nobody to ask.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        Ok(Self::new(ResolverConfig::parse(&text)))
    }

    /// The addresses of a name, of one family, in the server's order.
    pub fn addresses(&self, name: &HostName, family: Family) -> Result<Vec<IpAddr>, Failure> {
        for candidate in self.config.candidates(name.as_str()) {
            let found = self.ask(&candidate, family)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Err(Failure::NoSuchName)
    }

    /// An empty answer means that the name, or the family of it, does not exist.
    fn ask(&self, name: &str, family: Family) -> Result<Vec<IpAddr>, Failure> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let query = question(id, name, family).map_err(|error| Failure::Other(error.to_string()))?;
        for _ in 0..ATTEMPTS {
            for server in &self.config.servers {
                // Where one does not answer, the next server or the next attempt may.
                if let Ok(Some(addresses)) = exchange(*server, &query, id, family) {
                    return Ok(addresses);
                }
            }
        }
        Err(Failure::NameTimeout)
    }
}

fn question(id: u16, name: &str, family: Family) -> Result<Vec<u8>, simple_dns::SimpleDnsError> {
    let kind = match family {
        Family::V4 => TYPE::A,
        Family::V6 => TYPE::AAAA,
    };
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(
        Name::new(name)?,
        QTYPE::TYPE(kind),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    packet.build_bytes_vec()
}

/// `None`: the server says that it cannot answer.
fn exchange(server: SocketAddr, query: &[u8], id: u16, family: Family) -> io::Result<Option<Vec<IpAddr>>> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(query)?;
    let mut answer = [0; LONGEST_ANSWER];
    loop {
        let length = socket.recv(&mut answer)?;
        let Ok(packet) = Packet::parse(&answer[..length]) else {
            continue;
        };
        if packet.id() != id {
            continue;
        }
        return Ok(match packet.rcode() {
            RCODE::NoError => Some(
                packet
                    .answers
                    .iter()
                    .filter_map(|record| address(&record.rdata, family))
                    .collect(),
            ),
            RCODE::NameError => Some(Vec::new()),
            _ => None,
        });
    }
}

fn address(data: &RData<'_>, family: Family) -> Option<IpAddr> {
    match (data, family) {
        (RData::A(record), Family::V4) => Some(Ipv4Addr::from(record.address).into()),
        (RData::AAAA(record), Family::V6) => Some(Ipv6Addr::from(record.address).into()),
        _ => None,
    }
}

impl ResolverConfig {
    /// Reads the text of a `resolv.conf`. Lines that mean nothing here are passed over, as every resolver does.
    pub fn parse(text: &str) -> Self {
        let mut config = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: DEFAULT_NDOTS,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    config
                        .servers
                        .extend(server.map(|address| SocketAddr::new(address, DNS_PORT)));
                }
                Some("search") => config.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    for option in words {
                        if let Some(ndots) = option.strip_prefix("ndots:").and_then(|ndots| ndots.parse().ok()) {
                            config.ndots = ndots;
                        }
                    }
                }
                Some(_) | None => {}
            }
        }
        config
    }

    /// What is asked for, in order: names with few dots in the search domains first.
    fn candidates(&self, name: &str) -> Vec<String> {
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}"));
        if name.matches('.').count() >= self.ndots {
            std::iter::once(name.to_owned()).chain(searched).collect()
        } else {
            searched.chain(std::iter::once(name.to_owned())).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_resolv_conf_tries_the_search_domains_first() {
        let config = ResolverConfig::parse(
            "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 198.19.0.10\noptions ndots:5\n",
        );
        assert_eq!(config.servers, ["198.19.0.10:53".parse().unwrap()]);
        assert_eq!(
            config.candidates("web.shop"),
            [
                "web.shop.shop.svc.cluster.local",
                "web.shop.svc.cluster.local",
                "web.shop.cluster.local",
                "web.shop"
            ]
        );
        assert_eq!(config.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
    }
}
