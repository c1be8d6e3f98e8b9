"""Does attention rank the tokens as gradients do, and as leave-one-out does? `AgreementCallback`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from lightning_attn.callbacks.sampled import Split
from lightning_attn.experiments import figures
from lightning_attn.experiments.agreement import agreement
from lightning_attn.experiments.base import ExperimentCallback
from lightning_attn.experiments.record import ExperimentRecord, Summary, deviation, mean, share, undefined
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.perturbation.sweep import Perturbation
from lightning_attn.types import Batch

if TYPE_CHECKING:  # it takes a second to import, and not every run draws
    from matplotlib.figure import Figure

_LEVEL = 0.05
#: By the start of the names, what is compared.
_PAIRS = {
    "gradient": "attention and gradients",
    "loo": "attention and leave-one-out",
    "gradient_loo": "gradients and leave-one-out",
}
#: By the end of the names, what is said of it.
_MEASURES = {
    "tau": "tau",
    "tau_sd": "its deviation",
    "significant": f"share of p ≤ {_LEVEL}",
    "top": "best-ranked in common",
    "undefined": "undefined",
}


class AgreementRecord(ExperimentRecord):
    """Kendall's tau and the overlap of the best-ranked tokens, of each example and of all."""

    name = "agreement"
    title = "Agreement of the rankings of tokens"
    headlines: ClassVar[tuple[str, ...]] = tuple(f"{pair}_tau" for pair in _PAIRS)
    words: ClassVar[Mapping[str, str]] = {
        f"{pair}_{name}": f"{words}: {measure}"
        for pair, words in {**_PAIRS, "gradient_without_attention": "attention and gradients / attention"}.items()
        for name, measure in _MEASURES.items()
    }

    def summary(self) -> Summary:
        """Mean and deviation of each tau, share of significant ones, mean overlap, and how many are undefined."""
        found: Summary = {}
        for pair in (*_PAIRS, "gradient_without_attention"):
            tau = self.values[f"{pair}_tau"]
            found |= {f"{pair}_tau": mean(tau), f"{pair}_tau_sd": deviation(tau)}
            if pair in _PAIRS:
                p = self.values[f"{pair}_p"]
                found[f"{pair}_significant"] = share(p, p <= _LEVEL)
                found[f"{pair}_top"] = mean(self.values[f"{pair}_top"])
            found[f"{pair}_undefined"] = undefined(tau)
        return found

    def figures(self) -> dict[str, Figure]:
        """``agreement``: a histogram of tau by class for each pair, as figure 2 of Jain and Wallace."""
        found = self.summary()
        with figures.canvas(self, len(_PAIRS)) as (figure, panels):
            for axes, (pair, title) in zip(panels, _PAIRS.items(), strict=True):
                middle, spread = found[f"{pair}_tau"], found[f"{pair}_tau_sd"]
                if middle is None or spread is None:
                    note = ""
                else:
                    note = f"mean {middle:.2f}, sd {spread:.2f}; p ≤ {_LEVEL}: {found[f'{pair}_significant']:.0%}"
                figures.histogram(axes, self, f"{pair}_tau", "Kendall's tau", (-1, 1), title, note)
            figures.legend(figure, self, "mean")
        return {self.name: figure}


class AgreementCallback(ExperimentCallback[AgreementRecord]):
    """Compares the rankings of tokens by attention, by gradients and by leave-one-out, with each other.

    Logs, under ``test/explanation/agreement/``, for ``gradient`` (attention and gradients), ``loo`` (attention and
    leave-one-out) and ``gradient_loo`` (the two that do not look at attention: the yardstick) ``_tau``, ``_tau_sd``,
    ``_significant`` (share of p <= 0.05; it grows with the length of the texts), ``_top`` (share of the best-ranked
    tokens in common) and ``_undefined`` (examples that the others leave out: one token, or constant on one side). And
    ``gradient_without_attention_tau``: with local values and the attention held fixed the weight is a factor of the
    gradient that it is compared with, and this is the tau without that factor.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.1; the overlap and the control
    are ours.

    Args:
        attention_fixed: Whether the gradient leaves out the path through the scorer, as published.
        top_k: How many of the best-ranked tokens are compared, at least 1.
        perturbation: What leave-one-out does with the token; None means ``Delete()``.
        every_n_epochs: See :class:`ExperimentCallback`.
        max_examples: See :class:`ExperimentCallback`.
        splits: See :class:`ExperimentCallback`.
        max_tokens: See :class:`ExperimentCallback`.
        seed: Of the sample.

    Raises:
        InputError: A number is below 1, or a split unknown.
    """

    record = AgreementRecord

    def __init__(
        self,
        attention_fixed: bool = True,
        top_k: int = 5,
        perturbation: Perturbation | None = None,
        every_n_epochs: int = 1,
        max_examples: int | None = 512,
        splits: Sequence[Split] = ("test",),
        max_tokens: int = 16384,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs, max_examples, splits, max_tokens, seed)
        self._at_least_one(top_k=top_k)
        self.attention_fixed = attention_fixed
        self.top_k = top_k
        self.perturbation = perturbation

    @property
    def settings(self) -> dict[str, Any]:
        """See :class:`ExperimentRecord`."""
        kind = "Delete" if self.perturbation is None else type(self.perturbation).__name__
        return {"attention_fixed": self.attention_fixed, "top_k": self.top_k, "perturbation": kind, "level": _LEVEL}

    def measured(self, network: AttentionNetwork, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`ExperimentCallback.measured`."""
        found = agreement(
            network,
            batch,
            attention_fixed=self.attention_fixed,
            top_k=self.top_k,
            perturbation=self.perturbation,
            max_tokens=self.max_tokens,
        )
        columns = {"gradient_without_attention_tau": found.gradient_without_attention}
        for pair in _PAIRS:
            columns[f"{pair}_tau"] = getattr(found, pair)
            columns[f"{pair}_p"] = getattr(found, f"{pair}_p")
            columns[f"{pair}_top"] = getattr(found, f"{pair}_top")
        return columns
