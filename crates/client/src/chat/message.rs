//! Application messages: seal before the outbox, open from the queue (CCP-1 sections 4 and 5.5).

use std::time::{Duration, UNIX_EPOCH};

use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{AccountKey, DeviceId, GroupId, MessageId};
use commucat_proto::time::Timestamp;
use openmls::framing::errors::MessageDecryptionError;
use openmls::group::{MlsGroup, PastEpochDeletion, ProcessMessageError, ValidationError};
use openmls::prelude::{
    ContentType, MlsMessageBodyIn, ProcessedMessage, ProcessedMessageContent, ProtocolMessage,
};

use super::content::{Body, Content};
use super::profile::{Context, PAST_EPOCHS_MAX};
use super::roles::{Role, Standing};
use super::{Chat, ChatError, device, keys};

/// A ciphertext for the outbox.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// The MSG. Resend its payload as it is. After 4 commits, `Epoch Old` or `undelivered`: seal
    /// the content again.
    pub msg: Msg,
    /// The MLS epoch.
    pub epoch: u64,
}

/// What became of a received MSG.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Received {
    /// It opened. Record (author device, message id) with the message.
    Opened(Box<Opened>),
    /// It is of a later epoch (or the group is not joined yet): keep it unopened, try again after
    /// [`super::Applied::Advanced`].
    Later,
    /// It is of an epoch whose keys are gone: count it, do not show it.
    TooOld,
    /// Its key is not there: it was used before, for a copy that opened, or the message came more
    /// than 256 messages of its author late.
    Spent,
    /// It is one's own.
    Own,
    /// It is of an epoch that this device has, and is not good in it: its author is in another branch
    /// of the group, or sends rubbish.
    Foreign,
    /// It is not a good message of a member. Discard it.
    Invalid(&'static str),
}

/// A message that opened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opened {
    /// The author's account.
    pub account: AccountKey,
    /// The author's device.
    pub device: DeviceId,
    /// What the author may do in the group, as far as this device has followed it.
    pub role: Role,
    /// From the header, authenticated.
    pub message_id: MessageId,
    /// From the header, authenticated: how far the author had handled the log.
    pub position: u64,
    /// The epoch it was sealed in.
    pub epoch: u64,
    /// What it says.
    pub content: Content,
}

impl Chat {
    /// Gives a body the next counter of this device in the group.
    ///
    /// Keep the content until the message is settled: sealing it again takes the same one.
    ///
    /// # Errors
    ///
    /// [`ChatError::NotMember`].
    pub fn compose(
        &mut self,
        group: &GroupId,
        body: Body,
        sent: Timestamp,
        reply_to: Option<MessageId>,
    ) -> Result<Content, ChatError> {
        let mut record = self.record(group)?;
        record.member()?;
        record.counter += 1;
        record.save(self.provider.store())?;
        Ok(Content {
            body,
            sent,
            reply_to,
            counter: record.counter,
            settled: None,
        })
    }

    /// The counter of the last own content; 0 where there is none.
    #[must_use]
    pub fn counter(&self, group: &GroupId) -> u64 {
        self.record(group).map_or(0, |record| record.counter)
    }

    /// Encrypts a content for the group as it is now.
    ///
    /// The ciphertext and [`Chat::changes`] belong into one transaction, before a byte is sent.
    ///
    /// # Errors
    ///
    /// [`ChatError::NotMember`]; [`ChatError::Mls`] if OpenMLS cannot.
    pub fn seal(
        &mut self,
        group: &GroupId,
        message_id: &MessageId,
        content: &Content,
    ) -> Result<Sealed, ChatError> {
        let record = self.record(group)?;
        record.member()?;
        self.attempt(group, |chat| {
            let mut mls = chat.take(group)?;
            mls.set_aad(Msg::authenticated_head(record.position, *message_id));
            let ciphertext = mls
                .create_message(&chat.provider, &chat.identity.signer, &content.encode())
                .map_err(ChatError::mls("seal"))?
                .to_bytes()
                .map_err(ChatError::mls("seal"))?;
            let epoch = mls.epoch().as_u64();
            chat.put_back(*group, mls);
            Ok(Sealed {
                msg: Msg::new(record.position, *message_id, &ciphertext),
                epoch,
            })
        })
    }

    /// Decrypts a received message.
    ///
    /// # Errors
    ///
    /// [`ChatError::Store`] only; a bad message is [`Received::Invalid`].
    pub fn open(&mut self, group: &GroupId, msg: &Msg) -> Result<Received, ChatError> {
        let Some(message) = application_message(msg, group) else {
            return Ok(Received::Invalid(
                "not an application message under this header",
            ));
        };
        let mut mls = match self.take(group) {
            Ok(mls) => mls,
            Err(ChatError::NotMember) => return Ok(Received::Later),
            Err(error) => return Err(error),
        };
        let epoch = message.epoch().as_u64();
        let received = self.open_with(&mut mls, msg, message)?;
        self.put_back(*group, mls);
        // MLS does not tell a deleted epoch from a key that was used.
        if received == Received::Spent && epoch < self.record(group)?.oldest {
            return Ok(Received::TooOld);
        }
        Ok(received)
    }

