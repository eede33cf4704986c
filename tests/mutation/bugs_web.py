"""Deliberate bugs of the pages' listener."""

from .bugs import Bug

SCENARIO = "tests/scenario/test_web_access.py::"
CONNECTIONS = "tests/integration/test_web_connections.py::"
WEB = (
    Bug(
        "any name is served",
        "poller/web/access.py",
        "        if site is None:\n",
        "        if site is None and request.path == '/nowhere':\n",
        (SCENARIO + "test_only_our_own_names_are_served",),
    ),
    Bug(
        "a target may name another host",
        "poller/web/hosts.py",
        "    if len(given) != 1 or not _same_host(target, given[0]):\n",
        "    if len(given) != 1:\n",
        (
            SCENARIO + "test_no_host_several_hosts_and_a_target_with_another_host_are_refused",
            "tests/unit/web/test_hosts.py::test_a_target_with_a_host_names_the_same_host",
        ),
    ),
    Bug(
        "a viewer may operate",
        "poller/web/access.py",
        "            check_operator(request)\n",
        "            pass\n",
        (SCENARIO + "test_a_viewer_writes_nothing_and_what_an_operator_writes_is_logged",),
    ),
    Bug(
        "data needs no login",
        "poller/web/access.py",
        "        if needs_session and ROLE not in request:\n",
        "        if needs_session and ROLE == '':\n",
        (SCENARIO + "test_pages_are_free_and_data_needs_a_login",),
    ),
    Bug(
        "a write may come from another site",
        "poller/web/access.py",
        "    if not own:\n",
        '    if relation == "none":\n',
        (SCENARIO + "test_a_write_from_another_site_is_refused_whoever_is_logged_in",),
    ),
    Bug(
        "a form is a write",
        "poller/web/access.py",
        '    if content_type != "application/json":\n',
        '    if content_type == "":\n',
        (SCENARIO + "test_a_write_from_another_site_is_refused_whoever_is_logged_in",),
    ),
    Bug(
        "tokens may be guessed without end",
        "poller/web/login.py",
        "        if wait := self._tries.wait(caller.key):\n",
        "        if (wait := self._tries.wait(caller.key)) > 3600:\n",
        (SCENARIO + "test_after_five_wrong_tokens_an_address_waits_and_no_other_does",),
    ),
    Bug(
        "a header says who the client is, whoever sends it",
        "poller/web/callers.py",
        '    told = address(forwarded.rpartition(",")[2]) if site.proxied else None\n',
        '    told = address(forwarded.rpartition(",")[2])\n',
        (SCENARIO + "test_behind_a_proxy_each_client_has_its_own_tries",),
    ),
    Bug(
        "a logout leaves the session open",
        "poller/web/sessions.py",
        "        del self._sessions[key]\n        self._ended(key)\n",
        "        self._ended(key)\n",
        (
            SCENARIO + "test_a_session_ends_with_the_logout_with_another_login_and_with_the_daemon",
            "tests/unit/web/test_sessions.py::test_a_session_that_is_ended_is_gone_and_its_owner_is_told",
        ),
    ),
    Bug(
        "a one-time code is good for ever",
        "poller/web/sessions.py",
        "self._codes.pop(_hash(code), (None, 0.0))",
        "self._codes.get(_hash(code), (None, 0.0))",
        ("tests/integration/test_web_login.py::test_a_one_time_code_logs_an_operator_in_once",),
    ),
    Bug(
        "without tokens a proxy's viewers may look",
        "poller/web/access.py",
        "peer.is_loopback and not proxied",
        "peer.is_loopback",
        (SCENARIO + "test_without_tokens_this_machine_looks_and_nobody_operates",),
    ),
    Bug(
        "who reads slowly but goes on is cut",
        "poller/web/connections.py",
        "        if self._left - left < bounds.least:\n",
        "        if self._left >= left:\n",
        (CONNECTIONS + "test_a_slow_reader_who_goes_on_gets_all_of_it",),
    ),
    Bug(
        "a request of the pages has no deadline",
        "poller/web/connections.py",
        "self._timer = self._loop.call_later(self._server.bounds.request, self._give_up)",
        "self._timer = self._loop.call_later(3600, self._give_up)",
        (
            CONNECTIONS + "test_a_head_that_does_not_end_is_answered_408",
            CONNECTIONS + "test_a_body_that_does_not_end_is_cut",
        ),
    ),
    Bug(
        "nobody makes room for a newcomer",
        "poller/web/connections.py",
        "            if not ranked:\n",
        "            if ranked:\n",
        (CONNECTIONS + "test_for_a_newcomer_the_connection_that_is_idle_longest_makes_room",),
    ),
    Bug(
        "the viewer of an event stream who goes away keeps the place",
        "poller/web/connections.py",
        "        for call in list(self.when_lost):\n",
        "        for call in list(self.when_lost)[:0]:\n",
        (CONNECTIONS + "test_a_viewer_who_goes_away_frees_the_place_at_once",),
    ),
    Bug(
        "an unexpected error is shown to the viewer",
        "poller/web/errors.py",
        'return json_answer({"error": INTERNAL}, 500)',
        'return json_answer({"error": str(error)}, 500)',
        (CONNECTIONS + "test_errors_are_json_with_our_headers_and_a_bug_says_nothing",),
    ),
)
