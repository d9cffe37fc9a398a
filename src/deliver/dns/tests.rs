//! Lookups against a server on loopback that lies, breaks and stays silent as told. Nothing leaves the machine.

mod server;

use std::net::UdpSocket;
use std::time::Instant;

use self::server::Server;
use super::*;
use crate::ring::{RingSettings, run};

/// For silence: long enough for a busy machine, short enough to wait for.
const SHORT: Patience = Patience {
    query: Duration::from_millis(700),
    lookup: Duration::from_secs(10),
};

fn patience(zone: &[&str]) -> Patience {
    match zone.iter().any(|line| line.contains("SILENT")) {
        true => SHORT,
        false => PATIENCE,
    }
}

fn ourselves() -> Ourselves {
    Ourselves {
        hostname: "us.test".to_owned(),
        addresses: vec!["192.0.2.99".parse().unwrap()],
    }
}

fn asking(servers: &[SocketAddr], patience: Patience) -> Dns {
    let servers = servers.iter().map(|server| at(*server)).collect();
    Dns::of(servers, ResolveHosts::Never, ourselves(), patience).unwrap()
}

fn on_tokio<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// `mx.a.test 192.0.2.1 192.0.2.2, …` or `5.1.2 domain …`.
async fn exchangers(dns: &Dns, domain: &str) -> String {
    let mut exchangers = match dns.exchangers(domain).await {
        Ok(exchangers) => exchangers,
        Err(failure) => return format!("{} {failure}", failure.status),
    };
    let mut shown = Vec::new();
    while let Some(exchanger) = exchangers.next().await {
        assert!(!exchanger.addresses.is_empty(), "{exchanger:?}");
        let addresses = exchanger
            .addresses
            .iter()
            .map(|address| format!(" {address}"));
        shown.push(addresses.fold(exchanger.name.into_string(), |text, next| text + &next));
    }
    assert!(!shown.is_empty(), "{domain}: neither a host nor a failure");
    shown.join(", ")
}

/// `192.0.2.1 192.0.2.2` or `5.1.2 host …`.
async fn addresses(dns: &Dns, host: &str) -> String {
    match dns.addresses(host).await {
        Ok(addresses) => {
            let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
            addresses.join(" ")
        }
        Err(failure) => format!("{} {failure}", failure.status),
    }
}

/// What is looked up, the zone, and what comes of it.
type Row = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static str,
);

