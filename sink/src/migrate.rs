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
    let hot = HotStore::decide(&client, wanted).await?;
    prepare(&client, hot).await?;
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
async fn prepare(client: &Client, hot: HotStore) -> Result<(), Error> {
    let administrator = "SELECT rolsuper FROM pg_roles WHERE rolname = session_user";
    let row = client.query_one(administrator, &[]).await.map_err(Error::at("asking for rights"))?;
    if row.get(0) {
        client.batch_execute(ROLES).await.map_err(Error::at("making the roles"))?;
        for statement in administrator_statements(hot) {
            client.batch_execute(statement).await.map_err(Error::at("making the schemas"))?;
        }
    } else {
        check_rights(client, hot).await?;
    }
    client.batch_execute(BECOME_OWNER).await.map_err(Error::at("becoming the owner"))
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

fn administrator_statements(hot: HotStore) -> Vec<&'static str> {
    let mut statements = vec![
        "CREATE SCHEMA IF NOT EXISTS inosec AUTHORIZATION inosec_migrator;",
        "CREATE SCHEMA IF NOT EXISTS inosec_api AUTHORIZATION inosec_migrator;",
        "GRANT USAGE ON SCHEMA inosec TO inosec_loader, inosec_correlator, inosec_admin, inosec_view_owner;",
        "GRANT USAGE ON SCHEMA inosec_api TO inosec_api;",
        "GRANT USAGE, CREATE ON SCHEMA inosec_api TO inosec_view_owner;",
    ];
    if hot == HotStore::Timescale {
        statements.push("CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA public;");
    }
    statements
}

/// A login that is no administrator can migrate once an administrator did his part.
async fn check_rights(client: &Client, hot: HotStore) -> Result<(), Error> {
    let sql = "
        SELECT
            EXISTS (SELECT FROM pg_roles WHERE rolname = 'inosec_loader' AND rolbypassrls)
                AND 6 = (SELECT count(*) FROM pg_roles WHERE rolname IN ('inosec_migrator', 'inosec_loader',
                    'inosec_correlator', 'inosec_admin', 'inosec_view_owner', 'inosec_api')),
            coalesce((SELECT pg_has_role(session_user, oid, 'MEMBER') FROM pg_roles
                WHERE rolname = 'inosec_migrator'), false),
            2 = (SELECT count(*) FROM pg_namespace WHERE nspname IN ('inosec', 'inosec_api')),
            EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb'),
            session_user::text";
    let row = client.query_one(sql, &[]).await.map_err(Error::at("asking for rights"))?;
    let (roles, member, schemas, timescale): (bool, bool, bool, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    let mut statements = Vec::new();
    if !roles {
        statements.push(ROLES.to_owned());
    }
    if !member {
        statements.push(format!("GRANT inosec_migrator TO \"{}\";", row.get::<_, &str>(4)));
    }
    if !schemas || (hot == HotStore::Timescale && !timescale) {
        statements.extend(administrator_statements(hot).into_iter().map(str::to_owned));
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
        let advice = "a migration never changes once released; use the program that applied it, or a new database";
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
