"""evaluation.audit: each claim against a value and a verdict worked out by hand from the paper's own numbers."""

import csv

import pytest
import torch

from evaluation import published
from evaluation.audit import TOPICS, audit, main
from evaluation.claims import AGREES, DIFFERS, UNKNOWN, VERDICTS, WITHIN_ROUNDING, compared, last_digit
from evaluation.claims.networks import strided
from evaluation.claims.people import fewest_votes
from evaluation.claims.text import cosine, ddpm, p2_choi, p2_paper
from wuerstchen.compressor import SemanticCompressor
from wuerstchen.presets import preset
from wuerstchen.stage_a import StageA
from wuerstchen.weights import parameters

# By hand, from the paper: the recomputed value where it is a number, and the verdict.
BY_HAND: dict[str, tuple[float | None, str]] = {
    "hours-ratio": (8.1294, WITHIN_ROUNDING),  # 200,000 / 24,602
    "hours-with-stage-b": (5.6177, AGREES),  # 200,000 / 35,602
    "abstract-hours": (35_602, DIFFERS),
    "most-expensive-stage": (2.2365, AGREES),  # 24,602 / 11,000
    "baseline-hours": (24_602, WITHIN_ROUNDING),
    "card-hours": (None, AGREES),
    "samples-c": (1_349_376_000, DIFFERS),  # 768,000,000 + 559,104,000 + 3,072,000 + 19,200,000
    "samples-b": (272_384_000, DIFFERS),  # 233,984,000 + 38,400,000
    "samples-sd-1.4": (2_398_208_000, DIFFERS),  # 1,171,000 x 2048
    "samples-sd-2.1": (3_891_200_000, WITHIN_ROUNDING),  # 1,900,000 x 2048
    "fewer-samples": (1.7773, AGREES),
    "samples-baseline": (1_920_000_000, UNKNOWN),
    "baseline-steps": (21.333, UNKNOWN),  # 1.92e9 / (25,000 x 3600)
    "inference-speed": (None, UNKNOWN),
    "carbon-wuerstchen": (2275.68, WITHIN_ROUNDING),
    "carbon-baseline-ldm": (2312.5, WITHIN_ROUNDING),
    "carbon-sd-1.4": (11_250, AGREES),
    "carbon-sd-2.1": (15_000, AGREES),
    "card-carbon": (None, AGREES),
    "carbon-one-grid": (8.1294, DIFFERS),
    "stage-a": (18_406_894, WITHIN_ROUNDING),  # as published: 122 tensors of vqgan_f4_v1_500k.pt
    "stage-a-as-worded": (27_288_070, DIFFERS),  # 19 x 1,185,414 + 4,732,436 + codebook 32,768
    "stage-b": (1_055_365_280, WITHIN_ROUNDING),
    "stage-c-as-worded": (347_037_472, DIFFERS),
    "stage-c": (993_243_680, WITHIN_ROUNDING),
    "whole-model": (2_067_015_854, DIFFERS),
    "baseline": (1_157_069_152, WITHIN_ROUNDING),
    "baseline-table": (1_157_069_152, DIFFERS),
    "probe": (3_858_371, WITHIN_ROUNDING),
    "unet-sd-1.4": (859_520_964, WITHIN_ROUNDING),
    "unet-sd-2.1": (865_910_724, WITHIN_ROUNDING),
    "unet-sd-xl": (2_567_463_684, WITHIN_ROUNDING),
    "compression": (42.6667, WITHIN_ROUNDING),
    "compression-phase-1": (42.6667, AGREES),
    "tokens": (256, AGREES),
    "flattened": (576, AGREES),
    "latents-384": (12, AGREES),
    "latents-768": (24, AGREES),
    "latents-786": (25, DIFFERS),  # 786, 393, 197, 99, 50, 25
    "largest-side": (1536, DIFFERS),
    "probe-direction": (1, DIFFERS),  # 24, 12, 6, 3, 1
    "win-sd": (64.4, AGREES),
    "win-sd-xl": (39.4, AGREES),
    "win-gans": (95.5, AGREES),
    "win-baseline": (96.5, AGREES),
    "win-equal-size": (64.4, AGREES),
    "inception-score": (0.3, AGREES),  # 40.9 - 40.6
    "fid-beats": (0.4, AGREES),  # 24.0 - 23.6
    "larger-models": (None, AGREES),
    "fid-high": (9, AGREES),  # all but CogView, CogView2 and the baseline
    "fid-lower": (9, DIFFERS),
    "sampling-steps": (72, DIFFERS),
    "mild-changes": (0.112, AGREES),
    "jpeg-grows": (15.129, AGREES),
    "resampling": (3.705, AGREES),
    "jpeg-70-range": (10.469, DIFFERS),
    "participants": (94, DIFFERS),
    "parti-prompts": (1632, DIFFERS),
    "scanned-images": (63_266, UNKNOWN),
    "figure-5-shares": (None, UNKNOWN),
    "coco-light-preference": (None, UNKNOWN),
    "votes-sum": (4094, DIFFERS),
    "votes-main-text": (5605, DIFFERS),
    "votes-parti": (1604, DIFFERS),
    "votes-coco": (2490, DIFFERS),
    "threshold-coco": (558, AGREES),  # 18 x 30 + 18
    "threshold-parti": (1611, AGREES),  # 31 x 51 + 30
    "threshold-parti-appendix": (1611, DIFFERS),
    "p2-weight": (0.5, DIFFERS),
    "p2-grows": (1.0, AGREES),
    "start": (0.99999, WITHIN_ROUNDING),
    "ddpm-step": (0.0, AGREES),
    "stage-b-text": (None, UNKNOWN),
}
STATEMENTS = (
    "figure-16b figure-5-panels baseline-first-stage baseline-text-dimension compressor-training stage-b-start "
)
STATEMENTS += "time-condition cogview-citation convnext-citation efficientnet-citation sd-xl-omitted "
STATEMENTS += "gpu-hours-separator text-encoder"
BY_HAND |= dict.fromkeys(STATEMENTS.split(), (None, DIFFERS))