#[test]
fn exchangers_of_a_domain() {
    const ROWS: &[Row] = &[
        (
            "by preference",
            "a.test",
            &[
                "a.test MX 20 second.a.test",
                "a.test MX 10 first.a.test",
                "first.a.test A 192.0.2.1",
                "second.a.test A 192.0.2.2",
            ],
            "first.a.test 192.0.2.1, second.a.test 192.0.2.2",
        ),
        (
            "several addresses",
            "a.test",
            &[
                "a.test MX 10 mx.a.test",
                "mx.a.test A 192.0.2.1",
                "mx.a.test A 192.0.2.2",
            ],
            "mx.a.test 192.0.2.1 192.0.2.2",
        ),
        (
            "IPv6 alone",
            "a.test",
            &["a.test MX 10 mx.a.test", "mx.a.test AAAA 2001:db8::1"],
            "mx.a.test 2001:db8::1",
        ),
        (
            "implicit MX",
            "a.test",
            &["a.test A 192.0.2.1"],
            "a.test 192.0.2.1",
        ),
        (
            "no implicit MX beside one of no use",
            "a.test",
            &["a.test MX 10 gone.test", "a.test A 192.0.2.1"],
            "5.4.4 no mail exchanger of domain a.test has an address in DNS",
        ),
        (
            "a host without an address is passed over",
            "a.test",
            &[
                "a.test MX 10 empty.a.test",
                "a.test MX 20 gone.test",
                "a.test MX 30 mx.a.test",
                "empty.a.test EXISTS",
                "mx.a.test A 192.0.2.1",
            ],
            "mx.a.test 192.0.2.1",
        ),
        (
            "addresses that are of no host",
            "a.test",
            &[
                "a.test MX 10 mx.a.test",
                "mx.a.test A 0.0.0.0",
                "mx.a.test A 224.0.0.1",
                "mx.a.test A 255.255.255.255",
                "mx.a.test AAAA ::",
                "mx.a.test AAAA ff02::1",
            ],
            "5.4.4 no mail exchanger of domain a.test has an address in DNS",
        ),
        (
            "null MX",
            "a.test",
            &["a.test MX 0 .", "a.test A 192.0.2.1"],
            "5.1.10 domain a.test does not accept mail (null MX)",
        ),
        (
            "null MX of another preference",
            "a.test",
            &["a.test MX 10 ."],
            "5.1.10 domain a.test does not accept mail (null MX)",
        ),
        (
            "null MX among others",
            "a.test",
            &[
                "a.test MX 0 .",
                "a.test MX 10 mx.a.test",
                "mx.a.test A 192.0.2.1",
            ],
            "mx.a.test 192.0.2.1",
        ),
        (
            "an address in place of a name",
            "a.test",
            &["a.test MX 10 192.0.2.1"],
            "5.4.4 no mail exchanger of domain a.test has an address in DNS",
        ),
        (
            "a name that could break a line of the log",
            "a.test",
            &[
                "a.test MX 10 mx|a.test",
                "mx|a.test A 192.0.2.1",
                "a.test MX 20 mx.a.test",
                "mx.a.test A 192.0.2.2",
            ],
            "mx.a.test 192.0.2.2",
        ),
        (
            "no name but those",
            "a.test",
            &["a.test MX 10 mx|a.test", "a.test A 192.0.2.1"],
            "5.4.4 no mail exchanger of domain a.test has an address in DNS",
        ),
        (
            "no such domain",
            "a.test",
            &[],
            "5.1.2 domain a.test does not exist in DNS",
        ),
        (
            "neither MX nor address",
            "a.test",
            &["a.test EXISTS"],
            "5.4.4 domain a.test has neither a mail exchanger nor an address in DNS",
        ),
        (
            "no MX, and not known whether an address",
            "a.test",
            &["a.test SERVFAIL A", "a.test SERVFAIL AAAA"],
            "4.4.3 cannot look up the address of a.test: the DNS server answers SERVFAIL",
        ),
        (
            "not known whether an MX",
            "a.test",
            &["a.test SERVFAIL MX", "a.test A 192.0.2.1"],
            "4.4.3 cannot look up the mail exchangers of a.test: the DNS server answers SERVFAIL",
        ),
        (
            "refused",
            "a.test",
            &["a.test REFUSED"],
            "4.4.3 cannot look up the mail exchangers of a.test: the DNS server answers REFUSED",
        ),
        (
            "another code",
            "a.test",
            &["a.test NOTIMP"],
            "4.4.3 cannot look up the mail exchangers of a.test: the DNS server answers Not Implemented",
        ),
        (
            "a referral",
            "a.test",
            &["a.test REFERRAL"],
            "4.4.3 cannot look up the mail exchangers of a.test: the DNS server only refers to others",
        ),
        (
            "silence",
            "a.test",
            &["a.test SILENT"],
            "4.4.3 cannot look up the mail exchangers of a.test: the DNS server does not answer",
        ),
        (
            "a host that is not known yields to the next one",
            "a.test",
            &[
                "a.test MX 10 broken.a.test",
                "a.test MX 20 mx.a.test",
                "broken.a.test SERVFAIL",
                "mx.a.test A 192.0.2.1",
            ],
            "mx.a.test 192.0.2.1",
        ),
        (
            "a host that is not known keeps the mail",
            "a.test",
            &[
                "a.test MX 10 broken.a.test",
                "a.test MX 20 gone.test",
                "broken.a.test SERVFAIL",
            ],
            "4.4.3 cannot look up the address of broken.a.test: the DNS server answers SERVFAIL",
        ),
        (
            "one kind of addresses is enough",
            "a.test",
            &[
                "a.test MX 10 mx.a.test",
                "mx.a.test A 192.0.2.1",
                "mx.a.test SERVFAIL AAAA",
            ],
            "mx.a.test 192.0.2.1",
        ),
        (
            "the domain is an alias",
            "alias.test",
            &[
                "alias.test CNAME a.test",
                "a.test MX 10 mx.a.test",
                "mx.a.test A 192.0.2.1",
            ],
            "mx.a.test 192.0.2.1",
        ),
        (
            "the domain is an alias, told by itself",
            "alias.test",
            &[
                "alias.test ALIAS a.test",
                "a.test MX 10 mx.a.test",
                "mx.a.test A 192.0.2.1",
            ],
            "mx.a.test 192.0.2.1",
        ),
        (
            "the domain is an alias without MX",
            "alias.test",
            &["alias.test CNAME a.test", "a.test A 192.0.2.1"],
            "alias.test 192.0.2.1",
        ),
        (
            "the domain is an alias of nothing",
            "alias.test",
            &["alias.test CNAME gone.test"],
            "5.1.2 domain alias.test does not exist in DNS",
        ),
        (
            "the domain is an alias of a null MX",
            "alias.test",
            &["alias.test CNAME a.test", "a.test MX 0 ."],
            "5.1.10 domain alias.test does not accept mail (null MX)",
        ),
        (
            "aliases in a circle",
            "one.test",
            &["one.test ALIAS two.test", "two.test ALIAS one.test"],
            "5.4.4 domain one.test has neither a mail exchanger nor an address in DNS",
        ),
        (
            "a host is an alias",
            "a.test",
            &[
                "a.test MX 10 alias.test",
                "alias.test CNAME mx.a.test",
                "mx.a.test A 192.0.2.1",
            ],
            "alias.test 192.0.2.1",
        ),
        (
            "a host is an alias, told by itself",
            "a.test",
            &[
                "a.test MX 10 alias.test",
                "alias.test ALIAS mx.a.test",
                "mx.a.test A 192.0.2.1",
            ],
            "alias.test 192.0.2.1",
        ),
        (
            "too much for a datagram",
            "a.test",
            &[
                "a.test TRUNCATED",
                "a.test MX 10 mx.a.test",
                "mx.a.test TRUNCATED",
                "mx.a.test A 192.0.2.1",
            ],
            "mx.a.test 192.0.2.1",
        ),
        (
            "our name is the best",
            "a.test",
            &[
                "a.test MX 10 us.test",
                "a.test MX 20 mx.a.test",
                "us.test A 192.0.2.1",
                "mx.a.test A 192.0.2.2",
            ],
            "5.4.6 mail for a.test loops back to us",
        ),
        (
            "our name is behind a better one",
            "a.test",
            &[
                "a.test MX 10 mx.a.test",
                "a.test MX 20 us.test",
                "a.test MX 20 equal.a.test",
                "a.test MX 30 worse.a.test",
                "mx.a.test A 192.0.2.1",
                "us.test A 192.0.2.2",
                "equal.a.test A 192.0.2.3",
                "worse.a.test A 192.0.2.4",
            ],
            "mx.a.test 192.0.2.1",
        ),
        (
            "our address is the best",
            "a.test",
            &[
                "a.test MX 10 other.a.test",
                "a.test MX 20 mx.a.test",
                "other.a.test A 192.0.2.99",
                "mx.a.test A 192.0.2.1",
            ],
            "5.4.6 mail for a.test loops back to us",
        ),
        (
            "our address is one of several, behind a better host",
            "a.test",
            &[
                "a.test MX 10 mx.a.test",
                "a.test MX 20 other.a.test",
                "a.test MX 20 equal.a.test",
                "a.test MX 30 worse.a.test",
                "mx.a.test A 192.0.2.1",
                "other.a.test A 192.0.2.2",
                "other.a.test A 192.0.2.99",
                "equal.a.test A 192.0.2.3",
                "worse.a.test A 192.0.2.4",
            ],
            "mx.a.test 192.0.2.1",
        ),
        (
            "our address is the twelfth",
            "a.test",
            &[
                "a.test MX 10 mx.a.test",
                "mx.a.test A 192.0.2.1",
                "mx.a.test A 192.0.2.2",
                "mx.a.test A 192.0.2.3",
                "mx.a.test A 192.0.2.4",
                "mx.a.test A 192.0.2.5",
                "mx.a.test A 192.0.2.6",
                "mx.a.test A 192.0.2.7",
                "mx.a.test A 192.0.2.8",
                "mx.a.test A 192.0.2.9",
                "mx.a.test A 192.0.2.10",
                "mx.a.test A 192.0.2.11",
                "mx.a.test A 192.0.2.99",
            ],
            "5.4.6 mail for a.test loops back to us",
        ),
        (
            "our address in IPv6's clothes",
            "a.test",
            &["a.test MX 10 mx.a.test", "mx.a.test AAAA ::ffff:192.0.2.99"],
            "5.4.6 mail for a.test loops back to us",
        ),
        (
            "an alias of our name, with an address that we do not know",
            "a.test",
            &[
                "a.test MX 10 alias.test",
                "alias.test CNAME us.test",
                "us.test A 192.0.2.1",
            ],
            "5.4.6 mail for a.test loops back to us",
        ),
        (
            "implicit MX that is ourselves by name",
            "us.test",
            &["us.test A 192.0.2.1"],
            "5.4.6 mail for us.test loops back to us",
        ),
        (
            "implicit MX that is ourselves by address",
            "a.test",
            &["a.test A 192.0.2.99"],
            "5.4.6 mail for a.test loops back to us",
        ),
        (
            "nobody finds the host before us",
            "a.test",
            &[
                "a.test MX 10 gone.test",
                "a.test MX 20 other.a.test",
                "other.a.test A 192.0.2.99",
            ],
            "5.4.4 no mail exchanger of domain a.test has an address in DNS",
        ),
        (
            "the host before us is not known",
            "a.test",
            &[
                "a.test MX 10 broken.a.test",
                "a.test MX 20 other.a.test",
                "broken.a.test SERVFAIL",
                "other.a.test A 192.0.2.99",
            ],
            "4.4.3 cannot look up the address of broken.a.test: the DNS server answers SERVFAIL",
        ),
        ("literal", "[192.0.2.1]", &[], "192.0.2.1 192.0.2.1"),
        (
            "literal of IPv6",
            "[ipv6:2001:db8::1]",
            &[],
            "2001:db8::1 2001:db8::1",
        ),
        (
            "literal that is ourselves",
            "[192.0.2.99]",
            &[],
            "5.4.6 mail for [192.0.2.99] loops back to us",
        ),
        (
            "literal that is ourselves in IPv6's clothes",
            "[ipv6:::ffff:192.0.2.99]",
            &[],
            "5.4.6 mail for [ipv6:::ffff:192.0.2.99] loops back to us",
        ),
        (
            "literal of no host",
            "[0.0.0.0]",
            &[],
            "5.1.2 \"[0.0.0.0]\" names no host",
        ),
        (
            "no literal",
            "[x25:1]",
            &[],
            "5.1.2 \"[x25:1]\" names no host",
        ),
        (
            "reserved for names that do not exist (RFC 6761 §6.4)",
            "a.invalid",
            &["a.invalid A 192.0.2.1"],
            "5.1.2 domain a.invalid does not exist in DNS",
        ),
    ];
    for (name, domain, zone, expected) in ROWS {
        let server = Server::start(zone);
        let dns = asking(&[server.address], patience(zone));
        let shown = on_tokio(exchangers(&dns, domain));
        assert_eq!(shown, *expected, "{name}");
    }
}

