//! What is no message: octets that nobody asked for, ends, limits, deadlines.

use super::*;

/// What a peer says while nothing is asked.
#[test]
fn between_transactions() {
    run(&[
        offered(
            "X",
            "421",
            "S: 421 4.4.2 too long
             =over Refused 4.4.2: 421 4.4.2 too long
             !begin
             =unsent Refused 4.4.2: 421 4.4.2 too long
             =over Refused 4.4.2: 421 4.4.2 too long",
        ),
        offered(
            "X",
            "another refusal",
            "S: 554 go away
             =over Refused 5.0.0: 554 go away",
        ),
        offered(
            "X",
            "something else",
            "S: 250 ok
             =over Protocol 4.5.0: it answered nothing with: 250 ok",
        ),
        offered(
            "X",
            "garbage",
            "S: hello?
             =over Protocol 4.5.0: what it said is no reply",
        ),
        offered(
            "X",
            "half a reply",
            "R: 25
             !begin
             =unsent Protocol 4.5.0: it said something without being asked
             =over Protocol 4.5.0: it said something without being asked
             !begin
             =unsent Protocol 4.5.0: it said something without being asked
             =over Protocol 4.5.0: it said something without being asked",
        ),
        offered(
            "X",
            "the end",
            "!closed
             =over Closed 4.4.2: it closed the connection, while waiting for the next message",
        ),
        offered(
            "X",
            "silence",
            "!expired
             =over Timeout 4.4.2: it took too long, while waiting for the next message",
        ),
        offered(
            "X",
            "the end instead of a reply to QUIT",
            "!quit
             C: QUIT
             !closed
             =closed
             !closed
             !expired",
        ),
        offered(
            "X",
            "silence instead of a reply to QUIT",
            "!quit
             C: QUIT
             !expired
             =closed",
        ),
        offered(
            "X",
            "421 to QUIT",
            "!quit
             C: QUIT
             S: 421 bye
             =closed
             S: 421 bye",
        ),
        offered(
            "X",
            "garbage to QUIT",
            "!quit
             C: QUIT
             S: bye
             =over Protocol 4.5.0: what it said is no reply",
        ),
        offered(
            "X",
            "content that nobody asked for",
            "!part
             !short
             =ready",
        ),
    ]);
}

/// A reply too many must never become the reply to the next MAIL.
#[test]
fn what_was_left_unread_is_not_the_next_reply() {
    let now = Instant::now();
    let mut session = Session::new(settings(|_| {}), Channel::Clear, now);
    let mut out = Vec::new();
    let mut input: &[u8] = b"220 mx\r\n250-mx\r\n250 PIPELINING\r\n250 ok\r\n";
    let effect = session.receive(now, &mut input, &mut out);
    assert_eq!((effect, input), (Effect::Ready, b"250 ok\r\n".as_slice()));
    out.clear();
    let effect = session.begin(now, &message(three), &mut out).unwrap();
    let Effect::Finished(Outcome { recipients, after }) = effect else {
        panic!("{effect:?}")
    };
    assert_eq!(recipients.len(), 3);
    assert!(matches!(after, After::Over(_)) && out.is_empty());
}

/// What is left in the input is given to the session first, as `Effect::Ready` says.
#[test]
fn what_was_left_unread_may_be_read() {
    let now = Instant::now();
    let mut session = Session::new(settings(|_| {}), Channel::Clear, now);
    let mut out = Vec::new();
    let mut input: &[u8] = b"220 mx\r\n250 mx\r\n421 bye\r\n";
    assert_eq!(session.receive(now, &mut input, &mut out), Effect::Ready);
    let effect = session.receive(now, &mut input, &mut out);
    assert!(matches!(effect, Effect::Over(_)) && input.is_empty());
}

#[test]
fn limits_of_the_peer() {
    let now = Instant::now();
    let rows = [
        ("X", 100, [true, true]),
        ("LIMITS RCPTMAX=7", 7, [true, true]),
        ("LIMITS RCPTMAX=5000 MAILMAX=1", 5000, [true, false]),
    ];
    for (keyword, recipients_max, takes_another) in rows {
        let mut session = Session::new(settings(|_| {}), Channel::Clear, now);
        assert!(!session.takes_another(), "not greeted yet");
        let mut out = Vec::new();
        let preface = format!("220 mx\r\n250-mx\r\n250 {keyword}\r\n");
        session.receive(now, &mut preface.as_bytes(), &mut out);
        assert_eq!(session.recipients_max(), recipients_max, "{keyword}");
        assert_eq!(session.takes_another(), takes_another[0], "{keyword}");
        session.begin(now, &message(|_| {}), &mut out).unwrap();
        let refusal = "550 no\r\n";
        session.receive(now, &mut refusal.as_bytes(), &mut out);
        assert!(session.is_ready());
        assert_eq!(session.takes_another(), takes_another[1], "{keyword}");
    }
}

