//! `ringpost queue`: what waits to be delivered, seen and steered by an operator.
//!
//! ```text
//!  a server runs    ──▶ its control socket, which asks the shards      (exchange)
//!  no server runs   ──▶ list, show: its directory, read alone          (stopped)
//!                       the others: one line, exit status 1
//! ```
//!
//! Claims:
//! - Looking changes nothing, and disturbs no server that starts meanwhile.
//! - A list is printed as it comes, whatever its length.
//! - What a peer wrote reaches the terminal as text, never as a control character.
//! - A reader that closed the pipe has seen enough: no error, exit status 0.

mod exchange;
mod json;
mod printable;
mod stopped;
mod text;

use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use self::exchange::{Answer, Exchange};
use self::printable::printable;
use self::stopped::Stopped;
use super::{Failed, complain, serve};
use crate::control::socket::Question;
use crate::deliver::queue::request::Queued;
use crate::spool::QueueId;

/// The arguments of `queue`.
#[derive(Debug, Args)]
pub(super) struct QueueFlags {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// List all messages, the oldest first; also of a stopped server
    #[command(args_override_self = true, after_help = LIST_HELP)]
    List(CommonFlags),
    /// Show one message: what became of each recipient, and what comes next; also of a stopped server
    #[command(args_override_self = true, after_help = SHOW_HELP)]
    Show(MessageFlags),
    /// Try to deliver a message now, or all that are not held
    #[command(args_override_self = true, after_help = CHANGE_HELP)]
    Retry(RetryFlags),
    /// Forget a message: nobody gets it, and nobody is told
    #[command(args_override_self = true, after_help = CHANGE_HELP)]
    Remove(MessageFlags),
    /// Keep a message back until it is released
    #[command(args_override_self = true, after_help = CHANGE_HELP)]
    Hold(MessageFlags),
    /// Let a held message go, and try to deliver it now
    #[command(args_override_self = true, after_help = CHANGE_HELP)]
    Release(MessageFlags),
}

#[derive(Debug, Args)]
struct CommonFlags {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The server's data directory
    #[arg(long, value_name = "DIR", default_value = serve::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
}

#[derive(Debug, Args)]
struct MessageFlags {
    /// The message's queue id
    #[arg(value_name = "ID")]
    id: QueueId,
    #[command(flatten)]
    common: CommonFlags,
}

#[derive(Debug, Args)]
struct RetryFlags {
    #[command(flatten)]
    which: WhichFlags,
    #[command(flatten)]
    common: CommonFlags,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct WhichFlags {
    /// The message's queue id
    #[arg(value_name = "ID")]
    id: Option<QueueId>,
    /// All messages that are not held
    #[arg(long)]
    all: bool,
}

/// Does what is asked, and prints what came of it.
pub(super) fn run(flags: &QueueFlags) -> Result<(), Failed> {
    let outcome = match &flags.command {
        QueueCommand::List(flags) => list(flags),
        QueueCommand::Show(flags) => show(flags),
        QueueCommand::Retry(flags) => match flags.which.id {
            Some(id) => change(Question::Retry(id), id, "will be tried now", &flags.common),
            None => retry_all(&flags.common),
        },
        QueueCommand::Remove(flags) => change(
            Question::Remove(flags.id),
            flags.id,
            "removed",
            &flags.common,
        ),
        QueueCommand::Hold(flags) => {
            change(Question::Hold(flags.id), flags.id, "held", &flags.common)
        }
        QueueCommand::Release(flags) => change(
            Question::Release(flags.id),
            flags.id,
            "released",
            &flags.common,
        ),
    };
    match outcome {
        Ok(()) | Err(Stop::PipeClosed) => Ok(()),
        Err(Stop::Failed(failed)) => Err(failed),
    }
}

/// Why nothing more is printed.
enum Stop {
    /// Nobody reads it.
    PipeClosed,
    Failed(Failed),
}

impl From<Failed> for Stop {
    fn from(failed: Failed) -> Stop {
        Stop::Failed(failed)
    }
}

/// Standard output.
struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    fn open() -> Out {
        Out(BufWriter::with_capacity(OUT_OCTETS, io::stdout().lock()))
    }

    fn print(&mut self, text: &str) -> Result<(), Stop> {
        written(self.0.write_all(text.as_bytes()))
    }

    fn end(mut self) -> Result<(), Stop> {
        written(self.0.flush())
    }
}

fn written(outcome: io::Result<()>) -> Result<(), Stop> {
    outcome.map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Stop::PipeClosed;
        }
        Failed::because(format!("cannot write to standard output: {error}")).into()
    })
}

/// Where messages are looked at.
enum Queue {
    Running(Exchange),
    Stopped(Stopped),
}

impl Queue {
    fn look(data_dir: &Path, question: Question) -> Result<Queue, Failed> {
        if let Some(exchange) = Exchange::begin(data_dir, question)? {
            return Ok(Queue::Running(exchange));
        }
        let read = stopped::read(data_dir);
        // A server that was started meanwhile may have changed what was being read.
        match Exchange::begin(data_dir, question)? {
            Some(exchange) => Ok(Queue::Running(exchange)),
            None => Ok(Queue::Stopped(read?)),
        }
    }
}

fn list(flags: &CommonFlags) -> Result<(), Stop> {
    let queue = Queue::look(&flags.data_dir, Question::List)?;
    let mut list = List::begin(flags.json);
    match queue {
        Queue::Running(mut exchange) => {
            while let Answer::Message(message) = exchange.next()? {
                list.add(&message)?;
            }
        }
        Queue::Stopped(stopped) => {
            for message in &stopped.messages {
                list.add(&Queued::of_stopped(message))?;
            }
            list.end()?;
            stopped.damages.iter().for_each(complain_of_damage);
            return Ok(());
        }
    }
    list.end()
}

