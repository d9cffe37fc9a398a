//! Dialogues, whole and cut, without a connection.

use super::*;
use crate::sink::Counts;

fn terms(protocol: Protocol, hidden: &[Extension]) -> Arc<Terms> {
    Arc::new(Terms::new(protocol, Extensions::all_but(hidden)))
}

/// What a dialogue came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    replies: String,
    stages: Vec<&'static str>,
    last: Event,
    counts: Counts,
}

/// Plays `input` in pieces of `piece_octets`; `refusals` are answered at their stage.
fn play(
    terms: &Arc<Terms>,
    refusals: &[(Stage, &str)],
    input: &[u8],
    piece_octets: usize,
) -> Outcome {
    let refusals: Vec<(Stage, Refusal)> = refusals
        .iter()
        .map(|(stage, text)| (*stage, Refusal::reply(text).unwrap()))
        .collect();
    let counts = Cells::default();
    let mut dialogue = Dialogue::new(Arc::clone(terms), Channel::Clear);
    let (mut out, mut stages, mut held) = (Vec::new(), Vec::new(), Vec::new());
    let mut last = Event::Input;
    // The greeting waits for nothing.
    for piece in std::iter::once(&b""[..]).chain(input.chunks(piece_octets)) {
        held.extend_from_slice(piece);
        let mut left = held.as_slice();
        loop {
            last = dialogue.receive(&mut left, &counts, &mut out);
            let Event::Judge(stage) = last else { break };
            stages.push(stage.label());
            let refusal = refusals.iter().find(|(at, _)| *at == stage);
            let answer = refusal.map_or(Answer::Grant, |(_, refusal)| Answer::Refuse(refusal));
            let _ = dialogue.answer(answer, &counts, &mut out);
        }
        held = left.to_vec();
        if last != Event::Input {
            break;
        }
    }
    Outcome {
        replies: String::from_utf8(out).unwrap(),
        stages,
        last,
        counts: Counts::of([&counts]),
    }
}

/// The codes of all replies, the last line of each, behind the greeting's.
fn codes(outcome: &Outcome) -> Vec<&str> {
    outcome
        .replies
        .lines()
        .filter(|line| line.as_bytes()[3] == b' ')
        .map(|line| &line[..3])
        .skip(1)
        .collect()
}

type Row = (
    &'static str,
    &'static [(Stage, &'static str)],
    &'static [u8],
    &'static [&'static str],
    // messages, recipients, octets, protocol errors
    [u64; 4],
);

