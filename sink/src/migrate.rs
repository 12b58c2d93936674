//! Brings a database to what this program needs: roles, numbered migrations, the streams' tables.
//!
//! Everything is idempotent and runs under one advisory lock per database, so replicas may start
//! together. Each migration is one transaction with its row in `inosec.schema_migrations`.

use std::str::FromStr;
use std::time::Duration;

use inosec_schemas::{Catalog, MIGRATIONS, ROLES};
use tokio_postgres::{Client, Config, NoTls};

use crate::hot::{HotStore, Wanted};
use crate::{Error, tables};

/// Serialises migrations of one database. The number is arbitrary and must never change.
const LOCK: i64 = 0x0069_6e6f_7365_6301;

/// What a migration did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// How the database partitions its tables.
    pub hot: HotStore,
    /// Numbered migrations applied by this run: number and name.
    pub applied: Vec<(i32, String)>,
    /// The last migration the database now stands at.
    pub stands_at: i32,
}

/// Migrates the database at `url`, whose login must be an administrator or a member of
/// `inosec_migrator`; if neither, the error lists what to grant.
pub async fn migrate(url: &str, catalog: &Catalog, wanted: Wanted) -> Result<Migrated, Error> {
    migrate_to(url, catalog, wanted, i32::MAX).await
}

/// As [`migrate`], but stops after migration `last`; the streams' tables only come with all of them.
pub async fn migrate_to(url: &str, catalog: &Catalog, wanted: Wanted, last: i32) -> Result<Migrated, Error> {
    let mut client = connect(url).await?;
    let lock = "SELECT pg_advisory_lock($1)";
    client.query(lock, &[&LOCK]).await.map_err(Error::at("waiting for another migration"))?;
    let hot = prepare(&client, wanted).await?;
    let applied = apply(&mut client, hot, last).await?;
    if MIGRATIONS.iter().all(|(number, ..)| *number <= last) {
        tables::create(&mut client, hot, catalog).await?;
    }
    let stands_at = "SELECT coalesce(max(number), 0) FROM inosec.schema_migrations";
    let row = client.query_one(stands_at, &[]).await.map_err(Error::at("reading the migrations' history"))?;
    Ok(Migrated { hot, applied, stands_at: row.get(0) })
}

/// A session that waits for locks, but not for ever, and says nothing of what exists already.
async fn connect(url: &str) -> Result<Client, Error> {
    let mut config = Config::from_str(url).map_err(|source| Error::Url { source })?;
    config.application_name("inosec migrate").connect_timeout(Duration::from_secs(5));
    let (client, connection) = config.connect(NoTls).await.map_err(Error::at("connecting"))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the migration's connection ended");
        }
    });
    let set_up = "SET client_min_messages = warning; SET timezone = 'UTC'; SET lock_timeout = '60s'";
    client.batch_execute(set_up).await.map_err(Error::at("setting up the session"))?;
    Ok(client)
}

/// Makes what only an administrator may make, or checks that one made it; becomes the owner.
async fn prepare(client: &Client, wanted: Wanted) -> Result<HotStore, Error> {
    let administrator = "SELECT rolsuper FROM pg_roles WHERE rolname = session_user";
    let row = client.query_one(administrator, &[]).await.map_err(Error::at("asking for rights"))?;
    let administrator: bool = row.get(0);
    if !administrator {
        check_rights(client).await?;
        client.batch_execute("SET ROLE inosec_migrator").await.map_err(Error::at("becoming the owner"))?;
    }
    let hot = HotStore::decide(client, wanted).await?;
    if administrator {
        client.batch_execute(ROLES).await.map_err(Error::at("making the roles"))?;
        client.batch_execute(SCHEMAS).await.map_err(Error::at("making the schemas"))?;
    }
    if hot == HotStore::Timescale {
        make_extension(client, administrator).await?;
    }
    client.batch_execute(BECOME_OWNER).await.map_err(Error::at("becoming the owner"))?;
    Ok(hot)
}

const SCHEMAS: &str = "
    CREATE SCHEMA IF NOT EXISTS inosec AUTHORIZATION inosec_migrator;
    CREATE SCHEMA IF NOT EXISTS inosec_api AUTHORIZATION inosec_migrator;
    GRANT USAGE ON SCHEMA inosec TO inosec_loader, inosec_correlator, inosec_admin, inosec_view_owner;
    GRANT USAGE ON SCHEMA inosec_api TO inosec_api;
    GRANT USAGE, CREATE ON SCHEMA inosec_api TO inosec_view_owner;";

const EXTENSION: &str = "CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA public;";

async fn make_extension(client: &Client, administrator: bool) -> Result<(), Error> {
    let exists = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')";
    let row = client.query_one(exists, &[]).await.map_err(Error::at("looking for TimescaleDB"))?;
    match (row.get(0), administrator) {
        (true, _) => Ok(()),
        (false, true) => client.batch_execute(EXTENSION).await.map_err(Error::at("adding TimescaleDB")),
        (false, false) => Err(Error::Rights { statements: vec![EXTENSION.to_owned()] }),
    }
}

