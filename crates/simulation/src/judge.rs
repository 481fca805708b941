//! What everybody was promised, what they saw, and whether the two agree.

use std::collections::{BTreeMap, BTreeSet};

use commucat_proto::frame::FrameType;
use commucat_proto::frame::group_event::{EventKind, GroupEvent};
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{GroupId, Handle, MessageId};
use commucat_proto::wire::Cbor as _;
use commucat_routing::lane::Envelope;
use commucat_routing::ticket::Reason;

use crate::outside::Index;

/// A text that somebody wrote.
pub(crate) type Text = u64;

/// What became of a text.
#[derive(Clone, Debug)]
struct Written {
    author: Index,
    group: GroupId,
    /// Its place among the author's texts in the group.
    counter: u64,
    /// Who can read the ciphertext that was sent last.
    recipients: BTreeSet<Handle>,
    /// Its author was told that it is safe.
    acked: bool,
    /// Everyone, if nobody is named.
    returned: Option<BTreeSet<Handle>>,
    /// Its author left the group before it was acknowledged.
    withdrawn: bool,
    /// It was sealed again: order holds among frames that were taken at first (CCP-1 section 4).
    again: bool,
    /// Its author was out of the group when it sealed it.
    intrudes: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    texts: BTreeMap<Text, Written>,
    /// By who sees and who wrote: the texts in order.
    shown: BTreeMap<(Index, GroupId), Vec<Text>>,
    seen: BTreeSet<(Index, Text)>,
    /// Texts that came when their keys were gone; the device knows that something is missing.
    late: BTreeSet<(Index, Text)>,
    /// Texts of epochs that a device was never in; it knows that there is something.
    unreadable: BTreeSet<(Index, Text)>,
    /// Whose a handle is.
    owners: BTreeMap<Handle, Index>,
    arrivals: Vec<(Index, GroupId, (u64, u64))>,
    /// Devices whose own domain lies to others about them.
    lied_to: BTreeSet<Index>,
    /// Groups in which somebody did what may lead members apart.
    split: BTreeSet<GroupId>,
    /// Groups in which somebody reported a false tag.
    alarmed: BTreeSet<GroupId>,
    /// Who came into a group, or back, by an external commit.
    came_in: BTreeSet<(Index, GroupId)>,
    /// By their ids.
    messages: BTreeMap<MessageId, Text>,
    /// Whose queue refused something, or let it expire: it has to be told of a gap.
    owed: BTreeSet<Index>,
    /// Texts that a device's queue refused, or that expired there, and which of the two.
    dropped: BTreeMap<(Index, Text), Reason>,
    /// Who left a group for good: nobody can tell them anything of it any more.
    left: BTreeSet<(Index, GroupId)>,
    /// Handles whose Welcome has expired.
    uninvited: BTreeSet<Handle>,
    /// Devices whose notice of a fork is gone.
    unwarned: BTreeSet<(Index, GroupId)>,
    complaint: Option<String>,
    counts: Counts,
}

/// How much happened, to tell a run that shows something from one that shows nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Texts written.
    pub texts: u64,
    /// Texts acknowledged.
    pub acked: u64,
    /// Texts shown, on all devices.
    pub shown: u64,
    /// Entries of logs.
    pub commits: u64,
    /// Texts that came to a device when their keys were gone, of which it was told.
    pub late: u64,
    /// Devices that came into a group, or back, by an external commit.
    pub came_in: u64,
    /// Devices that were told `fork`.
    pub forks: u64,
    /// Entries that queues refused, or let expire.
    pub dropped: u64,
    /// Devices that were told of a gap.
    pub gaps: u64,
    /// Times that something went wrong on purpose.
    pub faults: u64,
}

impl Judge {
    /// Notes the first thing that must not happen.
    pub(crate) fn complain(&mut self, what: impl FnOnce() -> String) {
        if self.complaint.is_none() {
            self.complaint = Some(what());
        }
    }