#[rustfmt::skip] // a row keeps its lines
const ROWS: &[Row] = &[
    (
        "a message by DATA",
        &[],
        b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n..x\r\n.\r\nQUIT\r\n",
        &["250", "250", "250", "250", "354", "250", "221"],
        [1, 2, 4, 0],
    ),
    (
        "a message by BDAT in two chunks, then another",
        &[],
        b"EHLO a\r\nMAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<a@b>\r\nBDAT 3\r\n.\r\nBDAT 2 LAST\r\n\r\n\
          MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 0 LAST\r\nQUIT\r\n",
        &["250", "250", "250", "250", "250", "250", "250", "250", "221"],
        [2, 2, 5, 0],
    ),
    (
        "nothing before EHLO, nothing out of order",
        &[],
        b"MAIL FROM:<>\r\nEHLO a\r\nRCPT TO:<a@b>\r\nDATA\r\nMAIL FROM:<>\r\nDATA\r\nMAIL FROM:<>\r\n\
          RSET\r\nRCPT TO:<a@b>\r\nNOOP\r\nVRFY a\r\nHELP\r\nEXPN a\r\nFOO\r\nQUIT\r\n",
        &["503", "250", "503", "503", "250", "503", "503", "250", "503", "250", "252", "214", "502",
          "500", "221"],
        [0, 0, 0, 8],
    ),
    (
        "a stray chunk is read past wherever it comes, and changes nothing",
        &[],
        b"BDAT 6\r\nQUIT\r\nMAIL FROM:<>\r\nEHLO a\r\nMAIL FROM:<>\r\nBDAT 6 LAST\r\nQUIT\r\nRCPT TO:<a@b>\r\n\
          DATA\r\n.\r\nQUIT\r\n",
        &["503", "503", "250", "250", "503", "250", "354", "250", "221"],
        [1, 1, 0, 3],
    ),
    (
        "RCPT and DATA do not follow BDAT",
        &[],
        b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 1\r\nxRCPT TO:<a@b>\r\nDATA\r\nBDAT 1 LAST\r\nxQUIT\r\n",
        &["250", "250", "250", "250", "503", "503", "250", "221"],
        [1, 1, 2, 2],
    ),
    (
        "BINARYMIME is not for DATA",
        &[],
        b"EHLO a\r\nMAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<a@b>\r\nDATA\r\nBDAT 0 LAST\r\n",
        &["250", "250", "250", "503", "250"],
        [1, 1, 0, 1],
    ),
    (
        "SMTPUTF8 where it was asked for",
        &[],
        "EHLO a\r\nMAIL FROM:<\u{fc}@b>\r\nMAIL FROM:<\u{fc}@b> SMTPUTF8\r\nRCPT TO:<\u{fc}@b>\r\nRSET\r\n\
         MAIL FROM:<>\r\nRCPT TO:<\u{fc}@b>\r\n"
            .as_bytes(),
        &["250", "550", "250", "250", "250", "250", "553"],
        [0, 0, 0, 2],
    ),
    (
        "AUTH takes whoever comes, once",
        &[],
        b"EHLO a\r\nAUTH PLAIN\r\n*\r\nAUTH LOGIN\r\ndQ==\r\n!\r\nAUTH XX\r\nAUTH PLAIN AHUAcA==\r\nAUTH PLAIN AHUAcA==\r\n",
        &["250", "334", "501", "334", "334", "501", "504", "235", "503"],
        [0, 0, 0, 3],
    ),
    (
        "AUTH not within a transaction",
        &[],
        b"EHLO a\r\nMAIL FROM:<>\r\nAUTH PLAIN AHUAcA==\r\nRCPT TO:<a@b>\r\n",
        &["250", "250", "503", "250"],
        [0, 0, 0, 1],
    ),
    (
        "a lone LF ends no command",
        &[],
        b"EHLO a\nEHLO a\r\nNOOP\n\r\n",
        &["500", "250", "500", "500"],
        [0, 0, 0, 3],
    ),
    (
        "a refused greeting leaves QUIT alone",
        &[(Stage::Connect, "554 5.3.2 not now")],
        b"EHLO a\r\nMAIL FROM:<>\r\nQUIT\r\n",
        &["503", "503", "221"],
        [0, 0, 0, 0],
    ),
    (
        "a refused EHLO can be followed by nothing but another",
        &[(Stage::Ehlo, "550 5.7.1 not you")],
        b"EHLO a\r\nHELO a\r\nMAIL FROM:<>\r\nQUIT\r\n",
        &["550", "550", "503", "221"],
        [0, 0, 0, 1],
    ),
    (
        "a refused STARTTLS leaves the session in clear",
        &[(Stage::StartTls, "454 4.7.0 no TLS")],
        b"EHLO a\r\nSTARTTLS\r\nMAIL FROM:<>\r\nQUIT\r\n",
        &["250", "454", "250", "221"],
        [0, 0, 0, 0],
    ),
    (
        "a refused AUTH can be tried again",
        &[(Stage::Auth, "535 5.7.8 no")],
        b"EHLO a\r\nAUTH PLAIN AHUAcA==\r\nAUTH LOGIN dQ==\r\ncA==\r\nQUIT\r\n",
        &["250", "535", "334", "535", "221"],
        [0, 0, 0, 0],
    ),
    (
        "a refused MAIL makes the rest of its group pointless, not wrong",
        &[(Stage::Mail, "451 4.3.0 later")],
        b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nBDAT 5 LAST\r\nQUIT\r\nRSET\r\nDATA\r\nQUIT\r\n",
        &["250", "451", "503", "503", "503", "500", "250", "503", "221"],
        [0, 0, 0, 2],
    ),
    (
        "with all recipients refused there is no data",
        &[(Stage::Rcpt, "450 4.2.0 busy")],
        b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nBDAT 4 LAST\r\nQUITRSET\r\nMAIL FROM:<>\r\nQUIT\r\n",
        &["250", "250", "450", "503", "503", "250", "250", "221"],
        [0, 0, 0, 0],
    ),
    (
        "a refused DATA ends the transaction",
        &[(Stage::Data, "451 4.3.0 later")],
        b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nRSET\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n\
          BDAT 4\r\nQUITBDAT 4 LAST\r\nQUITRSET\r\nQUIT\r\n",
        &["250", "250", "250", "451", "250", "250", "250", "451", "503", "250", "221"],
        [0, 0, 0, 0],
    ),
    (
        "refused content is no message",
        &[(Stage::Content, "554 5.6.0 no")],
        b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nx\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n\
          BDAT 4 LAST\r\nQUITQUIT\r\n",
        &["250", "250", "250", "354", "554", "250", "250", "554", "221"],
        [0, 0, 0, 0],
    ),
    (
        "behind a refused QUIT nothing is read",
        &[(Stage::Quit, "500 5.5.0 stay")],
        b"EHLO a\r\nQUIT\r\nNOOP\r\n",
        &["250", "500"],
        [0, 0, 0, 0],
    ),
    (
        "behind 421 nothing is read",
        &[(Stage::Rcpt, "421 4.3.2 bye")],
        b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nNOOP\r\n",
        &["250", "250", "421"],
        [0, 0, 0, 0],
    ),
];

