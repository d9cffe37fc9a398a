//! The points of a connection at which a sink can be told to misbehave.

/// A point of a connection: the reply that is due there, or the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before the greeting.
    Connect,
    /// The reply to EHLO, HELO or LHLO.
    Ehlo,
    /// The reply to STARTTLS.
    StartTls,
    /// The TLS handshake, once the peer has sent something for it.
    Handshake,
    /// The reply that ends an AUTH exchange.
    Auth,
    /// The reply to MAIL.
    Mail,
    /// The reply to RCPT.
    Rcpt,
    /// The reply to DATA, or to a BDAT chunk.
    Data,
    /// The final reply to a message; in LMTP each of them. The last BDAT chunk comes by
    /// [`Stage::Data`] first.
    Content,
    /// The reply to QUIT.
    Quit,
}

impl Stage {
    /// All of them, in the order of a connection, each at its own [`Stage::index`].
    pub const ALL: [Stage; 10] = [
        Stage::Connect,
        Stage::Ehlo,
        Stage::StartTls,
        Stage::Handshake,
        Stage::Auth,
        Stage::Mail,
        Stage::Rcpt,
        Stage::Data,
        Stage::Content,
        Stage::Quit,
    ];

    /// The name that flags and counts give it.
    pub const fn label(self) -> &'static str {
        match self {
            Stage::Connect => "connect",
            Stage::Ehlo => "ehlo",
            Stage::StartTls => "starttls",
            Stage::Handshake => "handshake",
            Stage::Auth => "auth",
            Stage::Mail => "mail",
            Stage::Rcpt => "rcpt",
            Stage::Data => "data",
            Stage::Content => "content",
            Stage::Quit => "quit",
        }
    }

    /// The stage of that name.
    pub fn named(name: &str) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| stage.label() == name)
    }

    /// Its place in a table with a row a stage.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A value a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByStage<T>([T; Stage::ALL.len()]);

impl<T> ByStage<T> {
    /// The value of `stage`.
    #[expect(
        clippy::indexing_slicing,
        reason = "an index of a stage is within the table of all"
    )]
    pub fn of(&self, stage: Stage) -> &T {
        &self.0[stage.index()]
    }

    /// The value of `stage`, to be changed.
    #[expect(
        clippy::indexing_slicing,
        reason = "an index of a stage is within the table of all"
    )]
    pub fn of_mut(&mut self, stage: Stage) -> &mut T {
        &mut self.0[stage.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_stand_at_their_index_under_names_of_their_own() {
        for (at, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage.index(), at, "{}", stage.label());
            assert_eq!(Stage::named(stage.label()), Some(stage));
        }
        assert_eq!(Stage::named("RCPT"), None);
        assert_eq!(Stage::named(""), None);
    }
}
