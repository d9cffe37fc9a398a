//! Paths and mailboxes, one function a grammar rule (RFC 5321 §4.1.2, §4.1.3; RFC 6531 §3.3).
//!
//! Apart from the commands because an address decides who may send where, and two readings of one
//! address are a hole. A rule takes the text it starts at and gives what it matched with the text
//! behind it; whether octets beyond ASCII were allowed is the caller's to check, over what was
//! matched.
//! Invariants:
//! - What [`Mailbox::as_given`] shows holds no control octet and no line break.
//! - [`DomainPart::comparable`] is lower-case ASCII, whatever spelling the peer chose.
//! - Source routes are read and dropped (RFC 5321 §3.3, appendix C): nothing routes by them.
//!
//! Strict where the grammar is: no mailbox without a domain, no dot at its end, no underscore in
//! it, no comment, no space around anything.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest local part, as written (RFC 5321 §4.5.3.1.1).
pub const LOCAL_PART_OCTETS_MAX: usize = 64;

/// Longest domain, as written and in A-labels (RFC 5321 §4.5.3.1.2).
pub const DOMAIN_OCTETS_MAX: usize = 255;

/// Longest path, brackets and source route included (RFC 5321 §4.5.3.1.3).
pub const PATH_OCTETS_MAX: usize = 256;

/// Longest label of a domain (RFC 1035 §2.3.4).
const LABEL_OCTETS_MAX: usize = 63;

/// Where a bounce goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReversePath<'a> {
    /// `<>`: nowhere.
    Null,
    /// To this mailbox.
    Mailbox(Mailbox<'a>),
}

/// Where mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardPath<'a> {
    /// `<postmaster>` in any case: this host's own (RFC 5321 §4.5.1).
    Postmaster,
    /// To this mailbox.
    Mailbox(Mailbox<'a>),
}

/// A mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox<'a> {
    as_given: &'a str,
    local_part: LocalPart<'a>,
    domain: DomainPart<'a>,
}

impl<'a> Mailbox<'a> {
    /// The mailbox as written, without brackets and source route.
    pub fn as_given(&self) -> &'a str {
        self.as_given
    }

    /// What is left of the `@`.
    pub fn local_part(&self) -> &LocalPart<'a> {
        &self.local_part
    }

    /// What is right of the `@`.
    pub fn domain(&self) -> &DomainPart<'a> {
        &self.domain
    }
}

/// The left of a mailbox, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalPart<'a> {
    /// Atoms joined by dots.
    DotString(&'a str),
    /// A quoted string, with its quotes.
    QuotedString(&'a str),
}

impl<'a> LocalPart<'a> {
    /// The local part without quoting: `"a\ b"` and `"a b"` name the same mailbox, and so do
    /// `"ab"` and `ab` (RFC 5321 §4.1.2).
    pub fn unquoted(&self) -> Cow<'a, str> {
        match *self {
            LocalPart::DotString(text) => Cow::Borrowed(text),
            LocalPart::QuotedString(text) => {
                let inner = text
                    .strip_prefix('"')
                    .and_then(|text| text.strip_suffix('"'));
                let inner = inner.unwrap_or(text);
                if !inner.contains('\\') {
                    return Cow::Borrowed(inner);
                }
                let mut unquoted = String::with_capacity(inner.len());
                let mut characters = inner.chars();
                while let Some(character) = characters.next() {
                    match character {
                        '\\' => unquoted.extend(characters.next()),
                        plain => unquoted.push(plain),
                    }
                }
                Cow::Owned(unquoted)
            }
        }
    }
}

/// The right of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainPart<'a> {
    /// A domain in ASCII, as written; A-labels are among these.
    Ascii(&'a str),
    /// A domain with U-labels.
    International {
        /// As written.
        as_given: &'a str,
        /// In lower-case A-labels.
        a_labels: Box<str>,
    },
    /// `[192.0.2.1]`
    Ipv4(Ipv4Addr),
    /// `[IPv6:2001:db8::1]`
    Ipv6(Ipv6Addr),
}

