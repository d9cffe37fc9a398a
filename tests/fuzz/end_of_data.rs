//! The end of mail data against a reading of the same rules that looks at one octet at a time.

use ringpost::smtp::end_of_data::{EndOfData, Progress, StrayNewline};

use super::transcript_line::piece_octets;
use super::{TOKENS, cases, choose};

#[test]
fn end_of_data() {
    cases("end_of_data", |random| {
        let octets = text(random);
        for mode in [
            StrayNewline::Normalize,
            StrayNewline::Accept,
            StrayNewline::Reject,
        ] {
            let naive = Naive::read(&octets, mode);
            let cuts: [fn(&mut fastrand::Rng, usize) -> usize; 4] = [
                |_, rest| rest,
                |_, _| 1,
                piece_octets,
                |random, rest| random.usize(1..=rest),
            ];
            for cut in cuts {
                let mut end_of_data = EndOfData::new(mode);
                let mut kept = Vec::new();
                let mut rest = &octets[..];
                let mut ended = false;
                while !rest.is_empty() && !ended {
                    let (mut piece, behind) = rest.split_at(cut(random, rest.len()));
                    let progress =
                        end_of_data.receive(&mut piece, |run| kept.extend_from_slice(run));
                    ended = progress == Progress::Ended;
                    assert!(ended || piece.is_empty(), "{}", octets.escape_ascii());
                    rest = &rest[rest.len() - behind.len() - piece.len()..];
                }
                let shown = octets.escape_ascii();
                assert_eq!(ended, naive.ended, "{mode:?} {shown}");
                if ended {
                    assert_eq!(octets.len() - rest.len(), naive.used, "{mode:?} {shown}");
                    assert!(
                        kept == naive.kept,
                        "{mode:?} {shown}\n{}\n{}",
                        kept.escape_ascii(),
                        naive.kept.escape_ascii()
                    );
                    assert_eq!(end_of_data.stray_newline_seen(), naive.stray, "{shown}");
                    let refused = naive.stray && mode == StrayNewline::Reject;
                    assert_eq!(end_of_data.is_refused(), refused, "{mode:?} {shown}");
                    assert_eq!(end_of_data.octets(), kept.len() as u64, "{mode:?} {shown}");
                    assert_eq!(end_of_data.hops(), hops(&kept), "{mode:?} {shown}");
                } else {
                    // What may still become the end, or a stray CR, is held back.
                    assert!(naive.kept.starts_with(&kept), "{mode:?} {shown}");
                    assert!(naive.kept.len() <= kept.len() + 2, "{mode:?} {shown}");
                }
            }
        }
    });
}

/// Newlines and dots mostly, and an end at last, mostly.
fn text(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut octets = Vec::new();
    if random.u8(..4) == 0 {
        for _ in 0..random.usize(..5) {
            let field = *choose(
                random,
                &["Received: x\r\n", "received:", "Subject: a\r\n", "\r\n"],
            );
            octets.extend_from_slice(field.as_bytes());
        }
    }
    for _ in 0..random.usize(..24) {
        match random.u8(..10) {
            0..3 => octets.push(b'\r'),
            3..6 => octets.push(b'\n'),
            6..8 => octets.push(b'.'),
            8 => octets.extend_from_slice(choose::<&[u8]>(random, TOKENS)),
            _ => {
                let count = random.usize(1..70);
                octets.extend(std::iter::repeat_n(random.u8(b'a'..=b'z'), count));
            }
        }
    }
    if random.u8(..4) != 0 {
        octets.extend_from_slice(b"\r\n.\r\nNOOP\r\n");
    }
    octets
}

struct Naive {
    kept: Vec<u8>,
    used: usize,
    ended: bool,
    stray: bool,
}

impl Naive {
    fn read(octets: &[u8], mode: StrayNewline) -> Naive {
        let mut naive = Naive {
            kept: Vec::new(),
            used: octets.len(),
            ended: false,
            stray: false,
        };
        let mut is_line_start = true;
        let mut at = 0;
        while at < octets.len() {
            let ahead = &octets[at..];
            if is_line_start && ahead[0] == b'.' {
                if ahead.starts_with(b".\r\n") {
                    naive.used = at + 3;
                    naive.ended = true;
                    break;
                }
                is_line_start = false;
                at += 1;
                continue;
            }
            is_line_start = ahead.starts_with(b"\r\n");
            if is_line_start {
                naive.kept.extend_from_slice(b"\r\n");
                at += 2;
                continue;
            }
            if matches!(ahead[0], b'\r' | b'\n') {
                naive.stray = true;
                match mode {
                    StrayNewline::Normalize => naive.kept.extend_from_slice(b"\r\n"),
                    StrayNewline::Accept | StrayNewline::Reject => naive.kept.push(ahead[0]),
                }
            } else {
                naive.kept.push(ahead[0]);
            }
            at += 1;
        }
        naive
    }
}

/// Lines that begin with `Received:` before the first empty one.
pub(super) fn hops(content: &[u8]) -> u32 {
    let mut count = 0;
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        if line == b"\n" || line == b"\r\n" {
            break;
        }
        let is_received = line
            .get(..9)
            .is_some_and(|name| name.eq_ignore_ascii_case(b"received:"));
        count += u32::from(is_received);
    }
    count
}
