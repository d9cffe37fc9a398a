//! From the greeting to the first message: EHLO and what stands in for it, STARTTLS, AUTH.

use super::*;

#[test]
fn greeting_and_hello() {
    run(&[
        row(
            "EHLO",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 SIZE 5
             =ready
             !quit
             C: QUIT
             S: 221 bye
             =closed",
        ),
        row(
            "a greeting of several lines",
            "S: 220-mx
             S: 220-SIZE
             S: 220 mx
             C: EHLO me.test",
        ),
        row(
            "a greeting that refuses for now",
            "S: 450 4.3.2 later
             C: QUIT
             =over Refused 4.3.2: 450 4.3.2 later",
        ),
        row(
            "a greeting that refuses",
            "S: 554 no
             C: QUIT
             =over Refused 5.0.0: 554 no
             S: 221 bye",
        ),
        row(
            "a greeting of 421",
            "S: 421 busy
             =over Refused 4.0.0: 421 busy",
        ),
        row(
            "a greeting of another code",
            "S: 250 hello
             =over Protocol 4.5.0: it answered the connection with: 250 hello",
        ),
        row(
            "a greeting that goes on",
            "S: 354 hello
             =over Protocol 4.5.0: it answered the connection with: 354 hello",
        ),
        row(
            "no SMTP at all",
            "S: HTTP/1.1 400 Bad Request
             =over Protocol 4.5.0: what it said is no reply",
        ),
        row(
            "no greeting",
            "!closed
             =over Closed 4.4.2: it closed the connection, while waiting for its greeting
             !closed
             !expired
             !begin
             =unsent Closed 4.4.2: it closed the connection, while waiting for its greeting
             =over Closed 4.4.2: it closed the connection, while waiting for its greeting
             !quit
             =closed",
        ),
        row(
            "a silent peer",
            "!expired
             =over Timeout 4.4.2: it took too long, while waiting for its greeting",
        ),
        row(
            "EHLO refused, HELO taken",
            "S: 220 mx
             C: EHLO me.test
             S: 502-what
             S: 502 PIPELINING
             C: HELO me.test
             S: 250-mx
             S: 250 PIPELINING
             =ready
             !begin
             C: MAIL FROM:<a@b>",
        ),
        row(
            "EHLO refused, HELO too",
            "S: 220 mx
             C: EHLO me.test
             S: 502 what
             C: HELO me.test
             S: 550 5.7.1 no
             C: QUIT
             =over Refused 5.7.1: 550 5.7.1 no",
        ),
        row(
            "EHLO refused, HELO for now",
            "S: 220 mx
             C: EHLO me.test
             S: 502 what
             C: HELO me.test
             S: 450 later
             C: QUIT
             =over Refused 4.0.0: 450 later",
        ),
        row(
            "EHLO refused for now",
            "S: 220 mx
             C: EHLO me.test
             S: 451 later
             C: QUIT
             =over Refused 4.0.0: 451 later",
        ),
        row(
            "EHLO answered by 421",
            "S: 220 mx
             C: EHLO me.test
             S: 421 bye
             =over Refused 4.0.0: 421 bye",
        ),
        row(
            "EHLO answered by another code",
            "S: 220 mx
             C: EHLO me.test
             S: 220 mx
             =over Protocol 4.5.0: it answered EHLO with: 220 mx",
        ),
        row(
            "EHLO answered by 334",
            "S: 220 mx
             C: EHLO me.test
             S: 334 mx
             =over Protocol 4.5.0: it answered EHLO with: 334 mx",
        ),
        row(
            "EHLO never answered",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             !expired
             =over Timeout 4.4.2: it took too long, while waiting for its reply to EHLO",
        ),
        row(
            "EHLO refused where TLS is required",
            "S: 220 mx
             C: EHLO me.test
             S: 502 what
             C: QUIT
             =over NoTls 4.7.10: TLS is required, and EHLO was refused: 502 what",
        )
        .set(|settings| settings.starttls = StartTls::Required),
        row(
            "EHLO refused inside TLS where it is required",
            "S: 220 mx
             C: EHLO me.test
             S: 502 what
             C: HELO me.test
             S: 250 mx
             =ready",
        )
        .set(|settings| settings.starttls = StartTls::Required)
        .tls(),
        row(
            "EHLO refused where a login is due",
            "S: 220 mx
             C: EHLO me.test
             S: 502 what
             C: QUIT
             =over Login 4.7.4: a login is due, and EHLO was refused: 502 what",
        )
        .set(login)
        .tls(),
        row(
            "LHLO",
            "S: 220 mx
             C: LHLO me.test
             S: 250-mx
             S: 250 PIPELINING
             =ready
             !begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: DATA",
        )
        .set(lmtp),
        row(
            "LHLO unknown",
            "S: 220 mx
             C: LHLO me.test
             S: 500 what
             C: QUIT
             =over Protocol 4.5.0: it does not speak LMTP: 500 what",
        )
        .set(lmtp),
        row(
            "LHLO refused",
            "S: 220 mx
             C: LHLO me.test
             S: 550 5.7.1 not you
             C: QUIT
             =over Refused 5.7.1: 550 5.7.1 not you",
        )
        .set(lmtp),
        row(
            "LHLO refused for now",
            "S: 220 mx
             C: LHLO me.test
             S: 450 later
             C: QUIT
             =over Refused 4.0.0: 450 later",
        )
        .set(lmtp),
        row(
            "LHLO never answered",
            "S: 220 mx
             C: LHLO me.test
             !closed
             =over Closed 4.4.2: it closed the connection, while waiting for its reply to LHLO",
        )
        .set(lmtp),
        row(
            "HELO never answered",
            "S: 220 mx
             C: EHLO me.test
             S: 500 what
             C: HELO me.test
             !closed
             =over Closed 4.4.2: it closed the connection, while waiting for its reply to HELO",
        ),
    ]);
}

