"""Handwritten digits for the examples: MNIST from files, or the small set that comes with scikit-learn."""
import glob
import gzip
import os
import pickle

import numpy as np


def read_idx(path):
    """The array in one idx file, gzipped or not (LeCun's format: big-endian magic, sizes, then bytes).

    Raises
    ------
    ValueError
        If the file is not an idx file of unsigned bytes, or is shorter than its header says.
    """
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rb") as source:
        data = source.read()
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError("%s is not an idx file of unsigned bytes (it begins with %s)" % (path, data[:4].hex() or "nothing"))
    shape = np.frombuffer(data, ">i4", data[3], 4)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if values.size != np.prod(shape):
        raise ValueError("%s announces %s values and holds %d" % (path, " x ".join(map(str, shape)), values.size))
    return values.reshape(shape)


def read_idx_folder(folder):
    """All images (n, 784) in [0, 1] and labels (n,) of the idx files in a folder, training files first.

    Raises
    ------
    FileNotFoundError
        If there are no files named *images* and *labels* in it.
    """
    found = {}
    for kind in ("images", "labels"):
        names = sorted(glob.glob(os.path.join(folder, "*%s*" % kind)), key=lambda name: ("train" not in name, name))
        if not names:
            raise FileNotFoundError("no idx file named *%s* in %s" % (kind, folder))
        found[kind] = np.concatenate([read_idx(name) for name in names])
    return found["images"].reshape(len(found["images"]), -1) / np.float32(255), found["labels"].astype("int64")


def read_pickle(path):
    """Images and labels of the tutorials' mnist.pkl.gz: its training, validation and test sets one after the other."""
    with gzip.open(path, "rb") as source:
        sets = pickle.load(source, encoding="latin1")
    return np.concatenate([s[0] for s in sets]).astype("float32"), np.concatenate([s[1] for s in sets]).astype("int64")


def sklearn_digits():
    """scikit-learn's 1,797 real digits, 8 x 8 grey levels enlarged to 24 x 24 and centred in MNIST's frame of 28 x 28.

    Enlarged smoothly: repeated pixels would make equal patches, whose maxima tie or not by the rounding of one machine.
    """
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits as load

    digits = load()
    images = zoom(digits.images.astype("float32") / 16, (1, 3, 3), order=1)
    return np.pad(images, ((0, 0), (2, 2), (2, 2))).reshape(len(images), -1), digits.target.astype("int64")


def load_digits(path=None, batch=500, test_share=6):
    """((images, labels), (images, labels)) for training and testing: float32 (n, pixels) in [0, 1] and int64 (n,).

    Parameters
    ----------
    path : str, optional
        A folder of idx files or mnist.pkl.gz; scikit-learn's digits by default.
    batch : int
        Each of the two sets must hold at least one minibatch.
    test_share : int
        One image in so many is kept for testing.

    Raises
    ------
    ValueError
        If the data are too few for the minibatch.
    """
    if path is None:
        images, labels = sklearn_digits()
    else:
        images, labels = read_idx_folder(path) if os.path.isdir(path) else read_pickle(path)
    order = np.random.RandomState(0).permutation(len(images))
    images, labels = images[order], labels[order]
    n_test = max(batch, len(images) // test_share)
    if len(images) - n_test < batch:
        raise ValueError("%d images are too few for training and testing with minibatches of %d" % (len(images), batch))
    return (images[n_test:], labels[n_test:]), (images[:n_test], labels[:n_test])
