//! Checks the roles and databases of applications.

use indexmap::IndexMap;

use super::{
    super::{
        Database, User, keys, limits,
        placed::span_of,
        problem::{Problem, alternatives, quoted},
        schema::{self, Word},
    },
    Problems,
};
use crate::contract::SUPERUSER;

/// The longest name that PostgreSQL does not cut off, in bytes.
const LONGEST: usize = 63;

/// Checks each role by itself, and that no role is a member of a role that it must not be a member of.
pub(super) fn users(
    problems: &mut Problems,
    written: Option<&IndexMap<Word, Option<schema::User>>>,
) -> IndexMap<String, User> {
    let mut users = IndexMap::new();
    for (name, user) in written.into_iter().flatten() {
        let checked = problems.keep(role_name(name));
        let memberships = user.as_ref().and_then(|user| user.roles.as_ref());
        let roles = memberships
            .into_iter()
            .flatten()
            .filter_map(|role| problems.keep(membership(name, role)))
            .collect();
        if let Some(name) = checked {
            users.insert(name, User { roles });
        }
    }
    users
}

/// Checks the databases. Each has an owner among the users as written, so that a mistake in a user's name is
/// reported once.
pub(super) fn databases(
    problems: &mut Problems,
    users: Option<&IndexMap<Word, Option<schema::User>>>,
    written: Option<&IndexMap<Word, Option<schema::Database>>>,
) -> IndexMap<String, Database> {
    let users: Vec<&str> = users
        .into_iter()
        .flatten()
        .map(|(name, _)| name.value.as_str())
        .collect();
    let mut databases = IndexMap::new();
    for (name, database) in written.into_iter().flatten() {
        let owner = database
            .as_ref()
            .and_then(|database| database.owner.as_ref());
        let owner = problems.keep(owner_of(name, owner, &users));
        let name = problems.keep(database_name(name));
        if let (Some(name), Some(owner)) = (name, owner) {
            databases.insert(name, Database { owner });
        }
    }
    databases
}

fn role_name(name: &Word) -> Result<String, Problem> {
    let value = name.value.as_str();
    if limits::USER_NAME.is_taken(value) {
        return Err(cannot_name(name, "a user").label("a role of the cluster's own"));
    }
    if limits::USER_NAME.is_reserved(value) {
        return Err(cannot_name(name, "a user").label("PostgreSQL keeps it for itself"));
    }
    plain_name(name, "a user")
}

fn database_name(name: &Word) -> Result<String, Problem> {
    if limits::DATABASE_NAME.is_taken(&name.value) {
        return Err(cannot_name(name, "a database").label("there already, in every cluster"));
    }
    plain_name(name, "a database")
}

/// Any text that PostgreSQL keeps unchanged and that fits on one line.
fn plain_name(name: &Word, what: &str) -> Result<String, Problem> {
    let value = name.value.as_str();
    let label = if value.is_empty() {
        "empty".to_owned()
    } else if value.len() > LONGEST {
        format!("longer than {LONGEST} bytes: PostgreSQL would cut it off")
    } else if value.chars().any(char::is_control) {
        "has a line break or another control character".to_owned()
    } else {
        return Ok(value.to_owned());
    };
    Err(cannot_name(name, what).label(label))
}

fn cannot_name(name: &Word, what: &str) -> Problem {
    Problem::new(
        span_of(name),
        format!("{} cannot name {what}", quoted(&name.value)),
    )
}

/// A role that a user may be a member of: one of PostgreSQL's own, or one that an administrator creates.
fn membership(user: &Word, role: &Word) -> Result<String, Problem> {
    let value = role.value.as_str();
    let problem = |label: &str| {
        Problem::new(
            span_of(role),
            format!(
                "{} cannot be a member of {}",
                quoted(&user.value),
                quoted(value)
            ),
        )
        .label(label)
    };
    if value == SUPERUSER {
        return Err(problem("that would make a superuser of it")
            .hint("give it what it needs, such as `pg_read_all_data` or `pg_monitor`"));
    }
    if value == user.value {
        return Err(problem("the same role"));
    }
    plain_name(role, "a role")
}

fn owner_of(database: &Word, owner: Option<&Word>, users: &[&str]) -> Result<String, Problem> {
    let name = owner.unwrap_or(database).value.as_str();
    if users.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(match owner {
        Some(owner) => Problem::new(
            span_of(owner),
            format!("{} is not one of `postgresql.users`", quoted(name)),
        )
        .did_you_mean(keys::nearest(name, users.iter().copied()))
        .hint(if users.is_empty() {
            "there is none yet; add it: `users: { NAME: {} }`".to_owned()
        } else {
            format!("valid here: {}", alternatives(users.iter().copied()))
        }),
        None => Problem::new(
            span_of(database),
            format!("the database {} has no owner", quoted(name)),
        )
        .label("no user is called the same")
        .hint("add one of `postgresql.users`: `owner: NAME`"),
    })
}
