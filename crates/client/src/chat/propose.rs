//! From what the user wants to a bundle for the hub (CCP-1 section 5.2).

mod plan;

use commucat_crypto::secret::Secret;
use commucat_proto::frame::bundle::{Bundle, Welcome, authenticated_hash};
use commucat_proto::frame::fanout::Change;
use commucat_proto::frame::key_update::KeyUpdate;
use commucat_proto::id::{GroupId, Handle};
use commucat_proto::limits::{COMMIT_PAYLOAD_MAX, SEALED_GROUP_INFO_MAX};
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor as _;
use openmls::group::{CommitMessageBundle, MlsGroup};
use openmls::prelude::{LeafNodeParameters, MlsMessageOut, Sender};
use openmls_traits::OpenMlsProvider as _;

use self::plan::{Now, Plan};
use super::device;
use super::intent::Intent;
use super::profile::{Context, Suite};
use super::provider::Provider;
use super::record::{Pending, PendingKind, Record, Seed};
use super::store::StoreError;
use super::validity::Case;
use super::{Chat, ChatError, Invalid, keys};

/// What a KEY_UPDATE needs beside the signed bundle: a domain and a reference.
const KEY_UPDATE_REST_MAX: usize = 512;

/// What to send to the hub.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Submission {
    /// Which group.
    pub group: GroupId,
    /// The payload.
    pub update: KeyUpdate,
    /// The position that the hub must be at; its answer is one more.
    pub expect: u64,
}

/// What [`Chat::propose`] made of the oldest intent.
#[derive(Debug)]
pub enum Proposal {
    /// Send it, after the state is on disk. The same bytes until the hub has answered.
    Send(Submission),
    /// The group is already as it was wanted, or there is nothing to do.
    Nothing,
    /// The oldest intent cannot be done and is forgotten; ask again for the next.
    Dropped(Intent, ChatError),
}

impl Chat {
    /// Builds a commit for the oldest intent, or gives the one that waits for the hub.
    ///
    /// # Errors
    ///
    /// [`ChatError::NotMember`], [`ChatError::UnknownGroup`]; errors of the intent itself are
    /// [`Proposal::Dropped`].
    pub fn propose(&mut self, group: &GroupId) -> Result<Proposal, ChatError> {
        let mut record = self.record(group)?;
        if let Some(pending) = &record.pending {
            return Ok(Proposal::Send(record.submission(pending)?));
        }
        record.member()?;
        while let Some(intent) = record.intents.first().cloned() {
            match self.attempt(group, |chat| chat.build(&mut record, &intent)) {
                Ok(Some(submission)) => return Ok(Proposal::Send(submission)),
                Ok(None) => self.forget_first(&mut record)?,
                Err(error @ (ChatError::Store(_) | ChatError::NotMember)) => return Err(error),
                Err(error) => {
                    record = self.record(group)?;
                    self.forget_first(&mut record)?;
                    return Ok(Proposal::Dropped(intent, error));
                }
            }
        }
        Ok(Proposal::Nothing)
    }

    /// The hub refused the commit for good: drops it with its intent, which is returned.
    ///
    /// # Errors
    ///
    /// [`ChatError::UnknownGroup`].
    pub fn withdraw(&mut self, group: &GroupId) -> Result<Option<Intent>, ChatError> {
        self.attempt(group, |chat| {
            let mut record = chat.record(group)?;
            let Some(pending) = record.pending.take() else {
                return Ok(None);
            };
            let intent = match pending.kind {
                PendingKind::Intent => {
                    chat.clear_pending(group)?;
                    (!record.intents.is_empty()).then(|| record.intents.remove(0))
                }
                PendingKind::External(_) => None,
            };
            record.save(chat.provider.store())?;
            Ok(intent)
        })
    }

    /// Drops the commit that OpenMLS has staged.
    pub(super) fn clear_pending(&mut self, group: &GroupId) -> Result<(), ChatError> {
        let mut mls = self.take(group)?;
        mls.clear_pending_commit(self.provider.store())?;
        self.put_back(*group, mls);
        Ok(())
    }

