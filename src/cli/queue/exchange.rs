//! A question to a running server, and its answer line by line.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::printable::printable;
use crate::cli::Failed;
use crate::control::socket::{self, Line, Question};
use crate::deliver::queue::request::Queued;

/// A question under way.
pub(super) struct Exchange {
    server: BufReader<UnixStream>,
    line: Vec<u8>,
}

/// A part of the answer.
pub(super) enum Answer {
    Message(Box<Queued>),
    /// The end of it.
    Done(usize),
}

impl Exchange {
    /// Asks the server of a data directory. `None`: no server runs on it.
    pub(super) fn begin(data_dir: &Path, question: Question) -> Result<Option<Exchange>, Failed> {
        let unreachable = |error: io::Error| {
            let data_dir = data_dir.display();
            Failed::because(format!("cannot reach the server of {data_dir}: {error}"))
        };
        let Some(mut stream) = socket::connect(data_dir).map_err(unreachable)? else {
            return Ok(None);
        };
        stream
            .set_read_timeout(Some(ANSWER_WITHIN))
            .map_err(unreachable)?;
        let mut line = serde_json::to_vec(&question).map_err(Failed::because)?;
        line.push(b'\n');
        stream.write_all(&line).map_err(unreachable)?;
        Ok(Some(Exchange {
            server: BufReader::new(stream),
            line,
        }))
    }

    /// The next part.
    pub(super) fn next(&mut self) -> Result<Answer, Failed> {
        self.line.clear();
        let read = self.server.read_until(b'\n', &mut self.line);
        read.map_err(|error| {
            // So a socket says that its time is over.
            if error.kind() == io::ErrorKind::WouldBlock {
                Failed::because("the server does not answer")
            } else {
                Failed::because(format!("the server's answer was cut off: {error}"))
            }
        })?;
        if self.line.last() != Some(&b'\n') {
            return Err(Failed::because("the server's answer was cut off"));
        }
        match serde_json::from_slice(&self.line) {
            Ok(Line::Message(message)) => Ok(Answer::Message(message)),
            Ok(Line::Done { done }) => Ok(Answer::Done(done)),
            Ok(Line::Error { error }) => {
                let error = printable(&error);
                Err(Failed::because(format!("the server says: {error}")))
            }
            Err(error) => {
                let text = format!("the server's answer is not understood: {error}");
                Err(Failed::because(printable(&text)))
            }
        }
    }
}

/// Longer than the server waits for a shard, and than it takes to start with a long queue.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What comes of an answer: messages, and how it ends.
    fn outcome(answer: &'static str) -> (usize, Result<usize, Vec<String>>) {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("control")).unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            let mut question = String::new();
            stream.read_line(&mut question).unwrap();
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            question
        });
        let exchange = Exchange::begin(directory.path(), Question::List).unwrap();
        let mut exchange = exchange.unwrap();
        let mut messages = 0;
        let end = loop {
            match exchange.next() {
                Ok(Answer::Message(_)) => messages += 1,
                Ok(Answer::Done(done)) => break Ok(done),
                Err(Failed(lines)) => break Err(lines),
            }
        };
        assert_eq!(server.join().unwrap(), "\"list\"\n");
        (messages, end)
    }

    #[test]
    fn answers_end_or_were_cut_off() {
        const MESSAGE: &str = concat!(
            r#"{"id":"0000000000200","state":"held","from":"","octets":1,"arrived_unix_ms":1,"#,
            r#""attempts":0,"next_attempt_unix_ms":null,"recipients":[]}"#,
            "\n"
        );
        let whole = MESSAGE.to_owned() + "{\"done\":1}\n";
        let cut_off = "the server's answer was cut off";
        let rows: [(&str, &'static str, usize, Result<usize, &str>); 7] = [
            ("nothing to tell", "{\"done\":0}\n", 0, Ok(0)),
            ("whole", whole.leak(), 1, Ok(1)),
            ("nothing", "", 0, Err(cut_off)),
            ("no last line", MESSAGE, 1, Err(cut_off)),
            ("half a line", "{\"done\":1", 0, Err(cut_off)),
            (
                "an error",
                "{\"error\":\"shard 0 is gone\\u001b\"}\n",
                0,
                Err("the server says: shard 0 is gone\\u{1b}"),
            ),
            (
                "another language",
                "220 mx\r\n",
                0,
                Err("the server's answer is not"),
            ),
        ];
        for (name, answer, messages, end) in rows {
            let (told, ended) = outcome(answer);
            assert_eq!(told, messages, "{name}");
            match (ended, end) {
                (Ok(done), Ok(expected)) => assert_eq!(done, expected, "{name}"),
                (Err(lines), Err(beginning)) => {
                    assert_eq!(lines.len(), 1, "{name}");
                    assert!(lines[0].starts_with(beginning), "{name}: {lines:?}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn nobody_there_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(
            Exchange::begin(directory.path(), Question::List)
                .unwrap()
                .is_none()
        );
        let nowhere = directory.path().join("nowhere");
        assert!(Exchange::begin(&nowhere, Question::List).unwrap().is_none());
    }
}
