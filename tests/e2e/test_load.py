"""Many participants at once, and a server or database that dies under them: no vote lost, none twice."""

import asyncio
import contextlib
import urllib.error
import urllib.request
from pathlib import Path

import postgresql
import pytest
import websockets
from study_server import StudyServer

from benchmarks.voters import Voter

pytestmark = pytest.mark.browser
VOTERS, VOTES, THINK_SECONDS = 60, 5, 1.0


def make_server(tmp_path: Path, results: Path, *options: str) -> StudyServer:
    made = StudyServer(tmp_path, results, *options)
    made.start()
    return made


async def take_part(voter: Voter, votes: int, think: float) -> None:
    await voter.connect()
    await voter.agree()
    for number in range(votes):
        assert await voter.vote(["left", "right", "equal"][number % 3], wait=think)
    await voter.close()


def check(server: StudyServer, voters: list[Voter]) -> None:
    """Every acknowledged vote is there; every vote there was sent; none twice (the key forbids it)."""
    stored = [row[0] for row in server.rows("SELECT assignment FROM vote")]
    acknowledged = {name for voter in voters for name in voter.acknowledged}
    sent = {name for voter in voters for name in voter.sent}
    assert len(stored) == len(set(stored))
    assert acknowledged <= set(stored) <= sent
    gaps = server.rows(
        "SELECT a.id FROM assignment a WHERE NOT EXISTS (SELECT 1 FROM vote v WHERE v.assignment = a.id) "
        "AND EXISTS (SELECT 1 FROM assignment n WHERE n.participant = a.participant AND n.study = a.study "
        "AND n.seq > a.seq)"
    )
    assert gaps == []
    print(f"\n{len(acknowledged)} votes acknowledged, {len(stored)} stored, {len(sent)} sent")


def test_sixty_voters_at_once(tmp_path, results):
    server = make_server(tmp_path, results)
    voters = [Voter(server.url) for _ in range(VOTERS)]

    async def everyone() -> None:
        await asyncio.gather(*(take_part(voter, VOTES, THINK_SECONDS) for voter in voters))

    try:
        asyncio.run(everyone())
    finally:
        server.stop()
    check(server, voters)
    assert [len(voter.acknowledged) for voter in voters] == [VOTES] * VOTERS
    assert [error for voter in voters for error in voter.errors] == []
    assert server.faults() == []
    seconds = sorted(s for voter in voters for s in voter.seconds)
    print(f"p50 {seconds[len(seconds) // 2]:.3f} s, p95 {seconds[int(len(seconds) * 0.95)]:.3f} s")
    flagged = server.rows("SELECT COUNT(*) FROM participant WHERE burst = 1")[0][0]
    assert flagged == VOTERS - 10  # flagged, and not one turned away


async def persistent(voter: Voter, votes: int, think: float) -> None:
    """Goes on after a lost connection, as a browser does: a new connection, the same cookie, the pair shown then."""
    while len(voter.acknowledged) < votes:
        try:
            await voter.connect()
            await voter.agree()
            while len(voter.acknowledged) < votes:
                await voter.vote("left", wait=think)
            await voter.close()
        except (TimeoutError, OSError, websockets.WebSocketException):
            await asyncio.sleep(0.5)


def test_a_server_killed_under_load_loses_no_vote(tmp_path, results):
    server = make_server(tmp_path, results)
    voters = [Voter(server.url) for _ in range(15)]

    async def with_kills() -> None:
        everyone = [asyncio.create_task(persistent(voter, 12, 0.9)) for voter in voters]
        for _ in range(2):
            while not any(voter.acknowledged for voter in voters):
                await asyncio.sleep(0.2)
            before = sum(len(voter.acknowledged) for voter in voters)
            while sum(len(voter.acknowledged) for voter in voters) < before + 20:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        await asyncio.gather(*everyone)

    try:
        asyncio.run(with_kills())
    finally:
        server.stop()
    check(server, voters)


def test_postgresql_restarted_under_load_loses_no_vote(tmp_path, results):
    if (reason := postgresql.missing()) is not None:
        pytest.skip(reason)
    with postgresql.server() as database:
        server = make_server(tmp_path, results, "--store", database.url)
        voters = [Voter(server.url) for _ in range(15)]

        async def with_restarts() -> None:
            everyone = [asyncio.create_task(persistent(voter, 12, 0.9)) for voter in voters]
            for mode in ("fast", "immediate"):
                before = sum(len(voter.acknowledged) for voter in voters)
                while sum(len(voter.acknowledged) for voter in voters) < before + 25:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(database.stop, mode)
                await asyncio.sleep(1)
                await asyncio.to_thread(database.start)
            await asyncio.gather(*everyone)

        try:
            asyncio.run(with_restarts())
        finally:
            server.stop()
        check(server, voters)
        assert [error for voter in voters for error in voter.errors] == []


