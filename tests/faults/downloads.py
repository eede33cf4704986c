"""Pictures: late, cut, hostile, and the disk under them."""

from typing import Final

from .row import row

COS: Final = (
    "story/test_every_fault.py::test_every_fault_of_the_store_ends_in_a_whole_picture_or_a_dead_letter"
)
HEALS: Final = (
    "sinks/download/test_download.py::test_an_answer_that_may_heal_is_tried_again_and_leaves_nothing"
)
UPLOAD: Final = (
    "story/test_every_fault.py"
    "::test_an_upload_that_is_late_is_waited_for_and_one_that_never_comes_is_a_dead_letter"
)

DOWNLOADS: Final = (
    row(
        "a picture that is not there yet, or is late",
        "asked for again, no error",
        "the sandbox's `fired`; the first answer is 404",
        COS,
        "sinks/download/test_download.py::test_a_picture_that_is_not_there_yet_is_asked_for_again_soon",
        "sinks/download/test_download.py::test_not_yet_lasts_from_the_later_of_shot_and_receipt",
        sandbox="cos:not_found",
    ),
    row(
        "an upload that is late",
        "asked for again until it is there",
        "the sandbox's `fired`; retries are counted",
        UPLOAD,
        "sinks/download/test_download.py::test_a_picture_that_is_not_there_yet_is_asked_for_again_soon",
        sandbox="upload:late",
    ),
    row(
        "an upload that never comes",
        "a dead letter after the margin; its neighbours are not hurt",
        "404 after the margin; the sandbox's `fired` with --soak",
        UPLOAD,
        "sinks/download/test_download.py"
        "::test_a_picture_that_is_still_missing_later_is_dead_and_its_neighbours_are_not",
        sandbox="upload:lost",
    ),
    row(
        "a cut picture",
        "never published",
        "the sandbox's `fired`; every truncation",
        COS,
        "sinks/download/test_download.py::test_no_cut_of_a_transfer_is_ever_published",
        "sinks/download/test_pictures.py::test_every_truncation_is_refused",
        sandbox="cos:cut cut_chunked cut_close truncated",
    ),
    row(
        "a wrong type, an endless body, a bomb",
        "never published, bounded memory",
        "the sandbox's `fired`; the reason told",
        COS,
        HEALS,
        "sinks/download/test_download.py::test_an_endless_body_is_cut_off",
        "sinks/download/test_pictures.py::test_a_header_that_promises_a_bomb_is_rejected_for_good",
        sandbox="cos:wrong_type html endless bomb",
    ),
    row(
        "statuses, redirects, resets, hangs, drips of the store",
        "tried again; a hang or a drip fails alone",
        "the sandbox's `fired`; the reason told; drops are counted",
        COS,
        HEALS,
        "sinks/download/test_download.py::test_a_picture_that_hangs_fails_alone",
        "sinks/download/test_download.py::test_a_picture_that_drips_fails_alone",
        sandbox="cos:status redirect reset_before reset_headers close hang drip latency",
    ),
    row(
        "a hostile name",
        "cannot leave the directory or meet another",
        "at least 500 names, each written",
        "sinks/download/test_disk.py::test_no_hostile_name_leaves_the_directory_or_meets_another",
        "sinks/download/test_paths.py::test_no_two_hostile_names_meet_and_all_are_plain",
        "sinks/download/test_paths.py::test_there_are_enough_hostile_names",
    ),
    row(
        "a planted link or folder",
        "not followed, not written through",
        "what is in the way is told; the link and its target are looked at afterwards",
        "sinks/download/test_disk.py"
        "::test_a_planted_link_to_a_folder_is_not_followed_and_its_neighbours_are_stored",
        "sinks/download/test_disk.py::test_what_stands_in_a_files_place_is_replaced_and_not_written_through",
    ),
    row(
        "a picture's address that leads inside",
        "only public addresses and the accounts' hosts",
        "servers count who connects, and are reached where it is allowed",
        "test_outbound.py::test_no_spelling_of_a_loopback_target_reaches_a_server_there",
        "test_outbound.py::test_the_same_spellings_reach_the_server_where_they_are_allowed",
        "test_outbound.py::test_an_address_that_is_not_global_unicast_is_refused",
        "test_outbound.py::test_there_are_enough_spellings_and_addresses",
        "sinks/download/test_hosts.py::test_no_url_whose_host_is_not_allowed_makes_a_request",
    ),
    row(
        "a full or read-only disk, a failed sync under pictures",
        "not published; the batch comes again",
        "strace's INJECTED; the disk's own error",
        "sinks/download/test_disk.py::test_a_full_disk_fails_the_batch_as_a_whole_and_heals",
        "sinks/download/test_disk.py::test_a_disk_that_became_read_only_fails_the_batch_as_a_whole",
        "sinks/download/test_disk.py::test_a_file_whose_sync_failed_is_not_published",
    ),
    row(
        "a picture renamed before it is synced",
        "write, fsync, rename, fsync the folder, then settle",
        "the order of system calls in a trace",
        "sinks/download/test_disk.py"
        "::test_files_are_synced_before_their_renames_and_folders_after_and_before_returning",
    ),
)

BODIES: Final = (
    row(
        "a body that is cut at once after its headers",
        "all that came is kept",
        "the answer is not whole, and as long as what was sent",
        "qcloud/test_client.py::test_all_that_came_of_a_cut_body_is_kept",
    ),
    row(
        "a checksum that is wrong",
        "the picture is not published",
        "the sandbox's `fired`; the reason told",
        COS,
        HEALS,
        "sinks/download/test_pictures.py::test_the_checksum_is_the_stores_crc_in_decimal",
        sandbox="cos:wrong_checksum",
    ),
)
