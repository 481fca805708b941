//! What every backend must do, as plain functions on a fresh, empty store. A backend runs all of
//! them by `run_conformance!`.

use bytes::Bytes;
use commucat_proto::id::{
    AccountKey, DedupeKey, DeviceId, Domain, GroupId, Handle, MessageId, NoiseKey, QueueId,
    SealedRef, TokenHash,
};
use commucat_proto::time::Timestamp;

use crate::{
    Admission, Content, Delivery, DeviceList, EntryKind, FanoutEntry, ListedDevice, NewEntry,
    NewGroup, Page, QueuePosition, Registration, RowId, Spooled, Store,
};

pub(crate) mod capabilities;
pub(crate) mod clock;
pub(crate) mod devices;
pub(crate) mod expiry;
pub(crate) mod groups;
pub(crate) mod invites;
pub(crate) mod key_packages;
pub(crate) mod log;
pub(crate) mod outbox;
pub(crate) mod peers;
pub(crate) mod queue_limits;
pub(crate) mod queues;

/// Makes one test per conformance function. `$open` gives a store with [`LIMITS`], and something that
/// lives as long as it.
macro_rules! run_conformance {
    ($open:path) => {
        $crate::conformance::run_conformance!($open:
            capabilities {
                capabilities_come_and_go
                an_account_has_a_bounded_number
                an_unknown_account_has_none
            }
            clock {
                a_jump_of_the_wall_clock_cannot_rush_the_stored_one
                values_are_kept_and_replaced
                what_changes_nothing_is_no_commit
                a_new_store_is_sound
            }
            devices {
                a_registered_device_is_found_by_id_and_key
                the_list_is_kept_as_signed
                an_unknown_account_needs_an_invite_unless_registration_is_open
                a_known_account_registers_devices_by_a_higher_version_alone
                ids_and_keys_of_other_accounts_cannot_be_taken
                a_refused_registration_does_not_use_the_invite
                a_device_that_left_the_list_loses_everything
                lists_are_put_by_devices_of_the_old_or_new_list_only
                versions_decide_between_lists
                keys_change_under_their_device
                an_empty_list_deletes_the_account
                a_device_revoked_by_the_operator_stays_shut_out
            }
            expiry {
                old_entries_leave_a_gap_entry
                nothing_expires_before_its_time
                a_gap_entry_does_not_expire
                revoked_queues_are_emptied
            }
            groups {
                a_group_is_created_once
                a_commit_takes_the_next_position_with_all_its_effects
                a_commit_removes_and_changes_flags
                a_taken_position_is_a_conflict_and_changes_nothing
                a_repeated_commit_gets_its_result_however_far_the_head_is
                queue_rows_are_part_of_the_commit
                a_list_without_an_admin_makes_all_admins
                a_handle_off_the_list_is_remembered_until_a_commit_adds_it
                removal_raises_the_revision_only_if_somebody_left
                an_empty_list_closes_the_group
                a_closed_group_still_answers_the_commit_that_closed_it
                of_concurrent_commits_one_wins
                an_impossible_commit_leaves_nothing_behind
                a_deleted_group_is_gone
            }
            invites {
                an_invite_opens_as_many_accounts_as_it_says
                expired_unknown_and_revoked_invites_open_nothing
                invites_are_listed_until_they_are_swept
                an_invite_is_made_once
            }
            key_packages {
                a_package_is_handed_out_once
                each_device_of_the_account_gives_one
                a_repeated_claim_gets_the_same_packages_for_ten_minutes
                the_last_resort_is_handed_out_again_and_again
                a_repeated_publication_brings_nothing_back
                a_device_keeps_a_hundred_and_one_last_resort
                ended_packages_are_not_handed_out
                a_capability_is_needed_and_wrong_ones_look_like_unknown_accounts
                beyond_the_daily_budget_the_last_resort_is_handed_out
            }
            log {
                closed_groups_and_old_entries_are_swept
                log_pages_are_bounded_and_go_on
                group_infos_of_the_last_entries_are_kept
            }
            outbox {
                entries_wait_in_the_order_of_their_lane
                a_repeat_is_known_by_its_key_within_its_lane
                deletion_needs_lane_position_and_key
                positions_of_a_lane_are_never_given_out_twice
                pages_are_bounded_and_go_on
                a_full_outbox_refuses_one_peer_alone
                lanes_with_entries_are_found
                what_waited_too_long_is_found_and_stays
                events_of_a_commit_are_part_of_it
                a_welcome_that_finds_no_room_is_named
            }
            peers {
                a_peer_is_kept_as_it_was_put
                the_first_pin_wins
                a_pin_keeps_what_the_operator_said
                following_changes_the_key_and_keeps_the_old_one
                following_from_an_outdated_record_is_a_conflict
                status_changes_and_removal
                contacts_are_kept_by_the_day
                peers_are_listed_in_order
                pending_peers_are_bounded
            }
            queue_limits {
                a_group_uses_at_most_a_quarter_of_the_entries
                a_group_uses_at_most_a_quarter_of_the_bytes
                a_full_queue_refuses_entries_of_every_group
                a_full_queue_knows_repeats
                deletion_makes_room
                invites_have_a_reserve
                refusals_merge_into_one_gap_entry_until_it_is_shown
                an_acknowledged_gap_entry_is_gone_and_another_may_come
                damaged_rows_can_be_replaced_by_a_gap_entry
            }
            queues {
                positions_ascend_and_pages_keep_the_order
                a_repeat_is_known_by_its_key
                positions_are_never_given_out_twice
                deletion_needs_queue_position_and_key
                a_shared_body_stays_until_its_last_entry_goes
                pages_are_bounded_and_go_on
                an_unknown_queue_is_gone
                one_refused_queue_does_not_touch_the_others
                heads_and_state_follow_the_queue
                leaving_drops_the_group_and_marks_it
                leaving_again_moves_the_mark_forward_only
                marks_of_groups_left_are_bounded
                references_to_revoked_queues_are_gone_and_others_unknown
                concurrent_spools_lose_nothing
                a_closed_store_says_so
            }
        );
    };
    ($open:path: $($concern:ident { $($name:ident)+ })+) => {$(
        mod $concern {
            $(#[tokio::test]
            async fn $name() {
                let (store, _guard) = $open().await;
                $crate::conformance::$concern::$name(&store).await;
            })+
        }
    )+};
}
pub(crate) use run_conformance;

