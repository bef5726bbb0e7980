"""The paper's prompt sets, from official files where the test data have them, and from made-up ones."""

import csv
import hashlib
import json
import re
import zipfile
from collections import Counter

import pytest
from data_folder import published

from evaluation.picture_files import picture_id
from evaluation.prompt_sets import coco_captions, coco_list, drawn, main, token_counts
from evaluation.prompts import read_prompts
from wuerstchen.files import read_json
from wuerstchen.shards import ID


def made(tmp_path, *args):
    """Prompts and record that the command writes."""
    out = tmp_path / "prompts.jsonl"
    main([*map(str, args), "--out", str(out)])
    record = read_json(out.with_suffix(".json"))
    assert record["prompts_sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    return read_prompts(out), record


def refused(*args):
    with pytest.raises(SystemExit) as error:
        main([*map(str, args), "--out", "not-written.jsonl"])
    (line,) = str(error.value).splitlines()
    return line


@pytest.fixture
def annotations(tmp_path):
    """COCO's annotation format: five pictures with three captions each."""
    images = [{"id": 10 * n, "file_name": f"COCO_val2014_{10 * n:012d}.jpg", "height": 4, "width": 6} for n in range(5)]
    captions = [
        {
            "image_id": image["id"],
            "id": 7 * image["id"] + number,
            "caption": f"Picture {image['id']},\n told {number}. ",
        }
        for image in images
        for number in range(3)
    ]
    path = tmp_path / "captions_val2014.json"
    path.write_text(json.dumps({"info": {}, "licenses": [], "images": images, "annotations": captions}))
    return path


def test_a_draw_takes_one_caption_of_each_picture(annotations, tmp_path):
    prompts, record = made(tmp_path, "coco-30k", "--annotations", annotations, "--count", 4, "--seed", 1)
    assert len(prompts) == len({row["image"] for row in prompts}) == 4
    for row in prompts:
        number = int(row["image"][13:25])
        assert row["id"] == f"coco-val2014-{number:012d}" == picture_id(row["image"].removesuffix(".jpg"))
        assert row["prompt"] in [f"Picture {number}, told {caption}." for caption in range(3)]
        assert int(row["source_id"]) - 7 * number == int(row["prompt"][-2])
    assert record["one_per_image"] and record["images"] == record["n"] == 4 and record["seed"] == 1
    assert record["list"]["sha256"] == hashlib.sha256(annotations.read_bytes()).hexdigest()
    assert record["list"]["official"] is None  # the digest that is known is the zip's
    assert made(tmp_path, "coco-30k", "--annotations", annotations, "--count", 4, "--seed", 1)[0] == prompts
    five = ("coco-30k", "--annotations", annotations, "--count", 5, "--seed")
    draws = [made(tmp_path, *five, seed)[0] for seed in range(4)]
    assert len({tuple(row["prompt"] for row in draw) for draw in draws}) == 4


def test_a_draw_does_not_depend_on_the_order_of_the_file(annotations, tmp_path):
    before, _ = made(tmp_path, "coco-30k", "--annotations", annotations, "--count", 3)
    data = json.loads(annotations.read_text())
    data["annotations"].reverse()
    data["images"].reverse()
    annotations.write_text(json.dumps(data))
    assert made(tmp_path, "coco-30k", "--annotations", annotations, "--count", 3)[0] == before
    # and a smaller draw is the beginning of a larger one
    assert made(tmp_path, "coco-30k", "--annotations", annotations, "--count", 2)[0] == before[:2]


def test_a_draw_of_captions_may_take_a_picture_twice(annotations, tmp_path):
    prompts, record = made(tmp_path, "coco-30k-captions", "--annotations", annotations, "--count", 15)
    assert Counter(row["image"] for row in prompts) == {f"COCO_val2014_{10 * n:012d}.jpg": 3 for n in range(5)}
    assert len({row["id"] for row in prompts}) == 15 and all(ID.fullmatch(row["id"]) for row in prompts)
    assert not record["one_per_image"] and record["images"] == 5


def test_the_official_zip_is_read_as_it_is(annotations, tmp_path, monkeypatch):
    from evaluation import prompt_sets

    archive = tmp_path / "annotations_trainval2014.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(annotations, "annotations/captions_val2014.json")
    assert coco_captions(archive) == coco_captions(annotations)
    _, record = made(tmp_path, "coco-30k", "--annotations", archive, "--count", 4)
    assert record["list"]["official"] is False
    monkeypatch.setattr(prompt_sets, "MAX_JSON", 1000)
    assert "unpacks to" in refused("coco-30k", "--annotations", archive)


def test_broken_files_and_counts_are_one_line(annotations, tmp_path, monkeypatch):
    assert "--count is 30000, but coco-30k can have 1 to 5 prompts" in refused("coco-30k", "--annotations", annotations)
    assert "--count is 0" in refused("coco-30k", "--annotations", annotations, "--count", 0)
    broken = tmp_path / "broken"
    for text, option, said in (
        ("{", ("coco-30k", "--annotations"), "broken: no JSON"),
        ('{"images": []}', ("coco-30k", "--annotations"), "broken: not COCO's captions .KeyError.'annotations'"),
        ("image_id,prompt\n", ("coco-30k-list", "--list"), "there are no prompts"),
        ("image_id,text\n1,a\n", ("coco-30k-list", "--list"), "row 1: nothing in prompt"),
        ("image_id,prompt\nx,a\n", ("coco-30k-list", "--list"), "row 1: image_id is 'x', not a number"),
        ("image_id,prompt\n1,a\n1,b\n", ("coco-30k-list", "--list"), "a picture is named twice"),
        ('{"dataset_id": "ade20k"}\n', ("ln-coco-5k", "--narratives"), "line 1: not a Localized Narrative"),
        ("", ("ln-coco-5k", "--narratives"), "there are no prompts"),
        (json.dumps(narrative(1, 2, " \n")), ("ln-coco-5k", "--narratives"), "line 1: .*-2 is empty"),
        (json.dumps(narrative(1, 2, None)), ("ln-coco-5k", "--narratives"), "line 1: not a Localized Narrative"),
        ("Prompt\tCategory\nx\tArts\n", ("parti", "--prompts"), "row 1: nothing in Challenge"),
    ):
        broken.write_text(text)
        assert re.search(said, refused(*option, broken)), text
    assert "absent: cannot be read (No such file" in refused("parti", "--prompts", tmp_path / "absent")
    with pytest.raises(SystemExit, match="2"):
        main(["parti", "--prompts", str(broken), "--out", str(tmp_path / "prompts.json")])
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    said = refused("ln-coco-5k")
    assert "asset localized-narratives/coco-val is missing" in said and "put it at" in said and "fetch" in said


def narrative(image, annotator, caption):
    """A line of the official format, with a short trace."""
    return {
        "dataset_id": "mscoco_val2017", "image_id": str(image), "annotator_id": annotator, "caption": caption,
        "timed_caption": [{"utterance": caption, "start_time": 0.0, "end_time": 1.0}],
        "traces": [[{"x": 0.2, "y": 0.3, "t": 0.01}]], "voice_recording": f"coco_val/coco_val_{image}_{annotator}.ogg",
    }  # fmt: skip


def test_one_seeded_narrative_of_each_picture(tmp_path):
    path = tmp_path / "coco_val_localized_narratives.jsonl"
    long = "In this image I can see a red car. " * 12
    rows = [narrative(image, annotator, f"{long if image == 3 else ''}{image} by {annotator}") for image in range(1, 6)
            for annotator in (4, 93)] + [narrative(5, 93, "5 by 93 again")]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts, record = made(tmp_path, "ln-coco-5k", "--narratives", path, "--count", 5, "--seed", 3)
    assert sorted(row["id"] for row in prompts) == [f"{image:012d}" for image in range(1, 6)]
    for row in prompts:
        assert row["image"] == f"{row['id']}.jpg"
        assert f"{int(row['id'])} by {row['source_id']}" in row["prompt"]
    assert record["list"]["official"] is None  # nobody publishes its digest
    assert record["tokens"]["truncated"] == 1 and record["tokens"]["truncated_share"] == 0.2
    assert record["tokens"]["longest"] > 77
    drawn_by = {made(tmp_path, "ln-coco-5k", "--narratives", path, "--count", 5, "--seed", seed)[0][0]["source_id"]
                for seed in range(6)}  # fmt: skip
    assert len(drawn_by) == 2


def test_tokens_are_those_that_open_clip_reads():
    import open_clip

    texts = ["a", "a cat, on a mat!", " ".join(["cat"] * 75), " ".join(["cat"] * 76), "naïve café 😀 " * 30]
    read = open_clip.get_tokenizer("ViT-H-14", context_length=400)(texts)
    counts = token_counts(texts)
    assert counts == (read.argmax(dim=1) + 1).tolist()  # the mark of the end has the largest number
    assert counts[2] == 77 and counts[3] == 78


def test_official_parti_prompts(tmp_path):
    prompts, record = made(tmp_path, "parti", "--prompts", published("partiprompts/PartiPrompts.tsv"))
    assert record["list"]["official"] is True and record["n"] == len(prompts) == 1632
    categories = Counter(row["category"] for row in prompts)
    assert categories["Animals"] == 314 and categories["Indoor Scenes"] == 40 and len(categories) == 12
    challenges = Counter(row["challenge"] for row in prompts)
    assert challenges["Fine-grained Detail"] == 312 and len(challenges) == 11
    assert sorted(row["id"] for row in prompts) == [f"parti-{number:04d}" for number in range(1, 1633)]
    # quotes are part of a prompt: by plain splitting at tabs
    lines = published("partiprompts/PartiPrompts.tsv").read_text(encoding="utf-8").splitlines()[1:]
    expected = {f"parti-{n:04d}": " ".join(line.split("\t")[0].split()) for n, line in enumerate(lines, 1)}
    assert {row["id"]: row["prompt"] for row in prompts} == expected
    assert sum('"' in row["prompt"] for row in prompts) == 22


def test_official_captions(tmp_path):
    path = published("coco_captions/captions_val2017.json")
    data = json.loads(path.read_bytes())
    rows = coco_captions(path)
    assert len(rows) == len(data["annotations"]) == 25_014 and len({row["id"] for row in rows}) == 25_014
    prompts, record = made(tmp_path, "coco-30k", "--annotations", path, "--count", 5000)
    assert record["images"] == 5000
    by_caption = {str(row["id"]): row for row in data["annotations"]}
    names = {image["id"]: image["file_name"] for image in data["images"]}
    for row in prompts:
        official = by_caption[row["source_id"]]
        assert row["prompt"] == " ".join(official["caption"].split())
        assert row["image"] == names[official["image_id"]] == f"{row['id']}.jpg"
    # each of a picture's captions is as likely: COCO has them in the order of their ids
    place = Counter(
        sorted(r["id"] for r in data["annotations"] if r["image_id"] == by_caption[row["source_id"]]["image_id"]).index(
            int(row["source_id"])
        )
        for row in prompts[:200]
    )
    assert all(20 < place[n] < 62 for n in range(5))  # 40 of 200, give or take 3.5 standard deviations


def test_a_published_list_of_coco(tmp_path):
    path = published("coco30k/coco_30k.csv")
    prompts, record = made(tmp_path, "coco-30k-list", "--list", path, "--count", 300)
    assert record["list"]["official"] is True and record["n"] == record["images"] == 300
    whole = coco_list(path)
    assert len(whole) == 30_000 and all(row in whole for row in prompts[:20])
    with open(path, encoding="utf-8", newline="") as file:
        official = {int(row["image_id"]): row["prompt"] for row in csv.DictReader(file)}
    assert {int(row["id"][-12:]): row["prompt"] for row in whole} == {
        number: " ".join(text.split()) for number, text in official.items()
    }


def test_any_first_prompts_are_a_fair_sample():
    rows = [{"id": f"p-{number:04d}"} for number in range(2000)]
    first = drawn(rows, 200, 0, "tag")
    assert 60 < sum(row["id"] < "p-1000" for row in first) < 140
    assert drawn(rows[::-1], 200, 0, "tag") == first != drawn(rows, 200, 1, "tag")
