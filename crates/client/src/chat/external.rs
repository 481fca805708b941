//! External commits: rejoining after a state was lost or split, and joining by link (CCP-1
//! sections 5.3 and 5.4).

use bytes::Bytes;
use commucat_crypto::secret::Secret;
use commucat_proto::frame::bundle::{AuthenticatedData, Bundle, authenticated_hash};
use commucat_proto::frame::fanout::{Change, FanoutEntry};
use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::id::{Domain, GroupId, SealedRef};
use commucat_proto::link::JoinLink;
use openmls::group::{GroupContext, MlsGroup};
use openmls::messages::group_info::VerifiableGroupInfo;
use openmls::prelude::LeafNodeParameters;
use openmls_traits::OpenMlsProvider as _;

use super::profile::{self, Context};
use super::propose::{Made, Submission, sign};
use super::provider::Provider;
use super::record::{Doubts, Pending, PendingKind, Record, State};
use super::{Chat, ChatError, device, keys, welcome};

/// Whether this device is in the same epoch as the newest GroupInfo that opens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Agreement {
    /// The same epoch with the same history.
    Same,
    /// The others are in another epoch: rejoin. If that does not settle it, the group is split.
    Different,
    /// Nothing can be said: none opens, entries are missing (FETCH and apply them first), or there
    /// is not reason enough to believe others more than this device.
    Unknown,
}

impl Chat {
    /// The position of the GroupInfo that [`Chat::rejoin`] would take: it has to see all entries
    /// after that one.
    ///
    /// # Errors
    ///
    /// [`ChatError::NoGroupInfo`]: LEAVE for good, and ask a member to add this device again.
    pub fn rejoin_at(&mut self, group: &GroupId, infos: &[(u64, Bytes)]) -> Result<u64, ChatError> {
        let record = self.record(group)?;
        record.member()?;
        let newest = self.here(&record)?.newest(&record, infos);
        newest
            .map(|(position, _)| position)
            .ok_or(ChatError::NoGroupInfo)
    }

    /// Builds an external commit that replaces the own leaf.
    ///
    /// `head` is the hub's head and `infos` are its sealed GroupInfos, both from one FETCH; `later`
    /// are all entries after [`Chat::rejoin_at`]. If another commit is accepted first, FETCH and call
    /// it again.
    ///
    /// # Errors
    ///
    /// [`ChatError::NoGroupInfo`], also where an entry of `later` removes somebody or one is not
    /// there: the group key may have changed since, and the others would skip the commit. LEAVE for
    /// good, and ask a member to add this device again.
    pub fn rejoin(
        &mut self,
        group: &GroupId,
        head: u64,
        infos: &[(u64, Bytes)],
        later: &[LogEntry],
    ) -> Result<Submission, ChatError> {
        let record = self.record(group)?;
        record.member()?;
        let here = self.here(&record)?;
        let (position, info) = here.newest(&record, infos).ok_or(ChatError::NoGroupInfo)?;
        if !keeps_group_key(position, head, later) {
            return Err(ChatError::NoGroupInfo);
        }
        self.attempt(group, |chat| {
            if record.pending.is_some() {
                chat.clear_pending(group)?;
            }
            chat.external(
                record,
                info,
                External {
                    head,
                    add: Vec::new(),
                    signer: None,
                },
            )
        })
    }

    /// Builds an external commit that joins by link.
    ///
    /// `own` is this device's domain, and its reference for this group and hub (KEY_PACKAGE op 5).
    /// `head` and `infos` are from a FETCH that the link's seed signed (`join read`). If another
    /// commit is accepted first, FETCH and call it again.
    ///
    /// # Errors
    ///
    /// [`ChatError::Exists`] for a member; [`ChatError::NoGroupInfo`] if the link is dead;
    /// [`ChatError::Forbidden`] if the group does not let people in by link.
    pub fn join_by_link(
        &mut self,
        link: &JoinLink,
        own: (Domain, SealedRef),
        head: u64,
        infos: &[(u64, Bytes)],
    ) -> Result<Submission, ChatError> {
        let group = link.group;
        let (domain, sealed_ref) = own;
        let old = Record::load(self.provider.store(), &group)?;
        if old.as_ref().is_some_and(|old| old.state == State::Member) {
            return Err(ChatError::Exists);
        }
        let handle = match &old {
            Some(old) if old.state == State::Joining => old.handle.clone(),
            _ => Secret::random(),
        };
        let record = Record {
            group,
            hub: link.hub.clone(),
            handle,
            sealed_ref,
            position: 0,
            settled: 0,
            doubts: Doubts::default(),
            counter: old.map_or(0, |old| old.counter),
            oldest: 0,
            state: State::Joining,
            join_seed: None,
            intents: Vec::new(),
            pending: None,
        };
        let group_key = Secret::new(*link.group_key.as_bytes());
        let (_, info) =
            newest(&group_key, &group, infos, |_| true).ok_or(ChatError::NoGroupInfo)?;
        let handle = record.own_handle();
        let add = vec![FanoutEntry {
            handle,
            domain,
            sealed_ref,
            admin: false,
        }];
        let signer = Some(Secret::new(*link.seed.as_bytes()));
        self.attempt(&group, |chat| {
            chat.external(record, info, External { head, add, signer })
        })
    }

