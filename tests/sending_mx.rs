//! Mail by MX: which host is asked, in which order, and what a domain without one comes to (RFC 5321 §5, RFC 7505).

#![cfg(test)]

mod support;

use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};

use support::dns::{Answer, Answer::*, Dns};
use support::port_25::{hop, hop_asleep, on_port_25, unused_loopback};
use support::sending::{assert_no_report, attempt, deferred, only_report, queue, relay, send};
use support::sink::{Act, Point::*, Script, Tls};
use support::{Authority, Client, KeyKind, Server, Setup, Sink, TEXT};

const BOB: &str = "bob@x.test";

/// Sends everything by MX, and asks this server for them.
fn by_mx(dns: &Dns) -> Setup {
    relay("mx").flag("--dns", dns.address())
}

fn address(sink: &Sink) -> Answer {
    Address(sink.address().ip())
}

/// `x.test` with two hosts, the first one preferred.
fn two_hosts(first: &Sink, second: &Sink) -> Dns {
    Dns::start(&[
        ("x.test", Mx(10, "a.x.test")),
        ("x.test", Mx(20, "b.x.test")),
        ("a.x.test", address(first)),
        ("b.x.test", address(second)),
    ])
}

fn ip(text: &str) -> Answer {
    Address(text.parse::<IpAddr>().unwrap())
}

/// Sends to `BOB`, who is expected with the last of the sinks and with no other.
#[track_caller]
fn goes_to_the_last(server: &Server, sinks: &[&Sink]) {
    send(server, &[BOB], TEXT);
    let (last, others) = sinks.split_last().unwrap();
    assert_eq!(last.messages(1)[0].taken_for, [BOB]);
    server.await_delivery();
    for other in others {
        other.books(|books| assert_eq!(books.taken().len(), 0));
    }
}

#[test]
fn the_best_preference_is_asked_first() {
    on_port_25("the_best_preference_is_asked_first", || {
        let [worst, middle, best] = [(); 3].map(|()| hop(Script::smtp()));
        let dns = Dns::start(&[
            ("x.test", Mx(20, "middle.x.test")),
            ("x.test", Mx(10, "best.x.test")),
            ("x.test", Mx(30, "worst.x.test")),
            ("best.x.test", address(&best)),
            ("middle.x.test", address(&middle)),
            ("worst.x.test", address(&worst)),
        ]);
        let server = by_mx(&dns).start();
        goes_to_the_last(&server, &[&worst, &middle, &best]);
        for other in [&worst, &middle] {
            other.books(|books| assert_eq!(books.connections.len(), 0));
        }
        let line = attempt(&server, BOB, "delivered");
        assert_eq!(line.target, "mx");
        assert!(
            line.hop.contains("best.x.test") && line.hop.ends_with(":25"),
            "{line:?}"
        );
        assert!(
            line.hop.contains(&best.address().ip().to_string()),
            "{line:?}"
        );
    });
}

/// Whatever keeps a host from taking mail now, the next one is asked in the same attempt (RFC 5321 §5.1).
#[test]
fn the_next_host_is_asked_in_the_same_attempt() {
    on_port_25("the_next_host_is_asked_in_the_same_attempt", || {
        type Start = fn() -> Sink;
        let rows: [(&str, Start); 4] = [
            ("down", hop_asleep),
            ("closes", || hop(Script::smtp().at(Greeting, Act::Close))),
            ("greets 421", || {
                hop(Script::smtp().at(Greeting, "421 4.3.2 busy"))
            }),
            ("greets 554", || {
                hop(Script::smtp().at(Greeting, "554 5.7.1 go away"))
            }),
        ];
        for (name, start) in rows {
            let (first, second) = (start(), hop(Script::smtp()));
            let dns = two_hosts(&first, &second);
            let server = by_mx(&dns).flag("--retry-schedule", "1h").start();
            goes_to_the_last(&server, &[&first, &second]);
            let line = attempt(&server, BOB, "delivered");
            assert!(line.hop.contains("b.x.test"), "{name}: {line:?}");
        }
    });
}

