//! The flags of the group "Sending", and how they become [`Sending`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::values::{self, Notice};
use crate::config::{Fault, LoginFile};
use crate::deliver::{OutTls, RetrySchedule, Sending};
use crate::tls::{ClientSettings, TlsSettings, Verify};

#[derive(Debug, Args)]
#[command(next_help_heading = "Sending")]
pub(super) struct SendingFlags {
    /// STARTTLS towards next hops: never; where it is offered, in clear elsewhere; or no mail without it (smtps: is TLS anyway)
    #[arg(long, value_name = "off|negotiated|required", default_value = "negotiated", hide_possible_values = true, value_parser = out_tls())]
    out_tls: OutTls,
    /// Whether a next hop must prove its name by its certificate [default: yes under --out-tls required, else no]
    #[arg(long, value_name = "yes|no", hide_possible_values = true, value_parser = verify())]
    out_verify: Option<Verify>,
    /// Certificate chain (PEM, leaf first) shown to a next hop that asks, with --out-key [default: none]
    #[arg(long, value_name = "FILE")]
    out_cert: Option<PathBuf>,
    /// Private key (PEM) of --out-cert
    #[arg(long, value_name = "FILE")]
    out_key: Option<PathBuf>,
    /// Certificates (PEM) of those who may have signed a next hop's [default: the system's]
    #[arg(long, value_name = "FILE")]
    out_ca: Option<PathBuf>,
    /// Log in by AUTH, inside TLS alone: DOMAIN is a next hop's host or a recipient domain (that one counts first), the password FILE's first line; repeatable [default: none]
    #[arg(long, value_name = "DOMAIN=USER:FILE", value_parser = values::login)]
    out_auth: Vec<LoginFile>,
    /// Name given in EHLO [default: --hostname]
    #[arg(long, value_name = "NAME", value_parser = values::domain)]
    out_helo: Option<String>,
    /// When a handshake failed under --out-tls negotiated, send over a new connection in clear
    #[arg(long, value_name = "yes|no", default_value = "no", hide_possible_values = true, action = ArgAction::Set, value_parser = values::yes_no())]
    out_clear_after_tls_failure: bool,
    /// Times between attempts at what could not be delivered; the last one goes on
    #[arg(long, value_name = "DURATION,...", default_value = "1m,5m,15m,1h,4h", value_parser = values::retry_schedule)]
    pub(super) retry_schedule: RetrySchedule,
    /// How long a message is tried before it goes back to its sender
    #[arg(long, value_name = "DURATION", default_value = "5d", value_parser = values::duration)]
    queue_lifetime: Duration,
    /// How long a message waits before its sender is told [default: 4h; never if --queue-lifetime ends by then]
    #[arg(long, value_name = "DURATION|never", value_parser = values::notice)]
    delay_notice: Option<Notice>,
    /// Connections to next hops at a time, over all shards
    #[arg(long, value_name = "N", default_value = "256", value_parser = values::count(1..=CONNECTIONS_MAX))]
    out_connections: usize,
    /// Those of them to one next hop [default: 20, or all of fewer]
    #[arg(long, value_name = "N", value_parser = values::count(1..=CONNECTIONS_MAX))]
    out_connections_per_hop: Option<usize>,
    /// DNS server that is asked for next hops [default: those of /etc/resolv.conf]
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::server_address)]
    dns: Option<SocketAddr>,
    /// Under --durability next-hop, how long a sender waits until its message is kept on disk instead
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    next_hop_timeout: Duration,
}

