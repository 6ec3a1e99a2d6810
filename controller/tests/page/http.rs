//! As little of HTTP as it takes to speak to the page and to `ChromeDriver`: one request for each connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// A header of it.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// A connection that has sent a request's head.
pub(crate) fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let length = format!("{}", body.len());
    let host = format!("{address}");
    let own = [("Connection", "close"), ("Content-Length", &*length), ("Host", &*host)];
    let own = own
        .iter()
        .filter(|(name, _)| !headers.iter().any(|(other, _)| other == name));
    let lines: Vec<String> = own
        .chain(headers)
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let head = format!("{method} {path} HTTP/1.1\r\n{}", lines.concat());
    write!(stream, "{head}\r\n{body}").unwrap();
    stream
}

/// Asks.
pub(crate) fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = BufReader::new(send(address, method, path, headers, body));
    let mut answer = Answer {
        status: 0,
        head: String::new(),
        body: String::new(),
    };
    while !answer.head.ends_with("\r\n\r\n") {
        let read = stream.read_line(&mut answer.head).unwrap();
        assert_ne!(read, 0, "no answer to {method} {path}: {}", answer.head);
    }
    answer.status = answer.head.split(' ').nth(1).unwrap().parse().unwrap();
    // Not every server closes, and not every answer tells its length.
    let length: Option<usize> = answer.header("content-length").map(|length| length.parse().unwrap());
    let mut bytes = Vec::new();
    match length {
        _ if method == "HEAD" => {}
        Some(length) => {
            bytes.resize(length, 0);
            stream.read_exact(&mut bytes).unwrap();
        }
        None => drop(stream.read_to_end(&mut bytes).unwrap()),
    }
    answer.body = String::from_utf8(bytes).unwrap();
    answer
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path, &[], "")
}
