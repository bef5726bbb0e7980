"""docs/protocols.md and docs/differences.md say what the code says: their tables are made of it, and compared."""

from pathlib import Path

import torch

from evaluation import carbon, clip_models, cmmd, dinov2, inception_score, kid, preference, scores
from evaluation import precision_recall as prdc
from evaluation.clip_score import NETWORKS as CLIP_SCORES
from evaluation.manipulations import NAMES, OPTIONS, Choices
from evaluation.prompt_sets import SETS
from evaluation.prompts import HELD_OUT, SPECIAL
from evaluation.protocols import DEFAULT, PROTOCOLS
from evaluation.resizes import RESIZES
from study_app import agreement, clusters, davidson, mixed
from workflow import published
from wuerstchen.presets import NAMES as CHOICES
from wuerstchen.presets import preset
from wuerstchen.sampling import SAMPLING
from wuerstchen.stage_c import StageC
from wuerstchen.weights import parameters

DOCS = Path(__file__).parents[2] / "docs"
PRESETS = ("paper", "paper-text", "released-v2", "emoji")


def below(document: str, title: str) -> list[list[str]]:
    """The rows of the table whose first title is `title`, without titles."""
    lines = (DOCS / document).read_text(encoding="utf-8").split(f"\n| {title} |")
    assert len(lines) == 2, (document, title)
    table = lines[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def prose(document: str) -> str:
    """A document's text in one line."""
    return " ".join((DOCS / document).read_text(encoding="utf-8").split())


def yes(value: bool) -> str:
    return "yes" if value else "no"


def test_protocols_of_fid() -> None:
    wanted = [
        [
            f"`{p.id}`", p.reference, yes(p.one_caption_per_image), p.crop, f"{p.filter}, {p.size}", yes(p.quantise),
            f"`{p.preprocessing}`", p.codec,
        ]
        for p in PROTOCOLS.values()
    ]  # fmt: skip
    assert below("protocols.md", "protocol") == wanted
    assert {p.extractor for p in PROTOCOLS.values()} == {"inception"}
    assert f"`{DEFAULT}` is the default" in prose("protocols.md")
    assert [row[0] for row in below("protocols.md", "resize")] == [f"`{name}`" for name in RESIZES]


def test_every_metric_and_what_it_is_made_with() -> None:
    table = {row[0].strip("`"): row[1:] for row in below("protocols.md", "metric")}
    known = (*published.WITH_PROTOCOL, *published.WITH_REFERENCE, *published.OF_PROMPTS, "crosscheck")
    assert set(table) == set(known)
    for name in ("clip-score-b32", "clip-score-l14", "pickscore", "hpsv2.1"):
        model = clip_models.MODELS[name.replace("clip-score", "clip")]
        assert table[name][1] == f"`{model.preprocessing}`"
    assert {name for name in table if name.startswith("clip-score")} == {
        f"clip-score-{name.removeprefix('clip-')}" for name in CLIP_SCORES
    }
    assert table["fd-dinov2"][1] == f"`{dinov2.PREPROCESSING}`"
    assert table["cmmd"][1].strip("`") in clip_models.PREPROCESSINGS
    rules = (DOCS.parent / "workflow" / "rules" / "published.smk").read_text(encoding="utf-8")
    assert f"--preprocessing {table['cmmd'][1].strip('`')} " in rules
    assert table["kid"][2].startswith(f"{kid.SUBSETS} subsets of {kid.SUBSET_SIZE:,}")
    assert table["is"][2] == f"{inception_score.SPLITS} splits"
    assert f"k = {prdc.K_PRECISION_RECALL}, density and coverage with k = {prdc.K_DENSITY_COVERAGE}" in table["prdc"][2]
    assert f"sigma {cmmd.SIGMA:g}, biased estimator, times {cmmd.SCALE:g}" in table["cmmd"][2]
    text = prose("protocols.md")
    random, subgroup = (f"{preference.THRESHOLDS[kind]:.0%}".replace("%", " %") for kind in ("random", "subgroup"))
    assert f"in {random} of cases or more and to one of the same subgroup in {subgroup} or more" in text


def test_prompt_sets() -> None:
    wanted = [
        [
            f"`{name}`", f"`{made.asset}`", "all" if made.count is None else f"{made.count:,}", yes(made.one_per_image),
        ]
        for name, made in SETS.items()
    ]  # fmt: skip
    assert below("protocols.md", "loader") == wanted
    text = prose("protocols.md")
    assert f"{HELD_OUT:.0%} are held-out things and {SPECIAL:.0%} flags".replace("%", " %") in text


def steps(value: int | tuple[float, ...]) -> str:
    """A number of equal steps, or the equal steps of each part of a range of timesteps."""
    if isinstance(value, int):
        return str(value)
    widths = [round(before - after, 9) for before, after in zip(value, value[1:], strict=False)]
    parts = []
    for width in dict.fromkeys(widths):
        last = len(widths) - widths[::-1].index(width)
        parts.append(f"{widths.count(width)} to t = {round(value[last], 3):g}")
    return ", ".join(parts)


def test_sampling_modes() -> None:
    wanted = [
        [f"`{name}`", steps(how.steps_c), f"{how.guidance_c:g}", steps(how.steps_b), f"{how.guidance_b:g}"]
        for name, how in SAMPLING.items()
    ]
    assert below("protocols.md", "name") == wanted


def test_manipulations_and_their_options() -> None:
    defaults = Choices()
    for (option, values), row in zip(OPTIONS.items(), below("protocols.md", "option"), strict=True):
        others = [value for value in values if value != getattr(defaults, option)]
        assert row == [f"`{option}`", ", ".join(f"`{value}`" for value in (getattr(defaults, option), *others))]
    text = prose("protocols.md")
    assert ", ".join(f"`{name}`" for name in NAMES[:-1]) + f" and `{NAMES[-1]}`" in text and len(NAMES) == 13


def test_intervals_have_the_methods_that_scores_record() -> None:
    said = [row[1] for row in below("protocols.md", "of")]
    recorded = [
        scores.JACKKNIFE,
        preference.BOOTSTRAP,
        clusters.METHOD,
        agreement.METHOD,
        davidson.METHOD,
        mixed.METHOD,
    ]
    assert set(said) == {*recorded, "Student t over the splits", "wilson"}


def test_carbon_modes(tmp_path: Path) -> None:
    out = tmp_path / "carbon.json"
    carbon.main(["--kg-per-kwh", "0.37", "--source", "a test", "--out", str(out)])
    account = carbon.read_json(out)
    assert [row[0].strip("`") for row in below("protocols.md", "mode")] == list(account)
    text = prose("protocols.md")
    assert f"({carbon.GPU_WATTS:g} W" in text and account["consistent"]["gpu_watts"] == carbon.GPU_WATTS


def test_what_each_preset_picks_where_paper_and_code_disagree() -> None:
    chosen = {name: preset(name) for name in PRESETS}

    def each(of) -> list[str]:
        return [of(one) for one in chosen.values()]

    def count(one) -> str:
        with torch.device("meta"):
            return f"{parameters(StageC(one.stage_c)):,}"

    def recipe(stage: str, key: str) -> list[str]:
        return each(lambda one: getattr(one.recipes[stage], key))

    wanted = [
        each(lambda one: f"{one.stage_c.width}, {one.stage_c.depth}, {one.stage_c.heads}"),
        each(count),
        each(lambda one: f"{one.stage_b.dropout:g}, {one.stage_c.dropout:g}"),
        each(lambda one: one.text_of("c").encoder),
        each(lambda one: one.text_of("b").encoder),
        each(lambda one: one.compressor.resize),
        each(lambda one: one.latent_scaling),
        each(lambda one: one.stage_b.objective),
        each(lambda one: one.sampling.start_b if one.sampling else "noise"),
        recipe("c", "loss_weight"),
        recipe("b", "loss_weight"),
        recipe("c", "timesteps"),
        recipe("c", "drop_text_per"),
        recipe("b", "drop_image_per"),
        recipe("c", "optimiser"),
        recipe("a", "perceptual"),
        each(lambda one: one.baseline_first_stage),
        each(lambda one: one.text_of("baseline-ldm").encoder),
    ]
    table = below("differences.md", "what")
    assert [row[2:] for row in table] == wanted
    options = {row[1].strip("`") for row in table} - {"preset", "baseline"}
    assert options == set(CHOICES) - {"precision"}  # a matter of devices
    text = prose("differences.md")
    for values in CHOICES.values():
        for value in values:
            assert value in text, value
