"""Frozen configurations that validate themselves, and presets by name; the standard library only."""

from adanat_cli.core.config.base import Config
from adanat_cli.core.config.data import DATA_PRESETS, DataConfig, data_config
from adanat_cli.core.config.nat import NAT_PRESETS, NATConfig, nat_preset
from adanat_cli.core.config.policy import PolicyConfig
from adanat_cli.core.config.tokenizer import TokenizerConfig, VQAEConfig, VQGANConfig, tokenizer_config
from adanat_cli.core.config.training import (
    TRAINING_PRESETS,
    NATTrainingConfig,
    Precision,
    TokenizerTrainingConfig,
)

__all__ = [
    "DATA_PRESETS",
    "NAT_PRESETS",
    "TRAINING_PRESETS",
    "Config",
    "DataConfig",
    "NATConfig",
    "NATTrainingConfig",
    "PolicyConfig",
    "Precision",
    "TokenizerConfig",
    "TokenizerTrainingConfig",
    "VQAEConfig",
    "VQGANConfig",
    "data_config",
    "nat_preset",
    "tokenizer_config",
]
