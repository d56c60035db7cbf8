//! Errors in words, and as JSON.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{
    labels,
    mask::Masks,
    terminal::{BAD, BOLD, DIM, HINT, Paint, Terminal, WARN},
    text,
};
use crate::{
    error::{Error, Kind},
    host::HostName,
};

/// Reports an error to people on stderr and, with `--json`, to programs on stdout.
///
/// If stdout has its one document already, that document says what is wrong, and the exit code says that
/// something is.
pub fn print_error(terminal: &Terminal, error: &Error) {
    if terminal.json && !terminal.answered.load(Ordering::Relaxed) {
        let mut value = error_json(error);
        terminal.masks.hide_in_json(&mut value);
        // Always on one line: it may end a stream of JSON lines.
        terminal.print(&value.to_string());
    }
    terminal.say(&error_text(error, &terminal.masks, terminal.stderr.paint()));
}

/// An error as a JSON object: `event: error`, `kind`, `exit_code`, `message`, and everything else.
///
/// `failures` holds objects with the same fields, without `event`.
pub fn error_json(error: &Error) -> Value {
    let mut value = json!({ "event": "error" });
    if let (Value::Object(into), Value::Object(fields)) = (&mut value, fields(error)) {
        into.extend(fields);
    }
    value
}

fn fields(error: &Error) -> Value {
    let mut value = json!({
        "code": error.code(),
        "kind": labels::kind(error.kind()),
        "exit_code": error.kind().exit_code(),
        "message": error.what(),
        "host": error.host(),
        "step": error.failed_step(),
        "causes": error.causes(),
        "excerpts": error
            .excerpts()
            .iter()
            .map(|excerpt| json!({ "title": excerpt.title, "text": excerpt.text }))
            .collect::<Vec<_>>(),
        "left": error.left_behind(),
        "hints": error.way_forward(),
        "failures": error.failures().iter().map(fields).collect::<Vec<_>>(),
    });
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| match value {
            Value::Null => false,
            Value::Array(items) => !items.is_empty(),
            _ => true,
        });
    }
    value
}

/// The whole error for people: each failure in its own block, and what they have in common at the end.
pub(super) fn error_text(error: &Error, masks: &Masks, paint: Paint) -> String {
    let mut printer = Printer {
        masks,
        paint,
        out: String::new(),
        shared: Vec::new(),
    };
    // Five hosts with the same problem need one hint, not five.
    let mut hints = Vec::new();
    collect_hints(error, &mut hints);
    for (i, hint) in hints.iter().enumerate() {
        if hints[i + 1..].contains(hint) && !printer.shared.contains(hint) {
            printer.shared.push(hint.clone());
        }
    }
    printer.error(error);
    for hint in std::mem::take(&mut printer.shared) {
        printer.labelled(HINT, "hint:", &hint);
    }
    printer.out
}

fn collect_hints(error: &Error, hints: &mut Vec<String>) {
    hints.extend(error.way_forward());
    for failure in error.failures() {
        collect_hints(failure, hints);
    }
}

struct Printer<'a> {
    masks: &'a Masks,
    paint: Paint,
    out: String,
    /// Hints that more than one failure has; they come at the very end.
    shared: Vec<String>,
}

