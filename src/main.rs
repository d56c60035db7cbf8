//! The `pgherd` command: arguments in, exit code out.

use std::process::ExitCode;

use pgherd::{
    cli::{self, Cli},
    error::{Code, Error},
    report::{self, Terminal},
};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let cli = cli::parse();
    let terminal = Terminal::detect(cli.global.json, cli.global.verbose);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = Error::new(Code::LocalSystemFailed, "cannot start").because(error);
            report::print_error(&terminal, &error);
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(cli, &terminal));
    // A thread that still waits for a key or a slow pipe must not keep the process alive.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report::print_error(&terminal, &error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

async fn run(cli: Cli, terminal: &Terminal) -> Result<u8, Error> {
    if !cli.verb.can_be_interrupted() {
        return cli::run(cli, terminal, &CancellationToken::new()).await;
    }
    let grace = cli.verb.grace();
    let cancel = CancellationToken::new();
    let verb = cli::run(cli, terminal, &cancel);
    tokio::pin!(verb);
    tokio::select! {
        result = &mut verb => return result,
        () = stop() => cancel.cancel(),
    }
    tokio::select! {
        result = &mut verb => result,
        () = stop() => Err(Error::interrupted()),
        () = tokio::time::sleep(grace) => Err(Error::interrupted()),
    }
}

/// Returns when the user, or the program that runs pgherd, wants to stop.
async fn stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
