"""Features of pictures and all their manipulations (the paper's Table 3): each decoded once and fanned out, by parts.

A part is every n-th stretch of the list of pictures, one npz. Whatever stands already and fits is kept, so that a job
that was stopped goes on where it was, and each part may be a job of its own.

python -m evaluation.robustness_features --pictures FOLDER_OR_ZIP ... --size 256 --parts 40 [--part K] --out FOLDER
"""

import argparse
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from evaluation.features import library_versions
from evaluation.manipulations import EXTRAS, NAMES, OPTIONS, Choices, check_names, fan_out, psnr
from evaluation.picture_files import Entry, digests_of, entries, matching, source_of
from evaluation.pictures import Reading, add_up
from evaluation.prepare import CROPS
from evaluation.prompts import read_prompts
from wuerstchen.files import atomic_path
from wuerstchen.progress import progress

if TYPE_CHECKING:
    from evaluation.extractors import Extractor

CHUNK = 8  # with the reference and thirteen manipulations, whole batches of 16
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Plan:
    """What is done to every picture: one of CROPS, then `size` px (half of what it is where None), then each of
    `names` by `choices`, then the extractor's `preprocessing`."""

    names: tuple[str, ...] = NAMES
    choices: Choices = Choices()
    crop: str = "none"
    size: int | None = None
    preprocessing: str = "none-128"

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> "Plan":
        """The plan of such a record."""
        return cls(**record | {"names": tuple(record["names"]), "choices": Choices(**record["choices"])})


