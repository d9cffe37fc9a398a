//! Messages on each way that they can take: one command at a time, pipelined, by BDAT, under LMTP.

use super::*;
use crate::smtp::dsn::Notify;

/// A peer without PIPELINING: one command at a time.
#[test]
fn one_by_one() {
    const NOTHING: &str = "X";
    run(&[
        offered(
            NOTHING,
            "a message, and another one",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 2.1.0 ok
             C: RCPT TO:<c@d>
             S: 250 2.1.5 ok
             C: DATA
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 250 2.0.0 queued
             =accepted 250 2.0.0 queued
             =ready
             !begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 251 elsewhere
             C: DATA
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 250 queued
             =accepted 250 queued
             =ready
             !quit
             C: QUIT
             S: 221 bye
             =closed",
        ),
        offered(
            NOTHING,
            "some recipients refused",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 550 5.1.1 no
             C: RCPT TO:<e@f>
             S: 250 ok
             C: RCPT TO:<g@h>
             S: 450 4.2.1 later
             C: DATA
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 250 queued
             =refused 550 5.1.1 no
             =accepted 250 queued
             =refused 450 4.2.1 later
             =ready",
        )
        .message(three),
        offered(
            NOTHING,
            "all recipients refused",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 550 no
             C: RSET
             S: 250 ok
             =refused 550 no
             =ready
             !begin
             C: MAIL FROM:<a@b>",
        ),
        offered(
            NOTHING,
            "all recipients refused, and RSET",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 550 no
             C: RSET
             S: 500 what
             =refused 550 no
             =over Protocol 4.5.0: it answered RSET with: 500 what",
        ),
        offered(
            NOTHING,
            "all recipients refused, and RSET by 421",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 550 no
             C: RSET
             S: 421 bye
             =refused 550 no
             =over Refused 4.0.0: 421 bye",
        ),
        offered(
            NOTHING,
            "all recipients refused, and silence",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 550 no
             C: RSET
             !expired
             =refused 550 no
             =over Timeout 4.4.2: it took too long, while waiting for its reply to RSET",
        ),
        offered(
            NOTHING,
            "MAIL refused",
            "!begin
             C: MAIL FROM:<a@b>
             S: 550 5.7.1 not you
             =refused 550 5.7.1 not you
             =refused 550 5.7.1 not you
             =refused 550 5.7.1 not you
             =ready
             !begin
             C: MAIL FROM:<a@b>",
        )
        .message(three),
        offered(
            NOTHING,
            "MAIL answered by 421",
            "!begin
             C: MAIL FROM:<a@b>
             S: 421 4.3.2 bye
             =unsent Refused 4.3.2: 421 4.3.2 bye
             =over Refused 4.3.2: 421 4.3.2 bye",
        ),
        offered(
            NOTHING,
            "MAIL answered by 354",
            "!begin
             C: MAIL FROM:<a@b>
             S: 354 go
             =unsent Protocol 4.5.0: it answered MAIL with: 354 go
             =over Protocol 4.5.0: it answered MAIL with: 354 go",
        ),
        offered(
            NOTHING,
            "MAIL answered by garbage",
            "!begin
             C: MAIL FROM:<a@b>
             S: ok
             =unsent Protocol 4.5.0: what it said is no reply
             =over Protocol 4.5.0: what it said is no reply",
        ),
        offered(
            NOTHING,
            "MAIL answered by silence",
            "!begin
             C: MAIL FROM:<a@b>
             !expired
             =unsent Timeout 4.4.2: it took too long, while waiting for its reply to MAIL
             =over Timeout 4.4.2: it took too long, while waiting for its reply to MAIL",
        ),
        offered(
            NOTHING,
            "RCPT answered by 354",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 354 go
             =unsent Protocol 4.5.0: it answered RCPT with: 354 go
             =over Protocol 4.5.0: it answered RCPT with: 354 go",
        ),
        offered(
            NOTHING,
            "RCPT answered by 421, behind a refused one",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 550 no
             C: RCPT TO:<e@f>
             S: 421 bye
             =refused 550 no
             =unsent Refused 4.0.0: 421 bye
             =unsent Refused 4.0.0: 421 bye
             =over Refused 4.0.0: 421 bye",
        )
        .message(three),
        offered(
            NOTHING,
            "RCPT answered by the end of the connection",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             !closed
             =unsent Closed 4.4.2: it closed the connection, while waiting for its reply to RCPT
             =over Closed 4.4.2: it closed the connection, while waiting for its reply to RCPT",
        ),
        offered(
            NOTHING,
            "DATA refused",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 250 ok
             C: DATA
             S: 451 4.3.0 later
             C: RSET
             S: 250 ok
             =refused 451 4.3.0 later
             =ready",
        ),
        offered(
            NOTHING,
            "DATA answered by another code",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 250 ok
             C: DATA
             S: 250 ok
             =unsent Protocol 4.5.0: it answered DATA with: 250 ok
             =over Protocol 4.5.0: it answered DATA with: 250 ok",
        ),
        offered(
            NOTHING,
            "DATA answered by silence",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 250 ok
             C: DATA
             !expired
             =unsent Timeout 4.4.2: it took too long, while waiting for its reply to DATA
             =over Timeout 4.4.2: it took too long, while waiting for its reply to DATA",
        ),
        offered(
            NOTHING,
            "content refused",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 250 ok
             C: RCPT TO:<e@f>
             S: 550 no
             C: RCPT TO:<g@h>
             S: 250 ok
             C: DATA
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 554 5.6.0 spam
             =refused 554 5.6.0 spam
             =refused 550 no
             =refused 554 5.6.0 spam
             =ready
             !begin
             C: MAIL FROM:<a@b>",
        )
        .message(three),
        offered(
            NOTHING,
            "content answered by 421",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 250 ok
             C: DATA
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 421 bye
             =unsent Refused 4.0.0: 421 bye
             =over Refused 4.0.0: 421 bye",
        ),
        offered(
            NOTHING,
            "content answered by 354",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 250 ok
             C: DATA
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 354 more
             =unsent Protocol 4.5.0: it answered the content with: 354 more; it is unknown whether it took the message
             =over Protocol 4.5.0: it answered the content with: 354 more",
        ),
        offered(
            NOTHING,
            "content answered by silence",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 250 ok
             C: DATA
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             R: 250 queu
             !expired
             =unsent Timeout 4.4.2: it took too long, while waiting for its reply to the content; it is unknown whether it took the message
             =over Timeout 4.4.2: it took too long, while waiting for its reply to the content",
        ),
        offered(
            NOTHING,
            "lost while content is sent",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             !hold
             S: 250 ok
             C: DATA
             S: 354 go
             =content
             !part
             c: A:
             !closed
             =unsent Closed 4.4.2: it closed the connection, while waiting for it to take the content
             =over Closed 4.4.2: it closed the connection, while waiting for it to take the content
             !rest",
        ),
        offered(
            NOTHING,
            "content refused before its end",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             !hold
             S: 250 ok
             C: DATA
             S: 354 go
             =content
             !part
             c: A:
             S: 552 5.3.4 too much
             =refused 552 5.3.4 too much
             =over Refused 5.3.4: 552 5.3.4 too much",
        ),
        offered(
            NOTHING,
            "content refused together with 354",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 250 ok
             C: DATA
             S: 354 go
             S: 552 5.3.4 too much
             =refused 552 5.3.4 too much
             =over Refused 5.3.4: 552 5.3.4 too much",
        )
        .message(|_| {}),
        offered(
            NOTHING,
            "content accepted before its end",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             !hold
             S: 250 ok
             C: DATA
             S: 354 go
             S: 250 queued
             =unsent Protocol 4.5.0: it answered the content with: 250 queued
             =over Protocol 4.5.0: it answered the content with: 250 queued",
        ),
        offered(
            NOTHING,
            "content answered by 421 before its end",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             !hold
             S: 250 ok
             C: DATA
             S: 354 go
             =content
             S: 421 bye
             =unsent Refused 4.0.0: 421 bye
             =over Refused 4.0.0: 421 bye",
        ),
        offered(
            NOTHING,
            "nobody to send to",
            "!begin
             =ready
             !begin
             =ready",
        )
        .message(|transaction| transaction.recipients.clear()),
        offered(
            "SIZE 5",
            "a message that is too large",
            "!begin
             =refusal 5.3.4 the message has 12 octets, and the next hop takes 5 at most
             !quit
             C: QUIT",
        ),
        offered(
            NOTHING,
            "a recipient that cannot be written",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<e@f>
             S: 250 ok
             C: DATA
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 250 queued
             =unsent Unsendable 5.6.7: the address needs SMTPUTF8, which the next hop does not offer
             =accepted 250 queued
             =unsent Unsendable 5.1.3: the address cannot be written in a command
             =ready",
        )
        .message(|transaction| {
            transaction.recipients = vec![to("ü@d"), to("e@f"), to("g@h\r\n")];
            transaction.facts = Some(Scanner::new().facts());
        }),
        offered(
            NOTHING,
            "no recipient that can be written",
            "!begin
             =unsent Unsendable 5.1.3: the address cannot be written in a command
             =ready
             !quit
             C: QUIT",
        )
        .message(|transaction| transaction.recipients = vec![to("g@h\r\n")]),
        offered(
            NOTHING,
            "a message before the session is ready for it",
            "!begin
             C: MAIL FROM:<a@b>
             !begin
             =refusal 4.3.0 the connection was not ready for a message
             !quit
             =closed
             !begin
             =refusal 4.3.0 the connection was not ready for a message",
        ),
    ]);
}

