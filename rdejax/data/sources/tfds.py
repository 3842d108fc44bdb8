"""Videos and static images prepared by TensorFlow Datasets (TFDS), read without TensorFlow."""

import contextlib
import difflib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rdejax.data.sources.cache import Frame, LockedCache
from rdejax.data.sources.decoding import read_rgb, same_size
from rdejax.data.sources.images import StaticImages
from rdejax.data.sources.videos import all_void_only, too_short
from rdejax.errors import RdejaxError, first_line
from rdejax.io.masks import (
    STATIC_IMAGE,
    VIDEO_FRAME,
    holds_void_only,
    read_mask,
    settle_void,
)

_KEPT = 4  # records kept: the frames of a clip are read one by one, and lie in one record
_MASK_NAMES = ("mask", "segment", "annot", "label", "instance", "gt")


class Feature(NamedTuple):
    """An image feature: its key in a record, how many sequences it is in, and its channels."""

    key: str
    rank: int
    channels: int | None


def import_tfds() -> Any:
    """The module tensorflow_datasets.

    Raises:
      RdejaxError: it is not installed.
    """
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise RdejaxError(
            f"TFDS data needs tensorflow-datasets ({error}): pip install 'rdejax[tfds]'"
        ) from None
    # TFDS stops importing its older builders at the first one that needs TensorFlow; that of DAVIS
    # comes later and does not.
    with contextlib.suppress(ImportError):
        import tensorflow_datasets.video
    return tensorflow_datasets


class Records:
    """The records of a prepared split, as protocol buffers; opened at first use, so picklable.

    Args:
      directory: a prepared data set, with its version.
      split: name of the split.
      size: number of its records.
    """

    def __init__(self, directory: str, split: str, size: int):
        self.directory, self.split, self._size = directory, split, size
        self._raw: Any = None
        self._kept = LockedCache(_KEPT)

    def __reduce__(self):
        return Records, (self.directory, self.split, self._size)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Any:
        """The features of a record, by key: a map of `tf.train.Feature`.

        Raises:
          RdejaxError: a record that cannot be read.
        """
        with self._kept.lock:  # reading too: the threads of a clip want the same large record
            if index not in self._kept:
                self._kept[index] = self._read(index)
            return self._kept[index]

    def images(self, index: int, key: str) -> Any:
        """The encoded images of a feature of a record, a sequence of bytes."""
        features = self[index]
        if key not in features:
            raise RdejaxError(f"{self.name(index)}: holds no {key!r}; prepare the data set again")
        return features[key].bytes_list.value

    def name(self, index: int) -> str:
        """What errors call a record."""
        return f"{self.directory}: {self.split} record {index}"

    def _read(self, index: int) -> Any:
        tfds = import_tfds()
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            if self._raw is None:
                builder = tfds.builder_from_directory(self.directory)
                raw = tfds.decode.DeserializeMethod.RAW_BYTES
                self._raw = builder.as_data_source(self.split, deserialize_method=raw)
            return tf_example_pb2.Example.FromString(self._raw[index]).features.feature  # pyright: ignore
        # The reader of ArrayRecord raises whatever its C++ part gave, and protobuf its own.
        except Exception as error:
            detail = first_line(error)
            raise RdejaxError(
                f"{self.name(index)}: cannot be read ({detail}); prepare the data set again"
            ) from None


