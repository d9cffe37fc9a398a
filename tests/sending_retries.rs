//! What is not taken at once: tried again, told of in the queue, kept over SIGKILL, and given up in the end.

#![cfg(test)]

mod support;

use support::sending::{
    Shown, Tally, assert_no_report, attempt, attempts, deferred, only_report, queue, relay,
    reports, route, send, send_as, shown,
};
use support::sink::{Act, Point::*, Script, When};
use support::{Sink, TEXT, eventually};

const BOB: &str = "bob@hop.test";

/// Every way to fail once: the message is kept, tried again, and taken then.
#[test]
fn what_fails_for_now_is_tried_again() {
    let close = || Act::Close;
    let garbage = || Act::from("what is SMTP?");
    // Where, what is done there once, and what the log says of it.
    let rows: Vec<(&str, When, Act, &str)> = vec![
        (
            "greeting 421",
            Greeting.first(1),
            "421 4.3.2 busy".into(),
            "busy",
        ),
        ("greeting garbage", Greeting.first(1), garbage(), ""),
        ("closed at once", Greeting.first(1), close(), ""),
        ("EHLO 421", Ehlo.first(1), "421 4.3.2 busy".into(), "busy"),
        ("EHLO 451", Ehlo.first(1), "451 4.3.0 sorry".into(), "sorry"),
        ("EHLO closed", Ehlo.first(1), close(), ""),
        ("EHLO garbage", Ehlo.first(1), garbage(), ""),
        ("MAIL 421", Mail.first(1), "421 4.3.2 busy".into(), "busy"),
        ("MAIL 451", Mail.first(1), "451 4.3.0 sorry".into(), "sorry"),
        ("MAIL closed", Mail.first(1), close(), ""),
        ("RCPT 421", Rcpt.first(1), "421 4.3.2 busy".into(), "busy"),
        (
            "RCPT 450",
            Rcpt.first(1),
            "450 4.2.0 greylisted".into(),
            "greylisted",
        ),
        ("RCPT closed", Rcpt.first(1), close(), ""),
        ("RCPT garbage", Rcpt.first(1), garbage(), ""),
        ("DATA 421", Data.first(1), "421 4.3.2 busy".into(), "busy"),
        ("DATA 451", Data.first(1), "451 4.3.0 sorry".into(), "sorry"),
        ("DATA closed", Data.first(1), close(), ""),
        (
            "end 421",
            EndOfData.first(1),
            "421 4.3.2 busy".into(),
            "busy",
        ),
        (
            "end 452",
            EndOfData.first(1),
            "452 4.3.1 full".into(),
            "full",
        ),
        ("end closed", EndOfData.first(1), close(), ""),
        ("end garbage", EndOfData.first(1), garbage(), ""),
    ];
    std::thread::scope(|scope| {
        for part in rows.chunks(6) {
            scope.spawn(move || {
                for (name, when, act, reason) in part {
                    // DATA and the final dot, which chunks would go past.
                    let script = Script::smtp().without("CHUNKING");
                    let sink = Sink::start(script.at(when.clone(), act.clone()));
                    let server = relay(&sink.target()).start();
                    send(&server, &[BOB], TEXT);
                    let message = sink.only();
                    let (_, content) = message.parts();
                    assert_eq!(content, TEXT, "{name}");
                    server.await_delivery();
                    assert_eq!(sink.books(|books| books.taken().len()), 1, "{name}");
                    let line = attempt(&server, BOB, "deferred");
                    assert!(line.reason.contains(reason), "{name}: {line:?}");
                    assert!(!line.reason.is_empty(), "{name}");
                    assert_no_report(&server);
                    let deferred = Tally::of(server).count(BOB, "deferred");
                    assert_eq!(deferred, 1, "{name}");
                }
            });
        }
    });
}

/// A host that greets with 554 takes no mail (RFC 5321 §3.1, RFC 7504 §3); one that greets with 421 or 450 takes none
/// now.
#[test]
fn a_greeting_decides_by_its_class() {
    let sink = Sink::start(Script::smtp().at(Greeting, "554 5.7.1 go away"));
    let server = relay(&sink.target()).start();
    send(&server, &[BOB], TEXT);
    let report = only_report(&server);
    let told = report.of(BOB);
    assert_eq!(
        (told.get("Action"), told.get("Status")),
        ("failed", "5.7.1")
    );
    assert!(told.get("Diagnostic-Code").contains("go away"));
    server.await_delivery();

    for greeting in ["421 4.3.2 later", "450 4.3.2 later"] {
        let sink = Sink::start(Script::smtp().at(Greeting.first(1), greeting));
        let server = relay(&sink.target()).start();
        send(&server, &[BOB], TEXT);
        assert!(attempt(&server, BOB, "deferred").reason.contains("later"));
        sink.only();
        server.await_delivery();
        assert_no_report(&server);
    }
}

