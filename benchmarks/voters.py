"""Participants without a browser: they speak Streamlit's websocket, and send what the page's own component sends."""

import asyncio
import json
import time
import urllib.request
from dataclasses import dataclass, field

import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

ANSWER_SECONDS = 120.0


def new_cookie(url: str) -> str:
    """The cookie that the server gives a browser which asks for the page."""
    request = urllib.request.Request(url, headers={"Accept": "text/html"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.headers["Set-Cookie"].partition(";")[0]


@dataclass
class Voter:
    """One participant in one tab. `acknowledged` holds the assignments whose successor the page has shown."""

    url: str
    cookie: str = ""
    study: str = ""
    acknowledged: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    keep_frames: bool = False

    async def connect(self) -> None:
        """Open the page: its websocket and the first run of its script."""
        if not self.cookie:
            self.cookie = await asyncio.to_thread(new_cookie, self.url)
        self.socket = await websockets.connect(
            f"{self.url.replace('http', 'ws')}/_stcore/stream",
            subprotocols=[websockets.Subprotocol("streamlit")],
            additional_headers={"Cookie": self.cookie},
            origin=self.url,
            max_size=None,
            open_timeout=ANSWER_SECONDS,
        )
        self.pair: dict = {}
        self.buttons: dict[str, str] = {}
        self.component = self.fragment = ""
        await self.rerun({})

    async def close(self) -> None:
        await self.socket.close()

    async def rerun(self, widget: dict, fragment: str = "") -> None:
        """Ask for a run of the script with one widget triggered; returns when the run has ended."""
        message = BackMsg()
        message.rerun_script.query_string = f"study={self.study}" if self.study else ""
        message.rerun_script.fragment_id = fragment
        if widget:
            state = message.rerun_script.widget_states.widgets.add()
            for name, value in widget.items():
                setattr(state, name, value)
        await self.socket.send(message.SerializeToString())
        await self.run_ends(bool(fragment))

    async def run_ends(self, fragment: bool) -> None:
        while True:
            frame = await asyncio.wait_for(self.socket.recv(), ANSWER_SECONDS)
            assert isinstance(frame, bytes)
            if self.keep_frames:
                self.frames.append(frame)
            message = ForwardMsg.FromString(frame)
            kind = message.WhichOneof("type")
            if kind == "delta":
                self.read(message)
            elif kind == "script_finished":
                early = message.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN
                if not early:
                    return

    def read(self, message: ForwardMsg) -> None:
        element = message.delta.new_element
        kind = element.WhichOneof("type")
        if kind == "button":
            self.buttons[element.button.label] = element.button.id
        elif kind == "bidi_component":
            found = element.bidi_component
            self.pair = json.loads(found.json or found.mixed.json)
            self.component, self.fragment = found.id, message.delta.fragment_id
        elif kind in ("exception", "alert"):
            self.errors.append(str(element)[:500])

    async def press(self, label: str) -> None:
        """Press a plain button."""
        await self.rerun({"id": self.buttons.pop(label), "trigger_value": True})

    async def agree(self) -> None:
        """Consent, where it is asked."""
        if "I agree, start" in self.buttons:
            await self.press("I agree, start")

    async def vote(self, choice: object = "left", *, token: object = None, wait: float = 0.0) -> bool:
        """Answer the pair shown. True when the page then showed another one."""
        await asyncio.sleep(wait)
        before = self.pair["token"]
        value = {
            "token": before if token is None else token,
            "choice": choice,
            "ms": 1,
            "input": "mouse",
            "width": 1400,
        }
        if token is None:
            self.sent.append(before.partition(".")[0])
        start = time.perf_counter()
        trigger = json.dumps([{"event": "vote", "value": value}])
        events = f"$$STREAMLIT_INTERNAL_KEY_{self.component}__events"
        await self.rerun({"id": events, "json_trigger_value": trigger}, self.fragment)
        self.seconds.append(time.perf_counter() - start)
        changed = self.pair["token"] != before
        if changed and token is None:
            self.acknowledged.append(before.partition(".")[0])
        return changed


@dataclass
class PlainVoter(Voter):
    """The same on a plain page: buttons named "left" and "right", no component and no cookie."""

    cookie: str = "none=1"
    prompt: str = ""

    def read(self, message: ForwardMsg) -> None:
        super().read(message)
        element = message.delta.new_element
        if element.WhichOneof("type") == "heading":
            self.prompt = element.heading.body

    async def vote(self, choice: object = "left", *, token: object = None, wait: float = 0.0) -> bool:
        """Press a button. True when the page then showed another prompt."""
        await asyncio.sleep(wait)
        before = self.prompt
        start = time.perf_counter()
        await self.press(str(choice))
        self.seconds.append(time.perf_counter() - start)
        return self.prompt != before