/// What the caller would rather not use counts as not listed.
#[test]
fn ignored_extensions() {
    const EVERYTHING: &str = "PIPELINING;CHUNKING;BINARYMIME;SIZE";
    run(&[
        offered(
            EVERYTHING,
            "without CHUNKING",
            "!begin
             C: MAIL FROM:<a@b> SIZE=12
             C: RCPT TO:<c@d>
             C: DATA
             S: 250 ok
             S: 250 ok
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 250 queued
             =accepted 250 queued
             =ready",
        )
        .set(|settings| settings.ignored.chunking = true),
        offered(
            EVERYTHING,
            "without either",
            "!begin
             C: MAIL FROM:<a@b> SIZE=12
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 250 ok
             C: DATA
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 250 queued
             =accepted 250 queued
             =ready",
        )
        .set(|settings| {
            settings.ignored = Ignored {
                pipelining: true,
                chunking: true,
            };
        }),
        offered(
            EVERYTHING,
            "without CHUNKING there is no BINARYMIME",
            "!begin
             =refusal 5.6.3 the message is binary, which the next hop does not take",
        )
        .set(|settings| settings.ignored.chunking = true)
        .message(|transaction| transaction.body = Body::BinaryMime),
    ]);
}

/// RFC 5321 §4.5.3.1.10.
#[test]
fn too_many_recipients() {
    // replies to three RCPT, what becomes of them
    #[rustfmt::skip] // a row a line
    let rows: &[(&str, [&str; 3], [&str; 3])] = &[
        ("452", ["250 ok", "452 too many", "452 too many"],
            ["=accepted 250 queued", "=unsent TooManyRecipients 4.5.3, again now: 452 too many", "=unsent TooManyRecipients 4.5.3, again now: 452 too many"]),
        ("452 4.5.3", ["250 ok", "550 no", "452 4.5.3 too many"],
            ["=accepted 250 queued", "=refused 550 no", "=unsent TooManyRecipients 4.5.3, again now: 452 4.5.3 too many"]),
        ("452 of something else", ["250 ok", "452 4.2.2 full", "250 ok"],
            ["=accepted 250 queued", "=refused 452 4.2.2 full", "=accepted 250 queued"]),
        ("452 before any is accepted", ["452 no space", "250 ok", "452 too many"],
            ["=refused 452 no space", "=accepted 250 queued", "=unsent TooManyRecipients 4.5.3, again now: 452 too many"]),
        ("452 4.5.3 before any is accepted", ["452 4.5.3 too many", "250 ok", "250 ok"],
            ["=unsent TooManyRecipients 4.5.3: 452 4.5.3 too many", "=accepted 250 queued", "=accepted 250 queued"]),
        ("552", ["250 ok", "552 too many", "250 ok"],
            ["=accepted 250 queued", "=unsent TooManyRecipients 4.5.3, again now: 552 too many", "=accepted 250 queued"]),
        ("552 5.5.3", ["250 ok", "250 ok", "552 5.5.3 too many"],
            ["=accepted 250 queued", "=accepted 250 queued", "=unsent TooManyRecipients 4.5.3, again now: 552 5.5.3 too many"]),
        ("552 of something else", ["250 ok", "552 5.2.2 full", "250 ok"],
            ["=accepted 250 queued", "=refused 552 5.2.2 full", "=accepted 250 queued"]),
        ("552 before any is accepted", ["552 no", "250 ok", "250 ok"],
            ["=refused 552 no", "=accepted 250 queued", "=accepted 250 queued"]),
        ("552 5.5.3 before any is accepted", ["552 5.5.3 no", "250 ok", "250 ok"],
            ["=unsent TooManyRecipients 4.5.3: 552 5.5.3 no", "=accepted 250 queued", "=accepted 250 queued"]),
    ];
    for (name, replies, wanted) in rows {
        let now = Instant::now();
        let transaction = message(three);
        let mut session = Session::new(settings(|_| {}), Channel::Clear, now);
        let mut out = Vec::new();
        let preface = "220 mx\r\n250-mx\r\n250 PIPELINING\r\n";
        session.receive(now, &mut preface.as_bytes(), &mut out);
        let said = format!("250 ok\r\n{}\r\n354 go\r\n", replies.join("\r\n"));
        assert_eq!(
            session.begin(now, &transaction, &mut out),
            Ok(Effect::Input)
        );
        let effect = session.receive(now, &mut said.as_bytes(), &mut out);
        assert_eq!(effect, Effect::Content(Transfer::Data), "{name}");
        assert_eq!(session.content_sent(now, &mut out), Effect::Input);
        let effect = session.receive(now, &mut b"250 queued\r\n".as_slice(), &mut out);
        let Effect::Finished(outcome) = effect else {
            panic!("{name}: {effect:?}")
        };
        let found: Vec<_> = outcome.recipients.iter().map(shown_outcome).collect();
        assert_eq!(found, *wanted, "{name}");
    }
}

