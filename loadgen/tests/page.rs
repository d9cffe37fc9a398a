//! The page of a report, opened by a browser that nobody here wrote.
//!
//! What is measured is measured by the browser: how large bars and lines came out, whether texts lie in their
//! pictures and not over each other, whether the page fits its window.

#![cfg(test)]

mod made_up;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use made_up::{Loop, comparison, nothing, run};
use ringpost_loadgen::report::{Report, page};
use serde_json::Value;
use tempfile::TempDir;

/// Lets Chromium open a page in a window of that size, and gives what it prints.
#[track_caller]
fn chromium(directory: &Path, page: &Path, (width, height): (u32, u32), flags: &[&str]) -> String {
    let profile = TempDir::new_in(directory).unwrap();
    // It ends by itself once the page is there; a browser that hangs must not hang the tests.
    let out = Command::new("timeout")
        .args([
            "--kill-after=5",
            "60",
            "chromium",
            "--headless",
            "--no-sandbox",
        ])
        .args([
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-sync",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args(["--hide-scrollbars", "--disable-dev-shm-usage"])
        // No name is ever looked up; this machine can be reached, so that fetching from it would show.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        .env("HOME", profile.path())
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},{height}"))
        .args(flags)
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success(),
        "chromium (run tests/run if it is missing): {err}"
    );
    String::from_utf8(out.stdout).unwrap()
}

/// What the browser made of a page `width` wide: the result of `MEASURE`.
#[track_caller]
fn measured(report: &Report, width: u32) -> Value {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("report.html");
    page::write(report, &path).unwrap();
    // A window has a least width, a frame has none. The page itself forbids the script that measures it.
    let text = fs::read_to_string(&path).unwrap();
    let start = text
        .find("<meta http-equiv=\"Content-Security-Policy\"")
        .unwrap();
    let end = start + text[start..].find('>').unwrap() + 1;
    let measuring = format!(
        "{}<script>{MEASURE}</script>{}",
        &text[..start],
        &text[end..]
    );
    let framed = directory.path().join("framed.html");
    let source = measuring.replace('&', "&amp;").replace('"', "&quot;");
    fs::write(
        &framed,
        format!(
            "<!doctype html><pre id=measured></pre><script>onmessage = event => \
             document.getElementById('measured').textContent = event.data</script>\
             <iframe srcdoc=\"{source}\" style='border:0;width:{width}px;height:3000px'></iframe>"
        ),
    )
    .unwrap();
    let dom = chromium(
        directory.path(),
        &framed,
        (1300, 3100),
        &["--dump-dom", "--virtual-time-budget=5000"],
    );
    let json = dom.split_once("<pre id=\"measured\">").unwrap().1;
    let json = json.split_once("</pre>").unwrap().0;
    let json = json
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json:?}"))
}

/// Runs in the page.
const MEASURE: &str = r#"
onload = () => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const box = element => element.getBoundingClientRect();
  const inside = (inner, outer) => inner.left >= outer.left - 2 && inner.right <= outer.right + 2
    && inner.top >= outer.top - 2 && inner.bottom <= outer.bottom + 2;
  const over = (one, other) => one.left < other.right - 1 && other.left < one.right - 1
    && one.top < other.bottom - 3 && other.top < one.bottom - 3;
  const outside = [], overlapping = [];
  for (const svg of all('svg')) {
    const texts = all('text', svg);
    for (const part of all('text, rect, line, path, circle', svg))
      if (!inside(box(part), box(svg))) outside.push(part.outerHTML);
    for (const [index, text] of texts.entries())
      for (const other of texts.slice(index + 1))
        if (over(box(text), box(other))) overlapping.push(text.textContent + ' / ' + other.textContent);
  }
  parent.postMessage(JSON.stringify({
    pictures: all('svg').map(svg => [box(svg).width, box(svg).height]),
    bars: all('rect.bar').map(bar => [box(bar).width, box(bar).height]),
    lines: all('path.line').map(line => [box(line).width, box(line).height]),
    dots: all('circle.dot').length,
    whiskers: all('path.whisker, path.spread').map(whisker => box(whisker).width),
    tips: all('svg title').length,
    texts: Math.min(...all('svg text').map(text => box(text).height)),
    captions: all('figcaption').map(caption => caption.textContent),
    sections: all('h2').map(heading => heading.textContent),
    outside, overlapping,
    wider: document.documentElement.scrollWidth - innerWidth,
    fetched: performance.getEntriesByType('resource').map(entry => entry.name),
    foreign: all('script, link, img, iframe, object, embed, [src], [href]').length - 1,
    odd: document.body.outerHTML.match(/NaN|Infinity|undefined/g),
  }), '*');
};
"#;

