"""The participants' server: Streamlit with a cookie for each browser, and pictures under names that say nothing."""

import contextlib
import tempfile
from http.cookies import SimpleCookie
from pathlib import Path

import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from study_app import service, tokens
from study_app.manifest import SUFFIX
from study_app.service import Service

COOKIE_SECONDS = 180 * 24 * 3600
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
OPTIONS = {
    "server.headless": True,
    "server.fileWatcherType": "none",
    "server.disconnectedSessionTTL": 600,
    "server.maxUploadSize": 1,
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
    "browser.gatherUsageStats": False,
    # one colour for each theme: a colour for both would end the browser's choice between light and dark
    "theme.light.primaryColor": "#1f5fcc",
    "theme.dark.primaryColor": "#2f6fdb",
}


class Identity:
    """Gives a browser that asks for a page its signed cookie, and every response its headers."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self.app = app
        self.secret = secret
        self.name = tokens.cookie_name(secret)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        new = page and tokens.unseal(self.secret, "identity", request.cookies.get(self.name)) is None

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if new:
                    headers.append("Set-Cookie", self.cookie(secure=request.url.scheme == "https"))
            await send(message)

        await self.app(scope, receive, with_headers)

    def cookie(self, *, secure: bool) -> str:
        """A new identity, signed; out of reach of scripts."""
        made: SimpleCookie = SimpleCookie()
        made[self.name] = tokens.seal(self.secret, "identity", tokens.random_id())
        made[self.name] |= {"path": "/", "max-age": COOKIE_SECONDS, "httponly": True, "samesite": "Lax"}
        if secure:
            made[self.name]["secure"] = True
        return made[self.name].OutputString()


def picture(request: Request) -> Response:
    """A picture of any study by its name; without dates, which would tell in which order pictures were made."""
    name = request.path_params["name"]
    if tokens.ID.fullmatch(name):
        for study in service.running().studies.values():
            if name in study.owners:
                content = study.picture_path(name).read_bytes()
                kept = {"Cache-Control": "private, max-age=3600"}
                return Response(content, media_type=f"image/{SUFFIX[1:]}", headers=kept)
    return Response(status_code=404)


def app(running: Service) -> st.App:
    """The ASGI application of a service."""
    service.start(running)
    # Streamlit tells browsers the path of its script: this one's says nothing about project or models
    script = Path(tempfile.mkdtemp(prefix="study-")) / "page.py"
    script.write_text("from study_app.app import main\n\nmain()\n", encoding="utf-8")
    return st.App(
        script,
        routes=[Route("/pictures/{name}", picture)],
        middleware=[Middleware(Identity, secret=running.store.secret)],
        on_script_error=say_unavailable,
    )


def say_unavailable(_error: Exception) -> bool:
    """What participants see where the page fails; the log has the rest."""
    st.error("The study cannot answer at the moment. Nothing of yours is lost: please reload the page in a minute.")
    return True


def serve(running: Service, *, address: str, port: int) -> None:
    """Serve until interrupted."""
    run(app(running), address, port)


def run(made: st.App, address: str, port: int) -> None:
    """Serve an application until interrupted, which is how it is meant to end."""
    with contextlib.suppress(KeyboardInterrupt):
        made.run(config=OPTIONS | {"server.address": address, "server.port": port})
