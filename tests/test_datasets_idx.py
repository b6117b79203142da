from __future__ import annotations

import datasets_files as files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ffdask import datasets
from ffdask.datasets import idx
from ffdask.errors import BadInput

pytestmark = pytest.mark.usefixtures("cache")


@settings(deadline=None, max_examples=60)
@given(array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, max_side=9)), gz=st.booleans())
def test_idx_round_trip(tmp_path_factory, array, gz):
    path = tmp_path_factory.mktemp("idx") / ("a.gz" if gz else "a")
    idx.write(path, array)
    np.testing.assert_array_equal(idx.read(path, array.ndim), array)


def test_idx_header_is_the_published_one():
    assert idx.header((60000, 28, 28)).hex() == "00000803" + "0000ea60" + "0000001c" * 2


BAD_FOLDERS = {
    "missing": "has no train-labels-idx1-ubyte; the four IDX files",
    "short": r"train-images-idx3-ubyte holds \d+ bytes where its header",
    "long": r"train-images-idx3-ubyte holds \d+ bytes where its header",
    "short header": "train-images-idx3-ubyte is truncated within its header",
    "no header": "train-images-idx3-ubyte is not an IDX file",
    "magic": "train-images-idx3-ubyte is not an IDX file",
    "type": "train-images-idx3-ubyte holds values of IDX type 0x0d",
    "swapped": "train-images-idx3-ubyte has 1 dimensions where images",
    "count": "holds 12 images and .*train-labels-idx1-ubyte 11 labels",
    "shapes": r"images of shape \(28, 28\) and .*t10k-images-idx3-ubyte of \(27, 28\)",
    "empty": "train-images-idx3-ubyte is empty",
    "huge": "at most 2147483648 are taken",
    "huge, within bounds": r"holds 16 bytes where its header \(1048576, 28, 28\)",
    "gzip of less": "holds only 9399 values where its header",
    "gzip of more": "holds more values where its header",
    "gzip cut": "ubyte.gz is a corrupt gzip file",
    "gzip checksum": "ubyte.gz is a corrupt gzip file",
    "gzip huge": r"holds at most \d+ bytes where its header",
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_bad_folders(tmp_path, cache, name):
    folder = files.bad_folders(name, tmp_path / "idx")
    for ask in (datasets.obtain, datasets.describe):
        with pytest.raises(BadInput, match=BAD_FOLDERS[name]) as caught:
            ask(str(folder))
        assert str(folder) in str(caught.value)
    assert not cache.exists()
