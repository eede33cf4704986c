"""The platform in a box: what its document and HTTP promise to those who test against it."""

from typing import Final

from .row import row

PLATFORM: Final = (
    row(
        "a push faster than real time",
        "its last packet is recorded",
        "twelve thousand packets in a second or less, each compared",
        "sandbox/test_fast_pushes.py::test_the_last_packets_of_a_push_faster_than_real_time_are_recorded",
        "sandbox/test_fast_pushes.py::test_a_fast_push_is_whole_however_its_pusher_goes",
    ),
    row(
        "a pusher that lost its network",
        "comes back after a second; the old push ends first",
        "the first connection is open and silent when the second comes",
        "sandbox/test_live.py"
        "::test_a_pusher_that_lost_its_network_comes_back_at_once_and_nothing_is_mixed_up",
        "sandbox/test_live.py::test_a_stranger_takes_no_push_over",
    ),
    row(
        "a push whose clock jumps",
        "no frame lost; the next segment begins with a keyframe",
        "the segment of the time before the jump has ended",
        "sandbox/test_recording.py"
        "::test_a_segment_after_a_jump_in_the_middle_of_a_group_begins_with_a_keyframe",
        "sandbox/test_recording.py::test_every_frame_after_a_jump_decodes",
    ),
    row(
        "a request that is answered before its body",
        "the next one of the connection is read as itself",
        "the first is refused while its body waits",
        "sandbox/test_http_edges.py"
        "::test_an_answer_before_the_body_spoils_no_later_request_of_its_connection",
    ),
    row(
        "an upload that must not overwrite, or asks for more than is kept",
        "412 or 501, and nothing is stored",
        "the object is what it was",
        "sandbox/test_http_edges.py::test_an_object_is_written_only_on_its_conditions",
        "sandbox/test_http_edges.py::test_what_cannot_be_kept_is_not_accepted",
    ),
    row(
        "a range that makes no sense, or of another version",
        "all of it, or 416, as HTTP has it",
        "pictures and recordings are asked for the same ranges",
        "sandbox/test_http_edges.py::test_a_range_is_what_http_says_it_is",
        "sandbox/test_http_edges.py::test_a_part_is_served_if_it_is_of_the_same_version",
    ),
    row(
        "a page of another origin",
        "reads pictures and recordings, and seeks in them",
        "the answers carry the headers that a browser asks for",
        "sandbox/test_http_edges.py::test_a_page_of_another_origin_may_play_and_seek",
        "sandbox/test_http_edges.py::test_a_preflight_is_answered",
    ),
    row(
        "a read signed in the S3 way",
        "answered if the signature is right",
        "another secret or clock is refused",
        "sandbox/test_s3_clients.py::test_a_read_signed_in_the_s3_way_is_answered",
        "sandbox/test_s3_clients.py"
        "::test_an_s3_signature_that_is_wrong_is_refused_though_the_bucket_is_public",
    ),
    row(
        "a customer's key that is none",
        "refused by name, not repeated",
        "exit 2",
        "integration/cli/test_cli_sandbox.py"
        "::test_a_customers_key_that_has_not_32_bytes_is_a_finding_that_does_not_repeat_it",
    ),
    row(
        "an answer in the form of its era",
        "`all_count` is a number; the document's example is answered",
        "each era of the command line, as a process",
        "integration/cli/test_cli_sandbox.py::test_the_total_of_segments_is_a_number_unless_a_string_is_asked_for",
        "integration/cli/test_cli_sandbox.py::test_the_documents_own_example_is_answered",
    ),
)
