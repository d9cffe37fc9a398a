//! The metrics endpoint read as Prometheus reads it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// One scrape of `/metrics`.
#[derive(Debug, Clone)]
pub(crate) struct Scrape {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Scrape {
    pub(crate) fn take(address: SocketAddr) -> Self {
        let (status, body) = get(address, "/metrics");
        assert_eq!(status, 200, "{body}");
        Self {
            samples: body.lines().filter_map(sample).collect(),
        }
    }

    /// The sum of all series of this name that carry these labels; 0 if there are none, as for
    /// Prometheus' own `sum`.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sum: f64 = self
            .samples
            .iter()
            .filter(|sample| sample.name == name)
            .filter(|sample| {
                labels.iter().all(|(name, value)| {
                    sample
                        .labels
                        .get(*name)
                        .is_some_and(|labelled| labelled == value)
                })
            })
            .map(|sample| sample.value)
            // Not `sum`, which begins at -0.
            .fold(0.0, |sum, value| sum + value);
        format!("{sum:.0}").parse().unwrap()
    }

    /// Whether any series has this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|sample| sample.name == name)
    }

    /// What changed from an earlier scrape: every series whose value differs, with the difference.
    pub(crate) fn since(&self, earlier: &Self) -> BTreeMap<String, i64> {
        let mut differences = BTreeMap::new();
        for sample in &self.samples {
            let before = earlier
                .samples
                .iter()
                .find(|known| known.name == sample.name && known.labels == sample.labels)
                .map_or(0.0, |known| known.value);
            let difference = sample.value - before;
            if difference != 0.0 {
                let labels: Vec<String> = sample
                    .labels
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                let key = format!("{}{{{}}}", sample.name, labels.join(","));
                differences.insert(key, format!("{difference:.0}").parse().unwrap());
            }
        }
        differences
    }
}

/// A GET: the status and the body.
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    request(address, "GET", path)
}

pub(crate) fn request(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    if head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        return (status, unchunked(body));
    }
    (status, body.to_owned())
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole += &rest[..size];
        body = &rest[size + 2..];
    }
    whole
}

/// `name{label="value",…} number`; `None` for comments and empty lines.
fn sample(line: &str) -> Option<Sample> {
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
    };
    let labels = labels
        .split("\",")
        .filter(|label| !label.is_empty())
        .map(|label| {
            let (name, value) = label.split_once("=\"").unwrap();
            (name.to_owned(), value.trim_end_matches('"').to_owned())
        })
        .collect();
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: value.parse().unwrap(),
    })
}
