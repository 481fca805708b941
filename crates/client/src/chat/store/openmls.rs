//! How OpenMLS reads and writes the store.

use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};
use serde::Serialize;

use super::{Label, Store, StoreError, decode, encode};

macro_rules! put {
    ($($method:ident <$key:ident, $value:ident> $label:ident;)*) => {$(
        fn $method<K: traits::$key<CURRENT_VERSION>, T: traits::$value<CURRENT_VERSION>>(
            &self, name: &K, value: &T,
        ) -> Result<(), StoreError> {
            self.put(Label::$label, name, value)
        }
    )*};
}

macro_rules! get {
    ($($method:ident <$key:ident, $value:ident> $label:ident;)*) => {$(
        fn $method<K: traits::$key<CURRENT_VERSION>, T: traits::$value<CURRENT_VERSION>>(
            &self, name: &K,
        ) -> Result<Option<T>, StoreError> {
            self.get(Label::$label, name)
        }
    )*};
}

macro_rules! delete {
    ($($method:ident <$key:ident> $label:ident;)*) => {$(
        fn $method<K: traits::$key<CURRENT_VERSION>>(&self, name: &K) -> Result<(), StoreError> {
            self.delete(Label::$label, name)
        }
    )*};
}

impl StorageProvider<CURRENT_VERSION> for Store {
    type Error = StoreError;

    put! {
        write_mls_join_config<GroupId, MlsGroupJoinConfig> JoinConfig;
        write_tree<GroupId, TreeSync> Tree;
        write_interim_transcript_hash<GroupId, InterimTranscriptHash> InterimHash;
        write_context<GroupId, GroupContext> Context;
        write_confirmation_tag<GroupId, ConfirmationTag> ConfirmationTag;
        write_message_secrets<GroupId, MessageSecrets> MessageSecrets;
        write_resumption_psk_store<GroupId, ResumptionPskStore> ResumptionPsks;
        write_own_leaf_index<GroupId, LeafNodeIndex> OwnLeafIndex;
        write_group_epoch_secrets<GroupId, GroupEpochSecrets> EpochSecrets;
        write_signature_key_pair<SignaturePublicKey, SignatureKeyPair> SignatureKeys;
        write_encryption_key_pair<EncryptionKey, HpkeKeyPair> EncryptionKeys;
        write_key_package<HashReference, KeyPackage> KeyPackage;
        write_psk<PskId, PskBundle> Psk;
    }

    get! {
        mls_group_join_config<GroupId, MlsGroupJoinConfig> JoinConfig;
        tree<GroupId, TreeSync> Tree;
        group_context<GroupId, GroupContext> Context;
        interim_transcript_hash<GroupId, InterimTranscriptHash> InterimHash;
        confirmation_tag<GroupId, ConfirmationTag> ConfirmationTag;
        message_secrets<GroupId, MessageSecrets> MessageSecrets;
        resumption_psk_store<GroupId, ResumptionPskStore> ResumptionPsks;
        own_leaf_index<GroupId, LeafNodeIndex> OwnLeafIndex;
        group_epoch_secrets<GroupId, GroupEpochSecrets> EpochSecrets;
        signature_key_pair<SignaturePublicKey, SignatureKeyPair> SignatureKeys;
        key_package<HashReference, KeyPackage> KeyPackage;
    }

    delete! {
        delete_own_leaf_nodes<GroupId> OwnLeafNodes;
        delete_group_config<GroupId> JoinConfig;
        delete_tree<GroupId> Tree;
        delete_confirmation_tag<GroupId> ConfirmationTag;
        delete_group_state<GroupId> GroupState;
        delete_context<GroupId> Context;
        delete_interim_transcript_hash<GroupId> InterimHash;
        delete_message_secrets<GroupId> MessageSecrets;
        delete_all_resumption_psk_secrets<GroupId> ResumptionPsks;
        delete_own_leaf_index<GroupId> OwnLeafIndex;
        delete_group_epoch_secrets<GroupId> EpochSecrets;
        delete_signature_key_pair<SignaturePublicKey> SignatureKeys;
        delete_encryption_key_pair<EncryptionKey> EncryptionKeys;
        delete_key_package<HashReference> KeyPackage;
        delete_psk<PskId> Psk;
    }

    fn write_group_state<
        T: traits::GroupState<CURRENT_VERSION>,
        K: traits::GroupId<CURRENT_VERSION>,
    >(
        &self,
        group_id: &K,
        group_state: &T,
    ) -> Result<(), StoreError> {
        self.put(Label::GroupState, group_id, group_state)
    }

