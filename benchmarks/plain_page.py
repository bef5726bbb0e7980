"""The peer of the preference page: a plain Streamlit page, as one writes it first. `benchmarks.study` runs it.

Two pictures by `st.image`, a button below each, the vote in the same store; then the script again for the next pair.
"""

import sys
from pathlib import Path

import streamlit as st

from study_app import records, tokens
from study_app.manifest import Study, load
from study_app.votes import Store


@st.cache_resource
def opened(store: str, folder: str) -> tuple[Store, Study]:
    """The store and the study, once for all visitors."""
    made, study = Store(store), load(Path(folder))
    records.add_study(made, study)
    records.set_state(made, study.name, "open")
    return made, study


store, study = opened(*sys.argv[1:3])
if "participant" not in st.session_state:
    st.session_state["participant"] = store.join(tokens.random_id(), "1").id
participant = st.session_state["participant"]
pair = store.current(study, participant)
if pair is None:
    st.stop()
st.subheader(pair.prompt)
for column, side, picture in zip(st.columns(2), ("left", "right"), (pair.left, pair.right), strict=True):
    with column:
        st.image(str(study.picture_path(picture)))
        if st.button(side):
            store.record_vote(study, participant, pair.token, side)
            st.rerun()