#[test]
fn addresses_of_a_host() {
    const ROWS: &[Row] = &[
        ("address", "192.0.2.1", &[], "192.0.2.1"),
        ("address of IPv6", "2001:db8::1", &[], "2001:db8::1"),
        (
            "localhost, without DNS (RFC 6761 §6.3)",
            "localhost",
            &[],
            "::1 127.0.0.1",
        ),
        ("one", "mx.test", &["mx.test A 192.0.2.1"], "192.0.2.1"),
        (
            "a dot at the end",
            "mx.test.",
            &["mx.test A 192.0.2.1"],
            "192.0.2.1",
        ),
        (
            "of an alias",
            "alias.test",
            &["alias.test CNAME mx.test", "mx.test AAAA 2001:db8::1"],
            "2001:db8::1",
        ),
        (
            "ourselves, as an operator may want it",
            "us.test",
            &["us.test A 192.0.2.99"],
            "192.0.2.99",
        ),
        (
            "none",
            "gone.test",
            &[],
            "5.1.2 host gone.test does not exist in DNS",
        ),
        (
            "no address",
            "mx.test",
            &["mx.test MX 10 mx.test"],
            "5.4.4 host mx.test has no address in DNS",
        ),
        (
            "not known",
            "mx.test",
            &["mx.test SERVFAIL AAAA", "mx.test EXISTS"],
            "4.4.3 cannot look up the address of mx.test: the DNS server answers SERVFAIL",
        ),
        (
            "no name",
            "mx\n.test",
            &[],
            "5.1.2 \"mx\\n.test\" names no host",
        ),
        ("nothing", "", &[], "5.1.2 \"\" names no host"),
        (
            "two dots",
            "mx..test",
            &[],
            "5.1.2 \"mx..test\" names no host",
        ),
    ];
    for (name, host, zone, expected) in ROWS {
        let server = Server::start(zone);
        let dns = asking(&[server.address], PATIENCE);
        let shown = on_tokio(addresses(&dns, host));
        // Whether there is IPv6 on loopback is the machine's.
        let without_ipv6 = shown == "127.0.0.1" && *host == "localhost";
        assert!(shown == *expected || without_ipv6, "{name}: {shown}");
    }
    let long = format!("{}.test", "a".repeat(64));
    let dns = asking(&["127.0.0.1:9".parse().unwrap()], SHORT);
    assert!(on_tokio(addresses(&dns, &long)).starts_with("5.1.2 "));
}