#[test]
fn starttls() {
    run(&[
        row(
            "offered",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250-STARTTLS
             S: 250 PIPELINING
             C: STARTTLS
             S: 220 2.0.0 go
             =secure
             !secured
             C: EHLO me.test
             S: 250-mx
             S: 250 STARTTLS
             =ready
             !begin
             C: MAIL FROM:<a@b>",
        ),
        row(
            "not offered",
            "S: 220 mx
             C: EHLO me.test
             S: 250 mx
             =ready",
        ),
        row(
            "offered by the name of the peer",
            "S: 220 mx
             C: EHLO me.test
             S: 250 STARTTLS
             =ready",
        ),
        row(
            "refused for now",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250-STARTTLS
             S: 250 PIPELINING
             C: STARTTLS
             S: 454 4.7.0 not now
             =ready
             !begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: DATA",
        ),
        row(
            "refused",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 STARTTLS
             C: STARTTLS
             S: 502 what
             =ready",
        ),
        row(
            "answered by 421",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 STARTTLS
             C: STARTTLS
             S: 421 bye
             =over Refused 4.0.0: 421 bye",
        ),
        row(
            "answered by another code",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 STARTTLS
             C: STARTTLS
             S: 250 go
             =over Protocol 4.5.0: it answered STARTTLS with: 250 go",
        ),
        row(
            "answered by silence",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 STARTTLS
             C: STARTTLS
             !expired
             =over Timeout 4.4.2: it took too long, while waiting for its reply to STARTTLS",
        ),
        row(
            "the handshake is not done",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 STARTTLS
             C: STARTTLS
             S: 220 go
             =secure
             !closed
             =over Closed 4.4.2: it closed the connection, while waiting for the TLS handshake",
        ),
        row(
            "a reply injected behind it",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 STARTTLS
             C: STARTTLS
             S: 220 go
             S: 250 mx
             =over Injection 4.7.0: it sent octets in clear behind its reply to STARTTLS",
        ),
        row(
            "an octet injected behind it",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 STARTTLS
             C: STARTTLS
             R: 220 go\\r\\n2
             =over Injection 4.7.0: it sent octets in clear behind its reply to STARTTLS",
        ),
        row(
            "refused inside TLS, with what was known outside forgotten",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 STARTTLS
             C: STARTTLS
             S: 220 go
             =secure
             !secured
             C: EHLO me.test
             S: 550 5.7.1 not you
             C: HELO me.test
             S: 250 mx
             =ready
             !begin
             C: MAIL FROM:<a@b>",
        ),
        row(
            "off",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 STARTTLS
             =ready",
        )
        .set(|settings| settings.starttls = StartTls::Off),
        row(
            "required and granted",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 STARTTLS
             C: STARTTLS
             S: 220 go
             =secure
             !secured
             C: EHLO me.test
             S: 250 mx
             =ready",
        )
        .set(required),
        row(
            "required and not offered",
            "S: 220 mx
             C: EHLO me.test
             S: 250 mx
             C: QUIT
             =over NoTls 4.7.10: TLS is required, and STARTTLS is not offered",
        )
        .set(required),
        row(
            "required and refused",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 STARTTLS
             C: STARTTLS
             S: 554 5.7.0 no
             C: QUIT
             =over NoTls 4.7.10: TLS is required, and STARTTLS was refused: 554 5.7.0 no",
        )
        .set(required),
        row(
            "required, and there from the first octet",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 STARTTLS
             =ready",
        )
        .set(required)
        .tls(),
        row(
            "under LMTP",
            "S: 220 mx
             C: LHLO me.test
             S: 250-mx
             S: 250 STARTTLS
             C: STARTTLS
             S: 220 go
             =secure
             !secured
             C: LHLO me.test
             S: 250 mx
             =ready",
        )
        .set(lmtp),
        row(
            "when it was not asked for",
            "S: 220 mx
             C: EHLO me.test
             !secured
             S: 250 mx
             =ready
             !secured
             =ready",
        ),
    ]);
}

