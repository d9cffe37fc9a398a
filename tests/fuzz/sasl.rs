//! AUTH exchanges: credentials come out as they went in, whatever else comes is refused, and nothing
//! that holds a password prints it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ringpost::smtp::sasl::{Credentials, Exchange, ExchangeError, Mechanism, Step};

use super::{cases, mutate};

#[test]
fn sasl() {
    cases("sasl", |random| {
        let name = text(random, 1..20);
        let password = text(random, 0..40);
        let identity = if random.bool() { &*name } else { "" };
        let message = format!("{identity}\0{name}\0{password}");
        let encoded = BASE64.encode(&message);

        // PLAIN, on the line of AUTH and after it.
        let by_initial = complete(Exchange::start(Mechanism::Plain, Some(encoded.as_bytes())));
        let by_challenge = match Exchange::start(Mechanism::Plain, None) {
            Ok(Step::Challenge(exchange, "")) => complete(exchange.receive(encoded.as_bytes())),
            other => panic!("{other:?}"),
        };
        assert_eq!(by_initial, by_challenge, "{message:?}");
        is_these(by_initial.as_ref(), &name, &password);

        // LOGIN, both ways.
        let name64 = BASE64.encode(&name);
        let password64 = BASE64.encode(&password);
        for initial in [None, Some(name64.as_bytes())] {
            let mut step = Exchange::start(Mechanism::Login, initial);
            if initial.is_none() {
                let Ok(Step::Challenge(exchange, _)) = step else {
                    panic!("{step:?}")
                };
                step = exchange.receive(name64.as_bytes());
            }
            let Ok(Step::Challenge(exchange, _)) = step else {
                panic!("{step:?}")
            };
            let got = complete(exchange.receive(password64.as_bytes()));
            is_these(got.as_ref(), &name, &password);
        }

        // Anything else: the naive reading decides whether it is credentials.
        let mut octets = message.into_bytes();
        mutate(random, &mut octets);
        let got = complete(Exchange::start(
            Mechanism::Plain,
            Some(BASE64.encode(&octets).as_bytes()),
        ));
        let parts: Vec<&[u8]> = octets.split(|octet| *octet == 0).collect();
        match parts[..] {
            // An initial response of no octets is written "=", so this is none at all.
            _ if octets.is_empty() => assert!(got.is_err()),
            [identity, name, password] if !name.is_empty() && std::str::from_utf8(name).is_ok() => {
                let got = got.unwrap();
                if identity.is_empty() || identity == name {
                    assert_eq!(got.name.as_bytes(), name);
                } else {
                    // Acting for another: under a name that nobody has.
                    assert!(got.name.contains('\0'), "{:?}", got.name);
                }
                assert_eq!(got.password.octets(), password);
            }
            _ => assert!(got.is_err(), "{}", octets.escape_ascii()),
        }
        let mut line = encoded.into_bytes();
        mutate(random, &mut line);
        for mechanism in [Mechanism::Plain, Mechanism::Login] {
            let decoded = BASE64.decode(&line);
            match Exchange::start(mechanism, Some(&line)) {
                Ok(step) => {
                    assert!(decoded.is_ok(), "{}", line.escape_ascii());
                    drop(step);
                }
                Err(ExchangeError::Malformed) => {}
                Err(ExchangeError::Cancelled) => panic!("nothing cancels AUTH itself"),
            }
        }
    });
}

fn complete(step: Result<Step, ExchangeError>) -> Result<Credentials, ExchangeError> {
    match step {
        Ok(Step::Complete(credentials)) => Ok(credentials),
        Ok(Step::Challenge(..)) => panic!("one challenge too many"),
        Err(error) => Err(error),
    }
}

fn is_these(got: Result<&Credentials, &ExchangeError>, name: &str, password: &str) {
    let got = got.unwrap();
    assert_eq!(got.name, name);
    assert_eq!(got.password.octets(), password.as_bytes());
    // A short password may be part of the name by chance.
    if password.len() > 8 && !name.contains(password) {
        assert!(!format!("{got:?}").contains(password));
    }
}

fn text(random: &mut fastrand::Rng, count: std::ops::Range<usize>) -> String {
    (0..random.usize(count))
        .map(|_| match random.u8(..6) {
            0 => random.char('\u{80}'..='\u{d7ff}'),
            _ => random.char('!'..='~'),
        })
        .collect()
}
