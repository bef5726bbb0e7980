"""The researcher's page for screening: every picture is looked at, and marked where it is unfit to be shown.

The paper's authors scanned all pictures by hand (appendix C). The page listens on this machine only, on a port of
its own, and asks for the key that its address carries.
"""

import hmac
import secrets
import tempfile
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from study_app import detector, records
from study_app.manifest import Study
from study_app.server import run
from study_app.votes import Store

PER_PAGE = 24
PICTURE = 160  # pixels


@dataclass(frozen=True)
class Review:
    """What is looked through, and the key of the page's address."""

    store: Store
    study: Study
    key: str


_running: list[Review] = []


def pages(study: Study, flagged: Container[str]) -> list[list[str]]:
    """What a detector has flagged, then the rest, each with the models mixed; a page's worth each."""
    names = sorted(detector.pictures(study), key=lambda name: name not in flagged)
    return [names[i : i + PER_PAGE] for i in range(0, len(names), PER_PAGE)]


def main() -> None:
    """One run of the page's script."""
    review = _running[0]
    st.set_page_config(page_title="Screening", layout="wide")
    if not hmac.compare_digest(st.query_params.get("key", "").encode(), review.key.encode()):
        st.error("Open the address that the program printed; it carries a key.")
        return
    flagged = detector.flagged(review.study)
    everything = pages(review.study, flagged)
    st.title(f"Screening: {review.study.title}")
    marked = records.unfit_pictures(review.store, review.study.name)
    if "next" in st.session_state:  # a widget's value can be set before it is drawn only
        st.session_state["page"] = st.session_state.pop("next")
    number = st.number_input(f"Page, of {len(everything)}", 1, len(everything), key="page")
    st.text(f"{len(marked)} of {sum(map(len, everything))} pictures are marked as unfit. Their prompts are not shown.")
    if flagged:
        st.text(f"A detector has flagged {len(flagged)}, which come first. That alone keeps none from being shown.")
    with st.form(f"page-{number}", border=False):
        row = st.container(horizontal=True)  # as many beside each other as the window is wide
        ticked = {}
        for name in everything[number - 1]:
            prompt = review.study.entries[review.study.owners[name]].prompt
            with row.container(width=PICTURE):
                st.image(review.study.picture_path(name).read_bytes(), width="stretch", alt=prompt)
                st.text(prompt)
                if name in flagged:
                    st.text(f"Flagged: {flagged[name]}")
                ticked[name] = st.checkbox("unfit", value=name in marked, key=f"unfit-{name}")
        if st.form_submit_button("Save this page and go on", type="primary"):
            save(review, ticked, marked)
            st.session_state["next"] = min(number + 1, len(everything))
            st.rerun()


def save(review: Review, ticked: dict[str, bool], marked: set[str]) -> int:
    """Store the marks that differ from those there; returns their number."""
    changed = [name for name, unfit in ticked.items() if unfit != (name in marked)]
    for name in changed:
        records.mark(review.store, review.study, name, ticked[name])
    return len(changed)


def serve(store: Store, study: Study, port: int) -> None:
    """Serve the page on this machine's loopback until interrupted."""
    records.add_study(store, study)
    review = Review(store, study, secrets.token_urlsafe(16))
    _running[:] = [review]
    script = Path(tempfile.mkdtemp(prefix="review-")) / "page.py"
    script.write_text("from study_app.review import main\n\nmain()\n", encoding="utf-8")
    print(f"Screening {study.name}: open http://127.0.0.1:{port}/?key={review.key}", flush=True)
    run(st.App(script), "127.0.0.1", port)