/// RFC 5321 §4.1.1.4: without the reply nobody knows, and so it is sent once more.
#[test]
fn a_message_whose_reply_never_came_is_kept_and_sent_again() {
    for chunking in [true, false] {
        let mut script = Script::smtp().at(EndOfData.first(1), Act::Close);
        if !chunking {
            script = script.without("CHUNKING");
        }
        let sink = Sink::start(script);
        let server = relay(&sink.target()).start();
        send(&server, &[BOB], TEXT);
        sink.only();
        let arrived = sink.arrived(2);
        assert_eq!(arrived[0].octets, arrived[1].octets);
        server.await_delivery();
        assert_eq!(sink.books(|books| books.messages.len()), 2);
    }
}

/// One message looks now and then whether the hop is back; that the others are too old does not wait for their turn.
#[test]
fn all_that_is_too_old_goes_back_though_its_hop_is_left_alone() {
    let sink = Sink::asleep();
    let server = relay(&sink.target())
        .flag("--queue-lifetime", "2s")
        .flag("--retry-schedule", "300ms")
        .start();
    for _ in 0..10 {
        send(&server, &[BOB], TEXT);
    }
    for report in reports(&server, 10) {
        assert_eq!(report.of(BOB).get("Status"), "4.4.7");
    }
    server.await_delivery();
}

/// Who goes elsewhere too does not wait for a hop that is left alone.
#[test]
fn a_hop_that_is_left_alone_keeps_no_retry_at_another() {
    let away = Sink::asleep();
    let busy = Sink::start(Script::smtp().at(Rcpt.first(3), "451 4.3.0 later"));
    let server = relay(&away.target())
        .also("--route", format!("busy.test={}", busy.target()))
        .flag("--retry-schedule", "200ms")
        .start();
    for _ in 0..5 {
        send(&server, &["a@away.test"], TEXT);
    }
    send(&server, &["a@away.test", "b@busy.test"], TEXT);
    assert_eq!(busy.only().taken_for, ["b@busy.test"]);
}

#[test]
fn a_hop_that_is_down_gets_its_mail_when_it_is_up() {
    let mut sink = Sink::asleep();
    let server = relay(&sink.target()).start();
    let id = send(&server, &[BOB], TEXT);
    let shown = shown(&server, &id, |shown| shown.attempts() >= 2);
    let (_, reason) = &shown.recipients()[BOB];
    assert!(reason.contains("refused"), "{reason}");
    sink.wake(Script::smtp());
    sink.only();
    server.await_delivery();
}

/// Of many recipients each has its own way, and none is served twice.
#[test]
fn one_recipient_of_three_is_refused_for_good() {
    let sink = Sink::start(Script::smtp().at(Rcpt.of("b@hop.test"), "550 5.1.1 nobody here"));
    let server = relay(&sink.target()).start();
    send(&server, &["a@hop.test", "b@hop.test", "c@hop.test"], TEXT);
    assert_eq!(sink.only().taken_for, ["a@hop.test", "c@hop.test"]);
    let report = only_report(&server);
    assert_eq!(report.recipients.len(), 1);
    let told = report.of("b@hop.test");
    assert_eq!(
        (told.get("Action"), told.get("Status")),
        ("failed", "5.1.1")
    );
    assert_eq!(told.get("Diagnostic-Code"), "smtp; 550 5.1.1 nobody here");
    server.await_delivery();
    assert_eq!(sink.books(|books| books.messages.len()), 1);
    assert!(
        attempt(&server, "b@hop.test", "bounced")
            .reason
            .contains("nobody here")
    );
}

/// More recipients than a hop takes at a time (RFC 5321 §4.5.3.1.10): the rest goes at once, not after a wait.
#[test]
fn too_many_recipients_go_in_several_transactions() {
    let rows = [
        (
            "452",
            Script::smtp().at(Rcpt.of("c@hop.test").first(1), "452 4.5.3 too many"),
        ),
        ("LIMITS", Script::smtp().with("LIMITS RCPTMAX=2")),
    ];
    for (name, script) in rows {
        let sink = Sink::start(script);
        let server = relay(&sink.target()).flag("--retry-schedule", "1h").start();
        send(&server, &["a@hop.test", "b@hop.test", "c@hop.test"], TEXT);
        let messages = sink.messages(2);
        assert_eq!(
            messages[0].taken_for,
            ["a@hop.test", "b@hop.test"],
            "{name}"
        );
        assert_eq!(messages[1].taken_for, ["c@hop.test"], "{name}");
        server.await_delivery();
    }
}

