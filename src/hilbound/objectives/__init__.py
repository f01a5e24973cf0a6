"""The objectives as modules. Each is a thin layer over a function of :mod:`hilbound.functional`.

:class:`Objective` is their base class. There are marginal costs, costs of pairs (every centre
belongs to one data point), and costs that correct the mini-batch bias of the nuclear norm.
"""

# The order of the files is that of the objectives in lists.
# isort: off
from hilbound.objectives.base import OBJECTIVES, Objective, create_objective
from hilbound.objectives.blocks import BlockObjective, refuse_blocks
from hilbound.objectives.marginal import (
    DistanceNuclearNorm,
    Likelihood,
    NuclearNorm,
    ScalarCost,
    SchurCost,
    VectorCost,
)
from hilbound.objectives.paired import ConditionalScalarCost, MeanSquaredError, Trace
from hilbound.objectives.debiased import DebiasedNuclearNorm, Schatten
from hilbound.objectives.joint import JointNuclearNorm
# isort: on

__all__ = [
    "OBJECTIVES",
    "BlockObjective",
    "ConditionalScalarCost",
    "DebiasedNuclearNorm",
    "DistanceNuclearNorm",
    "JointNuclearNorm",
    "Likelihood",
    "MeanSquaredError",
    "NuclearNorm",
    "Objective",
    "ScalarCost",
    "Schatten",
    "SchurCost",
    "Trace",
    "VectorCost",
    "create_objective",
    "refuse_blocks",
]