@pytest.fixture(scope="module")
def claims():
    made = [claim for claims in audit().values() for claim in claims]
    assert len({claim.name for claim in made}) == len(made)
    return {claim.name: claim for claim in made}


def test_every_claim_has_a_test(claims):
    assert set(claims) == set(BY_HAND)


@pytest.mark.parametrize("name", BY_HAND)
def test_claim(claims, name):
    claim, (value, verdict) = claims[name], BY_HAND[name]
    assert claim.verdict == verdict
    assert (claim.value is None) == (value is None)
    assert value is None or claim.value == pytest.approx(value, rel=1e-4, abs=1e-9)
    assert claim.claim and claim.where and claim.printed and claim.recomputed and claim.how.endswith(".")


def test_a_printed_number_is_judged_by_its_own_digits():
    assert compared(1.42e9, 1.349e9, last_digit("1.42B")) == DIFFERS
    assert compared(1.42e9, 1.4249e9, last_digit("1.42B")) == WITHIN_ROUNDING
    assert compared(3.9e6, 3_858_371, last_digit("3.9M")) == WITHIN_ROUNDING
    assert [last_digit(text) for text in ("24,602", "0.8B", "318M", "≈2,300", "40.9")] == [1.0, 1e8, 1e6, 1.0, 0.1]
    assert compared(94.0, 94.0, 1) == AGREES and compared(90.0, 94.0, 1) == DIFFERS
    with pytest.raises(ValueError, match="no number"):
        last_digit("all")


@pytest.mark.parametrize(
    ("table", "row", "change", "name", "verdict"),
    [
        ("trainings", "wuerstchen-b", {"batch_size": "420"}, "samples-b", WITHIN_ROUNDING),  # 317.9 M
        ("inputs", "users_second_alone", {"value": "54"}, "participants", AGREES),
        ("inputs", "steps_b", {"value": "0"}, "sampling-steps", AGREES),
        ("table1", "sd-2.1", {"win_rate": "50.1%"}, "win-sd", DIFFERS),
        ("table2", "wuerstchen", {"fid": "24.1*"}, "fid-beats", DIFFERS),
        ("table3", "contrast-up", {"coco30k": "0.3"}, "mild-changes", DIFFERS),
        ("statements", "compressor-training", {"elsewhere": "no"}, "compressor-training", AGREES),
        ("claims", "participants", {"printed": "94"}, "participants", AGREES),
    ],
)
def test_other_inputs_give_another_verdict(monkeypatch, table, row, change, name, verdict):
    """No verdict is fixed: each follows from the numbers."""
    whole = published.rows

    def changed(asked: str) -> list[dict[str, str]]:
        rows = whole(asked)
        if asked == table:
            place = next(i for i, cells in enumerate(rows) if row in cells.values())
            rows[place] |= change
            if table == "trainings":
                rows[place + 1] |= {"batch_size": "420"}
        return rows

    monkeypatch.setattr(published, "rows", changed)
    monkeypatch.setattr("evaluation.claims._said", lambda: {cells["name"]: cells for cells in changed("claims")})
    made = {claim.name: claim for topic, claims in TOPICS.items() if topic != "Sizes" for claim in claims()}
    assert made[name].verdict == verdict