def manipulated_features(
    pictures: Iterable[tuple[str, np.ndarray]], plan: Plan, extractor: "Extractor", total: int | None = None
) -> tuple[list[str], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Ids, features (n, D) of "reference" and each manipulation, and each manipulation's PSNR in dB (n,).

    One pass over (id, uint8 RGB) pairs. Raises ValueError where `fan_out` does, or for pictures that end up in
    different sizes.
    """
    ids: list[str] = []
    features: dict[str, list[np.ndarray]] = {name: [] for name in ("reference", *plan.names)}
    ratios: dict[str, list[float]] = {name: [] for name in plan.names}
    size: tuple[int, ...] | None = None
    pictures = iter(pictures)
    chunks = iter(lambda: list(islice(pictures, CHUNK)), [])
    with progress(what="manipulations", unit="pictures", total=total) as bar, one_thread_each() as workers:
        for done in in_order(partial(_of_chunk, plan=plan, extractor=extractor), chunks, workers):
            if done.size != (size := size or done.size):
                raise ValueError(
                    f"picture {done.ids[0]} is {done.size[1]}x{done.size[0]} px, those before it {size[1]}x{size[0]}; "
                    "--size gives all one size"
                )
            for name, some in done.features.items():
                features[name].append(some)
            for name, values in done.ratios.items():
                ratios[name] += values
            ids += done.ids
            bar.update(len(done.ids))
    if not ids:
        raise ValueError("no pictures to manipulate")
    return (
        ids,
        {name: np.concatenate(parts) for name, parts in features.items()},
        {name: np.array(values) for name, values in ratios.items()},
    )


@dataclass(frozen=True)
class _Chunk:
    ids: list[str]
    size: tuple[int, ...]
    features: dict[str, np.ndarray]
    ratios: dict[str, list[float]]


def _of_chunk(chunk: list[tuple[str, np.ndarray]], plan: Plan, extractor: "Extractor") -> _Chunk:
    fanned = [fan_out(CROPS[plan.crop](picture), plan.names, plan.choices, plan.size) for _, picture in chunk]
    size = fanned[0]["reference"].shape[:2]
    for (name, _), variants in zip(chunk, fanned, strict=True):
        if variants["reference"].shape[:2] != size:
            raise ValueError(f"picture {name} is of another size than {chunk[0][0]}; --size gives all one size")
    names = ("reference", *plan.names)
    # All in one call: an extractor fills up its last batch, which for a last chunk would be fourteen.
    computed = extractor(np.stack([variants[name] for name in names for variants in fanned]), plan.preprocessing)[0]
    features = dict(zip(names, np.split(computed, len(names)), strict=True))
    ratios = {name: [psnr(variants["reference"], variants[name]) for variants in fanned] for name in plan.names}
    return _Chunk([name for name, _ in chunk], size, features, ratios)


@contextmanager
def one_thread_each() -> Iterator[int]:
    """How many workers to have, torch's threads for each operation being one meanwhile.

    Two pictures on two cores take less time than twice one picture on both. On a GPU there is one worker, and another
    thread makes its next pictures ready.
    """
    import torch  # seconds that the readers of parts need not pay

    threads = torch.get_num_threads()
    if torch.cuda.is_available():
        yield 2
        return
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def in_order(call: Callable[[T], U], items: Iterable[T], workers: int) -> Iterator[U]:
    """call(item) for each item, in their order, computed in threads that are at most one item ahead each."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[U]] = deque()
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def stretch(listed: Sequence[Entry], part: int, parts: int) -> Sequence[Entry]:
    """Part 0..parts-1 of the list: stretches of equal length, give or take one."""
    return listed[len(listed) * part // parts : len(listed) * (part + 1) // parts]


def study_of(plan: Plan, extractor: "Extractor") -> dict[str, Any]:
    """What must be equal in all parts of one study."""
    return {"plan": plan.record(), "extractor": {"name": extractor.name, "sha256": extractor.sha256}}


def write_part(listed: Sequence[Entry], plan: Plan, extractor: "Extractor", out: Path) -> bool:
    """Write the features of one part as npz; False where the file stands already and fits pictures, plan and network.

    Members: ids, sha256 (of the files), reference and each manipulation (n, D) float32, psnr (n, manipulations)
    float64, key (JSON text).
    """
    study = study_of(plan, extractor)
    if out.is_file():
        digests = list(digests_of(listed))
        try:
            with Part(out) as part:
                if part.study == study and part.digests == digests:
                    return False
        except ValueError:
            pass  # what cannot be read is written anew
    reading = Reading(listed)
    ids, features, ratios = manipulated_features(reading, plan, extractor, len(listed))
    versions = library_versions("numpy", "pillow", "timm", "torch")
    key = {"study": study, "pictures": add_up(reading.records), "versions": versions}
    with atomic_path(out) as temporary:
        np.savez(
            temporary,
            ids=np.array(ids),
            sha256=np.array([digest for _, digest in reading.digests]),
            psnr=np.stack([ratios[name] for name in plan.names], axis=1),
            key=np.array(json.dumps(key)),
            **{name: values.astype(np.float32) for name, values in features.items()},
        )
    return True


class Part:
    """One npz of `write_part`, its features read as they are asked for. Raises ValueError for another file."""

    def __init__(self, path: Path) -> None:
        try:
            self._arrays = np.load(path, allow_pickle=False)
            self.ids: list[str] = self._arrays["ids"].tolist()
            self.digests = list(zip(self.ids, self._arrays["sha256"].tolist(), strict=True))
            self.psnr: np.ndarray = self._arrays["psnr"]
            key = json.loads(str(self._arrays["key"]))
            self.study: dict[str, Any] = key["study"]
            self.pictures: dict[str, Any] = key["pictures"]
        except Exception as error:  # a damaged npz fails in a dozen ways, of zipfile, NumPy and JSON
            raise ValueError(f"{path}: not a part that evaluation.robustness_features wrote ({error})") from None

    def features(self, name: str) -> np.ndarray:
        """Features (n, D) of "reference" or a manipulation."""
        return self._arrays[name]

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *_: object) -> None:
        self._arrays.close()


def part_path(folder: Path, part: int, parts: int) -> Path:
    """Where a part stands."""
    return folder / f"{part:0{len(str(parts - 1))}d}-of-{parts}.npz"


def add_plan(parser: argparse.ArgumentParser) -> None:
    """The options that make a Plan, and the extractor's."""
    parser.add_argument("--manipulations", nargs="+", default=list(NAMES), metavar="NAME",
                        help=f"default: the paper's thirteen; beyond it: {', '.join(EXTRAS)}")  # fmt: skip
    for option, values in OPTIONS.items():
        said = "; ".join(f"{name}: {what}" for name, what in values.items()).replace("%", "%%")
        parser.add_argument(f"--{option}", default=getattr(Choices(), option), choices=list(values), help=said)
    parser.add_argument("--crop", default="none", choices=list(CROPS), help="before all else (default: %(default)s)")
    parser.add_argument("--size", type=int, metavar="PX", help="of the reference; default: half the picture's")
    parser.add_argument("--extractor", default="efficientnet-lite2", help="name of the network (default: %(default)s)")
    parser.add_argument("--preprocessing", default="none-128", help="the extractor's (default: %(default)s)")


def plan_of(options: argparse.Namespace) -> Plan:
    """The Plan that the options of `add_plan` make. Raises ValueError for an unknown manipulation."""
    check_names(options.manipulations)
    choices = Choices(**{option: getattr(options, option) for option in OPTIONS})
    return Plan(tuple(options.manipulations), choices, options.crop, options.size, options.preprocessing)


def main(argv: list[str] | None = None) -> None:
    """Command line: one part, or all that are not there yet."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.robustness_features", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--pictures", required=True, nargs="+", type=Path, metavar="SOURCE", help="folders or zips")
    parser.add_argument("--matching", type=Path, metavar="JSONL", help="only the pictures that these prompts name")
    add_plan(parser)
    parser.add_argument("--parts", type=int, default=1, metavar="N", help="into how many the list is cut (default: 1)")
    parser.add_argument("--part", type=int, metavar="K", help="write this one alone, 0 to N-1; default: all")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="of the parts")
    options = parser.parse_args(argv)
    from evaluation.extractors import load  # torch, as above

    if options.parts < 1:
        parser.error(f"--parts {options.parts}: use 1 or more")
    if options.part is not None and not 0 <= options.part < options.parts:
        parser.error(f"--part {options.part}: with --parts {options.parts}, use 0 to {options.parts - 1}")
    try:
        listed = entries(map(source_of, options.pictures))
        if options.matching:
            listed = matching(listed, read_prompts(options.matching))
        if options.parts > len(listed):
            raise ValueError(f"--parts {options.parts}: there are only {len(listed)} pictures")
        chosen = range(options.parts) if options.part is None else [options.part]
        plan, extractor = plan_of(options), load(options.extractor)
        written = 0
        for part in chosen:
            path = part_path(options.out, part, options.parts)
            written += write_part(stretch(listed, part, options.parts), plan, extractor, path)
    except (ValueError, ModuleNotFoundError) as error:
        raise SystemExit(str(error)) from None
    print(f"{len(listed)} pictures: {written} of {len(chosen)} parts written, the others were there")


if __name__ == "__main__":
    main()