impl Printer<'_> {
    fn error(&mut self, error: &Error) {
        self.heading(error);
        self.causes(error.causes());
        for excerpt in error.excerpts() {
            let title = excerpt.title.trim();
            if !title.is_empty() {
                let title = title.strip_suffix(':').unwrap_or(title);
                let title = format!("{}:", self.clean(title).join(" "));
                self.push(2, &self.paint.on(BOLD, title));
            }
            for line in self.clean(&excerpt.text) {
                self.push(4, &line);
            }
        }
        if let Some(left) = error.left_behind() {
            self.labelled(BOLD, "  left as it is:", left);
        }
        for failure in error.failures() {
            self.out.push('\n');
            self.error(failure);
        }
        let mut hints = error.way_forward();
        hints.retain(|hint| !self.shared.contains(hint));
        let tells_more = !hints.is_empty() || !self.shared.is_empty();
        if !error.failures().is_empty() && tells_more {
            self.out.push('\n');
        }
        for hint in hints {
            self.labelled(HINT, "hint:", &hint);
        }
    }

    /// `error: node2, install-packages: apt-get failed`, on one line for `grep`.
    fn heading(&mut self, error: &Error) {
        let what = self.clean(error.what());
        let mut what = what.iter();
        let first = what.next().map(String::as_str).unwrap_or_default();
        let at: Vec<&str> = error
            .host()
            .map(HostName::as_str)
            .into_iter()
            .chain(error.failed_step())
            .collect();
        let first = if at.is_empty() {
            first.to_owned()
        } else {
            format!("{}: {first}", at.join(", "))
        };
        let line = match error.kind() {
            Kind::Failed | Kind::Input | Kind::Broken => {
                let label = self.paint.on(BAD, "error:");
                format!("{label} {}", self.paint.on(BOLD, first))
            }
            // Neither a requested stop nor a pending change is an error.
            Kind::Pending | Kind::Interrupted => self.paint.on(WARN, first),
        };
        self.push(0, &line);
        for line in what {
            self.push(2, line);
        }
    }

    fn causes(&mut self, causes: &[String]) {
        match causes {
            [] => {}
            [cause] => self.labelled(DIM, "  caused by:", cause),
            several => {
                self.push(2, &self.paint.on(DIM, "caused by:"));
                for (i, cause) in several.iter().enumerate() {
                    self.labelled(DIM, &format!("    {}:", i + 1), cause);
                }
            }
        }
    }

    /// A label and its text; more lines of the text are indented like its first.
    fn labelled(&mut self, style: anstyle::Style, label: &str, text: &str) {
        let indent = label.len() + 1;
        let (spaces, word) = label.split_at(label.len() - label.trim_start().len());
        for (i, line) in self.clean(text).iter().enumerate() {
            if i == 0 {
                let line = format!("{spaces}{} {line}", self.paint.on(style, word));
                self.push(0, &line);
            } else {
                self.push(indent, line);
            }
        }
    }

    fn clean(&self, text: &str) -> Vec<String> {
        text::lines(&self.masks.hide(text))
    }

    fn push(&mut self, indent: usize, line: &str) {
        if !line.is_empty() {
            self.out.push_str(&" ".repeat(indent));
            self.out.push_str(line);
        }
        self.out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::{inventory::HostName, secret::Secret};

    fn plain(error: &Error) -> String {
        error_text(error, &Masks::default(), Paint::OFF)
    }

    fn apt(host: &str) -> Error {
        Error::new(Code::ScriptFailed, "apt-get exited with code 100")
            .on(&HostName::new(host))
            .step("install-packages")
            .excerpt(
                "the end of its output",
                "Reading package lists...\n\u{1b}[31mE:\u{1b}[0m Unable to locate package postgresql-16\n\n",
            )
            .hint("write `postgresql: { source: pgdg }`, or one of the versions above")
    }

    #[test]
    fn a_failure_says_what_where_why_and_what_next() {
        let error = apt("node2")
            .cause("the host's sources have 15 only")
            .left("nothing was installed;\nthe host is up");
        insta::assert_snapshot!(plain(&error), @r"
        error: node2, install-packages: apt-get exited with code 100
          caused by: the host's sources have 15 only
          the end of its output:
            Reading package lists...
            E: Unable to locate package postgresql-16
          left as it is: nothing was installed;
                         the host is up
        hint: write `postgresql: { source: pgdg }`, or one of the versions above
        ");
    }

    #[test]
    fn several_causes_are_numbered() {
        let error = Error::new(Code::FileUnusable, "inventories/local.yaml cannot be read")
            .cause("line 3, column 7: unknown key `rolls`")
            .cause("expected one of\nroles, address");
        insta::assert_snapshot!(plain(&error), @r"
        error: inventories/local.yaml cannot be read
          caused by:
            1: line 3, column 7: unknown key `rolls`
            2: expected one of
               roles, address
        hint: check the file's path, owner and mode: ls -l FILE
        ");
    }

    #[test]
    fn several_failures_are_told_in_full_by_host_and_shared_hints_once() {
        let error = Error::several(
            "2 steps failed",
            vec![apt("node3"), apt("node1").hint("only here")],
        )
        .hint("see the log");
        insta::assert_snapshot!(plain(&error), @r"
        error: 2 steps failed

        error: node1, install-packages: apt-get exited with code 100
          the end of its output:
            Reading package lists...
            E: Unable to locate package postgresql-16
        hint: only here

        error: node3, install-packages: apt-get exited with code 100
          the end of its output:
            Reading package lists...
            E: Unable to locate package postgresql-16

        hint: see the log
        hint: write `postgresql: { source: pgdg }`, or one of the versions above
        ");
    }

    #[test]
    fn an_untitled_excerpt_stands_alone_with_its_indentation() {
        let error = Error::new(Code::InventoryInvalid, "unknown key `rolls`").excerpt(
            "",
            "  --> pgherd.yaml:3:5\n   |\n 3 |     rolls: [etcd]\n   |     ^^^^^",
        );
        insta::assert_snapshot!(plain(&error), @r"
        error: unknown key `rolls`
              --> pgherd.yaml:3:5
               |
             3 |     rolls: [etcd]
               |     ^^^^^
        hint: correct the line; docs/inventory.md has each key and its values
        ");
    }

    #[test]
    fn a_stop_that_was_asked_for_is_no_error() {
        insta::assert_snapshot!(plain(&Error::interrupted().hint("run it again")), @r"
        interrupted
        hint: run it again
        ");
        let pending = Error::new(Code::ChangesPending, "3 files would change");
        insta::assert_snapshot!(plain(&pending), @r"
        3 files would change
        hint: make the changes: pgherd up
        ");
    }

    #[test]
    fn colours_mark_the_heading() {
        let text = error_text(
            &Error::new(Code::InternalError, "x").hint("y"),
            &Masks::default(),
            Paint(true),
        );
        assert_eq!(
            text,
            "\u{1b}[1m\u{1b}[31merror:\u{1b}[0m \u{1b}[1mx\u{1b}[0m\n\u{1b}[36mhint:\u{1b}[0m y\n"
        );
    }

    #[test]
    fn secrets_do_not_leak_through_errors() {
        let masks = Masks::default();
        masks.add(&[Secret::new("hunter2")]);
        let error = Error::new(Code::StatementFailed, "psql: hunter2")
            .cause("hunter2")
            .excerpt("of hunter2", "hunter2")
            .left("hunter2")
            .hint("hunter2");
        let error = Error::several("hunter2", vec![error]);
        assert!(!error_text(&error, &masks, Paint::OFF).contains("hunter2"));
        let mut value = error_json(&error);
        masks.hide_in_json(&mut value);
        assert!(!value.to_string().contains("hunter2"));
    }

    #[test]
    fn json_holds_every_part_and_leaves_out_what_is_empty() {
        let error = Error::several("2 hosts failed", vec![apt("node1").left("up")]).cause("c");
        insta::assert_json_snapshot!(error_json(&error), @r#"
        {
          "event": "error",
          "code": "script-failed",
          "kind": "failed",
          "exit_code": 1,
          "message": "2 hosts failed",
          "causes": [
            "c"
          ],
          "failures": [
            {
              "code": "script-failed",
              "kind": "failed",
              "exit_code": 1,
              "message": "apt-get exited with code 100",
              "host": "node1",
              "step": "install-packages",
              "excerpts": [
                {
                  "title": "the end of its output",
                  "text": "Reading package lists...\n\u001b[31mE:\u001b[0m Unable to locate package postgresql-16\n\n"
                }
              ],
              "left": "up",
              "hints": [
                "write `postgresql: { source: pgdg }`, or one of the versions above"
              ]
            }
          ]
        }
        "#);
    }
}