/// What the operator sees while a message is on its way, and how it is hurried.
#[test]
fn the_queue_tells_what_happened_to_whom_and_what_comes_next() {
    let script = Script::smtp()
        .at(Rcpt.of("later@hop.test").first(1), "450 4.2.0 greylisted")
        .at(Rcpt.of("never@hop.test"), "550 5.1.1 nobody here");
    let sink = Sink::start(script);
    let server = relay(&sink.target()).flag("--retry-schedule", "1h").start();
    let to = ["now@hop.test", "later@hop.test", "never@hop.test"];
    let id = send(&server, &to, TEXT);
    let shown = deferred(&server, &id, 1);
    assert!(shown.has_next_attempt(), "{shown:#?}");
    let recipients = shown.recipients();
    for (to, state, reason) in [
        ("now@hop.test", "delivered", ""),
        ("later@hop.test", "deferred", "450 4.2.0 greylisted"),
        ("never@hop.test", "bounced", "550 5.1.1 nobody here"),
    ] {
        let (seen_state, seen_reason) = &recipients[to];
        assert_eq!(seen_state, state, "{to}");
        assert!(seen_reason.contains(reason), "{to}: {seen_reason}");
    }
    let text = queue(&server, &["show", &id]).succeeded().out;
    let mut rest = text.as_str();
    for part in [
        "state     deferred",
        "recipient now@hop.test",
        "delivered",
        "recipient later@hop.test",
        "450 4.2.0 greylisted",
        "next attempt ",
        "recipient never@hop.test",
        "550 5.1.1 nobody here",
    ] {
        let at = rest.find(part);
        let at = at.unwrap_or_else(|| panic!("{part:?} is not, in its place, in:\n{text}"));
        rest = &rest[at + part.len()..];
    }
    let list = queue(&server, &["list"]).succeeded().out;
    assert!(list.contains(&id) && list.contains("greylisted"), "{list}");

    queue(&server, &["retry", &id]).succeeded();
    assert_eq!(sink.messages(2)[1].taken_for, ["later@hop.test"]);
    server.await_delivery();
    let list = queue(&server, &["list"]).succeeded().out;
    assert_eq!(list, "queue is empty\n");
    let tally = Tally::of(server);
    let outcomes = to.map(|to| tally.count(to, "delivered"));
    assert_eq!(outcomes, [1, 1, 0]);
}

/// A message that is held does not leave, one that is removed never does.
#[test]
fn what_is_held_or_removed_does_not_leave() {
    let mut sink = Sink::asleep();
    let server = relay(&sink.target()).flag("--retry-schedule", "1h").start();
    let [held, removed] = [(); 2].map(|()| send(&server, &[BOB], TEXT));
    for id in [&held, &removed] {
        deferred(&server, id, 1);
    }
    queue(&server, &["hold", &held]).succeeded();
    queue(&server, &["remove", &removed]).succeeded();
    sink.wake(Script::smtp());
    let all = queue(&server, &["retry", "--all"]).succeeded().out;
    assert_eq!(all, "0 messages will be tried now\n");
    sink.books(|books| assert_eq!(books.connections.len(), 0));
    queue(&server, &["release", &held]).succeeded();
    let message = sink.only();
    let (received, _) = message.parts();
    assert!(received.contains(&held), "{received}");
    server.await_delivery();
    assert_no_report(&server);
}

/// What was delivered before SIGKILL is known after it, and what was not is not lost.
#[test]
fn a_restart_sends_to_nobody_twice() {
    let sink = Sink::start(Script::smtp().at(Rcpt.of("b@hop.test"), "450 4.2.0 greylisted"));
    let mut other = Sink::asleep();
    let server = relay(&sink.target())
        .also("--route", route("other.test", &other))
        .flag("--retry-schedule", "1h")
        .start();
    let id = send(&server, &["a@hop.test", "b@hop.test", "c@other.test"], TEXT);
    assert_eq!(sink.only().taken_for, ["a@hop.test"]);
    let before = shown(&server, &id, |shown| {
        let states = shown.recipients().into_values().map(|(state, _)| state);
        let mut states: Vec<String> = states.collect();
        states.sort();
        states == ["deferred", "deferred", "delivered"]
    });
    // What is noted goes to disk with the next batch, which is this one's.
    send(&server, &["carol@home.test"], TEXT);
    let server = server.kill().start();
    let after = shown(&server, &id, |shown| shown.state() == "deferred");
    assert_eq!(after.recipients(), before.recipients());
    sink.play(Script::smtp());
    other.wake(Script::smtp());
    queue(&server, &["retry", "--all"]).succeeded();
    assert_eq!(other.only().taken_for, ["c@other.test"]);
    server.await_delivery();
    let mut taken: Vec<String> = sink.books(|books| {
        let messages = books.taken().into_iter();
        messages
            .flat_map(|message| message.taken_for.clone())
            .collect()
    });
    taken.sort();
    assert_eq!(taken, ["a@hop.test", "b@hop.test"]);
}