/// What the owner's session knows, and the migrations' history.
const BECOME_OWNER: &str = "
    SET ROLE inosec_migrator;
    CREATE TABLE IF NOT EXISTS inosec.schema_migrations (
        number integer PRIMARY KEY,
        name text NOT NULL,
        sha256 text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    );
    GRANT SELECT ON inosec.schema_migrations TO inosec_loader, inosec_correlator, inosec_admin;";

/// A login that is no administrator can migrate once an administrator did his part.
async fn check_rights(client: &Client) -> Result<(), Error> {
    let sql = "
        SELECT
            EXISTS (SELECT FROM pg_roles WHERE rolname = 'inosec_loader' AND rolbypassrls)
                AND 6 = (SELECT count(*) FROM pg_roles WHERE rolname IN ('inosec_migrator', 'inosec_loader',
                    'inosec_correlator', 'inosec_admin', 'inosec_view_owner', 'inosec_api')),
            coalesce((SELECT pg_has_role(session_user, oid, 'MEMBER') FROM pg_roles
                WHERE rolname = 'inosec_migrator'), false),
            2 = (SELECT count(*) FROM pg_namespace WHERE nspname IN ('inosec', 'inosec_api')),
            session_user::text";
    let row = client.query_one(sql, &[]).await.map_err(Error::at("asking for rights"))?;
    let (roles, member, schemas): (bool, bool, bool) = (row.get(0), row.get(1), row.get(2));
    let mut statements = Vec::new();
    if !roles {
        statements.push(ROLES.to_owned());
    }
    if !member {
        statements.push(format!("GRANT inosec_migrator TO \"{}\";", row.get::<_, &str>(3)));
    }
    if !schemas {
        statements.push(SCHEMAS.to_owned());
    }
    if statements.is_empty() { Ok(()) } else { Err(Error::Rights { statements }) }
}

async fn apply(client: &mut Client, hot: HotStore, last: i32) -> Result<Vec<(i32, String)>, Error> {
    let mut applied = Vec::new();
    let tell = format!("SET inosec.hot_store = '{}'", hot.name());
    client.batch_execute(&tell).await.map_err(Error::at("setting up the session"))?;
    for (number, name, text) in MIGRATIONS {
        if *number <= last && apply_one(client, hot, *number, name, text).await? {
            applied.push((*number, (*name).to_owned()));
        }
    }
    Ok(applied)
}

/// Applies one migration unless it was applied; true if it did.
async fn apply_one(
    client: &mut Client,
    hot: HotStore,
    number: i32,
    name: &str,
    text: &str,
) -> Result<bool, Error> {
    let doing = "keeping the migrations' history";
    let known = "SELECT sha256 = encode(sha256(convert_to($2, 'UTF8')), 'hex')
        FROM inosec.schema_migrations WHERE number = $1";
    if let Some(row) = client.query_opt(known, &[&number, &text]).await.map_err(Error::at(doing))? {
        if row.get(0) {
            return Ok(false);
        }
        let advice =
            "a migration never changes once released; use the program that applied it, or a new database";
        return Err(Error::Changed { number, name: name.to_owned(), advice });
    }
    let transaction = client.transaction().await.map_err(Error::at(doing))?;
    transaction.batch_execute(&for_store(text, hot)).await.map_err(Error::at("migrating"))?;
    let record = "INSERT INTO inosec.schema_migrations (number, name, sha256)
        VALUES ($1, $2, encode(sha256(convert_to($3, 'UTF8')), 'hex'))";
    transaction.execute(record, &[&number, &name, &text]).await.map_err(Error::at(doing))?;
    transaction.commit().await.map_err(Error::at("migrating"))?;
    tracing::info!(number, name, "migrated");
    Ok(true)
}

/// Opens the comments meant for plain PostgreSQL.
fn for_store(text: &str, hot: HotStore) -> String {
    match hot {
        HotStore::Timescale => text.to_owned(),
        HotStore::Postgres => {
            let mut opened = String::with_capacity(text.len());
            let mut rest = text;
            while let Some((before, after)) = rest.split_once("/*plain: ") {
                let (inside, behind) = after.split_once("*/").unwrap_or((after, ""));
                opened.push_str(before);
                opened.push_str(inside);
                rest = behind;
            }
            opened + rest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_for_plain_postgres_are_opened_only_there() {
        let text = "a /*plain: X (ts)*/; b /*plain: Y*/;";
        assert_eq!(for_store(text, HotStore::Postgres), "a X (ts); b Y;");
        assert_eq!(for_store(text, HotStore::Timescale), text);
    }

    #[test]
    fn migrations_are_numbered_without_a_gap() {
        let numbers: Vec<i32> = MIGRATIONS.iter().map(|(number, ..)| *number).collect();
        assert_eq!(numbers, (1..=i32::try_from(MIGRATIONS.len()).expect("few")).collect::<Vec<_>>());
    }
}