#[test]
fn order_of_addresses() {
    let rows: &[(&str, &str, &str, &str)] = &[
        ("none", "", "", ""),
        (
            "by turns",
            "192.0.2.1 192.0.2.2 2001:db8::1",
            "",
            "2001:db8::1 192.0.2.1 192.0.2.2",
        ),
        (
            "more of IPv6",
            "192.0.2.1 2001:db8::1 2001:db8::2",
            "",
            "2001:db8::1 192.0.2.1 2001:db8::2",
        ),
        (
            "as DNS has them",
            "192.0.2.2 192.0.2.1",
            "",
            "192.0.2.2 192.0.2.1",
        ),
        (
            "once",
            "192.0.2.1 192.0.2.1 ::ffff:192.0.2.1",
            "",
            "192.0.2.1",
        ),
        (
            "no route by IPv6",
            "2001:db8::1 192.0.2.1",
            "2001:db8::1",
            "192.0.2.1",
        ),
        (
            "no route, and nothing else",
            "2001:db8::1",
            "2001:db8::1",
            "2001:db8::1",
        ),
        (
            "no route by IPv4",
            "2001:db8::1 192.0.2.1",
            "192.0.2.1",
            "2001:db8::1 192.0.2.1",
        ),
        (
            "no host's",
            "0.0.0.0 255.255.255.255 239.1.1.1 :: ff02::1",
            "",
            "",
        ),
        (
            "ten at most",
            "::1 ::2 ::3 ::4 ::5 ::6 ::7 ::8 ::9 ::10 ::11 192.0.2.1",
            "",
            "::1 192.0.2.1 ::2 ::3 ::4 ::5 ::6 ::7 ::8 ::9",
        ),
    ];
    for (name, given, without_route, expected) in rows {
        let given = given.split_whitespace().map(|text| text.parse().unwrap());
        let has_route = |address: IpAddr| address.to_string() != *without_route;
        let ordered = in_order(given.collect(), has_route);
        let shown: Vec<_> = ordered.iter().map(IpAddr::to_string).collect();
        assert_eq!(shown.join(" "), *expected, "{name}");
    }
}

