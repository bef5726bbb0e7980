"""The participants' page: consent, pairs, leaderboard, thanks. It shows what the store says and keeps nothing."""

import functools
import gc
import html
import time
from typing import Any, Literal

import streamlit as st

from study_app import tokens
from study_app.assignments import Shown
from study_app.manifest import Study
from study_app.service import DELAY_SECONDS, PAGE, Service, running
from study_app.votes import Participant

RECRUITED_BY = ("PROLIFIC_PID", "recruit")  # query parameters of recruited participants; their values are not kept
STYLE = """
<style>
.stMainBlockContainer { max-width: 1100px; padding: 2.75rem 1rem 1.5rem; }
[data-testid="stHeader"] { height: 2.5rem; min-height: 0; background: transparent; }
[data-testid="stVerticalBlock"] { gap: 0.75rem; }
h1 { font-size: clamp(1.625rem, 4vw, 2.25rem) !important; }
[data-testid="stMarkdownContainer"], .leaderboard, .stForm { max-width: 42rem; }
.leaderboard { border-collapse: collapse; width: 100%; }
.leaderboard th, .leaderboard td { padding: 0.5rem 0.75rem; text-align: left;
  border-bottom: 1px solid rgba(128, 128, 128, 0.35); }
.leaderboard td:last-child, .leaderboard th:last-child { text-align: right; }
.leaderboard tr.own td { font-weight: 700; }
.code { font-size: 1.5rem; font-weight: 700; letter-spacing: 0.08em; user-select: all; }
</style>
"""

pair_component = st.components.v2.component(
    "pair", **{kind: (PAGE / f"pair.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")}
)


@functools.cache
def settle() -> None:
    """Exempt what has been loaded by now from garbage collection, once.

    Streamlit collects after each run of a script; walking all its modules took 70 ms of a vote's 85.
    """
    gc.collect()
    gc.freeze()


def main() -> None:
    """One run of the page's script."""
    page(running())
    settle()


def page(service: Service) -> None:
    """The view that is due."""
    st.set_page_config(page_title="Which picture do you prefer?", layout="wide", initial_sidebar_state="collapsed")
    st.html(STYLE)
    secret = service.store.secret
    identity = tokens.unseal(secret, "identity", st.context.cookies.get(tokens.cookie_name(secret)))
    if identity is None:
        st.warning("This study needs one cookie, to know your answers again. Please allow it and reload the page.")
        return
    participant = service.store.participant(identity)
    recruited = any(name in st.query_params for name in RECRUITED_BY)
    text, version = service.consent()
    if participant is None or participant.consent != version:
        consent(service, identity, text, version, recruited, new=participant is None)
        return
    if recruited and not participant.recruited:
        participant = service.store.join(identity, version, recruited=True)
    study = chosen_study(service)
    if study is None:
        choose_study(service, participant)
        return
    {"leaderboard": leaderboard, "about": about}.get(st.session_state.get("view", ""), compare)(
        service, study, participant
    )


def consent(service: Service, identity: str, text: str, version: str, recruited: bool, *, new: bool) -> None:
    """What taking part means, and the button that agrees to it."""
    st.title("Which picture do you prefer?")
    st.markdown(text)
    if st.button("I agree, start", type="primary"):
        burst = new and service.arrivals.add(st.context.ip_address)
        if burst:
            time.sleep(DELAY_SECONDS)
        service.store.join(identity, version, recruited=recruited, burst=burst)
        for name in list(st.query_params):
            if name != "study":  # a recruiter's ids must not stay in the address, nor in the history
                del st.query_params[name]
        st.rerun()


def chosen_study(service: Service) -> Study | None:
    """The study that the address names, or the only one."""
    if len(service.studies) == 1:
        return next(iter(service.studies.values()))
    return service.studies.get(st.query_params.get("study", ""))


def choose_study(service: Service, participant: Participant) -> None:
    """The way into each of several studies."""
    st.title("Which picture do you prefer?")
    st.text("There are several sets of pictures. Take them in any order.")
    for name, study in service.studies.items():
        votes = service.store.votes(name, participant.id)
        progress = f"{votes} of {study.target_votes} pairs" if votes < study.target_votes else f"{votes} votes, done"
        if service.store.state(name) != "open":
            progress = "closed"
        st.button(
            f"{study.title} ({progress})",
            key=f"study-{name}",
            on_click=enter_study,
            args=(name,),
            disabled=progress == "closed",
        )


def enter_study(name: str | None) -> None:
    """Put a study into the address, or none."""
    st.session_state["view"] = ""
    if name is None:
        st.query_params.pop("study", None)
    else:
        st.query_params["study"] = name


def compare(service: Service, study: Study, participant: Participant) -> None:
    """The pair that waits, or thanks where nothing more is asked."""
    try:
        pair = service.store.current(study, participant.id)
    except ValueError:
        st.title("This study is closed")
        st.text("Thank you for your interest. No more answers are taken.")
        navigation(service, ("leaderboard", "about"))
        return
    if finished(study, pair):
        thanks(service, study, participant, more=pair is not None)
        return
    voting(service, study, participant)
    navigation(service, ("leaderboard", "about"), "center")


