"""Explaining a transformer against other packages: ``python -m benchmarks.transformer_peers --minilm FOLDER``.

Comprehensiveness and sufficiency of given scores against ferret, text by text as it measures them; integrated gradients
against transformers-interpret and interpreto, text by text, and against captum on sorted batches. Texts are random
words of one token each, so that what ferret writes out and reads again is what it was. Parity comes first: the vectors
of [PAD], [CLS] and [SEP] are zero, so that all baselines of the path are the same point. interpreto takes absolute
values before it sums over the embedding, which is another quantity: of it there is a time only. Peers are the extra
``benchmarks``; those that are missing are named.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_attn.attribution import IntegratedGradients
from lightning_attn.metrics import Settings, measure
from lightning_attn.metrics.presets import PRESETS
from lightning_attn.networks import TransformerNetwork
from lightning_attn.types import Batch, DataSchema

TEXTS, STEPS, TARGET = 64, 50, 10.0
BATCH = 16
INTERNAL = (32, 128, 512)  # rows of captum in one pass
MEASURES = ("comprehensiveness", "sufficiency")
PEERS = ("ferret", "transformers_interpret", "interpreto")


def model_of(folder: str) -> tuple[Any, Any]:
    """Classifier with a random head, in evaluation mode, and its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, weights_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    embeddings = model.base_model.embeddings
    with torch.no_grad():
        model.classifier.weight.mul_(20)  # probabilities that move
        special = [tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id]
        embeddings.word_embeddings.weight[special] = 0.0
        # transformers-interpret gives the last [SEP] the second segment.
        embeddings.token_type_embeddings.weight[1] = embeddings.token_type_embeddings.weight[0]
    return model, tokenizer


def texts_of(tokenizer: Any, count: int, longest: int) -> list[str]:
    """Random whole words, 6 to ``longest`` a text, the shortest first."""
    random = np.random.default_rng(0)
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and len(word) > 2)
    lengths = sorted(random.integers(6, longest + 1, count))
    return [" ".join(random.choice(words, length)) for length in lengths]


def batches_of(tokenizer: Any, texts: Sequence[str]) -> list[Batch]:
    """Batches of neighbours in length."""
    result = []
    for start in range(0, len(texts), BATCH):
        read = tokenizer(list(texts[start : start + BATCH]), return_tensors="pt", padding=True)
        ids, valid = read["input_ids"], read["attention_mask"].bool()
        special = (ids == tokenizer.cls_token_id) | (ids == tokenizer.sep_token_id)
        row = torch.arange(start, start + len(ids))
        result.append(Batch(ids, valid, special & valid, torch.zeros_like(row), row))
    return result


def scores_of(batch: Batch) -> Tensor:
    """Random scores above 0, the same for both sides."""
    generator = torch.Generator().manual_seed(int(batch.index[0]))
    return (torch.rand(batch.valid.shape, generator=generator) + 0.01).masked_fill(~batch.inner, 0.0)


def our_erasure(network: TransformerNetwork, batches: Sequence[Batch]) -> np.ndarray:
    """Both measures of every text with the preset ``ferret``, shape ``(N, 2)``."""
    names, settings = tuple(f"faithfulness/{name}" for name in MEASURES), Settings(PRESETS["ferret"])
    found = [measure(network, batch, names, settings, scores_of(batch))[0] for batch in batches]
    return torch.cat([torch.stack([one[name] for name in names], dim=1) for one in found]).numpy()


def by_ferret(model: Any, tokenizer: Any, texts: Sequence[str], batches: Sequence[Batch]) -> np.ndarray:
    """The same by ferret."""
    from ferret import AOPC_Comprehensiveness_Evaluation, AOPC_Sufficiency_Evaluation
    from ferret.explainers.explanation import Explanation
    from ferret.model_utils import ModelHelper

    evaluations = [kind(model, tokenizer) for kind in (AOPC_Comprehensiveness_Evaluation, AOPC_Sufficiency_Evaluation)]
    for evaluation in evaluations:
        evaluation.helper = ModelHelper(model, tokenizer)
    found = []
    for batch in batches:
        scores = scores_of(batch)
        for row, number in enumerate(batch.index.tolist()):
            length = int(batch.valid[row].sum())
            ids = batch.inputs[row, :length]
            with torch.no_grad():
                target = int(model(input_ids=ids[None]).logits.argmax())
            tokens = tokenizer.convert_ids_to_tokens(ids)
            one = Explanation(texts[number], tokens, scores[row, :length].numpy(), "random", target)
            found.append([evaluation.compute_evaluation(one, target=target).score for evaluation in evaluations])
    return np.array(found)


def our_gradients(network: TransformerNetwork, batches: Sequence[Batch]) -> list[Tensor]:
    """Integrated gradients of the predicted class's probability, a score per token."""
    method = IntegratedGradients(STEPS)
    found = [method.attribute(network, batch) for batch in batches]
    return [
        row[: valid.sum()]
        for one, batch in zip(found, batches, strict=True)
        for row, valid in zip(one, batch.valid, strict=True)
    ]


