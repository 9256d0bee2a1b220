"""Named bundles of settings: how much machine and time an avatar may take."""

from __future__ import annotations

from typing import Any

GPU = {
    "raster.height_px": 1024,
    "raster.width_px": 1024,
    "raster.close_up_px": 0,  # at this size the person's own crop shows what the camera saw of a head
    "train.widths": "64,128,256,512,1024,1440",  # twice: 161 million parameters
    "train.pretrained": "none",  # there are no weights of that size
    "train.batch_size": 4,
    "train.split": True,
    "train.steps": 30_000,
    "train.renderer_lr": 2e-4,
    "train.texture_lr": 1e-3,
    "train.decay_from": 0.5,
    "train.grid_noise": 0.02,
    "train.adversarial": True,
    "train.adversarial_weight": 0.1,
    "train.feature_blocks": 5,
    "train.feature_width": 64,
    "train.discriminator_width": 64,
    "train.discriminator_scales": 3,
    "adapt.steps": 4000,
    "finetune.steps": 2000,
}

PRESETS: dict[str, dict[str, Any]] = {
    "demo": {},  # the defaults of the config classes: two cores, minutes
    "cpu": {
        "raster.height_px": 384,
        "raster.width_px": 240,
        "raster.close_up_px": 144,
        "train.steps": 1500,
        "train.rescale_min": 0.7,  # against learning by heart; neither better nor worse in the demo preset
        "train.rescale_max": 1.3,
        "train.shift": 0.08,
        # In so many updates the usual weight paints specks: .2 dB and FLIP for sharpness that is not the person's.
        "train.adversarial_weight": 0.05,
    },
    "gpu": GPU,
    "paper": {  # what the paper says and nothing that it does not
        **GPU,
        "keyframes.spread": False,
        "train.steps": 100_000,
        "train.discriminator_every": 1,
        "train.warm_start": False,
        "train.light": False,
        "train.exposure": False,
        "train.detail": False,
        "train.rescale_min": 0.5,
        "train.rescale_max": 1.25,
    },
}
