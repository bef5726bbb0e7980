"""The network dies under an open page: without a word, after the vote has arrived, or with a reset."""

import asyncio
import contextlib
import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
from network import DOWN, UP, Network
from study_server import StudyServer
from tab import Tab
from test_load import check, persistent

from benchmarks import voters
from benchmarks.voters import Voter

pytestmark = pytest.mark.browser
FAILURES = {
    "silence": lambda network: network.lose(UP, DOWN),
    "answers lost": lambda network: network.lose(DOWN),
    "votes lost": lambda network: network.lose(UP),
    "reset": lambda network: network.reset(),
}


def test_connections_that_die_under_load_lose_no_vote(tmp_path, results, monkeypatch):
    monkeypatch.setattr(voters, "ANSWER_SECONDS", 6.0)
    server = StudyServer(tmp_path, results)
    server.start()
    network = Network(server.port)
    everyone = [Voter(network.url) for _ in range(15)]

    def acknowledged() -> int:
        return sum(len(voter.acknowledged) for voter in everyone)

    async def with_failures() -> None:
        tasks = [asyncio.create_task(persistent(voter, 16, 0.9)) for voter in everyone]
        for fail in FAILURES.values():
            before = acknowledged()
            while acknowledged() < before + 30:
                await asyncio.sleep(0.01)
            fail(network)
            await asyncio.sleep(1.5)
            network.heal()
        await asyncio.gather(*tasks)

    try:
        # in a thread of its own: Playwright's loop runs in this one
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, with_failures()).result()
    finally:
        network.close()
        server.stop()
    check(server, everyone)
    assert [len(voter.acknowledged) >= 16 for voter in everyone] == [True] * 15
    # votes were under way in each failure: some arrived whose answer was lost, and some were lost
    stored = {row[0] for row in server.rows("SELECT assignment FROM vote")}
    sent = [name for voter in everyone for name in voter.sent]
    assert stored > {name for voter in everyone for name in voter.acknowledged} and len(sent) > len(set(sent))
    assert server.faults() == []


@pytest.mark.parametrize("failure", FAILURES)
def test_a_page_whose_connection_dies_comes_back(context, server, failure):
    """Whatever became of the vote given meanwhile, it counts once at most, and the page shows what is stored."""
    network = Network(server.port)
    near = copy.copy(server)
    near.url = network.url
    tab = Tab(context.new_page(), near)
    try:
        tab.open()
        who = tab.who()
        tab.page.keyboard.press("ArrowLeft")
        tab.answered(0)
        tab.ready()
        with contextlib.nullcontext() if failure == "reset" else tab.page.expect_event("load", timeout=90_000):
            FAILURES[failure](network)
            tab.page.keyboard.press("ArrowRight")
            tab.page.wait_for_timeout(1500)
            network.heal()
        tab.ready()
        counted = tab.count()
        expected = {"answers lost": {2}, "reset": {1, 2}}.get(failure, {1})
        assert tab.who() == who and counted == len(tab.votes()) and counted in expected
        tab.page.keyboard.press("ArrowDown")
        tab.answered(counted)
        assert [row.choice for row in tab.votes()] == ["left", "right"][:counted] + ["equal"]
    finally:
        network.close()