#[test]
fn what_is_too_old_goes_back() {
    let sink = Sink::start(Script::smtp().at(Rcpt.of(BOB), "451 4.3.0 never today"));
    let server = relay(&sink.target())
        .flag("--queue-lifetime", "400ms")
        .start();
    send(&server, &["a@hop.test", BOB], TEXT);
    let report = only_report(&server);
    assert_eq!(report.recipients.len(), 1);
    let told = report.of(BOB);
    assert_eq!(told.get("Action"), "failed");
    // RFC 3463 §3.5: delivery time expired. What the hop said last is the diagnosis.
    assert_eq!(told.get("Status"), "4.4.7");
    assert_eq!(told.get("Diagnostic-Code"), "smtp; 451 4.3.0 never today");
    server.await_delivery();
    let tally = Tally::of(server);
    assert!(tally.count(BOB, "deferred") >= 2);
    assert_eq!(tally.count(BOB, "bounced"), 1);
}

/// A hop that was never reached is no exception.
#[test]
fn what_never_reached_a_hop_goes_back_too() {
    let sink = Sink::asleep();
    let server = relay(&sink.target())
        .flag("--queue-lifetime", "300ms")
        .start();
    send(&server, &[BOB], TEXT);
    let report = only_report(&server);
    assert_eq!(report.of(BOB).get("Status"), "4.4.7");
    server.await_delivery();
}

#[test]
fn a_sender_is_told_once_that_its_message_is_late() {
    let mut sink = Sink::asleep();
    let server = relay(&sink.target())
        .flag("--delay-notice", "250ms")
        .start();
    let id = send(&server, &[BOB], TEXT);
    let report = only_report(&server);
    let told = report.of(BOB);
    assert_eq!(told.get("Action"), "delayed");
    assert!(told.get("Status").starts_with("4."), "{report:#?}");
    assert!(!told.get("Will-Retry-Until").is_empty(), "{report:#?}");
    // Later attempts say nothing more, before a restart and behind it.
    let attempts_so_far = shown(&server, &id, Shown::has_next_attempt).attempts();
    shown(&server, &id, |shown| shown.attempts() > attempts_so_far + 1);
    let server = server.kill().start();
    shown(&server, &id, |shown| shown.attempts() > attempts_so_far + 2);
    sink.wake(Script::smtp());
    sink.only();
    server.await_delivery();
    assert_eq!(reports(&server, 1).len(), 1);
}

#[test]
fn nobody_is_told_of_a_delay_that_is_not_to_be_told() {
    let rows: [(&str, &str, &str, &str); 3] = [
        ("never", "never", "<alice@home.test>", "<bob@hop.test>"),
        (
            "not wanted",
            "1ms",
            "<alice@home.test>",
            "<bob@hop.test> NOTIFY=FAILURE",
        ),
        ("to nobody", "1ms", "<>", "<bob@hop.test>"),
    ];
    for (name, delay_notice, from, to) in rows {
        let mut sink = Sink::asleep();
        let server = relay(&sink.target())
            .flag("--delay-notice", delay_notice)
            .start();
        let id = send_as(&server, from, &[to], TEXT);
        shown(&server, &id, |shown| shown.attempts() >= 3);
        sink.wake(Script::smtp());
        sink.only();
        server.await_delivery();
        let told = server.maildir("home.test", "alice").messages().len();
        assert_eq!(told, 0, "{name}");
    }
}

/// Nothing is left behind when a sender's message and the report about it can both go nowhere.
#[test]
fn a_report_that_is_refused_is_reported_to_nobody() {
    let sink = Sink::start(Script::smtp().at(Rcpt, "550 5.1.1 nobody here"));
    let server = relay(&sink.target()).start();
    send_as(&server, "<gone@hop.test>", &["<bob@hop.test>"], TEXT);
    eventually("the report is refused too", || {
        (attempts(&server, "gone@hop.test", "bounced") == 1).then_some(())
    });
    server.await_delivery();
    send_as(&server, "<>", &["<bob@hop.test>"], TEXT);
    eventually("a message of nobody's is refused", || {
        (attempts(&server, BOB, "bounced") == 2).then_some(())
    });
    server.await_delivery();
    let mails = sink.books(|books| {
        let commands = books.connections.iter().flat_map(|one| &one.commands);
        let mails = commands.filter(|line| line.starts_with("MAIL "));
        mails
            .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
            .collect::<Vec<_>>()
    });
    assert_eq!(mails, ["FROM:<gone@hop.test>", "FROM:<>", "FROM:<>"]);
}
