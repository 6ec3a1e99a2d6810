//! Answers on a port: a line for a line over TCP, a datagram for a datagram over UDP.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::PATIENCE;

/// Connections that one port serves at a time; the next one waits in the kernel's queue.
const MOST_CONNECTIONS: usize = 64;
/// A request is one short line, an answer too.
const LONGEST_REQUEST: usize = 2048;
/// Small, because a large application is many threads: nothing here recurses.
pub(super) const STACK: usize = 128 << 10;

/// Starts to answer on a TCP port.
pub(super) fn tcp(port: u16, name: &Arc<str>) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_no_ipv6| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
    let name = Arc::clone(name);
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || accept(&listener, &name))?;
    Ok(())
}

fn accept(listener: &TcpListener, name: &Arc<str>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _from)) = listener.accept() else {
            // Out of descriptors, or a connection that was gone before it was accepted: the next one may do.
            thread::yield_now();
            continue;
        };
        if open.fetch_add(1, Ordering::AcqRel) >= MOST_CONNECTIONS {
            answer(stream, name);
            open.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let (count, answered_by) = (Arc::clone(&open), Arc::clone(name));
        let started = thread::Builder::new().stack_size(STACK).spawn(move || {
            answer(stream, &answered_by);
            count.fetch_sub(1, Ordering::AcqRel);
        });
        if started.is_err() {
            open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// The other end sees to it that a broken exchange is in the ledger, so that it is not said twice.
fn answer(mut stream: TcpStream, name: &str) {
    let done = exchange(&mut stream, name);
    if done.is_ok() {
        drop(stream.shutdown(Shutdown::Both));
    }
}

fn exchange(stream: &mut TcpStream, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = [0; LONGEST_REQUEST];
    let mut length = 0;
    while length < request.len() && !request[..length].contains(&b'\n') {
        match stream.read(&mut request[length..])? {
            0 => return Ok(()),
            read => length += read,
        }
    }
    // HTTP enough that any client of it is content.
    stream.write_all(format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{name}\n").as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    // Closing with unread bytes would send a reset, which can overtake the answer.
    while stream.read(&mut request)? > 0 {}
    Ok(())
}

/// Binds a UDP port on each of `addresses`, or on all there are.
pub(super) fn bind_udp(port: u16, addresses: &[IpAddr]) -> io::Result<Vec<UdpSocket>> {
    if addresses.is_empty() {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))
            .or_else(|_no_ipv6| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?;
        return Ok(vec![socket]);
    }
    addresses
        .iter()
        .map(|address| UdpSocket::bind(SocketAddr::new(*address, port)))
        .collect()
}

/// Starts to answer on a UDP port.
pub(super) fn udp(port: u16, addresses: &[IpAddr], name: &Arc<str>) -> io::Result<()> {
    for socket in bind_udp(port, addresses)? {
        let name = Arc::clone(name);
        thread::Builder::new().stack_size(STACK).spawn(move || {
            let mut request = [0; LONGEST_REQUEST];
            loop {
                // An error here is an earlier answer that nobody wanted any more.
                if let Ok((_length, from)) = socket.recv_from(&mut request) {
                    drop(socket.send_to(name.as_bytes(), from));
                }
            }
        })?;
    }
    Ok(())
}
