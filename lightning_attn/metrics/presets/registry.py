"""The presets by name: `PRESETS`, `get_preset`."""

from __future__ import annotations

from lightning_attn.errors import InputError
from lightning_attn.metrics.presets.averaging import DistinctBudgets
from lightning_attn.metrics.presets.change import AbsoluteDrop, OutputChange, SignedDrop
from lightning_attn.metrics.presets.explained import Gold
from lightning_attn.metrics.presets.preset import Preset
from lightning_attn.metrics.presets.ranking import PositiveOnly, SparesLast
from lightning_attn.metrics.presets.texts import InnerLength, WholeLength
from lightning_attn.perturbation.budget import FlooredFractions, Fractions, WholeSteps
from lightning_attn.perturbation.sweep import Delete, Pad

_TENTHS = tuple(step / 10 for step in range(1, 11))

#: Values of different presets cannot be compared with each other. What a source does not have (ferret no log-odds,
#: Mask-LRP no sufficiency) is measured with its choices all the same.
PRESETS: dict[str, Preset] = {
    "ours": Preset(),
    # DeYoung et al., ACL 2020, https://aclanthology.org/2020.acl-main.408, and its code, which averages over the
    # thresholds (the paper divides by one more); there the perturbed predictions come from the user.
    "eraser": Preset(curve=Fractions(), texts=InnerLength(0), trapezoid=True),
    # Attanasio et al., EACL 2023 (https://arxiv.org/abs/2208.01575), version 0.5.0 of its code; there the class is the
    # user's (explained=Fixed(...)), and perturbed ids are decoded and tokenised again.
    "ferret": Preset(
        ranking=PositiveOnly(),
        budget=FlooredFractions(_TENTHS),
        curve=FlooredFractions(_TENTHS),
        averaging=DistinctBudgets(),
        leave_one_out=SignedDrop(),
        texts=InnerLength(0),
        trapezoid=True,
    ),
    # Code of Mask-LRP, Findings of EACL 2024, https://arxiv.org/abs/2401.09972; the mean is that of the means of its
    # processes, ten by default.
    "mask_lrp": Preset(
        explained=Gold(),
        perturbation=Pad(),
        ranking=SparesLast(),
        budget=WholeSteps(),
        curve=WholeSteps(),
        texts=WholeLength(20),
        chunks=10,
    ),
    # Code of AttCAT, Qiang et al., NeurIPS 2022: it reports [PAD] and deletion.
    "attcat": Preset(
        explained=Gold(),
        perturbation=Pad(),
        budget=WholeSteps(),
        curve=WholeSteps(),
        change=AbsoluteDrop(),
        texts=WholeLength(10),
    ),
    "attcat_delete": Preset(
        explained=Gold(),
        perturbation=Delete(),
        budget=WholeSteps(),
        curve=WholeSteps(),
        change=AbsoluteDrop(),
        texts=WholeLength(10),
    ),
    # Code of Contrast-CAT, https://github.com/ku-air/Contrast-CAT.
    "contrast_cat": Preset(budget=WholeSteps(), curve=WholeSteps(), texts=WholeLength(10)),
    # Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186: leave-one-out, of all classes.
    "jain_wallace": Preset(change=OutputChange(), texts=InnerLength(0)),
}


def get_preset(preset: str | Preset) -> Preset:
    """A preset by its name; one that is no name is returned as it is.

    Raises:
        InputError: There is none of that name.
    """
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise InputError(f"There is no preset {preset!r}; the presets are {', '.join(PRESETS)}.")
    return PRESETS[preset]