    fn forget_first(&self, record: &mut Record) -> Result<(), ChatError> {
        if !record.intents.is_empty() {
            record.intents.remove(0);
        }
        Ok(record.save(self.provider.store())?)
    }

    fn build(
        &mut self,
        record: &mut Record,
        intent: &Intent,
    ) -> Result<Option<Submission>, ChatError> {
        let group = record.group;
        let mut mls = self.take(&group)?;
        let leaves = device::leaves(&mls)?;
        let old = Context::of(mls.public_group().group_context()).ok_or(ChatError::Forbidden)?;
        let state = Now {
            leaves: &leaves,
            context: &old,
            own: record.own_handle(),
        };
        let Some(plan) = Plan::of(intent, &state, suite_of(&mls)?)? else {
            self.put_back(group, mls);
            return Ok(None);
        };
        let change = plan.change(&state);
        let hash = authenticated_hash(&group, record.position, &change, &state.own);
        let members = leaves.len() + plan.add.len() - plan.remove.len();
        let made = self.commit(&mut mls, &plan, &hash, members)?;
        prove(&mls, &change, hash, &state.own)?;

        let key = plan
            .context
            .as_ref()
            .map_or(&old.group_key, |new| &new.group_key);
        let position = record.position + 1;
        let info = self.group_info(&mls, made.info, members)?;
        let commit = [&[0], made.commit.as_slice()].concat();
        let handles: Vec<Handle> = plan.add.iter().map(|(_, entry)| entry.handle).collect();
        let welcome = made.welcome.map(|welcome| Welcome {
            handles,
            welcome: welcome.into(),
        });
        let bundle = Bundle {
            group,
            expect: record.position,
            commit: commit.clone().into(),
            change,
            welcomes: welcome.into_iter().collect(),
            sealed_group_info: keys::seal_group_info(key, &group, position, &info),
            author: state.own,
            first_message: None,
        };
        let bundle = sign(&bundle, &record.handle, keys::Purpose::Commit)?;
        let pending = Pending {
            expect: record.position,
            commit,
            bundle,
            close: plan.close,
            join_seed: plan.join_seed.map(|seed| seed.map(Seed)),
            kind: PendingKind::Intent,
        };
        let submission = record.submission(&pending)?;
        record.pending = Some(pending);
        record.save(self.provider.store())?;
        self.put_back(group, mls);
        Ok(Some(submission))
    }

    fn commit(
        &self,
        mls: &mut MlsGroup,
        plan: &Plan,
        hash: &[u8; 32],
        members: usize,
    ) -> Result<Made, ChatError> {
        mls.set_aad(hash.to_vec());
        let context = match &plan.context {
            Some(new) => Some(
                new.extensions(Some(mls.public_group().group_context()))
                    .ok_or(ChatError::Encode("group context"))?,
            ),
            None => None,
        };
        let mut builder = mls
            .commit_builder()
            .consume_proposal_store(false)
            .propose_adds(plan.add.iter().map(|(package, _)| package.clone()))
            .propose_removals(plan.remove.iter().map(|(index, _)| *index))
            .force_self_update(plan.update);
        if plan.update {
            let leaf = LeafNodeParameters::builder()
                .with_credential_with_key(self.identity.credential())
                .build();
            builder = builder.leaf_node_parameters(leaf);
        }
        if let Some(context) = context {
            builder = builder
                .propose_group_context_extensions(context)
                .map_err(ChatError::mls("group context"))?;
        }
        let bundle = builder
            .load_psks(self.provider.storage())
            .map_err(ChatError::mls("commit"))?
            .create_group_info(true)
            .use_ratchet_tree_extension(members <= self.tree_in_welcome_max)
            .build(
                self.provider.rand(),
                self.provider.crypto(),
                &self.identity.signer,
                |_| true,
            )
            .map_err(ChatError::mls("commit"))?
            .stage_commit(&self.provider)
            .map_err(ChatError::mls("commit"))?;
        Made::of(bundle)
    }

