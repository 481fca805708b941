//! Groups in PostgreSQL: creation, list, and the compare-and-swap of a commit, all under the lock of
//! the group's row.

use commucat_proto::id::{Domain, GroupId, Handle, SealedRef};
use commucat_proto::time::Timestamp;
use tokio_postgres::Row;

use super::changes::After;
use super::convert::{fixed, millis, number, text_id};
use super::fault::Fault;
use super::pipeline::Pipeline;
use super::spool::{Begin, Queues, Wanted};
use super::tx::Tx;
use super::{Postgres, TRANSACTION_WAIT, log, outbox, transact, within};
use crate::store::QueueLimits;
use crate::store::groups::{
    Commit, CommitOutcome, Fanout, FanoutEntry, Group, GroupCreated, GroupHead, GroupRemoval,
    JoinKeyChange, NewGroup,
};
use crate::store::outbox::{OutboxLimits, Outboxed};
use crate::store::queues::{EntryKind, QueueSpooled, Spooled};
use crate::{Store, StoreError};

/// The columns that [`Found::read`] takes.
macro_rules! found_query {
    ($end:literal) => {
        concat!(
            "SELECT id, head, request_hash, revision, join_key, closed_at IS NOT NULL
             FROM groups WHERE group_id = $1",
            $end
        )
    };
}

const FIND: &str = found_query!("");
const LOCK: &str = found_query!(" FOR UPDATE");
const ENTRIES: &str = "SELECT f.handle, f.domain, f.sealed_ref, f.admin
    FROM groups AS g JOIN group_fanout AS f ON f.grp = g.id WHERE g.group_id = $1 ORDER BY f.id";
const GONE: &str = "SELECT o.handle
    FROM groups AS g JOIN group_gone AS o ON o.grp = g.id WHERE g.group_id = $1 ORDER BY o.id";

impl Postgres {
    pub(crate) async fn create_group(
        &self,
        group: NewGroup,
        now: Timestamp,
    ) -> Result<GroupCreated, StoreError> {
        transact!(self, tx => create(&tx, &group, now))
    }

    pub(crate) async fn group(&self, group: &GroupId) -> Result<Option<Group>, StoreError> {
        self.0.tally.count_read();
        let reading = async {
            let client = self.0.connections.get().await?;
            let tx = Tx::new(client, std::sync::Arc::clone(&self.0.tally));
            let loaded = load(&tx, group, Snapshot::Own).await?;
            tx.give_back();
            Ok(loaded)
        };
        Ok(within(TRANSACTION_WAIT, reading).await?)
    }

    pub(crate) async fn group_head(
        &self,
        group: &GroupId,
    ) -> Result<Option<GroupHead>, StoreError> {
        let raw = &group.as_bytes()[..];
        let row = self.row(FIND, &[&raw]).await?;
        let found = row.as_ref().map(Found::read).transpose()?;
        Ok(found.map(|found| GroupHead {
            head: found.head,
            revision: found.revision,
            closed: found.closed,
        }))
    }

    pub(crate) async fn commit(
        &self,
        commit: Commit,
        now: Timestamp,
    ) -> Result<CommitOutcome, StoreError> {
        transact!(self, tx => swap(&tx, (self.0.limits, self.0.outbox), &commit, now))
    }

    pub(crate) async fn remove_handles(
        &self,
        group: &GroupId,
        handles: Vec<Handle>,
        now: Timestamp,
    ) -> Result<Option<GroupRemoval>, StoreError> {
        transact!(self, tx => remove_gone(&tx, group, &handles, now))
    }

    pub(crate) async fn delete_group(&self, group: &GroupId) -> Result<bool, StoreError> {
        let raw = &group.as_bytes()[..];
        transact!(self, tx => async {
            let gone = tx.execute("DELETE FROM groups WHERE group_id = $1", &[&raw]).await?;
            Ok::<_, Fault>(gone > 0)
        })
    }
}

/// The row of a group.
pub(super) struct Found {
    pub(super) row: i64,
    pub(super) head: u64,
    request_hash: [u8; 32],
    revision: u64,
    join_key: Option<[u8; 32]>,
    closed: bool,
}

impl Found {
    fn read(row: &Row) -> Result<Self, Fault> {
        let join_key: Option<&[u8]> = row.try_get(4)?;
        Ok(Self {
            row: row.try_get(0)?,
            head: number(row, 1)?,
            request_hash: fixed(row, 2)?,
            revision: number(row, 3)?,
            join_key: join_key.map(|_| fixed(row, 4)).transpose()?,
            closed: row.try_get(5)?,
        })
    }
}