/// Pairs of width and height.
fn sizes(value: &Value) -> Vec<(f64, f64)> {
    let pairs = value.as_array().unwrap().iter();
    pairs
        .map(|pair| (pair[0].as_f64().unwrap(), pair[1].as_f64().unwrap()))
        .collect()
}

/// What holds for every page.
#[track_caller]
fn assert_in_order(found: &Value, width: u32) {
    for nothing in ["outside", "overlapping", "fetched"] {
        assert_eq!(
            found[nothing],
            Value::Array(Vec::new()),
            "{nothing} at {width}"
        );
    }
    assert_eq!(found["odd"], Value::Null);
    assert_eq!(found["foreign"], 0);
    assert!(
        found["wider"].as_f64().unwrap() <= 0.0,
        "{} too wide for {width}",
        found["wider"]
    );
    for (wide, high) in sizes(&found["pictures"]) {
        assert!(
            wide > 250.0 && wide < 620.0 && high > 40.0,
            "{wide} by {high} at {width}"
        );
    }
}

#[test]
fn ten_cases_can_be_read_on_a_screen_and_on_a_telephone() {
    let report = comparison(Loop::Open);
    for width in [1200, 480, 340] {
        let found = measured(&report, width);
        assert_in_order(&found, width);
        // Sessions/s and messages/s, CPU a session and a message.
        let bars = sizes(&found["bars"]);
        assert_eq!(bars.len(), 4 * 10);
        assert!(
            bars.iter().all(|(wide, high)| *wide > 3.0 && *high > 8.0),
            "{bars:?}"
        );
        // Four panels with three lines each: four stages, and messages over time.
        let lines = sizes(&found["lines"]);
        assert_eq!(lines.len(), (4 + 1) * 4 * 3);
        assert!(
            lines
                .iter()
                .all(|(wide, high)| *wide > 100.0 && *high > 5.0),
            "{lines:?}"
        );
        assert_eq!(found["dots"], 4 * 4);
        let whiskers = found["whiskers"].as_array().unwrap();
        assert_eq!(whiskers.len(), 4 * 10 + 2 * 4);
        assert!(whiskers.iter().all(|wide| wide.as_f64().unwrap() > 0.05));
        assert!(found["tips"].as_u64().unwrap() > 200);
        if width >= 480 {
            assert!(
                found["texts"].as_f64().unwrap() > 10.0,
                "{}",
                found["texts"]
            );
        }
    }
}

#[test]
fn bars_are_as_long_as_their_values() {
    let report = comparison(Loop::Closed);
    let found = measured(&report, 1200);
    let bars = sizes(&found["bars"]);
    let of = |index: usize| report.cases[index].figures.sessions_per_second;
    for index in 0..10 {
        let (wanted, drawn) = (of(index) / of(0), bars[index].0 / bars[0].0);
        // Edges and tenths of a unit.
        assert!(
            (wanted - drawn).abs() < 0.01,
            "{index}: {drawn}, {wanted} of the first"
        );
    }
}

#[test]
fn one_case_has_all_its_stages_and_both_views() {
    for (pace, latency_lines) in [(Loop::Open, 8), (Loop::Closed, 6)] {
        let found = measured(&run(pace), 1000);
        assert_in_order(&found, 1000);
        // Messages, sessions and the slowest of them over time.
        assert_eq!(sizes(&found["lines"]).len(), latency_lines + 3);
        assert_eq!(sizes(&found["bars"]).len(), 4);
        assert!(
            !found["sections"].to_string().contains("Ratios"),
            "{}",
            found["sections"]
        );
    }
}

#[test]
fn what_was_not_measured_is_not_drawn() {
    let found = measured(&nothing(), 1000);
    assert_in_order(&found, 1000);
    assert_eq!(sizes(&found["bars"]).len(), 2);
    assert_eq!(sizes(&found["lines"]).len(), 0);
    for missing in ["Server CPU", "Latency", "Over time", "Errors", "Ratios"] {
        assert!(
            !found["sections"].to_string().contains(missing),
            "{}",
            found["sections"]
        );
    }
    let mut report = comparison(Loop::Closed);
    for case in &mut report.cases {
        case.figures.server = None;
        case.figures.sessions_per_second = f64::NAN;
        case.rounds.clear();
    }
    report.cases[3].figures.latency_us.clear();
    report.cases[4].figures.timeline.clear();
    for ratio in &mut report.ratios {
        ratio.server_cpu_us_per_session = None;
        ratio.session_p50 = Some(f64::INFINITY);
    }
    let found = measured(&report, 1000);
    assert_in_order(&found, 1000);
    assert_eq!(sizes(&found["bars"]).len(), 2 * 10);
    report.cases.clear();
    report.ratios.clear();
    assert_eq!(sizes(&measured(&report, 1000)["pictures"]), []);
}

