//! How an application connects: where to, as whom, and with which settings.
//!
//! Nothing is asked of the hosts: the inventory, the provider's addresses and the workspace say it all.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use super::context::Context;
use crate::{
    cluster::{EACH, FrontDoors, SUPERUSER},
    error::{Code, Error, Result},
    inventory::Inventory,
    secret::Secret,
};

mod format;

pub(crate) use format::{Format, document};

/// What the user asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    pub user: Option<String>,
    pub database: Option<String>,
    /// A replica instead of the leader.
    pub read: bool,
    /// HAProxy, although there is a pooler.
    pub direct: bool,
}

/// What a client needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// The cluster's name.
    pub cluster: String,
    /// In the order in which a client tries them.
    pub hosts: Vec<String>,
    pub port: u16,
    pub user: String,
    pub database: String,
    pub password: Secret,
    /// The file with the authority that has signed the servers' certificates; `None` without TLS.
    pub authority: Option<String>,
    /// A client must find the leader among several hosts by itself.
    pub finds_leader: bool,
    /// It is a pooler's port.
    pub pooled: bool,
    pub read: bool,
}

impl Endpoint {
    /// Seconds for which a client waits for one of several hosts before it tries the next one.
    fn each(&self) -> Option<u32> {
        (self.hosts.len() > 1).then_some(EACH)
    }
}

/// Where and how the user's application connects.
pub(crate) async fn of(context: &Context, wish: &Wish) -> Result<Endpoint> {
    let inventory = &context.inventory;
    let user = user(inventory, wish)?;
    let database = database(inventory, wish, user)?;
    let secrets = context.secrets()?;
    let password = match user {
        SUPERUSER => Some(secrets.superuser),
        user => secrets.users.get(user).cloned(),
    };
    let password = password.ok_or_else(|| {
        Error::new(Code::NotPossibleNow, format!("{user} has no password yet"))
            .hint(format!("make the user: {}", context.command("up")))
    })?;
    let reads: Vec<&str> = inventory.pooled_for_reading().collect();
    let pooler = inventory.pgbouncer.as_ref().filter(|_| {
        let leads_there = !wish.read || reads.contains(&database);
        !wish.direct && user != SUPERUSER && leads_there
    });
    let hosts = context.host_status().await?;
    let doors = FrontDoors::of(inventory, &hosts.running);
    let found = doors.hosts(pooler.is_some());
    let authority = match inventory.tls.enabled {
        true => {
            let path = context.workspace.ca_path();
            Some(
                std::path::absolute(&path)
                    .unwrap_or(path)
                    .display()
                    .to_string(),
            )
        }
        false => None,
    };
    let port = match (pooler, wish.read) {
        (Some(pooler), _) => pooler.port,
        (None, true) => inventory.haproxy.read_port,
        (None, false) => inventory.haproxy.write_port,
    };
    Ok(Endpoint {
        cluster: inventory.cluster.clone(),
        finds_leader: found.len() > 1 && pooler.is_none() && !wish.read,
        hosts: found.into_iter().map(str::to_owned).collect(),
        port,
        user: user.to_owned(),
        database: match (pooler, wish.read) {
            (Some(_), true) => format!("{database}_read"),
            _ => database.to_owned(),
        },
        password,
        authority,
        pooled: pooler.is_some(),
        read: wish.read,
    })
}

fn refused(what: impl Into<String>) -> Error {
    Error::new(Code::InvalidArguments, what)
}