impl SendingFlags {
    /// Fills in the defaults that depend on other flags. The logins are still in their files.
    pub(super) fn resolve(
        self,
        hostname: &str,
        tls: &TlsSettings,
        handshake_timeout: Duration,
    ) -> (Sending, Vec<LoginFile>, Option<Fault>) {
        let of_tls = match self.out_tls {
            OutTls::Off | OutTls::Negotiated => Verify::No,
            OutTls::Required => Verify::Yes,
        };
        let (certificate, unpaired) = pair(self.out_cert, self.out_key);
        let defaults = Sending::default();
        let notice_of_lifetime =
            (defaults.delay_notice).filter(|notice| *notice < self.queue_lifetime);
        let per_hop_of_all = defaults.connections_per_hop_max.min(self.out_connections);
        let sending = Sending {
            helo: self.out_helo.unwrap_or_else(|| hostname.to_owned()),
            tls: self.out_tls,
            client: ClientSettings {
                verify: self.out_verify.unwrap_or(of_tls),
                certificate,
                ca: self.out_ca,
                min: tls.min,
                groups: tls.groups.clone(),
            },
            clear_after_tls_failure: self.out_clear_after_tls_failure,
            logins: defaults.logins,
            dns: self.dns,
            connections_max: self.out_connections,
            connections_per_hop_max: self.out_connections_per_hop.unwrap_or(per_hop_of_all),
            handshake_timeout,
            queue_lifetime: self.queue_lifetime,
            delay_notice: match self.delay_notice {
                Some(Notice::After(wait)) => Some(wait),
                Some(Notice::Never) => None,
                None => notice_of_lifetime,
            },
            next_hop_timeout: self.next_hop_timeout,
        };
        (sending, self.out_auth, unpaired)
    }
}

/// The certificate with its key, or the fault of one without the other.
fn pair(
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
) -> (Option<(PathBuf, PathBuf)>, Option<Fault>) {
    match (cert, key) {
        (Some(cert), Some(key)) => (Some((cert, key)), None),
        (Some(cert), None) => {
            let text = format!("{} has no --out-key", cert.display());
            (None, Some(Fault::new("--out-cert", text)))
        }
        (None, Some(key)) => {
            let text = format!("{} has no --out-cert", key.display());
            (None, Some(Fault::new("--out-key", text)))
        }
        (None, None) => (None, None),
    }
}

fn out_tls() -> impl clap::builder::TypedValueParser<Value = OutTls> {
    values::choice([
        ("off", OutTls::Off),
        ("negotiated", OutTls::Negotiated),
        ("required", OutTls::Required),
    ])
}

fn verify() -> impl clap::builder::TypedValueParser<Value = Verify> {
    values::choice([("yes", Verify::Yes), ("no", Verify::No)])
}

/// Above what a machine can serve, below what overflows in sums.
const CONNECTIONS_MAX: usize = 10_000_000;

#[cfg(test)]
mod tests {
    use super::super::tests::{resolved, written};
    use super::*;

    #[test]
    fn without_flags() {
        let (config, _) = resolved(&["--hostname", "mx.test"]);
        // Deliveries have these defaults too; the flags must not drift from them.
        let expected = Sending {
            helo: "mx.test".to_owned(),
            ..Sending::default()
        };
        assert_eq!(config.sending, expected);
        assert_eq!(config.logins, []);
    }

    #[test]
    fn every_flag() {
        let (config, faults) = resolved(&[
            "--hostname=mx.test",
            "--deliver=smtp:relay.test:587",
            "--tls-min=1.3",
            "--tls-groups=P-256",
            "--out-tls=required",
            "--out-verify=no",
            "--out-cert=c",
            "--out-key=k",
            "--out-ca=ca",
            "--out-auth=relay.test=us@mx.test:/a:b",
            "--out-auth=[::1]=us:c",
            "--out-helo=Out.test",
            "--out-clear-after-tls-failure=yes",
            "--queue-lifetime=2d",
            "--delay-notice=1h",
            "--out-connections=7",
            "--out-connections-per-hop=3",
            "--dns=[::1]:53",
            "--next-hop-timeout=2s",
        ]);
        assert_eq!(faults, []);
        let expected = Sending {
            helo: "out.test".to_owned(),
            tls: OutTls::Required,
            client: ClientSettings {
                verify: Verify::No,
                certificate: Some(("c".into(), "k".into())),
                ca: Some("ca".into()),
                min: crate::tls::MinVersion::Tls13,
                groups: "P-256".to_owned(),
            },
            clear_after_tls_failure: true,
            logins: [].into(),
            dns: Some("[::1]:53".parse().unwrap()),
            connections_max: 7,
            connections_per_hop_max: 3,
            handshake_timeout: Duration::from_secs(30),
            queue_lifetime: Duration::from_secs(2 * 24 * 60 * 60),
            delay_notice: Some(Duration::from_secs(60 * 60)),
            next_hop_timeout: Duration::from_secs(2),
        };
        assert_eq!(config.sending, expected);
        let login = |place: &str, name: &str, password: &str| LoginFile {
            place: place.to_owned(),
            name: name.to_owned(),
            password: password.into(),
        };
        let logins = [
            login("relay.test", "us@mx.test", "/a:b"),
            login("::1", "us", "c"),
        ];
        assert_eq!(config.logins, logins);
    }

