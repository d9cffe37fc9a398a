//! What cases and ratios are called, and what a ratio means, in words.

use super::units::{counted, digits, percent};
use super::{Case, Ratio, Spread, Tickets};
use crate::measure::Stage;
use crate::plan::Mode;

impl Mode {
    /// For a reader who does not know the flags.
    pub(super) fn word(self) -> &'static str {
        match self {
            Mode::Plain => "plain",
            Mode::Starttls => "negotiated",
            Mode::Tls => "implicit",
        }
    }
}

impl Tickets {
    pub(super) fn word(self) -> &'static str {
        match self {
            Tickets::None => "no TLS",
            Tickets::Full => "full handshake",
            Tickets::Resumed => "resumed",
            Tickets::Mixed => "partly resumed",
        }
    }

    /// Where there is little room.
    pub(super) fn short(self) -> &'static str {
        match self {
            Tickets::None => "no TLS",
            Tickets::Full => "full",
            Tickets::Resumed => "resumed",
            Tickets::Mixed => "mixed",
        }
    }
}

impl Stage {
    /// For a line of a plot.
    pub(super) fn word(self) -> &'static str {
        match self {
            Stage::Greeting => "greeting",
            Stage::Starttls => "STARTTLS",
            Stage::Handshake => "handshake",
            Stage::Ready => "ready",
            Stage::MessageDue => "message, due",
            Stage::Message => "message, sent",
            Stage::Session => "session",
            Stage::Lateness => "own lateness",
        }
    }
}

/// How many messages a session has.
pub(super) fn messages(per_session: u64) -> String {
    match per_session {
        0 => "all messages in one session".to_owned(),
        number => format!("{} a session", counted(number, "message", "messages")),
    }
}

/// What cases that differ only in how TLS comes about have in common.
pub(super) fn circumstances(tickets: Tickets, per_session: u64) -> String {
    match tickets {
        Tickets::None => messages(per_session),
        Tickets::Full | Tickets::Resumed | Tickets::Mixed => {
            format!("{}, {}", tickets.word(), messages(per_session))
        }
    }
}

impl Case {
    /// Whether its messages fell due, so that their times count from then.
    pub(super) fn falls_due(&self) -> bool {
        self.figures.latency_us.contains_key(&Stage::MessageDue)
    }
}

/// The stage that tells the times of messages.
pub(super) fn message_stage(fall_due: bool) -> Stage {
    if fall_due {
        Stage::MessageDue
    } else {
        Stage::Message
    }
}

impl Spread {
    /// `1.07 (1.05–1.10)`.
    pub(super) fn text(&self) -> String {
        if self.pairs < 2 {
            return format!("{} (1 pair)", ratio(self.median));
        }
        let [median, least, greatest] = [self.median, self.least, self.greatest].map(ratio);
        format!("{median} ({least}–{greatest})")
    }

    /// What it says about negotiated TLS. Pairs that do not agree on more or less say nothing.
    fn verdict(&self, more: &str, less: &str, of: &str) -> String {
        let differs = (self.median - 1.0).abs();
        if self.least > 1.0 {
            format!("{} {more} {of}", percent(differs))
        } else if self.greatest < 1.0 {
            format!("{} {less} {of}", percent(differs))
        } else {
            format!("no clear difference in {of}")
        }
    }
}

/// A ratio, with two digits behind the point.
pub(super) fn ratio(value: f64) -> String {
    if value.is_finite() && value.abs() < 99.995 {
        format!("{value:.2}")
    } else {
        digits(value)
    }
}

impl Ratio {
    /// What it means.
    pub(super) fn sentence(&self) -> String {
        let sessions = self
            .sessions_per_second
            .verdict("more", "fewer", "sessions a second");
        let cpu = match &self.server_cpu_us_per_session {
            Some(spread) => format!(
                ", {}",
                spread.verdict("more", "less", "server CPU a session")
            ),
            None => String::new(),
        };
        let doubt = match self.sessions_per_second.pairs {
            0 | 1 => " (one pair of rounds, so chance is not told apart)",
            _ => "",
        };
        let circumstances = circumstances(self.tickets, self.messages_per_session);
        format!("Negotiated beside implicit TLS, {circumstances}: {sessions}{cpu}{doubt}.")
    }
}

/// How a ratio is to be read.
pub(super) const RATIO: &str = "Ratios are negotiated : implicit TLS, the median of the pairs of rounds \
    and in brackets the least and the greatest; above 1, negotiated TLS has more of it.";

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(least: f64, median: f64, greatest: f64, pairs: usize) -> Spread {
        Spread {
            least,
            median,
            greatest,
            pairs,
        }
    }

    #[test]
    fn a_spread_shows_what_pairs_agree_on() {
        assert_eq!(spread(1.046, 1.07, 1.1, 5).text(), "1.07 (1.05–1.10)");
        assert_eq!(spread(0.9, 0.9, 0.9, 1).text(), "0.90 (1 pair)");
        assert_eq!(spread(0.9, 250.0, 1e4, 3).text(), "250 (0.90–10,000)");
    }

    #[test]
    fn words_say_no_more_than_the_pairs() {
        let mut ratio = Ratio {
            tickets: Tickets::Full,
            messages_per_session: 1,
            sessions_per_second: spread(0.9, 0.93, 0.96, 5),
            server_cpu_us_per_session: Some(spread(1.07, 1.12, 1.2, 5)),
            session_p50: None,
            session_p99: None,
        };
        assert_eq!(
            ratio.sentence(),
            "Negotiated beside implicit TLS, full handshake, 1 message a session: \
             7.0 % fewer sessions a second, 12 % more server CPU a session."
        );
        ratio.server_cpu_us_per_session = Some(spread(0.98, 1.01, 1.02, 5));
        ratio.sessions_per_second = spread(1.01, 1.02, 1.03, 5);
        ratio.tickets = Tickets::Resumed;
        ratio.messages_per_session = 20;
        assert_eq!(
            ratio.sentence(),
            "Negotiated beside implicit TLS, resumed, 20 messages a session: \
             2.0 % more sessions a second, no clear difference in server CPU a session."
        );
        ratio.server_cpu_us_per_session = None;
        ratio.sessions_per_second = spread(0.5, 0.5, 0.5, 1);
        ratio.messages_per_session = 0;
        assert_eq!(
            ratio.sentence(),
            "Negotiated beside implicit TLS, resumed, all messages in one session: \
             50 % fewer sessions a second (one pair of rounds, so chance is not told apart)."
        );
    }
}
