"""What listens: the callback receiver and the other ports; and secrets, which none of them may tell."""

from typing import Final

from .row import row

CALLBACK: Final = (
    "scenario/test_every_fault.py::test_every_fault_of_callbacks_is_got_over_by_the_platforms_repeats"
)
FLOOD: Final = "scenario/test_held_up.py::test_slow_readers_and_floods_on_every_port_slow_no_poll"
ORDER: Final = "integration/sources/test_callbacks.py::test_the_checks_come_in_the_order_of_what_they_cost"
HEADS: Final = "integration/sources/test_heads.py"
CHECKS: Final = "integration/sources/test_callbacks.py::test_each_check_refuses_for_its_own_reason"

RECEIVER: Final = (
    row(
        "any other path or method",
        "404 without a hint",
        "the status answered, or the refusal counted",
        "integration/sources/test_callbacks.py::test_any_other_path_or_method_is_not_there_and_gives_no_hint",
        ORDER,
    ),
    row(
        "too large, a wrong type, cut or no JSON",
        "refused, each for its own reason",
        "the reason reported; a notification that is cut would be one page more",
        CHECKS,
        "integration/sources/test_callbacks.py::test_an_endless_body_is_cut_off_at_the_limit",
        "integration/sources/test_callbacks.py::test_a_body_that_is_cut_or_broken_is_nobodys_notification",
        "unit/qcloud/events/test_notifications.py::test_what_no_two_readers_would_read_alike_is_refused",
    ),
    row(
        "a body that comes slowly",
        "cut at the deadline, others are served",
        "the connection ends without an answer",
        "integration/sources/test_callbacks.py::test_what_is_sent_slowly_is_cut_and_others_are_served_meanwhile",
    ),
    row(
        "a `t` of another form or time",
        "refused; up to an hour late is taken",
        "the sandbox's `fired`; the reason reported, or 403",
        CALLBACK,
        "unit/qcloud/events/test_notifications.py::test_a_t_of_any_other_form_or_time_is_refused_whatever_its_signature",
        "integration/sources/test_callbacks.py::test_a_push_is_good_by_our_clock_or_by_the_platforms_as_far_as_that_is_believed",
        sandbox="callback:stale",
    ),
    row(
        "a wrong sign or none",
        "403, rate-limited, never logged",
        "the sandbox's `fired`; refusals are counted",
        CALLBACK,
        "integration/sources/test_callbacks.py::test_wrong_signatures_are_reported_a_few_times_and_never_cost_a_good_one_its_answer",
        "scenario/test_callbacks.py::test_no_secret_of_a_notification_is_found_anywhere",
        sandbox="callback:unsigned wrong_sign",
    ),
    row(
        "repeats and replays",
        "answered and stored once",
        "the sandbox's `fired`; what is known already is counted",
        CALLBACK,
        "integration/sources/test_callbacks.py::test_a_captured_notification_that_is_sent_again_is_answered_and_stored_once",
        "scenario/test_callbacks.py::test_every_kind_of_notification_arrives_once_however_often_it_is_repeated",
        sandbox="callback:replay twice",
    ),
    row(
        "notifications that are lost, late or out of order",
        "what comes is stored once; other ways tell the rest",
        "the sandbox's `fired`",
        CALLBACK,
        "scenario/test_every_way.py::test_what_happens_on_the_platform_is_reported_once_whichever_way_it_came",
        sandbox="callback:lost late out_of_order",
    ),
    row(
        "a full, failed or slow spool",
        "503, taken when it comes again",
        "503 and `receiving_paused`; the commit is held back, or fails",
        "scenario/test_callbacks.py::test_a_full_spool_refuses_pushes_and_takes_them_again_when_there_is_room",
        "unit/pipeline/test_push_intake.py"
        "::test_a_commit_that_takes_too_long_is_no_commit_and_others_do_not_wait_for_it",
        "unit/pipeline/test_push_intake.py::test_a_spool_that_fails_for_good_refuses_who_waits_and_ends_the_process",
    ),
    row(
        "a stranger, or a proxy's header",
        "the allow list holds; only configured proxies are believed",
        "the status answered",
        "integration/sources/test_callbacks.py::test_an_allow_list_holds_for_signed_notifications_too",
        "integration/sources/test_callbacks.py::test_the_caller_is_the_rightmost_hop_that_is_no_trusted_proxy",
        "integration/sources/test_callbacks.py::test_unsigned_notifications_are_taken_only_where_that_is_allowed_and_from_there",
    ),
    row(
        "a notification that would drive something",
        "nothing destructive is driven by a callback",
        "all are answered 200 and delivered; the queue is as deep as before, and nobody asked it",
        "scenario/test_callbacks.py::test_no_notification_makes_the_daemon_read_the_queue",
    ),
    row(
        "a picture that a stranger announces beforehand, under a wrong URL or too early",
        "the queue's message corrects it, also over a kill; who delivered it does not get it again",
        "the announced event is a dead letter before the genuine message comes; exit by SIGKILL at the correction",
        "scenario/test_announced.py"
        "::test_a_picture_that_a_stranger_announced_beforehand_is_downloaded_all_the_same",
        "scenario/test_announced.py::test_a_kill_while_a_wrong_announcement_is_set_right_costs_no_picture",
    ),
    row(
        "a picture's host from a callback",
        "passes the same allow list",
        "the refusal names `allow_hosts`",
        "integration/sources/test_callbacks.py::test_a_picture_may_be_fetched_from_the_accounts_hosts_and_from_no_other",
    ),
)

