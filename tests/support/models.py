"""What tests of models share: random parameters, and the combinations of learned heads."""

import torch

HEADS = [(False, False), (True, False), (False, True), (True, True)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randomised(model, scale=1.0, seed=0):
    """Give every parameter of a model, the zero heads too, a random value."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model