    fn group_state<T: traits::GroupState<CURRENT_VERSION>, K: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &K,
    ) -> Result<Option<T>, StoreError> {
        self.get(Label::GroupState, group_id)
    }

    fn encryption_key_pair<
        T: traits::HpkeKeyPair<CURRENT_VERSION>,
        K: traits::EncryptionKey<CURRENT_VERSION>,
    >(
        &self,
        public_key: &K,
    ) -> Result<Option<T>, StoreError> {
        self.get(Label::EncryptionKeys, public_key)
    }

    fn psk<T: traits::PskBundle<CURRENT_VERSION>, K: traits::PskId<CURRENT_VERSION>>(
        &self,
        psk_id: &K,
    ) -> Result<Option<T>, StoreError> {
        self.get(Label::Psk, psk_id)
    }

    fn write_encryption_epoch_key_pairs<
        K: traits::GroupId<CURRENT_VERSION>,
        E: traits::EpochKey<CURRENT_VERSION>,
        T: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        group_id: &K,
        epoch: &E,
        leaf_index: u32,
        key_pairs: &[T],
    ) -> Result<(), StoreError> {
        self.put(Label::EpochKeys, &(group_id, epoch, leaf_index), &key_pairs)
    }

    fn encryption_epoch_key_pairs<
        K: traits::GroupId<CURRENT_VERSION>,
        E: traits::EpochKey<CURRENT_VERSION>,
        T: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        group_id: &K,
        epoch: &E,
        leaf_index: u32,
    ) -> Result<Vec<T>, StoreError> {
        Ok(self
            .get(Label::EpochKeys, &(group_id, epoch, leaf_index))?
            .unwrap_or_default())
    }

    fn delete_encryption_epoch_key_pairs<
        K: traits::GroupId<CURRENT_VERSION>,
        E: traits::EpochKey<CURRENT_VERSION>,
    >(
        &self,
        group_id: &K,
        epoch: &E,
        leaf_index: u32,
    ) -> Result<(), StoreError> {
        self.delete(Label::EpochKeys, &(group_id, epoch, leaf_index))
    }

    fn append_own_leaf_node<
        K: traits::GroupId<CURRENT_VERSION>,
        T: traits::LeafNode<CURRENT_VERSION>,
    >(
        &self,
        group_id: &K,
        leaf_node: &T,
    ) -> Result<(), StoreError> {
        let mut nodes: Vec<Vec<u8>> = self.get(Label::OwnLeafNodes, group_id)?.unwrap_or_default();
        nodes.push(encode(leaf_node)?.to_vec());
        self.put(Label::OwnLeafNodes, group_id, &nodes)
    }

    fn own_leaf_nodes<K: traits::GroupId<CURRENT_VERSION>, T: traits::LeafNode<CURRENT_VERSION>>(
        &self,
        group_id: &K,
    ) -> Result<Vec<T>, StoreError> {
        let nodes: Vec<Vec<u8>> = self.get(Label::OwnLeafNodes, group_id)?.unwrap_or_default();
        nodes.iter().map(|node| decode(node)).collect()
    }

    fn queue_proposal<
        K: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        T: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        group_id: &K,
        proposal_ref: &R,
        proposal: &T,
    ) -> Result<(), StoreError> {
        let mut queue = self.proposals(group_id)?;
        queue.push((encode(proposal_ref)?.to_vec(), encode(proposal)?.to_vec()));
        self.put(Label::Proposals, group_id, &queue)
    }

    fn queued_proposal_refs<
        K: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
    >(
        &self,
        group_id: &K,
    ) -> Result<Vec<R>, StoreError> {
        self.proposals(group_id)?
            .iter()
            .map(|(name, _)| decode(name))
            .collect()
    }

    fn queued_proposals<
        K: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        T: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        group_id: &K,
    ) -> Result<Vec<(R, T)>, StoreError> {
        let queue = self.proposals(group_id)?;
        queue
            .iter()
            .map(|(name, value)| Ok((decode(name)?, decode(value)?)))
            .collect()
    }

    fn remove_proposal<
        K: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
    >(
        &self,
        group_id: &K,
        proposal_ref: &R,
    ) -> Result<(), StoreError> {
        let removed = encode(proposal_ref)?;
        let mut queue = self.proposals(group_id)?;
        queue.retain(|(name, _)| *name != *removed);
        self.put(Label::Proposals, group_id, &queue)
    }

    fn clear_proposal_queue<
        K: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
    >(
        &self,
        group_id: &K,
    ) -> Result<(), StoreError> {
        self.delete(Label::Proposals, group_id)
    }
}

/// Queued proposals: encoded reference and encoded proposal.
type Proposals = Vec<(Vec<u8>, Vec<u8>)>;

impl Store {
    fn proposals(&self, group_id: &impl Serialize) -> Result<Proposals, StoreError> {
        Ok(self.get(Label::Proposals, group_id)?.unwrap_or_default())
    }
}
