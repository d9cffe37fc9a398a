//! Where figures go: a table on standard output, files for JSON and the page.

use std::path::PathBuf;

use ringpost::cli::to_stdout;
use serde::Serialize;

use super::Failed;
use crate::report::{Report, json, page, table};

/// Where figures go that have no page.
#[derive(Debug, clap::Args)]
pub(super) struct JsonFlag {
    /// Write all figures as JSON to this file; - is standard output, in place of the table
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
}

/// Where figures go.
#[derive(Debug, clap::Args)]
pub(super) struct OutputFlags {
    #[command(flatten)]
    json: JsonFlag,
    /// Write a page with plots to this file; it needs no network
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,
}

impl OutputFlags {
    /// The same, with files for what is not given.
    pub(super) fn or(&self, json: &str, html: &str) -> OutputFlags {
        OutputFlags {
            json: JsonFlag {
                json: Some(self.json.json.clone().unwrap_or_else(|| json.into())),
            },
            html: Some(self.html.clone().unwrap_or_else(|| html.into())),
        }
    }

    /// Gives a report to whoever wants it.
    pub(super) fn put(&self, report: &Report) -> Result<(), Failed> {
        // One that cannot be written is no reason to lose the other.
        let put = self.json.put(report, || table::render(report));
        if let Some(path) = &self.html {
            page::write(report, path).map_err(|error| cannot_write(path, &error))?;
        }
        put
    }
}

impl JsonFlag {
    /// Gives a report to whoever wants it, as text or as JSON.
    pub(super) fn put(
        &self,
        report: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failed> {
        let is_stdout = self
            .json
            .as_ref()
            .is_some_and(|path| path.as_os_str() == "-");
        let printed = if is_stdout { Ok(()) } else { print(&text()) };
        if let Some(path) = &self.json {
            json::write(report, path).map_err(|error| cannot_write(path, &error))?;
        }
        printed
    }
}

/// Writes to standard output.
pub(super) fn print(text: &str) -> Result<(), Failed> {
    to_stdout(text.as_bytes()).map_err(Failed::Running)
}

pub(super) fn cannot_write(path: &std::path::Path, error: &std::io::Error) -> Failed {
    Failed::Running(format!("cannot write {}: {error}", path.display()))
}
