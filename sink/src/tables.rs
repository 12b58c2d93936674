//! The tables of streams, derived from their descriptions: created, or brought up to them.
//!
//! Columns are only ever added, at the end. A column of another type, or one that became required
//! once there are rows, is an error that says so.

use inosec_schemas::{Catalog, ColumnSpec, Stream, column_definition, create_table};
use tokio_postgres::{Client, Transaction};

use crate::Error;
use crate::hot::HotStore;

/// Creates or completes the tables of all streams, each in a transaction.
pub(crate) async fn create(client: &mut Client, hot: HotStore, catalog: &Catalog) -> Result<(), Error> {
    for stream in catalog.streams.values() {
        let transaction = client.transaction().await.map_err(Error::at("making a stream's table"))?;
        create_one(&transaction, hot, stream).await?;
        transaction.commit().await.map_err(Error::at("making a stream's table"))?;
    }
    Ok(())
}

async fn create_one(transaction: &Transaction<'_>, hot: HotStore, stream: &Stream) -> Result<(), Error> {
    let failed = |source: tokio_postgres::Error| Error::Table {
        table: stream.name.clone(),
        what: source.as_db_error().map_or_else(|| source.to_string(), |db| db.message().to_owned()),
    };
    transaction.batch_execute(&table(stream, hot)).await.map_err(failed)?;
    let partition = format!(
        "SELECT inosec.partition_table('{}', '{}', interval '{}')",
        stream.name,
        stream.columns[stream.ts].name,
        stream.interval.sql(),
    );
    transaction.batch_execute(&partition).await.map_err(failed)?;
    complete(transaction, stream).await?;
    for statement in indexes(stream) {
        transaction.batch_execute(&statement).await.map_err(failed)?;
    }
    transaction.batch_execute(&rights(stream)).await.map_err(failed)
}

fn table(stream: &Stream, hot: HotStore) -> String {
    match hot {
        HotStore::Timescale => create_table(stream),
        HotStore::Postgres => {
            format!("{} PARTITION BY RANGE ({})", create_table(stream), stream.columns[stream.ts].name)
        }
    }
}

/// Adds the columns the table lacks.
async fn complete(transaction: &Transaction<'_>, stream: &Stream) -> Result<(), Error> {
    let sql = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = to_regclass('inosec.' || quote_ident($1)) AND attnum > 0 AND NOT attisdropped";
    let doing = Error::at("reading a stream's table");
    let rows = transaction.query(sql, &[&stream.name]).await.map_err(doing)?;
    for column in &stream.columns {
        let existing = rows.iter().find(|row| row.get::<_, &str>(0) == column.name);
        match existing.map(|row| row.get::<_, &str>(1)) {
            Some(ddl) if same_type(ddl, column.kind.ddl()) => {}
            Some(ddl) => {
                let what = format!(
                    "column {} is {ddl} and the description says {}: a column keeps its kind, add another",
                    column.name,
                    column.kind.ddl()
                );
                return Err(Error::Table { table: stream.name.clone(), what });
            }
            None => add_column(transaction, stream, column).await?,
        }
    }
    Ok(())
}

async fn add_column(
    transaction: &Transaction<'_>,
    stream: &Stream,
    column: &ColumnSpec,
) -> Result<(), Error> {
    let name = &column.name;
    let definition = column_definition(name, column.kind, column.required);
    let sql = format!("ALTER TABLE inosec.{} ADD COLUMN {definition}", stream.name);
    transaction.batch_execute(&sql).await.map_err(|source| {
        let message = source.as_db_error().map_or_else(|| source.to_string(), |db| db.message().to_owned());
        let what =
            format!("column {name} can't be added, stored rows have none, make it optional: {message}");
        Error::Table { table: stream.name.clone(), what }
    })
}

/// `format_type` spells two of the names out.
fn same_type(existing: &str, ddl: &str) -> bool {
    existing == ddl || (existing == "timestamp with time zone" && ddl == "timestamptz")
}

fn indexes(stream: &Stream) -> Vec<String> {
    let statement = |index: &inosec_schemas::Index| {
        let names = index.columns.iter().map(|column| column.trim_end_matches(" DESC"));
        let name = format!("{}_{}", stream.name, names.collect::<Vec<_>>().join("_"));
        let name = name.get(..63).unwrap_or(&name);
        format!("CREATE INDEX IF NOT EXISTS {name} ON inosec.{} ({})", stream.name, index.columns.join(", "))
    };
    stream.indexes.iter().map(statement).collect()
}

/// The loader inserts and nothing else; the correlator reads what was detected.
fn rights(stream: &Stream) -> String {
    let mut sql = format!("GRANT INSERT ON inosec.{} TO inosec_loader;", stream.name);
    if stream.name == "threat_events" {
        sql.push_str("GRANT SELECT, UPDATE (alert_id, late) ON inosec.threat_events TO inosec_correlator;");
    }
    let tenant = &stream.columns[stream.tenant].name;
    sql + &format!("SELECT inosec.expose('{}', '{tenant}');", stream.name)
}
