//! The values that `tests/vectors/make.py` writes down with other tools.

use bytes::Bytes;
use commucat_proto::error::Title;
use commucat_proto::frame::ack::{AckDown, AckUp, Answer, CustodyRun, CustodyStatus, ForkTag};
use commucat_proto::frame::directory::Directory;
use commucat_proto::frame::error::{Problem, ProblemExtra};
use commucat_proto::frame::fanout::{AdminChange, Change, FanoutEntry, JoinKeyChange};
use commucat_proto::frame::fetch::{Fetch, FetchAccess, Want};
use commucat_proto::frame::group_create::GroupCreate;
use commucat_proto::frame::group_event::{EventKind, GroupEvent, Notice, Reason};
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::frame::join::Join;
use commucat_proto::frame::key_package::{Claim, KeyPackage, PublishedPackage};
use commucat_proto::frame::key_update::{KeyUpdate, LogEntry};
use commucat_proto::frame::leave::Leave;
use commucat_proto::frame::msg::{Msg, MsgDown};
use commucat_proto::frame::payload::{FromClient, FromServer};
use commucat_proto::frame::presence::Presence;
use commucat_proto::id::{
    AccountId, ClaimId, DedupeKey, DeviceId, Domain, GroupId, Handle, JoinKey, MessageId,
    SealedRef, Token, TokenHash,
};
use commucat_proto::signed::Signed;
use commucat_proto::time::Timestamp;

pub(crate) const ALICE: Handle = Handle::new([0xa1; 32]);
pub(crate) const BOB: Handle = Handle::new([0xb2; 32]);
pub(crate) const CAROL: Handle = Handle::new([0xc3; 32]);
pub(crate) const REF: SealedRef = SealedRef::new([0xd4; 65]);
pub(crate) const REF2: SealedRef = SealedRef::new([0xe5; 65]);
pub(crate) const MS: Timestamp = Timestamp::from_millis(1_767_225_600_000);
pub(crate) const MS2: Timestamp = Timestamp::from_millis(1_798_761_600_000);

fn counted<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|index| first + u8::try_from(index).unwrap())
}

pub(crate) fn group() -> GroupId {
    GroupId::new(counted(0))
}

pub(crate) fn message() -> MessageId {
    MessageId::new(counted(0xa0))
}

pub(crate) fn token() -> Token {
    Token::new(counted(0x10))
}

pub(crate) fn hub() -> Domain {
    Domain::parse("chat.example.org").unwrap()
}

pub(crate) fn home() -> Domain {
    Domain::parse("other.example:8443").unwrap()
}

pub(crate) fn device() -> DeviceId {
    DeviceId::parse("7ixucyscc33q4jpe6adtmcpsv4").unwrap()
}

fn account() -> AccountId {
    AccountId::parse("sc6655e5lutgjzxpgf6d7rg6yslv6ezi").unwrap()
}

pub(crate) fn signed(body: &'static [u8]) -> Signed {
    Signed {
        body: Bytes::from_static(body),
        signature: [0xf6; 64],
    }
}

pub(crate) fn fanout_alice() -> FanoutEntry {
    FanoutEntry {
        handle: ALICE,
        domain: hub(),
        sealed_ref: REF,
        admin: true,
    }
}

pub(crate) fn fanout_bob() -> FanoutEntry {
    FanoutEntry {
        handle: BOB,
        domain: home(),
        sealed_ref: REF2,
        admin: false,
    }
}

pub(crate) fn entry() -> LogEntry {
    LogEntry {
        group: group(),
        position: 300,
        commit: Bytes::from_static(b"commit"),
        change: Change {
            add: vec![fanout_bob()],
            remove: vec![CAROL],
            join_key: Some(JoinKeyChange::Remove),
            close: false,
            admins: vec![AdminChange {
                handle: BOB,
                admin: true,
            }],
        },
        author: ALICE,
        message: message(),
    }
}

pub(crate) fn small_entry() -> LogEntry {
    LogEntry {
        group: group(),
        position: 301,
        commit: Bytes::new(),
        change: Change::default(),
        author: BOB,
        message: message(),
    }
}

/// A frame of a vector file: file, name, channel, sequence, value.
pub(crate) type Sample<T> = (&'static str, &'static str, u32, u32, T);

