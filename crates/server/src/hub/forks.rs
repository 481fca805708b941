//! Fork tags: devices of a group that report different histories hear of it.

use std::time::Instant;

use commucat_federation::event::Tag;
use commucat_proto::frame::ack::ForkTag;
use commucat_proto::id::{Domain, GroupId, Handle};
use commucat_routing::hub::{Alarm, Author};

use super::{ALARMS_MAX, Hub};
use crate::session::Binding;

impl Hub {
    /// Notes a fork tag; tells everyone who reported if they differ (CCP-1 section 5.2).
    pub(crate) async fn tag(&self, binding: &Binding, tag: &ForkTag) {
        if !self.is_here(&binding.hub) {
            self.tag_abroad(binding, tag);
            return;
        }
        let author = Author {
            handle: &binding.handle,
            sealed_ref: &binding.sealed_ref,
            origin: self.domain(),
        };
        self.note(&binding.group, author, tag.position, tag.tag)
            .await;
    }

    /// The same for a device of `origin`.
    pub(crate) async fn tag_from(&self, origin: &Domain, tag: &Tag) {
        let author = Author {
            handle: &tag.handle,
            sealed_ref: &tag.reference,
            origin,
        };
        if self
            .0
            .hints
            .lock()
            .check(author.handle, Instant::now())
            .is_ok()
        {
            self.note(&tag.group, author, tag.position, tag.tag).await;
        }
    }

    async fn note(
        &self,
        group: &GroupId,
        author: Author<'_>,
        position: u64,
        tag: Option<[u8; 16]>,
    ) {
        let Ok(Some(mut view)) = self.load_if_unknown(group).await else {
            return;
        };
        if position > view.group.head {
            // Another node has appended the entry that this is about.
            let Ok(Some(newer)) = self.load(group).await else {
                return;
            };
            view = newer;
        }
        let is_member = view.group.authorise(author).is_ok();
        if !is_member || position > view.group.head {
            return;
        }
        self.charge(author);
        let (handle, now) = (*author.handle, Instant::now());
        let fork = self.with_alarm(group, |alarm| alarm.report(position, handle, tag, now));
        if let Some(cluster) = self.0.router.mailboxes().cluster() {
            cluster.tagged(*group, handle, position, tag);
        }
        if let Some(fork) = fork {
            self.0.forks.inc();
            self.tell_fork(group, &view, &fork);
        }
    }

    /// Notes a fork tag that another node took; who reported here is told within seconds.
    pub(crate) fn tagged_elsewhere(
        &self,
        group: &GroupId,
        handle: Handle,
        (position, tag): (u64, Option<[u8; 16]>),
    ) {
        let now = Instant::now();
        self.with_alarm(group, |alarm| {
            alarm.report_elsewhere(position, handle, tag, now);
        });
    }

    fn with_alarm<R>(&self, group: &GroupId, run: impl FnOnce(&mut Alarm) -> R) -> R {
        let mut alarms = self.0.alarms.lock();
        if alarms.len() >= ALARMS_MAX && !alarms.contains_key(group) {
            alarms.clear();
        }
        run(alarms.entry(*group).or_default())
    }
}
