"""Run by `test_shortcut_ddp` as a script: ``python -m tests.ddp_shortcut WORLD FOLDER``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from lightning_attn.callbacks import ShortcutProbe
from tests.helpers.runs import tiny_data, tiny_module, trainer


def main(world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    data = tiny_data(train=40, val=41)
    strategy = "ddp" if world > 1 else "auto"
    found = {}
    for name, size in {"all": None, "sampled": 30}.items():
        run = trainer(folder, devices=world, strategy=strategy, callbacks=[ShortcutProbe(max_examples=size)])
        run.validate(tiny_module(data, sharpness=3.0), data, verbose=False)
        found[name] = {key: float(value) for key, value in run.callback_metrics.items() if "shortcut" in key}
    (folder / f"{world}-{os.environ.get('LOCAL_RANK', '0')}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
