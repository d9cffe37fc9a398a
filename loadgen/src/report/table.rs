//! The report as text, for a terminal or a pipe: no colour, no control octet, at most 120 columns.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, Width};

use super::rows::{self, CaseRow};
use super::units::{NONE, printable, times};
use super::words::{RATIO, circumstances};
use super::{Case, Ratio, Report};

/// The whole report: one case with all its stages, or several beside each other.
pub fn render(report: &Report) -> String {
    let mut out = pairs(&rows::environment(&report.environment));
    match report.cases.as_slice() {
        [case] => one(&mut out, case),
        cases => several(&mut out, cases, &report.ratios),
    }
    let errors = errors(&report.cases);
    if !errors.is_empty() {
        section(&mut out, "errors", &errors);
    }
    let warnings = rows::warnings(&report.cases);
    if !warnings.is_empty() {
        out.push('\n');
        for (warning, about) in warnings {
            let about = match about.as_slice() {
                [] => String::new(),
                about => format!(" ({})", about.join("; ")),
            };
            out.push_str(&wrapped("WARNING: ", &format!("{warning}{about}")));
        }
    }
    out
}

fn one(out: &mut String, case: &Case) {
    section(out, &printable(&case.name), &pairs(&rows::facts(case)));
    let mut table = table(std::iter::once("stage").chain(rows::STAGE_HEADINGS));
    for row in rows::stages(&case.figures) {
        table.add_row(std::iter::once(row.stage.title().to_owned()).chain(row.cells));
    }
    section(out, "", &drawn(&table));
}

fn several(out: &mut String, cases: &[Case], ratios: &[Ratio]) {
    let message = if rows::fall_due(cases) {
        "message from due"
    } else {
        "message"
    };
    let message = format!("{message}\np50/p99/p99.9");
    let mut compared = table([
        "case",
        "sessions\n/s",
        "messages\n/s",
        &message,
        "session\np50/p99/p99.9",
        "CPU a\nmessage",
        "CPU a\nsession",
        "resumed",
        "errors",
    ]);
    for row in rows::cases(cases) {
        compared.add_row(cells(row));
    }
    section(out, "", &drawn(&compared));
    out.push_str("CPU is the server's. A session lasts from connecting to the reply to QUIT.\n");

    if !ratios.is_empty() {
        let mut table = table(std::iter::once("negotiated : implicit").chain(rows::RATIO_HEADINGS));
        for ratio in ratios {
            let circumstances = circumstances(ratio.tickets, ratio.messages_per_session);
            table.add_row(std::iter::once(circumstances).chain(rows::ratio_cells(ratio)));
        }
        section(out, "", &drawn(&table));
        out.push_str(&wrapped("", RATIO));
        for ratio in ratios {
            out.push_str(&wrapped("- ", &ratio.sentence()));
        }
    }
}

fn cells(row: CaseRow) -> [String; 9] {
    let cell = |all: Option<[f64; 3]>| all.map_or_else(|| NONE.to_owned(), |all| times(&all));
    [
        row.name,
        row.sessions_per_second,
        row.messages_per_second,
        cell(row.message_us),
        cell(row.session_us),
        row.cpu_per_message,
        row.cpu_per_session,
        row.resumed,
        row.errors,
    ]
}

/// What went wrong, where, how often, and the words of the first.
fn errors(cases: &[Case]) -> String {
    let mut out = String::new();
    for error in rows::errors(cases) {
        let about = if cases.len() > 1 {
            format!("{}: ", error.case)
        } else {
            String::new()
        };
        let head = format!("  {:>9} × ", error.times);
        let words = if error.first.is_empty() {
            String::new()
        } else {
            format!(", first: {}", error.first)
        };
        out.push_str(&wrapped(&head, &format!("{about}{}{words}", error.kind)));
    }
    out
}

/// Names and values under each other.
pub(super) fn pairs(pairs: &[(&str, String)]) -> String {
    let widest = pairs.iter().map(|(name, _)| name.len()).max();
    let mut out = String::new();
    for (name, value) in pairs {
        let head = format!("{name:<width$}  ", width = widest.unwrap_or_default());
        out.push_str(&wrapped(&head, value));
    }
    out
}

/// A part of the report, apart from what stands above it.
pub(super) fn section(out: &mut String, title: &str, content: &str) {
    out.push('\n');
    if !title.is_empty() {
        // Writing to a `String` cannot fail.
        let _written = writeln!(out, "{title}");
    }
    out.push_str(content);
}

/// A table with a rule below its headings, all columns but the first to the right.
pub(super) fn table<'a>(headings: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table
        .load_preset("     ──            ")
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(COLUMNS)
        .set_header(Row::from(
            headings.into_iter().map(Cell::new).collect::<Vec<_>>(),
        ));
    for (index, column) in table.column_iter_mut().enumerate() {
        if index == 0 {
            column.set_padding((0, 1));
            column.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(NAME_COLUMNS)));
        } else {
            column.set_padding((1, 0));
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Its lines, without blanks at their ends.
pub(super) fn drawn(table: &Table) -> String {
    let mut out = String::new();
    for line in table.lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A text behind `head`, in lines of which the later ones begin below the first. What has no blank to be cut
/// at stays whole, so that it can be copied.
pub(super) fn wrapped(head: &str, text: &str) -> String {
    let indent = head.chars().count();
    let mut out = head.to_owned();
    let mut column = indent;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > indent && column + 1 + length > usize::from(COLUMNS) {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if column > indent {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// As wide as it gets.
const COLUMNS: u16 = 120;

/// What a name may take of it.
const NAME_COLUMNS: u16 = 40;
