"""The model card of released weights: data, licences, recipe, scores and limits, from what the study itself wrote."""

from typing import Any

import yaml

TITLES = {"a": "Stage A", "b": "Stage B with the compressor", "c": "Stage C", "baseline-ldm": "Baseline LDM"}
CEILINGS = {
    "stage-a": "Real pictures, through Stage A",
    "compressor": "Real pictures, through compressor, B and A",
    "other-artist": "The same thing by the other artist",
}


def table(titles: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; its first column is text, the others are numbers."""
    ruler = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [titles, ruler, *rows])


def share(part: dict[str, Any]) -> str:
    """Recall@10 with its interval."""
    if not part["n"]:
        return "no such prompts"
    low, high = part["interval_at_10"]
    return f"{100 * part['at_10']:.1f} % ({100 * low:.1f} to {100 * high:.1f} %)"


def recall_rows(recall: dict[str, Any]) -> list[list[str]]:
    found = {model: parts for model, parts in recall.items() if model != "ceilings"} | recall["ceilings"]
    return [
        [CEILINGS.get(name, name), *(share(parts[key]) for key in ("seen", "held_out"))]
        for name, parts in found.items()
        if isinstance(parts, dict)
    ]


def score_table(scores: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Every model's scores on every prompt set, by the metrics' own names."""

    def said(score: Any) -> str:
        return f"{score['value']:.4g}" if isinstance(score, dict) else "not measured"

    measured = {f"{prompts}: {model}": by for prompts, models in scores.items() for model, by in models.items()}
    metrics = list(dict.fromkeys(metric for by_metric in measured.values() for metric in by_metric))
    rows = [[name, *(said(by_metric.get(metric)) for metric in metrics)] for name, by_metric in measured.items()]
    return table(["Prompts: model", *metrics], rows)


def stage_row(stage: str, usage: dict[str, Any]) -> list[str]:
    about = [TITLES[stage], f"{usage['parameters']:,}", f"{usage['steps']:,}", str(usage["batch_size"])]
    return [*about, f"{usage['seconds'] / 60:.1f}", f"{1000 * usage['kwh']:.2f} ({usage['kwh_source']})"]


def card(
    config: str,
    split: dict[str, Any],
    summary: dict[str, Any],
    usages: dict[str, dict[str, Any]],
    files: dict[str, tuple[int, str]],
) -> str:
    """README.md of a release.

    config: the study's config.yaml; split, summary: its data/split.json and summary.json; usages: by stage; files:
    bytes and SHA-256 of each file of weights.
    """
    settings = yaml.safe_load(config)
    n_train, n_validation, n_test = (split["counts"][name]["total"] for name in ("train", "validation", "test"))
    device = "; ".join(dict.fromkeys(usage["device"] for usage in usages.values()))
    said = [f"- {row['artist']}: {row['licence']} ({row['url']}). {row['credit']}" for row in split["licences"]]
    licences = "\n".join(said)
    stages = table(
        ["Network", "Parameters", "Steps", "Batch", "Minutes", "Wh"],
        [stage_row(stage, usage) for stage, usage in usages.items()],
    )
    recall = table(["Recall@10 (95 % interval)", "Seen pairs", "Held-out pairs"], recall_rows(summary["recall"]))
    scores = score_table(summary["scores"])
    weights = table(["File", "Bytes", "SHA-256"], [[name, f"{size:,}", sha] for name, (size, sha) in files.items()])
    overrides = yaml.safe_dump({key: settings[key] for key in ("preset", "seed", "training") if key in settings})
    return f"""# Weights of the study {summary["study"]}

Würstchen (Stages A, B and C), the baseline LDM with Stage C's training compute, and the scorer behind the EmojiScore,
trained from scratch on captioned emoji. Written by `python -m wuerstchen.release`; no number here was typed by hand.

```sh
python -m wuerstchen.generate "openmoji of red apple" --model emoji --out apple.png
```

Captions name artist and thing: "openmoji of red apple", "twemoji of hot dog". No other text was trained on, but for
longer descriptions of the same pictures.

## Data

{n_train:,} captioned pictures of {split["size"]} px were trained on, {n_validation:,} are for choosing settings, and
{n_test:,} were held out for the scores below. A thing that both artists drew is held out for one of them only.

Digest of the split: `{split["sha256"]}`

Use these weights on another split and held-out pictures are no longer held out; the study refuses that.

## Licences

{licences}

The code is MIT. Whether weights are a derivative work of the pictures that they were trained on is not settled. These
can come close to pictures that they have seen, so they are under CC BY-SA 4.0, with both credits above; take what they
draw as share-alike too.

## Recipe

The preset `{settings["preset"]}` with what is below; `config.yaml` beside this file has the whole config. Trained on
{device}.

```yaml
{overrides.strip()}
```

{stages}

## Scores

Measured on `names` before the weights were rounded to fp16, with the sampling settings of `config.yaml`.

{recall}

{scores}

A distance (`fd`, `kid`, `is`) is of the features of the network in its name, so none of them is FID, KID or IS; less is
better for `fd` and `kid`. `emoji-score` is of the scorer in this release.

## Limits

- Emoji at {split["size"]} px on a white page, in two artists' styles; nothing else can be drawn.
- Combinations that nobody drew (`compositions` above) have no real pictures to be compared with.
- Pictures of persons follow the conventions of Unicode and of the two artists, with their biases.

## Files

{weights}
"""
