//! Keys of a chat: handles, join keys, group keys, and certificates.

use bytes::Bytes;
use commucat_crypto::certificate::Certificate;
use commucat_crypto::sealed_box;
use commucat_crypto::secret::Secret;
use commucat_crypto::signing::{self, SigningKey};
use commucat_proto::id::GroupId;
use commucat_proto::identity::DeviceCertificate;
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor as _;
use openmls::messages::group_info::VerifiableGroupInfo;
use openmls::prelude::{MlsMessageBodyIn, MlsMessageIn};
use tls_codec::Deserialize as _;

pub(super) use commucat_crypto::signing::Purpose;

/// The public half of a handle's or join key's seed.
pub(super) fn public(seed: &Secret<32>) -> [u8; 32] {
    SigningKey::from_seed(seed).public()
}

/// The encoded `signed` of `body`.
pub(super) fn sign(seed: &Secret<32>, purpose: Purpose, body: Vec<u8>) -> Vec<u8> {
    SigningKey::from_seed(seed).sign(purpose, body).encode()
}

/// The join key's signature over an entry's hash (CCP-1 section 5.4).
pub(super) fn sign_join_entry(seed: &Secret<32>, hash: &[u8; 32]) -> [u8; 64] {
    SigningKey::from_seed(seed).sign_hash(Purpose::JoinEntry, hash)
}

pub(super) fn verify_join_entry(key: &[u8; 32], hash: &[u8; 32], signature: &[u8; 64]) -> bool {
    signing::verify_hash(hash, signature, Purpose::JoinEntry, key).is_ok()
}

/// A certificate, if the account that it names signed it.
pub(super) fn verified(certificate: &[u8]) -> Option<Certificate> {
    Certificate::verify(&Signed::decode(certificate).ok()?).ok()
}

/// What a certificate says, whoever signed it: for those that were verified before.
pub(super) fn claims(certificate: &[u8]) -> Option<DeviceCertificate> {
    let signed = Signed::decode(certificate).ok()?;
    DeviceCertificate::decode_shared(&signed.body).ok()
}

/// Seals a GroupInfo for its position (CCP-1 section 5.4).
pub(super) fn seal_group_info(
    key: &Secret<32>,
    group: &GroupId,
    position: u64,
    info: &[u8],
) -> Bytes {
    sealed_box::seal(key, &sealed_box::group_info_aad(group, position), info).into()
}

/// Opens what [`seal_group_info`] made; `None` also if it holds anything but a GroupInfo.
pub(super) fn open_group_info(
    key: &Secret<32>,
    group: &GroupId,
    position: u64,
    sealed: &[u8],
) -> Option<VerifiableGroupInfo> {
    let aad = sealed_box::group_info_aad(group, position);
    let info = sealed_box::open(key, &aad, sealed).ok()?;
    let MlsMessageBodyIn::GroupInfo(info) = mls_message(&info)? else {
        return None;
    };
    Some(info)
}

/// One `MLSMessage`, all of `bytes`.
pub(super) fn mls_message(mut bytes: &[u8]) -> Option<MlsMessageBodyIn> {
    let message = MlsMessageIn::tls_deserialize(&mut bytes).ok()?;
    bytes.is_empty().then(|| message.extract())
}

/// Seals an external commit under the group key that it is made for (CCP-1 section 5.5).
pub(super) fn seal_external(key: &Secret<32>, group: &GroupId, commit: &[u8]) -> Vec<u8> {
    sealed_box::seal(key, sealed_box::external_commit_aad(group), commit)
}

pub(super) fn open_external(key: &Secret<32>, group: &GroupId, sealed: &[u8]) -> Option<Vec<u8>> {
    sealed_box::open(key, sealed_box::external_commit_aad(group), sealed).ok()
}