impl DomainPart<'_> {
    /// The one spelling by which domains are compared: lower-case, in A-labels, literals with
    /// their brackets and the address in its shortest form.
    pub fn comparable(&self) -> Cow<'_, str> {
        match self {
            DomainPart::Ascii(domain) => lower_case(domain),
            DomainPart::International { a_labels, .. } => Cow::Borrowed(a_labels),
            DomainPart::Ipv4(address) => Cow::Owned(format!("[{address}]")),
            DomainPart::Ipv6(address) => {
                let mut literal = String::with_capacity("[ipv6:]".len() + 39);
                let _ = write!(literal, "[ipv6:{address}]");
                Cow::Owned(literal)
            }
        }
    }
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Not even an opening bracket.
    #[error("no angle brackets")]
    NoBrackets,
    /// Outside the grammar.
    #[error("malformed path")]
    Malformed,
    /// Over a limit of RFC 5321 §4.5.3.1.
    #[error("path too long")]
    TooLong,
}

/// ```text
/// Reverse-path = Path / "<>"
/// ```
pub fn reverse_path(text: &str) -> Result<(ReversePath<'_>, &str), PathError> {
    if let Some(rest) = text.strip_prefix("<>") {
        return Ok((ReversePath::Null, rest));
    }
    let (mailbox, rest) = path(text)?;
    Ok((ReversePath::Mailbox(mailbox), rest))
}

/// ```text
/// Forward-path = Path / "<Postmaster>"
/// ```
/// The bare postmaster stands in the RCPT rule of RFC 5321 §4.1.1.3; here it is a path.
pub fn forward_path(text: &str) -> Result<(ForwardPath<'_>, &str), PathError> {
    const POSTMASTER: &str = "<postmaster>";
    match text.split_at_checked(POSTMASTER.len()) {
        Some((path, rest)) if path.eq_ignore_ascii_case(POSTMASTER) => {
            Ok((ForwardPath::Postmaster, rest))
        }
        _ => {
            let (mailbox, rest) = path(text)?;
            Ok((ForwardPath::Mailbox(mailbox), rest))
        }
    }
}

/// ```text
/// Path = "<" [ A-d-l ":" ] Mailbox ">"
/// ```
fn path(text: &str) -> Result<(Mailbox<'_>, &str), PathError> {
    let inner = text.strip_prefix('<').ok_or(PathError::NoBrackets)?;
    let inner = match inner.starts_with('@') {
        true => a_d_l(inner)?
            .strip_prefix(':')
            .ok_or(PathError::Malformed)?,
        false => inner,
    };
    let (mailbox, rest) = mailbox(inner)?;
    let rest = rest.strip_prefix('>').ok_or(PathError::Malformed)?;
    if text.len() - rest.len() > PATH_OCTETS_MAX {
        return Err(PathError::TooLong);
    }
    Ok((mailbox, rest))
}

/// ```text
/// A-d-l     = At-domain *( "," At-domain )
/// At-domain = "@" Domain
/// ```
/// Gives only what follows: the route is dropped.
fn a_d_l(mut text: &str) -> Result<&str, PathError> {
    loop {
        let at_domain = text.strip_prefix('@').ok_or(PathError::Malformed)?;
        let (_, rest) = domain(at_domain)?;
        match rest.strip_prefix(',') {
            Some(next) => text = next,
            None => return Ok(rest),
        }
    }
}

/// ```text
/// Mailbox = Local-part "@" ( Domain / address-literal )
/// ```
fn mailbox(text: &str) -> Result<(Mailbox<'_>, &str), PathError> {
    let (local_part, rest) = local_part(text)?;
    let right = rest.strip_prefix('@').ok_or(PathError::Malformed)?;
    let (domain, rest) = if right.starts_with('[') {
        address_literal(right)?
    } else {
        domain(right)?
    };
    let as_given = text
        .get(..text.len() - rest.len())
        .ok_or(PathError::Malformed)?;
    Ok((
        Mailbox {
            as_given,
            local_part,
            domain,
        },
        rest,
    ))
}

