//! Message content to measure with: made here, from a seed of the caller's, so that every run reads the same.

/// A header with three hops, and the empty line behind it.
pub(crate) fn header() -> Vec<u8> {
    let mut header = String::new();
    for hop in 1..=3 {
        header.push_str(&format!(
            "Received: from out{hop}.example.com (out{hop}.example.com [192.0.2.{hop}])\r\n\
             \tby mx{hop}.example.org (Postfix) with ESMTPS id 4Vx{hop}k\r\n\
             \tfor <user@example.org>; Tue, 24 Nov 2026 08:00:0{hop} +0000\r\n"
        ));
    }
    header.push_str(
        "From: A Sender <sender@example.com>\r\nTo: user@example.org\r\n\
         Subject: what was said on Monday\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n",
    );
    header.into_bytes()
}

/// Lines of words, one in fifty beginning with a dot.
pub(crate) fn prose(content: &mut Vec<u8>, octets: usize, random: &mut fastrand::Rng) {
    while content.len() < octets {
        if random.u8(..50) == 0 {
            content.push(b'.');
        }
        let line_octets = random.usize(20..78);
        content.extend((0..line_octets).filter_map(|_| random.choice(b"etaoin shrdlu.,".iter())));
        content.extend_from_slice(if random.u8(..8) == 0 {
            b"\r\n\r\n"
        } else {
            b"\r\n"
        });
    }
}

/// Lines of base64 as an attachment has them.
pub(crate) fn base64(content: &mut Vec<u8>, octets: usize, random: &mut fastrand::Rng) {
    while content.len() < octets {
        content.extend((0..76).map(|_| random.alphanumeric() as u8));
        content.extend_from_slice(b"\r\n");
    }
}

/// Lines of 100,000 octets each.
pub(crate) fn long_lines(content: &mut Vec<u8>, octets: usize, random: &mut fastrand::Rng) {
    while content.len() < octets {
        content.extend((0..100_000).map(|_| random.alphanumeric() as u8));
        content.extend_from_slice(b"\r\n");
    }
}

/// Content whose last line is whole, as DATA carries it.
pub(crate) fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    wire.extend_from_slice(b".\r\n");
    wire
}
