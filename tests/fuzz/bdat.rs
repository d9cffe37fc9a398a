//! Transactions by BDAT against a model of them: a list of chunks, their sum, and a verdict.

use std::time::Instant;

use super::end_of_data::hops;
use super::transcript::{Way, Wishes};
use super::transcript_line::{Line, Scripted, piece_octets};
use super::{TOKENS, cases, choose};

#[test]
fn bdat() {
    cases("bdat", |random| {
        let wishes = Wishes {
            message_octets_max: Some(random.u64(0..3000)),
            // The model knows no parts: putting some away changes nothing.
            message_memory_octets_max: random.bool().then(|| random.u64(..500)),
            errors_max: Some(u32::MAX),
            ..Wishes::default()
        };
        let mut said = b"EHLO c.example\r\n".to_vec();
        let mut codes: Vec<u16> = vec![220];
        let mut messages: Vec<Vec<u8>> = Vec::new();
        for _ in 0..random.usize(1..4) {
            transaction(random, &wishes, &mut said, &mut codes, &mut messages);
        }
        said.extend_from_slice(b"NOOP\r\n");
        codes.push(250);

        let now = Instant::now();
        let mut line = Line::open(&wishes, Way::Clear, Scripted::new(&wishes), now);
        let mut rest = &said[..];
        let is_whole = random.bool();
        while !rest.is_empty() {
            let octets = if is_whole {
                rest.len()
            } else {
                piece_octets(random, rest.len())
            };
            let (piece, behind) = rest.split_at(octets);
            line.send(piece).unwrap();
            rest = behind;
        }
        let (replies, committed) = line.close().unwrap();
        let replies = String::from_utf8(replies).unwrap();
        let got: Vec<u16> = replies
            .lines()
            .filter(|line| line.as_bytes()[3] == b' ')
            .map(|line| line[..3].parse().unwrap())
            .collect();
        // EHLO is the second reply, whatever comes.
        codes.insert(1, 250);
        let shown = said.escape_ascii();
        assert_eq!(got, codes, "{wishes:?}\n{shown}\n{replies}");
        let got: Vec<&[u8]> = committed
            .iter()
            .map(|message| &message.octets[..])
            .collect();
        assert_eq!(got, messages, "{wishes:?}\n{shown}");
    });
}

/// What a client might do between MAIL and the end, in the model's words.
fn transaction(
    random: &mut fastrand::Rng,
    wishes: &Wishes,
    said: &mut Vec<u8>,
    codes: &mut Vec<u16>,
    messages: &mut Vec<Vec<u8>>,
) {
    said.extend_from_slice(b"RSET\r\nMAIL FROM:<a@c.example> BODY=BINARYMIME\r\n");
    codes.extend([250, 250]);
    let has_recipient = random.u8(..8) != 0;
    if has_recipient {
        said.extend_from_slice(b"RCPT TO:<b@mx.test>\r\n");
        codes.push(250);
    }
    // None: no transaction is open. It ends with LAST, with RSET, and with a chunk that was refused.
    let mut content = Some(Vec::new());
    let mut is_begun = false;
    for _ in 0..random.usize(1..6) {
        match random.u8(..12) {
            0 => {
                said.extend_from_slice(b"NOOP\r\n");
                codes.push(250);
            }
            1 => {
                said.extend_from_slice(b"RSET\r\n");
                codes.push(250);
                content = None;
            }
            2 => {
                // BINARYMIME forbids it where nothing else does.
                said.extend_from_slice(b"DATA\r\n");
                codes.push(503);
            }
            3 if is_begun => {
                said.extend_from_slice(b"RCPT TO:<late@mx.test>\r\n");
                codes.push(503);
            }
            4 if is_begun => {
                said.extend_from_slice(b"STARTTLS now\r\n");
                codes.push(501);
            }
            _ => {
                let chunk = chunk(random);
                let is_last = random.u8(..3) == 0;
                let last = if is_last { " LAST" } else { "" };
                said.extend_from_slice(format!("BDAT {}{last}\r\n", chunk.len()).as_bytes());
                said.extend_from_slice(&chunk);
                let Some(open) = content.as_mut().filter(|_| has_recipient) else {
                    codes.push(503);
                    continue;
                };
                is_begun = true;
                open.extend_from_slice(&chunk);
                if open.len() as u64 > wishes.message_octets_max.unwrap() {
                    codes.push(552);
                    content = None;
                } else if hops(open) > 100 {
                    codes.push(554);
                    content = None;
                } else {
                    codes.push(250);
                    if is_last {
                        messages.push(std::mem::take(open));
                        content = None;
                    }
                }
                if content.is_none() {
                    is_begun = true;
                }
            }
        }
    }
}

fn chunk(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut octets = Vec::new();
    for _ in 0..random.usize(..6) {
        match random.u8(..8) {
            0 => octets.extend_from_slice(&b"Received: x\r\n".repeat(random.usize(1..60))),
            1 => octets.extend(std::iter::repeat_with(|| random.u8(..)).take(200)),
            _ => octets.extend_from_slice(choose::<&[u8]>(random, TOKENS)),
        }
    }
    octets
}
