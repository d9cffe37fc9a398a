//! Turns the signals of the process into what they ask for.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The first SIGTERM or SIGINT: no new sessions, finish what is under way.
    Drain,
    /// Any further one: end at once.
    Stop,
    /// SIGHUP: read certificates, keys, users and recipients anew.
    Reload,
}

/// The signals of this process, caught from [`Signals::catch`] on and never let through again.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hang_up: unix::Signal,
    ends: Ends,
}

impl Signals {
    /// Catches them from now on. Within a tokio runtime.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hang_up: unix::signal(SignalKind::hangup())?,
            ends: Ends::None,
        })
    }

    /// Waits for the next one. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            // A stop must not wait behind reloads.
            biased;
            _ = self.terminate.recv() => self.ends.another(),
            _ = self.interrupt.recv() => self.ends.another(),
            _ = self.hang_up.recv() => Signal::Reload,
        }
    }
}

/// How many signals to end there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    None,
    Some,
}

impl Ends {
    fn another(&mut self) -> Signal {
        match std::mem::replace(self, Self::Some) {
            Self::None => Signal::Drain,
            Self::Some => Signal::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Number, getpid, kill_process};

    use super::*;

    /// One test for all: signals go to the process, and so to every test that listens.
    #[test]
    fn signals_in_their_order() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut signals = Signals::catch().unwrap();
            let rows = [
                (Number::HUP, Signal::Reload),
                (Number::TERM, Signal::Drain),
                (Number::HUP, Signal::Reload),
                (Number::INT, Signal::Stop),
                (Number::TERM, Signal::Stop),
            ];
            for (number, signal) in rows {
                kill_process(getpid(), number).unwrap();
                assert_eq!(signals.next().await, signal);
            }
            let mut signals = Signals::catch().unwrap();
            for signal in [Signal::Drain, Signal::Stop] {
                kill_process(getpid(), Number::INT).unwrap();
                assert_eq!(signals.next().await, signal);
            }
        });
    }
}
