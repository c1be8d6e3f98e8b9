"""Loggers of somebody's own that fail."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.loggers import CSVLogger, WandbLogger


class Broken(CSVLogger):
    def log_metrics(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("the service\n  is gone")


class Refusing(WandbLogger):
    @property
    def experiment(self) -> Any:
        raise RuntimeError("no account")