/// What one host of a domain does not take now, another may: RFC 5321 §5.1 has a sender try the addresses in order
/// until a delivery succeeds, and Postfix does so after a 4yz reply too.
#[test]
fn what_one_host_defers_the_next_is_asked_to_take() {
    on_port_25("what_one_host_defers_the_next_is_asked_to_take", || {
        for (name, point, reply) in [
            ("MAIL", Mail, "451 4.3.0 sorry"),
            ("RCPT", Rcpt, "450 4.2.0 not here, not now"),
            ("the end", EndOfData, "452 4.3.1 full"),
        ] {
            let (first, second) = (hop(Script::smtp().at(point, reply)), hop(Script::smtp()));
            let dns = two_hosts(&first, &second);
            let server = by_mx(&dns).flag("--retry-schedule", "1h").start();
            goes_to_the_last(&server, &[&first, &second]);
            let line = attempt(&server, BOB, "delivered");
            assert!(line.hop.contains("b.x.test"), "{name}: {line:?}");
        }
    });
}

/// A refusal for good is the domain's word, whichever of its hosts says it.
#[test]
fn a_refusal_for_good_is_not_asked_about_elsewhere() {
    on_port_25("a_refusal_for_good_is_not_asked_about_elsewhere", || {
        let first = hop(Script::smtp().at(Rcpt, "550 5.1.1 nobody here"));
        let second = hop(Script::smtp());
        let dns = two_hosts(&first, &second);
        let server = by_mx(&dns).start();
        send(&server, &[BOB], TEXT);
        let report = only_report(&server);
        let told = report.of(BOB);
        assert_eq!(told.get("Status"), "5.1.1");
        assert_eq!(told.get("Remote-MTA"), "dns; a.x.test");
        server.await_delivery();
        second.books(|books| assert_eq!(books.connections.len(), 0));
    });
}

/// A host with several addresses is tried at each.
#[test]
fn every_address_of_a_host_is_tried() {
    on_port_25("every_address_of_a_host_is_tried", || {
        let (down, up) = (hop_asleep(), hop(Script::smtp()));
        let dns = Dns::start(&[
            ("x.test", Mx(10, "a.x.test")),
            ("a.x.test", address(&down)),
            // Nobody listens there, on any machine that has it.
            ("a.x.test", ip("::1")),
            ("a.x.test", address(&up)),
        ]);
        let server = by_mx(&dns).flag("--retry-schedule", "1h").start();
        goes_to_the_last(&server, &[&down, &up]);
    });
}

#[test]
fn names_lead_to_hosts_in_many_ways() {
    on_port_25("names_lead_to_hosts_in_many_ways", || {
        let rows: [(&str, &[(&str, Answer)]); 6] = [
            ("an MX", &[("x.test", Mx(10, "host.test"))]),
            (
                "an alias with an MX",
                &[("x.test", Alias("y.test")), ("y.test", Mx(10, "host.test"))],
            ),
            ("an alias of the host", &[("x.test", Alias("host.test"))]),
            (
                "an MX that is an alias",
                &[
                    ("x.test", Mx(10, "alias.test")),
                    ("alias.test", Alias("host.test")),
                ],
            ),
            (
                "a host that is not there, and one that is",
                &[
                    ("x.test", Mx(10, "gone.test")),
                    ("x.test", Mx(20, "host.test")),
                ],
            ),
            (
                "the null MX among others",
                &[("x.test", Mx(0, ".")), ("x.test", Mx(10, "host.test"))],
            ),
        ];
        for (name, answers) in rows {
            let sink = hop(Script::smtp());
            let host = [("host.test", address(&sink))];
            let dns = Dns::start(&[answers, &host].concat());
            let server = by_mx(&dns).flag("--retry-schedule", "1h").start();
            send(&server, &[BOB], TEXT);
            assert_eq!(sink.messages(1)[0].taken_for, [BOB], "{name}");
            server.await_delivery();
        }
        // No MX: the domain's own address (RFC 5321 §5.1).
        let sink = hop(Script::smtp());
        let dns = Dns::start(&[("x.test", address(&sink))]);
        let server = by_mx(&dns).flag("--retry-schedule", "1h").start();
        goes_to_the_last(&server, &[&sink]);
        assert!(
            dns.asked().contains(&"MX x.test".to_owned()),
            "{:?}",
            dns.asked()
        );
    });
}

