//! A report as JSON: its types, field by field.

use std::io;
use std::path::Path;

use serde::Serialize;

use super::file;

/// Writes a report to a file; `-` is standard output.
pub fn write(report: &impl Serialize, path: &Path) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(report)?;
    text.push(b'\n');
    file::write(path, &text)
}