/// The named user; without a name, the only one of the inventory.
fn user<'a>(inventory: &'a Inventory, wish: &'a Wish) -> Result<&'a str> {
    let users: Vec<&str> = inventory
        .postgresql
        .users
        .keys()
        .map(String::as_str)
        .collect();
    let list = || format!("the users are: {}", users.join(", "));
    match wish.user.as_deref() {
        Some(SUPERUSER) => Ok(SUPERUSER),
        Some(user) if users.contains(&user) => Ok(user),
        Some(user) if users.is_empty() => Err(refused(format!(
            "the inventory has no user {user}: it has none"
        ))
        .hint("`postgresql: { users: { NAME: }, databases: { NAME: } }` and `up` make one")
        .hint(format!("the superuser: --user {SUPERUSER}"))),
        Some(user) => {
            Err(refused(format!("{user} is not one of `postgresql.users`")).cause(list()))
        }
        None => match users.as_slice() {
            [one] => Ok(one),
            [] => Err(refused("no user is named, and the inventory has none")
                .hint("`postgresql: { users: { NAME: }, databases: { NAME: } }` and `up` make one")
                .hint(format!("the superuser: --user {SUPERUSER}"))),
            _ => Err(refused("no user is named")
                .cause(list())
                .hint("--user NAME")),
        },
    }
}

/// The named database; without a name, the one that has the user's name or is the user's only one.
fn database<'a>(inventory: &'a Inventory, wish: &'a Wish, user: &str) -> Result<&'a str> {
    if let Some(database) = &wish.database {
        return Ok(database);
    }
    if user == SUPERUSER {
        return Ok("postgres");
    }
    let databases = &inventory.postgresql.databases;
    let own = databases.iter().filter(|(_, it)| it.owner == user);
    let own: Vec<&str> = own.map(|(name, _)| name.as_str()).collect();
    match own.as_slice() {
        [one] => Ok(one),
        [] => Ok("postgres"),
        several => match several.iter().find(|name| **name == user) {
            Some(name) => Ok(name),
            None => Err(refused(format!("{user} has several databases"))
                .cause(several.join(", "))
                .hint("--database NAME")),
        },
    }
}

/// Writes a file that only its owner may read. One that exists already stays as it is.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let written = options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        Error::new(
            Code::OutputUnwritable,
            format!("{} cannot be written", path.display()),
        )
        .because(error)
        .hint("a file that exists is not overwritten: name another one")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(postgresql: &str) -> Inventory {
        let text = format!(
            "cluster: pg\nprovider: {{ kind: existing }}\npostgresql: {{ {postgresql} }}\nhosts:\n  \
             db1: {{ roles: [postgres, etcd, haproxy], address: 192.0.2.1 }}\n"
        );
        Inventory::parse(Path::new("pgherd.yaml"), &text).unwrap()
    }

    fn chosen(inventory: &Inventory, wish: &Wish) -> Result<(String, String)> {
        let user = user(inventory, wish)?;
        let database = database(inventory, wish, user)?;
        Ok((user.to_owned(), database.to_owned()))
    }

    fn named(user: &str) -> Wish {
        Wish {
            user: Some(user.to_owned()),
            ..Wish::default()
        }
    }

    #[test]
    fn the_only_user_and_its_database_need_no_name() {
        let one = inventory("users: { shop: }, databases: { orders: { owner: shop } }");
        let found = chosen(&one, &Wish::default()).unwrap();
        assert_eq!(found, ("shop".into(), "orders".into()));
        let found = chosen(&one, &named("postgres")).unwrap();
        assert_eq!(found, ("postgres".into(), "postgres".into()));

        let two = "users: { shop: , crm: }, databases: { shop: , a: { owner: shop }, b: { owner: crm }, c: { owner: crm } }";
        let two = inventory(two);
        let error = chosen(&two, &Wish::default()).unwrap_err();
        assert_eq!(error.causes(), ["the users are: shop, crm"]);
        assert_eq!(chosen(&two, &named("shop")).unwrap().1, "shop");
        let error = chosen(&two, &named("crm")).unwrap_err();
        assert_eq!(error.causes(), ["b, c"]);
        let error = chosen(&two, &named("nobody")).unwrap_err();
        assert_eq!(error.what(), "nobody is not one of `postgresql.users`");

        let none = inventory("version: 16");
        let error = chosen(&none, &Wish::default()).unwrap_err();
        assert!(error.hints()[0].contains("users:"), "{error:?}");
    }
}