    /// Deletes the keys of past epochs but the last `count`.
    ///
    /// # Errors
    ///
    /// [`ChatError::NotMember`].
    pub fn keep_epochs(&mut self, group: &GroupId, count: usize) -> Result<(), ChatError> {
        let last = PastEpochDeletion::before_timestamp(UNIX_EPOCH).max_past_epochs(count);
        let epoch = self.delete_epochs(group, last)?;
        let mut record = self.record(group)?;
        let kept = u64::try_from(count).unwrap_or(u64::MAX);
        record.oldest = epoch.saturating_sub(kept).max(record.oldest);
        Ok(record.save(self.provider.store())?)
    }

    /// Deletes the keys of past epochs that ended before `before`, however few there are. Call it
    /// once a day for each group, with the current time less `limits.relay_ttl`: no frame that old
    /// is on its way any more.
    ///
    /// # Errors
    ///
    /// [`ChatError::NotMember`].
    pub fn forget_epochs(&mut self, group: &GroupId, before: Timestamp) -> Result<(), ChatError> {
        let cutoff = UNIX_EPOCH + Duration::from_millis(before.as_millis());
        self.delete_epochs(group, PastEpochDeletion::before_timestamp(cutoff))
            .map(drop)
    }

    /// Deletes keys of past epochs; returns the current one.
    fn delete_epochs(
        &mut self,
        group: &GroupId,
        which: PastEpochDeletion,
    ) -> Result<u64, ChatError> {
        self.attempt(group, |chat| {
            let mut mls = chat.take(group)?;
            mls.delete_past_epoch_secrets(&chat.provider, which)
                .map_err(ChatError::mls("forget past epochs"))?;
            let epoch = mls.epoch().as_u64();
            chat.put_back(*group, mls);
            Ok(epoch)
        })
    }

    fn open_with(
        &self,
        mls: &mut MlsGroup,
        msg: &Msg,
        message: ProtocolMessage,
    ) -> Result<Received, ChatError> {
        let epoch = message.epoch().as_u64();
        if !mls.is_active() {
            return Ok(Received::Invalid("this device was removed"));
        }
        let current = mls.epoch().as_u64();
        if epoch > current {
            return Ok(Received::Later);
        }
        if current - epoch > PAST_EPOCHS_MAX as u64 {
            return Ok(Received::TooOld);
        }
        let processed = match mls.process_message(&self.provider, message) {
            Ok(processed) => processed,
            Err(ProcessMessageError::StorageError(error)) => return Err(error.into()),
            Err(error) => return Ok(refused(&error)),
        };
        Ok(read(mls, processed, msg, epoch))
    }
}

fn read(mls: &MlsGroup, processed: ProcessedMessage, msg: &Msg, epoch: u64) -> Received {
    let Some(author) = device::named(processed.credential()) else {
        return Received::Invalid("author has no certificate");
    };
    let plaintext = match processed.into_content() {
        ProcessedMessageContent::ApplicationMessage(message) => message.into_bytes(),
        ProcessedMessageContent::OwnPrivateMessage => return Received::Own,
        ProcessedMessageContent::ProposalMessage(_)
        | ProcessedMessageContent::ExternalJoinProposalMessage(_)
        | ProcessedMessageContent::StagedCommitMessage(_)
        | ProcessedMessageContent::OwnPendingCommit => {
            return Received::Invalid("not an application message");
        }
    };
    let Ok(content) = Content::decode(&plaintext) else {
        return Received::Invalid("content");
    };
    Received::Opened(Box::new(Opened {
        role: role(mls, &author.account),
        account: author.account,
        device: author.id,
        message_id: msg.message(),
        position: msg.position(),
        epoch,
        content,
    }))
}

fn role(mls: &MlsGroup, account: &AccountKey) -> Role {
    let leaves = device::leaves(mls).unwrap_or_default();
    match Context::of(mls.public_group().group_context()) {
        Some(context) => {
            let present = leaves.iter().map(|leaf| &leaf.device.account);
            Standing::new(&context.roles, present).role(account)
        }
        None => Role::Member,
    }
}

fn refused<E>(error: &ProcessMessageError<E>) -> Received {
    let ProcessMessageError::ValidationError(error) = error else {
        return Received::Foreign;
    };
    if matches!(error, ValidationError::NoPastEpochData) {
        Received::TooOld
    } else if let ValidationError::UnableToDecrypt(MessageDecryptionError::SecretTreeError(_)) =
        error
    {
        Received::Spent
    } else {
        Received::Foreign
    }
}

/// The MLS message, if all that can be known before it is decrypted is right. What MLS decrypts
/// without complaint uses up its key, so a copy of a good ciphertext under another header, or of a
/// commit, must not come that far.
fn application_message(msg: &Msg, group: &GroupId) -> Option<ProtocolMessage> {
    let MlsMessageBodyIn::PrivateMessage(private) = keys::mls_message(&msg.ciphertext())? else {
        return None;
    };
    let good = private.aad() == msg.authenticated()
        && private.content_type() == ContentType::Application
        && private.group_id().as_slice() == group.as_bytes();
    good.then_some(ProtocolMessage::PrivateMessage(private))
}
