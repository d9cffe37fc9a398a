//! Recognises the end of mail data and undoes dot stuffing (RFC 5321 §4.1.1.4, §4.5.2).
//!
//! Apart from the session because a mistake here lets a peer smuggle in a second transaction.
//! Invariants:
//! - Only CR LF "." CR LF ends the data; its first CR LF still belongs to the message. In front of
//!   the first octet stands the CR LF of the DATA command, so "." CR LF at once is an empty message.
//! - The outcome is the same however the octets were cut into reads.
//! - A refused message is read to its end, so the dialogue keeps step.
//! - A dot is removed only behind a true CR LF. What is handed on is message content: a line of it
//!   may well be a single dot, which whoever sends it on stuffs again.
//!
//! A CR without LF or a LF without CR is *stray*. It ends no line in the sense of the protocol,
//! so nothing behind it is a first column: no dot there is removed, none ends the data.
//!
//! ```text
//! octets            Normalize hands on    Accept hands on
//! a LF . CR LF b    a CRLF . CRLF b       a LF . CRLF b      dot kept: the peer did not stuff it
//! a LF . LF b       a CRLF . CRLF b       a LF . LF b
//! a CRLF . LF b     a CRLF CRLF b         a CRLF LF b        dot in column one: removed
//! a CRLF . CR CRLF  a CRLF CRLF CRLF      a CRLF CR CRLF     dot in column one: removed
//! a CR CRLF . CRLF  a CRLF CRLF, the end  a CR CRLF, the end a true CR LF is in there
//! ```
//!
//! Normalize is the default because a laxer next hop that takes a stray LF for a line end would
//! find the end of data in `LF . LF`. After it the same octets are plain lines, which the next hop
//! gets stuffed.

use super::hops::Hops;

/// What becomes of a stray newline. None of them ends the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StrayNewline {
    /// It becomes CR LF.
    #[default]
    Normalize,
    /// It is kept.
    Accept,
    /// It is kept, and marks the message as refused.
    Reject,
}

/// Whether the end was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not yet; all input is consumed.
    More,
    /// Yes; what input is left follows the mail data.
    Ended,
}

/// The recogniser: reads what follows 354, hands on what belongs to the message.
#[derive(Clone, Debug)]
pub struct EndOfData {
    stray_newline: StrayNewline,
    place: Place,
    octets: u64,
    stray_newline_seen: bool,
    hops: Hops,
}

/// What the last octets were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// CR LF, handed on; or nothing yet.
    LineStart,
    /// CR LF "." with the dot withheld.
    Dot,
    /// CR LF "." CR with dot and CR withheld.
    DotCr,
    /// CR, handed on.
    Cr,
    /// Anything else, handed on.
    Text,
    /// The end.
    Ended,
}

const CR: u8 = b'\r';
const LF: u8 = b'\n';

impl EndOfData {
    /// Nothing read yet.
    pub fn new(stray_newline: StrayNewline) -> EndOfData {
        EndOfData {
            stray_newline,
            place: Place::LineStart,
            octets: 0,
            stray_newline_seen: false,
            hops: Hops::new(),
        }
    }

