//! Who is there: two honest devices that chat, a plain member, a removed one and a stranger.

use anyhow::{Context as _, Result, ensure};
use commucat_crypto::secret::random_bytes;
use commucat_crypto::server_keys::Statement;
use commucat_crypto::signing::{Purpose, SigningKey};
use commucat_proto::frame::FrameType;
use commucat_proto::frame::ack::AckUp;
use commucat_proto::frame::bundle::Bundle;
use commucat_proto::frame::fanout::{Change, FanoutEntry};
use commucat_proto::frame::fetch::{Fetch, FetchAccess, FetchResult, Want};
use commucat_proto::frame::group_create::GroupCreate;
use commucat_proto::frame::join::Join;
use commucat_proto::frame::key_package::KeyPackage;
use commucat_proto::frame::key_update::KeyUpdate;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{GroupId, Handle, MessageId, SealedRef, Token};
use commucat_proto::link::InviteLink;
use commucat_proto::signed::Signed;
use commucat_proto::well_known::WellKnown;
use commucat_proto::wire::Cbor;
use commucat_testkit::server::{Server, http};

use crate::carrier::Link;
use crate::client::{Event, Got, Keys, Session, Target};
use crate::clock;

/// The channel of the honest pair's own chat, and of the group with the plain member.
const PAIR_CHANNEL: u64 = 1;
pub(crate) const CLUB_CHANNEL: u64 = 2;

/// A device's place in a group.
pub(crate) struct Place {
    pub(crate) signing: SigningKey,
    pub(crate) sealed_ref: SealedRef,
}

impl Place {
    pub(crate) fn handle(&self) -> Handle {
        Handle::new(self.signing.public())
    }

    pub(crate) fn entry(&self, keys: &Keys, admin: bool) -> FanoutEntry {
        FanoutEntry {
            handle: self.handle(),
            domain: keys.target.domain.clone(),
            sealed_ref: self.sealed_ref,
            admin,
        }
    }
}

/// A fresh handle with the session's own reference for `group`.
pub(crate) async fn place(session: &mut Session, keys: &Keys, group: GroupId) -> Result<Place> {
    let hub = keys.target.domain.clone();
    let ask = KeyPackage::OwnReference { group, hub }.encode();
    let result = session.request(FrameType::KeyPackage, 0, &ask).await?;
    Ok(Place {
        signing: SigningKey::generate(),
        sealed_ref: SealedRef::decode_shared(&result)?,
    })
}

/// A commit without effects on the list.
pub(crate) fn bundle(group: GroupId, expect: u64, author: Handle) -> Bundle {
    Bundle {
        group,
        expect,
        commit: b"commit".to_vec().into(),
        change: Change::default(),
        welcomes: Vec::new(),
        sealed_group_info: b"info".to_vec().into(),
        author,
        first_message: None,
    }
}

pub(crate) fn update(keys: &Keys, bundle: Signed, sealed_ref: SealedRef) -> Vec<u8> {
    KeyUpdate {
        hub: keys.target.domain.clone(),
        bundle,
        sealed_ref,
    }
    .encode()
}

/// A bundle signed by its author, as a payload.
pub(crate) fn signed_update(keys: &Keys, place: &Place, bundle: &Bundle) -> Vec<u8> {
    let signed = place.signing.sign(Purpose::Commit, bundle.encode());
    update(keys, signed, place.sealed_ref)
}

pub(crate) async fn create(
    session: &mut Session,
    keys: &Keys,
    group: GroupId,
    place: &Place,
) -> Result<()> {
    let create = GroupCreate {
        group,
        fanout: vec![place.entry(keys, true)],
        sealed_group_info: None,
        join_key: None,
    };
    session
        .request(FrameType::GroupCreate, 0, &create.encode())
        .await?;
    Ok(())
}

pub(crate) fn join(keys: &Keys, group: GroupId, handle: Handle, sealed_ref: SealedRef) -> Vec<u8> {
    Join {
        group,
        hub: keys.target.domain.clone(),
        handle,
        sealed_ref,
    }
    .encode()
}

pub(crate) fn fetch(keys: &Keys, group: GroupId, handle: Handle, sealed_ref: SealedRef) -> Fetch {
    Fetch {
        group,
        hub: keys.target.domain.clone(),
        access: FetchAccess::Member { handle, sealed_ref },
        from: 1,
        want: Want {
            entries: true,
            group_info: false,
            list: true,
        },
    }
}

/// An honest device.
pub(crate) struct Honest {
    pub(crate) keys: Keys,
    pub(crate) session: Session,
    pub(crate) pair: Place,
    pub(crate) club: Place,
}

/// A dishonest one; it connects whenever it likes.
pub(crate) struct Rogue {
    pub(crate) keys: Keys,
    pub(crate) link: Link,
    live: Option<Session>,
}

/// After so many numbered frames a rogue takes a new session, for the rate of requests is limited.
const SESSION_NUMBERS: u64 = 1_500;

