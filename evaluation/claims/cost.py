"""What training cost: GPU hours, samples and carbon (Tables 1 and 2, sections 1 and 4.3, appendix E)."""

from evaluation import published
from evaluation.carbon import paper
from evaluation.claims import Claim, figure, holds, millions, unknown


def claims() -> list[Claim]:
    """All claims about hours, samples and carbon."""
    return [*hours(), *samples(), *carbon()]


def hours() -> list[Claim]:
    """GPU hours against each other, with and without Stage B."""
    given = published.inputs()
    c, b = given["hours_wuerstchen_c"], given["hours_wuerstchen_b"]
    sd14, sd21 = given["hours_sd_1_4"], given["hours_sd_2_1"]
    cards = {(given[f"hours_{sd}"], given[f"card_hours_{sd}"]) for sd in ("sd_1_4", "sd_2_1")}
    return [
        figure("hours-ratio", sd21 / c, f"{sd21:,.0f} h / {c:,.0f} h. Stage C alone.", shown=f"{sd21 / c:.2f}x"),
        holds(
            "hours-with-stage-b",
            f"{sd14 / (b + c):.2f}x (SD 1.4), {sd21 / (b + c):.2f}x (SD 2.1)",
            sd14 > b + c < sd21,
            f"{sd14:,.0f} h and {sd21:,.0f} h over {c:,.0f} h + {b:,.0f} h = {b + c:,.0f} h; Stage A's are not given.",
            sd21 / (b + c),
        ),
        figure(
            "abstract-hours",
            b + c,
            f"{c:,.0f} h are Stage C's (4.3). Stage B takes {b:,.0f} h more, and Stage A some that are not given.",
            shown=f"at least {b + c:,.0f} h",
        ),
        holds(
            "most-expensive-stage",
            f"{c:,.0f} h against Stage B's {b:,.0f} h",
            c > b,
            "Stage A's hours are not given.",
            c / b,
        ),
        figure(
            "baseline-hours",
            c,
            f"Stage C's {c:,.0f} h, to the thousand; the difference is {given['hours_baseline_ldm'] / c - 1:.1%}.",
        ),
        holds(
            "card-hours",
            ", ".join(f"{card:,.0f}" for _, card in sorted(cards)),
            all(said == card for said, card in cards),
            "Read from the cards.",
        ),
    ]


def samples() -> list[Claim]:
    """Training samples: steps times batch size, as 4.3 defines them."""
    made = {model: published.samples(model) for model in ("wuerstchen-c", "wuerstchen-b", "sd-1.4", "sd-2.1")}
    c, b, baseline = made["wuerstchen-c"], made["wuerstchen-b"], published.samples("baseline-ldm")
    rows, given = published.rows("trainings"), published.inputs()
    steps = {model: sum(float(row["steps"]) for row in rows if row["model"] == model) for model in made}
    per_second = {
        "the baseline": baseline / given["hours_baseline_ldm"],
        "Stage C": c / given["hours_wuerstchen_c"],
        "Stage B": b / given["hours_wuerstchen_b"],
        "SD 2.1": made["sd-2.1"] / given["hours_sd_2_1"],
    }
    rates = [f"{rate / 3600:.1f} for {model}" for model, rate in per_second.items()]
    fewer = [f"{made[sd] / c:.2f}x" for sd in ("sd-1.4", "sd-2.1")]
    whole = [f"{made[sd] / (b + c):.2f}x" for sd in ("sd-1.4", "sd-2.1")]
    return [
        figure(
            "samples-c",
            c,
            f"Steps times batch size of E.3's four phases. All {steps['wuerstchen-c']:,.0f} steps at the first batch "
            f"size of 1536 would be {millions(1536 * steps['wuerstchen-c'])}.",
            shown=millions(c),
        ),
        figure("samples-b", b, "Steps times batch size of E.2's two phases.", shown=millions(b)),
        figure(
            "samples-sd-1.4",
            made["sd-1.4"],
            f"{steps['sd-1.4']:,.0f} steps of 2048. The card's 2048 = 32 x 8 x 2 x 4 has its two gradient "
            f"accumulations in it; counted once more they give {millions(2 * made['sd-1.4'])}.",
            shown=millions(made["sd-1.4"]),
        ),
        figure(
            "samples-sd-2.1",
            made["sd-2.1"],
            f"{steps['sd-2.1']:,.0f} steps of 2048, over the cards of 2-base, 2 and 2.1.",
            shown=millions(made["sd-2.1"]),
        ),
        holds(
            "fewer-samples",
            f"{' and '.join(fewer)} Stage C's",
            min(made["sd-1.4"], made["sd-2.1"]) > b + c,
            f"Recomputed samples of each; {' and '.join(whole)} those of Stages B and C together.",
            made["sd-1.4"] / c,
        ),
        unknown(
            "samples-baseline",
            "1.5 million steps of 1280 (E.4); more than Stage C's.",
            shown=millions(baseline),
            value=baseline,
        ),
        unknown(
            "baseline-steps",
            f"Samples for each second of a GPU: {', '.join(rates)}. Networks and picture sizes differ between them.",
            shown=f"{per_second['the baseline'] / 3600:.1f} samples a second",
            value=per_second["the baseline"] / 3600,
        ),
        unknown(
            "inference-speed",
            "Figure 4 is a picture without numbers. This project times the same models at the same size on a GPU.",
        ),
    ]


def carbon() -> list[Claim]:
    """Table 2's carbon column: each value by itself, and the values side by side."""
    rows = {row["model"]: row for row in paper()}
    given = published.inputs()
    found = [
        figure(
            f"carbon-{row['model']}",
            row["kg"],
            f"{row['gpu_hours']:,.0f} h x {row['gpu_watts']:.0f} W (A100 PCIe) = {row['kwh']:,.1f} kWh x "
            f"{row['kg_per_kwh']:.2f} kg/kWh, the grid of {row['region']} in the calculator of Lacoste et al.",
            shown=f"{row['kg']:,.2f}",
        )
        for row in rows.values()
    ]
    ours, theirs = rows["wuerstchen"], rows["sd-2.1"]
    hours_ratio = theirs["gpu_hours"] / ours["gpu_hours"]
    cards = given["card_kg_sd_1_4"], given["card_kg_sd_2_1"]
    return [
        *found,
        holds(
            "card-carbon",
            ", ".join(f"{card:,.0f}" for card in cards),
            cards == (rows["sd-1.4"]["printed_kg"], rows["sd-2.1"]["printed_kg"]),
            "Read from the cards.",
        ),
        figure(
            "carbon-one-grid",
            hours_ratio,
            f"With one device and grid for both, carbon goes as hours. Printed are {ours['kg_per_kwh']:.2f} kg/kWh for "
            f"Würstchen and {theirs['kg_per_kwh']:.2f} for SD, whose cards name AWS, US-east.",
            shown=f"{hours_ratio:.2f}x",
        ),
    ]
