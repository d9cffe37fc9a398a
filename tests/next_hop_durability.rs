//! `--durability next-hop`: 250 means that the next hop has the message, or that the disk has it.

#![cfg(test)]

mod support;

use std::time::Duration;

use support::client::Reply;
use support::sending::{
    assert_no_report, greeted, only_report, queue, queued, relay, route, send, spooled, submit,
};
use support::sink::{Act, Gate, Point::*, Script};
use support::{Server, Setup, Sink, TEXT};

/// A relay of this kind that gives the hop so long.
fn passing_on(target: &str, timeout: &str) -> Setup {
    relay(target)
        .flag("--durability", "next-hop")
        .flag("--next-hop-timeout", timeout)
}

/// Submits a message to these mailboxes of `hop.test`; the reply.
fn submit_to(server: &Server, users: &[&str]) -> Reply {
    let to: Vec<String> = users
        .iter()
        .map(|user| format!("<{user}@hop.test>"))
        .collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    submit(&mut greeted(server.tcp()), "<alice@home.test>", &to, TEXT)
}

#[track_caller]
fn assert_nothing_was_kept(server: &Server) {
    let scrape = server.scrape();
    assert_eq!((spooled(&scrape), queued(&scrape)), (0, 0));
    let list = queue(server, &["list"]).succeeded().out;
    assert_eq!(list, "queue is empty\n");
    assert_no_report(server);
}

/// The hop's word is our word: nothing before it, and nothing on disk behind it.
#[test]
fn the_250_follows_the_hops_own() {
    for script in [
        Script::smtp(),
        Script::smtp().without("CHUNKING"),
        Script::bare(),
    ] {
        let gate = Gate::default();
        let sink = Sink::start(script.at(EndOfData, Act::Hold(gate.clone())));
        let server = passing_on(&sink.target(), "60s").start();
        let mut client = greeted(server.tcp());
        client.send("MAIL FROM:<alice@home.test>\r\nRCPT TO:<bob@hop.test>\r\nDATA\r\n");
        for code in [250, 250, 354] {
            client.expect(code);
        }
        client.send([TEXT, b".\r\n"].concat());
        let arrived = sink.arrived(1);
        assert_eq!(arrived[0].parts().1, TEXT);
        assert!(
            client.silent_for(Duration::from_millis(50)),
            "a reply before the hop's"
        );
        gate.open();
        client.reply().begins("250 2.0.0");
        assert_nothing_was_kept(&server);
        // And the dialogue goes on.
        client
            .deliver("alice@home.test", &["bob@hop.test"], TEXT)
            .begins("250 2.0.0");
        client.quit();
        assert_eq!(sink.messages(2).len(), 2);
        assert_nothing_was_kept(&server);
    }
}

#[test]
fn over_lmtp_as_well() {
    let sink = Sink::start(Script::lmtp());
    let server = passing_on(&sink.target_by("lmtp"), "60s").start();
    submit_to(&server, &["a", "b"]).begins("250 2.0.0");
    assert_eq!(sink.only().taken_for, ["a@hop.test", "b@hop.test"]);
    assert_nothing_was_kept(&server);
}

/// A hop that does not take it now: the disk does, and the message is sent on later.
#[test]
fn without_the_hops_word_the_disk_is_asked() {
    let rows = [
        ("greeting 421", Greeting, Some(Act::from("421 4.3.2 busy"))),
        ("closed at once", Greeting, Some(Act::Close)),
        ("MAIL 451", Mail, Some("451 4.3.0 sorry".into())),
        ("RCPT 450", Rcpt, Some("450 4.2.0 greylisted".into())),
        ("end 452", EndOfData, Some("452 4.3.1 full".into())),
        ("end closed", EndOfData, Some(Act::Close)),
        // Silent for longer than the sender waits.
        ("no greeting", Greeting, None),
        ("no reply to EHLO", Ehlo, None),
        ("no reply to RCPT", Rcpt, None),
        ("no reply to the end", EndOfData, None),
    ];
    for (name, point, act) in rows {
        let gate = Gate::default();
        let timeout = if act.is_some() { "60s" } else { "200ms" };
        let act = act.unwrap_or_else(|| Act::Hold(gate.clone()));
        let sink = Sink::start(Script::smtp().at(point.first(1), act));
        let server = passing_on(&sink.target(), timeout).start();
        let reply = submit_to(&server, &["bob"]);
        assert_eq!(reply.code, 250, "{name}: {reply:?}");
        assert_eq!(spooled(&server.scrape()), 1, "{name}");
        gate.open();
        assert_eq!(sink.messages(1)[0].parts().1, TEXT, "{name}");
        server.await_delivery();
        // The word that came too late may be known or not: at least once is promised.
        let taken = sink.books(|books| books.taken().len());
        let taken_max = if name == "no reply to the end" { 2 } else { 1 };
        assert!((1..=taken_max).contains(&taken), "{name}: {taken}");
        assert_no_report(&server);
    }
}

#[test]
fn a_hop_that_is_down_is_waited_for_on_disk() {
    let mut sink = Sink::asleep();
    let server = passing_on(&sink.target(), "60s").start();
    for _ in 0..5 {
        submit_to(&server, &["bob"]).begins("250 2.0.0");
    }
    assert_eq!(spooled(&server.scrape()), 5);
    sink.wake(Script::smtp());
    assert_eq!(sink.messages(5).len(), 5);
    server.await_delivery();
}