impl Rogue {
    /// A new session; an older one is replaced.
    pub(crate) async fn fresh(&mut self) -> Result<&mut Session> {
        let session = self.keys.connect(&self.link).await?;
        Ok(self.live.insert(session))
    }

    /// Drops its session: another took its place.
    pub(crate) fn forget(&mut self) {
        self.live = None;
    }

    /// The session that it has, if it is of use.
    pub(crate) async fn live(&mut self) -> Result<&mut Session> {
        let usable = self
            .live
            .as_ref()
            .is_some_and(|session| !session.is_over() && session.number() < SESSION_NUMBERS);
        if !usable {
            let session = self.keys.connect(&self.link).await?;
            self.live = Some(session);
        }
        self.live.as_mut().context("no session")
    }

    /// Sends a numbered frame with the next number.
    pub(crate) async fn say(
        &mut self,
        kind: FrameType,
        channel: u64,
        payload: &[u8],
    ) -> Result<Got> {
        let session = self.live().await?;
        let frame = crate::wire::frame(kind.code(), channel, session.number(), payload);
        Ok(session.provoke(&frame, true).await)
    }
}

/// Everybody.
pub(crate) struct World {
    pub(crate) server: Server,
    /// Another domain, which means well.
    pub(crate) friend: Server,
    pub(crate) target: Target,
    pub(crate) alice: Honest,
    pub(crate) bob: Honest,
    pub(crate) pair: GroupId,
    /// Alice (admin), Bob, the mole; the removed one was in it.
    pub(crate) club: GroupId,
    pub(crate) mole: Rogue,
    pub(crate) mole_place: Place,
    pub(crate) removed: Rogue,
    pub(crate) removed_place: Place,
    pub(crate) stranger: Rogue,
    turn: bool,
    before: Vec<FetchResult>,
}

/// The domain and the Noise key, from the well-known document.
pub(crate) async fn target(server: &Server) -> Result<Target> {
    let reply = http::get(server, "/.well-known/commucat").await?;
    let known = WellKnown::decode(reply.body.as_bytes())?;
    let statement = Statement::verify(&known.server_keys)?;
    let key = *statement.noise_key(clock::now()).context("no Noise key")?;
    Ok(Target {
        domain: known.domain,
        key,
    })
}

/// A token for so many accounts.
pub(crate) async fn token(server: &Server, uses: u32) -> Result<Token> {
    Ok(InviteLink::parse(&commucat_testkit::people::invite(server, uses).await?)?.token)
}

async fn rogue(server: &Server, target: &Target, token: &Token) -> Result<Rogue> {
    let (keys, link) = (Keys::new(target), Link::connect(server).await?);
    let live = Some(keys.register(&link, Token::new(*token.as_bytes())).await?);
    Ok(Rogue { keys, link, live })
}

async fn honest(
    server: &Server,
    target: &Target,
    token: &Token,
    groups: (GroupId, GroupId),
) -> Result<Honest> {
    let (keys, link) = (Keys::new(target), Link::connect(server).await?);
    drop(keys.register(&link, Token::new(*token.as_bytes())).await?);
    let mut session = keys.connect(&link).await?;
    let pair = place(&mut session, &keys, groups.0).await?;
    let club = place(&mut session, &keys, groups.1).await?;
    Ok(Honest {
        keys,
        session,
        pair,
        club,
    })
}

impl World {
    pub(crate) async fn new(server: Server, friend: Server) -> Result<Self> {
        let target = target(&server).await?;
        let token = token(&server, 5).await?;
        let (pair, club) = (GroupId::new(random_bytes()), GroupId::new(random_bytes()));
        let mut alice = honest(&server, &target, &token, (pair, club)).await?;
        let mut bob = honest(&server, &target, &token, (pair, club)).await?;
        let mut mole = rogue(&server, &target, &token).await?;
        let mut removed = rogue(&server, &target, &token).await?;
        let stranger = rogue(&server, &target, &token).await?;
        let mole_place = place_of(&mut mole, club).await?;
        let removed_place = place_of(&mut removed, club).await?;

        create(&mut alice.session, &alice.keys, pair, &alice.pair).await?;
        let mut first = bundle(pair, 0, alice.pair.handle());
        first.change.add = vec![bob.pair.entry(&bob.keys, false)];
        let payload = signed_update(&alice.keys, &alice.pair, &first);
        alice
            .session
            .request(FrameType::KeyUpdate, 0, &payload)
            .await?;

        create(&mut alice.session, &alice.keys, club, &alice.club).await?;
        let mut first = bundle(club, 0, alice.club.handle());
        first.change.add = vec![
            bob.club.entry(&bob.keys, false),
            mole_place.entry(&mole.keys, false),
            removed_place.entry(&removed.keys, false),
        ];
        let payload = signed_update(&alice.keys, &alice.club, &first);
        alice
            .session
            .request(FrameType::KeyUpdate, 0, &payload)
            .await?;
        // One commit a second of each handle.
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        let mut second = bundle(club, 1, alice.club.handle());
        second.change.remove = vec![removed_place.handle()];
        let payload = signed_update(&alice.keys, &alice.club, &second);
        alice
            .session
            .request(FrameType::KeyUpdate, 0, &payload)
            .await?;

        for honest in [&mut alice, &mut bob] {
            let (keys, session) = (&honest.keys, &mut honest.session);
            let payload = join(keys, pair, honest.pair.handle(), honest.pair.sealed_ref);
            session
                .request(FrameType::Join, PAIR_CHANNEL, &payload)
                .await?;
            let payload = join(keys, club, honest.club.handle(), honest.club.sealed_ref);
            session
                .request(FrameType::Join, CLUB_CHANNEL, &payload)
                .await?;
        }
        // Bob was told of three commits.
        for expected in 1..=3 {
            let seen = next_durable(&mut bob.session).await?;
            ensure!(seen == expected, "Bob got {seen}, not {expected}");
        }
        acknowledge(&mut bob.session, 3).await;
        let mut world = Self {
            server,
            friend,
            target,
            alice,
            bob,
            pair,
            club,
            mole,
            mole_place,
            removed,
            removed_place,
            stranger,
            turn: false,
            before: Vec::new(),
        };
        world.before = world.state().await?;
        Ok(world)
    }