/// ```text
/// Local-part = Dot-string / Quoted-string
/// ```
fn local_part(text: &str) -> Result<(LocalPart<'_>, &str), PathError> {
    let (octets, quoted) = match text.starts_with('"') {
        true => (quoted_string(text)?, true),
        false => (dot_string(text)?, false),
    };
    if octets > LOCAL_PART_OCTETS_MAX {
        return Err(PathError::TooLong);
    }
    let (text, rest) = text.split_at_checked(octets).ok_or(PathError::Malformed)?;
    if !text.is_ascii() && text.chars().any(breaks_lines) {
        return Err(PathError::Malformed);
    }
    let local_part = if quoted {
        LocalPart::QuotedString(text)
    } else {
        LocalPart::DotString(text)
    };
    Ok((local_part, rest))
}

/// Controls and line separators beyond ASCII. RFC 6531 lets them pass in a local part; nobody has
/// such a mailbox, and in a header or a log they would look like the start of another line.
fn breaks_lines(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

/// ```text
/// Dot-string = Atom *("." Atom)
/// Atom       = 1*atext          ; RFC 5322 §3.2.3, and UTF-8 beyond ASCII by RFC 6531 §3.3
/// ```
/// Gives how many octets it matched.
fn dot_string(text: &str) -> Result<usize, PathError> {
    let mut octets = 0;
    let mut atom_octets = 0;
    for octet in text.bytes() {
        match octet {
            b'.' if atom_octets > 0 => atom_octets = 0,
            octet if is_atext(octet) => atom_octets += 1,
            _ => break,
        }
        octets += 1;
    }
    if atom_octets == 0 {
        Err(PathError::Malformed)
    } else {
        Ok(octets)
    }
}

/// ```text
/// Quoted-string   = DQUOTE *QcontentSMTP DQUOTE
/// QcontentSMTP    = qtextSMTP / quoted-pairSMTP
/// quoted-pairSMTP = %d92 %d32-126
/// qtextSMTP       = %d32-33 / %d35-91 / %d93-126   ; and UTF-8 beyond ASCII by RFC 6531 §3.3
/// ```
/// Gives how many octets it matched, quotes included.
fn quoted_string(text: &str) -> Result<usize, PathError> {
    let mut octets = text.bytes().enumerate().skip(1);
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'"' => return Ok(at + 1),
            b'\\' if matches!(octets.next(), Some((_, 32..=126))) => {}
            b'\\' => return Err(PathError::Malformed),
            32..=126 | 128.. => {}
            _ => return Err(PathError::Malformed),
        }
    }
    Err(PathError::Malformed)
}

/// ```text
/// atext = ALPHA / DIGIT / "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "/" / "=" / "?" /
///         "^" / "_" / "`" / "{" / "|" / "}" / "~"  ; and UTF-8 beyond ASCII by RFC 6531 §3.3
/// ```
fn is_atext(octet: u8) -> bool {
    matches!(octet,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | 128..
        | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'/' | b'=' | b'?'
        | b'^' | b'_' | b'`' | b'{' | b'|' | b'}' | b'~')
}

