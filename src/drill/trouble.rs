//! What goes wrong for a client, by kind.

use std::{error::Error as StdError, fmt, io};

/// Why something was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Nobody listens.
    Refused,
    /// No way to the host.
    Unreachable,
    /// The connection was torn down.
    Reset,
    /// The connection was ended before there was an answer.
    Closed,
    /// No answer in time.
    Timeout,
    /// A replica was asked to write.
    ReadOnly,
    /// PostgreSQL stops.
    ShuttingDown,
    /// PostgreSQL starts, or is not ready for clients.
    StartingUp,
    /// PostgreSQL has no room for another connection.
    Full,
    /// Another answer of PostgreSQL's, by its SQLSTATE.
    Sql(String),
    Other,
}

impl Trouble {
    /// Tells the kind of an error, whatever it is wrapped in.
    pub fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(sql) = error.downcast_ref::<tokio_postgres::Error>() {
                if let Some(code) = sql.code() {
                    return Self::of_sqlstate(code.code());
                }
                if sql.is_closed() {
                    return Trouble::Closed;
                }
            }
            if let Some(io) = error.downcast_ref::<io::Error>() {
                return Self::of_io(io.kind());
            }
            next = error.source();
        }
        Trouble::Other
    }

    /// Source: PostgreSQL's documentation, appendix A.
    fn of_sqlstate(code: &str) -> Self {
        match code {
            "25006" => Trouble::ReadOnly,
            "57P01" | "57P02" => Trouble::ShuttingDown,
            "57P03" => Trouble::StartingUp,
            "53300" => Trouble::Full,
            code => Trouble::Sql(code.to_owned()),
        }
    }

    fn of_io(kind: io::ErrorKind) -> Self {
        use io::ErrorKind as Kind;
        match kind {
            Kind::ConnectionRefused => Trouble::Refused,
            Kind::HostUnreachable | Kind::NetworkUnreachable => Trouble::Unreachable,
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Trouble::Reset,
            Kind::UnexpectedEof => Trouble::Closed,
            Kind::TimedOut => Trouble::Timeout,
            _ => Trouble::Other,
        }
    }

    /// Whether PostgreSQL itself answered, if only to refuse.
    pub fn is_answer(&self) -> bool {
        matches!(
            self,
            Trouble::ReadOnly
                | Trouble::ShuttingDown
                | Trouble::StartingUp
                | Trouble::Full
                | Trouble::Sql(_)
        )
    }
}

/// The identifier in documents.
impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trouble::Refused => "refused",
            Trouble::Unreachable => "unreachable",
            Trouble::Reset => "reset",
            Trouble::Closed => "closed",
            Trouble::Timeout => "timeout",
            Trouble::ReadOnly => "read_only",
            Trouble::ShuttingDown => "shutting_down",
            Trouble::StartingUp => "starting_up",
            Trouble::Full => "full",
            Trouble::Sql(code) => return write!(f, "sqlstate_{code}"),
            Trouble::Other => "other",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_found_behind_a_wrapping() {
        #[derive(Debug)]
        struct Wrapped(io::Error);
        impl fmt::Display for Wrapped {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("wrapped")
            }
        }
        impl StdError for Wrapped {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(&self.0)
            }
        }
        let wrapped = Wrapped(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(Trouble::of(&wrapped), Trouble::Refused);
        assert_eq!(Trouble::of(&fmt::Error), Trouble::Other);
    }

    #[test]
    fn what_postgresql_says_is_an_answer() {
        assert_eq!(Trouble::of_sqlstate("25006"), Trouble::ReadOnly);
        assert!(Trouble::of_sqlstate("57P03").is_answer());
        assert_eq!(Trouble::of_sqlstate("40001").to_string(), "sqlstate_40001");
        assert!(!Trouble::Closed.is_answer());
    }
}