/// PIPELINING without CHUNKING: MAIL, RCPT and DATA together.
#[test]
fn pipelined() {
    const PIPELINING: &str = "PIPELINING";
    run(&[
        offered(
            PIPELINING,
            "a message, and another one",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: DATA
             S: 250 ok
             S: 250 ok
             S: 550 no
             S: 250 ok
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 250 queued
             =accepted 250 queued
             =refused 550 no
             =accepted 250 queued
             =ready
             !begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: DATA",
        )
        .message(three),
        offered(
            PIPELINING,
            "replies in lines",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: DATA
             S: 250-2.1.0 a
             S: 250 2.1.0 b
             S: 250-2.1.5 a
             S: 250-2.1.5 b
             S: 250 2.1.5 c
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 250-2.0.0 queued
             S: 250 2.0.0 as 7
             =accepted 250 2.0.0 queued as 7
             =ready",
        ),
        offered(
            PIPELINING,
            "MAIL refused",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: DATA
             S: 550 5.7.1 not you
             S: 503 5.5.1 MAIL first
             S: 503 5.5.1 RCPT first
             =refused 550 5.7.1 not you
             =ready",
        ),
        offered(
            PIPELINING,
            "MAIL refused, and 354 for nobody",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: DATA
             S: 450 later
             S: 503 MAIL first
             S: 354 go
             C: .
             S: 554 no valid recipients
             =refused 450 later
             =ready",
        ),
        offered(
            PIPELINING,
            "MAIL refused, RCPT taken all the same",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: DATA
             S: 450 later
             S: 250 ok
             S: 503 no
             C: RSET
             S: 250 ok
             =refused 450 later
             =ready",
        ),
        offered(
            PIPELINING,
            "all recipients refused, and DATA",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: DATA
             S: 250 ok
             S: 550 no
             S: 554 no valid recipients
             C: RSET
             S: 250 ok
             =refused 550 no
             =ready",
        ),
        offered(
            PIPELINING,
            "all recipients refused, and 354, and the end refused",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: DATA
             S: 250 ok
             S: 550 no
             S: 354 go
             C: .
             S: 554 no valid recipients
             =refused 550 no
             =ready",
        ),
        offered(
            PIPELINING,
            "all recipients refused, and 354, and nothing accepted",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: DATA
             S: 250 ok
             S: 450 later
             S: 354 go
             C: .
             S: 250 queued
             =refused 450 later
             =ready
             !begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: DATA",
        ),
        offered(
            PIPELINING,
            "all recipients refused, and 354 twice",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: DATA
             S: 250 ok
             S: 450 later
             S: 354 go
             C: .
             S: 354 go
             =refused 450 later
             =over Protocol 4.5.0: it answered the end of data with: 354 go",
        ),
        offered(
            PIPELINING,
            "all recipients refused, and 354, and silence",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: DATA
             S: 250 ok
             S: 450 later
             S: 354 go
             C: .
             !expired
             =refused 450 later
             =over Timeout 4.4.2: it took too long, while waiting for its reply to the end of data",
        ),
        offered(
            PIPELINING,
            "DATA refused",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: DATA
             S: 250 ok
             S: 250 ok
             S: 550 no
             S: 250 ok
             S: 452 4.3.1 full
             C: RSET
             S: 250 ok
             =refused 452 4.3.1 full
             =refused 550 no
             =refused 452 4.3.1 full
             =ready",
        )
        .message(three),
        offered(
            PIPELINING,
            "421 amid the replies",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: DATA
             S: 250 ok
             S: 550 no
             S: 421 bye
             =refused 550 no
             =unsent Refused 4.0.0: 421 bye
             =unsent Refused 4.0.0: 421 bye
             =over Refused 4.0.0: 421 bye",
        )
        .message(three),
        offered(
            PIPELINING,
            "lost amid the replies",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: DATA
             S: 250 ok
             S: 550 no
             S: 250 ok
             !closed
             =refused 550 no
             =unsent Closed 4.4.2: it closed the connection, while waiting for its reply to RCPT
             =unsent Closed 4.4.2: it closed the connection, while waiting for its reply to RCPT
             =over Closed 4.4.2: it closed the connection, while waiting for its reply to RCPT",
        )
        .message(three),
        offered(
            "PIPELINING;DSN;SIZE;8BITMIME;SMTPUTF8",
            "with parameters",
            "!begin
             C: MAIL FROM:<ü@b> SIZE=12 BODY=8BITMIME SMTPUTF8 ENVID=7
             C: RCPT TO:<c@d> NOTIFY=NEVER
             C: DATA
             S: 250 ok
             S: 250 ok
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 250 queued
             =accepted, told 250 queued
             =ready",
        )
        .message(|transaction| {
            transaction.reverse_path = Some("ü@b".into());
            transaction.body = Body::EightBitMime;
            transaction.dsn.envid = Some("7".into());
            transaction.recipients[0].dsn.notify = Some(Notify::default());
        }),
    ]);
}

