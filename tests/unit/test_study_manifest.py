"""A study made of image shards: same size and codec, nothing that says whose picture it is, everything digested."""

import hashlib
import io
import json
import os

import numpy as np
import pytest
import small_study
from PIL import Image

from study_app.manifest import CONTROL, SUFFIX, build, check_pictures, load, scrambled, visible
from study_app.pairs import Trial
from wuerstchen.files import read_json, write_jsonl
from wuerstchen.shards import read_shard, write_shard


def test_pictures_are_the_models_own_pixels_without_loss(tmp_path):
    study = small_study.study(tmp_path, count=20)
    for model in small_study.MODELS:
        for shard in (tmp_path / "results" / "images" / model / "names").glob("*.zip"):
            for name, png in read_shard(shard)[1].items():
                stored = study.picture_path(study.entries[name].pictures[model])
                with Image.open(io.BytesIO(png)) as before, Image.open(stored) as after:
                    assert after.format == "WEBP" and set(after.info) <= {"loop", "background", "timestamp", "duration"}
                    assert np.array_equal(np.asarray(before.convert("RGB")), np.asarray(after.convert("RGB")))


def test_names_dates_and_metadata_tell_nothing(tmp_path):
    study = small_study.study(tmp_path, count=20)
    files = list((study.folder / "pictures").iterdir())
    assert len(files) == 20 * 2 + 2  # two controls
    assert all(len(file.stem) == 32 and file.suffix == SUFFIX for file in files)
    assert {file.stat().st_mtime for file in files} == {0}
    for file in files:
        content = file.read_bytes()
        assert not any(word in content for word in (b"EXIF", b"XMP ", b"ICCP", b"wuerstchen", b"ldm"))
    # sorted by name, the models come mixed: a run of one model's pictures would be 20 long
    owners = {name: model for entry in study.entries.values() for model, name in entry.pictures.items()}
    order = [owners[file.stem] for file in sorted(files) if file.stem in owners]
    assert order != sorted(order) and order != sorted(order, reverse=True)


def test_the_larger_models_pictures_are_reduced_to_the_smallers_size(tmp_path):
    results = small_study.results(tmp_path / "results", count=10, sizes=(64, 48))
    study = small_study.study(tmp_path, count=10)
    assert (study.width, study.height) == (48, 48)
    for entry in study.entries.values():
        for name in entry.pictures.values():
            with Image.open(study.picture_path(name)) as picture:
                assert picture.size == (48, 48)
    with pytest.raises(ValueError, match="one shape"):
        wide = {f"names-{i:03d}": Image.new("RGB", (64, 48)) for i in range(10)}
        for shard in (results / "images" / "wuerstchen" / "names").glob("*.zip"):
            shard.unlink()
        write_shard(results / "images" / "wuerstchen" / "names" / "0000.zip", wide, {})
        small_study.study(tmp_path, count=10)


def test_a_control_is_a_picture_beside_its_own_scrambled_self(tmp_path):
    study = small_study.study(tmp_path, count=40)
    controls = {name: entry for name, entry in study.entries.items() if entry.control}
    assert len(controls) == 4 and not set(controls) & set(study.anchors)
    for name, entry in controls.items():
        broken, model = entry.control
        sides = study.sides(Trial("control", name, True))
        assert sides == ((model, entry.pictures[model]), (CONTROL, broken))
        assert study.sides(Trial("control", name, False)) == sides[::-1]
        with (
            Image.open(study.picture_path(entry.pictures[model])) as sound,
            Image.open(study.picture_path(broken)) as bad,
        ):
            one, other = np.asarray(sound.convert("RGB")), np.asarray(bad.convert("RGB"))
        assert not np.array_equal(one, other)
        assert np.array_equal(np.sort(one.reshape(-1, 3), axis=0), np.sort(other.reshape(-1, 3), axis=0))
    assert np.array_equal(scrambled(one, 1), scrambled(one, 1))


def test_the_manifest_has_digests_of_all_that_is_shown_and_of_where_it_came_from(tmp_path):
    study = small_study.study(tmp_path, count=12)
    manifest = read_json(study.folder / "manifest.json")
    assert study.sha256 == hashlib.sha256((study.folder / "manifest.json").read_bytes()).hexdigest()
    for row in manifest["entries"]:
        for model, picture in row["pictures"].items():
            content = study.picture_path(picture["name"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == picture["sha256"]
            png = [
                read_shard(shard)[1].get(row["id"])
                for shard in (tmp_path / "results" / "images" / model / "names").glob("*.zip")
            ]
            [source] = [content for content in png if content]
            assert hashlib.sha256(source).hexdigest() == picture["source_sha256"]
    assert load(study.folder) == study
    check_pictures(study)
    victim = study.picture_path(next(iter(study.owners)))
    os.chmod(victim, 0o644)
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(ValueError, match=victim.stem):
        check_pictures(study)


@pytest.mark.parametrize(
    "models, prompts, message",
    [
        (("wuerstchen", "wuerstchen"), "names", "two different models"),
        (("wuerstchen", "sd-2.1"), "names", "sd-2.1 has no pictures of names"),
        (small_study.MODELS, "nothing", "'nothing' should be a set of prompts"),
    ],
)
def test_what_cannot_be_shown_is_refused(tmp_path, models, prompts, message):
    results = small_study.results(tmp_path / "results", count=10)
    with pytest.raises(ValueError, match=message):
        build(results, models, prompts, tmp_path / "study")
    assert not (tmp_path / "study" / "manifest.json").exists()


def test_a_prompt_without_a_picture_is_refused(tmp_path):
    results = small_study.results(tmp_path / "results", count=10)
    rows = [{"id": f"names-{i:03d}", "prompt": "p"} for i in range(11)]
    write_jsonl(results / "prompts" / "names.jsonl", rows)
    with pytest.raises(ValueError, match="no picture of 1 prompts of names, as names-010"):
        build(results, small_study.MODELS, "names", tmp_path / "study")


HOSTILE_PROMPTS = [
    "<img src=x onerror=alert(1)>",
    "'; DROP TABLE vote; --",
    "../../etc/passwd",
    "[click](javascript:alert(1))",
    "**bold** :red[red]",
]


@pytest.mark.parametrize("prompt", HOSTILE_PROMPTS)
def test_hostile_prompts_are_kept_as_the_text_they_are(prompt):
    assert visible(prompt) == prompt


def test_a_prompt_cannot_hide_or_turn_around_text():
    assert visible("abc\u202egnp.exe") == "abcgnp.exe"
    assert visible("a\u200bb\u2066c\x00d\x1b[31m") == "abcd[31m"
    assert visible("two\nlines\tand tab") == "two lines and tab"
    assert visible("👩\u200d🔬") == "👩\u200d🔬"  # a joiner makes one picture of two
    assert visible("می\u200cخواهم") == "می\u200cخواهم"


@pytest.mark.parametrize("prompt", ["", "\u200b", "x" * 10_000])
def test_prompts_that_cannot_be_read_are_refused(tmp_path, prompt):
    results = small_study.results(tmp_path / "results", count=10)
    rows = [{"id": f"names-{i:03d}", "prompt": prompt if i == 3 else "p"} for i in range(10)]
    (results / "prompts" / "names.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="'names-003' should have 1 to 2000 visible characters"):
        build(results, small_study.MODELS, "names", tmp_path / "study")
