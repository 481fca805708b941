//! Long random histories, with rivals, restarts and rubbish, that all must agree on.

use commucat_proto::frame::fanout::Change;
use commucat_proto::frame::key_update::LogEntry;

use super::*;

/// A generator that a failing seed can be given to again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }
}

#[test]
fn a_thousand_random_steps_leave_no_two_members_in_different_epochs() {
    history(0x9e37_79b9_7f4a_7c15, 1_000);
}

fn history(seed: u64, steps: usize) {
    let mut dice = Dice(seed);
    let mut world = World::new(Suite::Classical, 6);
    let mut spare: u8 = 7;
    let mut unread: Vec<(usize, Sealed)> = Vec::new();
    for step in 0..steps {
        let count = world.devices.len();
        let by = dice.roll(count);
        match dice.roll(12) {
            0..=2 => rivals(&mut world, &mut dice),
            3 => {
                let intent = wanted(&mut world, &mut dice, &mut spare);
                try_change(&mut world, by, intent);
            }
            4 | 5 => {
                if member(&mut world, by) {
                    let group = world.group;
                    unread.push((by, world.devices[by].text(&group, "text").1));
                }
            }
            6..=8 => drop(world.catch_up(by)),
            9 => world.devices[by].reload(),
            10 => rubbish(&mut world, by),
            _ => {
                world.settle();
                world.assert_agreement();
                let group = world.group;
                for (author, sealed) in unread.drain(..) {
                    for index in (0..world.devices.len()).filter(|index| *index != author) {
                        let received = world.devices[index].open(&group, &sealed);
                        assert!(
                            !matches!(received, Received::Later) || !member(&mut world, index),
                            "seed {seed}, step {step}: {received:?}"
                        );
                    }
                }
            }
        }
    }
    world.settle();
    world.assert_agreement();
    let by = (0..world.devices.len())
        .find(|index| member(&mut world, *index))
        .unwrap();
    let view = world.view(by);
    assert!(view.epoch > 100, "a dull history of {} epochs", view.epoch);
    assert!(
        world.hub.head() > view.epoch + 20,
        "hardly anything was skipped"
    );
    world.assert_reachable(by);
}

fn member(world: &mut World, index: usize) -> bool {
    let group = world.group;
    world.devices[index]
        .chat
        .group(&group)
        .is_ok_and(|view| view.membership == Membership::Member)
}

/// Several members change keys at once, in the order of the dice.
fn rivals(world: &mut World, dice: &mut Dice) {
    let group = world.group;
    let members: Vec<_> = (0..world.devices.len())
        .filter(|index| member(world, *index))
        .collect();
    for index in &members {
        if dice.roll(2) == 0
            && world.devices[*index]
                .chat
                .intents(&group)
                .unwrap()
                .is_empty()
        {
            world.devices[*index].want(&group, Intent::Update);
        }
    }
    for _ in 0..members.len() {
        let index = members[dice.roll(members.len())];
        let proposal = world.devices[index].chat.propose(&group);
        world.devices[index].commit();
        let Ok(Proposal::Send(submission)) = proposal else {
            continue;
        };
        if let Ok(position) = world.hub.submit(&submission) {
            // Sometimes the answer is lost.
            if dice.roll(3) > 0 {
                world.devices[index]
                    .chat
                    .accepted(&group, position)
                    .unwrap();
                world.devices[index].commit();
            }
        }
    }
}

fn wanted(world: &mut World, dice: &mut Dice, spare: &mut u8) -> Intent {
    let count = world.devices.len();
    let account = world.devices[dice.roll(count)].account;
    match dice.roll(8) {
        0 | 1 if count < 14 => {
            world.devices.push(Device::new(*spare, 1));
            *spare += 1;
            Intent::Add(vec![world.devices[count].claimed(Suite::Classical)])
        }
        2 | 3 => {
            let index = dice.roll(count);
            Intent::Add(vec![world.devices[index].claimed(Suite::Classical)])
        }
        4 => Intent::RemoveAccount(account),
        5 => Intent::SetRole(
            account,
            [Role::Member, Role::Admin, Role::Owner][dice.roll(3)],
        ),
        6 => Intent::AllowJoin,
        _ => Intent::ForbidJoin,
    }
}

fn try_change(world: &mut World, by: usize, intent: Intent) {
    let group = world.group;
    if !member(world, by) || world.devices[by].chat.intend(&group, intent, NOW).is_err() {
        return;
    }
    for _ in 0..4 {
        world.catch_up(by);
        if !member(world, by) {
            return;
        }
        let proposal = world.devices[by].chat.propose(&group).unwrap();
        world.devices[by].commit();
        let Proposal::Send(submission) = proposal else {
            continue;
        };
        match world.hub.submit(&submission) {
            Ok(position) => {
                world.devices[by].chat.accepted(&group, position).unwrap();
                world.devices[by].commit();
            }
            Err(hub::Refused::Conflict) => {}
            Err(other) => panic!("the hub refuses what the roles allow: {other:?}"),
        }
    }
}

/// A member spends a position on something that is no commit.
fn rubbish(world: &mut World, by: usize) {
    if !member(world, by) {
        return;
    }
    let author = world.view(by).handle;
    let position = world.hub.head() + 1;
    let Some(last) = world.hub.log.last().cloned() else {
        return;
    };
    let commit = [&[0], last.commit.as_ref()].concat().into();
    let entry = LogEntry {
        position,
        commit,
        author,
        change: Change::default(),
        ..last
    };
    world.hub.log.push(entry);
    world
        .hub
        .infos
        .push((position, Bytes::from_static(b"rubbish")));
}
