//! Logs in the vault: entries that are numbered in the order in which they were written.

use rusqlite::params;

use super::{Vault, VaultError};

/// An entry of a log: its number and its value.
pub type Entry = (u64, Vec<u8>);

impl Vault {
    /// How many entries a log has.
    ///
    /// # Errors
    ///
    /// [`VaultError::Sqlite`].
    pub fn count(&self, table: &'static str, scope: &[u8]) -> Result<usize, VaultError> {
        let name = self.inner.sealer.name(table, scope, &[]);
        let db = self.inner.db.lock();
        let mut statement = db
            .connection
            .prepare_cached("SELECT count(*) FROM log WHERE tab = ?1 AND scope = ?2")?;
        let count: i64 = statement.query_row(params![table, name.scope], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// How many entries a log has, and how many bytes they take.
    ///
    /// # Errors
    ///
    /// [`VaultError::Sqlite`].
    pub fn extent(&self, table: &'static str, scope: &[u8]) -> Result<(usize, usize), VaultError> {
        let name = self.inner.sealer.name(table, scope, &[]);
        let db = self.inner.db.lock();
        let mut statement = db.connection.prepare_cached(
            "SELECT count(*), coalesce(sum(length(value)), 0) FROM log WHERE tab = ?1 AND scope = ?2",
        )?;
        let (count, bytes): (i64, i64) = statement
            .query_row(params![table, name.scope], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let size = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Ok((size(count), size(bytes)))
    }

    /// Removes all entries of a log; returns how many there were.
    ///
    /// # Errors
    ///
    /// [`VaultError::Sqlite`].
    pub fn clear(&self, table: &'static str, scope: &[u8]) -> Result<usize, VaultError> {
        let name = self.inner.sealer.name(table, scope, &[]);
        let db = self.inner.db.lock();
        let mut statement = db
            .connection
            .prepare_cached("DELETE FROM log WHERE tab = ?1 AND scope = ?2")?;
        Ok(statement.execute(params![table, name.scope])?)
    }

    /// Appends `value` to the log `table` of `scope`; returns its number, larger than any before.
    ///
    /// # Errors
    ///
    /// [`VaultError::Sqlite`].
    pub fn append(
        &self,
        table: &'static str,
        scope: &[u8],
        value: &[u8],
    ) -> Result<u64, VaultError> {
        self.transaction(|| {
            let mut name = self.inner.sealer.name(table, scope, &[]);
            let number = {
                let db = self.inner.db.lock();
                db.connection
                    .prepare_cached("INSERT INTO log (tab, scope, value) VALUES (?1, ?2, x'')")?
                    .execute(params![table, name.scope])?;
                db.connection.last_insert_rowid()
            };
            name.number(number);
            let sealed = self.inner.sealer.seal(&name, &[], value)?;
            self.inner
                .db
                .lock()
                .connection
                .prepare_cached("UPDATE log SET value = ?2 WHERE id = ?1")?
                .execute(params![number, sealed])?;
            Ok(number.unsigned_abs())
        })
    }

    /// Replaces entry `number` of a log; returns whether it was there.
    ///
    /// # Errors
    ///
    /// [`VaultError::Sqlite`].
    pub fn replace(
        &self,
        table: &'static str,
        scope: &[u8],
        number: u64,
        value: &[u8],
    ) -> Result<bool, VaultError> {
        let mut name = self.inner.sealer.name(table, scope, &[]);
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        name.number(number);
        let sealed = self.inner.sealer.seal(&name, &[], value)?;
        let count = self
            .inner
            .db
            .lock()
            .connection
            .prepare_cached("UPDATE log SET value = ?4 WHERE tab = ?1 AND scope = ?2 AND id = ?3")?
            .execute(params![table, name.scope, number, sealed])?;
        Ok(count > 0)
    }

    /// Removes entry `number` of a log; returns whether it was there.
    ///
    /// # Errors
    ///
    /// [`VaultError::Sqlite`].
    pub fn remove(
        &self,
        table: &'static str,
        scope: &[u8],
        number: u64,
    ) -> Result<bool, VaultError> {
        let name = self.inner.sealer.name(table, scope, &[]);
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let count = self
            .inner
            .db
            .lock()
            .connection
            .prepare_cached("DELETE FROM log WHERE tab = ?1 AND scope = ?2 AND id = ?3")?
            .execute(params![table, name.scope, number])?;
        Ok(count > 0)
    }

    /// Up to `limit` entries of a log with a number above `after`, ascending.
    ///
    /// # Errors
    ///
    /// [`VaultError::Damaged`] if an entry does not open.
    pub fn entries(
        &self,
        table: &'static str,
        scope: &[u8],
        after: u64,
        limit: u32,
    ) -> Result<Vec<Entry>, VaultError> {
        let mut name = self.inner.sealer.name(table, scope, &[]);
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let db = self.inner.db.lock();
        let mut statement = db.connection.prepare_cached(
            "SELECT id, value FROM log WHERE tab = ?1 AND scope = ?2 AND id > ?3
             ORDER BY id LIMIT ?4",
        )?;
        let mut rows = statement.query(params![table, name.scope, after, limit])?;
        let mut out = Vec::new();
        while let Some(row) = rows.next()? {
            let number: i64 = row.get(0)?;
            name.number(number);
            let value = self.inner.sealer.open(&name, &row.get::<_, Vec<u8>>(1)?)?.1;
            out.push((number.unsigned_abs(), value));
        }
        Ok(out)
    }
}