def finished(study: Study, pair: Shown | None) -> bool:
    """Whether the thanks are due: at the target, until the participant wants to go on; and when no pair is left."""
    return pair is None or (pair.votes == study.target_votes and not st.session_state.get("more", False))


@st.fragment
def voting(service: Service, study: Study, participant: Participant) -> None:
    """The pair and its answers. An answer runs this function alone."""

    def decided() -> None:
        answer: Any = st.session_state["pair"]["vote"]
        if isinstance(answer, dict):
            try:
                service.store.record_vote(
                    study,
                    participant.id,
                    answer.get("token"),
                    answer.get("choice"),
                    response_ms=answer.get("ms"),
                    input_=answer.get("input"),
                    viewport=answer.get("width"),
                )
            except ValueError:  # the participant was erased; the next run asks for consent
                pass

    try:
        pair = service.store.current(study, participant.id)
    except ValueError:
        pair = None
    if pair is None or finished(study, pair):
        st.rerun()
    pair_component(
        key="pair",
        data={
            "shown": str(time.monotonic_ns()),  # each run of the script is new to the component
            "token": pair.token,
            "prompt": pair.prompt,
            "left": pair.left,
            "right": pair.right,
            "width": study.width,
            "height": study.height,
            "votes": pair.votes,
            "target": study.target_votes,
            "exposure_ms": study.min_exposure_ms,
            "title": study.title if len(service.studies) > 1 else "",
            "who": f"You are {participant.alias or participant.pseudonym}",
        },
        on_vote_change=decided,
    )


def navigation(service: Service, views: tuple[str, ...], align: Literal["left", "center"] = "left") -> None:
    """Ways to the other views."""
    labels = {"": "Back to the pictures", "leaderboard": "Leaderboard", "about": "About this study"}
    with st.container(horizontal=True, horizontal_alignment=align):
        for view in views:
            st.button(labels[view], key=f"view-{view}", type="tertiary", on_click=show_view, args=(view,))
        if len(service.studies) > 1:
            st.button("Other sets", type="tertiary", on_click=enter_study, args=(None,))


def show_view(view: str) -> None:
    """Change the view."""
    st.session_state["view"] = view


def thanks(service: Service, study: Study, participant: Participant, *, more: bool) -> None:
    """The end, with the completion code of whoever was recruited."""
    votes = service.store.votes(study.name, participant.id)
    st.title("Thank you!")
    st.text(f"You have compared {votes} pairs, and every one of your answers is stored.")
    if participant.recruited and votes >= min(study.target_votes, len(study.entries)):
        code = tokens.completion_code(service.store.secret, study.name, participant.id)
        st.text("Your completion code:")
        st.html(f'<div class="code">{html.escape(code)}</div>')
    if more:
        st.text("If you enjoy it, go on: further answers count as well.")
        st.button("Compare more pairs", type="primary", on_click=go_on)
    standings(service, study, participant)
    navigation(service, ("about",))


def go_on() -> None:
    """Show pairs beyond the target."""
    st.session_state["more"] = True


def leaderboard(service: Service, study: Study, participant: Participant) -> None:
    """Who compared most, and a name of one's own."""
    st.title("Leaderboard")
    standings(service, study, participant)
    navigation(service, ("", "about"))


def standings(service: Service, study: Study, participant: Participant) -> None:
    """The leaderboard's table, and the alias once it is earned. It ranks people; models are nowhere."""
    lines = service.store.leaderboard(study.name, participant.id)
    own = ' class="own"'
    rows = "".join(
        f"<tr{own if line.own else ''}><td>{line.rank}</td>"
        f"<td>{html.escape(line.name)}{' (you)' if line.own else ''}</td><td>{line.votes}</td></tr>"
        for line in lines
    )
    head = '<tr><th scope="col">Rank</th><th scope="col">Name</th><th scope="col">Pairs</th></tr>'
    st.html(f'<table class="leaderboard"><thead>{head}</thead><tbody>{rows}</tbody></table>')
    votes = service.store.votes(study.name, participant.id)
    if votes < study.alias_min_votes:
        st.text(f"From {study.alias_min_votes} pairs on you can choose a name for this list. You have {votes}.")
        return
    with st.form("alias", border=False):
        wish = st.text_input("Your name on the leaderboard", max_chars=24, placeholder=participant.pseudonym)
        if st.form_submit_button("Use this name"):
            try:
                service.store.set_alias(study, participant.id, wish)
            except ValueError as error:
                st.error(str(error))
            else:
                st.rerun()


def about(service: Service, _study: Study, participant: Participant) -> None:
    """What participants agreed to, and who they are here."""
    st.title("About this study")
    st.text(f"You are {participant.pseudonym}. Quote this pseudonym to have your answers deleted.")
    st.markdown(service.consent()[0])
    navigation(service, ("", "leaderboard"))
