"""Which files of others a study's own trainings start from or measure with, beyond those that pip installs."""

from wuerstchen.assets_table import TOKENIZERS
from wuerstchen.paper import with_baseline
from wuerstchen.presets import preset


def pretrained(config: dict) -> list[str]:
    """Names of assets (wuerstchen/assets.py), once each: text encoders, backbones and the baseline's autoencoder."""
    chosen = with_baseline(preset(config["preset"]), config.get("baseline"))
    stages, names = ["b", "c"], []
    if any(model.startswith("baseline-ldm") for model in config["models"]):
        stages.append("baseline-ldm")
        if chosen.baseline_first_stage != "stage-a":
            names += [f"{chosen.baseline_first_stage}/vae", f"{chosen.baseline_first_stage}/vae-config"]
    if chosen.recipes["a"].perceptual == "lpips":
        names.append("vgg16")
    if not chosen.compressor.backbone.startswith("efficientnet_lite"):
        names.append(chosen.compressor.backbone.replace("_", "-"))
    for encoder in (chosen.text_of(stage).encoder for stage in stages):
        if encoder != "minilm":
            names += [f"{encoder}/text", TOKENIZERS.get(encoder, f"{encoder}/tokenizer")]
    return list(dict.fromkeys(names))