/// What DNS says for good goes back at once; there is no hop that could say more.
#[test]
fn a_domain_that_can_take_no_mail_goes_back() {
    on_port_25("a_domain_that_can_take_no_mail_goes_back", || {
        let ours = unused_loopback();
        type Row<'r> = (&'r str, &'r [(&'r str, Answer)], &'r [&'r str]);
        let rows: [Row<'_>; 7] = [
            ("not there", &[], &["5.1.2"]),
            ("the null MX", &[("x.test", Mx(0, "."))], &["5.1.10"]),
            // RFC 3463 says either: no route, and no such system.
            (
                "nothing of use",
                &[("x.test", Nothing)],
                &["5.4.4", "5.1.2"],
            ),
            (
                "ourselves by name",
                &[("x.test", Mx(10, "mx.test")), ("mx.test", Nothing)],
                &["5.4.6"],
            ),
            (
                "ourselves by address",
                &[
                    ("x.test", Mx(10, "other.test")),
                    ("other.test", Address(ours)),
                ],
                &["5.4.6"],
            ),
            (
                "ourselves without an MX",
                &[("x.test", Address(ours))],
                &["5.4.6"],
            ),
            (
                "worse than ourselves",
                &[
                    ("x.test", Mx(10, "mx.test")),
                    ("x.test", Mx(20, "other.test")),
                    ("mx.test", Address(ours)),
                    ("other.test", NOBODYS),
                ],
                &["5.4.6"],
            ),
        ];
        for (name, answers, statuses) in rows {
            let dns = Dns::start(answers);
            let server = by_mx(&dns).flag("--listen", format!("{ours}:25")).start();
            send(&server, &[BOB], TEXT);
            let report = only_report(&server);
            let told = report.of(BOB);
            assert_eq!(told.get("Action"), "failed", "{name}");
            assert!(
                statuses.contains(&told.get("Status")),
                "{name}: {report:#?}"
            );
            server.await_delivery();
            assert!(
                !attempt(&server, BOB, "bounced").reason.is_empty(),
                "{name}"
            );
        }
    });
}

/// A better host than ourselves is asked, one that is worse is not.
#[test]
fn a_backup_sends_to_better_hosts_only() {
    on_port_25("a_backup_sends_to_better_hosts_only", || {
        let (mut better, worse) = (hop_asleep(), hop(Script::smtp()));
        let dns = Dns::start(&[
            ("x.test", Mx(10, "better.test")),
            ("x.test", Mx(20, "mx.test")),
            ("x.test", Mx(30, "worse.test")),
            ("better.test", address(&better)),
            ("mx.test", NOBODYS),
            ("worse.test", address(&worse)),
        ]);
        let server = by_mx(&dns).flag("--retry-schedule", "1h").start();
        let id = send(&server, &[BOB], TEXT);
        deferred(&server, &id, 1);
        worse.books(|books| assert_eq!(books.connections.len(), 0));
        better.wake(Script::smtp());
        queue(&server, &["retry", &id]).succeeded();
        assert_eq!(better.only().taken_for, [BOB]);
        server.await_delivery();
    });
}

