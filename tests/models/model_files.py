"""One small model per decoder, as the files of sarx/conf/model have them."""

from pathlib import Path

import yaml

import sarx
from sarx.config.schema.model import ModelConfig

CONF = Path(sarx.__file__).parent / "conf" / "model"
FILES = sorted(CONF.glob("*.yaml"))

NAMES = (
    "fcn_test_convnext",
    "ocr_test_convnext",
    "nonlocal_test_resnet",
    "deeplabv3_test_resnet",
    "deeplabv3plus_test_resnet",
    "pspnet_test_resnet",
    "fpn_test_resnet",
    "upernet_test_convnext",
    "upernet_test_vit",
    "segformer_test_convnext",
    "linear_test_vit",
    "pool_test_efficientnet",
    "pool_resnet32",
)
"""Every decoder is among them: see test_decoders."""

MAPS = tuple(name for name in NAMES if not name.startswith("pool"))


def config_of(name: str, **changes: object) -> ModelConfig:
    """Return the options of a file, some of them changed."""
    return ModelConfig(**{**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes})
