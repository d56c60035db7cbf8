//! `pgherd restore --into`: another cluster, made from this one's repository.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Global, backup, console::Console};
use crate::{
    engine::{
        context::{Context, Source},
        restore::{
            Restored,
            clone::{self, Outlook, Wish},
        },
        state,
    },
    error::{Code, Error, Result},
    inventory::{HostName, Inventory},
    quantity::{bytes, duration},
    report::Terminal,
    workspace::{Sql, Workspace},
};

/// What the command line asks for.
pub(super) struct Request {
    /// The clone's inventory.
    pub into: PathBuf,
    pub wish: Wish,
    /// As `--run` has it: a file, or a database and a file.
    pub run: Vec<String>,
    pub dry_run: bool,
}

pub(super) async fn run(
    global: &Global,
    request: Request,
    console: &Console,
    cancel: &CancellationToken,
) -> Result<()> {
    let terminal = &console.terminal;
    let source = global.existing(console).await?;
    let mut inventory = Inventory::load(&request.into)?;
    inventory.templates.clone_from(&global.templates);
    let open = match request.dry_run {
        true => Workspace::preview,
        false => Workspace::open,
    };
    let target = Source {
        inventory,
        templates: global.templates.as_deref(),
        operator: Arc::new(console.clone()),
    };
    state::arrive(&target).await?;
    let target = Context::new(target, open)?;
    let mut wish = request.wish;
    for text in &request.run {
        wish.run.push(sql(text, &source.inventory)?);
    }
    if request.dry_run {
        let outlook = clone::preview(&source, &target, &wish).await?;
        show(&outlook, terminal);
        return Ok(());
    }
    let made = clone::run(&source, &target, &wish, cancel).await;
    console.conclude(made.map(|it| told(&it, &source, &target)))
}

/// A file of SQL with its database: the named one, or the only one in the inventory.
fn sql(text: &str, inventory: &Inventory) -> Result<Sql> {
    let (named, file) = match text.split_once(':') {
        Some((database, file)) if !database.is_empty() && !database.contains('/') => {
            (Some(database), file)
        }
        _ => (None, text),
    };
    let file = std::path::absolute(Path::new(file)).map_err(|error| {
        Error::new(
            Code::InvalidArguments,
            format!("--run {text}: no file is named"),
        )
        .because(error)
    })?;
    let databases: Vec<&String> = inventory.postgresql.databases.keys().collect();
    let database = match (named, databases.as_slice()) {
        (Some(name), _) => name.to_owned(),
        (None, [only]) => (*only).clone(),
        (None, _) => {
            return Err(Error::new(
                Code::InvalidArguments,
                format!("--run {text}: in which database?"),
            )
            .left("nothing was changed")
            .hint(format!("name it: --run DATABASE:{text}")));
        }
    };
    Ok(Sql { database, file })
}

/// What a clone means. It is shown before the question.
pub(super) fn outline(outlook: &Outlook) -> String {
    let Outlook {
        from,
        into,
        to,
        host,
        replicas,
        source,
        places,
        made,
        run,
        archives,
        bucket,
    } = outlook;
    let names = |hosts: &[HostName]| {
        let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
        names.join(", ")
    };
    let mut text = format!(
        "This makes the cluster {into} from the repository of {from}, as it was at {to}, from the backup {} ({}){}.\n\
         {from} itself is not touched.\n",
        source.label,
        bytes(source.size),
        backup::in_place(places)
    );
    if !made.is_empty() {
        text.push_str(&format!("  hosts that are made first: {}\n", names(made)));
    }
    text.push_str(&format!(
        "  {host} is restored, with nobody connected; all passwords of {from} are removed\n"
    ));
    for sql in run {
        text.push_str(&format!(
            "  {} runs in {}, in one transaction\n",
            sql.file.display(),
            sql.database
        ));
    }
    text.push_str(&format!(
        "  then it opens, with the passwords of {into}{}\n",
        match replicas.as_slice() {
            [] => String::new(),
            some => format!(", and {} copy it", names(some)),
        }
    ));
    text.push_str(match archives {
        true => "  its WAL and its backups go to its own repository\n",
        false => "  it has no backups: none of its hosts has the role `backup`\n",
    });
    if let Some(bucket) = bucket {
        text.push_str(&format!("  {bucket}\n"));
    }
    text
}

/// The result of --dry-run.
fn show(outlook: &Outlook, terminal: &Terminal) {
    if terminal.json {
        let run = outlook.run.iter();
        let run: Vec<_> = run
            .map(|it| json!({"database": it.database, "file": it.file}))
            .collect();
        terminal.print_json(&json!({
            "from": outlook.from,
            "into": outlook.into,
            "to": outlook.to.to_string(),
            "host": outlook.host,
            "replicas": outlook.replicas,
            "backup": outlook.source.label,
            "bytes": outlook.source.size,
            "hosts_made": outlook.made,
            "run": run,
            "own_backups": outlook.archives,
            "bucket": outlook.bucket,
        }));
        return;
    }
    terminal.explain(&outline(outlook));
    terminal.say("nothing was changed; the same command without --dry-run does it");
}

fn told(made: &Restored, source: &Context, target: &Context) -> String {
    let seconds = u32::try_from(made.seconds.max(0)).unwrap_or(u32::MAX);
    let mut text = format!(
        "the cluster {} is made from {}, as it was at {}, from {} on {}, in {}",
        target.inventory.cluster,
        source.inventory.cluster,
        made.to,
        made.backup,
        made.host,
        duration(seconds.into())
    );
    if let Some(newest) = made.newest {
        text.push_str(&format!(
            "; its newest heartbeat is of {}",
            backup::time(newest)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(databases: &str) -> Inventory {
        let text = format!(
            "cluster: prod\nprovider: {{ kind: docker }}\npostgresql: {{ version: 16, users: {{ app: {{}} }}, databases: {{ {databases} }} }}\n\
             hosts:\n  db1: {{ roles: [postgres, etcd] }}\n  door: {{ roles: [haproxy] }}\n"
        );
        Inventory::parse(Path::new("prod.yaml"), &text).unwrap()
    }

    fn told(text: &str, databases: &str) -> String {
        match sql(text, &inventory(databases)) {
            Ok(it) => {
                let file = it.file.file_name().unwrap().to_string_lossy().into_owned();
                format!("{file} in {}", it.database)
            }
            Err(error) => error.what().to_owned(),
        }
    }

    #[test]
    fn sql_runs_in_the_named_database_or_in_the_only_one() {
        let shop = "shop: { owner: app }";
        let two = "shop: { owner: app }, crm: { owner: app }";
        for (text, databases, expected) in [
            ("a.sql", shop, "a.sql in shop"),
            ("crm:a.sql", shop, "a.sql in crm"),
            ("/tmp/x:y.sql", shop, "x:y.sql in shop"),
            ("shop:dir/a.sql", two, "a.sql in shop"),
            ("a.sql", two, "--run a.sql: in which database?"),
            ("a.sql", "", "--run a.sql: in which database?"),
        ] {
            assert_eq!(told(text, databases), expected);
        }
    }
}
