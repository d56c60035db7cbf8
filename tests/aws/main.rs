//! The EC2 provider against a moto server.
//!
//! Needs moto, so it is not part of a plain `cargo test`. `cargo test --test aws` gets moto from PyPI the first
//! time. All traffic stays on this machine's loopback, as do the subnets of the server.

#![allow(clippy::unwrap_used)]

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};

mod addresses;
mod balancer;
mod balancer_drift;
mod bucket;
mod crashes;
mod drills;
mod faults;
mod image;
mod images;
mod life;
mod manual;
mod members;
mod model;
mod models;
mod nature;
mod profile;
mod proxy;
mod questions;
mod reality;
mod refusals;
mod rules;
mod server;
mod store;
mod support;
mod volumes;
mod ways;
mod xml;

/// Registers the functions as tests with these names.
macro_rules! trials {
    ($($module:ident: $($name:ident),+;)+) => {
        vec![$($(
            Trial::test(concat!(stringify!($module), "::", stringify!($name)), || {
                let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
                runtime.block_on($module::$name());
                Ok(())
            }),
        )+)+]
    };
}

/// Settings for the SDK instead of the user's.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("AWS_ACCESS_KEY_ID", "lab"),
    ("AWS_SECRET_ACCESS_KEY", "lab"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
];

fn main() -> ExitCode {
    if std::env::var("AWS_ACCESS_KEY_ID").as_deref() != Ok("lab") {
        // A process cannot change its own environment safely.
        let mut again = Command::new(std::env::current_exe().unwrap());
        for name in [
            "AWS_PROFILE",
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
            "AWS_SESSION_TOKEN",
            "https_proxy",
            "HTTPS_PROXY",
            "all_proxy",
            "ALL_PROXY",
        ] {
            again.env_remove(name);
        }
        let status = again
            .args(std::env::args_os().skip(1))
            .envs(ENVIRONMENT)
            .status()
            .unwrap();
        return ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1));
    }
    let trials = trials! {
        addresses: a_started_host_is_found_at_its_new_public_address;
        balancer: it_comes_with_the_hosts_and_goes_with_them,
            the_key_comes_later_and_does_not_go, a_front_door_that_leaves_is_taken_out_first,
            those_of_others_are_never_touched, it_may_be_cut_off_at_any_of_its_calls;
        balancer_drift: differences_are_reported_and_corrected_with_the_permissions_in_the_policy;
        bucket: what_is_wrong_with_it_is_said_with_its_remedy, a_lock_that_keeps_too_much_is_told,
            one_is_made_whatever_call_its_making_is_cut_off_at, what_somebody_has_set_stays,
            those_of_others_are_never_touched, one_goes_with_all_versions_by_the_policies_in_the_manual;
        life: from_nothing_to_nothing,
            the_second_run_makes_nothing, several_pages_are_read,
            stopped_hosts_are_started, a_terminated_host_is_made_anew,
            two_clusters_never_touch, strangers_are_never_touched, leftovers_are_found,
            hosts_are_made_to_measure, the_key_pair_follows_the_key;
        image: what_canonical_publishes_is_taken, the_image_is_kept;
        images: an_image_comes_and_goes_with_its_snapshot;
        manual: the_calls_of_each_verb_are_those_in_the_manual;
        members: a_host_is_replaced_and_nothing_else_is_touched,
            a_launch_under_way_outlives_the_removal_of_another_host, a_replacement_may_die_at_any_call,
            a_host_leaves_a_group_only_at_the_end;
        models: the_models_are_those_that_the_script_names, what_is_wrong_with_a_call_is_found,
            a_wrong_call_fails_its_test;
        profile: the_host_of_the_backups_alone_is_launched_with_it,
            a_running_host_gets_it_by_the_policies_in_the_manual, giving_it_may_die_at_any_call,
            what_is_wrong_with_it_is_said_before_anything_is_made;
        questions: what_may_be_wrong_is_a_doubt, an_address_that_is_taken_is_not_asked_for,
            keys_that_ec2_does_not_import_are_refused, the_key_itself_is_asked_about,
            the_quota_is_asked_before_anything_is_made, cpu_credits_are_for_burstable_types;
        reality: what_is_known_late_is_waited_for, a_run_may_die_and_nobody_knows_yet_what_it_made,
            a_token_is_believed_more_than_a_list, what_ends_slowly_is_waited_for,
            a_quota_holds_at_the_launch, a_session_may_expire_at_any_moment,
            bursts_of_throttling_are_waited_out, a_question_is_validated_first;
        ways: a_proxy_is_asked_for_the_way, what_is_no_proxy_is_refused,
            a_profile_of_aws_login_is_taken;
        rules: rules_follow_the_inventory, those_of_running_hosts_follow_too,
            a_host_is_in_the_groups_of_its_roles,
            mending_may_die_at_any_call;
        volumes: data_volumes_come_with_hosts_and_go_with_the_cluster,
            the_next_host_gets_the_data_of_the_last, a_launch_may_die_at_any_call,
            a_successor_may_die_at_any_call, what_cannot_be_given_is_said;
        crashes: a_launch_may_die_at_any_call, a_removal_may_die_at_any_call,
            a_token_outlives_a_change_of_the_inventory;
        drills: a_host_dies_without_a_word_and_comes_back_where_it_was,
            only_hosts_with_a_volume_that_stays_are_shut_down_in_order,
            one_that_still_stops_is_waited_for, a_drill_may_die_at_any_call,
            what_cannot_be_done_to_a_host_is_said;
        faults: throttling_is_waited_out, what_was_just_made_may_be_unknown,
            half_a_launch_is_completed, groups_are_released_late, a_missing_permission_is_named,
            what_cannot_be_is_said_before_anything_is_made, one_host_has_one_instance,
            a_host_that_ends_at_once_says_why, only_aws_knows_this_machine,
            a_quota_is_named_and_what_there_is_now, each_refusal_has_its_remedy,
            subnets_without_ipv4_are_named, a_group_goes_by_all_its_names, what_may_not_be_removed_is_listed,
            in_the_wrong_region_nothing_is_made;
    };
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