    #[test]
    fn defaults_that_depend_on_other_flags() {
        let verify = [
            ("off", &[][..], Verify::No),
            ("negotiated", &[], Verify::No),
            ("required", &[], Verify::Yes),
            ("negotiated", &["--out-verify=yes"], Verify::Yes),
            ("required", &["--out-verify=no"], Verify::No),
        ];
        for (tls, words, expected) in verify {
            let tls = format!("--out-tls={tls}");
            let words: Vec<&str> = words.iter().copied().chain([tls.as_str()]).collect();
            let (config, _) = resolved(&words);
            assert_eq!(config.sending.client.verify, expected, "{words:?}");
        }
        let hours = |hours: u64| Some(Duration::from_secs(hours * 60 * 60));
        let notices: [(&[&str], Option<Duration>); 6] = [
            (&[], hours(4)),
            (&["--queue-lifetime=4h"], None),
            (&["--queue-lifetime=5h"], hours(4)),
            (&["--delay-notice=never"], None),
            (&["--delay-notice=6h"], hours(6)),
            (&["--delay-notice=6h", "--queue-lifetime=1h"], hours(6)),
        ];
        for (words, expected) in notices {
            assert_eq!(
                resolved(words).0.sending.delay_notice,
                expected,
                "{words:?}"
            );
        }
        let connections: [(&[&str], (usize, usize)); 4] = [
            (&[], (256, 20)),
            (&["--out-connections=21"], (21, 20)),
            (&["--out-connections=19"], (19, 19)),
            (
                &["--out-connections=5", "--out-connections-per-hop=6"],
                (5, 6),
            ),
        ];
        for (words, expected) in connections {
            let sending = resolved(words).0.sending;
            let maxima = (sending.connections_max, sending.connections_per_hop_max);
            assert_eq!(maxima, expected, "{words:?}");
        }
    }