class TfdsVideos:
    """A `rdejax.data.sources.videos.VideoSource` of prepared records, one for each sequence.

    Reads what `rdejax.data.builders` writes, TFDS's own `davis`, and whatever else holds two
    sequences of images as long as each other.

    Args:
      records: of the split.
      frames: key of the images.
      masks: key of the masks.
      facts: what the builder noted (spacing, repeat, and lists of names and lengths), or empty.
      skip_bad: leave sequences out that are known to have fewer than two frames.

    Raises:
      RdejaxError: such a sequence, or no other one.
    """

    def __init__(
        self,
        records: Records,
        frames: str,
        masks: str,
        facts: dict[str, Any],
        *,
        skip_bad: bool = False,
    ):
        self.records, self._frames, self._masks = records, frames, masks
        self.spacing, self.repeat = int(facts.get("spacing", 1)), int(facts.get("repeat", 1))
        self._names: list[str] = list(facts.get("names", ()))
        self._lengths = dict(enumerate(facts.get("lengths", ())))
        self._binary: dict[int, bool] = {}
        short = [i for i, length in self._lengths.items() if length < 2]
        if short and not skip_bad:
            raise too_short(self.records.name(short[0]), self._lengths[short[0]])
        self._good = [i for i in range(len(records)) if i not in set(short)]
        if not self._good:
            raise RdejaxError(f"{records.directory}: {records.split} holds no sequence to train on")

    def __len__(self) -> int:
        return len(self._good)

    def name(self, index: int) -> str:
        """The video's name; reads the record where the builder noted no names."""
        record = self._good[index]
        if record < len(self._names):
            return self._names[record]
        features = self.records[record]
        for key in ("metadata/video_name", "metadata/video_id", "video_name"):
            if key in features and features[key].bytes_list.value:
                return features[key].bytes_list.value[0].decode(errors="replace")
        return f"{record:05d}"

    def length(self, index: int) -> int:
        """Number of frames; reads the record where the builder did not note it.

        Raises:
          RdejaxError: fewer than 2.
        """
        record = self._good[index]
        if record not in self._lengths:
            self._lengths[record] = len(self.records.images(record, self._masks))
        if self._lengths[record] < 2:
            raise too_short(self.records.name(record), self._lengths[record])
        return self._lengths[record]

    def read(self, index: int, frame: int) -> Frame:
        """See `rdejax.data.sources.videos.VideoSource.read`."""
        record = self._good[index]
        name = f"{self.records.name(record)}, frame {frame}"
        images = self.records.images(record, self._frames)
        masks = self.records.images(record, self._masks)
        if not frame < len(images) == len(masks):
            raise RdejaxError(f"{name}: {len(images)} images and {len(masks)} masks; give as many")
        image, labels = read_rgb(images[frame], name), read_mask(masks[frame], VIDEO_FRAME, name)
        same_size(image, labels, name)
        return image, settle_void(labels, binary=self._is_binary(record, labels))

    def __repr__(self) -> str:
        return f"TfdsVideos({self.records.directory!r}, sequences={len(self)})"

    def _is_binary(self, record: int, labels: np.ndarray) -> bool:
        if not holds_void_only(labels):
            return False
        if record not in self._binary:
            masks = self.records.images(record, self._masks)
            step = max(1, len(masks) // 5)
            name = self.records.name(record)
            some = (read_mask(m, VIDEO_FRAME, name) for m in masks[::step])
            self._binary[record] = all_void_only(some)
        return self._binary[record]


class TfdsImages(StaticImages):
    """Static images of prepared records; see `StaticImages`.

    Args:
      records: of the split.
      image: key of the image.
      mask: key of the mask.
    """

    def __init__(self, records: Records, image: str, mask: str):
        super().__init__()
        self.records, self._image, self._mask = records, image, mask

    def __len__(self) -> int:
        return len(self.records)

    def name(self, index: int) -> str:
        """Data set, split and number."""
        return self.records.name(index)

    def load(self, index: int) -> Frame:
        """See `StaticImages.load`."""
        name = self.name(index)
        image = read_rgb(self.records.images(index, self._image)[0], name, upright=False)
        ids = read_mask(self.records.images(index, self._mask)[0], STATIC_IMAGE, name)
        same_size(image, ids, name)
        return image, ids

    def __repr__(self) -> str:
        return f"TfdsImages({self.records.directory!r}, images={len(self)})"


def open_tfds(
    name: str,
    split: str | None = None,
    options: dict[str, str] | None = None,
    *,
    skip_bad: bool = False,
) -> TfdsVideos | TfdsImages:
    """Opens a prepared TFDS data set in the ArrayRecord format.

    Args:
      name: "NAME", "NAME/CONFIG", with ":VERSION" if wanted, or the folder of a prepared version.
      split: name of the split; "train", or the only one, by default.
      options: data_dir, where TFDS's data sets lie; image and mask, the keys of the features where
        they cannot be told.
      skip_bad: see `TfdsVideos`.

    Raises:
      RdejaxError: an unknown name, a data set that is not prepared or not as ArrayRecord, an
        unknown split, or features that are not an image and a mask.
    """
    options = options or {}
    builder = _builder(name, options.get("data_dir"))
    directory = str(builder.data_dir)
    size = _check_prepared(builder, name)
    split = split or ("train" if "train" in size or len(size) != 1 else next(iter(size)))
    if split not in size:
        raise RdejaxError(f"tfds:{name}: no split {split!r}; choose one of {', '.join(size)}")
    image, mask = _choose(image_features(builder.info.features), options, name)
    records = Records(directory, split, size[split])
    if not len(records):
        raise RdejaxError(f"tfds:{name}: the split {split!r} is empty")
    if not image.rank:
        return TfdsImages(records, image.key, mask.key)
    metadata = builder.info.metadata
    facts = dict(metadata.get(f"rdejax_{split}", {})) if isinstance(metadata, dict) else {}
    if builder.name == "davis":
        facts.setdefault("repeat", 5)
    return TfdsVideos(records, image.key, mask.key, facts, skip_bad=skip_bad)


def image_features(features: Any, key: str = "", rank: int = 0) -> list[Feature]:
    """Every image in a tree of TFDS features, with its key in the records."""
    kinds = import_tfds().features
    if isinstance(features, kinds.Image):
        return [Feature(key, rank, features.shape[-1])]
    if isinstance(features, kinds.FeaturesDict):
        inner = ((f"{key}/{name}" if key else name, f) for name, f in features.items())
        return [found for name, f in inner for found in image_features(f, name, rank)]
    if isinstance(features, kinds.Sequence):
        return image_features(features.feature, key, rank + 1)
    return []


def _builder(name: str, data_dir: str | None) -> Any:
    tfds = import_tfds()
    try:
        if Path(name).is_dir() and (Path(name) / "dataset_info.json").is_file():
            return tfds.builder_from_directory(name)
        return tfds.builder(name, **({"data_dir": data_dir} if data_dir else {}))
    except tfds.core.DatasetNotFoundError:
        base = name.split("/")[0].split(":")[0]
        near = difflib.get_close_matches(
            base, tfds.list_builders(with_community_datasets=False), n=3, cutoff=0.5
        )
        also = f"; near names: {', '.join(near)}" if near else ""
        where = f" and {data_dir} holds none" if data_dir else ""
        raise RdejaxError(f"tfds:{name}: TFDS knows no data set {base!r}{where}{also}") from None
    except ImportError as error:
        raise RdejaxError(f"tfds:{name}: {error}; this data set's code needs it") from None
    # TFDS raises several kinds for a bad configuration, version or folder.
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        detail = lines[0] if lines else type(error).__name__
        configs = _configs(name)
        wanted = name.partition("/")[2].split(":")[0]
        if configs and wanted not in configs:
            raise RdejaxError(
                f"tfds:{name}: no configuration {wanted!r}; choose one of {', '.join(configs[:10])}"
            ) from None
        raise RdejaxError(f"tfds:{name}: cannot be opened ({detail})") from None


def _configs(name: str) -> list[str]:
    """The configurations a data set has."""
    try:
        return list(import_tfds().builder_cls(name.split("/")[0].split(":")[0]).builder_configs)
    except Exception:  # an explanation of an error must not become another one
        return []


def _check_prepared(builder: Any, name: str) -> dict[str, int]:
    """Records of each split."""
    if not builder.is_prepared():
        raise RdejaxError(
            f"tfds:{name}: not prepared in {builder.data_dir}; prepare it once by `tfds build "
            f"{name} --file_format=array_record` (which may need TensorFlow), or give ?data_dir="
        )
    written = getattr(builder.info.file_format, "value", None)
    if written != "array_record":
        raise RdejaxError(
            f"tfds:{name}: prepared as {written} in {builder.data_dir}, which has no random access;"
            f" `tfds convert_format --dataset_version_dir={builder.data_dir} --out_file_format="
            "array_record --out_dir=NEW` writes it as array_record"
        )
    return {split: info.num_examples for split, info in builder.info.splits.items()}


def _choose(found: list[Feature], options: dict[str, str], name: str) -> tuple[Feature, Feature]:
    """The feature of images and the feature of their masks."""
    known = {feature.key: feature for feature in found}
    for option in ("image", "mask"):
        if option in options and options[option] not in known:
            raise RdejaxError(
                f"tfds:{name}: {option}={options[option]} is no image; images are: "
                f"{', '.join(known) or 'none'}"
            )
    usable = [f for f in found if f.rank <= 1]
    masks = [f for f in usable if f.channels == 1 and "image" not in f.key.split("/")]
    masks = [f for f in masks if any(word in f.key.lower() for word in _MASK_NAMES)] or masks
    images = [f for f in usable if f.channels == 3]
    images = [f for f in images if not any(w in f.key.lower() for w in _MASK_NAMES)] or images
    if "mask" in options:
        masks = [known[options["mask"]]]
    if "image" in options:
        images = [known[options["image"]]]
    both = [(i, m) for i in images for m in masks if i.rank == m.rank and i.key != m.key]
    if len(both) != 1:
        have = ", ".join(f"{f.key} ({f.channels} channels)" for f in found) or "none"
        raise RdejaxError(
            f"tfds:{name}: cannot tell images and masks; choose by ?image=KEY&mask=KEY among its "
            f"image features: {have}"
        )
    return both[0]