#[test]
fn what_the_session_tells_of_itself() {
    let now = Instant::now();
    let mut out = Vec::new();
    let mut session = Session::new(settings(|_| {}), Channel::Clear, now);
    let said = "220 mx\r\n250-mx\r\n250-STARTTLS\r\n250 DSN\r\n454 not now\r\n";
    session.receive(now, &mut said.as_bytes(), &mut out);
    let refusal = session.starttls_refusal().map(|reply| &*reply.text);
    assert_eq!(refusal, Some("454 not now"));
    assert_eq!(session.channel(), Channel::Clear);
    assert!(session.extensions().dsn && session.extensions().starttls);
    let wants = |change: fn(&mut Transaction)| session.wants_facts(&message(change));
    assert!(!wants(|_| {}));
    assert!(wants(|transaction| transaction.body = Body::EightBitMime));

    let mut session = Session::new(settings(|_| {}), Channel::Clear, now);
    let said = "220 mx\r\n250-mx\r\n250-STARTTLS\r\n250 DSN\r\n220 go\r\n";
    session.receive(now, &mut said.as_bytes(), &mut out);
    session.secured(now, &mut out);
    assert_eq!(session.channel(), Channel::Tls);
    assert_eq!(*session.extensions(), Extensions::default(), "forgotten");
    assert_eq!(session.starttls_refusal(), None);
}

/// RFC 5321 §4.5.3.2: each wait has its own time, and begins with what the peer did last.
#[test]
fn deadlines() {
    const SECOND: Duration = Duration::from_secs(1);
    let settings = settings(|settings| {
        settings.timeouts = Timeouts {
            greeting: SECOND,
            command: 2 * SECOND,
            mail: 3 * SECOND,
            rcpt: 4 * SECOND,
            data_init: 5 * SECOND,
            data_block: 6 * SECOND,
            data_termination: 7 * SECOND,
            quit: 8 * SECOND,
        };
    });
    let mut now = Instant::now();
    let mut out = Vec::new();
    let mut session = Session::new(Arc::clone(&settings), Channel::Clear, now);
    let mut hear = |session: &mut Session, said: &str, seconds: u32| {
        now += SECOND / 2;
        session.receive(now, &mut said.as_bytes(), &mut out);
        assert_eq!(session.deadline(), now + seconds * SECOND, "{said}");
        now
    };
    assert_eq!(
        session.deadline(),
        session.deadline().min(Instant::now() + SECOND)
    );
    hear(&mut session, "220 mx\r\n", 2);
    hear(&mut session, "250-mx\r\n250 STARTTLS\r\n", 2);
    hear(&mut session, "454 no\r\n", 2);
    let mut now = Instant::now();
    let mut out = Vec::new();
    session.begin(now, &message(three), &mut out).unwrap();
    assert_eq!(session.deadline(), now + 3 * SECOND);
    let rows = [
        ("250 ok\r\n", 4),
        ("250 ok\r\n", 4),
        ("250 ok\r\n", 4),
        ("250 ok\r\n", 5),
        ("354 go\r\n", 6),
    ];
    for (said, seconds) in rows {
        now += SECOND / 2;
        session.receive(now, &mut said.as_bytes(), &mut out);
        assert_eq!(session.deadline(), now + seconds * SECOND, "{said}");
    }
    // Half a reply is none: a peer that trickles is not waited for any longer.
    let before = session.deadline();
    session.receive(now + SECOND, &mut b"25".as_slice(), &mut out);
    assert_eq!(session.deadline(), before);
    now += SECOND;
    session.content(now, b"a", &mut out);
    assert_eq!(session.deadline(), now + 6 * SECOND);
    now += SECOND;
    session.content_progress(now, 0);
    assert_eq!(session.deadline(), now + 6 * SECOND);
    now += SECOND;
    session.content_sent(now, &mut out);
    assert_eq!(session.deadline(), now + 7 * SECOND);
    now += SECOND;
    session.content_progress(now, 0);
    assert_eq!(
        session.deadline(),
        now + 6 * SECOND,
        "no content is sent any more"
    );
    session.receive(now, &mut b"0 queued\r\n".as_slice(), &mut out);
    assert!(session.is_ready());
    session.quit(now, &mut out);
    assert_eq!(session.deadline(), now + 8 * SECOND);
    session.peer_closed();
    assert_eq!(session.deadline(), now);

    // To nobody, and then RSET.
    let mut session = Session::new(Arc::clone(&settings), Channel::Clear, now);
    session.receive(
        now,
        &mut b"220 mx\r\n250-mx\r\n250 PIPELINING\r\n".as_slice(),
        &mut out,
    );
    session.begin(now, &message(|_| {}), &mut out).unwrap();
    session.receive(
        now,
        &mut b"250 ok\r\n550 no\r\n354 go\r\n".as_slice(),
        &mut out,
    );
    assert_eq!(session.deadline(), now + 7 * SECOND);
    session.receive(now, &mut b"250 ok\r\n".as_slice(), &mut out);
    session.begin(now, &message(|_| {}), &mut out).unwrap();
    session.receive(
        now,
        &mut b"250 ok\r\n550 no\r\n554 no\r\n".as_slice(),
        &mut out,
    );
    assert_eq!(session.deadline(), now + 2 * SECOND);
}

#[test]
fn an_endless_timeout_is_no_overflow() {
    let settings = settings(|settings| settings.timeouts.greeting = Duration::MAX);
    let now = Instant::now();
    let session = Session::new(settings, Channel::Clear, now);
    assert!(session.deadline() > now + Duration::from_secs(24 * 60 * 60));
}
