//! The small lab's name server: A, AAAA and CNAME records from a file, over UDP and TCP.
//!
//! Guarantee: an answer is from the file as it was at the question, so that whoever replaces the file has the new names at once.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, SimpleDnsError, TYPE};

use super::PATIENCE;
use super::listener::{STACK, bind_udp};

const PORT: u16 = 53;
/// As CoreDNS has it for names of the cluster.
const TTL_SECONDS: u32 = 5;
/// Most that fits in a datagram without fragments.
const LONGEST_QUESTION: usize = 1232;
/// A chain of other names that is longer goes in a circle.
const LONGEST_CHAIN: usize = 8;

/// The names that a server knows, in lower case and without the final dot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// Addresses of both families by name.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    /// Other names by name.
    pub aliases: BTreeMap<String, String>,
}

/// What a name leads to.
struct Found<'a> {
    /// The other names on the way, each with the one it leads to.
    chain: Vec<(&'a str, &'a str)>,
    /// The last of them.
    name: &'a str,
    /// Its addresses.
    addresses: &'a [IpAddr],
}

impl Zone {
    /// Follows a name to its addresses; `None` if it does not exist.
    fn look_up(&self, name: &str) -> Option<Found<'_>> {
        let mut chain = Vec::new();
        let (mut name, mut addresses) = self.entry(name)?;
        while addresses.is_none() && chain.len() < LONGEST_CHAIN {
            let other = self.aliases.get(name)?;
            chain.push((name, other.as_str()));
            match self.entry(other) {
                Some((next, found)) => (name, addresses) = (next, found),
                None => {
                    return Some(Found {
                        chain,
                        name: other,
                        addresses: &[],
                    });
                }
            }
        }
        Some(Found {
            chain,
            name,
            addresses: addresses.unwrap_or_default(),
        })
    }

    fn entry(&self, name: &str) -> Option<(&str, Option<&[IpAddr]>)> {
        if let Some((name, addresses)) = self.addresses.get_key_value(name) {
            return Some((name, Some(addresses)));
        }
        self.aliases.get_key_value(name).map(|(name, _)| (name.as_str(), None))
    }

    fn answer(&self, question: &[u8]) -> Result<Vec<u8>, SimpleDnsError> {
        let query = Packet::parse(question)?;
        let mut reply = Packet::new_reply(query.id());
        reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        if query.has_flags(PacketFlag::RECURSION_DESIRED) {
            reply.set_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::RECURSION_AVAILABLE);
        }
        let Some(asked) = query.questions.first() else {
            *reply.rcode_mut() = RCODE::FormatError;
            return reply.build_bytes_vec();
        };
        reply.questions.push(asked.clone());
        let name = asked.qname.to_string().to_ascii_lowercase();
        let record = |name: &str, data: RData<'static>| -> Result<ResourceRecord<'static>, SimpleDnsError> {
            Ok(ResourceRecord::new(
                Name::new(name)?.into_owned(),
                CLASS::IN,
                TTL_SECONDS,
                data,
            ))
        };
        match self.look_up(name.trim_end_matches('.')) {
            None => *reply.rcode_mut() = RCODE::NameError,
            Some(Found { chain, name, addresses }) => {
                for (from, to) in chain {
                    let other = RData::CNAME(CNAME(Name::new(to)?.into_owned()));
                    reply.answers.push(record(from, other)?);
                }
                for address in addresses {
                    let data = match (address, asked.qtype) {
                        (IpAddr::V4(address), QTYPE::TYPE(TYPE::A) | QTYPE::ANY) => RData::A(A {
                            address: (*address).into(),
                        }),
                        (IpAddr::V6(address), QTYPE::TYPE(TYPE::AAAA) | QTYPE::ANY) => RData::AAAA(AAAA {
                            address: (*address).into(),
                        }),
                        _ => continue,
                    };
                    reply.answers.push(record(name, data)?);
                }
            }
        }
        reply.build_bytes_vec_compressed()
    }
}

/// The file and what was last read of it.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    read: Mutex<(Option<SystemTime>, Arc<Zone>)>,
}

impl Source {
    /// A file that cannot be read just now leaves the last one in force: it is being replaced.
    fn zone(&self) -> Arc<Zone> {
        let changed = std::fs::metadata(&self.path).and_then(|file| file.modified()).ok();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.0 != changed
            && let Some(zone) = std::fs::read(&self.path)
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok())
        {
            *read = (changed, Arc::new(zone));
        }
        Arc::clone(&read.1)
    }
}

/// Starts to serve the names in `path`.
pub(super) fn serve(path: &Path, addresses: &[IpAddr]) -> io::Result<()> {
    let source = Arc::new(Source {
        path: path.to_owned(),
        read: Mutex::default(),
    });
    for socket in bind_udp(PORT, addresses)? {
        let source = Arc::clone(&source);
        thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || serve_udp(&socket, &source))?;
    }
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))
        .or_else(|_no_ipv6| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
    thread::Builder::new().stack_size(STACK).spawn(move || {
        loop {
            // One at a time: only tests ask over TCP.
            if let Ok((stream, _from)) = listener.accept() {
                drop(serve_tcp(stream, &source));
            }
        }
    })?;
    Ok(())
}

fn serve_udp(socket: &UdpSocket, source: &Source) {
    let mut question = [0; LONGEST_QUESTION];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut question) else {
            continue;
        };
        // What is no question gets no answer, and the asker's patience is the report of it.
        if let Ok(answer) = source.zone().answer(&question[..length]) {
            drop(socket.send_to(&answer, from));
        }
    }
}

fn serve_tcp(mut stream: TcpStream, source: &Source) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut question = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut question)?;
    let answer = source.zone().answer(&question).map_err(io::Error::other)?;
    let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())
}

#[cfg(test)]
mod tests {
    use simple_dns::{QCLASS, Question};

    use super::*;

    fn zone() -> Zone {
        let address = |text: &str| text.parse().unwrap();
        Zone {
            addresses: BTreeMap::from([(
                "web.shop.svc.cluster.local".to_owned(),
                vec![address("198.19.0.20"), address("fd00:19::20")],
            )]),
            aliases: BTreeMap::from([
                (
                    "front.shop.svc.cluster.local".to_owned(),
                    "web.shop.svc.cluster.local".to_owned(),
                ),
                ("circle".to_owned(), "circle".to_owned()),
            ]),
        }
    }

    fn ask(name: &str, kind: TYPE) -> (RCODE, usize) {
        let mut query = Packet::new_query(7);
        query.questions.push(Question::new(
            Name::new(name).unwrap(),
            QTYPE::TYPE(kind),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        let answer = zone().answer(&query.build_bytes_vec().unwrap()).unwrap();
        let packet = Packet::parse(&answer).unwrap();
        (packet.rcode(), packet.answers.len())
    }

    #[test]
    fn answers_by_family_and_follows_other_names() {
        assert_eq!(ask("web.shop.svc.cluster.local", TYPE::A), (RCODE::NoError, 1));
        assert_eq!(ask("WEB.shop.svc.cluster.local", TYPE::AAAA), (RCODE::NoError, 1));
        assert_eq!(ask("web.shop.svc.cluster.local", TYPE::TXT), (RCODE::NoError, 0));
        assert_eq!(ask("front.shop.svc.cluster.local", TYPE::A), (RCODE::NoError, 2));
        assert_eq!(ask("nobody.shop.svc.cluster.local", TYPE::A), (RCODE::NameError, 0));
        assert_eq!(ask("circle", TYPE::A).0, RCODE::NoError);
    }
}
