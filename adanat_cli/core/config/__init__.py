"""Frozen configurations that validate themselves, and presets by name; the standard library only."""

from adanat_cli.core.config.base import Config
from adanat_cli.core.config.benchmarks import BENCHMARKS, Benchmark, text_encoder_of
from adanat_cli.core.config.data import DATA_PRESETS, DataConfig, data_config
from adanat_cli.core.config.features import FEATURE_TRAINING, FeatureConfig
from adanat_cli.core.config.nat import NAT_PRESETS, NATConfig, nat_preset
from adanat_cli.core.config.policy import PolicyConfig
from adanat_cli.core.config.policy_training import (
    PROJECTED_REWARD,
    RECIPES,
    DiscriminatorConfig,
    PolicyTrainingConfig,
    PPOConfig,
    Recipe,
    recipe,
)
from adanat_cli.core.config.tokenizer import PixelConfig, TokenizerConfig, VQAEConfig, VQGANConfig, tokenizer_config
from adanat_cli.core.config.training import (
    PROJECTED_TRAINING,
    TRAINING_PRESETS,
    NATTrainingConfig,
    Precision,
    TokenizerTrainingConfig,
)

__all__ = [
    "BENCHMARKS",
    "DATA_PRESETS",
    "FEATURE_TRAINING",
    "NAT_PRESETS",
    "PROJECTED_REWARD",
    "PROJECTED_TRAINING",
    "RECIPES",
    "TRAINING_PRESETS",
    "Benchmark",
    "Config",
    "DataConfig",
    "DiscriminatorConfig",
    "FeatureConfig",
    "NATConfig",
    "NATTrainingConfig",
    "PPOConfig",
    "PixelConfig",
    "PolicyConfig",
    "PolicyTrainingConfig",
    "Precision",
    "Recipe",
    "TokenizerConfig",
    "TokenizerTrainingConfig",
    "VQAEConfig",
    "VQGANConfig",
    "data_config",
    "nat_preset",
    "recipe",
    "text_encoder_of",
    "tokenizer_config",
]
