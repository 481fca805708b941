//! The hub's rules, one by one: what the tests share.

mod commit;
mod group;

use commucat_proto::id::{Domain, Handle, SealedRef};

use super::{Entry, Group, JoinKey};

const KEY: JoinKey = [9; 32];

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn handle(number: u8) -> Handle {
    Handle::new([number; 32])
}

fn entry(number: u8, admin: bool) -> Entry {
    Entry {
        handle: handle(number),
        domain: domain("hub.example"),
        sealed_ref: SealedRef::new([number; 65]),
        admin,
    }
}

/// 1 is an admin, 2 is not.
fn group() -> Group {
    Group {
        head: 7,
        list: vec![entry(1, true), entry(2, false)],
        ..Group::default()
    }
}
