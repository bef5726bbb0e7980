"""What the researcher does with a study: create, screen, open and close, export, erase. Never on participants' port.

    python -m study_app.admin create --study results/emoji --models wuerstchen baseline-ldm --prompts names
    python -m study_app.admin review --study results/emoji --prompts names      look through the pictures, in a browser
    python -m study_app.admin open --study results/emoji --prompts names        or: close
    python -m study_app.admin status --study results/emoji                      votes, overlap, refusals, exports
    python -m study_app.admin export --study results/emoji --prompts names --out votes/
    python -m study_app.admin erase --study results/emoji --participant "Amber Heron 4127"
    python -m study_app.admin codes --study results/emoji --prompts names       completion codes of recruited people
    python -m study_app.admin backup --study results/emoji --out FILE           of a SQLite store, while it is used

All of them take --store and --data where these are not in study_data/.
"""

import argparse
from pathlib import Path

from study_app import records
from study_app.detector import detect
from study_app.manifest import DEFAULTS, Study, build, check_pictures, load
from study_app.service import default_store
from study_app.votes import Store


def create(options: argparse.Namespace, store: Store, folder: Path) -> None:
    """Encode the pictures and enter the study as a draft."""
    if (folder / "manifest.json").exists():
        raise ValueError(f"{folder / 'manifest.json'} exists: a study's pictures are fixed once it is created")
    study = build(
        options.study,
        (options.models[0], options.models[1]),
        options.prompts,
        folder,
        title=options.title,
        seed=options.seed,
        target_votes=options.target,
        alias_min_votes=options.alias_from,
        min_exposure_ms=options.exposure,
    )
    records.add_study(store, study)
    print(
        f"{study.name}: {len(study.entries)} pairs of {study.width} x {study.height} pixels, "
        f"{len(study.anchors)} anchors, {sum(e.control is not None for e in study.entries.values())} controls; "
        f"{folder / 'manifest.json'}, "
        f"SHA-256 {study.sha256}. A draft: `review` it, then `open` it."
    )


def opened(store: Store, study: Study) -> None:
    """Open a study whose pictures are those of its manifest."""
    check_pictures(study)
    records.add_study(store, study)
    records.set_state(store, study.name, "open")
    marked = len(records.unfit_pictures(store, study.name))
    print(f"{study.name} is open; {marked} of its pictures are marked as unfit and not shown")


def status(store: Store) -> None:
    """Print every study's state and numbers, the overlap of participants, and what was exported and erased."""
    totals = records.totals(store)
    for name, state in records.studies(store).items():
        numbers = totals.get(name, {"participants": 0, "votes": 0})
        print(f"{name}: {state}, " + ", ".join(f"{number} {what}" for what, number in numbers.items()))
    print("\n".join(records.overlap_lines(records.overlap(store))))
    people, votes = records.tombstones(store)
    if people:
        print(f"{people} participants were erased, and {votes} votes with them")
    for name in records.superseded(store):
        print(f"superseded by an erasure, to be exported anew and deleted: {name}")


def erased(store: Store, name: str) -> None:
    """Erase a participant and say which exports still hold their votes."""
    votes, exports = records.erase(store, records.find(store, name))
    print(f"erased {name} with {votes} votes")
    for export in exports:
        print(f"superseded, to be exported anew and deleted wherever it is: {export}")


def backup(store: Store, path: Path) -> None:
    """A consistent copy of a SQLite store in use. Raises ValueError for PostgreSQL, and where the file exists."""
    if store.engine.dialect.name != "sqlite":
        raise ValueError("store: backup copies SQLite files; for PostgreSQL it should be pg_dump")
    if path.exists():
        raise ValueError(f"out: {path} exists; it should be a new file")
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = store.engine.raw_connection()  # outside of any transaction, where SQLAlchemy begins one
    try:
        connection.cursor().execute("VACUUM INTO ?", (str(path),))
    finally:
        connection.close()
    print(f"copied to {path}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m study_app.admin", description="The researcher's side of a study.")
    commands = made.add_subparsers(dest="command", required=True)

    def command(name: str, says: str, *, prompts: bool = True, out: str | None = None) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=says, description=says)
        added.add_argument("--study", type=Path, required=True, help="results folder, such as results/emoji")
        added.add_argument("--store", help="SQLite file or postgresql:// URL; default study_data/STUDY.sqlite")
        added.add_argument("--data", type=Path, help="folder of manifests and pictures; default study_data/STUDY")
        if prompts:
            added.add_argument("--prompts", required=True, help="the set of prompts that the study shows")
        if out is not None:
            added.add_argument("--out", type=Path, required=True, help=out)
        return added

    added = command("create", "Create a study from image shards, as a draft.")
    added.add_argument("--models", nargs=2, required=True, metavar="MODEL")
    added.add_argument("--title", help="what participants read; default the name of the prompts")
    added.add_argument("--seed", type=int, default=0, help="of pairs and sides")
    added.add_argument("--target", type=int, default=DEFAULTS["target_votes"], help="pairs asked of each participant")
    added.add_argument("--alias-from", type=int, default=DEFAULTS["alias_min_votes"], help="votes that earn an alias")
    added.add_argument("--exposure", type=int, default=DEFAULTS["min_exposure_ms"], help="ms before an answer counts")
    added = command("review", "Look through the pictures in a browser and mark those that are unfit to be shown.")
    added.add_argument("--port", type=int, default=8502, help="of this machine only")
    added.add_argument(
        "--detector", metavar="MODULE:FUNCTION", help="flags pictures to look at first; True, False or a text of each"
    )
    command("open", "Check the pictures' digests and let participants vote.")
    command("close", "Take no more votes.")
    command("status", "Say how the studies stand.", prompts=False)
    command("export", "Write the votes to a new, read-only file.", out="folder of the export")
    command("erase", "Delete everything of a participant.", prompts=False).add_argument("--participant", required=True)
    command("codes", "Completion codes of recruited participants who have reached the target.")
    command("backup", "Copy a SQLite store that is in use.", prompts=False, out="new file")
    return made


def main(argv: list[str] | None = None) -> None:
    options = parser().parse_args(argv)
    try:
        run(options)
    except ValueError as error:
        raise SystemExit(str(error)) from None


def run(options: argparse.Namespace) -> None:
    """Do what the command line says. Raises ValueError for what cannot be done."""
    store = Store(options.store or default_store(options.study))
    data = options.data or default_store(options.study).with_suffix("")
    match options.command:
        case "create":
            create(options, store, data / options.prompts)
        case "status":
            status(store)
        case "erase":
            erased(store, options.participant)
        case "backup":
            backup(store, options.out)
        case "review":
            from study_app.review import serve  # Streamlit takes a second to import

            study = load(data / options.prompts)
            if options.detector:
                print(f"{options.detector} flags {detect(study, options.detector)} pictures", flush=True)
            serve(store, study, options.port)
        case "open":
            opened(store, load(data / options.prompts))
        case "close":
            records.set_state(store, options.prompts, "closed")
            print(f"{options.prompts} is closed")
        case "export":
            path = records.export(store, load(data / options.prompts), options.out)
            print(path.with_suffix(".csv.sha256").read_text(encoding="utf-8").strip())
        case "codes":
            print("\n".join(records.completion_codes(store, load(data / options.prompts))))


if __name__ == "__main__":
    main()