#[test]
fn replies_and_counts_are_the_same_however_the_input_is_cut() {
    let terms = terms(Protocol::Smtp, &[]);
    for (name, refusals, input, expected, [messages, recipients, octets, errors]) in ROWS {
        let whole = play(&terms, refusals, input, input.len());
        assert_eq!(codes(&whole), *expected, "{name}: {}", whole.replies);
        let counts = &whole.counts;
        let counted = [counts.messages, counts.recipients, counts.octets];
        assert_eq!(counted, [*messages, *recipients, *octets], "{name}");
        assert_eq!(counts.protocol_errors, *errors, "{name}");
        for (stage, _) in *refusals {
            let met = whole.stages.iter().filter(|met| **met == stage.label());
            assert_eq!(*counts.refused.of(*stage), met.count() as u64, "{name}");
        }
        for piece_octets in 1..=7 {
            let cut = play(&terms, refusals, input, piece_octets);
            assert_eq!(cut, whole, "{name}, by {piece_octets}");
        }
    }
}

#[test]
fn each_reply_asks_at_its_stage() {
    let input = b"EHLO a\r\nAUTH PLAIN AHUAcA==\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<a@b>\r\n\
          DATA\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 1\r\nxBDAT 1 LAST\r\nxNOOP\r\nQUIT\r\n";
    let outcome = play(&terms(Protocol::Smtp, &[]), &[], input, input.len());
    #[rustfmt::skip] // a transaction a line
    let expected = [
        "connect", "ehlo", "auth",
        "mail", "rcpt", "rcpt", "data", "content",
        "mail", "rcpt", "data", "data", "content",
        "quit",
    ];
    assert_eq!(outcome.stages, expected);
    assert_eq!(outcome.last, Event::Close);
    assert_eq!(outcome.counts.sessions_quit, 1);
    assert_eq!(outcome.counts.authentications, 1);
}

