"""Deliberate bugs about pictures: where they lie, and the URLs of their dead letters."""

from .bugs import CONTRACT, Bug

PLACE = "tests/integration/sinks/download/test_place.py::"

PICTURES_AT_THEIR_PATH = (
    Bug(
        "the folder of pictures is opened once for ever",
        "poller/sinks/download/place.py",
        "        if place is not None and place.is_current():\n",
        "        if place is not None:\n",
        (
            PLACE + "test_after_a_folder_was_replaced_pictures_lie_at_the_path[moved_and_made_anew]",
            PLACE + "test_after_a_folder_was_replaced_pictures_lie_at_the_path[without_incoming]",
        ),
    ),
    Bug(
        "a folder of drafts that was replaced is not noticed",
        "poller/sinks/download/place.py",
        "        return (found.st_dev, found.st_ino) == identity_of(self.incoming)",
        "        return bool(found)",
        (PLACE + "test_after_a_folder_was_replaced_pictures_lie_at_the_path[another_incoming]",),
    ),
    Bug(
        "a folder that is replaced under a batch counts all the same",
        "poller/sinks/download/store.py",
        "        if not self._place.is_current():\n            raise FolderChanged\n",
        "",
        (
            PLACE
            + "test_a_folder_that_is_replaced_under_a_batch_gets_all_of_its_pictures"
            + "[moved_and_made_anew-picture.renamed]",
        ),
    ),
    Bug(
        "a stream's folder that is replaced under a batch counts all the same",
        "poller/sinks/download/store.py",
        "            opened.identities.update(identities)\n",
        "",
        (
            PLACE
            + "test_a_folder_that_is_replaced_under_a_batch_gets_all_of_its_pictures"
            + "[another_stream_folder-picture.renamed]",
        ),
    ),
    Bug(
        "pictures are stored below an empty mount point",
        "poller/sinks/download/place.py",
        "if self._mount is not None and _was_unmounted(self._directory, self._mount):",
        "if False:",
        (
            PLACE
            + "test_after_an_unmount_nothing_is_stored_below_the_mount_point_and_a_new_disk_gets_the_pictures",
        ),
    ),
    Bug(
        "every folder of a batch stays open",
        "poller/sinks/download/folders.py",
        "if len(self._open) > MOST_OPEN:",
        "if len(self._open) > 1000 * MOST_OPEN:",
        (PLACE + "test_a_thousand_pictures_of_a_thousand_streams_need_few_descriptors",),
    ),
    Bug(
        "a retried dead letter keeps the URL that it had",
        "poller/operations/verbs.py",
        "retry_dead(sink, numbers, together, rebuild)",
        "retry_dead(sink, numbers, together)",
        (
            "tests/unit/operations/test_verbs.py::test_a_letter_is_retried_with_the_url_that_todays_settings_give_it",
        ),
    ),
    Bug(
        "an event is not rebuilt in the spool",
        "poller/spools/waiting.py",
        "rebuild(letter.event))",
        "letter.event)",
        (CONTRACT + "test_a_dead_letter_that_is_retried_goes_out_as_it_was_rebuilt",),
    ),
    Bug(
        "a coded picture is believed by its header",
        "poller/qcloud/pictures/fetch.py",
        'if not b"".join(self._pieces).startswith(START):',
        "if True:",
        (
            "tests/integration/sinks/download/test_download.py"
            "::test_a_whole_picture_is_stored_whatever_the_head_says_of_its_type_and_coding",
        ),
    ),
    Bug(
        "a loss is not noted before the bucket is looked at",
        "poller/daemon/automatic_backfill.py",
        "msgspec.json.encode(note) if note.pending or note.running else",
        "msgspec.json.encode(Note()) if note.pending or note.running else",
        ("tests/integration/test_backfill.py::test_a_loss_is_noted_before_the_look_and_the_next_life_looks",),
    ),
    Bug(
        "a list of a bucket may have a document type",
        "poller/qcloud/cos/listing.py",
        "        parser.StartDoctypeDeclHandler = self._refuse\n",
        "",
        ("tests/unit/qcloud/cos/test_listing.py::test_anything_else_is_no_page",),
    ),
    Bug(
        "the list of a long push ends before its last picture",
        "poller/qcloud/events/name_ranges.py",
        'last=f"{prefix}{high}_{_LAST}")',
        'last=f"{prefix}{high}")',
        ("tests/unit/qcloud/events/test_name_ranges.py",),
    ),
)

LOADER = "tests/integration/web/test_picture_loader.py::"
VIEWERS = "tests/unit/web/test_pictures.py::"
CACHE = "tests/unit/web/test_picture_cache.py::"

PICTURES_OF_THE_PAGES = (
    Bug(
        "a link in a sink's folder is followed for the pages",
        "poller/sinks/download/folders.py",
        "_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK",
        "_FILE: Final = os.O_RDONLY | os.O_NONBLOCK",
        (LOADER + "test_what_stands_in_a_files_place_is_never_followed_nor_shown[_link]",),
    ),
    Bug(
        "the pages ask any host for pictures",
        "poller/web/picture_loader.py",
        "        return vet(event.url, HostList(exact=frozenset((host, None) for host in hosts)))",
        """        return vet(event.url, HostList(exact=hosts, suffixes=frozenset({("", None)})))""",
        (LOADER + "test_a_host_that_is_not_the_accounts_is_never_asked[http://127.0.0.2:{port}/x.jpg]",),
    ),
    Bug(
        "whatever a host sends is shown as a picture",
        "poller/qcloud/pictures/fetch.py",
        "        check_picture(body, max_pixels=self._max_pixels)\n",
        "",
        (LOADER + "test_what_is_no_picture_is_refused[html]",),
    ),
    Bug(
        "each viewer makes a fetch",
        "poller/web/pictures.py",
        "        if number not in self._loads:\n",
        "        if True:\n",
        (VIEWERS + "test_sixty_four_viewers_of_a_number_share_one_load",),
    ),
    Bug(
        "pictures in memory are not bounded",
        "poller/web/picture_cache.py",
        "        while self.bytes > self._size:\n",
        "        while False:\n",
        (CACHE + "test_the_bytes_of_thousands_of_pictures_stay_within_the_bound",),
    ),
)