    /// The honest pair's groups as Alice may see them.
    pub(crate) async fn state(&mut self) -> Result<Vec<FetchResult>> {
        let mut all = Vec::new();
        let alice = &mut self.alice;
        for (group, place) in [(self.pair, &alice.pair), (self.club, &alice.club)] {
            let fetch = fetch(&alice.keys, group, place.handle(), place.sealed_ref);
            let payload = fetch.encode();
            let result = alice.session.request(FrameType::Fetch, 0, &payload).await?;
            all.push(FetchResult::decode_shared(&result)?);
        }
        Ok(all)
    }

    /// Whether anything of theirs was changed since the beginning.
    pub(crate) async fn is_unchanged(&mut self) -> Result<bool> {
        Ok(self.state().await? == self.before)
    }

    /// Binds Alice's groups on a new session of hers.
    pub(crate) async fn rejoin_alice(&mut self, session: &mut Session) -> Result<()> {
        let alice = &self.alice;
        let places = [
            (self.pair, &alice.pair, PAIR_CHANNEL),
            (self.club, &alice.club, CLUB_CHANNEL),
        ];
        for (group, place, channel) in places {
            let payload = join(&alice.keys, group, place.handle(), place.sealed_ref);
            session.request(FrameType::Join, channel, &payload).await?;
        }
        Ok(())
    }

    /// One message from one of the pair to the other, who must get it and nothing else.
    pub(crate) async fn probe(&mut self) -> Result<()> {
        self.turn = !self.turn;
        let (from, to) = if self.turn {
            (&mut self.alice, &mut self.bob)
        } else {
            (&mut self.bob, &mut self.alice)
        };
        let msg = Msg::new(1, MessageId::new(random_bytes()), &random_bytes::<32>());
        let payload = msg.payload().clone();
        let number = from
            .session
            .numbered(FrameType::Msg, PAIR_CHANNEL, &payload)
            .await;
        loop {
            match to.session.event().await {
                Event::Frame(frame) if frame.header.kind == FrameType::Ack => {}
                // The mole may type in the club.
                Event::Frame(frame)
                    if frame.header.kind == FrameType::Typing
                        && u64::from(frame.header.channel) == CLUB_CHANNEL => {}
                Event::Frame(frame)
                    if frame.header.kind == FrameType::Msg
                        && u64::from(frame.header.channel) == PAIR_CHANNEL
                        && frame.payload == payload =>
                {
                    acknowledge(&mut to.session, frame.header.sequence).await;
                    break;
                }
                other => anyhow::bail!("the honest device got {other:?}"),
            }
        }
        let (got, _) = from.session.answer(number).await;
        ensure!(
            got == Got::Done,
            "the honest message is answered by {got:?}"
        );
        let strange = from
            .session
            .others
            .drain(..)
            .find(|frame| frame.header.kind != FrameType::Typing);
        ensure!(strange.is_none(), "the honest device got {strange:?}");
        Ok(())
    }
}

pub(crate) async fn place_of(rogue: &mut Rogue, group: GroupId) -> Result<Place> {
    rogue.live().await?;
    let session = rogue.live.as_mut().context("no session")?;
    place(session, &rogue.keys, group).await
}

async fn next_durable(session: &mut Session) -> Result<u32> {
    if let Some(at) = session
        .others
        .iter()
        .position(|frame| frame.header.sequence > 0)
    {
        return Ok(session.others.remove(at).header.sequence);
    }
    loop {
        match session.event().await {
            Event::Frame(frame) if frame.header.sequence > 0 => return Ok(frame.header.sequence),
            Event::Frame(_) => {}
            other => anyhow::bail!("{other:?}"),
        }
    }
}

pub(crate) async fn acknowledge(session: &mut Session, through: u32) {
    let ack = AckUp {
        through: Some(through),
        tags: Vec::new(),
    };
    session
        .send(&crate::wire::frame(6, 0, 0, &ack.encode()))
        .await;
}
