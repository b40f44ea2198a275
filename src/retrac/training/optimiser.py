"""The optimiser and its learning rate."""

from collections.abc import Callable

from diffusers import UNet2DModel
from torch.optim import SGD, Adam, AdamW, Optimizer

from retrac.training.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int) -> float:
    """The learning rate of a step: a linear warm-up, then constant."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    return config.learning_rate


def make_optimizer(config: OptimizerConfig, model: UNet2DModel) -> Optimizer:
    """Build the optimiser over all trainable parameters."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate, decay = config.learning_rate, config.weight_decay
    makers: dict[str, Callable[[], Optimizer]] = {
        "adam": lambda: Adam(trainable, lr=rate, weight_decay=decay),
        "adamw": lambda: AdamW(trainable, lr=rate, weight_decay=decay),
        "sgd": lambda: SGD(trainable, lr=rate, weight_decay=decay, momentum=config.momentum),
    }
    return makers[config.optimizer]()
