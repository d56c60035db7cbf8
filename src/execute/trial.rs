//! Tries PostgreSQL's parameters, and reports PostgreSQL's own error.

use super::{Context, Say, tail};
use crate::{
    error::{Code, Error, Result},
    plan::Step,
    remote::Script,
};

pub(super) async fn run(
    step: &Step,
    script: &Script,
    context: &Context,
    say: Say<'_>,
) -> Result<()> {
    let output = context
        .remote
        .run(&step.host, script, step.limit, say)
        .await?;
    if output.success() {
        return Ok(());
    }
    Err(refusal(&output.stderr, output.code).on(&step.host))
}

fn refusal(said: &str, code: i32) -> Error {
    let reasons = reasons(said);
    let mut error = Error::new(
        Code::ParametersRefused,
        "PostgreSQL would not start with the new parameters",
    );
    for reason in &reasons {
        error = error.cause(reason);
    }
    if reasons.is_empty() {
        error = error
            .cause(format!("the trial ended with exit code {code}"))
            .excerpt("stderr", tail(said, 20));
    }
    let is_missing = |reason: &String| {
        [
            "could not access file",
            "could not load library",
            "and there is no",
        ]
        .iter()
        .any(|it| reason.contains(it))
    };
    let hint = if reasons.iter().any(is_missing) {
        "install the library on every database host, or take it out of `postgresql.parameters` (or of what ALTER SYSTEM has set)"
    } else {
        "correct it in the inventory's `postgresql.parameters` (or in what ALTER SYSTEM has set)"
    };
    error
        .left("nothing was written, reloaded or restarted: PostgreSQL keeps its present parameters")
        .hint(hint)
}

/// The lines that say what is wrong. PostgreSQL names the parameter in a `LOG` line, before a `FATAL` line that
/// only says that there are mistakes.
fn reasons(said: &str) -> Vec<String> {
    const TELLING: [&str; 7] = [
        "invalid value for parameter",
        "unrecognized configuration parameter",
        "is outside the valid range",
        "syntax error",
        "cannot be changed",
        "HINT:",
        "DETAIL:",
    ];
    let mut reasons: Vec<String> = Vec::new();
    for line in said.lines() {
        let severe = ["FATAL:", "PANIC:", "ERROR:"]
            .iter()
            .find_map(|it| line.find(it));
        let telling = TELLING.iter().any(|it| line.contains(it));
        if severe.is_none() && !telling {
            continue;
        }
        let from = severe
            .or_else(|| {
                ["LOG:", "HINT:", "DETAIL:", "WARNING:"]
                    .iter()
                    .find_map(|it| line.find(it))
            })
            .unwrap_or(0);
        let line = line[from..]
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        if !reasons.contains(&line) {
            reasons.push(line);
        }
    }
    // Once the reason is known, the error of the trial server adds nothing.
    if reasons.len() > 1 {
        reasons.retain(|line| !line.contains("contains errors"));
    }
    reasons.truncate(6);
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_and_postgresqls_own_words_are_told() {
        let said = "2026-11-26 13:00:00.000 GMT [17] FATAL:  could not access file \"pg_nonesuch\": No such file or directory\n";
        let error = refusal(said, 1);
        assert_eq!(
            error.causes(),
            ["FATAL: could not access file \"pg_nonesuch\": No such file or directory"]
        );
        assert!(error.hints()[0].contains("install the library"));
        assert!(error.left_behind().unwrap().contains("nothing was written"));
        let said = "2026-11-26 13:00:00 GMT [17] LOG:  invalid value for parameter \"work_mem\": \"1kB\"\n\
                    2026-11-26 13:00:00 GMT [17] FATAL:  configuration file \"/tmp/pgherd-try.x/postgresql.conf\" contains errors\n";
        assert_eq!(
            refusal(said, 1).causes(),
            ["LOG: invalid value for parameter \"work_mem\": \"1kB\""]
        );
        let error = refusal("setpriv: no such user\n", 127);
        assert!(error.causes()[0].contains("127"));
        assert!(error.excerpts()[0].text.contains("no such user"));
    }
}
