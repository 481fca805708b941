//! External commits: back into a group, or into it by link; and the way out of it for good.

use bytes::Bytes;
use commucat_crypto::signing::{Purpose, SigningKey};
use commucat_proto::frame::FrameType;
use commucat_proto::frame::bundle::Bundle;
use commucat_proto::frame::fanout::{Change, FanoutEntry};
use commucat_proto::frame::fetch::{Fetch, FetchAccess, FetchResult, Want};
use commucat_proto::frame::join::Join;
use commucat_proto::frame::leave::Leave;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{Domain, GroupId, Handle, MessageId, SealedRef};
use commucat_proto::identity::JoinRead;
use commucat_proto::wire::Cbor as _;

use super::commit::{Commit, Content, Kind, group_info};
use super::group::{Epoch, Member, newest, next_epoch};
use super::model::{Asked, Model, Pending};
use crate::outside::Outside;
use crate::plant::Plant;

/// For so long a node may believe an older list, and twice that to be sure.
const VIEW_MS: u64 = 2_000;

/// A channel that no group has.
pub(super) const CHANNEL_OF_INTRUDER: u32 = 4_000;

/// GroupInfos only.
const INFOS: Want = Want {
    entries: false,
    group_info: true,
    list: false,
};

/// A group that is being joined by link.
#[derive(Debug)]
pub(crate) struct Joining {
    pub(crate) hub: Domain,
    /// The link's seed, and the group's key when the link was made.
    pub(crate) seed: SigningKey,
    pub(crate) group_key: u64,
    /// The handle that the device is to have, its domain and its reference.
    pub(crate) handle: SigningKey,
    pub(crate) domain: Domain,
    pub(crate) reference: SealedRef,
}

/// A way back into a group: the GroupInfo that opens, and how far the entries after it were looked at.
#[derive(Debug)]
pub(crate) struct Way {
    base: Epoch,
    /// The next entry to look at.
    next: u64,
}

impl Joining {
    /// Where its commit goes, and by which reference.
    pub(super) fn way(&self) -> (Domain, SealedRef) {
        (self.hub.clone(), self.reference)
    }
}

impl Model {
    /// Begins to join a group by link.
    pub(crate) fn join_by_link(&mut self, out: &mut Outside, group: GroupId, joining: Joining) {
        // A commit may be under way, for the handle of the first attempt.
        self.disk.joining.entry(group).or_insert(joining);
        self.pump(out);
    }

    /// Leaves a group for good.
    pub(crate) fn leave_for_good(&mut self, out: &mut Outside, group: GroupId) {
        out.judge.leaves(self.index, group);
        self.disk.leaving.insert(group);
        self.leave(out, &group);
        self.pump(out);
    }

    /// Sends into a group that it was removed from, under the last state that it had there.
    pub(crate) fn intrude(&mut self, out: &mut Outside, group: GroupId) {
        let since = out.now.saturating_sub(VIEW_MS);
        let member = self.disk.groups.get(&group);
        // Whoever leaves is out when its home knows.
        let member = member.filter(|_| !self.disk.leaving.contains(&group));
        let removed = member.filter(|one| one.out.is_some_and(|out| out < since));
        let (Some(member), true) = (removed, self.online.is_some()) else {
            return;
        };
        let Some(state) = member.epoch.state_before() else {
            return;
        };
        let join = Join {
            group,
            hub: member.hub.clone(),
            handle: member.handle(),
            sealed_ref: member.reference,
        };
        let content = Content {
            state,
            author: u64::try_from(self.index).unwrap_or(u64::MAX),
            nonce: out.random.next(),
            text: out.judge.intrudes(self.index, group),
        };
        let position = member.epoch.position.saturating_sub(1);
        let id = MessageId::new(out.random.bytes());
        let msg = Msg::new(position, id, &content.encode());
        let channel = CHANNEL_OF_INTRUDER;
        if let Some(online) = &mut self.online {
            online.intruded = Some(group);
        }
        let join = join.encode().into();
        self.ask(out, (FrameType::Join, channel), join, Asked::Nothing);
        let payload = msg.payload().clone();
        self.ask(out, (FrameType::Msg, channel), payload, Asked::Nothing);
    }