    /// The GroupInfo of the epoch after the staged commit, with its tree.
    ///
    /// OpenMLS puts the tree into both Welcome and GroupInfo, or into neither. For a large group it
    /// shall be in the GroupInfo only, which then comes from a copy in which the commit is merged.
    fn group_info(
        &self,
        mls: &MlsGroup,
        info: Vec<u8>,
        members: usize,
    ) -> Result<Vec<u8>, ChatError> {
        if members <= self.tree_in_welcome_max {
            return Ok(info);
        }
        let copy = Provider::default();
        copy.store().import(self.provider.store().export());
        let mut merged =
            MlsGroup::load(copy.store(), mls.group_id())?.ok_or(ChatError::Encode("group info"))?;
        merged
            .merge_pending_commit(&copy)
            .map_err(ChatError::mls("group info"))?;
        merged
            .export_group_info(copy.crypto(), &self.identity.signer, true)
            .map_err(ChatError::mls("group info"))?
            .to_bytes()
            .map_err(ChatError::mls("group info"))
    }
}

/// That the other members will find our commit valid: a mistake here would burn a position.
fn prove(
    mls: &MlsGroup,
    change: &Change,
    hash: [u8; 32],
    author: &Handle,
) -> Result<(), ChatError> {
    let staged = mls.pending_commit().ok_or(ChatError::Encode("commit"))?;
    let sender = Sender::Member(mls.own_leaf_index());
    let case = Case {
        group: mls,
        staged,
        sender: &sender,
        aad: &hash,
        hash,
        change,
        author,
    };
    case.check().map_err(|invalid| {
        if invalid == Invalid::Roles {
            ChatError::Forbidden
        } else {
            ChatError::OwnCommit(invalid)
        }
    })
}

impl Record {
    pub(super) fn submission(&self, pending: &Pending) -> Result<Submission, ChatError> {
        let bundle = Signed::decode(&pending.bundle).map_err(|_| StoreError::Malformed)?;
        let update = KeyUpdate {
            hub: self.hub.clone(),
            bundle,
            sealed_ref: self.sealed_ref,
        };
        Ok(Submission {
            group: self.group,
            update,
            expect: pending.expect,
        })
    }
}

/// Encodes and signs a bundle, within the hub's limits.
pub(super) fn sign(
    bundle: &Bundle,
    key: &Secret<32>,
    purpose: keys::Purpose,
) -> Result<Vec<u8>, ChatError> {
    if bundle.sealed_group_info.len() > SEALED_GROUP_INFO_MAX {
        return Err(ChatError::TooLarge(bundle.sealed_group_info.len()));
    }
    let signed = keys::sign(key, purpose, bundle.encode());
    if signed.len() + KEY_UPDATE_REST_MAX > COMMIT_PAYLOAD_MAX {
        return Err(ChatError::TooLarge(signed.len()));
    }
    Ok(signed)
}

pub(super) fn suite_of(mls: &MlsGroup) -> Result<Suite, ChatError> {
    Suite::of(mls.ciphersuite()).ok_or(ChatError::Welcome("its suite is not of the profile"))
}

/// What OpenMLS made, encoded.
pub(super) struct Made {
    pub(super) commit: Vec<u8>,
    welcome: Option<Vec<u8>>,
    pub(super) info: Vec<u8>,
}

impl Made {
    pub(super) fn of(bundle: CommitMessageBundle) -> Result<Self, ChatError> {
        let encode = |message: MlsMessageOut| message.to_bytes().map_err(ChatError::mls("commit"));
        let info = bundle
            .group_info()
            .cloned()
            .ok_or(ChatError::Encode("group info"))?;
        let welcome = bundle.to_welcome_msg().map(encode).transpose()?;
        Ok(Self {
            welcome,
            info: encode(info.into())?,
            commit: encode(bundle.into_commit())?,
        })
    }
}