    /// Whether an external commit of this device waits for the hub.
    #[must_use]
    pub fn is_rejoining(&self, group: &GroupId) -> bool {
        let record = self.record(group);
        record.is_ok_and(|record| record.pending.is_some_and(|pending| pending.is_external()))
    }

    /// Whether there are commits since the last one that took effect here that do not fit: what this
    /// device seals now, the others may not be able to open.
    #[must_use]
    pub fn is_in_doubt(&self, group: &GroupId) -> bool {
        self.record(group)
            .is_ok_and(|record| record.doubts.are_there())
    }

    /// Whether this device and the newest GroupInfo that opens are in the same epoch: for a device
    /// that was told `fork`.
    ///
    /// # Errors
    ///
    /// [`ChatError::NotMember`].
    pub fn compare(
        &mut self,
        group: &GroupId,
        infos: &[(u64, Bytes)],
    ) -> Result<Agreement, ChatError> {
        let record = self.record(group)?;
        record.member()?;
        let here = self.here(&record)?;
        if infos
            .iter()
            .any(|(position, _)| *position > record.position)
        {
            return Ok(Agreement::Unknown);
        }
        Ok(match here.newest(&record, infos) {
            None => Agreement::Unknown,
            Some((_, info)) if *info.group_context() == here.mls => Agreement::Same,
            Some(_) if here.astray => Agreement::Different,
            Some(_) => Agreement::Unknown,
        })
    }

    /// Where this device stands in the group.
    fn here(&mut self, record: &Record) -> Result<Here, ChatError> {
        let mls = self.take(&record.group)?;
        let (context, leaves) = (
            mls.public_group().group_context().clone(),
            device::leaves(&mls)?,
        );
        self.put_back(record.group, mls);
        let profile = Context::of(&context).ok_or(ChatError::Welcome(
            "the group's context is not of the profile",
        ))?;
        Ok(Here {
            mls: context,
            group_key: profile.group_key,
            astray: record.doubts.suffice(&leaves, &record.own_handle()),
        })
    }

    fn external(
        &mut self,
        mut record: Record,
        info: VerifiableGroupInfo,
        external: External,
    ) -> Result<Submission, ChatError> {
        let context = Context::of(info.group_context()).ok_or(ChatError::Welcome(
            "the group's context is not of the profile",
        ))?;
        if external.signer.is_some() && !joinable(&context, &external) {
            return Err(ChatError::Forbidden);
        }
        let scratch = Provider::default();
        let (group, own, expect) = (record.group, record.own_handle(), external.head);
        let change = Change {
            add: external.add,
            ..Change::default()
        };
        let hash = authenticated_hash(&group, expect, &change, &own);
        let signer = external.signer;
        let join_signature = signer
            .as_ref()
            .map(|seed| keys::sign_join_entry(seed, &hash));
        let aad = AuthenticatedData {
            hash,
            join_signature,
        }
        .to_bytes();
        let (mls, made) = self.commit_external(&scratch, &record, info, aad)?;
        welcome::trusted(&mls)?;
        let twins = device::leaves(&mls)?
            .into_iter()
            .filter(|leaf| leaf.handle == own)
            .count();
        if twins != 1 {
            return Err(ChatError::Welcome("the handle is in the tree twice"));
        }

        let key = &context.group_key;
        let sealed = keys::seal_external(key, &group, &made.commit);
        let commit = [vec![1], sealed].concat();
        let bundle = Bundle {
            group,
            expect,
            commit: commit.clone().into(),
            change,
            welcomes: Vec::new(),
            sealed_group_info: keys::seal_group_info(key, &group, expect + 1, &made.info),
            author: own,
            first_message: None,
        };
        let bundle = match &signer {
            Some(join_key) => sign(&bundle, join_key, keys::Purpose::JoinCommit)?,
            None => sign(&bundle, &record.handle, keys::Purpose::Commit)?,
        };
        let state = scratch.store().export();
        let state = state
            .into_iter()
            .map(|(key, value)| (key, value.to_vec()))
            .collect();
        let kind = PendingKind::External(state);
        let pending = Pending {
            expect,
            commit,
            bundle,
            close: false,
            join_seed: None,
            kind,
        };
        let submission = record.submission(&pending)?;
        record.pending = Some(pending);
        record.save(self.provider.store())?;
        Ok(submission)
    }

