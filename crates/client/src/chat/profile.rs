//! The MLS profile of CCP-1 section 5.5: suites, extensions, and what OpenMLS is told about them.

use commucat_crypto::secret::Secret;
use commucat_proto::id::Handle;
use commucat_proto::wire::Cbor as _;
use openmls::prelude::{
    Capabilities, Ciphersuite, CredentialType, Extension, ExtensionType, Extensions, GroupContext,
    KeyPackage, LeafNode, Lifetime, MlsGroupCreateConfig, MlsGroupJoinConfig,
    PURE_CIPHERTEXT_WIRE_FORMAT_POLICY, ProtocolVersion, RequiredCapabilitiesExtension,
    SenderRatchetConfiguration, UnknownExtension,
};

use super::roles::Roles;

/// Leaf extension: the handle.
const HANDLE: u16 = 0xf0c1;
/// Context extension: the group key.
const GROUP_KEY: u16 = 0xf0c2;
/// Context extension: the public half of the join key, or empty.
const JOIN_KEY: u16 = 0xf0c3;
/// Context extension: the roles.
const ROLES: u16 = 0xf0c4;

/// Past epochs whose keys are there at most, for a device that is far ahead of its queue; how many
/// are needed is said by [`super::Chat::keep_epochs`].
pub(crate) const PAST_EPOCHS_MAX: usize = 64;

/// How many messages of one author may overtake another one.
const OUT_OF_ORDER: u32 = 256;

/// How many messages of one author in one epoch may be lost before the next: a full queue
/// (`limits.queue_entries`) may have swallowed that many.
const LOST_MAX: u32 = 20_000;

/// The algorithms of a group. Chosen when it is created, kept for its life.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Suite {
    /// 0x004E: ML-KEM-768 with X25519, so that whoever records today learns nothing from a quantum
    /// computer later.
    #[default]
    Hybrid,
    /// 0x0003: X25519 alone, for small devices and slow links.
    Classical,
}

impl Suite {
    pub(super) const fn ciphersuite(self) -> Ciphersuite {
        match self {
            Self::Hybrid => Ciphersuite::MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519,
            Self::Classical => Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519,
        }
    }

    pub(super) fn of(suite: Ciphersuite) -> Option<Self> {
        [Self::Hybrid, Self::Classical]
            .into_iter()
            .find(|known| known.ciphersuite() == suite)
    }
}

/// The lifetime in every key package. The profile fixes it to "always": a commit that adds somebody
/// must be valid for all members or for none, so no clock may have a say. How long a package is
/// handed out is the key-package server's `not after`; how long a device is trusted is in its
/// certificate, and both are looked at by whoever adds.
pub(super) fn lifetime() -> Lifetime {
    Lifetime::init(0, u64::MAX)
}

pub(super) fn capabilities() -> Capabilities {
    Capabilities::new(
        Some(&[ProtocolVersion::Mls10]),
        Some(&[Suite::Hybrid.ciphersuite(), Suite::Classical.ciphersuite()]),
        Some(&extension_types()),
        None,
        Some(&[CredentialType::Basic]),
    )
}

/// What a leaf of the profile supports: its own extensions, and the mark of last-resort packages.
fn extension_types() -> [ExtensionType; 5] {
    let [handle, group_key, join_key, roles] =
        [HANDLE, GROUP_KEY, JOIN_KEY, ROLES].map(ExtensionType::Unknown);
    [
        handle,
        group_key,
        join_key,
        roles,
        ExtensionType::LastResort,
    ]
}

/// What every member must support. Each group has it in its context: OpenMLS refuses a commit that
/// sets a context extension which is not required of all.
fn required() -> Extension {
    let types = [HANDLE, GROUP_KEY, JOIN_KEY, ROLES].map(ExtensionType::Unknown);
    Extension::RequiredCapabilities(RequiredCapabilitiesExtension::new(&types, &[], &[]))
}

pub(super) fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .max_past_epochs(PAST_EPOCHS_MAX)
        .number_of_resumption_psks(0)
        .sender_ratchet_configuration(ratchets())
        .use_ratchet_tree_extension(true)
        .build()
}

fn ratchets() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(OUT_OF_ORDER, LOST_MAX)
}

pub(super) fn create_config(
    suite: Suite,
    handle: &Handle,
    context: &Context,
) -> Option<MlsGroupCreateConfig> {
    let builder = MlsGroupCreateConfig::builder()
        .ciphersuite(suite.ciphersuite())
        .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .max_past_epochs(PAST_EPOCHS_MAX)
        .number_of_resumption_psks(0)
        .sender_ratchet_configuration(ratchets())
        .use_ratchet_tree_extension(true)
        .capabilities(capabilities())
        .lifetime(lifetime())
        .with_group_context_extensions(context.extensions(None)?)
        .with_leaf_node_extensions(leaf_extensions(handle)?);
    builder.ok().map(|builder| builder.build())
}

pub(super) fn leaf_extensions(handle: &Handle) -> Option<Extensions<LeafNode>> {
    Extensions::from_vec(vec![unknown(HANDLE, handle.as_bytes().to_vec())]).ok()
}

/// The handle in a leaf.
pub(super) fn handle(leaf: &LeafNode) -> Option<Handle> {
    Handle::parse(&leaf.extensions().unknown(HANDLE)?.0).ok()
}

/// Whether a key package has the profile's lifetime and a suite of the profile.
pub(super) fn fits(package: &KeyPackage) -> bool {
    *package.life_time() == lifetime() && Suite::of(package.ciphersuite()).is_some()
}

/// What the group context carries for us.
#[derive(Clone, PartialEq)]
pub(super) struct Context {
    pub(super) group_key: Secret<32>,
    /// The public half.
    pub(super) join_key: Option<[u8; 32]>,
    pub(super) roles: Roles,
}

impl Context {
    /// `None` if an extension is missing or malformed.
    pub(super) fn of(context: &GroupContext) -> Option<Self> {
        let extensions = context.extensions();
        let join_key = match extensions.unknown(JOIN_KEY)?.0.as_slice() {
            [] => None,
            key => Some(key.try_into().ok()?),
        };
        Some(Self {
            group_key: Secret::from_slice(&extensions.unknown(GROUP_KEY)?.0)?,
            join_key,
            roles: Roles::parse(&extensions.unknown(ROLES)?.0)?,
        })
    }

    /// The extensions of a context that carries this, and what else `base` carries; without a base,
    /// those of a new group.
    pub(super) fn extensions(
        &self,
        base: Option<&GroupContext>,
    ) -> Option<Extensions<GroupContext>> {
        let join_key = self.join_key.map(|key| key.to_vec()).unwrap_or_default();
        let mut extensions = vec![
            unknown(GROUP_KEY, self.group_key.expose().to_vec()),
            unknown(JOIN_KEY, join_key),
            unknown(ROLES, self.roles.encode()),
        ];
        match base {
            Some(base) => extensions.extend(others(base).cloned()),
            None => extensions.push(required()),
        }
        Extensions::from_vec(extensions).ok()
    }
}

/// The extensions of a context that are not of this profile. No commit may change them.
pub(super) fn others(context: &GroupContext) -> impl Iterator<Item = &Extension> {
    let ours = [GROUP_KEY, JOIN_KEY, ROLES].map(ExtensionType::Unknown);
    context
        .extensions()
        .iter()
        .filter(move |other| !ours.contains(&other.extension_type()))
}

fn unknown(number: u16, bytes: Vec<u8>) -> Extension {
    Extension::Unknown(number, UnknownExtension(bytes))
}
