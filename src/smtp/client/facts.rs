//! Finds out what content is like, where a peer's extensions make that matter (RFC 6152 §3,
//! RFC 3030 §3, RFC 6531 §3.2).
//!
//! Apart from the terms because it reads the whole message, which most messages are spared:
//! [`Session::wants_facts`](super::Session::wants_facts) tells when it is needed.
//! Invariant: the facts are the same however the content was cut into parts.

/// Longest line that may travel by DATA, without its CR LF (RFC 5321 §4.5.3.1.6, RFC 5322 §2.1.1).
pub const LINE_OCTETS_MAX: usize = 998;

/// What content is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentFacts {
    /// All of it is ASCII.
    pub is_seven_bit: bool,
    /// DATA can carry it: its lines end in CR LF and are short enough, and it holds no NUL
    /// (RFC 5321 §2.3.8, RFC 2045 §2.8).
    pub fits_data: bool,
    /// Its header section holds octets beyond ASCII.
    pub has_utf8_header: bool,
}

/// The reader.
#[derive(Clone, Debug)]
pub struct Scanner {
    facts: ContentFacts,
    /// Octets of the line under way, its CR included.
    line_octets: usize,
    /// Whether the last octet was a CR.
    cr: bool,
    /// Whether the line under way is empty so far, a CR aside.
    line_is_empty: bool,
    in_header: bool,
}

impl Scanner {
    /// Nothing read yet.
    pub fn new() -> Scanner {
        Scanner {
            facts: ContentFacts {
                is_seven_bit: true,
                fits_data: true,
                has_utf8_header: false,
            },
            line_octets: 0,
            cr: false,
            line_is_empty: true,
            in_header: true,
        }
    }

    /// Reads the next part of the content.
    pub fn read(&mut self, part: &[u8]) {
        if memchr::memchr(0, part).is_some() {
            self.facts.fits_data = false;
        }
        let beyond_ascii = !part.is_ascii();
        self.facts.is_seven_bit &= !beyond_ascii;
        let mut rest = part;
        // The lines matter for what they are cut into, and for where the header ends.
        while self.facts.fits_data || self.in_header {
            let Some(at) = memchr::memchr(b'\n', rest) else {
                self.line(rest, false);
                return;
            };
            let Some((line, behind)) = rest.split_at_checked(at + 1) else {
                return;
            };
            self.line(line, true);
            rest = behind;
        }
    }

    /// What was found. The content is what was read so far.
    pub fn facts(&self) -> ContentFacts {
        ContentFacts {
            // A CR at the end is followed by nothing, so it is stray.
            fits_data: self.facts.fits_data && !self.cr,
            ..self.facts
        }
    }

    /// Reads on in a line, up to its LF if it has one here.
    fn line(&mut self, octets: &[u8], ends: bool) {
        if self.in_header && !octets.is_ascii() {
            self.facts.has_utf8_header = true;
        }
        let text = if ends {
            octets.strip_suffix(b"\n").unwrap_or(octets)
        } else {
            octets
        };
        // A CR that anything but the LF follows is stray.
        if self.cr && !text.is_empty() {
            self.facts.fits_data = false;
        }
        if !text.is_empty() {
            let (before_last, last) = match text {
                [before @ .., b'\r'] => (before, true),
                [..] => (text, false),
            };
            if memchr::memchr(b'\r', before_last).is_some() {
                self.facts.fits_data = false;
            }
            // The CR of an empty line leaves it empty; a second one does not.
            self.line_is_empty &= before_last.is_empty() && !self.cr;
            self.cr = last;
            self.line_octets = self.line_octets.saturating_add(text.len());
        }
        if self.line_octets - usize::from(self.cr) > LINE_OCTETS_MAX {
            self.facts.fits_data = false;
        }
        if ends {
            self.facts.fits_data &= self.cr;
            // As in the count of hops, a lone LF ends a line of the header: whoever reads it laxly
            // finds the same header.
            self.in_header &= !self.line_is_empty;
            self.line_octets = 0;
            self.cr = false;
            self.line_is_empty = true;
        }
    }
}