pub(crate) fn from_client() -> Vec<Sample<FromClient>> {
    let mut samples = group_requests();
    samples.extend(identity_requests());
    samples.extend([
        (
            "msg",
            "up",
            1,
            1,
            FromClient::Msg(Msg::new(300, message(), b"opaque")),
        ),
        (
            "msg",
            "up_empty",
            1,
            1,
            FromClient::Msg(Msg::new(0, message(), b"")),
        ),
        ("ack", "up_through", 0, 0, ack_up(Some(70_000), vec![])),
        ("ack", "up_empty", 0, 0, ack_up(None, vec![])),
        (
            "ack",
            "up_tags",
            0,
            0,
            ack_up(
                Some(1),
                vec![
                    ForkTag {
                        group: group(),
                        position: 300,
                        tag: Some(*message().as_bytes()),
                    },
                    ForkTag {
                        group: group(),
                        position: 301,
                        tag: None,
                    },
                ],
            ),
        ),
        (
            "typing",
            "up",
            3,
            0,
            FromClient::Typing(Bytes::from_static(b"opaque")),
        ),
        (
            "presence",
            "up_idle",
            0,
            0,
            FromClient::Presence(Presence::Idle),
        ),
        (
            "presence",
            "up_active",
            0,
            0,
            FromClient::Presence(Presence::Active),
        ),
        ("padding", "both_empty", 0, 0, FromClient::Padding),
    ]);
    samples
}

fn ack_up(through: Option<u32>, tags: Vec<ForkTag>) -> FromClient {
    FromClient::Ack(AckUp { through, tags })
}

fn group_requests() -> Vec<Sample<FromClient>> {
    let join = Join {
        group: group(),
        hub: hub(),
        handle: ALICE,
        sealed_ref: REF,
    };
    let create = GroupCreate {
        group: group(),
        fanout: vec![fanout_alice()],
        sealed_group_info: None,
        join_key: None,
    };
    let full = GroupCreate {
        sealed_group_info: Some(Bytes::from_static(b"info")),
        join_key: Some(JoinKey::new([0xc3; 32])),
        ..create.clone()
    };
    let member = FetchAccess::Member {
        handle: ALICE,
        sealed_ref: REF,
    };
    let joiner = FetchAccess::Joiner(signed(b"read"));
    let some = Want {
        entries: true,
        group_info: false,
        list: true,
    };
    let info = Want {
        entries: false,
        group_info: true,
        list: false,
    };
    let fetch = |access, from, want| {
        FromClient::Fetch(Fetch {
            group: group(),
            hub: hub(),
            access,
            from,
            want,
        })
    };
    let leave = |for_good| {
        FromClient::Leave(Leave {
            group: group(),
            for_good,
        })
    };
    let key_update = KeyUpdate {
        hub: hub(),
        bundle: signed(b"bundle"),
        sealed_ref: REF,
    };
    vec![
        ("join", "up", 4_096, 1, FromClient::Join(join)),
        ("leave", "up_unbind", 0, 1, leave(false)),
        ("leave", "up_for_good", 0, 1, leave(true)),
        ("key_update", "up", 0, 1, FromClient::KeyUpdate(key_update)),
        ("group_create", "up", 0, 1, FromClient::GroupCreate(create)),
        (
            "group_create",
            "up_full",
            0,
            1,
            FromClient::GroupCreate(full),
        ),
        ("fetch", "up_member", 0, 1, fetch(member, 300, some)),
        ("fetch", "up_joiner", 0, 1, fetch(joiner, 0, info)),
    ]
}

fn identity_requests() -> Vec<Sample<FromClient>> {
    let package = |not_after, last_resort, package| PublishedPackage {
        not_after,
        last_resort,
        package: Bytes::from_static(package),
    };
    let packages = vec![package(MS, false, b"one"), package(MS2, true, b"two")];
    let claim = Claim {
        account: account(),
        domain: home(),
        capability: Some(token()),
        group: group(),
        hub: hub(),
        id: ClaimId::new(counted(0x20)),
    };
    let own = Claim {
        domain: hub(),
        capability: None,
        ..claim.clone()
    };
    let capabilities = KeyPackage::Capabilities {
        add: vec![TokenHash::new([0xa1; 32]), TokenHash::new([0xb2; 32])],
        remove: vec![TokenHash::new([0xc3; 32])],
    };
    let reference = KeyPackage::OwnReference {
        group: group(),
        hub: hub(),
    };
    let get = Directory::Get {
        account: account(),
        domain: home(),
        capability: Some(token()),
    };
    let put = Directory::Put {
        list: signed(b"list"),
    };
    let sample = |name, operation| ("key_package", name, 0, 1, FromClient::KeyPackage(operation));
    vec![
        sample("up_publish", KeyPackage::Publish { packages }),
        sample("up_count", KeyPackage::Count),
        sample("up_claim", KeyPackage::Claim(claim)),
        sample("up_claim_own", KeyPackage::Claim(own)),
        sample("up_capabilities", capabilities),
        sample("up_own_reference", reference),
        ("directory", "up_put", 0, 1, FromClient::Directory(put)),
        ("directory", "up_get", 0, 1, FromClient::Directory(get)),
    ]
}