    pub(super) fn pump_leaving(&mut self, out: &mut Outside) {
        let leaving: Vec<GroupId> = self.disk.leaving.iter().copied().collect();
        for group in leaving {
            if !self.is_asking(Asked::Leave(group)) {
                let leave = Leave {
                    group,
                    for_good: true,
                };
                self.request(out, FrameType::Leave, &leave, Asked::Leave(group));
            }
        }
    }

    /// Asks for GroupInfos where the device compares or rejoins.
    pub(super) fn pump_infos(&mut self, out: &mut Outside, group: GroupId) {
        let (Some(member), Some(online)) = (self.disk.groups.get(&group), &self.online) else {
            return;
        };
        let has_way = self
            .disk
            .pending
            .as_ref()
            .is_some_and(|pending| pending.group == group && pending.external.is_some());
        // The answer to one commit must not be taken for that to another.
        let is_asking = [Asked::Infos(group), Asked::Way(group), Asked::Commit];
        let is_asking = is_asking.into_iter().any(|asked| self.is_asking(asked));
        let waits = out.now < online.fetch_at || is_asking || has_way;
        let asks = member.rejoins || (member.compares && !member.behind);
        if !member.is_in() || !asks || waits {
            return;
        }
        let fetch = Fetch {
            group,
            hub: member.hub.clone(),
            access: FetchAccess::Member {
                handle: member.handle(),
                sealed_ref: member.reference,
            },
            from: 0,
            want: INFOS,
        };
        self.request(out, FrameType::Fetch, &fetch, Asked::Infos(group));
    }

    /// Asks for what a link lets one read.
    pub(super) fn pump_links(&mut self, out: &mut Outside) {
        let groups: Vec<GroupId> = self.disk.joining.keys().copied().collect();
        for group in groups {
            let pending = self.disk.pending.as_ref();
            let is_on = pending.is_some_and(|pending| pending.group == group);
            let (Some(joining), Some(online)) = (self.disk.joining.get(&group), &self.online)
            else {
                return;
            };
            // One commit at a time, as for everything else.
            let waits = out.now < online.fetch_at || is_on || pending.is_some();
            if waits || self.is_asking(Asked::Link(group)) {
                continue;
            }
            let read = JoinRead {
                group,
                hub: joining.hub.clone(),
                created: out.time(),
            };
            let fetch = Fetch {
                group,
                hub: joining.hub.clone(),
                access: FetchAccess::Joiner(joining.seed.sign(Purpose::JoinRead, read.encode())),
                from: 0,
                want: INFOS,
            };
            self.request(out, FrameType::Fetch, &fetch, Asked::Link(group));
        }
    }

    /// GroupInfos for a member: it compares itself with the newest, or follows it.
    pub(super) fn infos_fetched(&mut self, out: &mut Outside, group: &GroupId, result: &Bytes) {
        let Ok(result) = FetchResult::decode_shared(result) else {
            return;
        };
        let me = self.index;
        let Some(member) = self.disk.groups.get_mut(group).filter(|one| one.is_in()) else {
            return;
        };
        let infos = infos(&result);
        let info = member.epoch.newest_info(out, me, &infos);
        if member.rejoins {
            let handle = member.handle();
            let info = info.filter(|info| info.roster.contains_key(&handle));
            let at = member.epoch.position;
            if let Some(info) = &info {
                let is_stale = info.position < newest_of(&infos);
                // A GroupInfo is passed over where it is rubbish; behind a removal nobody follows.
                let is_stale = is_stale && !out.has(Plant::InfoBeforeRemoval);
                out.judge.follows(*group, info.position > at, is_stale);
            }
            return match info {
                Some(info) if info.position < result.head && !out.has(Plant::InfoBeforeRemoval) => {
                    let next = info.position + 1;
                    if let Some(online) = &mut self.online {
                        online.ways.insert(*group, Way { base: info, next });
                    }
                    self.look_along(out, *group);
                }
                Some(info) => self.rejoin(out, *group, info.at(result.head)),
                None => {
                    out.note(|| format!("client {me} does not find back into a group"));
                    self.leave_for_good(out, *group);
                }
            };
        }
        if !std::mem::take(&mut member.compares) {
            return;
        }
        let is_behind = result.head > member.epoch.position;
        member.behind |= is_behind;
        let differs = info.is_some_and(|info| info.state() != member.epoch.state());
        let follows = member.epoch.is_astray(me) || out.has(Plant::AnyGroupInfo);
        if differs && follows && !is_behind {
            out.note(|| format!("client {me} is astray"));
            member.rejoins = true;
        }
    }