/// What the hop refuses for good, the sender hears itself; there is nobody else to tell.
#[test]
fn a_refusal_is_the_senders() {
    let rows = [
        (
            "MAIL",
            Script::smtp().at(Mail, "553 5.1.8 not from you"),
            "5.1.8",
            "not from you",
        ),
        (
            "RCPT",
            Script::smtp().at(Rcpt, "550 5.1.1 nobody here"),
            "5.1.1",
            "nobody here",
        ),
        (
            "end",
            Script::smtp().at(EndOfData, "554 5.7.1 spam"),
            "5.7.1",
            "spam",
        ),
        (
            "DATA",
            Script::smtp().without("CHUNKING").at(Data, "554 5.7.1 no"),
            "5.7.1",
            "no",
        ),
        ("SIZE", Script::smtp().with("SIZE 20"), "5.3.4", ""),
    ];
    for (name, script, status, words) in rows {
        let sink = Sink::start(script);
        let server = passing_on(&sink.target(), "60s").start();
        let reply = submit_to(&server, &["bob"]);
        assert!((500..600).contains(&reply.code), "{name}: {reply:?}");
        let text = reply.lines.join(" ");
        assert!(
            text.starts_with(status) && text.contains(words),
            "{name}: {reply:?}"
        );
        assert_nothing_was_kept(&server);
        assert_eq!(sink.books(|books| books.taken().len()), 0, "{name}");
    }
}

/// One reply stands for all recipients: who was refused while others were taken is told of by a report.
#[test]
fn recipients_of_several_fates() {
    let later = Script::smtp().at(Rcpt.of("b@hop.test").first(1), "450 4.2.0 greylisted");
    let sink = Sink::start(later.at(Rcpt.of("c@hop.test"), "550 5.1.1 nobody here"));
    let server = passing_on(&sink.target(), "60s").start();
    submit_to(&server, &["a", "b", "c"]).begins("250 2.0.0");
    let messages = sink.messages(2);
    assert_eq!(messages[0].taken_for, ["a@hop.test"]);
    assert_eq!(messages[1].taken_for, ["b@hop.test"]);
    let report = only_report(&server);
    assert_eq!(report.recipients.len(), 1);
    assert_eq!(report.of("c@hop.test").get("Status"), "5.1.1");
    server.await_delivery();
    assert_eq!(sink.books(|books| books.messages.len()), 2);
}

/// Two hops: what one has is not asked of it again because the other has not.
#[test]
fn recipients_of_several_hops() {
    let one = Sink::start(Script::smtp());
    let mut two = Sink::asleep();
    let server = passing_on(&one.target(), "60s")
        .also("--route", route("two.test", &two))
        .start();
    let to = ["<a@hop.test>", "<b@two.test>"];
    submit(&mut greeted(server.tcp()), "<alice@home.test>", &to, TEXT).begins("250 2.0.0");
    two.wake(Script::smtp());
    assert_eq!(two.only().taken_for, ["b@two.test"]);
    server.await_delivery();
    assert_eq!(one.only().taken_for, ["a@hop.test"]);
}

/// The 250 of the fallback is as good as that of `--durability disk`.
#[test]
fn what_fell_back_outlives_sigkill() {
    type Row = (&'static str, fn() -> Sink, &'static str);
    let rows: [Row; 2] = [
        ("down", Sink::asleep, "60s"),
        (
            "silent",
            || Sink::start(Script::smtp().at(EndOfData, Act::Silence)),
            "200ms",
        ),
    ];
    for (name, start, timeout) in rows {
        let mut sink = start();
        let server = passing_on(&sink.target(), timeout)
            .flag("--retry-schedule", "1h")
            .start();
        submit_to(&server, &["bob"]).begins("250 2.0.0");
        let setup = server.kill();
        match name {
            "down" => sink.wake(Script::smtp()),
            _ => sink.play(Script::smtp()),
        }
        let server = setup.start();
        queue(&server, &["retry", "--all"]).succeeded();
        assert_eq!(sink.messages(1)[0].taken_for, ["bob@hop.test"], "{name}");
        server.await_delivery();
    }
}

/// A Maildir is no hop: what goes there is on disk before its 250.
#[test]
fn mail_for_a_mailbox_is_committed_as_ever() {
    let sink = Sink::asleep();
    let server = passing_on(&sink.target(), "60s").start();
    send(&server, &["carol@home.test"], TEXT);
    assert_eq!(spooled(&server.scrape()), 1);
    assert_eq!(server.maildir("home.test", "carol").messages().len(), 1);
}

/// A client that goes while the hop is asked was promised nothing; the hop may have it all the same.
#[test]
fn a_client_that_left_leaves_nothing_behind() {
    let gate = Gate::default();
    let sink = Sink::start(Script::smtp().at(EndOfData.first(1), Act::Hold(gate.clone())));
    let server = passing_on(&sink.target(), "60s").start();
    let mut client = greeted(server.tcp());
    client.send("MAIL FROM:<alice@home.test>\r\nRCPT TO:<bob@hop.test>\r\nBDAT 3 LAST\r\nx\r\n");
    sink.arrived(1);
    client.reset();
    gate.open();
    submit_to(&server, &["bob"]).begins("250 2.0.0");
    server.await_delivery();
    let list = queue(&server, &["list"]).succeeded().out;
    assert_eq!(list, "queue is empty\n");
}

/// With many at a time each reply belongs to its own message.
#[test]
fn replies_are_not_mixed_up() {
    let script = Script::smtp().at(Rcpt.of("never@hop.test"), "550 5.1.1 nobody here");
    let sink = Sink::start(script);
    let server = passing_on(&sink.target(), "60s")
        .flag("--shards", "2")
        .start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for (user, class) in [("bob", 2), ("never", 5)].repeat(10) {
                    let reply = submit_to(&server, &[user]);
                    assert_eq!(reply.code / 100, class, "{user}: {reply:?}");
                }
            });
        }
    });
    assert_eq!(sink.messages(80).len(), 80);
    assert_nothing_was_kept(&server);
}