#[test]
fn hosts_are_looked_up_when_the_caller_comes_to_them() {
    let server = Server::start(&[
        "a.test MX 10 one.a.test",
        "a.test MX 10 two.a.test",
        "a.test MX 20 three.a.test",
        "a.test MX 30 us.test",
        "one.a.test A 192.0.2.1",
        "two.a.test A 192.0.2.2",
        "three.a.test A 192.0.2.3",
    ]);
    let dns = asking(&[server.address], PATIENCE);
    let asked_of = |host: &str| server.asked().iter().any(|asked| asked.starts_with(host));
    on_tokio(async {
        let mut exchangers = dns.exchangers("a.test").await.unwrap();
        assert!(asked_of("one.a.test ") && asked_of("two.a.test "));
        let mut first = [
            exchangers.next().await.unwrap(),
            exchangers.next().await.unwrap(),
        ];
        first.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(
            first.map(|one| one.name),
            ["one.a.test".into(), "two.a.test".into()]
        );
        assert!(!asked_of("three.a.test "));
        let last = exchangers.next().await.unwrap();
        assert_eq!(&*last.name, "three.a.test");
        assert_eq!(exchangers.next().await, None);
        assert_eq!(exchangers.next().await, None);
    });
    assert!(
        !asked_of("us.test "),
        "what is dropped by its name is not asked for"
    );
}

