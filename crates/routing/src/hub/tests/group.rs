//! GROUP_CREATE, fan-out, departures and join reads.

use commucat_proto::time::Timestamp;

use super::{KEY, domain, entry, group, handle};
use crate::hub::{Author, Entry, Fanout, Group, Refusal, Source};

#[test]
fn a_new_group_has_one_admin_of_the_hubs_domain() {
    let hub = domain("hub.example");
    let elsewhere = Entry {
        domain: domain("b.example"),
        ..entry(1, true)
    };

    assert!(Group::create(&[entry(1, true)], &hub, None).is_ok());
    for bad in [
        &[][..],
        &[entry(1, false)],
        &[elsewhere],
        &[entry(1, true), entry(2, true)],
    ] {
        assert!(matches!(
            Group::create(bad, &hub, None),
            Err(Refusal::Invalid(_))
        ));
    }
}

#[test]
fn a_list_that_runs_empty_closes_the_group() {
    let departure = group().depart(&[handle(1), handle(2), handle(9)]);

    assert!(departure.group.closed);
    assert_eq!(departure.removed, [handle(1), handle(2)]);
}

fn asks(author: &Entry) -> Author<'_> {
    Author {
        handle: &author.handle,
        sealed_ref: &author.sealed_ref,
        origin: &author.domain,
    }
}

#[test]
fn a_message_goes_to_all_but_its_author_from_the_last_three_positions() {
    let author = entry(2, false);
    let group = group();
    let fanout = |position| group.fanout(asks(&author), position, Source::Store);

    for position in [5, 6, 7] {
        assert_eq!(fanout(position), Ok(Fanout::To(vec![&entry(1, true)])));
    }
    assert_eq!(fanout(4), Err(Refusal::EpochOld));
    assert_eq!(fanout(8), Err(Refusal::Conflict { head: 7 }));
    let stranger = entry(5, false);
    assert_eq!(
        group.fanout(asks(&stranger), 7, Source::Store),
        Err(Refusal::NotFound)
    );
}

#[test]
fn a_cached_list_is_read_again_before_it_refuses() {
    let (author, stranger) = (entry(2, false), entry(5, false));
    let group = group();

    assert_eq!(
        group.fanout(asks(&author), 8, Source::Cache),
        Ok(Fanout::Reload)
    );
    assert_eq!(
        group.fanout(asks(&stranger), 7, Source::Cache),
        Ok(Fanout::Reload)
    );
}

#[test]
fn a_join_read_needs_the_key_in_force_and_the_clock_and_grants_little() {
    let group = Group {
        join_key: Some(KEY),
        ..group()
    };
    let now = Timestamp::from_millis(10_000_000);
    let minutes = |count: u64| Timestamp::from_millis(10_000_000 + count * 60_000);

    assert_eq!(group.may_join_read(minutes(15), now, false), Ok(()));
    assert_eq!(group.may_join_read(now, minutes(15), false), Ok(()));
    assert!(group.may_join_read(minutes(16), now, false).is_err());
    assert!(group.may_join_read(now, minutes(16), false).is_err());
    assert!(group.may_join_read(now, now, true).is_err());
    let without = Group {
        join_key: None,
        ..group
    };
    assert_eq!(
        without.may_join_read(now, now, false),
        Err(Refusal::NotFound)
    );
}
