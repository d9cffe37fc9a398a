//! Mail in which each message has its own number and a checksum, and the books of who got a 250 for which.
//!
//! ```text
//! Number: 4711
//! Subject: x
//!
//! … any number of lines …
//! Sum: <SHA-256 of all above, lines ended by LF>
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use openssl::sha::sha256;

use super::Client;
use super::maildir::files;

/// The text of a message, about so many octets of it.
pub(crate) fn text(number: u64, octets: usize, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut text = format!("Number: {number}\r\nSubject: x\r\n\r\n");
    while text.len() < octets {
        let line = rng.usize(0..200).min(octets - text.len());
        text.extend((0..line).map(|_| rng.alphanumeric()));
        text.push_str("\r\n");
    }
    let sum = sum(text.replace("\r\n", "\n").as_bytes());
    text.push_str(&format!("Sum: {sum}\r\n"));
    text.into_bytes()
}

/// The number of a delivered message. Panics if not all of it is there.
#[track_caller]
pub(crate) fn number_of(path: &Path) -> u64 {
    let octets = fs::read(path).unwrap();
    let text = String::from_utf8(octets).unwrap();
    let half = || -> ! { panic!("{} is not whole: {} octets", path.display(), text.len()) };
    let begin = text.find("\nNumber: ").unwrap_or_else(|| half()) + 1;
    let end = text.rfind("\nSum: ").unwrap_or_else(|| half()) + 1;
    let (Some(message), Some(line)) = (text.get(begin..end), text.get(end..)) else {
        half()
    };
    if line != format!("Sum: {}\n", sum(message.as_bytes())) {
        half()
    }
    let number = message["Number: ".len()..].lines().next().unwrap();
    number.parse().unwrap()
}

fn sum(octets: &[u8]) -> String {
    sha256(octets).iter().fold(String::new(), |mut sum, octet| {
        let _ = write!(sum, "{octet:02x}");
        sum
    })
}

/// Who got a 250 for what, and what was found where.
#[derive(Default)]
pub(crate) struct Ledger {
    next: AtomicU64,
    /// Recipients' local parts by number.
    accepted: Mutex<BTreeMap<u64, Vec<String>>>,
    delivered: Mutex<BTreeMap<(u64, String), u64>>,
}

impl Ledger {
    pub(crate) fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn accept(&self, number: u64, local_parts: Vec<String>) {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(accepted.insert(number, local_parts).is_none());
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }

    /// Reads everything in `new` of each Maildir of `domain` below `mail`, and takes it away, as a reader does.
    pub(crate) fn collect(&self, mail: &Path, domain: &str) {
        let mut delivered = self.delivered.lock().unwrap();
        for mailbox in files(&mail.join(domain)) {
            let local_part = mailbox.file_name().unwrap().to_str().unwrap().to_owned();
            for path in files(&mailbox.join("new")) {
                let number = number_of(&path);
                *delivered.entry((number, local_part.clone())).or_default() += 1;
                fs::remove_file(path).unwrap();
            }
        }
    }

    /// Expects all that got a 250 to have been delivered; how many deliveries were duplicates, and how many
    /// messages came that nobody was told of.
    #[track_caller]
    pub(crate) fn check(&self) -> (u64, usize) {
        let accepted = self.accepted.lock().unwrap();
        let delivered = self.delivered.lock().unwrap();
        let mut lost = Vec::new();
        for (number, local_parts) in accepted.iter() {
            for local_part in local_parts {
                if !delivered.contains_key(&(*number, local_part.clone())) {
                    lost.push((*number, local_part));
                }
            }
        }
        assert!(
            lost.is_empty(),
            "of {} messages with a 250 these were lost: {lost:?}",
            accepted.len()
        );
        let duplicates = delivered.values().map(|count| count - 1).sum();
        let numbers: BTreeSet<u64> = delivered.keys().map(|(number, _)| *number).collect();
        let unannounced = numbers
            .iter()
            .filter(|number| !accepted.contains_key(number));
        (duplicates, unannounced.count())
    }
}

/// One session's worth of random messages.
pub(crate) struct Load<'l> {
    pub(crate) ledger: &'l Ledger,
    pub(crate) rng: fastrand::Rng,
    /// Octets of a message at most.
    pub(crate) octets_max: usize,
    /// Mailboxes `u0`, `u1`, … of `example.test`.
    pub(crate) mailboxes: usize,
}

impl Load<'_> {
    /// Sends message after message until `stop`, or until the server goes away. Counts those that are refused by
    /// a 4yz reply.
    pub(crate) fn run(&mut self, address: SocketAddr, stop: &AtomicBool, refused: &AtomicU64) {
        let Ok(stream) = TcpStream::connect(address) else {
            return;
        };
        let mut client = Client::over(stream);
        // An error means that the server went away: what then has no reply has no 250.
        let _ = (|| -> io::Result<()> {
            client.try_reply()?;
            client.try_send("EHLO client.test\r\n")?;
            client.try_reply()?;
            while !stop.load(Ordering::Relaxed) {
                if !self.send(&mut client)? {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            }
            client.try_send("QUIT\r\n")?;
            client.try_reply().map(drop)
        })();
    }

    /// Sends one message, by DATA or BDAT. Whether it was accepted.
    pub(crate) fn send(&mut self, client: &mut Client) -> io::Result<bool> {
        let number = self.ledger.next_number();
        let octets = match self.rng.u8(..8) {
            0 => 0,
            1 => self.rng.usize(..=self.octets_max),
            _ => self.rng.usize(..=self.octets_max.min(8 * 1024)),
        };
        let text = text(number, octets, &mut self.rng);
        let mut mailboxes: Vec<usize> = (0..self.mailboxes).collect();
        self.rng.shuffle(&mut mailboxes);
        mailboxes.truncate(self.rng.usize(1..=mailboxes.len().min(3)));
        let local_parts: Vec<String> = mailboxes.iter().map(|n| format!("u{n}")).collect();
        let mut commands = "MAIL FROM:<a@b.test>\r\n".to_owned();
        for local_part in &local_parts {
            commands += &format!("RCPT TO:<{local_part}@example.test>\r\n");
        }
        client.try_send(commands)?;
        for _ in 0..=local_parts.len() {
            assert_eq!(client.try_reply()?.code, 250);
        }
        let reply = if self.rng.bool() {
            client.try_send("DATA\r\n")?;
            assert_eq!(client.try_reply()?.code, 354);
            client.try_send([text.as_slice(), b".\r\n"].concat())?;
            client.try_reply()?
        } else {
            let cut = self.rng.usize(..=text.len());
            let (head, tail) = text.split_at(cut);
            client.try_send([format!("BDAT {cut}\r\n").as_bytes(), head].concat())?;
            let first = client.try_reply()?;
            if first.code == 250 {
                let last = format!("BDAT {} LAST\r\n", tail.len());
                client.try_send([last.as_bytes(), tail].concat())?;
                client.try_reply()?
            } else {
                client.try_send("RSET\r\n")?;
                client.try_reply()?;
                first
            }
        };
        match reply.code {
            250 => {
                self.ledger.accept(number, local_parts);
                Ok(true)
            }
            450..=452 => Ok(false),
            _ => panic!("{reply:?}"),
        }
    }
}
