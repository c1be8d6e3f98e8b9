"""What ``import lightning_attn as la`` offers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning
import torch

import lightning_attn as la

NAMES = """
AdditiveAttention AttentionClassifier AttentionDataModule AttentionDropout AttentionEnsemble AttentionNetwork
AttentionOutput AttentionTableCallback BagDataModule BagNetwork BagTableDataModule Batch BiLSTM BlackBoxExplainer CNN
Compose DataSchema DotAttention Encoder Explainer FaithfulnessCallback GatedAttention HuggingFaceProcessor InputError
InstanceWeighting LeakagePenalty LinearClassifier MLPClassifier Mitigation NoMitigation PairedNetwork PooledNetwork
PretrainedEncoder QuestionAnswerer RandomMixing RandomPretraining SelectionCallback SelectorNetwork ShortcutProbe
SyntheticReviewsDataModule TextDataModule TokenMLP TopKSelection Trainer TransformerNetwork WarmStart WordProcessor
attribute load_network measure
"""


def test_the_list() -> None:
    assert la.__all__ == NAMES.split()
    assert set(la.__all__) <= set(dir(la))


@pytest.mark.parametrize("name", NAMES.split())
def test_each_name_is_there(name: str) -> None:
    assert getattr(la, name).__module__


def test_type_checkers_are_told_the_same() -> None:
    (block,) = (node for node in ast.parse(Path(la.__file__).read_text()).body if isinstance(node, ast.If))
    told = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert told == la._HOME


def test_importing_is_quick_and_brings_no_torch() -> None:
    code = (
        "import time; start = time.process_time(); import lightning_attn as la; seconds = time.process_time() - start\n"
        "import sys; assert not {'torch', 'pytorch_lightning', 'numpy'} & set(sys.modules)\n"
        "assert seconds < 0.1, seconds"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        la.Nothing  # noqa: B018


def test_a_program(tmp_path: Path) -> None:
    data = la.SyntheticReviewsDataModule(train_size=40, val_size=10, test_size=10, batch_size=10)
    mitigation = la.Compose([la.RandomMixing(), la.LeakagePenalty()])
    network = la.PooledNetwork(la.BiLSTM(8, 4, values="local"))
    module = la.AttentionClassifier(network, mitigation=mitigation)
    assert la.Trainer is pytorch_lightning.Trainer
    trainer = la.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    trainer.fit(module, data)
    batch = next(iter(data.val_dataloader()))
    values, output = la.measure(module.network, batch)
    assert {value.shape for value in values.values()} == {(len(batch),)}
    assert output.attention.shape == batch.valid.shape
    scores = la.attribute("gradient", module.network, batch)
    assert scores.shape == batch.valid.shape
    assert torch.equal(la.attribute(la.attribution.get("gradient"), module.network, batch), scores)
