"""Pictures of heads with cameras: EG3D-format data sets, procedural heads, shuffled batches."""

from cgsgan.data.dataset import DataConfig, HeadDataset, RealBatch, open_dataset
from cgsgan.data.errors import DatasetError
from cgsgan.data.sampler import BatchStream
from cgsgan.data.synthetic import SyntheticConfig, make_synthetic

__all__ = [
    "BatchStream",
    "DataConfig",
    "DatasetError",
    "HeadDataset",
    "RealBatch",
    "SyntheticConfig",
    "make_synthetic",
    "open_dataset",
]