/// The row of a group, locked until the transaction ends.
async fn lock(tx: &Tx, group: &GroupId) -> Result<Option<Found>, Fault> {
    let row = tx.row(LOCK, &[&&group.as_bytes()[..]]).await?;
    row.as_ref().map(Found::read).transpose()
}

/// Whose moment a group is read at.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Snapshot {
    /// That of the transaction that runs, which has locked the group.
    Transaction,
    /// One of its own, for all three statements.
    Own,
}

/// Reads a group in one round trip.
async fn load(tx: &Tx, group: &GroupId, snapshot: Snapshot) -> Result<Option<Group>, Fault> {
    let id = &group.as_bytes()[..];
    let (begin, end) = match snapshot {
        Snapshot::Transaction => ("", ""),
        Snapshot::Own => ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "COMMIT"),
    };
    let (find, entries) = (tx.prepare(FIND).await?, tx.prepare(ENTRIES).await?);
    let gone = tx.prepare(GONE).await?;
    let mut pipeline = Pipeline::new(tx);
    pipeline.plain(begin);
    pipeline.query(find, vec![&id]);
    pipeline.query(entries, vec![&id]);
    pipeline.query(gone, vec![&id]);
    pipeline.plain(end);
    let answers = pipeline.run().await?;
    let [_, found, entries, gone, _] = answers.as_slice() else {
        return Err(Fault::corrupt("answer"));
    };
    let Some(found) = found.first().map(Found::read).transpose()? else {
        return Ok(None);
    };
    let entries: Result<Fanout, Fault> = entries
        .iter()
        .map(|row| {
            Ok(FanoutEntry {
                handle: Handle::new(fixed(row, 0)?),
                domain: text_id(row, 1, Domain::parse)?,
                sealed_ref: SealedRef::new(fixed(row, 2)?),
                admin: row.try_get(3)?,
            })
        })
        .collect();
    let gone: Result<_, Fault> = gone
        .iter()
        .map(|row| Ok(Handle::new(fixed(row, 0)?)))
        .collect();
    Ok(Some(Group {
        head: found.head,
        revision: found.revision,
        entries: entries?,
        gone: gone?,
        join_key: found.join_key,
        closed: found.closed,
    }))
}

async fn create(tx: &Tx, group: &NewGroup, now: Timestamp) -> Result<GroupCreated, Fault> {
    if let Some(found) = lock(tx, &group.group).await? {
        let same = found.request_hash == group.request_hash;
        return Ok(if same {
            GroupCreated::Repeat
        } else {
            GroupCreated::Conflict
        });
    }
    let join_key = group.join_key.as_ref().map(|key| &key[..]);
    let made = tx
        .change(
            "INSERT INTO groups (group_id, request_hash, head, revision, join_key)
             VALUES ($1, $2, 0, $3, $4) RETURNING id",
            // Starting at the time keeps revisions of a group made anew above those of the old one.
            &[
                &&group.group.as_bytes()[..],
                &&group.request_hash[..],
                &millis(now),
                &join_key,
            ],
        )
        .await?;
    let row = made.first().ok_or_else(|| Fault::corrupt("answer"))?;
    let row: i64 = row.try_get(0)?;
    add_entries(tx, row, std::slice::from_ref(&group.creator)).await?;
    if let Some(sealed) = &group.group_info {
        log::keep_group_info(tx, row, 0, sealed).await?;
    }
    Ok(GroupCreated::Created)
}