/// A list as it is printed.
struct List {
    out: Out,
    json: bool,
    line: String,
    messages: u64,
    octets: u64,
}

impl List {
    fn begin(json: bool) -> List {
        List {
            out: Out::open(),
            json,
            line: String::new(),
            messages: 0,
            octets: 0,
        }
    }

    fn add(&mut self, message: &Queued) -> Result<(), Stop> {
        self.line.clear();
        if self.json {
            json::push(&mut self.line, message);
        } else {
            if self.messages == 0 {
                self.out.print(text::LIST_HEADING)?;
            }
            text::push_listed(&mut self.line, message);
        }
        self.messages += 1;
        self.octets = self.octets.saturating_add(message.octets);
        self.out.print(&self.line)
    }

    fn end(mut self) -> Result<(), Stop> {
        if !self.json {
            let summary = text::summary(self.messages, self.octets);
            self.out.print(&summary)?;
        }
        self.out.end()
    }
}

fn show(flags: &MessageFlags) -> Result<(), Stop> {
    let MessageFlags { id, common } = flags;
    let message = match Queue::look(&common.data_dir, Question::Show(*id))? {
        Queue::Running(mut exchange) => match exchange.next()? {
            Answer::Message(message) => {
                exchange.next()?;
                Some(*message)
            }
            Answer::Done(_) => None,
        },
        Queue::Stopped(stopped) => {
            let found = stopped.find(*id).map(Queued::of_stopped);
            let of_it = |damage: &&crate::spool::Damage| damage.id == Some(*id);
            if let (None, Some(damage)) = (&found, stopped.damages.iter().find(of_it)) {
                let path = damage.path.display();
                let text = format!("message {id} is damaged: {path} is not what was accepted");
                return Err(Failed::because(text).into());
            }
            found
        }
    };
    let message = message.ok_or_else(|| unknown(*id))?;
    let mut shown = String::new();
    if common.json {
        json::push(&mut shown, &message);
    } else {
        text::push_shown(&mut shown, &message);
    }
    let mut out = Out::open();
    out.print(&shown)?;
    out.end()
}

/// Changes one message; `became` says so in the text form.
fn change(question: Question, id: QueueId, became: &str, flags: &CommonFlags) -> Result<(), Stop> {
    match ask(question, flags)? {
        0 => Err(unknown(id).into()),
        done => print_done(done, &format!("{id}: {became}\n"), flags),
    }
}

fn retry_all(flags: &CommonFlags) -> Result<(), Stop> {
    let done = ask(Question::RetryAll, flags)?;
    let messages = if done == 1 { "message" } else { "messages" };
    print_done(
        done,
        &format!("{done} {messages} will be tried now\n"),
        flags,
    )
}

/// Has a running server do something; gives for how many messages it was done.
fn ask(question: Question, flags: &CommonFlags) -> Result<usize, Failed> {
    let data_dir = &flags.data_dir;
    let Some(mut exchange) = Exchange::begin(data_dir, question)? else {
        let text = format!("no server is running on {}", data_dir.display());
        return Err(Failed::because(text));
    };
    loop {
        if let Answer::Done(done) = exchange.next()? {
            return Ok(done);
        }
    }
}

fn print_done(done: usize, text: &str, flags: &CommonFlags) -> Result<(), Stop> {
    let mut out = Out::open();
    if flags.json {
        out.print(&format!("{{\"done\":{done}}}\n"))?;
    } else {
        out.print(text)?;
    }
    out.end()
}

fn unknown(id: QueueId) -> Failed {
    Failed::because(format!("no message {id} in the queue"))
}

fn complain_of_damage(damage: &crate::spool::Damage) {
    let path = damage.path.display().to_string();
    let path = printable(&path);
    let place = &damage.place;
    complain(&match damage.id {
        Some(id) => format!("message {id} is damaged: {path} is not what was accepted"),
        None => format!(
            "{path} is damaged from octet {} to {}",
            place.start, place.end
        ),
    });
}

/// When that was or will be, as far as a date has four digits for its year.
fn timestamp(unix_ms: u64) -> jiff::Timestamp {
    let moment = i64::try_from(unix_ms).ok();
    let moment = moment.and_then(|moment| jiff::Timestamp::from_millisecond(moment).ok());
    moment.unwrap_or(jiff::Timestamp::MAX)
}

/// Written at once, where nobody waits for a line.
const OUT_OCTETS: usize = 64 * 1024;

macro_rules! json_help {
    () => {
        "  id            the queue id
  state         active: an attempt is under way; waiting: for the first
                one; deferred: for another one; held: for its release
  from          the sender; empty for the null one (<>)
  ret, envid    RET and ENVID of its MAIL command; each is there only if the
                command had it
  octets        octets of its data
  arrived       when it was accepted, as 2026-11-26T08:00:00.123Z
  attempts      attempts that did not finish it
  next_attempt  when the next one is due; null while active or held
  recipients    an object each, in the order of the envelope:
    to          the recipient
    state       waiting, deferred, delivered or bounced
    reason      why it was deferred or bounced; else it is not there
    notify, orcpt  NOTIFY and ORCPT of its RCPT command; each is there only
                if the command had it"
    };
}

const LIST_HELP: &str = concat!(
    "\
Prints a line for each message: queue id, state, octets, arrival (UTC), sender, recipients that are
still to get it; behind it, indented, why they did not. The last line counts messages and octets.

With --json, a line with an object for each message:
",
    json_help!()
);

const SHOW_HELP: &str = concat!(
    "\
With --json, an object with these fields:
",
    json_help!()
);

const CHANGE_HELP: &str = "\
With --json, an object with one field:
  done          for how many messages it was done";