    /// Asks for the entries after the GroupInfo that the device wants to follow.
    fn look_along(&mut self, out: &mut Outside, group: GroupId) {
        let way = self.online.as_ref().and_then(|one| one.ways.get(&group));
        let (Some(way), Some(member)) = (way, self.disk.groups.get(&group)) else {
            return;
        };
        let fetch = Fetch {
            group,
            hub: member.hub.clone(),
            access: FetchAccess::Member {
                handle: member.handle(),
                sealed_ref: member.reference,
            },
            from: way.next,
            want: Want {
                entries: true,
                ..Want::default()
            },
        };
        self.request(out, FrameType::Fetch, &fetch, Asked::Way(group));
    }

    /// Entries after a GroupInfo: behind a removal the group has another key, and whoever lacks it is
    /// out; so is who cannot see whether there was one.
    pub(super) fn way_fetched(&mut self, out: &mut Outside, group: &GroupId, result: &Bytes) {
        let way = self.online.as_mut().and_then(|one| one.ways.remove(group));
        let (Some(mut way), Ok(result)) = (way, FetchResult::decode_shared(result)) else {
            return;
        };
        let is_in = self.disk.groups.get(group).is_some_and(Member::is_in);
        if !is_in {
            return;
        }
        let removes = result.entries.iter();
        let removes = removes
            .filter(|entry| !entry.change.remove.is_empty())
            .count();
        if removes > 0 || result.first_kept > way.next {
            let me = self.index;
            out.note(|| format!("client {me} is behind a removal"));
            return self.leave_for_good(out, *group);
        }
        let last = result
            .entries
            .last()
            .map_or(result.head, |one| one.position);
        way.next = last + 1;
        if last < result.head {
            if let Some(online) = &mut self.online {
                online.ways.insert(*group, way);
            }
            return self.look_along(out, *group);
        }
        self.rejoin(out, *group, way.base.at(result.head));
    }

    fn rejoin(&mut self, out: &mut Outside, group: GroupId, base: Epoch) {
        let other = self.disk.pending.as_ref();
        if other.is_some_and(|one| one.group != group) || self.is_asking(Asked::Commit) {
            // Its turn comes when the other commit is decided.
            return;
        }
        let Some(member) = self.disk.groups.get_mut(&group) else {
            return;
        };
        // The commit leads past whatever is missing.
        (member.rejoins, member.compares, member.behind) = (false, false, false);
        let commit = external(out, &base, (self.index, 0));
        let (key, change) = (member.key.clone(), Change::default());
        self.disk.pending = build((group, &key), base, commit, (change, None));
        if self.disk.pending.is_none() {
            self.leave_for_good(out, group);
        }
    }