/// Limits that the suite is written for: small, so that full queues are cheap.
pub(crate) const LIMITS: crate::QueueLimits = crate::QueueLimits {
    bytes: 4_000,
    entries: 40,
};

/// The same for what waits for one peer.
pub(crate) const OUTBOX_LIMITS: crate::OutboxLimits = crate::OutboxLimits {
    bytes: 4_000,
    entries: 20,
};

pub(crate) fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn device_id(number: u8) -> DeviceId {
    DeviceId::of_key(&NoiseKey::new([number; 32]))
}

pub(crate) fn listed(number: u8) -> ListedDevice {
    ListedDevice {
        device: device_id(number),
        noise_key: NoiseKey::new([number; 32]),
        not_before: at(0),
        not_after: at(1_000_000),
    }
}

/// The list of account `account` with those devices.
pub(crate) fn list(account: u8, version: u64, devices: &[u8]) -> DeviceList {
    DeviceList {
        account_key: AccountKey::new([account; 32]),
        version,
        signed: Bytes::from(format!("list {account} {version} {devices:?}")),
        devices: devices.iter().map(|number| listed(*number)).collect(),
    }
}

/// Registers account and device `number`; returns the device's queue.
pub(crate) async fn queue(store: &Store, number: u8) -> QueueId {
    let device = device_id(number);
    let done = store
        .register(list(number, 1, &[number]), &device, Admission::Open, at(1))
        .await;
    assert!(matches!(done, Ok(Registration::Registered(_))));
    store.device(&device).await.unwrap().unwrap().queue
}

pub(crate) fn group_id(number: u8) -> GroupId {
    GroupId::new([number; 32])
}

/// A message of `size` bytes that differs from others by `number`.
pub(crate) fn message(group: u8, number: u32, size: usize) -> NewEntry {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(size.max(4), 0);
    let id = MessageId::of_body(&body);
    NewEntry {
        key: DedupeKey::of(&group_id(group), &id, &body),
        kind: EntryKind::Message,
        group: group_id(group),
        body: Bytes::from(body),
    }
}

pub(crate) fn delivery(queue: QueueId, entries: &[NewEntry]) -> Delivery {
    Delivery {
        queue,
        entries: entries.to_vec(),
    }
}

/// Spools to one queue; returns the outcomes.
pub(crate) async fn spool(store: &Store, queue: QueueId, entries: &[NewEntry]) -> Vec<Spooled> {
    let mut done = store
        .spool(vec![delivery(queue, entries)], at(1_000))
        .await
        .unwrap();
    done.remove(0).outcomes
}

/// Everything that waits in a queue.
pub(crate) async fn all(store: &Store, queue: QueueId) -> Page {
    store
        .page(&queue, QueuePosition::START, usize::MAX, 100_000)
        .await
        .unwrap()
        .unwrap()
}

pub(crate) fn row_ids(queue: QueueId, page: &Page) -> Vec<RowId> {
    page.rows
        .iter()
        .map(|row| RowId {
            queue,
            position: row.position,
            key: row.key,
        })
        .collect()
}

pub(crate) fn bodies(page: &Page) -> Vec<Bytes> {
    let body = |content: &Content| match content {
        Content::Frame { body, .. } => Some(body.clone()),
        Content::Gap | Content::Corrupt => None,
    };
    page.rows
        .iter()
        .filter_map(|row| body(&row.content))
        .collect()
}

pub(crate) fn gaps(page: &Page) -> usize {
    page.rows
        .iter()
        .filter(|row| row.content == Content::Gap)
        .count()
}

pub(crate) fn member(number: u8, admin: bool) -> FanoutEntry {
    FanoutEntry {
        handle: Handle::new([number; 32]),
        domain: Domain::parse("example.org").unwrap(),
        sealed_ref: SealedRef::new([number; 65]),
        admin,
    }
}

pub(crate) fn new_group(number: u8) -> NewGroup {
    NewGroup {
        group: group_id(number),
        request_hash: [number; 32],
        creator: member(1, true),
        group_info: Some(Bytes::from_static(b"info 0")),
        join_key: None,
    }
}

pub(crate) fn token_hash(number: u8) -> TokenHash {
    TokenHash::new([number; 32])
}