pub(crate) fn from_server() -> Vec<Sample<FromServer>> {
    let msg = Msg::new(300, message(), b"opaque");
    let invite = GroupInvite {
        group: group(),
        hub: hub(),
        position: 300,
        handle: BOB,
        sealed_ref: REF2,
        welcome: Bytes::from_static(b"welcome"),
        message: message(),
    };
    let closing = LogEntry {
        change: Change {
            join_key: Some(JoinKeyChange::Set(JoinKey::new([0xc3; 32]))),
            close: true,
            ..Change::default()
        },
        ..small_entry()
    };
    let bound = MsgDown {
        group: None,
        msg: msg.clone(),
    };
    let unbound = MsgDown {
        group: Some(group()),
        msg,
    };
    let mut samples = vec![
        ("msg", "down_bound", 7, 1, FromServer::Msg(bound)),
        ("msg", "down_unbound", 0, 1, FromServer::Msg(unbound)),
        ("typing", "down", 3, 0, FromServer::Typing(Bytes::new())),
        ("key_update", "down", 0, 1, FromServer::KeyUpdate(entry())),
        (
            "key_update",
            "down_small",
            0,
            1,
            FromServer::KeyUpdate(small_entry()),
        ),
        (
            "key_update",
            "down_close",
            0,
            1,
            FromServer::KeyUpdate(closing),
        ),
        (
            "group_invite",
            "down",
            0,
            1,
            FromServer::GroupInvite(invite),
        ),
        ("padding", "both_empty", 0, 0, FromServer::Padding),
    ];
    samples.extend(acks());
    samples.extend(events());
    samples.extend(problems());
    samples
}

fn acks() -> Vec<Sample<FromServer>> {
    let run = |first, count, status| CustodyRun {
        first,
        count,
        status,
    };
    let custody = vec![
        run(1, 23, CustodyStatus::Delivered),
        run(24, 1, CustodyStatus::Stored),
        run(300, 2, CustodyStatus::Refused),
        run(400, 1, CustodyStatus::Relayed),
    ];
    let all = AckDown {
        custody: vec![run(1, 1, CustodyStatus::Stored)],
        queue_empty: true,
        ..AckDown::with_result(300, &REF)
    };
    let done = AckDown {
        answer: Some(Answer {
            request: 7,
            result: Bytes::from_static(&[0xa0]),
        }),
        ..AckDown::default()
    };
    assert_eq!(done, AckDown::done(7));
    let sample = |name, ack| ("ack", name, 0, 0, FromServer::Ack(ack));
    vec![
        sample(
            "down_custody",
            AckDown {
                custody,
                ..AckDown::default()
            },
        ),
        sample("down_done", done),
        sample("down_all", all),
        sample(
            "down_queue_empty",
            AckDown {
                queue_empty: true,
                ..AckDown::default()
            },
        ),
    ]
}

fn events() -> Vec<Sample<FromServer>> {
    let later = Notice {
        group: None,
        kind: EventKind::Unknown(77),
        position: None,
        handles: None,
        about: None,
        reason: Some(Reason::Unknown(99)),
        returned: None,
    };
    let sealed = |number| (message(), DedupeKey::new([number; 16]));
    let full = GroupEvent::undelivered(group(), sealed(0xd1), Some(vec![BOB]), Reason::Full);
    let nobody = GroupEvent::undelivered(group(), sealed(0xd2), None, Reason::Epoch);
    let sample = |name, event| ("group_event", name, 0, 1, FromServer::GroupEvent(event));
    vec![
        sample("down_undelivered", full),
        sample("down_nobody", nobody),
        sample("down_gone", GroupEvent::gone(group(), vec![BOB, CAROL])),
        sample("down_fork", GroupEvent::fork(group(), 300)),
        sample("down_closed", GroupEvent::closed(group())),
        sample("down_gap", GroupEvent::gap(message())),
        sample(
            "down_later_kind",
            GroupEvent {
                notice: later,
                message: message(),
            },
        ),
    ]
}

fn problems() -> Vec<Sample<FromServer>> {
    let conflict = Problem {
        extra: Box::new(ProblemExtra {
            head: Some(302),
            missing: vec![entry(), small_entry()],
            more: true,
            ..ProblemExtra::default()
        }),
        ..Problem::new(Title::Conflict, "position taken").of_frame(70_000)
    };
    let fatal = Problem::new(Title::Replaced, "the device connected again");
    let wait = Problem::new(Title::RateLimited, "too fast")
        .of_frame(9)
        .retry_after(30);
    let sample = |name, problem| ("error", name, 0, 0, FromServer::Error(problem));
    vec![
        sample("down_fatal", fatal),
        sample("down_wait", wait),
        sample("down_conflict", conflict),
    ]
}