def test_trainings_are_the_presets():
    """The rows of trainings.csv and the recipe that trains, both from appendix E, were typed by different hands."""
    recipes = preset("paper").recipes
    for model, stage in (("wuerstchen-c", "c"), ("wuerstchen-b", "b"), ("baseline-ldm", "baseline-ldm")):
        rows = [row for row in published.rows("trainings") if row["model"] == model]
        assert [(int(row["steps"]), int(row["batch_size"])) for row in rows] == [
            (phase.steps, phase.batch_size) for phase in recipes[stage].phases
        ]
        assert published.samples(model) == sum(phase.steps * phase.batch_size for phase in recipes[stage].phases)


def test_sides_are_the_networks():
    """Maps and latents of our networks for the paper's sides, computed without values."""
    paper = preset("paper")
    with torch.device("meta"):
        compressor, stage_a = SemanticCompressor(paper.compressor).eval(), StageA(paper.stage_a).eval()
        for side in (384, 768, 786):
            x = torch.empty(1, 3, side, side)
            for stage in compressor.backbone:
                x = stage(x)
            assert x.shape[1:] == (1280, strided(side, 32), strided(side, 32))
        assert stage_a.encode(torch.empty(1, 3, 1024, 1024)).shape[-2:] == (256, 256)


@pytest.mark.parametrize("model", ["sd-1.4", "sd-2.1", "sd-xl"])
def test_u_nets_of_stable_diffusion_are_as_counted(model):
    diffusers = pytest.importorskip("diffusers")
    from evaluation.generators.paper_size import entries

    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel.from_config(entries()[model]["unet"])
    assert parameters(unet) == published.inputs()[f"unet_{model.replace('-', '_').replace('.', '_')}"]


def test_fewest_votes_by_trying_all():
    """Over all ways in which a few users can vote, the median one included in the upper half."""
    for users, threshold in ((1, 3), (2, 3), (3, 4), (4, 2)):
        counts = [[]]
        for _ in range(users):
            counts = [[*some, votes] for some in counts for votes in range(1, threshold + 2)]
        fitting = [sum(some) for some in counts if sorted(some)[users // 2] >= threshold]
        assert fewest_votes(users, threshold)[0] == min(fitting)


def test_formulas_against_diffusers():
    """The step of 3.3 and the schedule against diffusers' scheduler of Würstchen."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMWuerstchenScheduler()
    assert float(scheduler._alpha_cumprod(torch.tensor([0.4]), "cpu")) == pytest.approx(cosine(0.4), rel=1e-5)
    scheduler.set_timesteps(timesteps=[0.5, 0.4])
    xt, noise = torch.full((1, 1, 1, 1), 0.3), torch.full((1, 1, 1, 1), -0.8)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(1, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    step = scheduler.step(noise, torch.tensor([0.5]), xt, generator=generator).prev_sample
    mean, variance = ddpm(cosine(0.5), cosine(0.4), -0.8, 0.3)
    assert float(step) == pytest.approx(mean + variance**0.5 * float(drawn), rel=1e-4)
    assert p2_choi(0.25) == pytest.approx(0.75) and p2_paper(0.25) == pytest.approx(0.6)


def test_program(tmp_path, capsys, claims):
    main(["--csv", str(tmp_path / "audit.csv")])
    with open(tmp_path / "audit.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["recomputed"]) for row in rows] == [(c.name, c.recomputed) for c in claims.values()]
    assert {row["verdict"] for row in rows} == set(VERDICTS) and {row["topic"] for row in rows} == set(TOPICS)
    said = capsys.readouterr().out
    assert said.count("| differs |") == sum(row["verdict"] == DIFFERS for row in rows)
    assert "The paper's arithmetic" in said