#[test]
fn foreign_text_stays_text_and_fetches_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let hostile = format!(
        "</title></style></text></svg><script src={url}></script><img src={url} onerror=alert(1)>\
         <link rel=stylesheet href={url}>\"'><style>@import url({url})</style>"
    );
    let mut report = comparison(Loop::Closed);
    report.environment = made_up::environment(&hostile);
    report.environment.server.clone_from(&hostile);
    report.environment.load.clone_from(&hostile);
    // Two that are alike go by their names, and one is alone in its picture.
    let mut again = report.cases[1].clone();
    again.name.clone_from(&hostile);
    report.cases.push(again);
    let figures = &mut report.cases[0].figures;
    figures.warnings.push(hostile.clone());
    let mut error = figures.errors["reply 451"].clone();
    error.first.clone_from(&hostile);
    figures.errors.insert(hostile.clone(), error);

    let found = measured(&report, 1000);
    assert_in_order(&found, 1000);
    assert!(
        found["captions"].to_string().contains("<script src="),
        "{}",
        found["captions"]
    );

    let directory = TempDir::new().unwrap();
    let path = directory.path().join("report.html");
    page::write(&report, &path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("&lt;script src="));
    assert!(!text.contains("<script") && !text.contains("<img") && !text.contains("<link"));
    let dom = chromium(directory.path(), &path, (1000, 1000), &["--dump-dom"]);
    assert!(dom.contains("How to read this"), "{dom}");
    let error = listener.accept().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "something was fetched");
    // The same where it is no text is fetched, so that the silence above says something.
    fs::write(&path, format!("<img src={url}>")).unwrap();
    let address = listener.local_addr().unwrap();
    let fetched = thread::spawn(move || {
        listener.set_nonblocking(false).unwrap();
        let mut start = [0; 3];
        let (mut connection, _) = listener.accept().unwrap();
        connection.read_exact(&mut start).unwrap();
        start
    });
    chromium(directory.path(), &path, (1000, 1000), &["--dump-dom"]);
    // Nobody waits for ever for a browser that did not come.
    let _late = TcpStream::connect(address).and_then(|mut late| late.write_all(b"end"));
    assert_eq!(&fetched.join().unwrap(), b"GET");
}

/// The size of a PNG, the colour that most of it has, and how many others there are.
#[track_caller]
fn picture(path: &Path) -> (u32, u32, [u8; 3], u32) {
    const DECODE: &str = r"
import collections, struct, sys, zlib
data, at, packed = open(sys.argv[1], 'rb').read(), 8, b''
assert data[:8] == b'\x89PNG\r\n\x1a\n'
while at < len(data):
    length, kind = struct.unpack('>I4s', data[at:at + 8])
    chunk = data[at + 8:at + 8 + length]
    at += 12 + length
    if kind == b'IHDR':
        width, height, depth, colour = struct.unpack('>IIBB', chunk[:10])
    if kind == b'IDAT':
        packed += chunk
assert depth == 8
step = {2: 3, 6: 4}[colour]
raw, size = zlib.decompress(packed), width * step
above, colours = bytearray(size), collections.Counter()
for y in range(height):
    start = y * (size + 1)
    how, row = raw[start], bytearray(raw[start + 1:start + 1 + size])
    for i in range(size):
        left, corner = (row[i - step], above[i - step]) if i >= step else (0, 0)
        guess = left + above[i] - corner
        paeth = min((left, above[i], corner), key=lambda near: abs(guess - near))
        row[i] = (row[i] + (0, left, above[i], (left + above[i]) // 2, paeth)[how]) & 255
    colours.update(bytes(row[i:i + 3]) for i in range(0, size, step))
    above = row
(ground, _), = colours.most_common(1)
print(width, height, *ground, len(colours))
";
    let out = Command::new("python3")
        .args(["-c", DECODE])
        .arg(path)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).unwrap();
    let numbers: Vec<u32> = text
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    let ground = [2, 3, 4].map(|index: usize| u8::try_from(numbers[index]).unwrap());
    (numbers[0], numbers[1], ground, numbers[5])
}

#[test]
fn the_page_is_drawn_light_and_dark() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("report.html");
    page::write(&comparison(Loop::Closed), &path).unwrap();
    for (scheme, dark) in [("1", false), ("0", true)] {
        let shot = directory.path().join(format!("{scheme}.png"));
        let flags = [
            format!("--screenshot={}", shot.display()),
            format!("--blink-settings=preferredColorScheme={scheme}"),
        ];
        let flags = flags.each_ref().map(String::as_str);
        chromium(directory.path(), &path, (800, 1200), &flags);
        let (width, height, ground, colours) = picture(&shot);
        assert_eq!((width, height), (800, 1200));
        assert!(colours > 50, "{colours} colours");
        let bright = ground.iter().all(|part| *part > 200);
        let dim = ground.iter().all(|part| *part < 60);
        assert_eq!((bright, dim), (!dark, dark), "{ground:?}");
    }
}