/// ```text
/// Domain     = sub-domain *("." sub-domain)
/// sub-domain = Let-dig [Ldh-str] / U-label        ; RFC 6531 §3.3
/// Let-dig    = ALPHA / DIGIT
/// Ldh-str    = *( ALPHA / DIGIT / "-" ) Let-dig
/// ```
fn domain(text: &str) -> Result<(DomainPart<'_>, &str), PathError> {
    let mut octets = 0;
    let mut label_octets = 0;
    let mut label_octets_longest = 0;
    let mut before = b'.';
    let mut ascii = true;
    for octet in text.bytes() {
        match octet {
            b'.' if label_octets > 0 && before != b'-' => label_octets = 0,
            b'-' if label_octets > 0 => label_octets += 1,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => label_octets += 1,
            128.. => {
                label_octets += 1;
                ascii = false;
            }
            _ => break,
        }
        label_octets_longest = label_octets_longest.max(label_octets);
        before = octet;
        octets += 1;
    }
    if label_octets == 0 || before == b'-' {
        return Err(PathError::Malformed);
    }
    if octets > DOMAIN_OCTETS_MAX || (ascii && label_octets_longest > LABEL_OCTETS_MAX) {
        return Err(PathError::TooLong);
    }
    let (as_given, rest) = text.split_at_checked(octets).ok_or(PathError::Malformed)?;
    if ascii {
        return Ok((DomainPart::Ascii(as_given), rest));
    }
    let a_labels = a_labels(as_given).ok_or(PathError::Malformed)?.into();
    Ok((DomainPart::International { as_given, a_labels }, rest))
}

/// `domain` in lower-case A-labels, or nothing if it cannot be written so. By UTS #46, whose
/// mapping of case and width is what people expect of what they type; the limits are DNS's.
pub fn a_labels(domain: &str) -> Option<Cow<'_, str>> {
    use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
    Uts46::new()
        .to_ascii(
            domain.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            DnsLength::Verify,
        )
        .ok()
}

/// ```text
/// address-literal = "[" ( IPv4-address-literal / IPv6-address-literal /
///                         General-address-literal ) "]"
/// ```
/// The tag of a general-address-literal MUST be a registered one. None is besides IPv6, so there is
/// none of them, and `[2001:db8::1]` is no literal either.
fn address_literal(text: &str) -> Result<(DomainPart<'_>, &str), PathError> {
    const TAG: &str = "IPv6:";
    let end = memchr::memchr(b']', text.as_bytes()).ok_or(PathError::Malformed)?;
    let (literal, rest) = text.split_at_checked(end + 1).ok_or(PathError::Malformed)?;
    let inner = literal
        .strip_prefix('[')
        .and_then(|literal| literal.strip_suffix(']'));
    let inner = inner.ok_or(PathError::Malformed)?;
    if literal.len() > DOMAIN_OCTETS_MAX {
        return Err(PathError::TooLong);
    }
    let part = match inner.split_at_checked(TAG.len()) {
        // RFC 5321 writes IPv6-addr out; `Ipv6Addr` reads the same texts (and "::" for a single
        // group, which RFC 5321 does not have and RFC 4291 does), and no zone.
        Some((tag, address)) if tag.eq_ignore_ascii_case(TAG) => address
            .parse()
            .map(DomainPart::Ipv6)
            .map_err(|_| PathError::Malformed)?,
        _ => match ipv4_address_literal(inner) {
            Some(address) => DomainPart::Ipv4(address),
            None => return Err(PathError::Malformed),
        },
    };
    Ok((part, rest))
}

/// ```text
/// IPv4-address-literal = Snum 3("." Snum)
/// Snum                 = 1*3DIGIT         ; decimal, 0 to 255
/// ```
/// `Ipv4Addr` refuses the leading zeros that this rule has, so the numbers are read here.
fn ipv4_address_literal(text: &str) -> Option<Ipv4Addr> {
    let mut snums = text.split('.').map(|snum| {
        let holds = (1..=3).contains(&snum.len()) && snum.bytes().all(|d| d.is_ascii_digit());
        if holds { snum.parse::<u8>().ok() } else { None }
    });
    let mut next = || snums.next().flatten();
    let address = Ipv4Addr::new(next()?, next()?, next()?, next()?);
    if snums.next().is_none() {
        Some(address)
    } else {
        None
    }
}