/// Every question is for the name itself: the domain of this machine must not come in.
#[test]
fn only_absolute_names_are_asked_for() {
    let server = Server::start(&["short A 192.0.2.1"]);
    let dns = asking(&[server.address], PATIENCE);
    assert_eq!(on_tokio(exchangers(&dns, "short")), "short 192.0.2.1");
    assert_eq!(
        on_tokio(exchangers(&dns, "gone")),
        "5.1.2 domain gone does not exist in DNS"
    );
    let mut asked = server.asked();
    asked.sort();
    asked.dedup();
    assert_eq!(asked, ["gone MX", "short A", "short AAAA", "short MX"]);
}

#[test]
fn a_cut_answer_is_asked_for_again_by_tcp() {
    let server = Server::start(&["a.test TRUNCATED", "a.test MX 0 ."]);
    let dns = asking(&[server.address], PATIENCE);
    let shown = on_tokio(exchangers(&dns, "a.test"));
    assert_eq!(shown, "5.1.10 domain a.test does not accept mail (null MX)");
    let mut asked = server.asked();
    asked.dedup();
    assert_eq!(asked, ["a.test MX", "a.test MX tcp"]);
}

#[test]
fn answers_are_remembered_as_long_as_they_hold() {
    #[derive(Debug, PartialEq)]
    enum Again {
        Asked,
        Remembered,
    }
    let zone = ["a.test A 192.0.2.1", "broken.test SERVFAIL"];
    for (name, ttl, domain, expected) in [
        ("records", 60, "a.test", Again::Remembered),
        ("records that do not hold", 0, "a.test", Again::Asked),
        ("no such name", 60, "gone.test", Again::Remembered),
        (
            "no such name, which does not hold",
            0,
            "gone.test",
            Again::Asked,
        ),
        ("trouble", 60, "broken.test", Again::Asked),
    ] {
        let server = Server::start_with_ttl(&zone, ttl);
        let dns = asking(&[server.address], PATIENCE);
        on_tokio(async {
            let first = exchangers(&dns, domain).await;
            let asked = server.asked().len();
            // A TTL of 0 holds for the instant.
            tokio::time::sleep(Duration::from_millis(2)).await;
            assert_eq!(exchangers(&dns, domain).await, first, "{name}");
            let again = match server.asked().len() > asked {
                true => Again::Asked,
                false => Again::Remembered,
            };
            assert_eq!(again, expected, "{name}");
        });
    }
}