/// What may be otherwise in a minute is asked again, and goes once it is.
#[test]
fn what_dns_cannot_say_now_is_asked_again() {
    on_port_25("what_dns_cannot_say_now_is_asked_again", || {
        let rows: [(&str, &[(&str, Answer)]); 5] = [
            ("SERVFAIL", &[("x.test", ServFail)]),
            ("silence", &[("x.test", Silent)]),
            (
                "SERVFAIL of the host",
                &[("x.test", Mx(10, "a.test")), ("a.test", ServFail)],
            ),
            (
                "silence of the host",
                &[("x.test", Mx(10, "a.test")), ("a.test", Silent)],
            ),
            (
                "an address that nobody has",
                &[("x.test", Mx(10, "a.test")), ("a.test", NOBODYS)],
            ),
        ];
        std::thread::scope(|scope| {
            for (name, answers) in rows {
                scope.spawn(move || {
                    let dns = Dns::start(answers);
                    let server = by_mx(&dns).flag("--retry-schedule", "1h").start();
                    let id = send(&server, &[BOB], TEXT);
                    let line = attempt(&server, BOB, "deferred");
                    assert!(!line.reason.is_empty(), "{name}: {line:?}");
                    let sink = hop(Script::smtp());
                    dns.know(&[("x.test", Mx(10, "b.test")), ("b.test", address(&sink))]);
                    queue(&server, &["retry", &id]).succeeded();
                    assert_eq!(sink.only().taken_for, [BOB], "{name}");
                    server.await_delivery();
                    assert_no_report(&server);
                });
            }
        });
    });
}

/// Port 25 is closed there: 127.255.255.254 is an address of every loopback, and none that `hop` draws.
const NOBODYS: Answer = Address(IpAddr::V4(Ipv4Addr::new(127, 255, 255, 254)));

#[test]
fn all_hosts_down_defers() {
    on_port_25("all_hosts_down_defers", || {
        let [mut one, two] = [(); 2].map(|()| hop_asleep());
        let dns = Dns::start(&[
            ("x.test", Mx(10, "a.x.test")),
            ("x.test", Mx(20, "b.x.test")),
            ("a.x.test", address(&one)),
            ("b.x.test", address(&two)),
        ]);
        let server = by_mx(&dns).flag("--retry-schedule", "1h").start();
        let id = send(&server, &[BOB], TEXT);
        let shown = deferred(&server, &id, 1);
        assert!(shown.recipients()[BOB].1.contains("refused"), "{shown:#?}");
        one.wake(Script::smtp());
        queue(&server, &["retry", &id]).succeeded();
        assert_eq!(one.only().taken_for, [BOB]);
        server.await_delivery();
    });
}

/// Recipients of one domain share a transaction, those of two domains do not.
#[test]
fn a_domain_is_a_transaction() {
    on_port_25("a_domain_is_a_transaction", || {
        let [one, two] = [(); 2].map(|()| hop(Script::smtp()));
        let dns = Dns::start(&[
            ("one.test", Mx(10, "a.test")),
            ("two.test", Mx(10, "b.test")),
            ("a.test", address(&one)),
            ("b.test", address(&two)),
        ]);
        let server = by_mx(&dns).start();
        send(&server, &["a@one.test", "b@two.test", "c@ONE.test"], TEXT);
        assert_eq!(one.only().to(), ["a@one.test", "c@ONE.test"]);
        assert_eq!(two.only().to(), ["b@two.test"]);
        server.await_delivery();
    });
}

/// RFC 5321 §4.1.3: an address in brackets needs no DNS.
#[test]
fn an_address_literal_is_connected_to() {
    on_port_25("an_address_literal_is_connected_to", || {
        let sink = hop(Script::smtp());
        let dns = Dns::start(&[]);
        let server = by_mx(&dns).start();
        let to = format!("bob@[{}]", sink.address().ip());
        send(&server, &[&to], TEXT);
        assert_eq!(sink.only().taken_for, [to]);
        server.await_delivery();
        assert_eq!(dns.asked(), Vec::<String>::new());
    });
}

