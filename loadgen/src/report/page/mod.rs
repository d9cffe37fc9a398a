//! The report as one HTML file with its plots inside: no script, and nothing that is fetched.
//!
//! Invariants: whatever a command line, a server's reply or a name holds comes out as text; the page's own
//! policy forbids it to fetch anything.

mod plots;

use std::io;
use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::rows::{self, CaseRow};
use super::units::{NONE, digits, printable, time};
use super::words::{RATIO, circumstances, message_stage};
use super::{Case, Report, file};
use crate::measure::Stage;
use plots::Plot;

/// Writes the report to a file; `-` is standard output.
pub fn write(report: &Report, path: &Path) -> io::Result<()> {
    file::write(path, render(report).as_bytes())
}

/// The page.
pub fn render(report: &Report) -> String {
    let title = title(report);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    header {
                        p.program { "ringpost-loadgen" }
                        h1 { (title) }
                        (warnings(&report.cases))
                        (outcome(report))
                        div.environment { (pairs(&rows::environment(&report.environment))) }
                    }
                    (tables(report))
                    (section("Ratios", RATIO, &plots::ratios(&report.ratios)))
                    (section("Throughput", THROUGHPUT, &plots::throughput(&report.cases)))
                    (section("Server CPU", SERVER, &plots::server(&report.cases)))
                    @for (stage, plots) in plots::latency(&report.cases) {
                        (section(&latency_title(stage), LATENCY, &plots))
                    }
                    (section("Over time", OVER_TIME, &plots::over_time(&report.cases)))
                    (errors(&report.cases))
                    (how_to_read())
                }
            }
        }
    };
    page.into_string()
}

fn title(report: &Report) -> String {
    match report.cases.as_slice() {
        [case] => printable(&case.name).into_owned(),
        _ if report.ratios.is_empty() => "Cases beside each other".to_owned(),
        _ => "Negotiated against implicit TLS".to_owned(),
    }
}

fn latency_title(stage: Option<Stage>) -> String {
    match stage {
        Some(stage) => format!("Latency: {}", stage.title()),
        None => "Latency".to_owned(),
    }
}

fn warnings(cases: &[Case]) -> Markup {
    let warnings = rows::warnings(cases);
    html! {
        @if !warnings.is_empty() {
            section.warnings aria-label="Warnings" {
                h2 { "Before you believe a figure" }
                ul {
                    @for (warning, about) in warnings {
                        li {
                            (warning)
                            @if !about.is_empty() { span.about { " " (about.join("; ")) } }
                        }
                    }
                }
            }
        }
    }
}

/// What it came to, at a glance.
fn outcome(report: &Report) -> Markup {
    match report.cases.as_slice() {
        [case] => {
            let figures = &case.figures;
            let message = message_stage(case.falls_due());
            let times = figures.latency_us.get(&message);
            let server = figures.server.as_ref();
            html! {
                div.tiles {
                    (tile("messages a second", &digits(figures.messages_per_second)))
                    (tile("sessions a second", &digits(figures.sessions_per_second)))
                    @if let Some(times) = times {
                        (tile(&format!("p99 of a {}", message.title()), &time(times.p99)))
                    }
                    @if let Some(cpu) = server.and_then(|server| server.cpu_us_per_message) {
                        (tile("server CPU a message", &time(cpu)))
                    }
                }
            }
        }
        _ => html! {
            @if !report.ratios.is_empty() {
                ul.outcome {
                    @for ratio in &report.ratios { li { (ratio.sentence()) } }
                }
            }
        },
    }
}

fn tile(name: &str, value: &str) -> Markup {
    html! { div.tile { span.figure { (value) } span.of { (name) } } }
}

fn pairs(pairs: &[(&str, String)]) -> Markup {
    html! {
        dl {
            @for (name, value) in pairs {
                dt { (name) }
                dd { (value) }
            }
        }
    }
}

fn tables(report: &Report) -> Markup {
    match report.cases.as_slice() {
        [case] => html! {
            section {
                h2 { "Figures" }
                (pairs(&rows::facts(case)))
                (stages(case))
            }
        },
        cases => html! {
            section {
                h2 { "Cases" }
                p.note {
                    "CPU is the server's. A session lasts from connecting to the reply to QUIT. "
                    "A message is timed " (from_when(cases)) "."
                }
                (compared(cases))
                @if !report.ratios.is_empty() {
                    (ratios(report))
                }
            }
        },
    }
}

fn from_when(cases: &[Case]) -> &'static str {
    if rows::fall_due(cases) {
        "from when it was due"
    } else {
        "from when it was sent"
    }
}

