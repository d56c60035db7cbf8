//! Checks whether SSH answers, without an SSH client.

use std::{net::Ipv4Addr, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
    time::{interval, timeout},
};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(2);
/// Packets to a host that is still booting are lost, and TCP sends them again after 1 s, and 2 s after that.
const AGAIN: Duration = Duration::from_millis(500);

/// Whether an SSH server answers there within two seconds; it is asked twice a second.
pub(super) async fn answers(address: Ipv4Addr, port: u16) -> bool {
    let asking = async {
        let mut again = interval(AGAIN);
        let mut asked = FuturesUnordered::new();
        loop {
            tokio::select! {
                _ = again.tick() => asked.push(greets(address, port)),
                Some(greeted) = asked.next() => {
                    // If nothing listens, the connection is refused at once.
                    if greeted || asked.is_empty() {
                        return greeted;
                    }
                }
            }
        }
    };
    timeout(LIMIT, asking).await.unwrap_or(false)
}

async fn greets(address: Ipv4Addr, port: u16) -> bool {
    match TcpStream::connect((address, port)).await {
        Ok(stream) => is_greeting(stream).await,
        Err(_) => false,
    }
}

/// Whether a stream begins as that of an SSH server.
pub(super) async fn is_greeting(mut stream: impl AsyncRead + Unpin) -> bool {
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).await.is_ok() && &greeting == b"SSH-"
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_question_that_was_lost_is_asked_again_meanwhile() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let _lost = listener.accept().await.unwrap();
            let (mut second, _) = listener.accept().await.unwrap();
            second.write_all(b"SSH-2.0-x\r\n").await.unwrap();
            std::future::pending::<()>().await;
        });
        assert!(answers(Ipv4Addr::LOCALHOST, port).await);
        server.abort();
    }

    #[tokio::test]
    async fn who_says_something_else_is_not_ssh() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"220 mail\r\n").await.unwrap();
            }
        });
        assert!(!answers(Ipv4Addr::LOCALHOST, port).await);
        server.abort();
        let _ = server.await;
        assert!(!answers(Ipv4Addr::LOCALHOST, port).await, "nobody listens");
    }
}
