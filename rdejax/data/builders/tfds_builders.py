"""TFDS builders of videos and of static images, made from any source of training data.

Images are handed to TFDS encoded, as the files hold them, so that TensorFlow is not needed: TFDS
would load it to encode arrays.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

VERSION = "1.0.0"

Splits = Mapping[str, Iterable[dict[str, Any]]]


class ExamplesBuilder(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
    """Writes examples that are made elsewhere, in their order; its base would load TensorFlow."""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self._description,
            features=self._feature_spec,
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,  # training draws at random anyway
        )

    def _split_generators(self, dl_manager: Any) -> Any:
        del dl_manager
        return self._split_datasets


def video_builder(name: str, data_dir: str, splits: Splits) -> ExamplesBuilder:
    """Videos with id masks; the features are those of TFDS's `davis`, so one reader reads both.

    Of a video only frames with a mask are kept. Masks hold ids, 0 for background. The metadata
    holds, for each split, a dictionary `rdejax_<split>` of names, lengths, spacing and repeat.

    Args:
      name: of the data set: lower-case letters, digits and underscores.
      data_dir: the data set goes into data_dir/name/VERSION.
      splits: the examples of each split, with encoded images; read once.
    """
    image, mask = _image_and_mask()
    features = {
        "video": tfds.features.Sequence({"frames": image, "segmentations": mask}),
        "metadata": {"num_frames": np.int64, "video_name": np.str_},
    }
    return _builder(name, data_dir, splits, "Videos", features)


def image_builder(name: str, data_dir: str, splits: Splits) -> ExamplesBuilder:
    """Static images with id masks; see `video_builder`."""
    image, mask = _image_and_mask()
    features = {"image": image, "segmentation_mask": mask, "file_name": np.str_}
    return _builder(name, data_dir, splits, "Images", features)


def _image_and_mask() -> tuple[tfds.features.Image, tfds.features.Image]:
    return (
        tfds.features.Image(shape=(None, None, 3)),
        tfds.features.Image(shape=(None, None, 1), encoding_format="png", use_colormap=True),
    )


def _builder(
    name: str, data_dir: str, splits: Splits, what: str, features: dict[str, Any]
) -> ExamplesBuilder:
    return ExamplesBuilder(
        name=name,
        version=VERSION,
        data_dir=data_dir,
        description=f"{what} with object id masks, for video object segmentation.",
        features=tfds.features.FeaturesDict(features),
        split_datasets={split: enumerate(examples) for split, examples in splits.items()},
        file_format="array_record",
    )
