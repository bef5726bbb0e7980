"""The study with people: participants, comparisons and thresholds (section 4.2, appendix C)."""

from evaluation import published
from evaluation.claims import Claim, figure, holds, unknown


def claims() -> list[Claim]:
    """All claims about the preference study."""
    given = {name: int(value) for name, value in published.inputs().items()}
    return [*participants(given), *comparisons(given), *thresholds(given)]


def participants(given: dict[str, int]) -> list[Claim]:
    """How many people, and what they looked at."""
    first, second, both = given["users_first_alone"], given["users_second_alone"], given["users_both"]
    images = 2 * (given["prompts_coco"] + given["prompts_parti"])
    lines = given["parti_lines"]
    return [
        figure(
            "participants",
            first + second + both,
            f"{first} of the first alone + {second} of the second alone + {both} of both. Were those {both} among the "
            f"{first} and the {second}, it would be {first + second - both}.",
        ),
        figure("parti-prompts", lines - 1, f"The official file has {lines} lines, the first of which is the header."),
        unknown(
            "scanned-images",
            f"2 models x ({given['prompts_coco']:,} + {given['prompts_parti']:,}) pictures.",
            shown=f"{images:,} pictures",
            value=images,
        ),
        unknown(
            "figure-5-shares", "Figure 5 is a picture without numbers, and the text gives no counts of preferences."
        ),
        unknown(
            "coco-light-preference", "Neither the number of users above the threshold nor their preferences are given."
        ),
    ]


def comparisons(given: dict[str, int]) -> list[Claim]:
    """How many comparisons, in the main text and in the appendix."""
    coco, parti = given["votes_coco_appendix"], given["votes_parti_appendix"]
    main = given["votes_coco_main"] + given["votes_parti_main"]
    of_the_appendix = "Appendix C gives another number for the same study than section 4.2."
    return [
        figure("votes-sum", coco + parti, f"{coco} + {parti}, the appendix's own two parts."),
        figure(
            "votes-main-text",
            main,
            f"{given['votes_parti_main']} + {given['votes_coco_main']}, the two parts of section 4.2.",
        ),
        figure("votes-parti", parti, of_the_appendix),
        figure("votes-coco", coco, of_the_appendix),
    ]


def fewest_votes(users: int, threshold: int) -> tuple[int, int]:
    """The fewest comparisons with which each of the upper half of all users has made `threshold`.

    The upper half has the median user in it where there is one; everybody else made one comparison. Returns the
    comparisons, and how many users the upper half has.
    """
    upper = users - users // 2
    return upper * threshold + users - upper, upper


def thresholds(given: dict[str, int]) -> list[Claim]:
    """Whether half of the users can have made as many comparisons as 4.2 says."""
    both = given["users_both"]
    coco = given["users_first_alone"] + both, given["threshold_coco"]
    parti = given["users_second_alone"] + both, given["threshold_parti"]
    claims = []
    for name, (users, threshold), votes in (
        ("threshold-coco", coco, given["votes_coco_main"]),
        ("threshold-parti", parti, given["votes_parti_main"]),
        ("threshold-parti-appendix", parti, given["votes_parti_appendix"]),
    ):
        fewest, upper = fewest_votes(users, threshold)
        less = (upper - 1) * threshold + users - upper + 1
        how = f"{upper} of {users} users (appendix C) made {threshold} each, the others one."
        if fewest > votes >= less:
            how += f" Were the median user not counted among the upper half, {less:,} would do."
        claims.append(holds(name, f"takes {fewest:,} of {votes:,}", fewest <= votes, how, fewest))
    return claims