def test_votes_before_the_minimum_exposure_do_not_count(server):
    async def hasty() -> Voter:
        voter = Voter(server.url)
        await voter.connect()
        await voter.agree()
        assert not await voter.vote("left")
        assert await voter.vote("left", wait=1.0)
        await voter.close()
        return voter

    voter = asyncio.run(hasty())
    assert len(set(voter.sent)) == 1 and len(voter.acknowledged) == 1


def test_forged_and_replayed_votes_over_the_websocket_never_count(server):
    hostile = [
        "x" * 10_000,
        "'; DROP TABLE vote; --",
        "<script>alert(1)</script>",
        "../../etc/passwd",
        {"a": 1},
        [],
        7,
        True,
        "0" * 32 + "." + "0" * 32,
    ]

    async def attack() -> tuple[Voter, Voter]:
        victim, voter = Voter(server.url), Voter(server.url)
        for one in (victim, voter):
            await one.connect()
            await one.agree()
        before = voter.pair["token"]
        for token in [*hostile, victim.pair["token"]]:
            assert not await voter.vote("left", token=token, wait=0.1)
        for choice in ["both", None, {"x": 1}, "left; DROP TABLE vote", 0]:
            assert not await voter.vote(choice, wait=0.9 if choice == "both" else 0)
        assert voter.pair["token"] == before
        assert await voter.vote("right", wait=1.0)
        assert not await voter.vote("left", token=before, wait=1.0)  # a replay
        name = voter.cookie.partition("=")[0]
        for forged in ("forged", "0" * 32 + "." + "0" * 32, voter.cookie.partition("=")[2][:-1] + "x"):
            stranger = Voter(server.url, cookie=f"{name}={forged}")
            await stranger.connect()
            assert stranger.pair == {} and "cookie" in stranger.errors[0]
            await stranger.close()
        for one in (victim, voter):
            await one.close()
        return victim, voter

    victim, voter = asyncio.run(attack())
    counted = [row.assignment for row in server.rows("SELECT assignment FROM vote")]
    assert victim.pair["token"].partition(".")[0] not in counted
    assert counted.count(voter.acknowledged[0]) == 1 and len(voter.acknowledged) == 1


def test_no_frame_and_no_response_says_whose_picture_it_is(tmp_path, results):
    """Neither models nor files, in anything that the page sends or that can be asked for."""
    server = StudyServer(tmp_path, results, prompts=("names", "compositions"))
    server.start()
    secrets = [b"wuerstchen", b"baseline", b"ldm", b"names-0", b"compositions-0", b"manifest", str(tmp_path).encode()]
    try:

        async def look() -> Voter:
            voter = Voter(server.url, study="names", keep_frames=True)
            await voter.connect()
            await voter.agree()
            for _ in range(25):  # all kinds of trials
                assert await voter.vote("left", wait=0.85)
            await voter.close()
            return voter

        voter = asyncio.run(look())
        assert len(voter.frames) > 50
        prompts = {row.prompt_id.encode() for row in server.rows("SELECT prompt_id FROM assignment")}
        for frame in voter.frames:
            # the prompts of these small studies are "a picture of names-012": shown, so not secret
            bare = frame.lower()
            for prompt in prompts:
                bare = bare.replace(b"a picture of " + prompt, b"")
            assert not [secret for secret in secrets if secret in bare]
        picture = f"/pictures/{voter.pair['left']}"
        paths = ["/", picture, "/_stcore/health", "/_stcore/host-config", "/_stcore/metrics"]
        paths += ["/_stcore/agent/openapi.json", "/_stcore/script-health-check", "/pictures/../names/manifest.json"]
        paths += ["/pictures/..%2f..%2fnames%2fmanifest.json", "/app/static/manifest.json", "/media/x", "/pictures/"]
        for path in paths:
            with contextlib.suppress(urllib.error.HTTPError):
                with urllib.request.urlopen(server.url + path, timeout=20) as response:
                    body = response.read() + str(response.headers).encode()
                    told = [secret for secret in secrets if secret != b"manifest" and secret in body.lower()]
                    assert not told, path  # Streamlit has a web manifest of its own
                    if path == picture:
                        told = {"last-modified", "etag"} & {name.lower() for name in response.headers}
                        assert not told and b"EXIF" not in body and b"XMP" not in body and b"ICCP" not in body
    finally:
        server.stop()
