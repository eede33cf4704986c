"""Pictures: late, cut, hostile, and the disk under them."""

from typing import Final

from .row import row

COS: Final = (
    "scenario/test_every_fault.py::test_every_fault_of_the_store_ends_in_a_whole_picture_or_a_dead_letter"
)
HEALS: Final = (
    "integration/sinks/download/test_download.py"
    "::test_an_answer_that_may_heal_is_tried_again_and_leaves_nothing"
)
UPLOAD: Final = (
    "scenario/test_every_fault.py"
    "::test_an_upload_that_is_late_is_waited_for_and_one_that_never_comes_is_a_dead_letter"
)

DOWNLOADS: Final = (
    row(
        "a picture that is not there yet, or is late",
        "asked for again, no error",
        "the sandbox's `fired`; the first answer is 404",
        COS,
        "integration/sinks/download/test_download.py::test_a_picture_that_is_not_there_yet_is_asked_for_again_soon",
        "integration/sinks/download/test_download.py::test_not_yet_lasts_from_the_later_of_shot_and_receipt",
        sandbox="cos:not_found",
    ),
    row(
        "an upload that is late",
        "asked for again until it is there",
        "the sandbox's `fired`; retries are counted",
        UPLOAD,
        "integration/sinks/download/test_download.py::test_a_picture_that_is_not_there_yet_is_asked_for_again_soon",
        sandbox="upload:late",
    ),
    row(
        "an upload that never comes",
        "a dead letter after the margin; its neighbours are not hurt",
        "404 after the margin; the sandbox's `fired` with --soak",
        UPLOAD,
        "integration/sinks/download/test_download.py"
        "::test_a_picture_that_is_still_missing_later_is_dead_and_its_neighbours_are_not",
        sandbox="upload:lost",
    ),
    row(
        "a cut picture",
        "never published",
        "the sandbox's `fired`; every truncation",
        COS,
        "integration/sinks/download/test_download.py::test_no_cut_of_a_transfer_is_ever_published",
        "unit/qcloud/pictures/test_jpeg.py::test_every_truncation_is_refused",
        sandbox="cos:cut cut_chunked cut_close truncated",
    ),
    row(
        "a wrong type, an endless body, a bomb",
        "never published, bounded memory",
        "the sandbox's `fired`; the reason reported",
        COS,
        HEALS,
        "integration/sinks/download/test_download.py::test_an_endless_body_is_cut_off",
        "unit/qcloud/pictures/test_jpeg.py::test_a_header_that_promises_a_bomb_is_rejected_for_good",
        sandbox="cos:wrong_type html endless bomb",
    ),
    row(
        "statuses, redirects, resets, hangs, drips of the store",
        "tried again; a hang or a drip fails alone",
        "the sandbox's `fired`; the reason reported; drops are counted",
        COS,
        HEALS,
        "integration/sinks/download/test_download.py::test_a_picture_that_hangs_fails_alone",
        "integration/sinks/download/test_download.py::test_a_picture_that_drips_fails_alone",
        sandbox="cos:status redirect reset_before reset_headers close hang drip latency",
    ),
    row(
        "a hostile name",
        "cannot leave the directory or meet another",
        "at least 500 names, each written",
        "integration/sinks/download/test_disk.py::test_no_hostile_name_leaves_the_directory_or_meets_another",
        "unit/sinks/test_picture_paths.py::test_no_two_hostile_names_meet_and_all_are_plain",
        "unit/sinks/test_picture_paths.py::test_there_are_enough_hostile_names",
    ),
    row(
        "a planted link or folder",
        "not followed, not written through",
        "what is in the way is reported; the link and its target are looked at afterwards",
        "integration/sinks/download/test_disk.py"
        "::test_a_planted_link_to_a_folder_is_not_followed_and_its_neighbours_are_stored",
        "integration/sinks/download/test_disk.py::test_what_stands_in_a_files_place_is_replaced_and_not_written_through",
    ),
    row(
        "a picture's address that leads inside",
        "only public addresses and the accounts' hosts",
        "servers count who connects, and are reached where it is allowed",
        "integration/runtime/test_outbound.py::test_no_spelling_of_a_loopback_target_reaches_a_server_there",
        "integration/runtime/test_outbound.py::test_the_same_spellings_reach_the_server_where_they_are_allowed",
        "integration/runtime/test_outbound.py::test_an_address_that_is_not_global_unicast_is_refused",
        "integration/runtime/test_outbound.py::test_there_are_enough_spellings_and_addresses",
        "integration/qcloud/pictures/test_hosts.py::test_no_url_whose_host_is_not_allowed_makes_a_request",
    ),
    row(
        "a full or read-only disk, a failed sync under pictures",
        "not published; the batch comes again",
        "strace's INJECTED; the disk's own error",
        "integration/sinks/download/test_disk.py::test_a_full_disk_fails_the_batch_as_a_whole_and_heals",
        "integration/sinks/download/test_disk.py::test_a_disk_that_became_read_only_fails_the_batch_as_a_whole",
        "integration/sinks/download/test_disk.py::test_a_file_whose_sync_failed_is_not_published",
    ),
    row(
        "a folder of pictures replaced, removed or moved away while the sink runs",
        "pictures lie at the path, also those of the batch under way",
        "each replacement at each step of a batch",
        "integration/sinks/download/test_place.py::test_after_a_folder_was_replaced_pictures_lie_at_the_path",
        "integration/sinks/download/test_place.py::test_a_folder_that_is_replaced_under_a_batch_gets_all_of_its_pictures",
        "integration/sinks/download/test_place.py::test_a_folder_removed_between_two_pictures_of_a_batch_is_made_again",
    ),
    row(
        "a folder of pictures that is gone, not mounted, not writable",
        "nothing is fetched, all is kept, the reason is reported; it heals by itself",
        "the reason; the store's server counts requests",
        "integration/sinks/download/test_place.py::test_a_folder_that_cannot_be_used_is_said_at_once_and_heals_by_itself",
        "integration/sinks/download/test_place.py::test_a_folder_whose_permissions_were_taken_is_said_and_heals",
        "integration/sinks/download/test_place.py"
        "::test_after_an_unmount_nothing_is_stored_below_the_mount_point_and_a_new_disk_gets_the_pictures",
    ),
    row(
        "a batch of more streams than descriptors",
        "few folders are open at once, each is synced once",
        "128 descriptors, 1,000 streams",
        "integration/sinks/download/test_place.py::test_a_thousand_pictures_of_a_thousand_streams_need_few_descriptors",
        "integration/sinks/download/test_place.py::test_each_of_many_folders_is_synced_once_before_its_pictures_count",
    ),
    row(
        "a bucket that is named wrongly, or not at all",
        "check refuses it; a retried dead letter has the right URL",
        "the dead letters' reason; the pictures afterwards",
        "scenario/test_wrong_bucket.py"
        "::test_pictures_of_a_wrongly_named_bucket_are_stored_after_a_reload_and_a_retry",
        "scenario/test_wrong_bucket.py"
        "::test_pictures_of_a_wrongly_named_bucket_are_stored_after_a_retry_on_the_file_of_a_stopped_daemon",
        "scenario/test_wrong_bucket.py::test_a_webhook_gets_the_right_url_of_an_event_that_had_none",
        "integration/qcloud/test_bucket.py::test_a_bucket_that_is_not_there_fails_the_check_before_a_picture_is_lost",
    ),
    row(
        "a good picture under a head that is wrong about it",
        "stored by what its bytes prove; a wrong length, checksum or status still refuses",
        "each form of head; the reason reported",
        "integration/sinks/download/test_download.py"
        "::test_a_whole_picture_is_stored_whatever_the_head_says_of_its_type_and_coding",
        HEALS,
    ),
    row(
        "a picture on a default domain of the bucket, or on one that only looks so",
        "fetched, or refused",
        "each domain of a table",
        "unit/qcloud/wire/test_urls.py::test_every_default_domain_of_the_bucket_is_the_accounts_own",
        "unit/qcloud/wire/test_urls.py::test_a_domain_that_only_looks_like_the_buckets_is_not_its_own",
    ),
    row(
        "a picture renamed before it is synced",
        "write, fsync, rename, fsync the folder, then settle",
        "the order of system calls in a trace",
        "integration/sinks/download/test_disk.py"
        "::test_files_are_synced_before_their_renames_and_folders_after_and_before_returning",
    ),
)

BODIES: Final = (
    row(
        "a body that is cut at once after its headers",
        "all that came is kept",
        "the answer is not whole, and as long as what was sent",
        "integration/qcloud/test_client.py::test_all_that_came_of_a_cut_body_is_kept",
    ),
    row(
        "a checksum that is wrong",
        "the picture is not published",
        "the sandbox's `fired`; the reason reported",
        COS,
        HEALS,
        "unit/qcloud/pictures/test_jpeg.py::test_the_checksum_is_the_stores_crc_in_decimal",
        sandbox="cos:wrong_checksum",
    ),
)
