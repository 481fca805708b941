//! KEY_UPDATE.

use commucat_proto::id::{Domain, Handle, SealedRef};

use super::{KEY, domain, entry, group, handle};
use crate::hub::{
    Change, Committed, Entry, Group, JoinKeyChange, Past, Proposal, Recipient, Refusal, Signer,
    commit, signer,
};

fn by(author: &Entry) -> Proposal<'_> {
    Proposal {
        expect: 7,
        author: &author.handle,
        sealed_ref: &author.sealed_ref,
        origin: &author.domain,
        add: &[],
        remove: &[],
        admins: &[],
        welcomes: &[],
        join_key: JoinKeyChange::Keep,
        close: false,
        first_message: None,
    }
}

fn decide(group: &Group, proposal: &Proposal<'_>) -> Result<Committed, Refusal> {
    commit(group, proposal, Signer::Member, Past::Other)
}

fn change(group: &Group, proposal: &Proposal<'_>) -> Change {
    match decide(group, proposal) {
        Ok(Committed::Apply(change)) => *change,
        other => {
            assert!(other.is_err(), "a repeat");
            assert_eq!(other.err(), None);
            Change {
                position: 0,
                group: group.clone(),
                recipients: Vec::new(),
            }
        }
    }
}

fn is_invalid(result: &Result<Committed, Refusal>) -> bool {
    matches!(result, Err(Refusal::Invalid(_)))
}

fn is_forbidden(result: &Result<Committed, Refusal>) -> bool {
    matches!(result, Err(Refusal::Forbidden(_)))
}

#[test]
fn a_commit_at_the_head_is_the_next_entry() {
    let author = entry(2, false);

    let change = change(&group(), &by(&author));

    assert_eq!((change.position, change.group.head), (8, 8));
    assert_eq!(change.recipients.len(), 1);
}

#[test]
fn a_commit_at_another_position_is_a_conflict_that_names_the_head() {
    let author = entry(2, false);
    for expect in [0, 6, 8, u64::MAX] {
        let late = Proposal {
            expect,
            close: true,
            ..by(&author)
        };

        assert_eq!(decide(&group(), &late), Err(Refusal::Conflict { head: 7 }));
    }
}

#[test]
fn a_repeat_gets_its_position_even_after_its_author_left_or_the_group_closed() {
    let author = entry(3, false);
    let closed = Group {
        closed: true,
        list: Vec::new(),
        ..group()
    };
    let repeat = Proposal {
        expect: 4,
        ..by(&author)
    };

    for group in [group(), closed] {
        let result = commit(&group, &repeat, Signer::Member, Past::Same);
        assert_eq!(result, Ok(Committed::Repeat { position: 5 }));
    }
}

#[test]
fn handle_reference_and_origin_must_be_one_entry() {
    let author = entry(1, true);
    let other_ref = SealedRef::new([8; 65]);
    let other_domain = domain("b.example");
    let stranger = entry(5, true);

    let not_found = [
        Proposal {
            sealed_ref: &other_ref,
            ..by(&author)
        },
        Proposal {
            origin: &other_domain,
            ..by(&author)
        },
        by(&stranger),
    ];

    for proposal in &not_found {
        assert_eq!(decide(&group(), proposal), Err(Refusal::NotFound));
    }
    let closed = Group {
        closed: true,
        ..group()
    };
    assert_eq!(decide(&closed, &by(&author)), Err(Refusal::NotFound));
}

