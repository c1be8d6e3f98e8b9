"""Run by `test_instances_ddp` as a script: ``python -m tests.ddp_bags WORLD FOLDER``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from lightning_attn.callbacks import InstanceCallback
from tests.helpers.runs import bag_module, tiny_bags, trainer

#: Bags of a split, and of the sample: numbers that 3 processes do not divide, fewer bags than processes.
CASES = {"21": (21, None), "2": (2, None), "21 sampled": (21, 6)}


def main(world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    found = {}
    for name, (size, sample) in CASES.items():
        data = tiny_bags(val_size=size, test_size=size)
        for stage in ("validate", "test"):
            callback = InstanceCallback(max_examples=sample, orders=2)
            strategy = "ddp" if world > 1 else "auto"
            run = trainer(folder, devices=world, strategy=strategy, callbacks=[callback])
            getattr(run, stage)(bag_module(data), data, verbose=False)
            found[f"{name} {stage}"] = {key: float(value) for key, value in run.callback_metrics.items()}
    (folder / f"{world}-{os.environ.get('LOCAL_RANK', '0')}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
