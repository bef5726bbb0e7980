"""What Tables 1 to 3 are said to show (sections 4 and 4.1, appendix B), recomputed from the tables."""

from itertools import pairwise

from evaluation import published
from evaluation.claims import Claim, figure, holds
from evaluation.intervals import wilson

MILD = ("brightness-up", "brightness-down", "contrast-up", "contrast-down")
JPEG = ("jpeg-95", "jpeg-90", "jpeg-80", "jpeg-70", "jpeg-60", "jpeg-50")
SETS = {"coco-30k": "prompts_coco", "ln-coco-5k": "prompts_ln_coco", "parti-prompts": "prompts_parti"}


def claims() -> list[Claim]:
    """All claims about the three tables."""
    return [*preferences(), *scores(), *manipulations()]


def preferences() -> list[Claim]:
    """Table 1: win rates by PickScore."""
    rates = {(row["prompts"], row["rival"]): published.number(row["win_rate"]) for row in published.rows("table1")}
    size = {row["model"]: published.number(row["params"]) for row in published.rows("table2")}
    given = published.inputs()

    def of(*rivals: str) -> list[float]:
        return [rates[prompts, rival] for rival in rivals for prompts in SETS]

    def bounds(rival: str) -> list[tuple[float, float]]:
        sizes = {prompts: int(given[name]) for prompts, name in SETS.items()}
        return [wilson(round(rates[prompts, rival] / 100 * n), n) for prompts, n in sizes.items()]

    lowest = min(low for rival in ("sd-1.4", "sd-2.1") for low, _ in bounds(rival))
    highest = max(high for _, high in bounds("sd-xl"))
    small = [rival for rival in dict.fromkeys(rival for _, rival in rates) if size[rival] <= size["wuerstchen"]]
    shares = "Of all prompts of a set, with a 95 % Wilson interval"
    return [
        holds(
            "win-sd",
            f"{min(of('sd-1.4', 'sd-2.1'))}% and more",
            lowest > 0.5,
            f"{shares}; the lowest end of the six is {lowest:.1%}.",
            min(of("sd-1.4", "sd-2.1")),
        ),
        holds(
            "win-sd-xl",
            f"{max(of('sd-xl'))}% and less",
            highest < 0.5,
            f"{shares}; the highest end of the three is {highest:.1%}.",
            max(of("sd-xl")),
        ),
        holds(
            "win-gans",
            f"{min(of('df-gan', 'galip'))}% and more",
            min(low for rival in ("df-gan", "galip") for low, _ in bounds(rival)) > 0.5,
            f"{shares} that holds no 50%.",
            min(of("df-gan", "galip")),
        ),
        holds(
            "win-baseline",
            f"{min(of('baseline-ldm'))}% and more",
            min(low for low, _ in bounds("baseline-ldm")) > 0.5,
            f"{shares} that holds no 50%.",
            min(of("baseline-ldm")),
        ),
        holds(
            "win-equal-size",
            f"{len(small)} of {len(small)}" if min(of(*small)) > 50 else "not all",
            min(of(*small)) > 50,
            f"By Table 2's parameters these are {', '.join(small)}. Stages A, B and C together have about twice 0.99B.",
            min(of(*small)),
        ),
    ]


def scores() -> list[Claim]:
    """Table 2: FID, IS and sampling steps."""
    rows = {row["model"]: row for row in published.rows("table2")}
    fid = {model: published.number(row["fid"]) for model, row in rows.items() if ">" not in row["fid"]}
    score = {model: published.number(row["is"]) for model, row in rows.items() if published.number(row["is"])}
    ours, best = fid["wuerstchen"], max(value for model, value in score.items() if model != "wuerstchen")
    lower = [model for model, value in fid.items() if value < ours]
    given = published.inputs()
    steps = given["steps_c"] + given["steps_b"]
    return [
        holds(
            "inception-score",
            f"{score['wuerstchen']} against {best} and less",
            score["wuerstchen"] > best,
            f"Of the {len(score)} models with a score.",
            score["wuerstchen"] - best,
        ),
        holds(
            "fid-beats",
            f"{ours} against {fid['cogview2']} and {fid['baseline-ldm']}",
            ours < min(fid["cogview2"], fid["baseline-ldm"]),
            "Lower is better.",
            min(fid["cogview2"], fid["baseline-ldm"]) - ours,
        ),
        holds(
            "larger-models",
            f"{rows['cogview2']['params']} against {rows['wuerstchen']['params']}",
            published.number(rows["cogview2"]["params"]) > published.number(rows["wuerstchen"]["params"]),
            "By the table's parameters; larger than Stages A, B and C together too.",
        ),
        holds(
            "fid-high",
            f"higher than {len(lower)} of {len(fid) - 1}",
            len(lower) > (len(fid) - 1) / 2,
            "Of the other models with an FID; SD XL's is given only as more than 18.",
            len(lower),
        ),
        holds(
            "fid-lower",
            f"higher than {len(lower)} of {len(fid) - 1}",
            len(lower) == 0,
            f"{ours} against {min(fid.values())} to {max(fid[model] for model in lower)} of the models below it. "
            "The sentence before calls it relatively high; worse may be meant.",
            len(lower),
        ),
        figure(
            "sampling-steps",
            steps,
            f"{given['steps_c']:.0f} steps of Stage C and {given['steps_b']:.0f} of Stage B (section 4); the printed "
            "number is Stage C's.",
        ),
    ]


def manipulations() -> list[Claim]:
    """Table 3: how far manipulations move the FID of real pictures."""
    rows = {row["manipulation"]: row for row in published.rows("table3")}
    columns = ("coco30k", "celeba_hq")
    table = {name: [float(row[column]) for column in columns] for name, row in rows.items()}
    mild = max(value for name in MILD for value in table[name])
    rest = min(value for name, values in table.items() if name not in MILD for value in values)
    grows = all(table[name][i] < table[worse][i] for name, worse in pairwise(JPEG) for i in range(len(columns)))
    own = [published.number(row["fid"]) for row in published.rows("table2") if "*" in row["fid"]]
    jpeg, nearest, bilinear = table["jpeg-70"][0], table["nearest"], table["bilinear"]
    return [
        holds(
            "mild-changes",
            f"{mild} at most",
            mild < rest,
            f"Over both columns; every other manipulation moves it by {rest} or more. No significance is computed.",
            mild,
        ),
        holds(
            "jpeg-grows",
            f"{table[JPEG[0]][0]} to {table[JPEG[-1]][0]} (COCO)",
            grows and min(table["jpeg-80"]) > 10 * mild,
            "It grows with each step of quality in both columns; from quality 80 on it is more than ten times what "
            "brightness and contrast do.",
            table[JPEG[-1]][0],
        ),
        holds(
            "resampling",
            f"{nearest[0]} and {nearest[1]} (nearest neighbour)",
            min(nearest) > 10 * mild,
            f"Nearest neighbour. Bilinear moves it by {bilinear[0]} and {bilinear[1]}, as JPEG of quality 95 does.",
            min(nearest),
        ),
        holds(
            "jpeg-70-range",
            f"{min(own)} to {max(own)}",
            min(own) <= jpeg <= max(own),
            f"The range of the {len(own)} values of Table 2 that the authors computed. All values of the table, with "
            "those taken from others, begin at 7.23 and would hold it.",
            jpeg,
        ),
    ]