/// The name that is proved and sent as SNI is the host's, not the domain's.
#[test]
fn tls_is_with_the_host_that_the_mx_names() {
    on_port_25("tls_is_with_the_host_that_the_mx_names", || {
        let pair = Authority::shared().issue(&["a.x.test"], KeyKind::Ecdsa);
        let sink = hop(Script::smtp().tls(Tls::with(&pair)));
        let dns = Dns::start(&[("x.test", Mx(10, "a.x.test")), ("a.x.test", address(&sink))]);
        let setup = by_mx(&dns).flag("--out-verify", "yes");
        let ca = setup.path("ca.crt").display().to_string();
        let server = setup.flag("--out-ca", ca).start();
        send(&server, &[BOB], TEXT);
        assert!(sink.only().is_inside_tls);
        let seen = sink.connections(1)[0].tls.clone().unwrap();
        assert_eq!(seen.sni.as_deref(), Some("a.x.test"));
        assert_eq!(attempt(&server, BOB, "delivered").is_verified(), Some(true));
    });
}

/// The hops of these tests, proved: two side by side, for whoever runs them.
#[test]
fn hops_are_on_port_25_of_their_own_addresses() {
    on_port_25("hops_are_on_port_25_of_their_own_addresses", || {
        let hops = [(); 2].map(|()| hop(Script::smtp()));
        assert_ne!(hops[0].address(), hops[1].address());
        for hop in &hops {
            assert_eq!(hop.address().port(), 25);
            let mut client = Client::connect(hop.address());
            client.expect(220);
            client.quit();
        }
        TcpStream::connect(hop_asleep().address()).unwrap_err();
    });
}

/// The name server of these tests, proved by the octets of RFC 1035 §4.1.
#[test]
fn a_name_server_answers_from_its_table() {
    const MX: &[u8] = &[0, 15, 0, 1];
    const A: &[u8] = &[0, 1, 0, 1];
    let dns = Dns::start(&[
        ("x.test", Mx(10, "a.b")),
        ("alias.test", Alias("host.test")),
        ("host.test", ip("127.1.2.3")),
        ("sick.test", ServFail),
        ("mute.test", Silent),
    ]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(dns.address()).unwrap();
    let ask = |name: &[u8], kind: &[u8]| {
        let head = [7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        socket.send(&[&head, name, kind].concat()).unwrap();
    };
    // Name, type; code, count of answers, answers.
    type Row<'r> = (&'r [u8], &'r [u8], u8, u8, &'r [u8]);
    let rows: [Row<'_>; 5] = [
        (
            b"\x01X\x04test\0",
            MX,
            0,
            1,
            b"\x01x\x04test\0\0\x0f\0\x01\0\0\0\0\0\x07\0\x0a\x01a\x01b\0",
        ),
        (b"\x01x\x04test\0", A, 0, 0, b""),
        (b"\x04gone\x04test\0", MX, 3, 0, b""),
        (b"\x04sick\x04test\0", MX, 2, 0, b""),
        (
            b"\x05alias\x04test\0",
            A,
            0,
            2,
            b"\x05alias\x04test\0\0\x05\0\x01\0\0\0\0\0\x0b\x04host\x04test\0\
              \x04host\x04test\0\0\x01\0\x01\0\0\0\0\0\x04\x7f\x01\x02\x03",
        ),
    ];
    for (name, kind, code, answers, records) in rows {
        // The silent one first: the next reply is the next question's.
        ask(b"\x04mute\x04test\0", MX);
        ask(name, kind);
        let mut reply = [0; 512];
        let octets = socket.recv(&mut reply).unwrap();
        let head = [7, 8, 0x85, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0];
        let expected = [&head, name, kind, records].concat();
        assert_eq!(reply[..octets], expected, "{}", name.escape_ascii());
    }
    assert_eq!(dns.asked()[..2], ["MX mute.test", "MX x.test"]);
}
