//! New groups (CCP-1 section 5.1).

use commucat_crypto::secret::Secret;
use commucat_proto::frame::fanout::FanoutEntry;
use commucat_proto::frame::group_create::GroupCreate;
use commucat_proto::id::{Domain, GroupId, Handle, JoinKey, SealedRef};
use openmls::group::MlsGroup;
use openmls_traits::OpenMlsProvider as _;

use super::profile::{self, Context, Suite};
use super::provider::mls_id;
use super::record::{Doubts, Record, Seed, State};
use super::roles::{Role, Roles};
use super::{Chat, ChatError, keys};

/// What a new group shall be.
#[derive(Clone, Debug)]
pub struct NewGroup {
    /// Random; also asked for a sealed reference (KEY_PACKAGE op 5) before.
    pub group: GroupId,
    /// The own domain, which becomes the hub.
    pub hub: Domain,
    /// The own reference for this group and hub.
    pub sealed_ref: SealedRef,
    /// Algorithms, for the group's life.
    pub suite: Suite,
    /// Who may do what. Must name the own account as owner.
    pub roles: Roles,
}

impl Chat {
    /// Makes a group with this device as its only member, at position 0.
    ///
    /// With `roles.join_allowed` it has a join key from the start.
    ///
    /// # Errors
    ///
    /// [`ChatError::Exists`]; [`ChatError::Forbidden`] if the own account is no owner.
    pub fn create(&mut self, new: NewGroup) -> Result<GroupCreate, ChatError> {
        let group = new.group;
        if Record::load(self.provider.store(), &group)?.is_some() {
            return Err(ChatError::Exists);
        }
        if new.roles.listed(self.identity.account()) != Role::Owner {
            return Err(ChatError::Forbidden);
        }
        self.attempt(&group, |chat| chat.make(new))
    }

    fn make(&mut self, new: NewGroup) -> Result<GroupCreate, ChatError> {
        let handle_seed = Secret::random();
        let handle = Handle::new(keys::public(&handle_seed));
        let join_seed = new.roles.join_allowed.then(Secret::random);
        let context = Context {
            group_key: Secret::random(),
            join_key: join_seed.as_ref().map(keys::public),
            roles: new.roles,
        };
        let config = profile::create_config(new.suite, &handle, &context)
            .ok_or(ChatError::Encode("group configuration"))?;
        let mls = MlsGroup::new_with_group_id(
            &self.provider,
            &self.identity.signer,
            &config,
            mls_id(&new.group),
            self.identity.credential(),
        )
        .map_err(ChatError::mls("create"))?;
        let info = mls
            .export_group_info(self.provider.crypto(), &self.identity.signer, true)
            .map_err(ChatError::mls("group info"))?
            .to_bytes()
            .map_err(ChatError::mls("group info"))?;
        let record = Record {
            group: new.group,
            hub: new.hub.clone(),
            handle: handle_seed,
            sealed_ref: new.sealed_ref,
            position: 0,
            settled: 0,
            doubts: Doubts::default(),
            counter: 0,
            oldest: 0,
            state: State::Member,
            join_seed: join_seed.map(Seed),
            intents: Vec::new(),
            pending: None,
        };
        record.save(self.provider.store())?;
        self.put_back(new.group, mls);
        let sealed = keys::seal_group_info(&context.group_key, &new.group, 0, &info);
        let sealed_ref = new.sealed_ref;
        Ok(GroupCreate {
            group: new.group,
            fanout: vec![FanoutEntry {
                handle,
                domain: new.hub,
                sealed_ref,
                admin: true,
            }],
            sealed_group_info: Some(sealed),
            join_key: context.join_key.map(JoinKey::new),
        })
    }
}
