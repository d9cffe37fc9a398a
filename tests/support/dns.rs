//! A scripted name server: answers from a table over UDP, and keeps what it was asked.
//!
//! Written to the octet and without a library, since the server under test has one. It knows no zones: each name is
//! answered as its rows say, a name without rows does not exist, and nothing may be kept (TTL 0).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// What is known of a name.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Preference and host; `.` is the null MX (RFC 7505).
    Mx(u16, &'static str),
    Address(IpAddr),
    Alias(&'static str),
    /// It exists, and has nothing of what is asked for.
    Nothing,
    ServFail,
    /// No answer at all.
    Silent,
}

/// A name server under way.
pub(crate) struct Dns {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    rows: Mutex<Vec<(String, Answer)>>,
    asked: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Dns {
    /// Listens on 127.0.0.1.
    pub(crate) fn start(rows: &[(&str, Answer)]) -> Dns {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let dns = Dns {
            address,
            shared: Arc::clone(&shared),
            thread: Some(thread::spawn(move || serve(&socket, &shared))),
        };
        dns.know(rows);
        dns
    }

    /// Knows this from now on, and nothing else.
    pub(crate) fn know(&self, rows: &[(&str, Answer)]) {
        let rows = rows
            .iter()
            .map(|(name, answer)| ((*name).to_owned(), answer.clone()));
        *self.shared.rows.lock().unwrap() = rows.collect();
    }

    /// As `--dns` takes it.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// The questions so far: `MX hop.test`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes it.
        let waker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let _ = waker.send_to(&[], self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const A: u16 = 1;
const CNAME: u16 = 5;
const MX: u16 = 15;
const AAAA: u16 = 28;

/// RCODEs (RFC 1035 §4.1.1).
const NO_ERROR: u8 = 0;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

/// More aliases in a row than this are a mistake in a table.
const ALIASES_MAX: usize = 8;

fn serve(socket: &UdpSocket, shared: &Shared) {
    let mut datagram = [0; 4096];
    while let Ok((octets, peer)) = socket.recv_from(&mut datagram) {
        if shared.is_over.load(Ordering::SeqCst) {
            return;
        }
        if let Some(reply) = answer(&datagram[..octets], shared) {
            let _ = socket.send_to(&reply, peer);
        }
    }
}

/// The reply to a query; none to what is no query, or where silence is told.
///
/// ```text
/// | id | flags | 1 question | n answers | 0 | 0 | question as it came | name type class TTL length data │ …
/// ```
fn answer(query: &[u8], shared: &Shared) -> Option<Vec<u8>> {
    let (name, kind, end) = question(query)?;
    let kind_name = match kind {
        A => "A".to_owned(),
        AAAA => "AAAA".to_owned(),
        CNAME => "CNAME".to_owned(),
        MX => "MX".to_owned(),
        other => format!("TYPE{other}"),
    };
    shared
        .asked
        .lock()
        .unwrap()
        .push(format!("{kind_name} {name}"));
    let rows = shared.rows.lock().unwrap();
    let mut records = Vec::new();
    let mut owner = name;
    let mut code = NXDOMAIN;
    for _ in 0..ALIASES_MAX {
        let of_owner = rows.iter().filter(|(known, _)| *known == owner);
        let mut alias = None;
        for (_, answer) in of_owner {
            code = NO_ERROR;
            match answer {
                Answer::Silent => return None,
                Answer::ServFail => return Some(reply(query, end, SERVFAIL, &[])),
                Answer::Nothing => {}
                Answer::Alias(target) => {
                    records.push(record(&owner, CNAME, &wire_name(target)));
                    alias = (kind != CNAME).then_some(*target);
                }
                Answer::Mx(preference, host) if kind == MX => {
                    let data = [&preference.to_be_bytes()[..], &wire_name(host)].concat();
                    records.push(record(&owner, MX, &data));
                }
                Answer::Address(IpAddr::V4(ip)) if kind == A => {
                    records.push(record(&owner, A, &ip.octets()));
                }
                Answer::Address(IpAddr::V6(ip)) if kind == AAAA => {
                    records.push(record(&owner, AAAA, &ip.octets()));
                }
                Answer::Mx(..) | Answer::Address(_) => {}
            }
        }
        let Some(target) = alias else { break };
        // RFC 2308 §2.1: the code is that of the last name of the chain.
        owner = target.to_owned();
        code = NXDOMAIN;
    }
    Some(reply(query, end, code, &records))
}

/// Name in lower case, type, and where the question ends.
fn question(query: &[u8]) -> Option<(String, u16, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let octets = usize::from(*query.get(at)?);
        at += 1;
        if octets == 0 {
            break;
        }
        let label = query.get(at..at + octets)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += octets;
    }
    let kind = query.get(at..at + 2)?;
    Some((
        labels.join("."),
        u16::from_be_bytes(kind.try_into().ok()?),
        at + 4,
    ))
}

fn reply(query: &[u8], question_end: usize, code: u8, records: &[Vec<u8>]) -> Vec<u8> {
    let mut reply = query[..2].to_vec();
    // Response, authoritative, recursion desired as it was asked and available.
    reply.extend([0x84 | (query[2] & 1), 0x80 | code, 0, 1]);
    reply.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    reply.extend([0; 4]);
    reply.extend(&query[12..question_end]);
    reply.extend(records.iter().flatten());
    reply
}

fn record(owner: &str, kind: u16, data: &[u8]) -> Vec<u8> {
    let mut record = wire_name(owner);
    record.extend(kind.to_be_bytes());
    // Class IN, TTL 0.
    record.extend([0, 1, 0, 0, 0, 0]);
    record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    record.extend(data);
    record
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    wire
}