async fn swap(
    tx: &Tx,
    (limits, outbox_limits): (QueueLimits, OutboxLimits),
    commit: &Commit,
    now: Timestamp,
) -> Result<CommitOutcome, Fault> {
    let Some(found) = lock(tx, &commit.group).await? else {
        return Ok(CommitOutcome::NotFound);
    };
    if found.head != commit.expect {
        return refuse(tx, commit, &found).await;
    }
    if found.closed {
        return Ok(CommitOutcome::NotFound);
    }
    let position = found.head + 1;
    change_list(tx, commit, &found).await?;
    let (spooled, mut refused) = deliver(tx, limits, commit, now).await?;
    let events: Vec<_> = commit.relays.iter().map(|relay| &relay.entry).collect();
    let relayed = outbox::append(tx, outbox_limits, &events, now).await?;
    for (relay, done) in commit.relays.iter().zip(&relayed) {
        if *done == Outboxed::Full {
            refused.extend(relay.welcomes);
        }
    }
    log::append(tx, found.row, position, (commit, &refused), now).await?;
    log::keep_group_info(tx, found.row, position, &commit.group_info).await?;
    let join_key = match commit.join_key {
        JoinKeyChange::Keep => found.join_key,
        JoinKeyChange::Clear => None,
        JoinKeyChange::Set(key) => Some(key),
    };
    let join_key = join_key.as_ref().map(|key| &key[..]);
    tx.execute(
        "UPDATE groups SET head = head + 1, revision = revision + 1, join_key = $2 WHERE id = $1",
        &[&found.row, &join_key],
    )
    .await?;
    if commit.close {
        close(tx, found.row, now).await?;
    } else {
        settle_list(tx, found.row, now).await?;
    }
    Ok(CommitOutcome::Committed {
        position,
        spooled,
        relayed,
        refused,
    })
}

/// Appends the commit's rows; returns what became of them, and whose Welcome was refused.
async fn deliver(
    tx: &Tx,
    limits: QueueLimits,
    commit: &Commit,
    now: Timestamp,
) -> Result<(Vec<QueueSpooled>, Vec<Handle>), Fault> {
    let mut spooled = Vec::with_capacity(commit.deliveries.len());
    let mut refused = commit.refused.clone();
    if commit.deliveries.is_empty() {
        return Ok((spooled, refused));
    }
    let all = commit.deliveries.iter();
    let wanted = Wanted::of(all.map(|one| (one.queue, one.entries.as_slice())));
    let mut queues = Queues::load(tx, &wanted, Begin::Earlier).await?;
    for delivery in &commit.deliveries {
        let done = queues.append(limits, delivery.queue, &delivery.entries, now)?;
        let mut pairs = delivery.entries.iter().zip(&done.outcomes);
        let lost_invite = pairs.any(|(entry, outcome)| {
            entry.kind == EntryKind::GroupInvite && matches!(outcome, Spooled::Refused(_))
        });
        if lost_invite {
            refused.push(delivery.handle);
        }
        spooled.push(done);
    }
    queues.write(tx, After::GoOn).await?;
    Ok((spooled, refused))
}

/// The answer to a commit whose position is taken: perhaps by itself.
async fn refuse(tx: &Tx, commit: &Commit, found: &Found) -> Result<CommitOutcome, Fault> {
    let position = commit.expect.saturating_add(1);
    if let Some(refused) = log::repeat(tx, found.row, position, &commit.body_hash).await? {
        return Ok(CommitOutcome::Repeat { position, refused });
    }
    if found.closed {
        return Ok(CommitOutcome::NotFound);
    }
    Ok(CommitOutcome::Conflict { head: found.head })
}

fn raw(handles: impl Iterator<Item = Handle>) -> Vec<Vec<u8>> {
    handles.map(|handle| handle.as_bytes().to_vec()).collect()
}

async fn change_list(tx: &Tx, commit: &Commit, found: &Found) -> Result<(), Fault> {
    let removed = raw(commit.remove.iter().copied());
    let added = commit.add.iter().map(|entry| entry.handle);
    let added = raw(added);
    if !removed.is_empty() {
        let there = remove_entries(tx, found.row, &removed).await?;
        let mut gone = commit.remove.clone();
        gone.retain(|handle| there.contains(handle));
        remember_gone(tx, found.row, &gone).await?;
    }
    if !added.is_empty() {
        tx.execute(
            "DELETE FROM group_gone WHERE grp = $1 AND handle = ANY ($2::bytea[])",
            &[&found.row, &added],
        )
        .await?;
    }
    add_entries(tx, found.row, &commit.add).await?;
    if !commit.admins.is_empty() {
        let handles = raw(commit.admins.iter().map(|(handle, _)| *handle));
        let flags: Vec<bool> = commit.admins.iter().map(|(_, admin)| *admin).collect();
        tx.execute(
            "UPDATE group_fanout AS f SET admin = t.admin
             FROM unnest($2::bytea[], $3::boolean[]) AS t (handle, admin)
             WHERE f.grp = $1 AND f.handle = t.handle",
            &[&found.row, &handles, &flags],
        )
        .await?;
    }
    Ok(())
}

