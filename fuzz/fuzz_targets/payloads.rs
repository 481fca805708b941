//! Any bytes as each CBOR value: what is read is written, and reads the same again.
#![no_main]

use std::fmt::Debug;

use bytes::Bytes;
use commucat_proto::frame::ack::{AckDown, AckUp, Done, FirstAck};
use commucat_proto::frame::bundle::Bundle;
use commucat_proto::frame::directory::{Directory, DirectoryResult};
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::fetch::{Fetch, FetchResult};
use commucat_proto::frame::group_create::GroupCreate;
use commucat_proto::frame::group_event::GroupEvent;
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::frame::join::Join;
use commucat_proto::frame::key_package::{ClaimResult, KeyPackage, PackageCount};
use commucat_proto::frame::key_update::{KeyUpdate, KeyUpdateResult, LogEntry};
use commucat_proto::frame::leave::Leave;
use commucat_proto::frame::msg::{Msg, MsgDown};
use commucat_proto::frame::presence::Presence;
use commucat_proto::identity::{
    DeviceCertificate, DeviceList, Identification, JoinRead, ServerKeys,
};
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, raw) = input;
    let raw = Bytes::copy_from_slice(raw);
    match kind % 27 {
        0 => check::<AckDown>(&raw),
        1 => check::<AckUp>(&raw),
        2 => check::<FirstAck>(&raw),
        3 => check::<Bundle>(&raw),
        4 => check::<Directory>(&raw),
        5 => check::<DirectoryResult>(&raw),
        6 => check::<Problem>(&raw),
        7 => check::<Fetch>(&raw),
        8 => check::<FetchResult>(&raw),
        9 => check::<GroupCreate>(&raw),
        10 => check::<GroupEvent>(&raw),
        11 => check::<GroupInvite>(&raw),
        12 => check::<Join>(&raw),
        13 => check::<KeyPackage>(&raw),
        14 => check::<ClaimResult>(&raw),
        15 => check::<PackageCount>(&raw),
        16 => check::<KeyUpdate>(&raw),
        17 => check::<KeyUpdateResult>(&raw),
        18 => check::<LogEntry>(&raw),
        19 => check::<Leave>(&raw),
        20 => check::<Presence>(&raw),
        21 => check::<Identification>(&raw),
        22 => check::<DeviceCertificate>(&raw),
        23 => check::<DeviceList>(&raw),
        24 => check::<ServerKeys>(&raw),
        25 => check::<JoinRead>(&raw),
        _ => {
            check::<Signed>(&raw);
            check::<Done>(&raw);
            if let Ok(msg) = Msg::decode(&raw) {
                assert_eq!(msg.payload(), &raw);
                assert_eq!([msg.authenticated(), &msg.ciphertext()].concat(), raw);
            }
            drop(MsgDown::decode(0, &raw));
        }
    }
});

fn check<T: Cbor + Debug + PartialEq>(raw: &Bytes) {
    if let Ok(value) = T::decode_shared(raw) {
        let written = Bytes::from(value.encode());
        assert_eq!(T::decode_shared(&written).as_ref(), Ok(&value));
    }
}
