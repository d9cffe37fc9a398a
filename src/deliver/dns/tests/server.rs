//! An authoritative DNS server on loopback, over UDP and TCP, that answers from a few lines of text.
//!
//! ```text
//! a.test MX 10 mx.a.test     also A, AAAA and CNAME
//! a.test EXISTS              a name without any records
//! a.test ALIAS b.test        a CNAME that is answered without what it leads to
//! a.test TRUNCATED           nothing but TC over UDP
//! a.test SERVFAIL [TYPE]     whatever is asked, or for one type; also REFUSED, NOTIMP, SILENT and REFERRAL
//! ```
//! A name that no line has does not exist. A `|` in a name is a line feed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record};

/// A server that runs until it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    zone: Vec<String>,
    ttl: u32,
    /// `a.test MX`, and `a.test MX tcp`, in the order they came.
    asked: Mutex<Vec<String>>,
    over: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

impl Server {
    /// A server whose answers hold for a minute.
    pub(super) fn start(zone: &[&str]) -> Server {
        Server::start_with_ttl(zone, 60)
    }

    pub(super) fn start_with_ttl(zone: &[&str], ttl: u32) -> Server {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        let shared = Arc::new(Shared {
            zone: zone.iter().map(|line| (*line).to_owned()).collect(),
            ttl,
            asked: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let (by_udp, by_tcp) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread::spawn(move || by_udp.serve_udp(&udp)),
            thread::spawn(move || by_tcp.serve_tcp(&tcp)),
        ];
        Server {
            address,
            shared,
            threads,
        }
    }

    /// What was asked up to now. Datagrams that were sent again are told again.
    pub(super) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Each thread waits for its next question.
        let waker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        waker.send_to(&[], self.address).unwrap();
        drop(TcpStream::connect(self.address));
        for thread in self.threads.drain(..) {
            let outcome = thread.join();
            assert!(
                outcome.is_ok() || thread::panicking(),
                "the DNS server panicked"
            );
        }
    }
}

/// Both of one port, as a client expects it.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn serve_udp(&self, socket: &UdpSocket) {
        let mut buffer = [0; 4096];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).unwrap();
            if self.is_over() {
                return;
            }
            if let Some(answer) = self.answer(&buffer[..length], Transport::Udp) {
                socket.send_to(&answer, peer).unwrap();
            }
        }
    }

    /// One question a connection.
    fn serve_tcp(&self, listener: &TcpListener) {
        loop {
            let (mut connection, _) = listener.accept().unwrap();
            if self.is_over() {
                return;
            }
            let mut length = [0; 2];
            if connection.read_exact(&mut length).is_err() {
                continue;
            }
            let mut question = vec![0; u16::from_be_bytes(length).into()];
            connection.read_exact(&mut question).unwrap();
            if let Some(answer) = self.answer(&question, Transport::Tcp) {
                let length = u16::try_from(answer.len()).unwrap();
                connection.write_all(&length.to_be_bytes()).unwrap();
                connection.write_all(&answer).unwrap();
            }
        }
    }

    fn answer(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).unwrap();
        let query = question.queries[0].clone();
        let kind = query.query_type().to_string();
        let text = query.name().to_ascii();
        let text = text.strip_suffix('.').unwrap_or(&text);
        let suffix = match transport {
            Transport::Udp => "",
            Transport::Tcp => " tcp",
        };
        let asked = format!("{text} {kind}{suffix}");
        self.asked.lock().unwrap().push(asked);

        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.add_query(query.clone());
        let mut name = query.name().clone();
        for _ in 0..8 {
            let Some(next) = self.answer_for(&mut answer, &name, &kind, transport)? else {
                break;
            };
            name = next;
        }
        Some(answer.to_vec().unwrap())
    }

    /// What the zone says of one name; `None` for nothing ever, and the name that it is an alias of.
    fn answer_for(
        &self,
        answer: &mut Message,
        name: &Name,
        kind: &str,
        transport: Transport,
    ) -> Option<Option<Name>> {
        let mut known = false;
        let mut records = 0;
        for line in &self.zone {
            let words: Vec<_> = line.split_whitespace().collect();
            if absolute(words[0]) != *name {
                continue;
            }
            known = true;
            let concerns = words.get(2).is_none_or(|word| *word == kind);
            let data = match words[1] {
                "EXISTS" => continue,
                "TRUNCATED" if transport == Transport::Udp => {
                    answer.metadata.truncation = true;
                    return Some(None);
                }
                "TRUNCATED" => continue,
                "SILENT" if concerns => return None,
                "SERVFAIL" if concerns => return Some(refuse(answer, ResponseCode::ServFail)),
                "REFUSED" if concerns => return Some(refuse(answer, ResponseCode::Refused)),
                "NOTIMP" if concerns => return Some(refuse(answer, ResponseCode::NotImp)),
                "REFERRAL" if concerns => {
                    let server = RData::NS(NS(absolute("ns.elsewhere.test")));
                    answer.add_authority(Record::from_rdata(name.clone(), self.ttl, server));
                    return Some(None);
                }
                "SERVFAIL" | "REFUSED" | "NOTIMP" | "SILENT" | "REFERRAL" => continue,
                "CNAME" | "ALIAS" => {
                    let target = absolute(words[2]);
                    let data = RData::CNAME(CNAME(target.clone()));
                    answer.add_answer(Record::from_rdata(name.clone(), self.ttl, data));
                    return Some((words[1] == "CNAME").then_some(target));
                }
                other if other != kind => continue,
                "MX" => RData::MX(MX::new(words[2].parse().unwrap(), absolute(words[3]))),
                "A" => RData::A(A(words[2].parse().unwrap())),
                "AAAA" => RData::AAAA(AAAA(words[2].parse().unwrap())),
                other => panic!("{other} in a zone"),
            };
            answer.add_answer(Record::from_rdata(name.clone(), self.ttl, data));
            records += 1;
        }
        if !known {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        if records == 0 {
            let names = (absolute("ns.test"), absolute("postmaster.test"));
            let ttl = i32::try_from(self.ttl).unwrap();
            let soa = SOA::new(names.0, names.1, 1, ttl, ttl, ttl, self.ttl);
            let soa = Record::from_rdata(absolute("test"), self.ttl, RData::SOA(soa));
            answer.add_authority(soa);
        }
        Some(None)
    }
}

fn refuse(answer: &mut Message, code: ResponseCode) -> Option<Name> {
    answer.metadata.response_code = code;
    None
}

fn absolute(text: &str) -> Name {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let labels = labels.map(|label| label.replace('|', "\n").into_bytes());
    Name::from_labels(labels).unwrap()
}