/// CHUNKING with PIPELINING: the content leaves with the commands.
#[test]
fn chunk_in_flight() {
    const CHUNKING: &str = "PIPELINING;CHUNKING";
    run(&[
        offered(
            CHUNKING,
            "a message, and another one",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: BDAT 12 LAST
             C: A: b
             C:
             C: .c
             S: 250 ok
             S: 250 ok
             S: 250 queued
             =accepted 250 queued
             =ready
             !begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: BDAT 12 LAST
             C: A: b
             C:
             C: .c",
        ),
        offered(
            "PIPELINING;CHUNKING;BINARYMIME",
            "a binary message",
            "!begin
             C: MAIL FROM:<a@b> BODY=BINARYMIME
             C: RCPT TO:<c@d>
             C: BDAT 12 LAST
             C: A: b
             C:
             C: .c
             S: 250 ok
             S: 250 ok
             S: 250 queued
             =accepted 250 queued
             =ready",
        )
        .message(|transaction| transaction.body = Body::BinaryMime),
        offered(
            CHUNKING,
            "MAIL refused",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: BDAT 12 LAST
             C: A: b
             C:
             C: .c
             S: 550 not you
             S: 503 MAIL first
             S: 503 RCPT first
             C: RSET
             S: 250 ok
             =refused 550 not you
             =ready",
        ),
        offered(
            CHUNKING,
            "all recipients refused, the chunk too",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: BDAT 12 LAST
             C: A: b
             C:
             C: .c
             S: 250 ok
             S: 550 no
             S: 554 no valid recipients
             C: RSET
             S: 250 ok
             =refused 550 no
             =ready",
        ),
        offered(
            CHUNKING,
            "all recipients refused, the chunk accepted for nobody",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: BDAT 12 LAST
             C: A: b
             C:
             C: .c
             S: 250 ok
             S: 550 no
             S: 250 queued
             =refused 550 no
             =ready",
        ),
        offered(
            CHUNKING,
            "some recipients refused",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: BDAT 12 LAST
             C: A: b
             C:
             C: .c
             S: 250 ok
             S: 250 ok
             S: 450 later
             S: 250 ok
             S: 250 queued
             =accepted 250 queued
             =refused 450 later
             =accepted 250 queued
             =ready",
        )
        .message(three),
        offered(
            CHUNKING,
            "the chunk refused",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: BDAT 12 LAST
             C: A: b
             C:
             C: .c
             S: 250 ok
             S: 250 ok
             S: 554 spam
             C: RSET
             S: 250 ok
             =refused 554 spam
             =ready",
        ),
        offered(
            CHUNKING,
            "the chunk refused before its end",
            "!hold
             !begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: BDAT 12 LAST
             =chunk
             !part
             c: A:
             S: 250 ok
             S: 250 ok
             S: 552 too much
             !rest
             C: b
             C:
             C: .c
             C: RSET
             S: 250 ok
             =refused 552 too much
             =ready",
        ),
        offered(
            CHUNKING,
            "the chunk refused twice",
            "!hold
             !begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: BDAT 12 LAST
             =chunk
             S: 250 ok
             S: 250 ok
             S: 552 too much
             S: 552 too much
             =refused 552 too much
             =over Protocol 4.5.0: it answered the content again with: 552 too much",
        ),
        offered(
            CHUNKING,
            "lost behind a refused chunk",
            "!hold
             !begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: BDAT 12 LAST
             =chunk
             S: 250 ok
             S: 250 ok
             S: 552 too much
             !closed
             =refused 552 too much
             =over Closed 4.4.2: it closed the connection, while waiting for it to take the content",
        ),
        offered(
            CHUNKING,
            "the chunk accepted before its end",
            "!hold
             !begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: BDAT 12 LAST
             =chunk
             S: 250 ok
             S: 250 ok
             S: 250 queued
             =unsent Protocol 4.5.0: it answered the content with: 250 queued
             =over Protocol 4.5.0: it answered the content with: 250 queued",
        ),
        offered(
            CHUNKING,
            "replies while the chunk is sent",
            "!hold
             !begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: BDAT 12 LAST
             =chunk
             !part
             c: A:
             S: 250 ok
             S: 250 ok
             !rest
             C: b
             C:
             C: .c
             S: 250 queued
             =accepted 250 queued
             =ready",
        ),
        offered(
            CHUNKING,
            "a chunk that ends too early",
            "!hold
             !begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: BDAT 12 LAST
             =chunk
             !part
             c: A:
             !short
             =unsent Content 4.3.0: 12 octets of content were announced, 3 were sent
             =over Content 4.3.0: 12 octets of content were announced, 3 were sent",
        ),
        offered(
            CHUNKING,
            "a chunk that has too much",
            "!hold
             !begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: BDAT 5 LAST
             =chunk
             !rest
             C: A: b
             C:
             C: .c
             =unsent Content 4.3.0: 5 octets of content were announced, 12 were sent; it is unknown whether it took the message
             =over Content 4.3.0: 5 octets of content were announced, 12 were sent",
        )
        .message(|transaction| transaction.octets = 5),
        offered(
            CHUNKING,
            "lost with all sent and nothing answered",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: BDAT 12 LAST
             C: A: b
             C:
             C: .c
             !closed
             =unsent Closed 4.4.2: it closed the connection, while waiting for its reply to MAIL; it is unknown whether it took the message
             =over Closed 4.4.2: it closed the connection, while waiting for its reply to MAIL",
        ),
        offered(
            CHUNKING,
            "lost with one refused and one taken",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: BDAT 12 LAST
             C: A: b
             C:
             C: .c
             S: 250 ok
             S: 550 no
             S: 250 ok
             S: 450 later
             !expired
             =refused 550 no
             =unsent Timeout 4.4.2: it took too long, while waiting for its reply to the content; it is unknown whether it took the message
             =refused 450 later
             =over Timeout 4.4.2: it took too long, while waiting for its reply to the content",
        )
        .message(three),
        offered(
            CHUNKING,
            "421 to all of it",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: BDAT 12 LAST
             C: A: b
             C:
             C: .c
             S: 421 4.3.2 bye
             =unsent Refused 4.3.2: 421 4.3.2 bye
             =over Refused 4.3.2: 421 4.3.2 bye",
        ),
    ]);
}

