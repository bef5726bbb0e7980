"""What git keeps of a finished study, and the numbers of the documents, which are those of the run that it keeps."""

import json
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from scipy.stats import spearmanr
from trees import ROOT

from evaluation import published
from evaluation.manipulations import NAMES
from workflow import publish
from wuerstchen.presets import preset
from wuerstchen.probe import ProbeDecoder
from wuerstchen.weights import parameters

KEPT = ROOT / "docs" / "published" / "emoji"
RELEASED = ROOT / "docs" / "published" / "emoji-released"  # the released weights alone


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """What a finished study leaves, in a checkout with one commit."""
    folder = tmp_path / "results" / "birds"
    rows = [{"device": "a processor"}, {"device": "a GPU"}, {"device": "a processor"}]
    summary = {"study": "birds", "carbon": {"run": {"rows": rows}}, "wall_seconds": {"total": 150.0}}
    for name, text in {
        "summary.json": json.dumps(summary),
        "config.yaml": "study: birds\n",
        "report.html": "<p>",
        "tables/table1.md": "| a |\n",
        "tables/table1.csv": "a\n",
        "tables/table1.tex": "a\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "figures").mkdir()
    Image.effect_noise((2400, 600), 50).save(folder / "figures" / "speed.png")
    (tmp_path / ".gitignore").write_text("/results\n/kept\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "all")
    return folder


def test_a_run_is_kept_with_its_commit(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "kept"
    publish.main(["--study", str(study), "--out", str(out)])
    assert "MB" in capsys.readouterr().out
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {
        "README.md", "config.yaml", "figures/speed.png", "published.json", "summary.json", "tables/table1.csv",
        "tables/table1.md",
    }  # fmt: skip
    head = subprocess.run(["git", "-C", tmp_path, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    record = json.loads((out / "published.json").read_text())
    assert record == {"study": "birds", "commit": head, "device": "a GPU, a processor", "minutes": 2.5}
    with Image.open(out / "figures" / "speed.png") as figure:
        assert figure.size == (1000, 250)
    (study / "figures" / "speed.png").rename(study / "figures" / "time.png")
    publish.main(["--study", str(study), "--out", str(out)])
    assert [path.name for path in (out / "figures").iterdir()] == ["time.png"]
    assert "time.png" in (out / "README.md").read_text() and "speed.png" not in (out / "README.md").read_text()


def test_what_cannot_be_kept_is_said(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(out: Path, of: Path = study) -> str:
        with pytest.raises(SystemExit) as error:
            publish.main(["--study", str(of), "--out", str(out)])
        return str(error.value)

    assert "no summary.json, config.yaml, report.html" in refused(tmp_path / "kept", tmp_path)
    assert "holds other files" in refused(study) and (study / "report.html").is_file()
    (tmp_path / ".gitignore").write_text("/results\n/kept\n/more\n")
    assert "changes that no commit has" in refused(tmp_path / "kept") and not (tmp_path / "kept").exists()
    git(tmp_path, "commit", "-qam", "more")
    monkeypatch.setattr(publish, "LIMIT", 1000)
    assert "more than the 1,000" in refused(tmp_path / "kept")


# The run that is kept, and what the documents say of it.


def summary(folder: Path = KEPT) -> dict:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def row_of(start: str) -> list[str]:
    """The cells behind the first of the README's row that begins so."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def share(value: float, interval: list[float]) -> str:
    low, high = interval
    return f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f} %)"


@pytest.mark.parametrize("folder", [KEPT, RELEASED], ids=lambda path: path.name)
def test_what_is_kept_is_small_and_whole(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < publish.LIMIT
    assert {path.suffix for path in files} == {".md", ".csv", ".json", ".yaml", ".png"}
    assert len(json.loads((folder / "published.json").read_text())["commit"]) == 40
    assert {path.stem for path in files} >= {"table1", "table2", "table3", "audit", "side-by-side", "speed"}


def test_the_readmes_table_is_that_of_the_run_that_is_kept() -> None:
    said = summary()
    models = ("wuerstchen", "wuerstchen-long", "baseline-ldm", "baseline-ldm-bc")
    wins = [said["win_rates"]["names"][rival] for rival in models[1:]]
    assert row_of("Würstchen preferred")[1:4] == [share(pair["rate"], pair["interval"]) for pair in wins]
    distances = [said["scores"]["names"][model]["fd-efficientnet-lite2"] for model in models]
    assert row_of("FD-")[:4] == [
        f"{each['value']:.0f} ({each['interval'][0]:.0f} to {each['interval'][1]:.0f})" for each in distances
    ]
    for start, part in (("True picture", "seen"), ("The same, held-out", "held_out")):
        found = [said["recall"][model][part] for model in models]
        assert row_of(start)[:4] == [share(each["at_10"], each["interval_at_10"]) for each in found]
    ceilings = [of["recall"]["ceilings"]["compressor"]["seen"] for of in (said, summary(RELEASED))]
    assert row_of("Seen pairs")[:2] == [share(each["at_10"], each["interval_at_10"]) for each in ceilings]


def test_the_rank_correlations_with_the_papers_table() -> None:
    paper = {row["manipulation"]: float(row["coco30k"]) for row in published.rows("table3")}
    ranks = {
        name: spearmanr([measured[each]["value"] for each in NAMES], [paper[each] for each in NAMES]).statistic
        for name, measured in summary()["robustness"].items()
    }
    assert row_of("Spearman")[0] == f"{ranks['openmoji']:.2f} (OpenMoji), {ranks['twemoji']:.2f} (Twemoji)"


def test_what_is_said_of_that_run() -> None:
    said, text = summary(), " ".join((ROOT / "docs" / "emoji-study.md").read_text(encoding="utf-8").split())
    ceiling = said["scores"]["names"]["ceiling-compressor"]["fd-efficientnet-lite2"]["value"]
    assert f"have {ceiling:.0f} themselves" in text
    recall = [said["recall"]["wuerstchen"]["seen"], said["recall"]["ceilings"]["compressor"]["seen"]]
    assert (
        "{:.1%} on seen pairs is below the ceiling of {:.1%}".format(*(each["at_10"] for each in recall)).replace(
            "%", " %"
        )
        in text
    )
    groups = said["workload"]["comparisons"]["probe"]["groups"]
    probe, whole = (
        [100 * groups[part][side]["at_10"]["value"] for part in ("seen", "held_out")] for side in ("second", "first")
    )
    assert f"for {probe[0]:.0f} % of 100 seen and {probe[1]:.0f} % of 100 held-out prompts" in text
    assert f"for {whole[0]:.0f} % and {whole[1]:.0f} % of the same prompts" in text
    for comparison in said["workload"]["comparisons"].values():
        for group in comparison["groups"].values():
            low, high = group["difference"]["at_10"]["interval"]
            assert low <= 0 <= high and group["n"] == 100  # no difference of recall that can be told
    lost = [
        group["difference"]["psnr_db"]["value"] for group in said["workload"]["comparisons"]["text"]["groups"].values()
    ]
    assert f"with {min(lost):.2f} to {max(lost):.2f} dB less PSNR" in text
    count = parameters(ProbeDecoder(preset("emoji").stage_c.c_in, preset("emoji").probe))
    assert f"{count:,} parameters" in text
    minutes, seconds = 10, 47  # of the whole run, with what is around its jobs
    assert f"{minutes} minutes {seconds} seconds" in text
    assert 0 <= minutes * 60 + seconds - said["wall_seconds"]["total"] < 60


def test_what_is_said_of_the_released_weights() -> None:
    said, text = summary(RELEASED), " ".join((ROOT / "docs" / "emoji-study.md").read_text(encoding="utf-8").split())
    drawn, ceilings = said["recall"]["wuerstchen"], said["recall"]["ceilings"]
    seen, top = drawn["seen"]["at_10"], ceilings["compressor"]["seen"]["at_10"]
    assert f"with a recall of {100 * top:.1f} %" in text
    assert f"of their captions has {100 * seen:.1f} %, {seen / top:.2f} of this ceiling" in text
    held_out = [part["held_out"]["at_10"] for part in (drawn, ceilings["other-artist"])]
    assert "{:.1f} %, where the other artist's real picture has {:.1f} %".format(*(100 * x for x in held_out)) in text
    ours, rival = (said["scores"]["names"][model]["fd-efficientnet-lite2"] for model in ("wuerstchen", "baseline-ldm"))
    assert f"{ours['value']:.0f} beside the {rival['value']:.0f} of a baseline" in text
    assert ours["interval"][1] < rival["interval"][0]
    preferred = said["win_rates"]["names"]["baseline-ldm"]["rate"]
    assert f"prefers it in {100 * preferred:.1f} % of the prompts" in text
    assert f"took {said['wall_seconds']['total'] / 60:.0f} minutes" in text
    # the least that is claimed of these weights
    assert seen >= 0.9 * top and held_out[0] >= 0.5 * held_out[1]