#[test]
fn only_an_admin_changes_more_than_adding_members() {
    let member = entry(2, false);
    let (add, add_admin) = ([entry(3, false)], [entry(3, true)]);
    let remove = [handle(1)];
    let admins = [(handle(2), true)];

    assert!(
        decide(
            &group(),
            &Proposal {
                add: &add,
                ..by(&member)
            }
        )
        .is_ok()
    );
    let forbidden = [
        Proposal {
            add: &add_admin,
            ..by(&member)
        },
        Proposal {
            remove: &remove,
            ..by(&member)
        },
        Proposal {
            admins: &admins,
            ..by(&member)
        },
        Proposal {
            join_key: JoinKeyChange::Set(KEY),
            ..by(&member)
        },
        Proposal {
            join_key: JoinKeyChange::Clear,
            ..by(&member)
        },
        Proposal {
            close: true,
            ..by(&member)
        },
    ];
    for proposal in &forbidden {
        assert!(is_forbidden(&decide(&group(), proposal)));
        let admin = entry(1, true);
        let same = Proposal {
            remove: &[],
            ..*proposal
        };
        let by_admin = Proposal {
            author: &admin.handle,
            sealed_ref: &admin.sealed_ref,
            origin: &admin.domain,
            ..same
        };
        assert!(decide(&group(), &by_admin).is_ok());
    }
}

#[test]
fn handles_are_added_once_and_removed_only_if_they_are_there() {
    let admin = entry(1, true);
    let present = [entry(2, false)];
    let twice = [entry(3, false), entry(3, false)];
    let (absent, removed_twice) = ([handle(9)], [handle(2), handle(2)]);
    let (new, new_handle) = ([entry(3, false)], [handle(3)]);
    let (stranger, flag_twice) = ([(handle(9), true)], [(handle(2), true), (handle(2), false)]);

    let invalid = [
        Proposal {
            add: &present,
            ..by(&admin)
        },
        Proposal {
            add: &twice,
            ..by(&admin)
        },
        Proposal {
            remove: &absent,
            ..by(&admin)
        },
        Proposal {
            remove: &removed_twice,
            ..by(&admin)
        },
        Proposal {
            add: &new,
            remove: &new_handle,
            ..by(&admin)
        },
        Proposal {
            admins: &stranger,
            ..by(&admin)
        },
        Proposal {
            admins: &flag_twice,
            ..by(&admin)
        },
        Proposal {
            first_message: Some(7),
            ..by(&admin)
        },
    ];

    for proposal in &invalid {
        assert!(is_invalid(&decide(&group(), proposal)));
    }
}

#[test]
fn a_handle_that_is_gone_may_be_added_again() {
    let admin = entry(1, true);
    let left = group().depart(&[handle(2)]).group;
    let add = [entry(2, false)];

    let change = change(
        &left,
        &Proposal {
            add: &add,
            ..by(&admin)
        },
    );

    assert_eq!(change.group.list, [entry(1, true), entry(2, false)]);
    assert!(change.group.gone.is_empty());
}

#[test]
fn removing_a_handle_that_was_there_has_no_effect() {
    let admin = entry(1, true);
    let remove = [handle(2)];
    let left = group().depart(&remove).group;
    let again = |group: &Group| {
        let proposal = Proposal {
            expect: group.head,
            remove: &remove,
            ..by(&admin)
        };
        change(group, &proposal).group
    };

    for once in [again(&group()), again(&left)] {
        let twice = again(&once);

        assert_eq!(once.list, [entry(1, true)]);
        assert_eq!((twice.list, twice.gone), (once.list, vec![handle(2)]));
    }
}

#[test]
fn a_list_without_an_admin_makes_all_its_entries_admins() {
    let admin = entry(1, true);
    let (remove, admins) = ([handle(1)], [(handle(1), false)]);

    let by_commit = change(
        &group(),
        &Proposal {
            remove: &remove,
            ..by(&admin)
        },
    );
    let by_flag = change(
        &group(),
        &Proposal {
            admins: &admins,
            ..by(&admin)
        },
    );
    let by_departure = group().depart(&remove);

    assert_eq!(by_commit.group.list, [entry(2, true)]);
    assert_eq!(by_flag.group.list, [entry(1, true), entry(2, true)]);
    assert_eq!(by_departure.group.list, [entry(2, true)]);
    assert_eq!(by_departure.removed, remove);
}