    /// GroupInfos for whoever joins by link.
    pub(super) fn link_fetched(&mut self, out: &mut Outside, group: &GroupId, result: &Bytes) {
        let Ok(result) = FetchResult::decode_shared(result) else {
            return;
        };
        let Some(joining) = self.disk.joining.get(group) else {
            return;
        };
        if self.disk.pending.is_some() {
            return;
        }
        let me = self.index;
        let infos = infos(&result);
        let base = newest(joining.group_key, &infos, |_| true)
            // A Welcome is on its way to it.
            .filter(|base| base.roster.values().all(|(member, _)| *member != me));
        let pending = base.and_then(|base| {
            let base = base.at(result.head);
            let commit = external(out, &base, (self.index, base.link?));
            let entry = FanoutEntry {
                handle: Handle::new(joining.handle.public()),
                domain: joining.domain.clone(),
                sealed_ref: joining.reference,
                admin: false,
            };
            let change = Change {
                add: vec![entry],
                ..Change::default()
            };
            let signs = Some(&joining.seed);
            build((*group, &joining.handle), base, commit, (change, signs))
        });
        let index = self.index;
        if let Some(pending) = &pending {
            let is_stale = pending.base < newest_of(&infos);
            out.judge.follows(*group, true, is_stale);
        }
        if pending.is_none() {
            out.note(|| format!("client {index} has a dead link"));
            self.disk.joining.remove(group);
        }
        self.disk.pending = pending;
    }

    /// The hub has taken the external commit: the device is where that leads.
    pub(super) fn external_accepted(&mut self, out: &mut Outside, pending: Pending) {
        let Some(epoch) = pending.external else {
            return;
        };
        let (index, position) = (self.index, epoch.position);
        let group = pending.group;
        out.note(|| format!("client {index} comes in at {position}"));
        let tag = epoch.tag();
        out.judge.comes_in(index, group, (position, epoch.state()));
        let counter = self.disk.groups.get(&group).map_or(0, |old| old.counter);
        match self.disk.joining.remove(&group) {
            Some(joining) => {
                let place = (epoch, counter);
                let mut member = Member::new(joining.hub, joining.handle, joining.reference, place);
                // What came before the answer was not for a member.
                member.behind = true;
                self.disk.groups.insert(group, member);
            }
            None => {
                let Some(member) = self.disk.groups.get_mut(&group) else {
                    return;
                };
                member.epoch = epoch;
                // What was sealed on the way that led nowhere is of no use to anybody.
                for outgoing in self.disk.outbox.iter_mut().filter(|one| one.group == group) {
                    outgoing.sealed = None;
                }
            }
        }
        self.report(&group, position, tag);
        self.open_held(out, &group);
    }
}

fn external(out: &mut Outside, base: &Epoch, (client, link): (usize, u64)) -> Commit {
    Commit {
        kind: Kind::External,
        parent: base.state(),
        nonce: out.random.next(),
        spoiled: 0,
        link,
        clients: vec![client],
    }
}

/// Signs an external commit on `base`; none if it would lead nowhere.
fn build(
    (group, key): (GroupId, &SigningKey),
    base: Epoch,
    commit: Commit,
    (change, link): (Change, Option<&SigningKey>),
) -> Option<Pending> {
    let (author, expect) = (Handle::new(key.public()), base.position);
    let at = base.settled();
    let commit = commit.encode();
    let next = next_epoch(&base, (group, author), &commit, &change)?;
    let bundle = Bundle {
        group,
        expect,
        commit,
        change,
        welcomes: Vec::new(),
        sealed_group_info: group_info(&next, expect + 1),
        author,
        first_message: None,
    };
    let signed = match link {
        Some(seed) => seed.sign(Purpose::JoinCommit, bundle.encode()),
        None => key.sign(Purpose::Commit, bundle.encode()),
    };
    Some(Pending {
        group,
        entry: MessageId::of_body(&signed.body),
        bundle: signed,
        expect,
        first: None,
        external: Some(next.alone()),
        base: at,
    })
}

/// The position of the newest GroupInfo that the hub has.
fn newest_of(infos: &[(u64, Bytes)]) -> u64 {
    infos
        .iter()
        .map(|(position, _)| *position)
        .max()
        .unwrap_or(0)
}

fn infos(result: &FetchResult) -> Vec<(u64, Bytes)> {
    let infos = result.group_infos.iter();
    infos
        .map(|info| (info.position, info.sealed.clone()))
        .collect()
}