PORTS: Final = (
    row(
        "a head that is large, strange, cut, slow or TLS",
        "32 KiB are taken; whatever is refused is counted, and logged a few times a minute",
        "the outcome and the reason reported; 431, 400 or no answer",
        f"{HEADS}::test_a_push_is_taken_whatever_a_proxy_adds_to_its_head",
        f"{HEADS}::test_every_head_that_is_no_request_is_refused_counted_and_logged",
        f"{HEADS}::test_who_never_ends_its_request_is_cut_and_counted",
        f"{HEADS}::test_who_goes_away_within_its_request_is_counted",
    ),
    row(
        "a sender that waits for `100 Continue`",
        "told to go on at once, or refused before it sends",
        "it reads 100 before it sends its body",
        f"{HEADS}::test_a_sender_that_waits_for_100_continue_is_told_to_go_on_at_once",
        f"{HEADS}::test_a_sender_that_waits_is_refused_before_it_sends",
    ),
    row(
        "a second request on a connection",
        "not processed, since nobody would answer it",
        "both are sent at once; one answer comes",
        f"{HEADS}::test_a_second_push_on_a_connection_is_not_taken_without_an_answer",
    ),
    row(
        "thousands of connections from one address",
        "bounded; pushes and /healthz are answered, the log stays short and is JSON",
        "503 is read more often than the bound; lines of the log are counted",
        "scenario/test_floods.py::test_thousands_of_plain_connections_are_a_few_lines_of_json",
        "scenario/test_floods.py::test_a_thousand_slow_connections_lock_out_neither_pushes_nor_health",
        f"{HEADS}::test_behind_a_proxy_each_forwarded_address_has_its_places",
        "integration/runtime/test_library_log.py::test_what_a_library_says_is_a_few_lines_of_json_without_its_words",
    ),
    row(
        "an open port without a token",
        "loopback by default; elsewhere refused without a token",
        "findings of bad configurations, each at its place; 401",
        "unit/settings/test_bad_configurations.py::test_a_bad_configuration_is_refused_where_it_is_wrong",
        "integration/test_admin.py::test_with_a_token_only_who_brings_it_sees_more_than_health",
    ),
    row(
        "slow-loris and floods on every port",
        "cut at a deadline; polls go on at their pace",
        "more connections than a port takes, each seen to end; drops are counted; the daemon's open files",
        FLOOD,
        "integration/test_admin.py::test_a_client_that_drips_is_cut_at_the_deadline",
        "integration/test_admin.py"
        "::test_a_flood_of_idle_connections_is_bounded_and_others_are_served_after_the_deadline",
        "integration/sources/test_callbacks.py::test_a_flood_of_connections_is_bounded",
        "scenario/test_callbacks.py::test_slow_and_strange_clients_hold_up_neither_polls_nor_pushes",
    ),
    row(
        "who does not read its answer",
        "cut at a deadline",
        "the answer ends before its last line, or before its first",
        FLOOD,
        "integration/test_admin.py::test_an_answer_that_takes_too_long_is_cut_as_well",
    ),
    row(
        "nonsense and silence on the control socket",
        "answered or cut, nobody held up",
        "some callers are reported, who says nothing is cut",
        "scenario/test_operate.py::test_who_talks_nonsense_or_nothing_is_cut_and_holds_nobody_up",
    ),
    row(
        "a callback before its commit",
        "200 only after it, else 503",
        "exit by SIGKILL at the points before and after",
        "scenario/test_fail_points_ways.py"
        "::test_killed_before_and_after_a_pushs_commit_what_was_answered_is_there_once",
        "unit/pipeline/test_push_intake.py::test_a_page_is_in_the_spool_when_its_sender_is_answered",
    ),
)

