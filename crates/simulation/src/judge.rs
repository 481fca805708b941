//! What everybody was promised, what they saw, and whether the two agree.

use std::collections::{BTreeMap, BTreeSet};

use commucat_proto::id::{GroupId, Handle};

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
    /// The log position that the acknowledged ciphertext names.
    acked: Option<u64>,
    /// Everyone, if nobody is named.
    returned: Option<BTreeSet<Handle>>,
    /// Its author left the group before it was acknowledged.
    withdrawn: bool,
    /// It was sealed again: order holds among frames that were taken at first (CCP-1 section 4).
    again: bool,
}

/// Who is in a group from a position on.
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    pub(crate) position: u64,
    pub(crate) members: BTreeMap<Handle, Index>,
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
            acked: None,
            returned: None,
            withdrawn: false,
            again: false,
        };
        self.texts.insert(text, written);
        text
    }

    /// Its author was told that it is safe.
    pub(crate) fn acked(&mut self, text: Text, position: u64) {
        self.counts.acked += 1;
        if let Some(written) = self.texts.get_mut(&text) {
            written.acked = Some(position);
        }
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
            let all = written.returned.get_or_insert_default();
            all.extend(handles.into_iter().flatten());
        }
    }

    /// It is under way again, after it was returned.
    pub(crate) fn written_again(&mut self, text: Text) {
        if let Some(written) = self.texts.get_mut(&text) {
            written.returned = None;
            written.acked = None;
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
        if !self.seen.insert((device, text)) {
            return self.complain(|| format!("client {device} shows text {text} twice"));
        }
        let shown = self.shown.entry((device, group)).or_default();
        let later = shown.iter().find(|other| {
            let other = self.texts.get(other);
            other.is_some_and(|other| other.author == author && other.counter > counter)
        });
        let later = later.filter(|_| !again);
        if let Some(later) = later.copied() {
            self.complain(|| {
                format!("client {device} shows text {text} of client {author} behind {later}")
            });
        }
        if let Some(shown) = self.shown.get_mut(&(device, group)) {
            shown.push(text);
        }
    }

    /// Every text of a group is answered, and every acknowledged one was shown by all who were in
    /// the group when it was sealed and still are.
    pub(crate) fn conclude(&mut self, group: &GroupId, history: &[Roster]) {
        let Some(last) = history.last() else { return };
        let texts = self.texts.clone();
        for (text, written) in texts.iter().filter(|(_, one)| one.group == *group) {
            let author = written.author;
            let Some(position) = written.acked else {
                if !written.withdrawn && written.returned.is_none() {
                    self.complain(|| format!("text {text} of client {author} is never answered"));
                }
                continue;
            };
            let sealed = history.iter().rev().find(|one| one.position <= position);
            let Some(sealed) = sealed else { continue };
            for (handle, device) in &sealed.members {
                let stays = last.members.get(handle) == Some(device);
                let named =
                    |returned: &BTreeSet<Handle>| returned.is_empty() || returned.contains(handle);
                let returned = written.returned.as_ref().is_some_and(named);
                let place = (*device, *text);
                let known = self.seen.contains(&place) || self.late.contains(&place);
                if stays && !returned && device != &author && !known {
                    self.complain(|| {
                        format!("text {text} of client {author} is acknowledged, and client {device} never shows it")
                    });
                }
            }
        }
    }
}
