//! Makes the calls: one thread for each call of the configuration, so that one that hangs delays no other.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::listener::STACK;
use super::resolver::Family;
use super::{Call, Failure, Ledger, PATIENCE, PeerCall, Place, Resolver};
use crate::app::{Protocol, When};

/// Rings when the peer is told to speak.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rings: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.rung.notify_all();
    }

    /// Waits until it has rung more than `heard` times, and says how often. Rings during a round are one round more.
    fn wait(&self, heard: u64) -> u64 {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        *self
            .rung
            .wait_while(rings, |rings| *rings <= heard)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What every call of a peer shares.
#[derive(Debug)]
pub(super) struct Speaker {
    pub(super) name: String,
    pub(super) pod: String,
    pub(super) resolver: Resolver,
    pub(super) ledger: Ledger,
    pub(super) bell: Bell,
    /// When a peer that ends has done enough.
    pub(super) until: Option<Duration>,
}

/// Starts a thread for a call. It ends only in a peer that ends, and there after a round at least.
pub(super) fn start(speaker: &Arc<Speaker>, call: PeerCall) -> std::io::Result<JoinHandle<()>> {
    let speaker = Arc::clone(speaker);
    thread::Builder::new().stack_size(STACK).spawn(move || match call.when {
        When::Always => on_schedule(&speaker, &call),
        When::Told => when_told(&speaker, &call),
    })
}

fn on_schedule(speaker: &Speaker, call: &PeerCall) {
    let start = Instant::now();
    let mut next = start + call.after;
    let mut turn = 0;
    loop {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        speaker.round(call, &mut turn);
        // After a delay the schedule goes on from now, without making up for what was missed.
        next = (next + call.every).max(Instant::now());
        if speaker.until.is_some_and(|lasts| next >= start + lasts) {
            return;
        }
    }
}

fn when_told(speaker: &Speaker, call: &PeerCall) {
    let (mut heard, mut turn) = (0, 0);
    loop {
        heard = speaker.bell.wait(heard);
        thread::sleep(call.after);
        speaker.round(call, &mut turn);
    }
}

impl Speaker {
    fn round(&self, call: &PeerCall, turn: &mut usize) {
        let families = [(Family::V4, call.family.v4()), (Family::V6, call.family.v6())];
        let wanted = families
            .into_iter()
            .filter(|(_, wanted)| *wanted)
            .map(|(family, _)| family);
        match &call.at {
            Place::Addresses(addresses) => {
                for address in addresses {
                    self.call(call, *address);
                }
            }
            Place::OneOf(name) => {
                for family in wanted {
                    match self.resolver.addresses(name, family) {
                        Ok(found) => {
                            if let Some(address) = found.get(*turn % found.len().max(1)) {
                                self.call(call, *address);
                            }
                        }
                        Err(failure) => self.write(call, Timestamp::now(), None, Some(failure)),
                    }
                }
                *turn = turn.wrapping_add(1);
            }
            Place::EachOf(name) => {
                for family in wanted {
                    match self.resolver.addresses(name, family) {
                        Ok(found) => found.iter().for_each(|address| self.call(call, *address)),
                        Err(failure) => self.write(call, Timestamp::now(), None, Some(failure)),
                    }
                }
            }
        }
    }

    fn call(&self, call: &PeerCall, address: IpAddr) {
        let at = Timestamp::now();
        let there = SocketAddr::new(address, call.port);
        let result = match call.protocol {
            Protocol::Tcp => self.connect(there),
            Protocol::Udp => self.send(there),
        };
        self.write(call, at, Some(address), result.err());
    }

    fn connect(&self, there: SocketAddr) -> Result<(), Failure> {
        let mut stream = TcpStream::connect_timeout(&there, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // An HTTP server that expects TLS answers this in the clear, so that an API server counts as answering.
        stream.write_all(format!("GET /{} HTTP/1.0\r\n\r\n", self.name).as_bytes())?;
        match stream.read(&mut [0; 256]).map_err(Failure::from) {
            Ok(0) => Err(Failure::Reset),
            Ok(_) => Ok(()),
            Err(Failure::Timeout) => Err(Failure::NoAnswer),
            Err(failure) => Err(failure),
        }
    }

    fn send(&self, there: SocketAddr) -> Result<(), Failure> {
        let any: IpAddr = if there.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(there)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(self.name.as_bytes())?;
        socket.recv(&mut [0; 256])?;
        Ok(())
    }

    /// A ledger that cannot be written ends the peer: calls that nobody can account for must not be made.
    fn write(&self, call: &PeerCall, at: Timestamp, address: Option<IpAddr>, error: Option<Failure>) {
        let line = Call {
            at,
            from: self.name.clone(),
            pod: self.pod.clone(),
            to: call.to.clone(),
            address,
            port: call.port,
            protocol: call.protocol,
            ok: error.is_none(),
            error,
        };
        if let Err(error) = self.ledger.write(&line) {
            eprintln!("lab-peer: the ledger cannot be written: {error}");
            std::process::exit(1);
        }
    }
}
