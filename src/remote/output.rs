//! Reads the output of a script while it runs.

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use super::{OnLine, runner::Told};
use crate::{
    error::{Code, Error, Result},
    event::Stream,
    inventory::HostName,
};

/// The limit of a script's output on each of its two streams, in bytes. A host that is broken or hostile could
/// print without end.
const LONGEST_OUTPUT: u64 = 16 << 20;

/// Why a script's output is incomplete.
#[derive(Debug)]
pub(super) enum Broken {
    Connection(openssh::Error),
    /// sshd opened no session for it in time.
    Crowded(openssh::Error),
    /// It was longer than [`LONGEST_OUTPUT`].
    TooMuch(Stream),
}

impl From<openssh::Error> for Broken {
    fn from(error: openssh::Error) -> Self {
        Self::Connection(error)
    }
}

/// Reads a stream to its end, and passes on each of the script's lines as it comes.
pub(super) async fn collect(
    stream: Option<impl AsyncRead + Unpin>,
    kind: Stream,
    on_line: OnLine<'_>,
) -> Result<Told, Broken> {
    let mut told = Told::default();
    let Some(stream) = stream else {
        return Ok(told);
    };
    // One more, to distinguish output of exactly the maximum length from longer output.
    let mut reader = BufReader::new(stream).take(LONGEST_OUTPUT + 1);
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
        if let Some(line) = told.take(&String::from_utf8_lossy(&line)) {
            on_line(kind, line.trim_end());
        }
        line.clear();
    }
    if reader.limit() == 0 {
        return Err(Broken::TooMuch(kind));
    }
    Ok(told)
}

/// The error of a host whose answer was too long.
pub(super) fn too_much(host: &HostName, stream: Stream) -> Error {
    let stream = match stream {
        Stream::Stdout => "standard output",
        Stream::Stderr => "standard error",
    };
    Error::new(Code::AnswerUnusable, "the host's answer does not end")
        .on(host)
        .cause(format!(
            "a script's {stream} was longer than {} MiB and was not read further",
            LONGEST_OUTPUT >> 20
        ))
        .hint("find out which program on the host prints so much")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_without_end_is_not_read_without_end() {
        let quiet = |_, _: &str| {};
        // One line, and many.
        let one = collect(Some(tokio::io::repeat(b'y')), Stream::Stdout, &quiet).await;
        assert!(matches!(one, Err(Broken::TooMuch(Stream::Stdout))));
        let many = collect(Some(tokio::io::repeat(b'\n')), Stream::Stderr, &quiet).await;
        assert!(matches!(many, Err(Broken::TooMuch(Stream::Stderr))));

        let mark = "pgherd: the script begins\n";
        let rest = LONGEST_OUTPUT - mark.len() as u64;
        let longest = mark.as_bytes().chain(tokio::io::repeat(b'y').take(rest));
        let all = collect(Some(longest), Stream::Stdout, &quiet).await;
        assert_eq!(all.map(|told| told.text.len() as u64).ok(), Some(rest));
    }
}
