//! How long a path takes to read, with what RCPT then needs of it: the local part without quotes, and the domain
//! as domains are compared.
//!
//! Mailbox, local part and domain are compared in every timed round.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringpost::smtp::path::{self, ForwardPath, PathError, ReversePath};

struct Row {
    name: &'static str,
    path: &'static str,
    mailbox: &'static str,
    local_part: &'static str,
    domain: &'static str,
}

const PATHS: &[Row] = &[
    Row {
        name: "plain",
        path: "<first.last@mail.example.org>",
        mailbox: "first.last@mail.example.org",
        local_part: "first.last",
        domain: "mail.example.org",
    },
    Row {
        name: "upper case domain",
        path: "<first.last@Mail.Example.ORG>",
        mailbox: "first.last@Mail.Example.ORG",
        local_part: "first.last",
        domain: "mail.example.org",
    },
    Row {
        name: "quoted local part",
        path: r#"<"first last"@mail.example.org>"#,
        mailbox: r#""first last"@mail.example.org"#,
        local_part: "first last",
        domain: "mail.example.org",
    },
    Row {
        name: "quoted pairs",
        path: r#"<"first \"x\" last"@mail.example.org>"#,
        mailbox: r#""first \"x\" last"@mail.example.org"#,
        local_part: r#"first "x" last"#,
        domain: "mail.example.org",
    },
    Row {
        name: "IPv4 literal",
        path: "<postmaster@[192.0.2.25]>",
        mailbox: "postmaster@[192.0.2.25]",
        local_part: "postmaster",
        domain: "[192.0.2.25]",
    },
    Row {
        name: "IPv6 literal",
        path: "<postmaster@[IPv6:2001:DB8:0:0::25]>",
        mailbox: "postmaster@[IPv6:2001:DB8:0:0::25]",
        local_part: "postmaster",
        domain: "[ipv6:2001:db8::25]",
    },
    Row {
        name: "source route",
        path: "<@one.example.com,@two.example.net:user@mail.example.org>",
        mailbox: "user@mail.example.org",
        local_part: "user",
        domain: "mail.example.org",
    },
    Row {
        name: "A-labels",
        path: "<user@xn--hxajbheg2az3al.xn--jxalpdlp>",
        mailbox: "user@xn--hxajbheg2az3al.xn--jxalpdlp",
        local_part: "user",
        domain: "xn--hxajbheg2az3al.xn--jxalpdlp",
    },
    Row {
        name: "U-labels",
        path: "<δοκιμή@παράδειγμα.δοκιμή>",
        mailbox: "δοκιμή@παράδειγμα.δοκιμή",
        local_part: "δοκιμή",
        domain: "xn--hxajbheg2az3al.xn--jxalpdlp",
    },
    Row {
        name: "longest local part",
        path: "<bounce+0123456789abcdef0123456789abcdef=first.last=example.org12@lists.example.com>",
        mailbox: "bounce+0123456789abcdef0123456789abcdef=first.last=example.org12@lists.example.com",
        local_part: "bounce+0123456789abcdef0123456789abcdef=first.last=example.org12",
        domain: "lists.example.com",
    },
];

/// What is refused, and for what.
const REFUSED: &[(&str, &str, PathError)] = &[
    (
        "without brackets",
        "first.last@mail.example.org",
        PathError::NoBrackets,
    ),
    (
        "underscore in the domain",
        "<first.last@mail.example_org>",
        PathError::Malformed,
    ),
    (
        "local part too long",
        "<bounce+0123456789abcdef0123456789abcdef=first.last=example.org123@lists.example.com>",
        PathError::TooLong,
    ),
];

fn forward_paths(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path/forward");
    for row in PATHS {
        group.throughput(Throughput::Bytes(row.path.len() as u64));
        group.bench_function(row.name, |bencher| {
            bencher.iter(|| {
                let read = path::forward_path(black_box(row.path));
                let Ok((ForwardPath::Mailbox(mailbox), "")) = read else {
                    panic!("{}: {read:?}", row.name);
                };
                assert_eq!(mailbox.as_given(), row.mailbox);
                assert_eq!(mailbox.local_part().unquoted(), row.local_part);
                assert_eq!(mailbox.domain().comparable(), row.domain);
            });
        });
    }
    const POSTMASTER: &str = "<Postmaster>";
    group.throughput(Throughput::Bytes(POSTMASTER.len() as u64));
    group.bench_function("postmaster", |bencher| {
        bencher.iter(|| {
            let read = path::forward_path(black_box(POSTMASTER));
            assert_eq!(read, Ok((ForwardPath::Postmaster, "")));
        });
    });
    for (name, text, error) in REFUSED {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("refused: {name}"), |bencher| {
            bencher.iter(|| assert_eq!(path::forward_path(black_box(text)), Err(*error)));
        });
    }
    group.finish();
}

fn reverse_paths(criterion: &mut Criterion) {
    const NULL: &str = "<> SIZE=2100";
    let mut group = criterion.benchmark_group("path/reverse");
    group.throughput(Throughput::Bytes(2));
    group.bench_function("null", |bencher| {
        bencher.iter(|| {
            let read = path::reverse_path(black_box(NULL));
            assert_eq!(read, Ok((ReversePath::Null, " SIZE=2100")));
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    // Enough for what takes less than a microsecond.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = forward_paths, reverse_paths
}
criterion_main!(benches);
