"""Pictures of the selection benchmark: every seed of the arms whose failures are counted, and all arms in a plane."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.cells import Results
from benchmarks.selection.plan import COUNTED, MAIN, Plan
from benchmarks.selection.statistics import figures

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw_lottery(plan: Plan, results: Results, path: Path) -> bool:
    """Post-hoc accuracy of every seed, an arm a column; whether there was anything to draw."""
    data, _ = plan.counted
    arms = [arm for arm in COUNTED if figures(results, data, arm, "fidelity")]
    if not arms:
        return False
    figure, axes = plt.subplots(1, len(arms), figsize=(2.5 * len(arms) + 0.6, 2.9), sharey=True, layout="constrained")
    for axis, arm in zip(np.atleast_1d(axes), arms, strict=True):
        fidelity, post_hoc = (figures(results, data, arm, name) for name in ("fidelity", "post_hoc_accuracy"))
        floor = np.mean(list(figures(results, data, arm, "random_accuracy").values()))
        axis.axhspan(0, floor + 0.1, color="tab:red", alpha=0.08, lw=0)
        axis.axhline(floor, color="0.6", lw=1, ls=":")
        axis.plot(list(fidelity), list(fidelity.values()), "_", color="0.5", ms=7, label="fidelity")
        axis.plot(list(post_hoc), list(post_hoc.values()), "o", color="tab:blue", ms=4, label="post-hoc accuracy")
        axis.set_title(arm, fontsize=8)
        axis.set_xlabel("seed", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_ylim(0.4, 1.01)
    np.atleast_1d(axes)[0].legend(fontsize=7, loc="lower left")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def draw_scatter(plan: Plan, results: Results, path: Path) -> bool:
    """Agreement with evidence over post-hoc accuracy, a panel per data set, a point per seed."""
    sets = [data for data in plan.data if any(figures(results, data, arm, "fidelity") for arm in MAIN)]
    if not sets:
        return False
    figure, axes = plt.subplots(1, len(sets), figsize=(2.9 * len(sets) + 1.8, 3.2), layout="constrained", squeeze=False)
    for axis, data in zip(axes[0], sets, strict=True):
        name = "auroc" if any(figures(results, data, arm, "auroc") for arm in MAIN) else "fidelity"
        for number, arm in enumerate(MAIN):
            across, up = figures(results, data, arm, "post_hoc_accuracy"), figures(results, data, arm, name)
            axis.plot(list(across.values()), list(up.values()), "o", color=f"C{number}", ms=4, label=arm)
        axis.set_title(data, fontsize=9)
        axis.set_xlabel("post-hoc accuracy", fontsize=8)
        axis.set_ylabel("AUROC against evidence" if name == "auroc" else name, fontsize=8)
        axis.tick_params(labelsize=7)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, loc="outside right center")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True
