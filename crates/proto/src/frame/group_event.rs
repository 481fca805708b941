//! GROUP_EVENT: a durable notice about a group or a message (CCP-1 key tables).

use bytes::BytesMut;

use crate::id::{DedupeKey, GroupId, Handle, MessageId};
use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader, required};
use crate::wire::writer::{MapWriter, Writer};

/// A notice. Make one with [`GroupEvent::new`] or a constructor of its kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupEvent {
    /// What happened: keys 0 to 5.
    pub notice: Notice,
    /// Key 11: the first 16 bytes of BLAKE3 over the deterministic keys 0 to 6; random for a gap.
    pub message: MessageId,
}

/// Keys 0 to 6 of a GROUP_EVENT.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notice {
    /// Key 0; absent for a gap.
    pub group: Option<GroupId>,
    /// Key 1.
    pub kind: EventKind,
    /// Key 2.
    pub position: Option<u64>,
    /// Key 3; absent (not empty) means everybody or nobody in particular.
    pub handles: Option<Vec<Handle>>,
    /// Key 4: the message that it is about.
    pub about: Option<MessageId>,
    /// Key 5.
    pub reason: Option<Reason>,
    /// Key 6: the dedupe key of the frame that came back. A message that is sealed again and comes
    /// back again is another event, with another key.
    pub returned: Option<DedupeKey>,
}

impl Notice {
    const fn of(kind: EventKind, group: Option<GroupId>) -> Self {
        Self {
            group,
            kind,
            position: None,
            handles: None,
            about: None,
            reason: None,
            returned: None,
        }
    }

    fn write_entries(&self, map: &mut MapWriter<'_, '_>) {
        map.put_some(0, self.group.as_ref());
        map.key(1).uint(self.kind.code());
        map.put_some(2, self.position.as_ref());
        if let Some(handles) = &self.handles {
            map.key(3).list(handles);
        }
        map.put_some(4, self.about.as_ref());
        if let Some(reason) = self.reason {
            map.key(5).uint(reason.code());
        }
        map.put_some(6, self.returned.as_ref());
    }
}

impl GroupEvent {
    /// The event of a notice, named by its content. Not for a gap, which has no group.
    #[must_use]
    pub fn new(notice: Notice) -> Self {
        let mut out = BytesMut::new();
        Writer::new(&mut out).map(|map| notice.write_entries(map));
        let message = MessageId::of_body(&out);
        Self { notice, message }
    }

    /// A message that did not reach `handles`; nobody at all if that is `None`. `returned` is the
    /// dedupe key of the frame that carried it.
    #[must_use]
    pub fn undelivered(
        group: GroupId,
        (about, returned): (MessageId, DedupeKey),
        handles: Option<Vec<Handle>>,
        reason: Reason,
    ) -> Self {
        Self::new(Notice {
            handles,
            about: Some(about),
            reason: Some(reason),
            returned: Some(returned),
            ..Notice::of(EventKind::Undelivered, Some(group))
        })
    }

    /// Devices that do not exist any more and are off the list.
    #[must_use]
    pub fn gone(group: GroupId, handles: Vec<Handle>) -> Self {
        let notice = Notice::of(EventKind::Gone, Some(group));
        Self::new(Notice {
            handles: Some(handles),
            ..notice
        })
    }

    /// Members disagree on the state after `position`.
    #[must_use]
    pub fn fork(group: GroupId, position: u64) -> Self {
        let notice = Notice::of(EventKind::Fork, Some(group));
        Self::new(Notice {
            position: Some(position),
            ..notice
        })
    }

    /// The group has ended.
    #[must_use]
    pub fn closed(group: GroupId) -> Self {
        Self::new(Notice::of(EventKind::Closed, Some(group)))
    }

    /// Entries were refused or expired; `message` is random.
    #[must_use]
    pub const fn gap(message: MessageId) -> Self {
        Self {
            notice: Notice::of(EventKind::Gap, None),
            message,
        }
    }
}

impl Cbor for GroupEvent {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            self.notice.write_entries(map);
            map.put(11, &self.message);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut kind, mut message) = (None, None);
        let mut notice = Notice::of(EventKind::Gap, None);
        from.map(|key, from| {
            match key {
                0 => notice.group = Some(GroupId::read(from)?),
                1 => kind = Some(EventKind::of_code(from.uint()?)),
                2 => notice.position = Some(from.uint()?),
                3 => notice.handles = Some(from.list(Handle::read)?),
                4 => notice.about = Some(MessageId::read(from)?),
                5 => notice.reason = Some(Reason::of_code(from.uint()?)),
                6 => notice.returned = Some(DedupeKey::read(from)?),
                11 => message = Some(MessageId::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        notice.kind = required(kind, 1)?;
        Ok(Self {
            notice,
            message: required(message, 11)?,
        })
    }
}

/// Declares a small set of codes that later versions may extend: others are kept, and ignored by
/// whoever reads them.
macro_rules! open_codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A code of a later version: acknowledge and ignore.
            Unknown(u64),
        }

        impl $name {
            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> u64 {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Unknown(code) => code,
                }
            }

            /// What a number on the wire means.
            #[must_use]
            pub const fn of_code(code: u64) -> Self {
                match code {
                    $($code => Self::$variant,)*
                    code => Self::Unknown(code),
                }
            }
        }
    };
}

open_codes! {
    /// What happened.
    EventKind {
        /// A message of this device did not reach somebody.
        Undelivered = 1,
        /// Devices do not exist any more.
        Gone = 2,
        /// Members disagree.
        Fork = 3,
        /// The group has ended.
        Closed = 4,
        /// Entries of this queue are missing: FETCH every group.
        Gap = 5,
    }
}

open_codes! {
    /// Why a message did not reach somebody.
    Reason {
        /// The queue is full.
        Full = 1,
        /// The device is gone.
        Gone = 2,
        /// It waited too long.
        Expired = 3,
        /// Not allowed.
        Forbidden = 4,
        /// Too far behind the head.
        Epoch = 5,
        /// The domains do not talk.
        Blocked = 6,
    }
}