impl Default for Scanner {
    fn default() -> Scanner {
        Scanner::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules again, without a state.
    fn reference(content: &[u8]) -> ContentFacts {
        let mut fits_data = !content.contains(&0);
        let mut header_octets = 0;
        let mut in_header = true;
        for line in content.split_inclusive(|octet| *octet == b'\n') {
            let text = line.strip_suffix(b"\r\n").unwrap_or(line);
            fits_data &= text.len() <= LINE_OCTETS_MAX;
            fits_data &= !text.iter().any(|octet| b"\r\n".contains(octet));
            if in_header {
                header_octets += line.len();
                in_header = line != b"\n" && line != b"\r\n";
            }
        }
        ContentFacts {
            is_seven_bit: content.is_ascii(),
            fits_data,
            has_utf8_header: !content[..header_octets].is_ascii(),
        }
    }

    fn facts(content: &[u8], cuts: impl IntoIterator<Item = usize>) -> ContentFacts {
        let mut scanner = Scanner::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([content.len()]) {
            scanner.read(&content[from..cut]);
            from = cut;
        }
        scanner.facts()
    }

    #[test]
    fn content_as_it_is() {
        let line = |octets: usize| [&*"x".repeat(octets), "\r\n"].concat();
        let (longest, longer) = (line(998), line(999));
        let unended = "x".repeat(999);
        #[rustfmt::skip] // a row a line; 7 bit, fit for DATA, UTF-8 in the header
        let rows: &[(&str, &[u8], [bool; 3])] = &[
            ("empty", b"", [true, true, false]),
            ("plain", b"A: b\r\n\r\nc\r\n", [true, true, false]),
            ("no line end", b"A: b\r\n\r\nc", [true, true, false]),
            ("8 bit in the body", b"A: b\r\n\r\n\xfc\r\n", [false, true, false]),
            ("8 bit in the header", b"A: \xfc\r\n\r\nc\r\n", [false, true, true]),
            ("8 bit in a header without body", b"A: \xfc", [false, true, true]),
            ("8 bit in the header's last line", b"A: b\r\nB: \xfc\r\n\r\n", [false, true, true]),
            ("no header", b"\r\n\xfc\r\n", [false, true, false]),
            ("a header that ends in LF", b"A: b\r\n\n\xfc\r\n", [false, false, false]),
            ("a CR in front of the empty line", b"A: b\r\n\r\r\n\xfc\r\n", [false, false, true]),
            ("a NUL", b"A: b\r\n\r\n\0\r\n", [true, false, false]),
            ("a lone LF", b"A: b\r\n\r\nc\nd\r\n", [true, false, false]),
            ("a lone CR", b"A: b\r\n\r\nc\rd\r\n", [true, false, false]),
            ("CR CR LF", b"A: b\r\n\r\nc\r\r\n", [true, false, false]),
            ("a CR at the end", b"A: b\r\n\r\nc\r", [true, false, false]),
            ("the longest line", longest.as_bytes(), [true, true, false]),
            ("a longer one", longer.as_bytes(), [true, false, false]),
            ("a longer one without end", unended.as_bytes(), [true, false, false]),
        ];
        for (name, content, [is_seven_bit, fits_data, has_utf8_header]) in rows {
            let wanted = ContentFacts {
                is_seven_bit: *is_seven_bit,
                fits_data: *fits_data,
                has_utf8_header: *has_utf8_header,
            };
            assert_eq!(reference(content), wanted, "{name}: the reference");
            for cut in 0..=content.len() {
                assert_eq!(facts(content, [cut]), wanted, "{name}, at {cut}");
            }
            assert_eq!(facts(content, 0..=content.len()), wanted, "{name}");
        }
    }

    #[test]
    fn random_content_agrees_with_the_reference_at_random_cuts() {
        const TOKENS: [&[u8]; 8] = [
            b"\r\n",
            b"\r\n",
            b"\r",
            b"\n",
            b"A: b",
            b"\0",
            b"\xfc",
            &[b'x'; 499],
        ];
        for seed in 0..3000 {
            let mut random = fastrand::Rng::with_seed(seed);
            // Few kinds of them in most, or nothing would ever fit.
            let (kinds, first) = (random.usize(1..=TOKENS.len()), random.usize(..TOKENS.len()));
            let content: Vec<u8> = (0..random.usize(..12))
                .flat_map(|_| TOKENS[(first + random.usize(..kinds)) % TOKENS.len()])
                .copied()
                .collect();
            let mut cuts: Vec<usize> = (0..random.usize(..20))
                .map(|_| random.usize(..=content.len()))
                .collect();
            cuts.sort_unstable();
            let wanted = reference(&content);
            assert_eq!(facts(&content, cuts), wanted, "seed {seed}");
            assert_eq!(facts(&content, []), wanted, "seed {seed}");
        }
    }
}
