//! The checker against histories with known faults.
//!
//! A history is written as words: `s1` device 1 hands over its next message, `s1:4` its fourth, `k1:4`
//! it is told of its custody, `2<1:4` device 2 shows it, `2<?` device 2 shows what nobody wrote. All
//! in room 0 (devices 1, 2, 3) unless the word ends in `@` and another room.

use super::*;
use crate::history::Entry;

const ROOMS: [&[usize]; 3] = [&[1, 2, 3], &[1, 2], &[4]];

fn history(text: &str) -> History {
    let acts = text.split_whitespace().map(act);
    let entries = acts
        .zip(0..)
        .map(|((device, act), at_us)| Entry { at_us, device, act });
    History {
        rooms: ROOMS.map(<[usize]>::to_vec).to_vec(),
        entries: entries.collect(),
    }
}

fn act(word: &str) -> (usize, Act) {
    let (word, room) = word.split_once('@').unwrap_or((word, "0"));
    let key = |text: &str| {
        let (author, number) = text.split_once(':').unwrap();
        Key {
            room: room.parse().unwrap(),
            author: author.parse().unwrap(),
            number: number.parse().unwrap(),
        }
    };
    if let Some((device, shown)) = word.split_once('<') {
        let act = if shown == "?" {
            Act::ShowUnknown
        } else {
            Act::Show(key(shown))
        };
        return (device.parse().unwrap(), act);
    }
    let key = key(&word[1..]);
    let act = if word.starts_with('s') {
        Act::Send(key)
    } else {
        Act::Ack(key)
    };
    (key.author, act)
}

/// How many are lost, twice, disordered, alien.
fn faults(text: &str) -> [usize; 4] {
    let verdict = check(&history(text));
    [
        verdict.lost.len(),
        verdict.twice.len(),
        verdict.disordered.len(),
        verdict.alien.len(),
    ]
}

#[test]
fn good_histories_are_found_good() {
    let good = [
        "",
        "s1:1",
        "s1:1 1<1:1 2<1:1 3<1:1 k1:1",
        // Shown before the author knows, and without the author ever knowing.
        "s1:1 2<1:1 k1:1 3<1:1 1<1:1",
        "s1:1 1<1:1 2<1:1",
        // Sent, neither acknowledged nor shown; the next one is.
        "s1:1 s1:2 1<1:2 2<1:2 3<1:2 k1:2",
        // Authors in different orders on different devices.
        "s1:1 s2:1 1<1:1 1<2:1 2<2:1 2<1:1 3<1:1 3<2:1 k1:1 k2:1",
        // Rooms are apart: the order of one author holds in each.
        "s1:1 s1:1@1 2<1:1@1 1<1:1@1 k1:1@1 1<1:1 2<1:1 3<1:1 k1:1",
        // An acknowledgement told twice.
        "s4:1@2 4<4:1@2 k4:1@2 k4:1@2",
    ];

    for text in good {
        assert_eq!(faults(text), [0; 4], "{text}");
    }
}

#[test]
fn planted_losses_are_found() {
    let lost = [
        ("s1:1 k1:1", 3),
        ("s1:1 1<1:1 2<1:1 k1:1", 1),
        ("s1:1 1<1:1 3<1:1 k1:1", 1),
        // Not shown on the author's own device.
        ("s1:1 2<1:1 3<1:1 k1:1", 1),
        // In the middle, at the beginning, at the end.
        (
            "s1:1 s1:2 s1:3 k1:1 k1:2 k1:3 1<1:1 1<1:2 1<1:3 2<1:1 2<1:3 3<1:1 3<1:2 3<1:3",
            1,
        ),
        ("s1:1 s1:2 k1:1 k1:2 1<1:1 1<1:2 2<1:2 3<1:1 3<1:2", 1),
        ("s1:1 s1:2 k1:1 k1:2 1<1:1 1<1:2 2<1:1 2<1:2 3<1:1", 1),
        // Shown in another room than it was sent in.
        ("s4:1@2 k4:1@2 s1:1@1 1<1:1@1 2<1:1@1 k1:1@1", 1),
        // Same number, other author.
        ("s1:1 s2:1 k1:1 k2:1 1<1:1 1<2:1 2<1:1 2<2:1 3<2:1", 1),
    ];

    for (text, count) in lost {
        assert_eq!(faults(text), [count, 0, 0, 0], "{text}");
    }
}

#[test]
fn planted_repeats_are_found() {
    let twice = [
        ("s4:1@2 4<4:1@2 4<4:1@2", 1),
        ("s4:1@2 4<4:1@2 4<4:1@2 4<4:1@2", 2),
        ("s1:1 1<1:1 2<1:1 3<1:1 k1:1 2<1:1", 1),
        // Later ones came in between: a repeat, not a fault of the order.
        ("s4:1@2 s4:2@2 4<4:1@2 4<4:2@2 4<4:1@2", 1),
        ("s1:1 2<1:1 2<1:1 3<1:1 3<1:1 1<1:1", 2),
        // On the author's own device.
        ("s1:1 1<1:1 1<1:1 2<1:1 3<1:1 k1:1", 1),
    ];

    for (text, count) in twice {
        assert_eq!(faults(text), [0, count, 0, 0], "{text}");
    }
}

#[test]
fn planted_reorderings_are_found() {
    let disordered = [
        ("s1:1 s1:2 2<1:2 2<1:1", 1),
        ("s1:1 s1:2 s1:3 2<1:1 2<1:3 2<1:2", 1),
        ("s1:1 s1:2 s1:3 2<1:3 2<1:1 2<1:2", 2),
        // One device only.
        ("s1:1 s1:2 2<1:1 2<1:2 3<1:2 3<1:1", 1),
        // On the author's own device.
        ("s4:1@2 s4:2@2 4<4:2@2 4<4:1@2", 1),
    ];

    for (text, count) in disordered {
        assert_eq!(faults(text), [0, 0, count, 0], "{text}");
    }
}

#[test]
fn planted_aliens_are_found() {
    let alien = [
        // Never sent; acknowledged, but never sent; written by nobody.
        "2<1:1",
        "k4:1@2 4<4:1@2 s4:1@2",
        "2<?",
        // Shown before it was sent.
        "2<1:1 s1:1",
        // Shown to somebody outside of the room; in a room that is not there.
        "s1:1@1 3<1:1@1",
        "s1:1@7",
        // Sent twice under one number; sent into a room that is not its author's.
        "s1:1 s1:1",
        "s3:1@1",
    ];

    for text in alien {
        assert!(faults(text)[3] >= 1, "{text}");
        assert_eq!(&faults(text)[..3], [0, 0, 0], "{text}");
    }
}

#[test]
fn a_verdict_counts_messages_once_and_names_what_it_found() {
    let verdict = check(&history("s1:1 s1:2 1<1:1 2<1:1 k1:1 k1:1 2<?"));

    let key = Key {
        room: 0,
        author: 1,
        number: 1,
    };
    assert_eq!(
        (verdict.sent, verdict.acknowledged, verdict.shown),
        (2, 1, 2)
    );
    assert_eq!(verdict.lost, [(key, 3)]);
    assert_eq!(verdict.alien, [(None, 2)]);
    assert!(!verdict.is_good());
}
