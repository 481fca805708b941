//! FETCH: a group's log, its GroupInfos, its list (CCP-1 section 5.4).

use commucat_crypto::signing::{Purpose, verify};
use commucat_proto::error::Title;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::fetch::{Fetch, FetchAccess, FetchResult, KeptGroupInfo};
use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::id::{Domain, GroupId, QueueId};
use commucat_proto::identity::JoinRead;
use commucat_proto::limits::ENTRIES_PAGE_MAX;
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor;
use commucat_routing::hub::{Author, Group};

use super::view::{routing_group, wire_entry};
use super::{Asker, Hub, not_found, refused};
use crate::accounts::storage;
use crate::clock;

/// GroupInfos in one answer (decision 0801, 23): what an answer of 1 MiB can hold.
const GROUP_INFOS_BYTES: usize = 900 * 1024;

impl Hub {
    /// Answers a FETCH of the device with this queue.
    ///
    /// # Errors
    ///
    /// [`Problem`] for the device.
    pub(crate) async fn fetch(
        &self,
        queue: &QueueId,
        fetch: &Fetch,
    ) -> Result<FetchResult, Problem> {
        self.fetched(Asker::Device(queue), fetch).await
    }

    /// Answers a FETCH of a device of `origin`.
    ///
    /// # Errors
    ///
    /// [`Problem`] for the device.
    pub(crate) async fn fetch_from(
        &self,
        origin: &Domain,
        fetch: &Fetch,
    ) -> Result<FetchResult, Problem> {
        self.fetched(Asker::Abroad(origin), fetch).await
    }

    async fn fetched(&self, asker: Asker<'_>, fetch: &Fetch) -> Result<FetchResult, Problem> {
        self.check_hub(&fetch.hub)?;
        let group = self.stored(&fetch.group).await?;
        match &fetch.access {
            FetchAccess::Member { handle, sealed_ref } => {
                let group = group.as_ref().ok_or_else(not_found)?;
                let origin = match asker {
                    Asker::Device(_) => self.domain(),
                    Asker::Abroad(origin) => origin,
                };
                let author = Author {
                    handle,
                    sealed_ref,
                    origin,
                };
                group.authorise(author).map_err(refused)?;
                if let Asker::Device(queue) = asker
                    && !self.is_own(sealed_ref, &fetch.group, &fetch.hub, queue)
                {
                    return Err(not_found());
                }
            }
            FetchAccess::Joiner(signed) => self.check_joiner(group.as_ref(), fetch, signed)?,
        }
        let group = group.ok_or_else(not_found)?;
        self.read(&group, fetch).await
    }

    async fn stored(&self, group: &GroupId) -> Result<Option<Group>, Problem> {
        Ok(self
            .0
            .store
            .group(group)
            .await
            .map_err(storage)?
            .map(routing_group))
    }

    fn check_joiner(
        &self,
        group: Option<&Group>,
        fetch: &Fetch,
        signed: &Signed,
    ) -> Result<(), Problem> {
        let read = JoinRead::decode_shared(&signed.body).map_err(|_| {
            Problem::new(
                Title::InvalidControlPayload,
                "the join read is not what it must be",
            )
        })?;
        // Without a group a signature is checked all the same, against a key that nothing verifies
        // under, so that an absent group costs what an absent join key costs.
        let key = group.and_then(|group| group.join_key).unwrap_or([0; 32]);
        let holds = verify(signed, Purpose::JoinRead, &key).is_ok();
        let is_for_this = read.group == fetch.group && read.hub == fetch.hub;
        let group = group
            .filter(|_| holds && is_for_this)
            .ok_or_else(not_found)?;
        let wants_more = fetch.want.entries || fetch.want.list;
        group
            .may_join_read(read.created, clock::now(), wants_more)
            .map_err(refused)
    }

    async fn read(&self, group: &Group, fetch: &Fetch) -> Result<FetchResult, Problem> {
        let wants_entries = fetch.want.entries && !fetch.want.group_info;
        let bytes = if wants_entries { ENTRIES_PAGE_MAX } else { 1 };
        let page = self
            .0
            .store
            .log_page(&fetch.group, fetch.from, bytes)
            .await
            .map_err(storage)?;
        let page = page.ok_or_else(not_found)?;
        let mut result = FetchResult {
            head: page.head,
            first_kept: page.first_kept,
            ..FetchResult::default()
        };
        if wants_entries {
            let entries = page
                .entries
                .iter()
                .map(|kept| LogEntry::decode_shared(&kept.entry));
            result.entries = entries.collect::<Result<_, _>>().map_err(|_| damaged())?;
        }
        if fetch.want.group_info {
            let infos = self.0.store.group_infos(&fetch.group, GROUP_INFOS_BYTES);
            let infos = infos.await.map_err(storage)?;
            let kept = |(position, sealed)| KeptGroupInfo { position, sealed };
            result.group_infos = infos.into_iter().map(kept).collect();
        }
        if fetch.want.list {
            result.fanout = Some(group.list.iter().map(wire_entry).collect());
        }
        Ok(result)
    }
}

pub(super) fn damaged() -> Problem {
    Problem::new(Title::StorageFailure, "an entry of the log is damaged")
}