/// CHUNKING where the content waits for the replies to RCPT.
#[test]
fn chunk_after_replies() {
    run(&[
        offered(
            "CHUNKING",
            "without pipelining",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 250 ok
             C: BDAT 12 LAST
             C: A: b
             C:
             C: .c
             S: 250 queued
             =accepted 250 queued
             =ready",
        ),
        offered(
            "CHUNKING",
            "without pipelining, all recipients refused",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 550 no
             C: RSET
             S: 250 ok
             =refused 550 no
             =ready",
        ),
        offered(
            "CHUNKING",
            "without pipelining, the chunk refused",
            "!begin
             C: MAIL FROM:<a@b>
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 250 ok
             C: BDAT 12 LAST
             C: A: b
             C:
             C: .c
             S: 451 later
             C: RSET
             S: 250 ok
             =refused 451 later
             =ready",
        ),
        offered(
            "CHUNKING;PIPELINING",
            "a large message",
            "!hold
             !begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             S: 250 ok
             S: 250 ok
             S: 550 no
             S: 250 ok
             C: BDAT 65537 LAST
             =chunk
             !closed
             =unsent Closed 4.4.2: it closed the connection, while waiting for it to take the content
             =refused 550 no
             =unsent Closed 4.4.2: it closed the connection, while waiting for it to take the content
             =over Closed 4.4.2: it closed the connection, while waiting for it to take the content",
        )
        .message(|transaction| {
            three(transaction);
            transaction.octets = 65537;
        }),
        offered(
            "CHUNKING;PIPELINING",
            "a large message, MAIL refused",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             S: 550 no
             S: 503 MAIL first
             =refused 550 no
             =ready",
        )
        .message(|transaction| transaction.octets = 65537),
        offered(
            "CHUNKING;PIPELINING",
            "a large message, MAIL refused, RCPT taken all the same",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             S: 550 no
             S: 250 ok
             C: RSET
             S: 250 ok
             =refused 550 no
             =ready",
        )
        .message(|transaction| transaction.octets = 65537),
        offered(
            "CHUNKING;PIPELINING",
            "a large message, all recipients refused",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             S: 250 ok
             S: 550 no
             C: RSET
             S: 250 ok
             =refused 550 no
             =ready",
        )
        .message(|transaction| transaction.octets = 65537),
    ]);
}

