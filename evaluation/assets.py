"""The assets that measuring needs, of the one table in `wuerstchen.assets`, which says where they are looked for.

python -m evaluation.assets list
python -m evaluation.assets check [NAME ...]
python -m evaluation.assets fetch NAME ...
"""

from wuerstchen import assets

NETWORKS = (
    "inception",
    "inception-torchscript",
    "dinov2-l14",
    "clip-b32",
    "clip-l14",
    "clip-l14-336",
    "clip-h/open-clip",
    "pickscore",
    "hpsv2.1",
    "efficientnet-lite2",
)
DATA = (
    "coco/annotations-2014",
    "coco/30k-list",
    "coco/val2014",
    "coco/val2017",
    "localized-narratives/coco-val",
    "parti-prompts",
    "celeba-hq",
)
RIVALS = (
    "sd-1.4",
    "sd-2.1",
    "sd-xl",
    "df-gan/generator",
    "df-gan/text-encoder",
    "df-gan/vocabulary",
    "galip/generator",
)


def main(argv: list[str] | None = None) -> None:
    """Command line: that of `wuerstchen.assets`, which also checks and fetches what is not listed here."""
    assets.main(argv, "evaluation.assets", (*NETWORKS, *DATA, *RIVALS))


if __name__ == "__main__":
    main()