#[test]
fn another_server_is_asked_when_one_does_not_know() {
    for (name, line) in [
        ("refuses", "a.test REFUSED"),
        ("is broken", "a.test SERVFAIL"),
        ("is silent", "a.test SILENT"),
        ("only refers", "a.test REFERRAL"),
    ] {
        let first = Server::start(&[line]);
        let second = Server::start(&["a.test A 192.0.2.1", "b.test A 192.0.2.2"]);
        let dns = asking(&[first.address, second.address], SHORT);
        on_tokio(async {
            assert_eq!(
                exchangers(&dns, "a.test").await,
                "a.test 192.0.2.1",
                "{name}"
            );
            assert_eq!(
                exchangers(&dns, "b.test").await,
                "b.test 192.0.2.2",
                "{name}"
            );
            let of_b = |asked: &String| asked.starts_with("b.test");
            assert!(
                !first.asked().iter().any(of_b),
                "{name}: the one that answered comes first"
            );
        });
    }
}

#[test]
fn a_server_that_is_not_there_defers() {
    // Bound and closed: nobody listens there.
    let nobody = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let dns = asking(&[nobody], SHORT);
    let shown = on_tokio(exchangers(&dns, "a.test"));
    let expected = "4.4.3 cannot look up the mail exchangers of a.test: ";
    assert!(shown.starts_with(expected), "{shown}");
    let dns = asking(&[], SHORT);
    let shown = on_tokio(exchangers(&dns, "a.test"));
    assert_eq!(shown, format!("{expected}there is no DNS server"));
}