/// RFC 2033 §4.2: a reply for each recipient that was accepted, in order.
#[test]
fn lmtp_replies() {
    const PIPELINING: &str = "PIPELINING;DSN";
    let rows = [
        offered(
            PIPELINING,
            "all accepted",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: DATA
             S: 250 ok
             S: 250 ok
             S: 250 ok
             S: 250 ok
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 250 one
             S: 250 two
             S: 250 three
             =accepted, told 250 one
             =accepted, told 250 two
             =accepted, told 250 three
             =ready",
        ),
        offered(
            PIPELINING,
            "each its own",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: DATA
             S: 250 ok
             S: 250 ok
             S: 550 no
             S: 250 ok
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 452 4.2.2 full
             S: 250 three
             =refused 452 4.2.2 full
             =refused 550 no
             =accepted, told 250 three
             =ready
             !begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: DATA",
        ),
        offered(
            PIPELINING,
            "lost between the replies",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: DATA
             S: 250 ok
             S: 250 ok
             S: 250 ok
             S: 250 ok
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 250 one
             S: 550 two
             !closed
             =accepted, told 250 one
             =refused 550 two
             =unsent Closed 4.4.2: it closed the connection, while waiting for its reply to the content; it is unknown whether it took the message
             =over Closed 4.4.2: it closed the connection, while waiting for its reply to the content",
        ),
        offered(
            PIPELINING,
            "421 between the replies",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: DATA
             S: 250 ok
             S: 250 ok
             S: 250 ok
             S: 250 ok
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 250 one
             S: 421 bye
             =accepted, told 250 one
             =unsent Refused 4.0.0: 421 bye
             =unsent Refused 4.0.0: 421 bye
             =over Refused 4.0.0: 421 bye",
        ),
        offered(
            PIPELINING,
            "a reply too many",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: DATA
             S: 250 ok
             S: 250 ok
             S: 550 no
             S: 550 no
             S: 354 go
             C: A: b
             C:
             C: ..c
             C: .
             S: 250 one
             S: 250 two
             =accepted, told 250 one
             =refused 550 no
             =refused 550 no
             =ready
             =over Protocol 4.5.0: it answered nothing with: 250 two",
        ),
        offered(
            PIPELINING,
            "nobody accepted",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: DATA
             S: 250 ok
             S: 550 no
             S: 550 no
             S: 550 no
             S: 503 no valid recipients
             C: RSET
             S: 250 ok
             =refused 550 no
             =refused 550 no
             =refused 550 no
             =ready",
        ),
        offered(
            PIPELINING,
            "nobody accepted, and 354",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: DATA
             S: 250 ok
             S: 550 no
             S: 550 no
             S: 550 no
             S: 354 go
             =refused 550 no
             =refused 550 no
             =refused 550 no
             =over Protocol 4.5.0: it answered DATA for nobody with: 354 go",
        ),
        offered(
            PIPELINING,
            "DATA refused",
            "!begin
             C: MAIL FROM:<a@b>
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             C: DATA
             S: 250 ok
             S: 250 ok
             S: 250 ok
             S: 250 ok
             S: 451 later
             C: RSET
             S: 250 ok
             =refused 451 later
             =refused 451 later
             =refused 451 later
             =ready",
        ),
        offered(
            "CHUNKING;PIPELINING;BINARYMIME",
            "a chunk, each its own reply",
            "!begin
             C: MAIL FROM:<a@b> BODY=BINARYMIME
             C: RCPT TO:<c@d>
             C: RCPT TO:<e@f>
             C: RCPT TO:<g@h>
             S: 250 ok
             S: 250 ok
             S: 550 no
             S: 250 ok
             C: BDAT 12 LAST
             C: A: b
             C:
             C: .c
             S: 450 later
             S: 250 three
             =refused 450 later
             =refused 550 no
             =accepted 250 three
             =ready",
        )
        .message(|transaction| {
            three(transaction);
            transaction.body = Body::BinaryMime;
        }),
        offered(
            "CHUNKING;BINARYMIME",
            "a chunk refused for the last",
            "!begin
             C: MAIL FROM:<a@b> BODY=BINARYMIME
             S: 250 ok
             C: RCPT TO:<c@d>
             S: 250 ok
             C: RCPT TO:<e@f>
             S: 250 ok
             C: RCPT TO:<g@h>
             S: 550 no
             C: BDAT 12 LAST
             C: A: b
             C:
             C: .c
             S: 250 one
             S: 450 later
             C: RSET
             S: 250 ok
             =accepted 250 one
             =refused 450 later
             =refused 550 no
             =ready",
        )
        .message(|transaction| {
            three(transaction);
            transaction.body = Body::BinaryMime;
        }),
    ];
    let rows = rows.map(|row| {
        let has_message = row.name.starts_with("a chunk");
        let row = row.set(lmtp);
        if has_message { row } else { row.message(three) }
    });
    run(&rows);
}