    /// Reads on: consumes from `input` and gives `sink` the octets of the message, in runs as long
    /// as the input allows. Consumes nothing behind the end.
    pub fn receive(&mut self, input: &mut &[u8], mut sink: impl FnMut(&[u8])) -> Progress {
        let octets: &[u8] = input;
        // octets:  …handed on or removed… | run, kept | not looked at |
        //                                 ^ run       ^ at
        let mut run = 0;
        let mut at = 0;
        let progress = loop {
            let Some(&octet) = octets.get(at) else {
                break Progress::More;
            };
            match self.place {
                Place::Text => {
                    at += plain_octets(octets.get(at..).unwrap_or_default());
                    let ahead = octets.get(at..).unwrap_or_default();
                    at += memchr::memchr2(CR, LF, ahead).unwrap_or(ahead.len());
                    match octets.get(at..) {
                        // The next line does not begin with a dot, so it is text as well.
                        Some([CR, LF, b'.', ..]) => {
                            at += 2;
                            self.place = Place::LineStart;
                        }
                        Some([CR, LF, _, ..]) => at += 2,
                        Some([CR, ..]) => {
                            at += 1;
                            self.place = Place::Cr;
                        }
                        Some([LF, ..]) => {
                            self.stray_newline_seen = true;
                            if self.stray_newline == StrayNewline::Normalize {
                                self.keep(octets.get(run..at), &mut sink);
                                self.keep(Some(b"\r"), &mut sink);
                                run = at;
                            }
                            at += 1;
                        }
                        _ => {}
                    }
                }
                Place::LineStart if octet == b'.' => {
                    self.keep(octets.get(run..at), &mut sink);
                    at += 1;
                    run = at;
                    self.place = Place::Dot;
                }
                Place::LineStart => self.place = Place::Text,
                Place::Dot if octet == CR => {
                    at += 1;
                    run = at;
                    self.place = Place::DotCr;
                }
                Place::Dot => self.place = Place::Text,
                Place::DotCr if octet == LF => {
                    at += 1;
                    run = at;
                    self.place = Place::Ended;
                }
                Place::DotCr => {
                    self.keep(Some(b"\r"), &mut sink);
                    self.stray_cr(&mut sink);
                }
                Place::Cr if octet == LF => {
                    at += 1;
                    self.place = Place::LineStart;
                }
                Place::Cr => {
                    self.keep(octets.get(run..at), &mut sink);
                    run = at;
                    self.stray_cr(&mut sink);
                }
                Place::Ended => break Progress::Ended,
            }
        };
        self.keep(octets.get(run..at), &mut sink);
        *input = octets.get(at..).unwrap_or_default();
        if self.place == Place::Ended {
            Progress::Ended
        } else {
            progress
        }
    }

    /// Octets of the message so far, after unstuffing and normalising.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// `Received:` fields in the message's header so far.
    pub fn hops(&self) -> u32 {
        self.hops.count()
    }

    /// Whether a stray newline came, in any mode.
    pub fn stray_newline_seen(&self) -> bool {
        self.stray_newline_seen
    }

    /// Whether the message is refused for a stray newline.
    pub fn is_refused(&self) -> bool {
        self.stray_newline_seen && self.stray_newline == StrayNewline::Reject
    }

    /// The CR handed on last was stray; the octet behind it is still to be looked at.
    fn stray_cr(&mut self, sink: &mut impl FnMut(&[u8])) {
        self.stray_newline_seen = true;
        if self.stray_newline == StrayNewline::Normalize {
            self.keep(Some(b"\n"), sink);
        }
        self.place = Place::Text;
    }

    fn keep(&mut self, run: Option<&[u8]>, sink: &mut impl FnMut(&[u8])) {
        let Some(run) = run.filter(|run| !run.is_empty()) else {
            return;
        };
        self.octets += run.len() as u64;
        self.hops.read(run);
        sink(run);
    }
}

/// How many octets of `text`, which goes on inside a line, ask for nothing: no newline among them is stray, and no line
/// behind one begins with a dot. What follows them goes on inside a line, too.
///
/// By whole blocks, without a branch in them, so that many octets are compared at once: mail is mostly that, and to
/// find the end of each line takes more than twice the time.
fn plain_octets(text: &[u8]) -> usize {
    if text.first() == Some(&LF) {
        return 0;
    }
    let mut plain = 0;
    while text.get(plain..).is_some_and(begins_with_plain_block) {
        plain += BLOCK_OCTETS;
    }
    // A block ends between a CR and its LF.
    match text.get(plain) {
        Some(&LF) => plain + 1,
        Some(_) | None => plain,
    }
}

