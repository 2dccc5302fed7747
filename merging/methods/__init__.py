"""Methods that make the changes of several tasks one: one file a paper, pure functions of one parameter.

Every file names its paper, what the method needs and its function in a `MergingMethod`; `METHODS` lists them
all.
"""

from mass_serve.merging.methods.consensus import CONSENSUS
from mass_serve.merging.methods.doge import DOGE
from mass_serve.merging.methods.isotropic import ISO_C, ISO_CTS
from mass_serve.merging.methods.method import MergingMethod, TaskVectors
from mass_serve.merging.methods.opcm import OPCM
from mass_serve.merging.methods.tall_masks import TALL_MASKS
from mass_serve.merging.methods.task_arithmetic import TASK_ARITHMETIC, WEIGHT_AVERAGING
from mass_serve.merging.methods.ties import TIES
from mass_serve.merging.methods.tsv_m import TSV_M
from mass_serve.merging.methods.whole_models import merged_direction
from mass_serve.merging.methods.wudi import WUDI

METHODS: tuple[MergingMethod, ...] = (
    TSV_M,
    WEIGHT_AVERAGING,
    TASK_ARITHMETIC,
    TIES,
    TALL_MASKS,
    CONSENSUS,
    ISO_C,
    ISO_CTS,
    OPCM,
    DOGE,
    WUDI,
)

__all__ = [
    "CONSENSUS",
    "DOGE",
    "ISO_C",
    "ISO_CTS",
    "METHODS",
    "OPCM",
    "TALL_MASKS",
    "TASK_ARITHMETIC",
    "TIES",
    "TSV_M",
    "WEIGHT_AVERAGING",
    "WUDI",
    "MergingMethod",
    "TaskVectors",
    "merged_direction",
]