SECRETS: Final = (
    row(
        "all faults at log level debug",
        "a canary key is found nowhere",
        "each fault of platform and store that was ordered is used up; the platform did echo the key",
        "scenario/test_secrets.py::test_no_secret_is_found_anywhere_after_a_run_through_all_faults",
        "scenario/test_callbacks.py::test_no_secret_of_a_notification_is_found_anywhere",
    ),
    row(
        "a platform that echoes the key or a signature",
        "masked before it is kept",
        "the answer has asterisks in its place; the platform was sent the signature",
        "integration/qcloud/test_account.py::test_an_answer_that_echoes_our_signature_or_key_is_blanked_before_it_is_kept",
        "integration/qcloud/test_account.py::test_no_key_and_no_signature_comes_out_anywhere",
    ),
    row(
        "a push secret in a message, however it is spelled",
        "masked in spool, quarantine, log and sinks; only the journal has raw bytes",
        "each spelling in turn, also in torn messages",
        "unit/qcloud/wire/test_redaction.py::test_a_push_secret_is_masked_however_a_message_spells_it",
        "unit/qcloud/wire/test_redaction.py::test_a_push_secret_is_masked_in_what_is_quarantined",
        "unit/qcloud/wire/test_redaction.py::test_no_row_of_a_list_and_no_state_of_a_channel_keeps_its_push_secret",
        "scenario/test_secrets.py::test_no_spelling_of_a_push_secret_is_stored_logged_or_delivered",
    ),
    row(
        "a receiver that echoes headers, URL and signature",
        "its words are shown without a secret",
        "the log quotes it; each encoding in turn",
        "scenario/test_secrets.py::test_a_receiver_that_echoes_all_that_it_was_sent_is_quoted_without_a_secret",
        "unit/qcloud/wire/test_excerpts.py::test_a_secret_that_an_error_page_echoes_is_not_shown",
    ),
    row(
        "an invisible character in a secret",
        "a finding that names it",
        "each character in each place",
        "unit/settings/test_secrets.py::test_an_invisible_character_in_a_secret_is_a_finding_that_names_it",
        "unit/settings/test_secrets.py::test_no_secret_of_the_customers_file_is_echoed",
    ),
    row(
        "a traceback",
        "shows no local variables",
        "it is in the log; a deliberate bug shows the secret in it",
        "integration/runtime/test_log.py::test_a_traceback_shows_no_local_variables",
    ),
    row(
        "an error's own text",
        "tells no URL, query, header or secret",
        "each failure and each finding has a text",
        "integration/sinks/test_webhook_connections.py::test_no_failure_tells_url_query_headers_or_secret",
        "unit/settings/test_bad_configurations.py::test_a_finding_is_one_line_and_holds_no_secret",
    ),
)