def by_captum(model: Any, batches: Sequence[Batch], rows: int) -> list[Tensor]:
    """The same by captum on the same batches, so many rows in one pass."""
    from captum.attr import IntegratedGradients as Captum

    def probability(points: Tensor, valid: Tensor) -> Tensor:
        return model(inputs_embeds=points, attention_mask=valid).logits.softmax(dim=-1)  # type: ignore[no-any-return]

    found = []
    for batch in batches:
        embeddings, valid = model.get_input_embeddings()(batch.inputs).detach(), batch.valid.long()
        with torch.no_grad():
            target = probability(embeddings, valid).argmax(dim=-1)
        one = Captum(probability).attribute(
            embeddings, target=target, additional_forward_args=(valid,), n_steps=STEPS, internal_batch_size=rows
        )
        found += [row[mask] for row, mask in zip(one.sum(dim=-1), batch.valid, strict=True)]
    return found


def by_interpret(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[Tensor]:
    """The same by transformers-interpret, which scales the scores of a text to length 1."""
    from transformers_interpret import SequenceClassificationExplainer

    explainer = SequenceClassificationExplainer(model, tokenizer)
    return [torch.tensor([score for _, score in explainer(text, n_steps=STEPS)]) for text in texts]


def by_interpreto(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[Tensor]:
    """As many gradients by interpreto."""
    from interpreto import Granularity
    from interpreto import IntegratedGradients as Interpreto
    from interpreto.attributions import InferenceModes

    explainer = Interpreto(
        model,
        tokenizer,
        batch_size=STEPS,
        granularity=Granularity.ALL_TOKENS,
        inference_mode=InferenceModes.SOFTMAX,
        n_perturbations=STEPS,
    )
    with torch.no_grad():
        targets = [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text in texts]
    return [one.attributions.reshape(-1) for one in explainer(list(texts), torch.tensor(targets))]


def unlike(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Largest distance of two texts' scores, each scaled to length 1; specials, which have no score, left out."""
    scaled = [[one[1:-1] / one[1:-1].norm() for one in scores] for scores in (ours, theirs)]
    return max(float((one - other).norm()) for one, other in zip(*scaled, strict=True))


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and its seconds."""
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def report(name: str, ours: float, theirs: float, difference: float | None, target: float | None = None) -> None:
    """Assert parity and print a line."""
    assert difference is None or difference < 1e-4, f"{name}: differs by {difference:.2g}"
    same = "another quantity" if difference is None else f"differs by {difference:.1g}"
    ratio = theirs / ours
    goal = "" if target is None else f" (target {target:g}{'' if ratio >= target else ', missed'})"
    print(f"{name}: {same}; {theirs:.2f} s, ours {ours:.2f} s, ratio {ratio:.2f}{goal}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Print a line per peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", required=True, help="folder with config.json, model.safetensors, tokenizer.json")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--texts", type=int, default=TEXTS)
    parser.add_argument("--longest", type=int, default=40, help="words of the longest text (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    warnings.filterwarnings("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    model, tokenizer = model_of(chosen.minilm)
    texts = texts_of(tokenizer, chosen.texts, chosen.longest)
    batches = batches_of(tokenizer, texts)
    network = TransformerNetwork.from_model(model, DataSchema(num_classes=2, vocabulary_size=len(tokenizer))).eval()
    missing = [name for name in PEERS if importlib.util.find_spec(name) is None]
    if missing:
        print(f"Not installed: {', '.join(missing)} (extra 'benchmarks').")
    our_erasure(network, batches[:1])  # warm
    if "ferret" not in missing:
        theirs, slow = timed(lambda: by_ferret(model, tokenizer, texts, batches))
        ours, fast = timed(lambda: our_erasure(network, batches))
        name = f"{' and '.join(MEASURES)} of {len(texts)} texts, ferret"
        report(name, fast, slow, float(np.abs(ours - theirs).max()), TARGET)
    found, fast = timed(lambda: our_gradients(network, batches))
    runs = {rows: timed(lambda rows=rows: by_captum(model, batches, rows)) for rows in INTERNAL}  # type: ignore[misc]
    best = min(runs, key=lambda rows: runs[rows][1])
    same, slow = runs[best]
    report(f"integrated gradients, captum, {best} rows per pass", fast, slow, unlike(found, same))
    if "transformers_interpret" not in missing:
        theirs, slow = timed(lambda: by_interpret(model, tokenizer, texts))
        report("integrated gradients, transformers-interpret", fast, slow, unlike(found, theirs), TARGET)
    if "interpreto" not in missing:
        _, slow = timed(lambda: by_interpreto(model, tokenizer, texts))
        report("integrated gradients, interpreto", fast, slow, None)


if __name__ == "__main__":
    main()