    pub(super) fn commit_external(
        &self,
        scratch: &Provider,
        record: &Record,
        info: VerifiableGroupInfo,
        aad: Vec<u8>,
    ) -> Result<(MlsGroup, Made), ChatError> {
        let extensions = profile::leaf_extensions(&record.own_handle())
            .ok_or(ChatError::Encode("leaf extensions"))?;
        let leaf = LeafNodeParameters::builder()
            .with_capabilities(profile::capabilities())
            .with_extensions(extensions)
            .build();
        let (mls, bundle) = MlsGroup::external_commit_builder()
            .with_aad(aad)
            .with_config(profile::join_config())
            .skip_lifetime_validation()
            .build_group(scratch, info, self.identity.credential())
            .map_err(ChatError::mls("external commit"))?
            .leaf_node_parameters(leaf)
            .load_psks(scratch.storage())
            .map_err(ChatError::mls("external commit"))?
            .create_group_info(true)
            .use_ratchet_tree_extension(true)
            .build(
                scratch.rand(),
                scratch.crypto(),
                &self.identity.signer,
                |_| true,
            )
            .map_err(ChatError::mls("external commit"))?
            .finalize(scratch)
            .map_err(ChatError::mls("external commit"))?;
        Ok((mls, Made::of(bundle)?))
    }
}

/// An external commit to be made.
struct External {
    head: u64,
    add: Vec<FanoutEntry>,
    /// The join key; a rejoin is signed by the handle.
    signer: Option<Secret<32>>,
}

fn joinable(context: &Context, external: &External) -> bool {
    let key = external.signer.as_ref().map(keys::public);
    context.roles.join_allowed && context.join_key == key
}

/// The state of a device that is about to look at GroupInfos.
struct Here {
    mls: GroupContext,
    group_key: Secret<32>,
    /// Whether the others have gone on without this device.
    astray: bool,
}

impl Here {
    /// The newest GroupInfo that opens and that this device has reason to follow.
    ///
    /// That of an entry which this device skipped may be anything that its author liked: it counts
    /// only when the device itself is astray.
    fn newest(
        &self,
        record: &Record,
        infos: &[(u64, Bytes)],
    ) -> Option<(u64, VerifiableGroupInfo)> {
        newest(&self.group_key, &record.group, infos, |position| {
            let skipped = record.settled + 1..=record.position;
            position >= record.settled && (self.astray || !skipped.contains(&position))
        })
    }
}

/// Whether all entries after `position` are in `later` and none of them removes anybody: a removal
/// replaces the group key, so that a GroupInfo from before it opens, but is of no use.
///
/// An entry that all members skip counts, too: only admins can put a removal into the log. Rubbish in the
/// place of a GroupInfo keeps a device from coming back only once its entry is not kept any more.
fn keeps_group_key(position: u64, head: u64, later: &[LogEntry]) -> bool {
    (position.saturating_add(1)..=head).all(|at| {
        let mut entries = later.iter().filter(|entry| entry.position == at);
        entries
            .next()
            .is_some_and(|entry| entry.change.remove.is_empty())
    })
}

/// The newest GroupInfo that opens, of the positions that count. Rubbish is passed over.
fn newest(
    key: &Secret<32>,
    group: &GroupId,
    infos: &[(u64, Bytes)],
    counts: impl Fn(u64) -> bool,
) -> Option<(u64, VerifiableGroupInfo)> {
    let mut infos: Vec<_> = infos
        .iter()
        .filter(|(position, _)| counts(*position))
        .collect();
    infos.sort_by_key(|(position, _)| std::cmp::Reverse(*position));
    infos.iter().find_map(|(position, sealed)| {
        let info = keys::open_group_info(key, group, *position, sealed)?;
        (info.group_id().as_slice() == group.as_bytes()).then_some((*position, info))
    })
}