async fn add_entries(tx: &Tx, row: i64, entries: &[FanoutEntry]) -> Result<(), Fault> {
    if entries.is_empty() {
        return Ok(());
    }
    let handles = raw(entries.iter().map(|entry| entry.handle));
    let domains: Vec<&str> = entries.iter().map(|entry| entry.domain.as_str()).collect();
    let places = entries.iter().map(|entry| &entry.sealed_ref.as_bytes()[..]);
    let places: Vec<&[u8]> = places.collect();
    let flags: Vec<bool> = entries.iter().map(|entry| entry.admin).collect();
    tx.execute(
        "INSERT INTO group_fanout (grp, handle, domain, sealed_ref, admin)
         SELECT $1, t.handle, t.domain, t.sealed_ref, t.admin
         FROM unnest($2::bytea[], $3::text[], $4::bytea[], $5::boolean[]) WITH ORDINALITY
             AS t (handle, domain, sealed_ref, admin, n) ORDER BY t.n",
        &[&row, &handles, &domains, &places, &flags],
    )
    .await?;
    Ok(())
}

/// Removes entries; returns those that were there.
async fn remove_entries(tx: &Tx, row: i64, handles: &[Vec<u8>]) -> Result<Vec<Handle>, Fault> {
    let removed = tx
        .change(
            "DELETE FROM group_fanout WHERE grp = $1 AND handle = ANY ($2::bytea[])
             RETURNING handle",
            &[&row, &handles],
        )
        .await?;
    removed
        .iter()
        .map(|row| Ok(Handle::new(fixed(row, 0)?)))
        .collect()
}

/// A commit may remove these handles' leaves though they are not in the list any more.
async fn remember_gone(tx: &Tx, row: i64, handles: &[Handle]) -> Result<(), Fault> {
    let handles = raw(handles.iter().copied());
    tx.execute(
        "INSERT INTO group_gone (grp, handle)
         SELECT $1, t.handle FROM unnest($2::bytea[]) WITH ORDINALITY AS t (handle, n)
         ORDER BY t.n ON CONFLICT DO NOTHING",
        &[&row, &handles],
    )
    .await?;
    let kept = i64::try_from(Store::GONE_KEPT).unwrap_or(i64::MAX);
    tx.execute(
        "DELETE FROM group_gone WHERE id = ANY (ARRAY(
             SELECT id FROM group_gone WHERE grp = $1 ORDER BY id DESC OFFSET $2))",
        &[&row, &kept],
    )
    .await?;
    Ok(())
}

/// After a change: an empty list closes the group, and a list without an admin makes all admins.
async fn settle_list(tx: &Tx, row: i64, now: Timestamp) -> Result<(), Fault> {
    let counts = tx
        .one(
            "SELECT count(*), count(*) FILTER (WHERE admin) FROM group_fanout WHERE grp = $1",
            &[&row],
        )
        .await?;
    match (counts.try_get(0)?, counts.try_get(1)?) {
        (0_i64, _) => close(tx, row, now).await,
        (_, 0_i64) => {
            tx.execute(
                "UPDATE group_fanout SET admin = true WHERE grp = $1",
                &[&row],
            )
            .await?;
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn close(tx: &Tx, row: i64, now: Timestamp) -> Result<(), Fault> {
    tx.execute(
        "UPDATE groups SET closed_at = $2 WHERE id = $1 AND closed_at IS NULL",
        &[&row, &millis(now)],
    )
    .await?;
    Ok(())
}

async fn remove_gone(
    tx: &Tx,
    group: &GroupId,
    handles: &[Handle],
    now: Timestamp,
) -> Result<Option<GroupRemoval>, Fault> {
    let Some(found) = lock(tx, group).await? else {
        return Ok(None);
    };
    let there = remove_entries(tx, found.row, &raw(handles.iter().copied())).await?;
    // In the order asked for, each once.
    let mut removed = Vec::with_capacity(there.len());
    for handle in handles {
        if there.contains(handle) && !removed.contains(handle) {
            removed.push(*handle);
        }
    }
    if !removed.is_empty() {
        remember_gone(tx, found.row, &removed).await?;
        settle_list(tx, found.row, now).await?;
        tx.execute(
            "UPDATE groups SET revision = revision + 1 WHERE id = $1",
            &[&found.row],
        )
        .await?;
    }
    let group = load(tx, group, Snapshot::Transaction).await?;
    Ok(group.map(|group| GroupRemoval { removed, group }))
}
