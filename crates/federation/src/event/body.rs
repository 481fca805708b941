//! The maps of the five kinds: keys 0, 1, 2, ... in the order written (CCP-1 section 8).

use commucat_proto::frame::group_event::Reason;
use commucat_proto::id::{DedupeKey, GroupId, Handle, MessageId, SealedRef};
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::{CborError, Reader, required};
use commucat_proto::wire::writer::Writer;

use super::{
    Body, Class, Deliver, Delivered, REFERENCES_MAX, Request, Requested, Return, Submit, Tag,
};

impl Body {
    /// Appends kind and map.
    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.uint(self.kind());
        match self {
            Self::Deliver(deliver) => deliver.write(to),
            Self::Submit(submit) => submit.write(to),
            Self::Return(returned) => returned.write(to),
            Self::Tag(tag) => tag.write(to),
            Self::Request(request) => request.write(to),
        }
    }

    /// Reads kind and map.
    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        match from.uint()? {
            1 => Deliver::read(from).map(Self::Deliver),
            2 => Submit::read(from).map(Self::Submit),
            3 => Return::read(from).map(Self::Return),
            4 => Tag::read(from).map(Self::Tag),
            5 => Request::read(from).map(Self::Request),
            _ => Err(CborError::Range("the kind of an event")),
        }
    }
}

impl Cbor for Class {
    fn write(&self, to: &mut Writer<'_>) {
        to.uint(match self {
            Self::Durable => 0_u8,
            Self::Ephemeral => 1,
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        Ok(if from.bit()? {
            Self::Ephemeral
        } else {
            Self::Durable
        })
    }
}

impl Cbor for Delivered {
    fn write(&self, to: &mut Writer<'_>) {
        to.uint(self.frame_type().code());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let code = from.small("the frame type of a delivery")?;
        Self::of_code(code).ok_or(CborError::Range("the frame type of a delivery"))
    }
}

impl Cbor for Requested {
    fn write(&self, to: &mut Writer<'_>) {
        to.uint(self.frame_type().code());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let code = from.small("the frame type of a request")?;
        Self::of_code(code).ok_or(CborError::Range("the frame type of a request"))
    }
}

impl Cbor for Deliver {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.group);
            map.put(1, &self.frame.class());
            map.put(2, &self.frame);
            map.put(3, &self.payload);
            map.key(4).list(&self.references);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut group, mut class, mut frame) = (None, None, None);
        let (mut payload, mut references) = (None, None);
        from.map(|key, from| {
            match key {
                0 => group = Some(GroupId::read(from)?),
                1 => class = Some(Class::read(from)?),
                2 => frame = Some(Delivered::read(from)?),
                3 => payload = Some(from.bytes()?),
                4 => references = Some(from.list(SealedRef::read)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        let (class, frame) = (required(class, 1)?, required(frame, 2)?);
        if class != frame.class() {
            return Err(CborError::Range("the class of a delivery"));
        }
        let references = required(references, 4)?;
        check_references(frame, &references)?;
        Ok(Self {
            group: required(group, 0)?,
            frame,
            payload: required(payload, 3)?,
            references,
        })
    }
}

fn check_references(frame: Delivered, references: &[SealedRef]) -> Result<(), CborError> {
    let most = match frame {
        Delivered::GroupInvite => 1,
        Delivered::Message | Delivered::Typing | Delivered::KeyUpdate | Delivered::GroupEvent => {
            REFERENCES_MAX
        }
    };
    if !(1..=most).contains(&references.len()) || holds_twice(references) {
        return Err(CborError::Range("the references of a delivery"));
    }
    Ok(())
}

fn holds_twice<T: Ord + Copy>(values: &[T]) -> bool {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.array_windows().any(|[left, right]| left == right)
}

impl Cbor for Submit {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.group);
            map.put(1, &self.handle);
            map.put(2, &self.reference);
            map.put(3, &self.class);
            map.put(4, &self.payload);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut group, mut handle, mut reference) = (None, None, None);
        let (mut class, mut payload) = (None, None);
        from.map(|key, from| {
            match key {
                0 => group = Some(GroupId::read(from)?),
                1 => handle = Some(Handle::read(from)?),
                2 => reference = Some(SealedRef::read(from)?),
                3 => class = Some(Class::read(from)?),
                4 => payload = Some(from.bytes()?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            group: required(group, 0)?,
            handle: required(handle, 1)?,
            reference: required(reference, 2)?,
            class: required(class, 3)?,
            payload: required(payload, 4)?,
        })
    }
}

impl Cbor for Return {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.group);
            map.put(1, &self.message);
            map.key(2).list(&self.handles);
            map.key(3).uint(self.reason.code());
            map.put(4, &self.author);
            map.put(5, &self.returned);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut group, mut message, mut handles) = (None, None, None);
        let (mut reason, mut author, mut returned) = (None, None, None);
        from.map(|key, from| {
            match key {
                0 => group = Some(GroupId::read(from)?),
                1 => message = Some(MessageId::read(from)?),
                2 => handles = Some(from.list(Handle::read)?),
                3 => reason = Some(Reason::of_code(from.uint()?)),
                4 => author = Some(SealedRef::read(from)?),
                5 => returned = Some(DedupeKey::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        let handles = required(handles, 2)?;
        if handles.len() > REFERENCES_MAX || holds_twice(&handles) {
            return Err(CborError::Range("the handles of a return"));
        }
        Ok(Self {
            group: required(group, 0)?,
            message: required(message, 1)?,
            returned: required(returned, 5)?,
            handles,
            reason: required(reason, 3)?,
            author: required(author, 4)?,
        })
    }
}

impl Cbor for Tag {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.group);
            map.put(1, &self.handle);
            map.put(2, &self.reference);
            map.put(3, &self.position);
            let tag = self.tag.as_ref().map_or(&[][..], |tag| &tag[..]);
            map.key(4).bytes(tag);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut group, mut handle, mut reference) = (None, None, None);
        let (mut position, mut tag) = (None, None);
        from.map(|key, from| {
            match key {
                0 => group = Some(GroupId::read(from)?),
                1 => handle = Some(Handle::read(from)?),
                2 => reference = Some(SealedRef::read(from)?),
                3 => position = Some(from.uint()?),
                4 => tag = Some(read_tag(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            group: required(group, 0)?,
            handle: required(handle, 1)?,
            reference: required(reference, 2)?,
            position: required(position, 3)?,
            tag: required(tag, 4)?,
        })
    }
}

fn read_tag(from: &mut Reader<'_>) -> Result<Option<[u8; 16]>, CborError> {
    match from.slice()? {
        [] => Ok(None),
        raw => raw
            .try_into()
            .map(Some)
            .map_err(|_| CborError::Range("the length of a fork tag")),
    }
}

impl Cbor for Request {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.frame);
            map.put(1, &self.payload);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut frame, mut payload) = (None, None);
        from.map(|key, from| {
            match key {
                0 => frame = Some(Requested::read(from)?),
                1 => payload = Some(from.bytes()?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            frame: required(frame, 0)?,
            payload: required(payload, 1)?,
        })
    }
}
