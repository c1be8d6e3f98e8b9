"""Instance encoders: the features of each instance of a bag to its key and value."""

from lightning_attn.encoders.instances.base import InstanceEncoder
from lightning_attn.encoders.instances.identity import Identity
from lightning_attn.encoders.instances.lenet import LeNet
from lightning_attn.encoders.instances.mlp import MLP
from lightning_attn.encoders.instances.sequence import SequenceCNN

__all__ = ["MLP", "Identity", "InstanceEncoder", "LeNet", "SequenceCNN"]
