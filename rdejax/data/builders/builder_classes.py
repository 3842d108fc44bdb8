"""TFDS builders of videos and of static images, made from any source of training data.

Images are handed to TFDS encoded, as the files hold them, so that TensorFlow is not needed: TFDS
would load it to encode arrays.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

Example = dict[str, Any]
Examples = Callable[[], Iterable[Example]]


class _FromExamples(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes examples that are made elsewhere, in their order."""

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = ""

    def __init__(self, *, splits: Mapping[str, Examples] | None = None, **kwargs: Any):
        self._examples = dict(splits or {})
        super().__init__(file_format="array_record", **kwargs)

    def _features(self) -> dict[str, Any]:
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(self._features()),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,  # training draws at random anyway
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {name: enumerate(make()) for name, make in self._examples.items()}

    def _generate_examples(self) -> Any:
        raise NotImplementedError  # `_split_generators` gives the examples itself


class Videos(_FromExamples, skip_registration=True):
    """Videos with id masks; the features are those of TFDS's `davis`, so one reader reads both.

    Of a video only frames with a mask are kept. Masks hold ids, 0 for background. The metadata
    holds, for each split, a dictionary `rdejax_<split>` of names, lengths, spacing and repeat.

    Args:
      splits: for each split what makes its examples; filled like `_features`, with encoded images.
      **kwargs: see `tfds.core.GeneratorBasedBuilder`.
    """

    DESCRIPTION = "Videos with object id masks, for video object segmentation."

    def _features(self) -> dict[str, Any]:
        return {
            "video": tfds.features.Sequence(
                {
                    "frames": tfds.features.Image(shape=(None, None, 3)),
                    "segmentations": tfds.features.Image(
                        shape=(None, None, 1), encoding_format="png", use_colormap=True
                    ),
                }
            ),
            "metadata": {"num_frames": np.int64, "video_name": np.str_},
        }


class Images(_FromExamples, skip_registration=True):
    """Static images with id masks.

    Args:
      splits: for each split what makes its examples; filled like `_features`, with encoded images.
      **kwargs: see `tfds.core.GeneratorBasedBuilder`.
    """

    DESCRIPTION = "Images with object id masks, for video object segmentation."

    def _features(self) -> dict[str, Any]:
        return {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "segmentation_mask": tfds.features.Image(
                shape=(None, None, 1), encoding_format="png", use_colormap=True
            ),
            "file_name": np.str_,
        }


def named(kind: type[_FromExamples], name: str) -> type[_FromExamples]:
    """A builder class whose data set has the given name.

    Args:
      kind: `Videos` or `Images`.
      name: lower-case letters, digits and underscores.

    Raises:
      ValueError: another name.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"name {name!r}: give lower-case letters, digits and underscores")

    # By a class statement: TFDS looks at the metaclass, the registry and the module.
    class Named(kind, skip_registration=True):  # type: ignore[misc, valid-type]
        __doc__ = kind.__doc__

    Named.name = name
    return Named