    #[test]
    fn faults() {
        let rows: &[(&str, &[&str], &[&str])] = &[
            (
                "a certificate without a key",
                &["--out-cert=c"],
                &["--out-cert: c has no --out-key"],
            ),
            (
                "a key without a certificate",
                &["--out-key=k"],
                &["--out-key: k has no --out-cert"],
            ),
            (
                "two logins at one place",
                &[
                    "--deliver=mx",
                    "--out-auth=a.test=a:f",
                    "--out-auth=A.test.=b:g",
                ],
                &["--out-auth: a.test is given twice"],
            ),
            (
                "an address in two spellings",
                &[
                    "--deliver=mx",
                    "--out-auth=::1=a:f",
                    "--out-auth=[IPv6:0::1]=b:g",
                ],
                &["--out-auth: ::1 is given twice"],
            ),
            (
                "a login that never leaves",
                &[
                    "--deliver=smtp:a.test:25",
                    "--out-tls=off",
                    "--out-auth=a.test=a:f",
                ],
                &["--out-auth: a.test: credentials only leave inside TLS"],
            ),
            (
                "one beside TLS for another",
                &[
                    "--deliver=smtp:a.test:25",
                    "--route=b.test=smtps:b.test:465",
                    "--out-tls=off",
                    "--out-auth=a.test=a:f",
                ],
                &["--out-auth: a.test: credentials only leave inside TLS"],
            ),
            (
                "one for nobody",
                &["--out-tls=off", "--out-auth=a.test=a:f"],
                &["--out-auth: a.test: credentials only leave inside TLS"],
            ),
            (
                "one inside TLS",
                &[
                    "--deliver=smtps:a.test:465",
                    "--out-tls=off",
                    "--out-auth=a.test=a:f",
                ],
                &[],
            ),
            (
                "one by the domain, inside TLS",
                &[
                    "--route=b.test=smtps:a.test:465",
                    "--out-tls=off",
                    "--out-auth=b.test=a:f",
                ],
                &[],
            ),
            (
                "our own TCP port",
                &["--listen=127.0.0.1:25", "--deliver=smtp:127.0.0.1:25"],
                &["--deliver: smtp:127.0.0.1:25 is this server itself (127.0.0.1:25)"],
            ),
            (
                "our own TLS port",
                &["--listen-tls=[::1]:465", "--route=a.test=smtps:[::1]:465"],
                &["--route: smtps:[::1]:465 is this server itself ([::1]:465)"],
            ),
            (
                "the default port",
                &["--deliver=lmtp:localhost:2525"],
                &["--deliver: lmtp:localhost:2525 is this server itself (127.0.0.1:2525)"],
            ),
            (
                "loopback of all addresses",
                &["--listen=0.0.0.0:25", "--deliver=smtp:127.0.0.2:25"],
                &["--deliver: smtp:127.0.0.2:25 is this"],
            ),
            (
                "all addresses of all addresses",
                &["--listen=0.0.0.0:25", "--deliver=smtp:0.0.0.0:25"],
                &["--deliver: smtp:0.0.0.0:25 is this"],
            ),
            (
                "IPv4 of a port for both",
                &["--listen=[::]:25", "--deliver=smtp:127.0.0.1:25"],
                &["--deliver: smtp:127.0.0.1:25 is this"],
            ),
            (
                "IPv4 in IPv6",
                &[
                    "--listen=127.0.0.1:25",
                    "--deliver=smtp:[::ffff:127.0.0.1]:25",
                ],
                &["--deliver: smtp:[::ffff:127.0.0.1]:25 is this"],
            ),
            (
                "IPv6 of all its addresses",
                &["--listen=[::]:25", "--deliver=smtp:[::]:25"],
                &["--deliver: smtp:[::]:25 is this"],
            ),
            (
                "IPv6 of a port for both families",
                &[
                    "--listen=[::]:25",
                    "--listen=0.0.0.0:25",
                    "--deliver=smtp:localhost:25",
                ],
                &["--deliver: smtp:localhost:25 is this"],
            ),
            (
                "IPv4 where only IPv6 and another address are bound",
                &[
                    "--listen=[::]:25",
                    "--listen=192.0.2.1:25",
                    "--deliver=smtp:127.0.0.1:25",
                ],
                &[],
            ),
            (
                "IPv6 where only IPv4 is bound",
                &["--listen=0.0.0.0:25", "--deliver=smtp:[::1]:25"],
                &[],
            ),
            (
                "another port",
                &["--listen=127.0.0.1:25", "--deliver=smtp:127.0.0.1:26"],
                &[],
            ),
            (
                "another address",
                &["--listen=127.0.0.1:25", "--deliver=smtp:127.0.0.2:25"],
                &[],
            ),
            (
                "a foreign address where all of ours are bound",
                &["--listen=0.0.0.0:25", "--deliver=smtp:192.0.2.1:25"],
                &[],
            ),
        ];
        for (name, words, expected) in rows {
            let faults = written(&resolved(words).1);
            assert_eq!(faults.len(), expected.len(), "{name}: {faults:?}");
            for (fault, expected) in std::iter::zip(&faults, *expected) {
                assert!(fault.starts_with(expected), "{name}: {fault}");
            }
        }
    }