fn lower_case(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|octet| octet.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeat(pattern: &str, times: usize) -> String {
        pattern.repeat(times)
    }

    #[test]
    fn mailboxes_in_paths_are_read() {
        let local_64 = repeat("l", 64);
        let local_quoted_64 = format!("\"{}\"", repeat("q", 62));
        let label_63 = repeat("d", 63);
        let domain_189 = format!("{label_63}.{label_63}.{}", repeat("e", 61));
        let longest = format!("{local_64}@{domain_189}");
        assert_eq!(longest.len() + 2, PATH_OCTETS_MAX);
        // name, path, as given, local part unquoted, domain for comparison
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, String, &str, &str, &str)] = &[
            ("plain", "<a@b>".into(), "a@b", "a", "b"),
            ("several labels", "<a@b.c.d>".into(), "a@b.c.d", "a", "b.c.d"),
            ("digits and hyphens", "<a@3-b.x--y>".into(), "a@3-b.x--y", "a", "3-b.x--y"),
            ("case", "<Aa@Bb.EXAMPLE>".into(), "Aa@Bb.EXAMPLE", "Aa", "bb.example"),
            ("all of atext", "<!#$%&'*+-/=?^_`{|}~@b>".into(), "!#$%&'*+-/=?^_`{|}~@b", "!#$%&'*+-/=?^_`{|}~", "b"),
            ("dots between atoms", "<a.b.c@d>".into(), "a.b.c@d", "a.b.c", "d"),
            ("quoted", "<\"a b\"@c>".into(), "\"a b\"@c", "a b", "c"),
            ("quoted without need", "<\"ab\"@c>".into(), "\"ab\"@c", "ab", "c"),
            ("nothing quoted", "<\"\"@c>".into(), "\"\"@c", "", "c"),
            ("quoted pairs", r#"<"\"\\\a"@c>"#.into(), r#""\"\\\a"@c"#, r#""\a"#, "c"),
            ("quoted brackets", "<\"<a@b>\"@c>".into(), "\"<a@b>\"@c", "<a@b>", "c"),
            ("quoted dots", "<\"..\"@c>".into(), "\"..\"@c", "..", "c"),
            ("IPv4", "<a@[192.0.2.1]>".into(), "a@[192.0.2.1]", "a", "[192.0.2.1]"),
            ("IPv4 with zeros", "<a@[192.000.02.1]>".into(), "a@[192.000.02.1]", "a", "[192.0.2.1]"),
            ("IPv6", "<a@[IPv6:2001:DB8:0::1]>".into(), "a@[IPv6:2001:DB8:0::1]", "a", "[ipv6:2001:db8::1]"),
            ("IPv6 in any case", "<a@[ipv6:::]>".into(), "a@[ipv6:::]", "a", "[ipv6:::]"),
            ("IPv6v4", "<a@[IPv6:::ffff:192.0.2.1]>".into(), "", "a", "[ipv6:::ffff:192.0.2.1]"),
            ("a name like an address", "<a@192.0.2.1>".into(), "a@192.0.2.1", "a", "192.0.2.1"),
            ("one hop of route", "<@h:a@b>".into(), "a@b", "a", "b"),
            ("two hops of route", "<@h.x,@i.y:\"q\"@b>".into(), "\"q\"@b", "q", "b"),
            ("a UTF-8 local part", "<δοκιμή@b>".into(), "δοκιμή@b", "δοκιμή", "b"),
            ("UTF-8 in quotes", "<\"ü ö\"@b>".into(), "\"ü ö\"@b", "ü ö", "b"),
            ("U-labels", "<a@παράδειγμα.Δοκιμή>".into(), "", "a", "xn--hxajbheg2az3al.xn--jxalpdlp"),
            ("A-labels", "<a@XN--HXAJBHEG2AZ3AL>".into(), "a@XN--HXAJBHEG2AZ3AL", "a", "xn--hxajbheg2az3al"),
            ("local part of 64", format!("<{local_64}@b>"), "", &local_64, "b"),
            ("quoted one of 64", format!("<{local_quoted_64}@b>"), "", &local_quoted_64[1..63], "b"),
            ("label of 63", format!("<a@{label_63}>"), "", "a", &label_63),
            ("path of 256", format!("<{longest}>"), &longest, &local_64, &domain_189),
        ];
        for (name, text, as_given, local_part, domain) in rows {
            let followed = format!("{text} REST");
            let (mailbox, rest) = path(&followed).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(rest, " REST", "{name}");
            if !as_given.is_empty() {
                assert_eq!(mailbox.as_given(), *as_given, "{name}");
            }
            assert_eq!(mailbox.local_part().unquoted(), *local_part, "{name}");
            assert_eq!(mailbox.domain().comparable(), *domain, "{name}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        use PathError::{Malformed, NoBrackets, TooLong};
        let label_63 = repeat("d", 63);
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, String, PathError)] = &[
            ("nothing", "".into(), NoBrackets),
            ("no brackets", "a@b".into(), NoBrackets),
            ("not closed", "<a@b".into(), Malformed),
            ("null", "<>".into(), Malformed),
            ("two opened", "<<a@b>>".into(), Malformed),
            ("no domain", "<a>".into(), Malformed),
            ("empty domain", "<a@>".into(), Malformed),
            ("no local part", "<@b>".into(), Malformed),
            ("two at signs", "<a@b@c>".into(), Malformed),
            ("a space in front", "< a@b>".into(), Malformed),
            ("a space behind", "<a@b >".into(), Malformed),
            ("a space inside", "<a b@c>".into(), Malformed),
            ("a dot in front", "<.a@b>".into(), Malformed),
            ("a dot behind", "<a.@b>".into(), Malformed),
            ("two dots", "<a..b@c>".into(), Malformed),
            ("a comment", "<a(x)@b>".into(), Malformed),
            ("a display name", "<A <a@b>>".into(), Malformed),
            ("a comma", "<a,b@c>".into(), Malformed),
            ("a colon", "<a:b@c>".into(), Malformed),
            ("a backslash outside quotes", "<a\\b@c>".into(), Malformed),
            ("a quote in an atom", "<a\"b@c>".into(), Malformed),
            ("quotes not closed", "<\"a@b>".into(), Malformed),
            ("quotes closed by a pair", "<\"a\\\"@b>".into(), Malformed),
            ("text behind quotes", "<\"a\"b@c>".into(), Malformed),
            ("quotes and dot", "<\"a\".b@c>".into(), Malformed),
            ("NUL", "<a\0@b>".into(), Malformed),
            ("NUL in quotes", "<\"\0\"@b>".into(), Malformed),
            ("CR in quotes", "<\"\r\"@b>".into(), Malformed),
            ("a paired line feed", "<\"\\\n\"@b>".into(), Malformed),
            ("a tab in quotes", "<\"\t\"@b>".into(), Malformed),
            ("DEL", "<\u{7f}@b>".into(), Malformed),
            ("a paired umlaut", "<\"\\ü\"@b>".into(), Malformed),
            ("NEL", "<a\u{85}@b>".into(), Malformed),
            ("a line separator in quotes", "<\"a\u{2028}\"@b>".into(), Malformed),
            ("a hyphen in front of a label", "<a@-b>".into(), Malformed),
            ("a hyphen behind a label", "<a@b->".into(), Malformed),
            ("a hyphen behind an inner label", "<a@b-.c>".into(), Malformed),
            ("a dot in front of a domain", "<a@.b>".into(), Malformed),
            ("a dot behind a domain", "<a@b.>".into(), Malformed),
            ("two dots in a domain", "<a@b..c>".into(), Malformed),
            ("an underscore in a domain", "<a@b_c>".into(), Malformed),
            ("a fullwidth at sign in a domain", "<a@b＠c>".into(), Malformed),
            ("a U-label nothing maps", "<a@\u{378}.org>".into(), Malformed),
            ("a NEL in a domain", "<a@b\u{85}c>".into(), Malformed),
            ("IPv4 of three", "<a@[192.0.2]>".into(), Malformed),
            ("IPv4 of five", "<a@[192.0.2.1.1]>".into(), Malformed),
            ("IPv4 over 255", "<a@[192.0.2.256]>".into(), Malformed),
            ("IPv4 of four digits", "<a@[192.0.2.0001]>".into(), Malformed),
            ("IPv4 with a sign", "<a@[192.0.2.+1]>".into(), Malformed),
            ("IPv4 in hex", "<a@[0xc0.0.2.1]>".into(), Malformed),
            ("IPv6 without its tag", "<a@[::1]>".into(), Malformed),
            ("IPv6 with a zone", "<a@[IPv6:fe80::1%eth0]>".into(), Malformed),
            ("IPv6 that is none", "<a@[IPv6:1:2]>".into(), Malformed),
            ("IPv6 with IPv4 inside its tag", "<a@[IPv6:192.0.2.1]>".into(), Malformed),
            ("a literal not closed", "<a@[192.0.2.1>".into(), Malformed),
            ("an empty literal", "<a@[]>".into(), Malformed),
            ("a tag nobody registered", "<a@[tag:content]>".into(), Malformed),
            ("IPv6 that looks like a tag", "<a@[2001:db8::1]>".into(), Malformed),
            ("a general literal without content", "<a@[tag:]>".into(), Malformed),
            ("a general literal with a space", "<a@[tag:a b]>".into(), Malformed),
            ("a general literal with a bad tag", "<a@[t-:x]>".into(), Malformed),
            ("text behind a literal", "<a@[192.0.2.1]b>".into(), Malformed),
            ("a route without a mailbox", "<@a:>".into(), Malformed),
            ("a route without a colon", "<@a,a@b>".into(), Malformed),
            ("a route with an empty hop", "<@a,,@b:a@b>".into(), Malformed),
            ("a route by literal", "<@[192.0.2.1]:a@b>".into(), Malformed),
            ("a route to the postmaster", "<@a:postmaster>".into(), Malformed),
            ("local part of 65", format!("<{}@b>", repeat("l", 65)), TooLong),
            ("quoted one of 65", format!("<\"{}\"@b>", repeat("q", 63)), TooLong),
            ("label of 64", format!("<a@{}>", repeat("d", 64)), TooLong),
            ("domain of 256", format!("<a@{label_63}.{label_63}.{label_63}.{label_63}.e>"), TooLong),
            ("path of 257", format!("<{}@{label_63}.{label_63}.{}>", repeat("l", 64), repeat("e", 62) ), TooLong),
            ("U-label too long as an A-label", format!("<a@{}>", repeat("ü", 64)), Malformed),
            ("a literal of 256", format!("<a@[t:{}]>", repeat("x", 252)), TooLong),
            ("a long route", format!("<@{label_63}.{label_63}.{label_63}.e:a@{label_63}>"), TooLong),
        ];
        for (name, text, error) in rows {
            assert_eq!(
                path(text).map(|(mailbox, _)| mailbox),
                Err(*error),
                "{name}"
            );
        }
    }

    #[test]
    fn null_is_for_bounces_and_the_postmaster_for_recipients() {
        assert_eq!(
            reverse_path("<> SIZE=1"),
            Ok((ReversePath::Null, " SIZE=1"))
        );
        assert_eq!(reverse_path("<postmaster>"), Err(PathError::Malformed));
        assert_eq!(forward_path("<>"), Err(PathError::Malformed));
        for path in ["<postmaster>", "<Postmaster>", "<POSTMASTER>"] {
            assert_eq!(
                forward_path(path),
                Ok((ForwardPath::Postmaster, "")),
                "{path}"
            );
        }
        let (path, _) = forward_path("<Postmaster@b>").unwrap();
        assert!(matches!(path, ForwardPath::Mailbox(_)));
    }
}