    /// The first thing that must not have happened.
    pub(crate) fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) const fn count_fault(&mut self) {
        self.counts.faults += 1;
    }

    pub(crate) const fn count_commits(&mut self, commits: u64) {
        self.counts.commits += commits;
    }

    /// Somebody writes a text.
    pub(crate) fn written(&mut self, author: Index, group: GroupId, counter: u64) -> Text {
        self.counts.texts += 1;
        let text = self.counts.texts;
        let written = Written {
            author,
            group,
            counter,
            recipients: BTreeSet::new(),
            acked: false,
            returned: None,
            withdrawn: false,
            again: false,
            intrudes: false,
        };
        self.texts.insert(text, written);
        text
    }

    /// Somebody who is out of a group writes into it all the same.
    pub(crate) fn intrudes(&mut self, author: Index, group: GroupId) -> Text {
        let text = self.written(author, group, 0);
        if let Some(written) = self.texts.get_mut(&text) {
            written.intrudes = true;
            written.withdrawn = true;
        }
        text
    }

    /// How notices name it.
    pub(crate) fn is_called(&mut self, text: Text, message: MessageId) {
        self.messages.insert(message, text);
    }

    /// A device's queue has no room for an entry, or let it expire. The device is to be told, and of a
    /// message that is refused its author too.
    pub(crate) fn drops(&mut self, device: Index, envelope: &Envelope, reason: Reason) {
        self.counts.dropped += 1;
        self.owed.insert(device);
        match FrameType::of_code(envelope.frame) {
            Some(FrameType::Msg) => {
                let msg = Msg::decode(&envelope.body).ok();
                let text = msg.and_then(|msg| self.messages.get(&msg.message()).copied());
                if let Some(text) = text {
                    // What has expired may be brought again, by a request that was late.
                    let kept = self.dropped.entry((device, text)).or_insert(reason);
                    if reason == Reason::Expired {
                        *kept = reason;
                    }
                }
            }
            Some(FrameType::GroupInvite) => {
                let invite = GroupInvite::decode_shared(&envelope.body);
                self.uninvited.extend(invite.map(|invite| invite.handle));
            }
            Some(FrameType::GroupEvent) => {
                if let Ok(event) = GroupEvent::decode_shared(&envelope.body) {
                    self.drops_notice(device, &event);
                }
            }
            _ => {}
        }
    }

    /// Of what a notice said its device knows only that it was something.
    fn drops_notice(&mut self, device: Index, event: &GroupEvent) {
        let notice = &event.notice;
        let text = notice
            .about
            .and_then(|about| self.messages.get(&about).copied());
        match (notice.kind, notice.group, text) {
            (EventKind::Undelivered, _, Some(text)) => {
                self.returned(text, notice.handles.as_deref());
            }
            (EventKind::Fork, Some(group), _) => {
                self.unwarned.insert((device, group));
            }
            _ => {}
        }
    }

    /// A device is told that something is missing in its queue.
    pub(crate) fn told_gap(&mut self, device: Index) {
        self.counts.gaps += 1;
        self.owed.remove(&device);
    }

    /// A device leaves a group for good.
    pub(crate) fn leaves(&mut self, device: Index, group: GroupId) {
        self.left.insert((device, group));
    }

    /// Whether the Welcome for a handle has expired.
    pub(crate) fn is_uninvited(&self, handle: &Handle) -> bool {
        self.uninvited.contains(handle)
    }

    /// Whether a device's notice of a fork is gone.
    pub(crate) fn is_unwarned(&self, device: Index, group: &GroupId) -> bool {
        self.unwarned.contains(&(device, *group))
    }

    /// Everybody was told who had to be.
    pub(crate) fn conclude_gaps(&mut self) {
        if let Some(device) = self.owed.first().copied() {
            self.complain(|| format!("client {device} is never told of a gap"));
        }
    }

    /// It is sealed for these.
    pub(crate) fn sealed(&mut self, text: Text, recipients: impl Iterator<Item = Handle>) {
        if let Some(written) = self.texts.get_mut(&text) {
            written.recipients = recipients.collect();
        }
    }

    /// Its author was told that it is safe.
    pub(crate) fn acked(&mut self, text: Text) {
        self.counts.acked += 1;
        if let Some(written) = self.texts.get_mut(&text) {
            written.acked = true;
        }
    }

    /// Notes whose a handle is.
    pub(crate) fn owns(&mut self, device: Index, handle: Handle) {
        self.owners.insert(handle, device);
    }

    /// Whose a handle is.
    pub(crate) fn owner(&self, handle: &Handle) -> Option<Index> {
        self.owners.get(handle).copied()
    }

    /// Somebody does what may lead a group's members apart.
    pub(crate) fn splits(&mut self, group: GroupId) {
        self.split.insert(group);
    }

    /// Whether its members may be apart.
    pub(crate) fn is_split(&self, group: &GroupId) -> bool {
        self.split.contains(group)
    }

    /// Somebody reports a false tag.
    pub(crate) fn alarms(&mut self, group: GroupId) {
        self.alarmed.insert(group);
    }

    /// Somebody follows a GroupInfo. If it is of an entry that the device has not handled, it may be
    /// what whoever reported a false tag made (decision 0602); if it is not the newest that there is,
    /// the group may have gone on, and its key with it.
    pub(crate) fn follows(&mut self, group: GroupId, is_unhandled: bool, is_stale: bool) {
        if is_stale || is_unhandled && self.alarmed.contains(&group) {
            self.split.insert(group);
        }
    }

    /// The devices of a domain that lies: what they get may come late, or out of order.
    pub(crate) fn is_lied_to(&mut self, device: Index) {
        self.lied_to.insert(device);
    }

    /// A device is told `fork`.
    pub(crate) fn told_fork(&mut self, device: Index, group: &GroupId) {
        self.counts.forks += 1;
        if !self.split.contains(group) && !self.alarmed.contains(group) {
            self.complain(|| format!("client {device} is told of a fork that is none"));
        }
    }

    /// A device comes into a group by an external commit.
    pub(crate) fn comes_in(&mut self, device: Index, group: GroupId, at: (u64, u64)) {
        self.counts.came_in += 1;
        self.came_in.insert((device, group));
        self.arrivals.push((device, group, at));
    }

    /// Who came in since somebody looked: the device, the group, and the position and state there.
    pub(crate) fn take_arrivals(&mut self) -> Vec<(Index, GroupId, (u64, u64))> {
        std::mem::take(&mut self.arrivals)
    }

    /// A device is told that a text is of an epoch that it was never in.
    pub(crate) fn told_unreadable(&mut self, device: Index, text: Text) {
        self.unreadable.insert((device, text));
    }

    /// A device is told that a text came when its keys were gone (CCP-1 section 4: frames of older
    /// epochs are counted, not shown).
    pub(crate) fn told_too_late(&mut self, device: Index, text: Text) {
        if self.late.insert((device, text)) {
            self.counts.late += 1;
        }
    }

    /// Its author was told that these did not get it.
    pub(crate) fn returned(&mut self, text: Text, handles: Option<&[Handle]>) {
        if let Some(written) = self.texts.get_mut(&text) {
            match (handles, &mut written.returned) {
                (None, returned) => *returned = Some(BTreeSet::new()),
                // It was everyone before.
                (Some(_), Some(all)) if all.is_empty() => {}
                (Some(handles), returned) => returned.get_or_insert_default().extend(handles),
            }
        }
    }

    /// It is under way again, after it was returned.
    pub(crate) fn written_again(&mut self, text: Text) {
        if let Some(written) = self.texts.get_mut(&text) {
            written.returned = None;
            written.acked = false;
            written.again = true;
        }
    }

    /// It goes out under another epoch than before.
    pub(crate) fn sealed_again(&mut self, text: Text) {
        if let Some(written) = self.texts.get_mut(&text) {
            written.again = true;
        }
    }

    /// Its author is out of the group.
    pub(crate) fn withdrawn(&mut self, text: Text) {
        if let Some(written) = self.texts.get_mut(&text) {
            written.withdrawn = true;
        }
    }

    /// A device shows a text.
    pub(crate) fn shows(&mut self, device: Index, text: Text) {
        self.counts.shown += 1;
        let Some(written) = self.texts.get(&text) else {
            return self.complain(|| format!("client {device} shows a text that nobody wrote"));
        };
        let (author, group, counter) = (written.author, written.group, written.counter);
        let again = written.again;
        if written.intrudes {
            return self.complain(|| {
                format!("client {device} shows text {text} of client {author}, who is out")
            });
        }
        if !self.seen.insert((device, text)) {
            return self.complain(|| format!("client {device} shows text {text} twice"));
        }
        let shown = self.shown.entry((device, group)).or_default();
        let later = shown.iter().find(|other| {
            let other = self.texts.get(other);
            other.is_some_and(|other| other.author == author && other.counter > counter)
        });
        // What was refused at first and has room later comes late.
        let in_order = !again && !self.dropped.contains_key(&(device, text));
        let later = later.filter(|_| in_order && !self.lied_to.contains(&device));
        if let Some(later) = later.copied() {
            self.complain(|| {
                format!("client {device} shows text {text} of client {author} behind {later}")
            });
        }
        if let Some(shown) = self.shown.get_mut(&(device, group)) {
            shown.push(text);
        }
    }

    /// Every text of a group is answered, and every acknowledged one was shown by all for whom it
    /// was sealed and who are `present` at the end. Of authors in `trusted` only.
    pub(crate) fn conclude(
        &mut self,
        group: &GroupId,
        present: &BTreeMap<Handle, Index>,
        trusted: impl Fn(Index) -> bool,
    ) {
        let mut complaints = Vec::new();
        let of_group = |(_, one): &(&Text, &Written)| one.group == *group && trusted(one.author);
        for (text, written) in self.texts.iter().filter(of_group) {
            let author = written.author;
            if !written.acked {
                if !written.withdrawn && written.returned.is_none() {
                    complaints.push(format!("text {text} of client {author} is never answered"));
                }
                continue;
            }
            for handle in &written.recipients {
                // Without its Welcome a device takes no messages, also if a copy of that comes later.
                let present = present.get(handle).filter(|_| !self.is_uninvited(handle));
                let Some(device) = present else {
                    continue;
                };
                let named =
                    |returned: &BTreeSet<Handle>| returned.is_empty() || returned.contains(handle);
                let returned = written.returned.as_ref().is_some_and(named);
                let untold = self.left.contains(&(author, *group));
                let dropped = self.dropped.contains_key(&(*device, *text));
                let known = self.knows(*device, *text, group) || untold && dropped;
                if !returned && device != &author && !known {
                    complaints.push(format!("text {text} of client {author} is acknowledged, and client {device} never shows it"));
                }
            }
        }
        if let Some(first) = complaints.into_iter().next() {
            self.complain(|| first);
        }
    }

    /// Whether a device has shown a text, or knows that there is something that it cannot show.
    fn knows(&self, device: Index, text: Text, group: &GroupId) -> bool {
        let place = (device, text);
        let may_miss = self.is_split(group) || self.came_in.contains(&(device, *group));
        let misses = may_miss && self.unreadable.contains(&place);
        let expired = self.dropped.get(&place) == Some(&Reason::Expired);
        self.seen.contains(&place) || self.late.contains(&place) || misses || expired
    }
}
