//! The kinds of errors that clients get.

use std::{error::Error as StdError, fmt, io};

/// Why something was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientError {
    /// Nothing listens on the port.
    Refused,
    /// The host cannot be reached.
    Unreachable,
    /// The connection was reset.
    Reset,
    /// The connection was closed before there was an answer.
    Closed,
    /// There was no answer in time.
    Timeout,
    /// A replica was asked to write.
    ReadOnly,
    /// PostgreSQL is shutting down.
    ShuttingDown,
    /// PostgreSQL is starting, or is not ready for clients.
    StartingUp,
    /// PostgreSQL accepts no more connections.
    Full,
    /// Another error of PostgreSQL, by its SQLSTATE.
    Sql(String),
    Other,
}

impl ClientError {
    /// Finds the kind of an error, however deeply it is wrapped.
    pub fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(sql) = error.downcast_ref::<tokio_postgres::Error>() {
                if let Some(code) = sql.code() {
                    return Self::of_sqlstate(code.code());
                }
                if sql.is_closed() {
                    return ClientError::Closed;
                }
            }
            if let Some(io) = error.downcast_ref::<io::Error>() {
                return Self::of_io(io.kind());
            }
            next = error.source();
        }
        ClientError::Other
    }

    /// Source: PostgreSQL's documentation, appendix A.
    fn of_sqlstate(code: &str) -> Self {
        match code {
            "25006" => ClientError::ReadOnly,
            "57P01" | "57P02" => ClientError::ShuttingDown,
            "57P03" => ClientError::StartingUp,
            "53300" => ClientError::Full,
            code => ClientError::Sql(code.to_owned()),
        }
    }

    fn of_io(kind: io::ErrorKind) -> Self {
        use io::ErrorKind as Kind;
        match kind {
            Kind::ConnectionRefused => ClientError::Refused,
            Kind::HostUnreachable | Kind::NetworkUnreachable => ClientError::Unreachable,
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => {
                ClientError::Reset
            }
            Kind::UnexpectedEof => ClientError::Closed,
            Kind::TimedOut => ClientError::Timeout,
            _ => ClientError::Other,
        }
    }

    /// Whether PostgreSQL itself answered, even if only to refuse.
    pub fn is_answer(&self) -> bool {
        matches!(
            self,
            ClientError::ReadOnly
                | ClientError::ShuttingDown
                | ClientError::StartingUp
                | ClientError::Full
                | ClientError::Sql(_)
        )
    }
}

/// The identifier in documents.
impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClientError::Refused => "refused",
            ClientError::Unreachable => "unreachable",
            ClientError::Reset => "reset",
            ClientError::Closed => "closed",
            ClientError::Timeout => "timeout",
            ClientError::ReadOnly => "read_only",
            ClientError::ShuttingDown => "shutting_down",
            ClientError::StartingUp => "starting_up",
            ClientError::Full => "full",
            ClientError::Sql(code) => return write!(f, "sqlstate_{code}"),
            ClientError::Other => "other",
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
        assert_eq!(ClientError::of(&wrapped), ClientError::Refused);
        assert_eq!(ClientError::of(&fmt::Error), ClientError::Other);
    }

    #[test]
    fn what_postgresql_says_is_an_answer() {
        assert_eq!(ClientError::of_sqlstate("25006"), ClientError::ReadOnly);
        assert!(ClientError::of_sqlstate("57P03").is_answer());
        assert_eq!(
            ClientError::of_sqlstate("40001").to_string(),
            "sqlstate_40001"
        );
        assert!(!ClientError::Closed.is_answer());
    }
}
