//! Groups whose MLS parts are stand-ins: the server looks at none of them.

use anyhow::Result;
use commucat_crypto::secret::random_bytes;
use commucat_crypto::signing::{Purpose, SigningKey};
use commucat_proto::frame::FrameType;
use commucat_proto::frame::bundle::Bundle;
use commucat_proto::frame::fanout::{Change, FanoutEntry};
use commucat_proto::frame::group_create::GroupCreate;
use commucat_proto::frame::join::Join;
use commucat_proto::frame::key_package::KeyPackage;
use commucat_proto::frame::key_update::KeyUpdate;
use commucat_proto::id::{Domain, GroupId, Handle, SealedRef};
use commucat_proto::wire::Cbor as _;

use super::{CHANNEL, Device};

/// Sizes of a real commit and a real sealed GroupInfo of few members.
const COMMIT_BYTES: usize = 6_000;
const GROUP_INFO_BYTES: usize = 8_000;

/// A device's place in a group.
struct Place {
    /// Its device's domain.
    home: Domain,
    signing: SigningKey,
    sealed_ref: SealedRef,
}

impl Place {
    async fn take(device: &mut Device, group: GroupId, hub: &Domain) -> Result<Self> {
        let hub = hub.clone();
        let ask = KeyPackage::OwnReference { group, hub };
        let result = device.request(FrameType::KeyPackage, 0, &ask).await?;
        Ok(Self {
            home: device.domain.clone(),
            signing: SigningKey::generate(),
            sealed_ref: SealedRef::decode_shared(&result)?,
        })
    }

    fn handle(&self) -> Handle {
        Handle::new(self.signing.public())
    }

    fn entry(&self, admin: bool) -> FanoutEntry {
        FanoutEntry {
            handle: self.handle(),
            domain: self.home.clone(),
            sealed_ref: self.sealed_ref,
            admin,
        }
    }
}

/// Makes a group of all `devices` at `domain`, the first of them its author, and binds its channel in each.
pub(crate) async fn make(devices: &mut [Device], domain: &Domain) -> Result<()> {
    let group = GroupId::new(random_bytes());
    let mut places = Vec::with_capacity(devices.len());
    for device in devices.iter_mut() {
        places.push(Place::take(device, group, domain).await?);
    }
    if let (Some((author, _)), Some((place, others))) =
        (devices.split_first_mut(), places.split_first())
    {
        let create = GroupCreate {
            group,
            fanout: vec![place.entry(true)],
            sealed_group_info: None,
            join_key: None,
        };
        author.request(FrameType::GroupCreate, 0, &create).await?;
        let add = others.iter().map(|other| other.entry(false));
        let update = add_all(group, place, add.collect(), domain);
        author.request(FrameType::KeyUpdate, 0, &update).await?;
    }
    for (device, place) in devices.iter_mut().zip(&places) {
        let join = Join {
            group,
            hub: domain.clone(),
            handle: place.handle(),
            sealed_ref: place.sealed_ref,
        };
        device.request(FrameType::Join, CHANNEL, &join).await?;
    }
    Ok(())
}

fn add_all(group: GroupId, place: &Place, add: Vec<FanoutEntry>, domain: &Domain) -> KeyUpdate {
    let bundle = Bundle {
        group,
        expect: 0,
        commit: vec![1; COMMIT_BYTES].into(),
        change: Change {
            add,
            ..Change::default()
        },
        welcomes: Vec::new(),
        sealed_group_info: vec![2; GROUP_INFO_BYTES].into(),
        author: place.handle(),
        first_message: None,
    };
    KeyUpdate {
        hub: domain.clone(),
        bundle: place.signing.sign(Purpose::Commit, bundle.encode()),
        sealed_ref: place.sealed_ref,
    }
}
