//! Paths: one made by the grammar is read as what it was made from; any other is refused or read
//! the same twice.

use ringpost::smtp::path::{ForwardPath, forward_path, reverse_path};

use super::commands::holds_a_mailbox;
use super::{cases, choose, mutate};

#[test]
fn paths() {
    cases("paths", |random| {
        let made = Made::new(random);
        let (path, rest) = forward_path(&made.path).expect(&made.path);
        let ForwardPath::Mailbox(mailbox) = path else {
            panic!("{} is no postmaster", made.path)
        };
        assert_eq!(rest, made.rest, "{}", made.path);
        assert_eq!(mailbox.as_given(), made.as_given, "{}", made.path);
        assert_eq!(
            mailbox.local_part().unquoted(),
            made.unquoted,
            "{}",
            made.path
        );
        assert_eq!(
            mailbox.domain().comparable(),
            made.comparable,
            "{}",
            made.path
        );

        let mut octets = made.path.into_bytes();
        mutate(random, &mut octets);
        if random.bool() {
            mutate(random, &mut octets);
        }
        let Ok(text) = String::from_utf8(octets) else {
            return;
        };
        let forward = forward_path(&text);
        let reverse = reverse_path(&text);
        let Ok((ForwardPath::Mailbox(mailbox), rest)) = &forward else {
            return;
        };
        assert!(reverse.is_ok(), "{text:?}");
        assert!(text.ends_with(rest) && text.starts_with('<'), "{text:?}");
        let path = &text[..text.len() - rest.len()];
        assert!(path.ends_with('>') && path.len() <= 256, "{text:?}");
        holds_a_mailbox(mailbox, true, text.as_bytes());
        // The mailbox itself, its route gone, is the same mailbox.
        let again = format!("<{}>", mailbox.as_given());
        let Ok((ForwardPath::Mailbox(same), "")) = forward_path(&again) else {
            panic!("{again:?} of {text:?}")
        };
        assert_eq!(same, *mailbox, "{text:?}");
        // And so is one with the domain by which it was compared.
        let by_domain = format!("<a@{}>", mailbox.domain().comparable());
        let Ok((ForwardPath::Mailbox(same), "")) = forward_path(&by_domain) else {
            panic!("{by_domain:?} of {text:?}")
        };
        assert_eq!(
            same.domain().comparable(),
            mailbox.domain().comparable(),
            "{text:?}"
        );
    });
}

/// A path, and what it must be read as.
struct Made {
    path: String,
    as_given: String,
    unquoted: String,
    comparable: String,
    rest: &'static str,
}

impl Made {
    fn new(random: &mut fastrand::Rng) -> Made {
        const ATEXT: &str = "abcXYZ019!#$%&'*+-/=?^_`{|}~";
        let (local_part, unquoted) = if random.bool() {
            let atoms: Vec<String> = (0..random.usize(1..4))
                .map(|_| letters(random, ATEXT, 1..6))
                .collect();
            (atoms.join("."), atoms.join("."))
        } else {
            let mut quoted = String::from("\"");
            let mut unquoted = String::new();
            for _ in 0..random.usize(1..12) {
                let letter = char::from(random.u8(b' '..=b'~'));
                if matches!(letter, '"' | '\\') || random.u8(..8) == 0 {
                    quoted.push('\\');
                }
                quoted.push(letter);
                unquoted.push(letter);
            }
            quoted.push('"');
            (quoted, unquoted)
        };
        let (domain, comparable) = domain(random);
        let as_given = format!("{local_part}@{domain}");
        let mut route: Vec<String> = Vec::new();
        if random.u8(..3) == 0 {
            for _ in 0..random.usize(1..4) {
                route.push(format!("@{}", name(random)));
            }
        }
        let colon = if route.is_empty() { "" } else { ":" };
        let rest = *choose(random, &["", " SIZE=1", ">", "<"]);
        Made {
            path: format!("<{}{colon}{as_given}>{rest}", route.join(",")),
            as_given,
            unquoted,
            comparable,
            rest,
        }
    }
}

fn domain(random: &mut fastrand::Rng) -> (String, String) {
    match random.u8(..5) {
        0 => {
            let octets: [u8; 4] = [random.u8(..), random.u8(..), random.u8(..), random.u8(..)];
            let address = std::net::Ipv4Addr::from(octets);
            (format!("[{address}]"), format!("[{address}]"))
        }
        1 => {
            let groups: [u16; 8] = std::array::from_fn(|_| random.u16(..) >> random.u8(..16));
            let address = std::net::Ipv6Addr::from(groups);
            (format!("[IPv6:{address}]"), format!("[ipv6:{address}]"))
        }
        2 => {
            let (as_given, comparable) = *choose(
                random,
                &[
                    ("bücher.example", "xn--bcher-kva.example"),
                    ("例え.example", "xn--r8jz45g.example"),
                ],
            );
            (String::from(as_given), String::from(comparable))
        }
        _ => {
            let name = name(random);
            let comparable = name.to_ascii_lowercase();
            (name, comparable)
        }
    }
}

fn name(random: &mut fastrand::Rng) -> String {
    let labels: Vec<String> = (0..random.usize(1..4))
        .map(|_| {
            let first = letters(random, "abcXYZ019", 1..2);
            let midst = letters(random, "abcXYZ019-", 0..6);
            let last = letters(random, "abcXYZ019", 1..2);
            // Hyphens in the third and fourth place make an A-label of it.
            format!("{first}{}{last}", midst.replace("--", "-"))
        })
        .collect();
    labels.join(".")
}

fn letters(random: &mut fastrand::Rng, of: &str, count: std::ops::Range<usize>) -> String {
    let of: Vec<char> = of.chars().collect();
    (0..random.usize(count))
        .map(|_| *choose(random, &of))
        .collect()
}
