//! Commits that MLS accepts and the profile does not, in the log of a hub that lets everything
//! pass: all members skip them, and go on together.

use commucat_proto::frame::bundle::authenticated_hash;
use commucat_proto::frame::fanout::{AdminChange, Change, FanoutEntry, JoinKeyChange};
use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::id::{Handle, JoinKey};
use openmls::group::{CommitBuilder, Initial};
use openmls::prelude::{
    Extension, Extensions, KeyPackage, LeafNodeIndex, LeafNodeParameters, Lifetime,
    UnknownExtension,
};
use openmls_traits::OpenMlsProvider as _;

use super::*;
use crate::chat::profile::Context;

type Builder<'a> = CommitBuilder<'a, Initial>;

/// `by` makes a commit of its own taste and the hub appends it.
fn inject(
    world: &mut World,
    by: usize,
    change: Change,
    build: impl FnOnce(Builder<'_>) -> Builder<'_>,
) {
    let view = world.view(by);
    let hash = authenticated_hash(&world.group, view.position, &change, &view.handle);
    inject_under(world, by, (change, hash.to_vec()), build);
}

fn inject_under(
    world: &mut World,
    by: usize,
    (change, aad): (Change, Vec<u8>),
    build: impl FnOnce(Builder<'_>) -> Builder<'_>,
) {
    let view = world.view(by);
    let chat = &mut world.devices[by].chat;
    let mut mls = chat.take(&world.group).unwrap();
    mls.set_aad(aad);
    let bundle = build(mls.commit_builder().consume_proposal_store(false))
        .load_psks(chat.provider.storage())
        .unwrap()
        .build(
            chat.provider.rand(),
            chat.provider.crypto(),
            &chat.identity.signer,
            |_| true,
        )
        .unwrap()
        .stage_commit(&chat.provider)
        .unwrap();
    chat.rollback();
    let commit = bundle.into_commit().to_bytes().unwrap();
    world.hub.log.push(LogEntry {
        group: world.group,
        position: view.position + 1,
        commit: [&[0], commit.as_slice()].concat().into(),
        change,
        author: view.handle,
        message: MessageId::new([0; 16]),
    });
    world.hub.infos.push((view.position + 1, Bytes::new()));
}

/// All but the author skip the last entry for `reason`, and the group lives on.
fn assert_skipped(world: &mut World, by: usize, reason: Invalid) {
    for index in (0..world.devices.len()).filter(|index| *index != by) {
        assert_eq!(
            world.catch_up(index),
            [Applied::Skipped(reason)],
            "device {index}"
        );
    }
    // The author has forgotten it, so in this epoch its next commit would reuse a key.
    world.settle();
    world.change((by + 1) % 4, Intent::Update);
    world.assert_agreement();
    world.assert_reachable(by);
}

/// Four devices: an owner, an admin and two members.
fn society() -> World {
    let mut world = World::new(Suite::Classical, 4);
    let admin = world.devices[1].account;
    world.change(0, Intent::SetRole(admin, Role::Admin));
    world
}

fn leaf_of(world: &mut World, index: usize) -> (LeafNodeIndex, Handle) {
    let group = world.group;
    let handle = world.view(index).handle;
    let mls = world.devices[index].chat.take(&group).unwrap();
    (mls.own_leaf_index(), handle)
}

fn context(world: &mut World, edit: impl FnOnce(&mut Context)) -> Extensions<MlsContext> {
    let group = world.group;
    let mls = world.devices[0].chat.take(&group).unwrap();
    let base = mls.public_group().group_context();
    let mut context = Context::of(base).unwrap();
    edit(&mut context);
    context.extensions(Some(base)).unwrap()
}

type MlsContext = openmls::group::GroupContext;

fn fresh_key(context: &mut Context) {
    context.group_key = Secret::random();
}

fn package(device: &mut Device, lifetime: Lifetime) -> (KeyPackage, FanoutEntry) {
    let seed = Secret::<32>::random();
    let handle = Handle::new(keys::public(&seed));
    let identity = device.identity();
    let bundle = KeyPackage::builder()
        .key_package_lifetime(lifetime)
        .leaf_node_capabilities(profile::capabilities())
        .leaf_node_extensions(profile::leaf_extensions(&handle).unwrap())
        .build(
            Suite::Classical.ciphersuite(),
            &device.chat.provider,
            &identity.signer,
            identity.credential(),
        )
        .unwrap();
    let sealed_ref = reference(&device.id);
    let entry = FanoutEntry {
        handle,
        domain: domain(),
        sealed_ref,
        admin: false,
    };
    (bundle.into_key_package(), entry)
}

fn adding(entry: FanoutEntry) -> Change {
    Change {
        add: vec![entry],
        ..Change::default()
    }
}

#[test]
fn a_member_that_removes_another_is_skipped() {
    let mut world = society();
    let (index, handle) = leaf_of(&mut world, 3);
    let extensions = context(&mut world, fresh_key);

    let change = Change {
        remove: vec![handle],
        ..Change::default()
    };
    inject(&mut world, 2, change, |builder| {
        builder
            .propose_removals([index])
            .propose_group_context_extensions(extensions)
            .unwrap()
    });

    assert_skipped(&mut world, 2, Invalid::Roles);
}

#[test]
fn an_admin_that_removes_an_owner_is_skipped() {
    let mut world = society();
    let (index, handle) = leaf_of(&mut world, 0);
    let extensions = context(&mut world, fresh_key);

    let change = Change {
        remove: vec![handle],
        ..Change::default()
    };
    inject(&mut world, 1, change, |builder| {
        builder
            .propose_removals([index])
            .propose_group_context_extensions(extensions)
            .unwrap()
    });

    assert_skipped(&mut world, 1, Invalid::Roles);
}

#[test]
fn a_removal_that_keeps_the_group_key_is_skipped() {
    let mut world = society();
    let (index, handle) = leaf_of(&mut world, 3);

    let change = Change {
        remove: vec![handle],
        ..Change::default()
    };
    inject(&mut world, 0, change, |builder| {
        builder.propose_removals([index])
    });

    assert_skipped(&mut world, 0, Invalid::Context);
}

#[test]
fn a_removal_that_the_hub_is_not_told_of_is_skipped() {
    let mut world = society();
    let (index, _) = leaf_of(&mut world, 3);
    let (_, other) = leaf_of(&mut world, 2);
    for remove in [vec![], vec![other]] {
        let extensions = context(&mut world, fresh_key);
        let change = Change {
            remove,
            ..Change::default()
        };
        inject(&mut world, 0, change, |builder| {
            builder
                .propose_removals([index])
                .propose_group_context_extensions(extensions)
                .unwrap()
        });

        assert_skipped(&mut world, 0, Invalid::Remove);
    }
}

#[test]
fn a_member_that_makes_itself_an_owner_is_skipped() {
    let mut world = society();
    let account = world.devices[2].account;
    let handle = world.view(2).handle;
    let extensions = context(&mut world, |context| {
        context.roles.set(account, Role::Owner);
    });

    let admins = vec![AdminChange {
        handle,
        admin: true,
    }];
    inject(
        &mut world,
        2,
        Change {
            admins,
            ..Change::default()
        },
        |builder| {
            builder
                .propose_group_context_extensions(extensions)
                .unwrap()
        },
    );

    assert_skipped(&mut world, 2, Invalid::Roles);
}

#[test]
fn roles_and_admin_flags_that_disagree_are_skipped() {
    let mut world = society();
    let account = world.devices[2].account;
    let handle = world.view(2).handle;
    let flag = |admin| vec![AdminChange { handle, admin }];
    for (role, admins) in [
        (Role::Admin, vec![]),
        (Role::Admin, flag(false)),
        (Role::Member, flag(true)),
    ] {
        let extensions = context(&mut world, |context| context.roles.set(account, role));
        inject(
            &mut world,
            0,
            Change {
                admins,
                ..Change::default()
            },
            |builder| {
                builder
                    .propose_group_context_extensions(extensions)
                    .unwrap()
            },
        );

        assert_skipped(&mut world, 0, Invalid::Flags);
    }
}

#[test]
fn a_join_key_that_the_hub_is_not_told_of_is_skipped() {
    let mut world = society();
    let told = Some(JoinKeyChange::Set(JoinKey::new([9; 32])));
    for join_key in [None, told, Some(JoinKeyChange::Remove)] {
        let extensions = context(&mut world, |context| context.join_key = Some([8; 32]));
        inject(
            &mut world,
            0,
            Change {
                join_key,
                ..Change::default()
            },
            |builder| {
                builder
                    .propose_group_context_extensions(extensions)
                    .unwrap()
            },
        );

        assert_skipped(&mut world, 0, Invalid::Context);
    }
}

#[test]
fn a_context_without_roles_is_skipped() {
    let mut world = society();
    let extensions = context(&mut world, |_| {});
    let mut all: Vec<_> = extensions.iter().cloned().collect();
    all.retain(|extension| !matches!(extension, Extension::RequiredCapabilities(_)));
    let types = [0xf0c1, 0xf0c2, 0xf0c3].map(openmls::prelude::ExtensionType::Unknown);
    all.retain(|extension| types.contains(&extension.extension_type()));
    all.push(Extension::RequiredCapabilities(
        openmls::prelude::RequiredCapabilitiesExtension::new(&types, &[], &[]),
    ));
    let without_roles = Extensions::from_vec(all).unwrap();

    inject(&mut world, 0, Change::default(), |builder| {
        builder
            .propose_group_context_extensions(without_roles)
            .unwrap()
    });

    assert_skipped(&mut world, 0, Invalid::Context);
}

#[test]
fn an_added_leaf_that_is_not_the_listed_one_is_skipped() {
    let mut world = society();
    let mut newcomer = Device::new(9, 1);
    let (key_package, entry) = package(&mut newcomer, profile::lifetime());
    let (_, other) = package(&mut newcomer, profile::lifetime());
    let twice = Change {
        add: vec![entry, other.clone()],
        ..Change::default()
    };
    for change in [adding(other), Change::default(), twice] {
        let key_package = key_package.clone();
        inject(&mut world, 0, change, |builder| {
            builder.propose_adds([key_package])
        });

        assert_skipped(&mut world, 0, Invalid::Add);
    }
}

#[test]
fn an_added_member_with_the_flag_of_an_admin_is_skipped() {
    let mut world = society();
    let mut newcomer = Device::new(9, 1);
    let (key_package, entry) = package(&mut newcomer, profile::lifetime());

    let change = adding(FanoutEntry {
        admin: true,
        ..entry
    });
    inject(&mut world, 1, change, |builder| {
        builder.propose_adds([key_package])
    });

    assert_skipped(&mut world, 1, Invalid::Flags);
}

#[test]
fn a_package_whose_validity_would_depend_on_a_clock_is_skipped() {
    let mut world = society();
    let mut newcomer = Device::new(9, 1);
    let (key_package, entry) = package(&mut newcomer, Lifetime::new(86_400));

    inject(&mut world, 0, adding(entry), |builder| {
        builder.propose_adds([key_package])
    });

    assert_skipped(&mut world, 0, Invalid::Leaf);
}

#[test]
fn a_leaf_that_takes_the_name_of_another_device_is_skipped() {
    let mut world = society();
    let stolen = world.view(3).handle;
    let leaf = LeafNodeParameters::builder()
        .with_extensions(profile::leaf_extensions(&stolen).unwrap())
        .build();
    inject(&mut world, 2, Change::default(), |builder| {
        builder.leaf_node_parameters(leaf)
    });
    assert_skipped(&mut world, 2, Invalid::Leaf);

    let mut credential = world.devices[3].identity().credential();
    credential.signature_key = world.devices[2].identity().credential().signature_key;
    let leaf = LeafNodeParameters::builder()
        .with_credential_with_key(credential)
        .build();
    inject(&mut world, 2, Change::default(), |builder| {
        builder.leaf_node_parameters(leaf)
    });
    assert_skipped(&mut world, 2, Invalid::Leaf);
}

#[test]
fn a_commit_in_anothers_name_is_skipped() {
    let mut world = society();
    let (position, other) = (world.view(2).position, world.view(3).handle);
    let change = Change::default();
    let hash = authenticated_hash(&world.group, position, &change, &other);
    inject_under(&mut world, 2, (change, hash.to_vec()), |builder| {
        builder.force_self_update(true)
    });
    world.hub.log.last_mut().unwrap().author = other;

    assert_skipped(&mut world, 2, Invalid::Author);
}

#[test]
fn authenticated_data_other_than_the_hash_is_skipped() {
    let mut world = society();
    for length in [0, 31, 96] {
        let view = world.view(2);
        let change = Change::default();
        let hash = authenticated_hash(&world.group, view.position, &change, &view.handle);
        let aad = [hash.as_slice(), &[0; 64]].concat()[..length].to_vec();

        inject_under(&mut world, 2, (change, aad), |builder| {
            builder.force_self_update(true)
        });

        assert_skipped(&mut world, 2, Invalid::Terms);
    }
}

#[test]
fn roles_that_cannot_be_read_are_skipped() {
    let mut world = society();
    let extensions = context(&mut world, |_| {});
    let mut all: Vec<_> = extensions.iter().cloned().collect();
    for extension in &mut all {
        if let Extension::Unknown(0xf0c4, roles) = extension {
            *roles = UnknownExtension(b"rubbish".to_vec());
        }
    }
    let extensions = Extensions::from_vec(all).unwrap();

    inject(&mut world, 0, Change::default(), |builder| {
        builder
            .propose_group_context_extensions(extensions)
            .unwrap()
    });

    assert_skipped(&mut world, 0, Invalid::Context);
}