fn stages(case: &Case) -> Markup {
    let rows = rows::stages(&case.figures);
    html! {
        @if !rows.is_empty() {
            div.scroll {
                table {
                    thead {
                        tr {
                            th scope="col" { "stage" }
                            @for heading in rows::STAGE_HEADINGS { th scope="col" { (heading) } }
                        }
                    }
                    tbody {
                        @for row in rows {
                            tr {
                                th scope="row" { (row.stage.title()) }
                                @for cell in row.cells { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn compared(cases: &[Case]) -> Markup {
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        th scope="col" rowspan="2" { "case" }
                        th scope="col" rowspan="2" { "sessions" br; "a second" }
                        th scope="col" rowspan="2" { "messages" br; "a second" }
                        th.over scope="colgroup" colspan="3" { "message" }
                        th.over scope="colgroup" colspan="3" { "session" }
                        th.over scope="colgroup" colspan="2" { "CPU" }
                        th scope="col" rowspan="2" { "resumed" }
                        th scope="col" rowspan="2" { "errors" }
                    }
                    tr {
                        @for _ in 0..2 {
                            @for heading in ["p50", "p99", "p99.9"] { th scope="col" { (heading) } }
                        }
                        th scope="col" { "a message" }
                        th scope="col" { "a session" }
                    }
                }
                tbody { @for row in rows::cases(cases) { (compared_row(&row)) } }
            }
        }
    }
}

fn compared_row(row: &CaseRow) -> Markup {
    let cells = |all: Option<[f64; 3]>| match all {
        Some(all) => all.map(time),
        None => [NONE; 3].map(str::to_owned),
    };
    html! {
        tr {
            th scope="row" { (row.name) }
            td { (row.sessions_per_second) }
            td { (row.messages_per_second) }
            @for cell in cells(row.message_us) { td { (cell) } }
            @for cell in cells(row.session_us) { td { (cell) } }
            td { (row.cpu_per_message) }
            td { (row.cpu_per_session) }
            td { (row.resumed) }
            td { (row.errors) }
        }
    }
}

fn ratios(report: &Report) -> Markup {
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        th scope="col" { "negotiated : implicit" }
                        @for heading in rows::RATIO_HEADINGS { th scope="col" { (heading) } }
                    }
                }
                tbody {
                    @for ratio in &report.ratios {
                        tr {
                            th scope="row" { (circumstances(ratio.tickets, ratio.messages_per_session)) }
                            @for cell in rows::ratio_cells(ratio) { td { (cell) } }
                        }
                    }
                }
            }
        }
    }
}

/// Plots under a heading; nothing if there are none.
fn section(title: &str, note: &str, plots: &[Plot]) -> Markup {
    html! {
        @if !plots.is_empty() {
            section {
                h2 { (title) }
                p.note { (note) }
                div.plots {
                    @for plot in plots {
                        figure {
                            figcaption { (plot.title) }
                            (plot.picture)
                        }
                    }
                }
            }
        }
    }
}

fn errors(cases: &[Case]) -> Markup {
    let rows = rows::errors(cases);
    html! {
        @if !rows.is_empty() {
            section {
                h2 { "Errors" }
                div.scroll {
                    table.words {
                        thead {
                            tr {
                                th scope="col" { "case" }
                                th scope="col" { "times" }
                                th scope="col" { "what" }
                                th scope="col" { "words of the first" }
                            }
                        }
                        tbody {
                            @for row in rows {
                                tr {
                                    th scope="row" { (row.case) }
                                    td { (row.times) }
                                    td { (row.kind) }
                                    td { (row.first) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn how_to_read() -> Markup {
    html! {
        section.reading {
            h2 { "How to read this" }
            ol { @for line in READING { li { (line) } } }
        }
    }
}

const THROUGHPUT: &str =
    "Longer is better. The whisker on a bar goes from the slowest round to the fastest.";

const SERVER: &str =
    "Shorter is better. The whisker on a bar goes from the cheapest round to the dearest.";

const LATENCY: &str = "Lower is better. Each mark to the right is ten times as rare: at 99 %, one of a hundred \
    took longer. Plots side by side have the same axes.";

const OVER_TIME: &str =
    "A steady run is a flat line; a gap is a stall, of the server or of this machine.";

/// What a reader has to know, once.
const READING: [&str; 10] = [
    "Negotiated TLS begins in clear and is asked for by STARTTLS (RFC 3207, port 25 and 587); implicit TLS is \
     spoken from the first octet (RFC 8314, port 465); plain has no TLS.",
    "A session is one connection, from connecting to the reply to QUIT. A message lasts from its MAIL to its \
     final reply.",
    "Full handshakes are those of peers who come for the first time; resumed ones bring a ticket of an earlier \
     session and cost both ends less.",
    "p50, p99 and p99.9: that share of the times was at most so long. The high ones are what somebody notices; \
     a mean hides them.",
    "From when it was due: messages fall due by a schedule, and waiting behind a stall counts, as it does for \
     senders. From when it was sent: the server's own time, blind to that waiting.",
    "A closed loop sends as fast as replies come. Its throughput is the highest there is with so many \
     connections, and its times are those of a server that is never given rest.",
    "Server CPU a session and a message is what TLS costs, whatever the load; sessions a second show that cost \
     only where the server, not the load generator, is the limit.",
    "A ratio is of two rounds that ran one after the other; its spread is over all such pairs. Where the spread \
     holds 1, this run shows no difference.",
    "Times are the client's. On one machine both ends share its cores, so look at the load generator's own \
     share, and at the warnings, first.",
    "Compare only what ran with the same load on the same machine and kernel. The JSON has every figure of \
     this page, unrounded.",
];

const STYLE: &str = include_str!("style.css");
