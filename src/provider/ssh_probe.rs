//! Whether SSH answers, without an SSH client.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

/// Whether an SSH server greets us there within two seconds.
pub(super) async fn answers(address: Ipv4Addr, port: u16) -> bool {
    let greeting = async {
        let mut stream = TcpStream::connect((address, port)).await.ok()?;
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).await.ok()?;
        (&greeting == b"SSH-").then_some(())
    };
    matches!(
        timeout(Duration::from_secs(2), greeting).await,
        Ok(Some(()))
    )
}