#[test]
fn a_list_has_at_most_256_handles_of_64_domains() {
    let admin = entry(1, true);
    let numbered = |number: u16, domain: Domain| {
        let [high, low] = number.to_be_bytes();
        let mut raw = [0xee; 32];
        raw[0] = high;
        raw[1] = low;
        Entry {
            handle: Handle::new(raw),
            domain,
            ..entry(3, false)
        }
    };
    let here: Vec<Entry> = (0..255)
        .map(|n| numbered(n, domain("hub.example")))
        .collect();
    let domains: Vec<Entry> = (0..64)
        .map(|n| numbered(n, domain(&format!("d{n}.example"))))
        .collect();

    let fits = |add: &[Entry]| decide(&group(), &Proposal { add, ..by(&admin) }).is_ok();

    assert!(fits(&here[..254]) && !fits(&here));
    assert!(fits(&domains[..63]) && !fits(&domains));
}

#[test]
fn all_but_the_author_get_the_entry_and_only_the_added_a_welcome() {
    let admin = entry(1, true);
    let (add, remove) = ([entry(3, false), entry(4, false)], [handle(2)]);
    let welcomes = [vec![handle(4), handle(3)]];
    let proposal = Proposal {
        add: &add,
        remove: &remove,
        welcomes: &welcomes,
        first_message: Some(8),
        ..by(&admin)
    };

    let recipients = change(&group(), &proposal).recipients;

    let of = |number, welcome, message| Recipient {
        entry: entry(number, false),
        welcome,
        message,
    };
    assert_eq!(
        recipients,
        [
            of(2, None, false),
            of(3, Some(0), true),
            of(4, Some(0), true)
        ]
    );
}

#[test]
fn a_welcome_goes_once_and_only_to_the_added() {
    let admin = entry(1, true);
    let add = [entry(3, false)];
    for welcomes in [
        vec![vec![handle(2)]],
        vec![vec![handle(1)]],
        vec![vec![handle(9)]],
        vec![vec![handle(3)], vec![handle(3)]],
    ] {
        let proposal = Proposal {
            add: &add,
            welcomes: &welcomes,
            ..by(&admin)
        };

        assert!(is_invalid(&decide(&group(), &proposal)));
    }
}

#[test]
fn a_join_commit_adds_its_author_and_nothing_else() {
    let group = Group {
        join_key: Some(KEY),
        ..group()
    };
    let joiner = entry(5, false);
    let (itself, with_another) = ([joiner.clone()], [joiner.clone(), entry(6, false)]);
    let (as_admin, another) = ([entry(5, true)], [entry(6, false)]);
    let (remove, welcomes) = ([handle(2)], [vec![handle(5)]]);
    let good = Proposal {
        add: &itself,
        ..by(&joiner)
    };
    let decide =
        |proposal: &Proposal<'_>, key| commit(&group, proposal, Signer::Joiner(key), Past::Other);

    assert_eq!(signer(&group, &joiner.handle), Ok(Signer::Joiner(KEY)));
    assert!(decide(&good, KEY).is_ok());
    assert_eq!(decide(&good, [1; 32]), Err(Refusal::NotFound));
    let bad = [
        by(&joiner),
        Proposal {
            add: &with_another,
            ..good
        },
        Proposal {
            add: &as_admin,
            ..good
        },
        Proposal {
            add: &another,
            ..good
        },
        Proposal {
            remove: &remove,
            ..good
        },
        Proposal {
            welcomes: &welcomes,
            ..good
        },
        Proposal {
            close: true,
            ..good
        },
        Proposal {
            join_key: JoinKeyChange::Clear,
            ..good
        },
    ];
    for proposal in &bad {
        assert!(is_forbidden(&decide(proposal, KEY)));
    }
}

#[test]
fn a_member_signs_as_itself_and_a_stranger_needs_a_join_key() {
    let open = Group {
        join_key: Some(KEY),
        ..group()
    };

    assert_eq!(signer(&open, &handle(2)), Ok(Signer::Member));
    assert_eq!(signer(&group(), &handle(5)), Err(Refusal::NotFound));
}