/// Base64 of `\0ann\0secret`, `ann` and `secret`.
#[test]
fn logins() {
    run(&[
        row(
            "PLAIN",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH LOGIN PLAIN
             C: AUTH PLAIN AGFubgBzZWNyZXQ=
             S: 235 2.7.0 welcome
             =ready",
        )
        .set(login)
        .tls(),
        row(
            "PLAIN behind STARTTLS",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250-AUTH PLAIN
             S: 250 STARTTLS
             C: STARTTLS
             S: 220 go
             =secure
             !secured
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH PLAIN
             C: AUTH PLAIN AGFubgBzZWNyZXQ=
             S: 235 welcome
             =ready",
        )
        .set(login),
        row(
            "PLAIN, too long for a command",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH PLAIN
             C: AUTH PLAIN
             S: 334
             C: AGFubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubgBzZWNyZXQ=
             S: 235 welcome
             =ready",
        )
        .set(|settings| {
            login(settings);
            let login = settings.login.as_mut().unwrap();
            login.name = format!("a{}", "n".repeat(365));
        })
        .tls(),
        row(
            "PLAIN asked for and refused",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH PLAIN
             C: AUTH PLAIN
             S: 504 5.5.4 no
             C: QUIT
             =over Login 4.7.8: the login was refused: 504 5.5.4 no",
        )
        .set(|settings| {
            login(settings);
            settings.login.as_mut().unwrap().name = "n".repeat(400);
        })
        .tls(),
        row(
            "LOGIN",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH LOGIN CRAM-MD5
             C: AUTH LOGIN
             S: 334 VXNlcm5hbWU6
             C: YW5u
             S: 334 UGFzc3dvcmQ6
             C: c2VjcmV0
             S: 235 2.7.0 welcome
             =ready",
        )
        .set(login)
        .tls(),
        row(
            "LOGIN refused behind the name",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH=LOGIN
             C: AUTH LOGIN
             S: 334 VXNlcm5hbWU6
             C: YW5u
             S: 535 5.7.8 who
             C: QUIT
             =over Login 4.7.8: the login was refused: 535 5.7.8 who",
        )
        .set(login)
        .tls(),
        row(
            "refused for good is refused for now",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH PLAIN
             C: AUTH PLAIN AGFubgBzZWNyZXQ=
             S: 535 5.7.8 no
             C: QUIT
             =over Login 4.7.8: the login was refused: 535 5.7.8 no",
        )
        .set(login)
        .tls(),
        row(
            "refused for now",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH PLAIN
             C: AUTH PLAIN AGFubgBzZWNyZXQ=
             S: 454 not now
             C: QUIT
             =over Login 4.7.8: the login was refused: 454 not now",
        )
        .set(login)
        .tls(),
        row(
            "refused with the response",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH PLAIN
             C: AUTH PLAIN AGFubgBzZWNyZXQ=
             S: 535 5.7.8 not AGFubgBzZWNyZXQ=
             C: QUIT
             =over Login 4.7.8: the login was refused: 535 5.7.8",
        )
        .set(login)
        .tls(),
        row(
            "refused with the password",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH PLAIN
             C: AUTH PLAIN AGFubgBzZWNyZXQ=
             S: 535 not 'secret'
             C: QUIT
             =over Login 4.7.8: the login was refused: 535",
        )
        .set(login)
        .tls(),
        row(
            "refused with the password in base64",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH LOGIN
             C: AUTH LOGIN
             S: 334
             C: YW5u
             S: 334
             C: c2VjcmV0
             S: 535 not c2VjcmV0
             C: QUIT
             =over Login 4.7.8: the login was refused: 535",
        )
        .set(login)
        .tls(),
        row(
            "answered by 421",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH PLAIN
             C: AUTH PLAIN AGFubgBzZWNyZXQ=
             S: 421 bye
             =over Refused 4.0.0: 421 bye",
        )
        .set(login)
        .tls(),
        row(
            "answered by 421 with the password",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH PLAIN
             C: AUTH PLAIN AGFubgBzZWNyZXQ=
             S: 421 4.7.0 secret was wrong too often
             =over Refused 4.7.0: 421 4.7.0",
        )
        .set(login)
        .tls(),
        row(
            "answered by a question too many",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH PLAIN
             C: AUTH PLAIN AGFubgBzZWNyZXQ=
             S: 334 more
             =over Protocol 4.5.0: it answered AUTH with 334",
        )
        .set(login)
        .tls(),
        row(
            "answered by another code",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH LOGIN
             C: AUTH LOGIN
             S: 235 welcome
             =over Protocol 4.5.0: it answered AUTH with 235",
        )
        .set(login)
        .tls(),
        row(
            "answered by silence",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH PLAIN
             C: AUTH PLAIN AGFubgBzZWNyZXQ=
             !closed
             =over Closed 4.4.2: it closed the connection, while waiting for its reply to AUTH",
        )
        .set(login)
        .tls(),
        row(
            "no AUTH",
            "S: 220 mx
             C: EHLO me.test
             S: 250 mx
             C: QUIT
             =over Login 4.7.4: a login is due, and neither AUTH PLAIN nor AUTH LOGIN is offered",
        )
        .set(login)
        .tls(),
        row(
            "no mechanism that is known",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH CRAM-MD5
             C: QUIT
             =over Login 4.7.4: a login is due, and neither AUTH PLAIN nor AUTH LOGIN is offered",
        )
        .set(login)
        .tls(),
        row(
            "in clear, without STARTTLS",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250 AUTH PLAIN
             C: QUIT
             =over Login 4.7.11: a login is due, which leaves only inside TLS, and there is none",
        )
        .set(login),
        row(
            "in clear, STARTTLS off",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250-STARTTLS
             S: 250 AUTH PLAIN
             C: QUIT
             =over Login 4.7.11: a login is due, which leaves only inside TLS, and there is none",
        )
        .set(|settings| {
            login(settings);
            settings.starttls = StartTls::Off;
        }),
        row(
            "in clear, STARTTLS refused",
            "S: 220 mx
             C: EHLO me.test
             S: 250-mx
             S: 250-STARTTLS
             S: 250 AUTH PLAIN
             C: STARTTLS
             S: 454 not now
             C: QUIT
             =over Login 4.7.11: a login is due, which leaves only inside TLS, and there is none",
        )
        .set(login),
    ]);
}

#[test]
fn a_cut_refusal_of_a_login_tells_its_codes() {
    let settings = settings(login);
    let now = Instant::now();
    let mut session = Session::new(settings, Channel::Tls, now);
    let refusal = format!("535 5.7.8 {}\r\n", "x".repeat(2000));
    let said = ["220 mx\r\n250-mx\r\n250 AUTH PLAIN\r\n", &refusal].concat();
    let effect = session.receive(now, &mut said.as_bytes(), &mut Vec::new());
    let Effect::Over(failure) = effect else {
        panic!("{effect:?}")
    };
    assert_eq!(&*failure.text, "the login was refused: 535 5.7.8");
}