/// Whether the first block is. The two octets behind it are looked at as well.
fn begins_with_plain_block(text: &[u8]) -> bool {
    // Arrays, for with a length that is known the loop becomes one over vectors.
    let block = |from| text.get(from..)?.first_chunk::<BLOCK_OCTETS>();
    let (Some(first), Some(second), Some(third)) = (block(0), block(1), block(2)) else {
        return false;
    };
    let found = first.iter().zip(second).zip(third);
    let found = found.map(|((first, second), third)| {
        let stray = (*first == CR) != (*second == LF);
        let dot = (*second == LF) & (*third == b'.');
        stray | dot
    });
    !found.fold(false, |any, found| any | found)
}

/// Lines are longer, mostly, and a message is many times that.
const BLOCK_OCTETS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [StrayNewline; 3] = [
        StrayNewline::Normalize,
        StrayNewline::Accept,
        StrayNewline::Reject,
    ];

    /// What a reading of `input` comes to.
    #[derive(Debug, PartialEq, Eq)]
    struct Outcome {
        content: Vec<u8>,
        consumed: usize,
        ended: bool,
        octets: u64,
        hops: u32,
        stray_newline_seen: bool,
        refused: bool,
    }

    /// `input` read in pieces that end at `cuts`.
    fn read(input: &[u8], cuts: impl IntoIterator<Item = usize>, mode: StrayNewline) -> Outcome {
        let mut end_of_data = EndOfData::new(mode);
        let mut content = Vec::new();
        let mut from = 0;
        let mut consumed = 0;
        let mut ended = false;
        for cut in cuts.into_iter().chain([input.len()]) {
            let mut piece = &input[from..cut];
            let whole = piece.len();
            let progress = end_of_data.receive(&mut piece, |run| {
                assert!(!run.is_empty());
                content.extend_from_slice(run);
            });
            consumed += whole - piece.len();
            from = cut;
            if progress == Progress::Ended {
                ended = true;
                break;
            }
            assert!(piece.is_empty(), "all is consumed before the end");
        }
        Outcome {
            content,
            consumed,
            ended,
            octets: end_of_data.octets(),
            hops: end_of_data.hops(),
            stray_newline_seen: end_of_data.stray_newline_seen(),
            refused: end_of_data.is_refused(),
        }
    }

    /// The rules again, octet by octet and without a state: a line is what lies between two true
    /// CR LF; a line of a single dot is the end; a dot in front of a line is dropped; what CR or LF
    /// is left inside a line is stray.
    fn reference(input: &[u8], mode: StrayNewline) -> Outcome {
        let mut content = Vec::new();
        let mut consumed = 0;
        let mut ended = false;
        let mut stray_newline_seen = false;
        let mut line = Vec::new();
        for &octet in input {
            consumed += 1;
            line.push(octet);
            if !line.ends_with(b"\r\n") {
                continue;
            }
            if line == b".\r\n" {
                ended = true;
                line.clear();
                break;
            }
            line.truncate(line.len() - 2);
            stray_newline_seen |= reference_line(&line, mode, &mut content);
            content.extend_from_slice(b"\r\n");
            line.clear();
        }
        // The last line has no end yet: what may still become the end is withheld, and a CR at its
        // end is not known to be stray.
        if line != b".\r" {
            let cr = line.ends_with(b"\r");
            line.truncate(line.len() - usize::from(cr));
            stray_newline_seen |= reference_line(&line, mode, &mut content);
            if cr {
                content.push(b'\r');
            }
        }
        Outcome {
            octets: content.len() as u64,
            hops: reference_hops(&content),
            refused: stray_newline_seen && mode == StrayNewline::Reject,
            content,
            consumed,
            ended,
            stray_newline_seen,
        }
    }

    fn reference_line(line: &[u8], mode: StrayNewline, content: &mut Vec<u8>) -> bool {
        let line = line.strip_prefix(b".").unwrap_or(line);
        for &octet in line {
            match octet {
                b'\r' | b'\n' if mode == StrayNewline::Normalize => {
                    content.extend_from_slice(b"\r\n");
                }
                _ => content.push(octet),
            }
        }
        line.iter().any(|octet| b"\r\n".contains(octet))
    }

    fn reference_hops(content: &[u8]) -> u32 {
        let mut hops = 0;
        for line in content.split_inclusive(|octet| *octet == b'\n') {
            if line == b"\n" || line == b"\r\n" {
                break;
            }
            hops += u32::from(line.to_ascii_lowercase().starts_with(b"received:"));
        }
        hops
    }

    #[test]
    fn the_end_and_what_is_not_the_end() {
        use StrayNewline::{Accept, Normalize};
        // name, mode, input, content, what is left behind the end (None: no end)
        type Row = (
            &'static str,
            StrayNewline,
            &'static str,
            &'static str,
            Option<&'static str>,
        );
        #[rustfmt::skip] // a row a line
        let rows: &[Row] = &[
            ("empty message", Normalize, ".\r\n", "", Some("")),
            ("one line", Normalize, "a\r\n.\r\n", "a\r\n", Some("")),
            ("commands behind", Normalize, "a\r\n.\r\nQUIT\r\n", "a\r\n", Some("QUIT\r\n")),
            ("an empty line", Normalize, "\r\n.\r\n", "\r\n", Some("")),
            ("no end yet", Normalize, "a\r\n.", "a\r\n", None),
            ("no end yet but its LF", Normalize, "a\r\n.\r", "a\r\n", None),
            ("dots unstuffed", Normalize, "..\r\n..a\r\n...\r\n.\r\n", ".\r\n.a\r\n..\r\n", Some("")),
            ("a dot unstuffed that nobody stuffed", Normalize, ".a\r\n.\r\n", "a\r\n", Some("")),
            ("dots inside a line", Normalize, "a.\r\na..b\r\n.\r\n", "a.\r\na..b\r\n", Some("")),
            ("a dot and a space", Normalize, ". \r\n.\r\n", " \r\n", Some("")),
            ("NUL and the like", Normalize, "\0\u{1}\u{ff}\r\n.\r\n", "\0\u{1}\u{ff}\r\n", Some("")),
            // Every false end of the smuggling papers, in each mode that hands something on.
            ("LF.LF", Normalize, "a\n.\nMAIL", "a\r\n.\r\nMAIL", None),
            ("LF.LF", Accept, "a\n.\nMAIL", "a\n.\nMAIL", None),
            ("LF.CRLF", Normalize, "a\n.\r\nMAIL", "a\r\n.\r\nMAIL", None),
            ("LF.CRLF", Accept, "a\n.\r\nMAIL", "a\n.\r\nMAIL", None),
            ("CRLF.LF", Normalize, "a\r\n.\nMAIL", "a\r\n\r\nMAIL", None),
            ("CRLF.LF", Accept, "a\r\n.\nMAIL", "a\r\n\nMAIL", None),
            ("CR.CR", Normalize, "a\r.\rMAIL", "a\r\n.\r\nMAIL", None),
            ("CR.CR", Accept, "a\r.\rMAIL", "a\r.\rMAIL", None),
            ("CR.CRLF", Normalize, "a\r.\r\nMAIL", "a\r\n.\r\nMAIL", None),
            ("CR.LF", Normalize, "a\r.\nMAIL", "a\r\n.\r\nMAIL", None),
            ("LF.CR", Normalize, "a\n.\rMAIL", "a\r\n.\r\nMAIL", None),
            ("CRLF.CR", Normalize, "a\r\n.\rMAIL", "a\r\n\r\nMAIL", None),
            ("CRLF.CR", Accept, "a\r\n.\rMAIL", "a\r\n\rMAIL", None),
            ("CRLF.CRCRLF", Normalize, "a\r\n.\r\r\nMAIL", "a\r\n\r\n\r\nMAIL", None),
            ("CRLF.CRCRLF", Accept, "a\r\n.\r\r\nMAIL", "a\r\n\r\r\nMAIL", None),
            ("LFCR.LFCR", Normalize, "a\n\r.\n\rM", "a\r\n\r\n.\r\n\r\nM", None),
            ("CRLF NUL .CRLF", Normalize, "a\r\n\0.\r\nM", "a\r\n\0.\r\nM", None),
            ("CRLF. NUL CRLF", Normalize, "a\r\n.\0\r\nM", "a\r\n\0\r\nM", None),
            ("LF.LF first of all", Normalize, "\n.\nM", "\r\n.\r\nM", None),
            (".LF first of all", Normalize, ".\nM", "\r\nM", None),
            (".CR first of all", Accept, ".\rM", "\rM", None),
            ("a dot behind a stray LF stays", Normalize, "a\n..b\r\n.\r\n", "a\r\n..b\r\n", Some("")),
            // A true end stays one, whatever stands in front of it.
            ("CR CRLF.CRLF", Normalize, "a\r\r\n.\r\nM", "a\r\n\r\n", Some("M")),
            ("LF CRLF.CRLF", Normalize, "a\n\r\n.\r\nM", "a\r\n\r\n", Some("M")),
            ("CRLF.CR CRLF.CRLF", Accept, "\r\n.\r\r\n.\r\nM", "\r\n\r\r\n", Some("M")),
        ];
        for (name, mode, input, content, left) in rows {
            let outcome = read(input.as_bytes(), [], *mode);
            let shown = String::from_utf8_lossy(&outcome.content);
            assert_eq!(shown, *content, "{name} {mode:?}");
            let behind = outcome.ended.then(|| &input[outcome.consumed..]);
            assert_eq!(behind, *left, "{name} {mode:?}");
            // Reject reads on as Accept does and only remembers.
            let rejected = read(input.as_bytes(), [], StrayNewline::Reject);
            let accepted = read(input.as_bytes(), [], StrayNewline::Accept);
            assert_eq!(rejected.refused, outcome.stray_newline_seen, "{name}");
            assert_eq!(rejected.consumed, accepted.consumed, "{name}");
        }
    }

    /// All texts of up to seven octets over the four that matter, in all modes and all two-piece
    /// cuttings, and octet by octet.
    #[test]
    fn short_texts_agree_with_the_reference_on_every_cutting() {
        const OCTETS: &[u8; 4] = b"\r\n.a";
        for len in 0..=7u32 {
            for number in 0..4usize.pow(len) {
                let input: Vec<u8> = (0..len)
                    .map(|place| OCTETS[(number >> (2 * place)) & 3])
                    .collect();
                for mode in MODES {
                    let expected = reference(&input, mode);
                    let whole = read(&input, [], mode);
                    assert_eq!(
                        whole,
                        expected,
                        "{:?} {mode:?}",
                        input.escape_ascii().to_string()
                    );
                    for cut in 1..input.len() {
                        assert!(
                            read(&input, [cut], mode) == expected,
                            "{input:?} {mode:?} {cut}"
                        );
                    }
                    assert!(
                        read(&input, 1..input.len(), mode) == expected,
                        "{input:?} {mode:?}"
                    );
                }
            }
        }
    }

    /// Longer texts at random cuts, so that runs, headers and the end are cut anywhere.
    #[test]
    fn random_texts_agree_with_the_reference_on_random_cuttings() {
        #[rustfmt::skip]
        const PARTS: &[&[u8]] = &[
            b"\r\n", b"\r\n", b"\r\n", b"\r\n.", b"\r\n..", b"\r", b"\n", b".", b"\r\n.\r\n",
            b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\n\r\n", b"Received: x", b"rECEIVED:", b"Rece",
            b"ived: y", b" folded", b"Subject: a text of some length, longer than a vector",
            b"\0", b"\xff", b"\r\nlines\r\nthat are plain\r\n\r\nand together longer\r\nthan a block\r\nof them",
        ];
        let seed = 1604;
        let mut random = fastrand::Rng::with_seed(seed);
        for round in 0..6_000 {
            let mut input = Vec::new();
            for _ in 0..random.usize(..40) {
                // The end is rare, so that most texts reach their last part.
                let part = PARTS[random.usize(..PARTS.len())];
                if part != b"\r\n.\r\n" || random.u8(..8) == 0 {
                    input.extend_from_slice(part);
                }
            }
            for mode in MODES {
                let expected = reference(&input, mode);
                let at = || {
                    format!(
                        "seed {seed} round {round} {mode:?} {}",
                        input.escape_ascii()
                    )
                };
                assert_eq!(read(&input, [], mode), expected, "{}", at());
                assert_eq!(read(&input, 1..input.len(), mode), expected, "{}", at());
                let mut cuts: Vec<usize> = (0..random.usize(1..6))
                    .map(|_| random.usize(..=input.len()))
                    .collect();
                cuts.sort_unstable();
                assert_eq!(read(&input, cuts, mode), expected, "{}", at());
            }
        }
    }

    /// What is looked at by blocks is found wherever it stands in one, and across two.
    #[test]
    fn an_odd_octet_in_plain_lines_is_found_at_any_place() {
        let line = b"Ten octets, and seven times as many of them in a line of usual length.\r\n";
        let plain = line.repeat(4);
        for mode in MODES {
            assert_eq!(read(&plain, [], mode), reference(&plain, mode));
            for place in 0..plain.len() {
                for odd in [b"\r".as_slice(), b"\n", b".", b"\r\n", b"\r\n.", b"\n."] {
                    let mut input = plain.clone();
                    input.splice(place..place + 1, odd.iter().copied());
                    let expected = reference(&input, mode);
                    let at = || format!("{mode:?} {}", input.escape_ascii());
                    assert_eq!(read(&input, [], mode), expected, "{}", at());
                    assert_eq!(read(&input, [place], mode), expected, "{}", at());
                }
            }
        }
    }

    /// No content that Normalize hands on holds a newline a laxer reader could take otherwise.
    #[test]
    fn normalized_content_has_only_whole_newlines() {
        let mut random = fastrand::Rng::with_seed(33);
        for _ in 0..20_000 {
            let mut input: Vec<u8> = (0..random.usize(..24))
                .map(|_| b"\r\n.a"[random.usize(..4)])
                .collect();
            input.extend_from_slice(b"a\r\n.\r\n");
            let outcome = read(&input, [], StrayNewline::Normalize);
            assert!(outcome.ended);
            let bare: Vec<u8> = outcome
                .content
                .iter()
                .copied()
                .filter(|o| b"\r\n".contains(o))
                .collect();
            assert!(
                bare.chunks(2).all(|newline| newline == b"\r\n"),
                "{input:?}"
            );
            let newlines = memchr::memmem::find_iter(&outcome.content, b"\r\n").count();
            assert_eq!(newlines * 2, bare.len(), "{input:?}");
        }
    }

    #[test]
    fn input_behind_the_end_is_left_alone_for_good() {
        let mut end_of_data = EndOfData::new(StrayNewline::Normalize);
        let mut input: &[u8] = b".\r\nNOOP\r\n";
        assert_eq!(
            end_of_data.receive(&mut input, |_| panic!()),
            Progress::Ended
        );
        assert_eq!(input, b"NOOP\r\n");
        assert_eq!(
            end_of_data.receive(&mut input, |_| panic!()),
            Progress::Ended
        );
        assert_eq!(input, b"NOOP\r\n");
    }

    #[test]
    fn whole_reads_are_handed_on_in_one_run() {
        let mut end_of_data = EndOfData::new(StrayNewline::Normalize);
        let text = "a line of text\r\n".repeat(100);
        let mut runs = 0;
        end_of_data.receive(&mut text.as_bytes(), |_| runs += 1);
        assert_eq!(runs, 1);
    }
}
