//! Notices of a hub: members that are gone, groups that are split.

use commucat_proto::frame::group_event::GroupEvent;
use commucat_proto::id::{GroupId, Handle};
use commucat_routing::hub::Fork;

use super::Domain;
use super::custody::{Purpose, group_event};
use crate::outside::Outside;
use crate::plant::Plant;
use crate::store::Write;

impl Domain {
    /// Takes members whose references are gone out of the list, after all others have the notice.
    pub(super) fn depart(&mut self, out: &mut Outside, group: GroupId, gone: Vec<Handle>) {
        let Some(kept) = self.store.groups.get(&group) else {
            return;
        };
        let listed = |handle: &Handle| kept.group.entry(handle).is_some();
        let gone: Vec<_> = gone.into_iter().filter(listed).collect();
        if gone.is_empty() || !self.process.departing.insert(group) {
            return;
        }
        let list = kept.group.list.iter();
        let stay: Vec<_> = list
            .filter(|entry| !gone.contains(&entry.handle))
            .cloned()
            .collect();
        let notice = group_event(group, &GroupEvent::gone(group, gone.clone()));
        out.note(|| format!("{} members are gone", gone.len()));
        self.accept(out, Purpose::Departure(gone), &notice, &stay);
    }

    /// The notice is with everyone, or it is not and will be repeated.
    pub(super) fn take_out(
        &mut self,
        out: &mut Outside,
        group: GroupId,
        gone: Vec<Handle>,
        told: bool,
    ) {
        let Some(kept) = self.store.groups.get(&group).filter(|_| told) else {
            self.process.departing.remove(&group);
            return;
        };
        let departure = kept.group.depart(&gone);
        let after = Box::new(departure.group);
        let write = Write::Replace(group, kept.revision, after);
        self.begin_departure(out, write, group);
    }

    /// Tells those who reported differing histories.
    pub(super) fn tell_fork(&mut self, out: &mut Outside, group: &GroupId, fork: &Fork) {
        let kept = self.store.groups.get(group);
        let Some(kept) = kept.filter(|_| !out.has(Plant::ForkUntold)) else {
            return;
        };
        let list = kept.group.list.iter();
        let told: Vec<_> = list
            .filter(|entry| fork.told.contains(&entry.handle))
            .cloned()
            .collect();
        out.note(|| format!("a fork at {} is told to {}", fork.position, told.len()));
        let notice = group_event(*group, &GroupEvent::fork(*group, fork.position));
        self.accept(out, Purpose::Nothing, &notice, &told);
    }

    /// Tells of empty tags that have stood against others for too long.
    pub(super) fn tell_due_forks(&mut self, out: &mut Outside) {
        let now = out.instant();
        let alarms = self.process.alarms.iter_mut();
        let due: Vec<(GroupId, Fork)> = alarms
            .flat_map(|(group, alarm)| alarm.tick(now).into_iter().map(|fork| (*group, fork)))
            .collect();
        for (group, fork) in due {
            self.tell_fork(out, &group, &fork);
        }
    }
}