/// Many recipients leave in flights, so that neither end's buffers fill.
#[test]
fn many_recipients_leave_in_flights() {
    for (offered, tail) in [
        ("PIPELINING", "DATA\r\n"),
        ("PIPELINING\r\n250-CHUNKING", "BDAT 12 LAST\r\n"),
    ] {
        let now = Instant::now();
        let mut session = Session::new(settings(|_| {}), Channel::Clear, now);
        let mut out = Vec::new();
        let preface = format!("220 mx\r\n250-mx\r\n250-{offered}\r\n250 X\r\n");
        session.receive(now, &mut preface.as_bytes(), &mut out);
        out.clear();
        let transaction = message(|transaction| {
            transaction.recipients = (0..250).map(|number| to(&format!("{number}@d"))).collect();
        });
        let mut flights = Vec::new();
        let mut effect = session.begin(now, &transaction, &mut out).unwrap();
        while !out.is_empty() {
            let flight = String::from_utf8(std::mem::take(&mut out)).unwrap();
            let commands = flight.lines().count();
            flights.push((commands, flight.ends_with(tail)));
            if effect != Effect::Input || flight.ends_with(tail) {
                break;
            }
            let replies = "250 ok\r\n".repeat(commands);
            effect = session.receive(now, &mut replies.as_bytes(), &mut out);
        }
        assert_eq!(flights, [(101, false), (100, false), (51, true)], "{tail}");
    }
}

#[test]
fn mail_refused_for_many_ends_with_the_first_flight() {
    let now = Instant::now();
    let mut session = Session::new(settings(|_| {}), Channel::Clear, now);
    let mut out = Vec::new();
    let preface = "220 mx\r\n250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n";
    session.receive(now, &mut preface.as_bytes(), &mut out);
    let transaction = message(|transaction| {
        transaction.recipients = (0..250).map(|number| to(&format!("{number}@d"))).collect();
    });
    session.begin(now, &transaction, &mut out).unwrap();
    out.clear();
    let said = format!("550 not you\r\n{}", "503 MAIL first\r\n".repeat(100));
    let effect = session.receive(now, &mut said.as_bytes(), &mut out);
    let Effect::Finished(Outcome { recipients, after }) = effect else {
        panic!("{effect:?}")
    };
    assert_eq!(recipients.len(), 250);
    for outcome in &recipients {
        assert_eq!(shown_outcome(outcome), "=refused 550 not you");
    }
    assert!(after == After::Ready && out.is_empty());
}
