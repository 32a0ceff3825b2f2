"""The lectures' worked examples of convolution as numbers: pictures, filters, results; mended as docs/corrections.md says."""

import numpy as np


def _matrix(rows: str) -> np.ndarray:
    """ "1 0 / 0 1" as (2, 2) int64."""
    return np.array([[int(value) for value in row.split()] for row in rows.split("/")])


# Lectures 000 ("Filter and convolution operation") and 001 ("Filter searches patterns in a small region")
PICTURE_6X6 = _matrix("1 0 0 0 0 1 / 0 1 0 0 1 0 / 0 0 1 1 0 0 / 1 0 0 0 1 0 / 0 1 0 0 1 0 / 0 0 1 0 1 0")
FILTER_1 = _matrix("1 -1 -1 / -1 1 -1 / -1 -1 1")
FILTER_2 = _matrix("-1 1 -1 / -1 1 -1 / -1 1 -1")
MAP_1 = _matrix("3 -1 -3 -1 / -3 1 0 -3 / -3 -3 0 1 / 3 -2 -2 -1")

# Lecture 001, "Filter searches a particular pattern in different regions": I, K and I * K
I = _matrix("0 1 1 1 0 0 0 / 0 0 1 1 1 0 0 / 0 0 0 1 1 1 0 / 0 0 0 1 1 0 0 / 0 0 1 1 0 0 0 / 0 1 1 0 0 0 0 / 1 1 0 0 0 0 0")
K = _matrix("1 0 1 / 0 1 0 / 1 0 1")
I_K = _matrix("1 4 3 4 1 / 1 2 4 3 3 / 1 2 3 4 1 / 1 3 3 1 1 / 3 3 1 1 0")

# Lectures 001 ("Use Excel to verify!") and 004 ("The Convolution Operation"), with the same K
PICTURE_5X5 = _matrix("1 1 1 0 0 / 0 1 1 1 0 / 0 0 1 1 1 / 0 0 1 1 0 / 0 1 1 0 0")
MAP_5X5 = _matrix("4 3 4 / 2 4 3 / 2 3 4")

# Lecture 004, "Feature Extraction and Convolution": an X, and one that is shifted, shrunk, rotated, deformed
X = 2 * np.pad(np.maximum(np.eye(7, dtype=np.int64), np.eye(7, dtype=np.int64)[:, ::-1]), 1) - 1
DEFORMED_X = _matrix(
    "-1 -1 -1 -1 -1 -1 -1 -1 -1 / -1 -1 -1 -1 -1 -1  1 -1 -1 / -1  1 -1 -1 -1  1 -1 -1 -1 / -1 -1  1  1 -1  1 -1 -1 -1 /"
    "-1 -1 -1 -1  1 -1 -1 -1 -1 / -1 -1 -1  1 -1  1  1 -1 -1 / -1 -1 -1  1 -1 -1 -1  1 -1 / -1 -1  1 -1 -1 -1 -1 -1 -1 /"
    "-1 -1 -1 -1 -1 -1 -1 -1 -1"
)
# "Filters to Detect X Features": a diagonal, the crossing, the other diagonal
X_FILTERS = {"falling": FILTER_1, "crossing": _matrix("1 -1 1 / -1 1 -1 / 1 -1 1"), "rising": FILTER_1[:, ::-1]}

# Lecture 004, "CNNs for Classification": the input volume with a border of zeros, (3, 7, 7). The slide's text kept 12 of its
# 21 rows; the others are those of the demonstration that it shows (CS231n, "Convolutional Networks"), and with them all 18
# numbers of the output come out, where the rows that were kept decide its first row alone.
VOLUME = np.pad(
    np.stack(
        [
            _matrix("0 0 1 0 2 / 1 0 2 0 1 / 1 0 2 2 0 / 2 0 0 2 0 / 2 1 2 2 0"),
            _matrix("2 1 2 1 1 / 2 1 2 0 1 / 0 2 1 0 1 / 1 2 2 2 2 / 0 1 2 0 1"),
            _matrix("2 1 1 2 0 / 1 0 0 1 0 / 0 1 0 0 0 / 1 0 2 1 0 / 2 2 1 1 1"),
        ]
    ),
    ((0, 0), (1, 1), (1, 1)),
)
W0 = np.stack([_matrix("-1 0 1 / 0 0 1 / 1 -1 1"), _matrix("-1 0 1 / 1 -1 1 / 0 1 0"), _matrix("-1 1 1 / 1 1 0 / 0 -1 0")])
W1 = np.stack([_matrix("0 1 -1 / 0 -1 0 / 0 -1 1"), _matrix("-1 0 0 / 1 -1 0 / 1 -1 0"), _matrix("-1 1 -1 / 0 -1 -1 / 1 0 0")])
B0, B1 = 1, 0
OUTPUT_VOLUME = np.stack([_matrix("2 3 3 / 3 7 3 / 8 10 -3"), _matrix("-8 -8 -3 / -3 1 0 / -3 -8 -5")])
