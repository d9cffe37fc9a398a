//! What the text and the JSON of a report hold.

#![cfg(test)]

mod made_up;

use std::fs;

use made_up::{Loop, comparison, nothing, run};
use ringpost_loadgen::measure::Stage;
use ringpost_loadgen::report::{json, table};

/// The line that begins with `start`, blanks made single.
#[track_caller]
fn line(text: &str, start: &str) -> String {
    let single = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines = text.lines().map(single);
    let found = lines.find(|line| line.starts_with(start));
    found.unwrap_or_else(|| panic!("no line {start:?} in\n{text}"))
}

#[track_caller]
fn assert_fits(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 120, "{line}");
        assert_eq!(line.trim_end(), line);
    }
    assert!(
        !text.contains(|letter: char| letter.is_control() && letter != '\n'),
        "{text:?}"
    );
    assert!(!text.contains("NaN"), "{text}");
}

#[test]
fn a_run_shows_every_stage_that_has_times() {
    let mut report = run(Loop::Open);
    report.cases[0]
        .figures
        .warnings
        .push("the load generator was the limit".to_owned());
    let text = table::render(&report);
    println!("{text}");
    assert_fits(&text);
    for stage in Stage::ALL {
        let row = line(&text, stage.title());
        assert_eq!(row.matches("20,000").count(), 1, "{row}");
        // Five times, each with its unit.
        let units = row
            .split(' ')
            .filter(|word| ["µs", "ms", "s"].contains(word));
        assert_eq!(units.count(), 5, "{row}");
    }
    let figures = &report.cases[0].figures;
    assert!(
        line(&text, "messages").contains(&format!("{:.0}", figures.messages_per_second / 1000.0))
    );
    assert!(line(&text, "handshakes").contains("(99.7 %)"), "{text}");
    assert!(
        line(&text, "load generator").contains("1 thread, the busiest for 42 %"),
        "{text}"
    );
    assert!(
        line(&text, "server CPU").contains("cores busy; memory 21.0 MiB before"),
        "{text}"
    );
    assert_eq!(
        line(&text, "3 ×"),
        "3 × reply 451, first: 451 4.3.0 Try again later"
    );
    assert_eq!(
        text.lines().last(),
        Some("WARNING: the load generator was the limit")
    );
}

#[test]
fn a_comparison_shows_cases_ratios_and_what_they_mean() {
    let mut report = comparison(Loop::Closed);
    for case in &mut report.cases[1..3] {
        case.figures
            .warnings
            .push("the load generator was the limit".to_owned());
    }
    let text = table::render(&report);
    println!("{text}");
    assert_fits(&text);
    for case in &report.cases {
        assert!(
            text.lines().any(|line| line.starts_with(&case.name)),
            "{}\n{text}",
            case.name
        );
    }
    let row = line(&text, "starttls · resumed · 1");
    assert!(row.contains("99.7 %"), "{row}");
    assert_eq!(
        row.matches('/').count(),
        4,
        "three times each of message and session: {row}"
    );
    assert!(line(&text, "plain · 1 ").contains(" – 3"), "{text}");
    let ratio = line(&text, "full handshake, 1 message");
    assert!(
        ratio.contains("0.95 (0.93–0.97) 1.05 (1.04–1.06) 1.06 1.11"),
        "{ratio}"
    );
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        flat.contains("resumed, 20 messages a session: no clear difference in sessions a second")
    );
    assert!(
        flat.ends_with(
            "WARNING: the load generator was the limit (starttls · full · 1; tls · full · 1)"
        ),
        "{text}"
    );
}

#[test]
fn an_open_loop_counts_from_when_messages_were_due() {
    let closed = table::render(&comparison(Loop::Closed));
    let open = table::render(&comparison(Loop::Open));
    assert!(!closed.contains("from due"), "{closed}");
    assert!(open.contains("message from due"), "{open}");
    assert_fits(&open);
    assert_ne!(
        line(&closed, "tls · full · 1 "),
        line(&open, "tls · full · 1 ")
    );
}

#[test]
fn nothing_measured_is_no_zero_time() {
    let text = table::render(&nothing());
    assert_fits(&text);
    let server = line(&text, "server its");
    assert_eq!(server, "server its CPU and memory were not watched");
    assert!(
        !text.contains("handshakes"),
        "no TLS, no handshakes: {text}"
    );
    let mut report = comparison(Loop::Closed);
    report.cases[0] = nothing().cases.remove(0);
    let text = table::render(&report);
    assert_eq!(line(&text, "plain · 1 "), "plain · 1 0 0 – – – – – 0");
}

#[test]
fn hostile_text_keeps_the_table_in_shape() {
    let mut report = comparison(Loop::Open);
    report.environment.command = format!("x\x1b[2J\r\n{}", "word ".repeat(60));
    report.cases[0].name = format!("{}\u{202e}\x07", "long name ".repeat(12));
    for (kind, error) in &mut report.cases[1].figures.errors {
        assert_eq!(kind, "reply 451");
        error.first = format!("451 \x1b]0;owned\x07{}", " words".repeat(50));
    }
    report.cases[2]
        .figures
        .warnings
        .push("line\nline".to_owned());
    assert_fits(&table::render(&report));
}

#[test]
fn json_has_every_figure() {
    let report = comparison(Loop::Open);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    json::write(&report, &path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{\n") && text.ends_with("}\n"));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["cases"].as_array().unwrap().len(), 10);
    let case = &value["cases"][1];
    assert_eq!(case["mode"], "starttls");
    assert_eq!(case["tickets"], "full");
    assert_eq!(case["rounds"].as_array().unwrap().len(), 3);
    let p99 = report.cases[1].figures.latency_us[&Stage::MessageDue].p99;
    assert_eq!(case["latency_us"]["message_due"]["p99"], p99);
    assert_eq!(value["ratios"][0]["sessions_per_second"]["pairs"], 3);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}