#[test]
fn what_is_hidden_is_refused() {
    #[rustfmt::skip] // a row a line
    let rows: &[(Extension, &[u8], &str)] = &[
        (Extension::Size, b"MAIL FROM:<> SIZE=1\r\n", "555"),
        (Extension::EightBitMime, b"MAIL FROM:<> BODY=8BITMIME\r\n", "555"),
        (Extension::EightBitMime, b"MAIL FROM:<> SMTPUTF8\r\n", "555"),
        (Extension::SmtpUtf8, b"MAIL FROM:<> SMTPUTF8\r\n", "555"),
        (Extension::BinaryMime, b"MAIL FROM:<> BODY=BINARYMIME\r\n", "555"),
        (Extension::Dsn, b"MAIL FROM:<> RET=HDRS\r\n", "555"),
        (Extension::Dsn, b"MAIL FROM:<>\r\nRCPT TO:<a@b> NOTIFY=NEVER\r\n", "555"),
        (Extension::Auth, b"AUTH PLAIN AHUAcA==\r\n", "502"),
        (Extension::Auth, b"MAIL FROM:<> AUTH=<>\r\n", "555"),
        (Extension::StartTls, b"STARTTLS\r\n", "502"),
        (Extension::Chunking, b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 1\r\n", "502"),
    ];
    for (hidden, commands, refusal) in rows {
        let input = [b"EHLO a\r\n", *commands].concat();
        let listed = play(&terms(Protocol::Smtp, &[]), &[], &input, input.len());
        assert_eq!(listed.counts.protocol_errors, 0, "{hidden:?}");
        let outcome = play(&terms(Protocol::Smtp, &[*hidden]), &[], &input, input.len());
        assert_eq!(codes(&outcome).last(), Some(refusal), "{hidden:?}");
        assert_eq!(outcome.counts.protocol_errors, 1, "{hidden:?}");
    }
    let hidden = [Extension::EnhancedStatusCodes];
    let outcome = play(&terms(Protocol::Smtp, &hidden), &[], b"NOOP\r\n", 6);
    assert!(outcome.replies.ends_with("\r\n250 OK\r\n"));
}

#[test]
fn starttls_starts_over_and_runs_nothing_from_before() {
    let terms = terms(Protocol::Smtp, &[]);
    let counts = Cells::default();
    let mut out = Vec::new();
    let mut dialogue = Dialogue::new(Arc::clone(&terms), Channel::Clear);
    let mut read = |dialogue: &mut Dialogue, mut input: &[u8]| {
        out.clear();
        loop {
            match dialogue.receive(&mut input, &counts, &mut out) {
                Event::Judge(_) => {
                    let _ = dialogue.answer(Answer::Grant, &counts, &mut out);
                }
                event @ (Event::Input | Event::Secure | Event::Close) => {
                    return (event, String::from_utf8(out.clone()).unwrap());
                }
            }
        }
    };
    let (event, replies) = read(&mut dialogue, b"EHLO a\r\nSTARTTLS\r\n");
    assert_eq!(event, Event::Secure);
    assert!(replies.contains("250-STARTTLS\r\n"), "{replies}");
    dialogue.secured();
    let (_, replies) = read(&mut dialogue, b"MAIL FROM:<>\r\nEHLO a\r\nSTARTTLS\r\n");
    assert!(replies.starts_with("503 "), "{replies}");
    assert!(!replies.contains("STARTTLS"), "{replies}");
    assert!(
        replies.ends_with("503 5.5.1 Bad sequence of commands\r\n"),
        "{replies}"
    );

    let mut dialogue = Dialogue::new(Arc::clone(&terms), Channel::Clear);
    let (event, replies) = read(&mut dialogue, b"EHLO a\r\nSTARTTLS\r\nNOOP\r\n");
    assert_eq!(event, Event::Close);
    assert!(
        replies.ends_with("220 2.0.0 Ready to start TLS\r\n"),
        "{replies}"
    );
    assert_eq!(Counts::of([&counts]).protocol_errors, 3);
}

#[test]
fn lmtp_answers_for_each_recipient() {
    let terms = terms(Protocol::Lmtp, &[]);
    let input =
        b"EHLO a\r\nHELO a\r\nLHLO\r\nlhlo a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\n\
          DATA\r\nx\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 1 LAST\r\nxQUIT\r\n";
    let outcome = play(&terms, &[], input, input.len());
    #[rustfmt::skip] // a transaction a line
    let expected = [
        "500", "500", "501", "250",
        "250", "250", "250", "354", "250", "250",
        "250", "250", "250", "221",
    ];
    assert_eq!(codes(&outcome), expected, "{}", outcome.replies);
    let counts = &outcome.counts;
    assert_eq!(
        (counts.messages, counts.recipients, counts.octets),
        (2, 3, 4)
    );
    assert_eq!(play(&terms, &[], input, 1), outcome);

    let outcome = play(
        &terms,
        &[(Stage::Content, "452 4.2.2 full")],
        input,
        input.len(),
    );
    assert_eq!(*outcome.counts.refused.of(Stage::Content), 3);
    assert_eq!(outcome.counts.messages, 0);
}

#[test]
fn a_line_too_long_ends_the_dialogue() {
    let terms = terms(Protocol::Smtp, &[]);
    let line = |octets: usize| [vec![b'x'; octets - 2], b"\r\n".to_vec()].concat();
    let longest = play(&terms, &[], &line(LINE_OCTETS_MAX), 1000);
    assert_eq!(codes(&longest), ["500"]);
    assert_eq!(longest.last, Event::Input);
    for piece_octets in [1000, 16_384] {
        let outcome = play(&terms, &[], &line(LINE_OCTETS_MAX + 1), piece_octets);
        assert_eq!(codes(&outcome), ["500"]);
        assert_eq!(outcome.last, Event::Close);
        let endless = play(&terms, &[], &[b'x'; 20_000], piece_octets);
        assert_eq!((codes(&endless), endless.last), (vec!["500"], Event::Close));
    }
}
