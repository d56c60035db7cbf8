//! Checks that no message leaves out the options that its commands need.

use super::*;

/// Where a command may be written out: the options are added to it later, or it is only an example.
const WRITTEN_OUT: [(&str, &str); 15] = [
    ("cli/args", "help texts"),
    ("cli/args/parts", "the same"),
    ("cli/drill", "help texts"),
    ("engine/state", "notes, to which the options are added"),
    ("error/code", "`Error::way_forward` adds the options"),
    ("plan/etcd_joins", "becomes a hint (`Finding::instead`)"),
    ("plan/etcd_leaves", "becomes a hint (`Finding::instead`)"),
    ("plan/membership", "becomes a hint (`Finding::instead`)"),
    ("plan/store", "becomes a hint (`Finding::instead`)"),
    ("plan/operate", "a hint, which has a name first"),
    (
        "provider/docker/claim",
        "the name of a socket, not a message",
    ),
    ("provider/aws", "a hint, which is a constant"),
    (
        "report/page/layout",
        "the page may be read far from the inventory",
    ),
    ("workspace/shared/local", "a hint, which has a name first"),
    ("workspace/secrets/form", "a comment in a file that stays"),
];

/// A user who types `-i FILE` must be able to copy a command from a message. Errors add the options to the commands in
/// their hints. All other messages get a command from `Inventory::command`.
#[test]
fn a_command_in_a_message_has_its_options() {
    let verbs = verbs();
    for (good, text) in [
        (true, "error.hint(\"run `pgherd up` again\")"),
        (
            true,
            "error\n.hint(format!(\n\"or make it: pgherd up {x}\"\n))",
        ),
        (false, "say(&format!(\"note: `pgherd up --remove {}`\", x))"),
        (false, "error.hint(\"a\").cause(\"pgherd down did it\")"),
        (true, "say(\"pgherd needs systemd; .pgherd up there\")"),
    ] {
        assert_eq!(written_out(text, &verbs).is_empty(), good, "{text}");
    }
    let mut unused: BTreeSet<&str> = WRITTEN_OUT.iter().map(|(file, _)| *file).collect();
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let file = file.join("/");
        let found = written_out(&text, &verbs);
        let is_allowed = WRITTEN_OUT.iter().any(|(allowed, _)| *allowed == file);
        match found.is_empty() {
            true => {}
            false if is_allowed => {
                unused.remove(file.as_str());
            }
            false => wrong.push((file, found)),
        }
    }
    assert!(
        wrong.is_empty(),
        "made by `Inventory::command`, these would have their options: {wrong:?}"
    );
    assert!(
        unused.is_empty(),
        "no longer needed in WRITTEN_OUT: {unused:?}"
    );
}

/// The verbs that take an inventory, from their list in the sources.
fn verbs() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/error/command.rs");
    let text = fs::read_to_string(path).unwrap();
    let (_, list) = text.split_once("VERBS: [&str").unwrap();
    let (list, _) = list.split_once("];").unwrap();
    let quoted = list.split('"').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

/// The commands in a text's literals, except those in an error's hints.
fn written_out(text: &str, verbs: &[String]) -> Vec<String> {
    const NAME: &str = "pgherd ";
    let mut found = Vec::new();
    for (at, _) in text.match_indices(NAME) {
        let is_word = text[..at].ends_with(['"', ' ', '`', '\n']);
        let after = &text[at + NAME.len()..];
        let verb = after.split(|c: char| !c.is_ascii_lowercase()).next();
        let Some(verb) = verb.filter(|verb| verbs.iter().any(|it| it == verb)) else {
            continue;
        };
        if is_word && !is_hint(&text[..at]) {
            found.push(format!("{NAME}{verb}"));
        }
    }
    found
}

/// Whether the text after `before` is an argument of `hint` or `left`, directly or inside another call.
fn is_hint(before: &str) -> bool {
    let mut closed = 0;
    for (at, c) in before.char_indices().rev() {
        match c {
            ')' => closed += 1,
            '(' if closed > 0 => closed -= 1,
            '(' if before[..at].ends_with(".hint") || before[..at].ends_with(".left") => {
                return true;
            }
            ';' | '{' | '}' if before[at + 1..].starts_with('\n') => return false,
            _ => {}
        }
    }
    false
}