#[test]
fn a_lookup_ends_in_time() {
    let zone = [
        "silent.test SILENT",
        "slow.test MX 10 mx.slow.test",
        "slow.test MX 20 silent.test",
        "slow.test MX 30 last.slow.test",
        "mx.slow.test A 192.0.2.1",
        "last.slow.test A 192.0.2.2",
    ];
    let server = Server::start(&zone);
    let patience = Patience {
        query: Duration::from_secs(60),
        lookup: Duration::from_secs(1),
    };
    let dns = asking(&[server.address], patience);
    let begin = Instant::now();
    on_tokio(async {
        let shown = exchangers(&dns, "silent.test").await;
        let expected = "4.4.3 cannot look up the mail exchangers of silent.test: no answer in 1 s";
        assert_eq!(shown, expected);
        let shown = addresses(&dns, "silent.test").await;
        let expected = "4.4.3 cannot look up the address of silent.test: no answer in 1 s";
        assert_eq!(shown, expected);
        let shown = exchangers(&dns, "slow.test").await;
        assert_eq!(shown, "mx.slow.test 192.0.2.1, last.slow.test 192.0.2.2");
    });
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn many_hosts_are_bounded() {
    for (name, of_one_preference) in [("one by one", 1), ("all at once", 40)] {
        let mut zone = Vec::new();
        for n in 0..40 {
            zone.push(format!("a.test MX {} h{n}.test", n / of_one_preference));
            zone.push(format!("h{n}.test A 192.0.2.1"));
        }
        let zone: Vec<_> = zone.iter().map(String::as_str).collect();
        let server = Server::start(&zone);
        let dns = asking(&[server.address], PATIENCE);
        let shown = on_tokio(exchangers(&dns, "a.test"));
        assert_eq!(shown.split(", ").count(), 20, "{name}: {shown}");
    }
}

/// A shard's: the ring's runtime drives the resolver's sockets, timers and tasks.
#[test]
fn it_runs_on_a_shard() {
    let server = Server::start(&[
        "a.test TRUNCATED",
        "a.test MX 10 one.a.test",
        "a.test MX 20 two.a.test",
        "one.a.test A 192.0.2.1",
        "two.a.test SILENT",
        "b.test SILENT",
    ]);
    let settings = RingSettings {
        entries: 8,
        sqpoll: false,
    };
    let dns = asking(&[server.address], SHORT);
    let outcome = run(settings, async {
        // As a task, which is how a shard has it.
        let lookups = tokio::task::spawn_local(async move {
            let first = exchangers(&dns, "a.test").await;
            (first, exchangers(&dns, "b.test").await)
        });
        lookups.await.unwrap()
    });
    let (first, second) = outcome.unwrap();
    assert_eq!(first, "one.a.test 192.0.2.1");
    assert!(second.starts_with("4.4.3 "), "{second}");
}

#[test]
fn the_system_names_the_servers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let rows: &[(&str, Option<&str>, Result<usize, &str>)] = &[
        ("one", Some("nameserver 127.0.0.53\n"), Ok(1)),
        (
            "what we do not need",
            Some(
                "# by hand\nsearch a.test b.test\noptions edns0 trust-ad rotate\nnameserver ::1\n",
            ),
            Ok(1),
        ),
        (
            "three at most",
            Some(
                "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n",
            ),
            Ok(3),
        ),
        ("missing", None, Err("cannot read ")),
        ("empty", Some(""), Err("cannot use ")),
        ("broken", Some("nameserver none\n"), Err("cannot use ")),
    ];
    for (name, text, expected) in rows {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let path = match text {
            Some(_) => path.clone(),
            None => directory.path().join("missing"),
        };
        match (Dns::of_system(&path, ourselves()), expected) {
            (Ok(dns), Ok(count)) => {
                let shown = format!("{:?}", dns.servers);
                assert!(
                    shown.contains(&format!("count: {count}")),
                    "{name}: {shown}"
                );
            }
            (Err(error), Err(expected)) => {
                let shown = error.to_string();
                assert_eq!(shown, format!("{expected}{}", path.display()), "{name}");
                assert!(std::error::Error::source(&error).is_some(), "{name}");
            }
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    }
}

/// As far as the machine has a hosts file with IPv4 in it.
#[test]
fn the_hosts_file_is_the_systems() {
    let server = Server::start(&[]);
    let with = |hosts| Dns::of(vec![at(server.address)], hosts, ourselves(), PATIENCE).unwrap();
    let (system, named) = (with(ResolveHosts::Always), with(ResolveHosts::Never));
    let text = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        let Some(address) = address.filter(IpAddr::is_ipv4) else {
            continue;
        };
        for host in words.take_while(|word| !word.starts_with('#')) {
            let shown = on_tokio(addresses(&system, host));
            let mut shown = shown.split(' ');
            assert!(shown.any(|shown| shown == address.to_string()), "{host}");
            if !host.ends_with("localhost") {
                let shown = on_tokio(addresses(&named, host));
                assert!(shown.starts_with("5.1.2 "), "{host}: {shown}");
            }
        }
    }
}

#[test]
fn one_server_is_asked_by_new() {
    let server = Server::start(&["a.test A 192.0.2.1"]);
    let dns = Dns::new(Some(server.address), ourselves()).unwrap();
    assert_eq!(on_tokio(exchangers(&dns, "a.test")), "a.test 192.0.2.1");
}

#[test]
fn what_goes_to_a_log_is_one_line() {
    let trouble = Trouble::new("a\r\nb\u{1b}[31m\u{85}");
    let shown = trouble.to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
}
