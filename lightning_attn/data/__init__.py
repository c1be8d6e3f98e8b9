"""Data modules: texts and bags of several origins as batches with evidence."""

from lightning_attn.data.ade import ADEDataModule
from lightning_attn.data.babi import BabiDataModule
from lightning_attn.data.bags import (
    BagArrayDataModule,
    BagDataModule,
    BagDataset,
    BagTableDataModule,
    DigitPairsDataModule,
)
from lightning_attn.data.base import AttentionDataModule
from lightning_attn.data.batching import BucketBatches
from lightning_attn.data.block_mask import BlockMaskDataModule
from lightning_attn.data.corpus import CorpusDataModule
from lightning_attn.data.default_tokens import DefaultTokens
from lightning_attn.data.encoded import Encoded, EncodedDataset, SplitDataset
from lightning_attn.data.eraser import ERASERDataModule
from lightning_attn.data.examples import Examples
from lightning_attn.data.hf_processor import HuggingFacePairProcessor, HuggingFaceProcessor
from lightning_attn.data.pairs import NLIDataModule
from lightning_attn.data.processor import PairProcessor, TextProcessor
from lightning_attn.data.questions import Question, read_questions
from lightning_attn.data.squad import SQuADDataModule
from lightning_attn.data.synthetic import SyntheticReviewsDataModule
from lightning_attn.data.text import TextDataModule
from lightning_attn.data.trees import SSTDataModule
from lightning_attn.data.windows import QuestionProcessor, WindowDataset
from lightning_attn.data.word_processor import WordProcessor

__all__ = [
    "ADEDataModule",
    "AttentionDataModule",
    "BabiDataModule",
    "BagArrayDataModule",
    "BagDataModule",
    "BagDataset",
    "BagTableDataModule",
    "BlockMaskDataModule",
    "BucketBatches",
    "CorpusDataModule",
    "DefaultTokens",
    "DigitPairsDataModule",
    "ERASERDataModule",
    "Encoded",
    "EncodedDataset",
    "Examples",
    "HuggingFacePairProcessor",
    "HuggingFaceProcessor",
    "NLIDataModule",
    "PairProcessor",
    "Question",
    "QuestionProcessor",
    "SQuADDataModule",
    "SSTDataModule",
    "SplitDataset",
    "SyntheticReviewsDataModule",
    "TextDataModule",
    "TextProcessor",
    "WindowDataset",
    "WordProcessor",
    "read_questions",
]