    #[test]
    fn warnings() {
        let rows: &[(&str, &[&str], &[&str])] = &[
            ("a next hop", &["--deliver=smtp:a.test:25"], &[]),
            ("mail exchangers", &["--deliver=mx"], &[]),
            (
                "everything in its place",
                &[
                    "--deliver=smtp:a.test:587",
                    "--out-tls=required",
                    "--out-cert=c",
                    "--out-key=k",
                    "--out-ca=ca",
                    "--out-auth=a.test=a:f",
                    "--out-helo=b.test",
                    "--dns=127.0.0.1:53",
                    "--durability=next-hop",
                ],
                &[],
            ),
            (
                "our own name and port",
                &["--deliver=smtp:mx.test:2525"],
                &["--deliver: smtp:mx.test:2525 seems to be this server"],
            ),
            (
                "our own name, another port",
                &["--deliver=smtp:mx.test:25"],
                &[],
            ),
            (
                "a TLS port spoken to in clear",
                &["--route=b.test=smtp:a.test:465"],
                &["--route: port 465 mostly is TLS from the first octet; perhaps smtps:"],
            ),
            (
                "a clear port spoken to inside TLS",
                &["--deliver=smtps:a.test:587"],
                &["--deliver: port 587 mostly greets in clear; perhaps smtp:"],
            ),
            ("LMTP on any port", &["--deliver=lmtp:a.test:465"], &[]),
            (
                "no TLS but that of smtps:",
                &["--deliver=smtps:a.test:465", "--out-tls=off"],
                &["--out-tls: without effect"],
            ),
            (
                "no TLS beside that of smtps:",
                &[
                    "--deliver=smtps:a.test:465",
                    "--route=b.test=mx",
                    "--out-tls=off",
                ],
                &[],
            ),
            (
                "clear after required TLS",
                &[
                    "--deliver=mx",
                    "--out-tls=required",
                    "--out-clear-after-tls-failure=yes",
                ],
                &["--out-clear-after-tls-failure: without effect under --out-tls required"],
            ),
            (
                "clear after no TLS",
                &[
                    "--deliver=mx",
                    "--out-tls=off",
                    "--out-clear-after-tls-failure=yes",
                ],
                &["--out-clear-after-tls-failure: without effect under --out-tls off"],
            ),
            (
                "clear after smtps:",
                &[
                    "--deliver=smtps:a.test:465",
                    "--out-clear-after-tls-failure=yes",
                ],
                &["--out-clear-after-tls-failure: without effect: no next hop is asked"],
            ),
            (
                "clear after negotiated TLS",
                &["--deliver=mx", "--out-clear-after-tls-failure=yes"],
                &[],
            ),
            (
                "TLS flags without TLS",
                &[
                    "--deliver=mx",
                    "--out-tls=off",
                    "--out-verify=yes",
                    "--out-cert=c",
                    "--out-key=k",
                    "--out-ca=ca",
                ],
                &[
                    "--out-verify: not used",
                    "--out-cert: not used",
                    "--out-ca: not used",
                ],
            ),
            (
                "TLS flags without next hops",
                &["--out-tls=required", "--out-ca=ca"],
                &["--out-ca: not used"],
            ),
            (
                "TLS flags with smtps: alone",
                &[
                    "--deliver=smtps:a.test:465",
                    "--out-verify=yes",
                    "--out-ca=ca",
                ],
                &[],
            ),
            (
                "TLS flags with a socket",
                &["--deliver=lmtp:unix:/s", "--out-verify=yes"],
                &["--out-verify: not used"],
            ),
            (
                "a login without verification",
                &["--deliver=smtp:a.test:25", "--out-auth=a.test=a:f"],
                &["--out-auth: without --out-verify yes"],
            ),
            (
                "a login for nobody",
                &[
                    "--deliver=smtp:a.test:25",
                    "--out-verify=yes",
                    "--out-auth=b.test=a:f",
                ],
                &["--out-auth: b.test is neither a next hop nor routed to one"],
            ),
            (
                "a login for a domain routed elsewhere",
                &[
                    "--deliver=smtp:a.test:25",
                    "--route=mx.test=discard",
                    "--out-verify=yes",
                    "--out-auth=mx.test=a:f",
                ],
                &["--out-auth: mx.test is neither"],
            ),
            (
                "a login where nothing is negotiated",
                &[
                    "--deliver=smtp:a.test:25",
                    "--route=b.test=lmtp:unix:/s",
                    "--out-verify=yes",
                    "--out-auth=b.test=a:f",
                ],
                &["--out-auth: b.test is neither"],
            ),
            (
                "a login for a local domain",
                &[
                    "--deliver=smtp:a.test:25",
                    "--out-verify=yes",
                    "--out-auth=mx.test=a:f",
                ],
                &[],
            ),
            (
                "a login for a routed literal",
                &[
                    "--route=[192.0.2.1]=smtp:a.test:25",
                    "--out-verify=yes",
                    "--out-auth=[192.0.2.1]=a:f",
                ],
                &[],
            ),
            (
                "a login for whom DNS names",
                &[
                    "--route=b.test=mx",
                    "--out-verify=yes",
                    "--out-auth=a.test=a:f",
                ],
                &[],
            ),
            (
                "a DNS server without names",
                &["--deliver=smtp:192.0.2.1:25", "--dns=127.0.0.1:53"],
                &["--dns: not used"],
            ),
            (
                "a DNS server for names",
                &["--deliver=lmtp:a.test:24", "--dns=127.0.0.1:53"],
                &[],
            ),
            (
                "a name without next hops",
                &["--out-helo=a.test"],
                &["--out-helo: not used"],
            ),
            (
                "a short host name for strangers",
                &["--hostname=here", "--deliver=mx"],
                &["--hostname: many mail exchangers turn away who is called here"],
            ),
            (
                "a short name for strangers",
                &["--out-helo=here", "--deliver=mx"],
                &["--out-helo: many mail exchangers turn away who is called here"],
            ),
            (
                "a short name for acquaintances",
                &["--hostname=here", "--deliver=smtp:a.test:25"],
                &[],
            ),
            (
                "more for one than for all",
                &["--out-connections=5", "--out-connections-per-hop=6"],
                &["--out-connections-per-hop: more than"],
            ),
            (
                "nobody to pass mail on to",
                &["--durability=next-hop"],
                &["--durability: next-hop: nothing is sent on"],
            ),
            (
                "a socket to pass mail on to",
                &["--durability=next-hop", "--deliver=lmtp:unix:/s"],
                &[],
            ),
            (
                "waiting longer than senders do",
                &[
                    "--durability=next-hop",
                    "--deliver=mx",
                    "--next-hop-timeout=10m",
                ],
                &["--next-hop-timeout: senders give up after 10m"],
            ),
            (
                "waiting nearly as long",
                &[
                    "--durability=next-hop",
                    "--deliver=mx",
                    "--next-hop-timeout=599s",
                ],
                &[],
            ),
            ("waiting for nobody", &["--next-hop-timeout=10m"], &[]),
            (
                "one attempt",
                &["--queue-lifetime=59s"],
                &["--queue-lifetime: ends before the first retry"],
            ),
            ("two attempts", &["--queue-lifetime=1m"], &[]),
            (
                "a notice behind the end",
                &["--queue-lifetime=1h", "--delay-notice=1h"],
                &["--delay-notice: never comes"],
            ),
            (
                "a notice before it",
                &["--queue-lifetime=1h", "--delay-notice=59m"],
                &[],
            ),
        ];
        for (name, words, expected) in rows {
            let words: Vec<&str> = ["--hostname=mx.test"]
                .iter()
                .chain(*words)
                .copied()
                .collect();
            let (config, faults) = resolved(&words);
            assert_eq!(faults, [], "{name}");
            let warnings = written(&config.warnings());
            assert_eq!(warnings.len(), expected.len(), "{name}: {warnings:?}");
            for (warning, expected) in std::iter::zip(&warnings, *expected) {
                assert!(warning.starts_with(expected), "{name}: {warning}");
            }
        }
    }
}
