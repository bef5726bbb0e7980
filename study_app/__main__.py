"""Open a preference study in the browser.

    python -m study_app --study results/emoji --models wuerstchen baseline-ldm --prompts names compositions

Studies that do not exist yet are created from the results' pictures and opened; each set of prompts is a study of its
own, all with the same participants. `python -m study_app.admin` does the rest: screening, closing, export, erasure.
"""

import argparse
from pathlib import Path

from study_app import records
from study_app.manifest import DEFAULTS, Study, build, load
from study_app.server import serve
from study_app.service import Service, default_store
from study_app.votes import Store


def prepare(
    results: Path, models: tuple[str, str], prompts: list[str], store: Store, data: Path, **settings
) -> list[Study]:
    """The studies of these sets of prompts, created and opened where the store does not have them.

    Raises ValueError where one exists for other models, or its files are not those of the store.
    """
    if not (results / "images").is_dir():
        raise ValueError(f"study: {results} has no pictures; it should be the results that `make` leaves")
    studies = []
    known = records.studies(store)
    for name in prompts:
        folder = data / name
        if (folder / "manifest.json").is_file():
            study = load(folder)
            if set(study.models) != set(models):
                raise ValueError(
                    f"models: {' '.join(models)}; the study {name} in {folder} compares {' '.join(study.models)}: "
                    "give these, or another --data folder and --store"
                )
        else:
            print(f"Preparing the pictures of {name} …", flush=True)
            study = build(results, models, name, folder, **settings)
        records.add_study(store, study)
        if name not in known:
            records.set_state(store, name, "open")
        studies.append(study)
    return studies


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m study_app", description="Open a preference study in the browser.")
    parser.add_argument("--study", type=Path, required=True, help="results folder, such as results/emoji")
    parser.add_argument("--models", nargs=2, required=True, metavar="MODEL", help="the two models to compare")
    parser.add_argument("--prompts", nargs="+", required=True, help="sets of prompts, each a study of its own")
    parser.add_argument("--store", help="SQLite file or postgresql:// URL; default study_data/STUDY.sqlite")
    parser.add_argument("--data", type=Path, help="folder of manifests and pictures; default study_data/STUDY")
    parser.add_argument("--contact", default="whoever invited you", help="whom participants write to; in the consent")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs and sides; for new studies")
    parser.add_argument("--target", type=int, default=DEFAULTS["target_votes"], help="pairs asked of each participant")
    parser.add_argument("--alias-from", type=int, default=DEFAULTS["alias_min_votes"], help="votes that earn an alias")
    parser.add_argument("--address", default="127.0.0.1", help="where to listen; a reverse proxy goes before it")
    parser.add_argument("--port", type=int, default=8501)
    options = parser.parse_args(argv)
    try:
        store = Store(options.store or default_store(options.study))
        studies = prepare(
            options.study,
            tuple(options.models),
            options.prompts,
            store,
            options.data or default_store(options.study).with_suffix(""),
            seed=options.seed,
            target_votes=options.target,
            alias_min_votes=options.alias_from,
        )
    except ValueError as error:
        raise SystemExit(str(error)) from None
    for line in records.overlap_lines(records.overlap(store)):
        print(line)
    serve(
        Service(store, {study.name: study for study in studies}, options.contact),
        address=options.address,
        port=options.port,
    )


if __name__ == "__main__":
    main()
