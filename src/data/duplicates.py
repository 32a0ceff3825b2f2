"""Which files are one picture: equal bytes, or an equal look by perceptual hash, confirmed on thumbnails.

A pair is near where ImageHash's phash (64 bits) differs in at most BITS and the two 16 × 16 grey thumbnails correlate by
at least CORRELATION. Measured, every pair looked at:

- Dogs vs. Cats, 16,000 photographs, 128 million pairs: 19 pairs pass (4 of them equal bytes), and all 19 are the same picture
  or the next shot of one scene. The least alike of them differ by 2 bits and correlate by 0.994; of the 672 other pairs
  within 12 bits the most alike correlate by 0.88. By the hash alone 2 false pairs would pass within 8 bits, 67 within 10.
- CIFAR-10, 12,000 photographs of 32 pixels: 20 pairs, all the same photograph, cropped, tinted or toned anew.
- Found again of altered copies of 300 pictures: resized to a half, to double or squashed to 64 pixels, saved at JPEG quality
  20, made grey, blurred, noisy, darker by 30 %, brighter by 10 grey levels or by 10 %, with a date stamped on: all; brighter
  by 30 % (whites cut off) 98.7 %; cropped by 1 % at each side all, by 2.5 % 85 %, by 5 % 4 %. The originals of 1,000 squashed
  training images: all. Mirrored copies are not looked for.
- MNIST, 12,000 digits of 28 pixels, were it not for SMALLEST: 12,139 pairs, nearly all false. Glyphs are that much alike; a
  set of drawings wants a look at the picture sheet before its near duplicates are dropped.

benchmarks/audit.py measures the first and the third again and draws the pairs.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BITS = 8  # of 64; phash sets half of its bits, so differences are even
CORRELATION = 0.95  # of thumbnails, after taking out brightness and contrast
SMALLEST = 32  # pixels of the shorter side
FLATTEST = 4.0  # grey levels, standard deviation of a thumbnail: below it the hash is the noise of an empty picture
_WINDOWS = 4  # of a hash, 16 bits each
_PAIRS_AT_ONCE = 100_000  # of hashes: 5 MB
_THUMBS = 4096  # thumbnails, or pairs of them, at once: 8 MB
_MOST = 1_000_000  # pairs held at once


def same_picture(facts: np.ndarray) -> np.ndarray:
    """(n,) int64 for (n,) FACTS: files with one number are one picture, directly or by way of others; -1: can't be told."""
    readable = np.flatnonzero(facts["height"] > 0)
    if not len(readable):
        return np.full(len(facts), -1, np.int64)
    _, first, copy = np.unique(facts["digest"][readable], axis=0, return_index=True, return_inverse=True)
    different = readable[first]  # one of each set of equal bytes
    equal = np.column_stack([readable, different[copy.ravel()]])
    number = components(len(facts), np.concatenate([equal, near_pairs(facts, different)]))
    number[facts["height"] <= 0] = -1
    return number


def near_pairs(facts: np.ndarray, among: np.ndarray, bits: int = BITS, least: float = CORRELATION) -> np.ndarray:
    """(m, 2) places in facts of pairs that look alike: all of them, or where they are very many, enough to connect them.

    among: (k,) int64, the places to look at; bits: the most that may differ, of 64; least: the correlation that the
    thumbnails need.
    """
    among = among[np.minimum(facts["height"], facts["width"])[among] >= SMALLEST]
    blocks = (among[start : start + _THUMBS] for start in range(0, len(among), _THUMBS))
    varied = [block[facts["thumb"][block].std(axis=(1, 2)) >= FLATTEST] for block in blocks]
    fit = np.concatenate([np.empty(0, np.int64), *varied])
    found, held = [np.empty((0, 2), np.int64)], 0
    for suspects in _close_hashes(facts["hash"][fit], bits):
        one, other = fit[suspects].T
        alike = correlation(facts["thumb"][one], facts["thumb"][other]) >= least
        found.append(fit[suspects[alike]])
        held += len(found[-1])
        if held > _MOST:  # thousands of copies of one picture: any tree that connects them says as much
            label = components(len(facts), np.concatenate(found))
            _, first = np.unique(label, return_index=True)
            tree = np.column_stack([np.arange(len(facts)), first[label]])
            found = [tree[tree[:, 0] != tree[:, 1]]]
            held = len(found[0])
    return np.concatenate(found)


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """(count,) numbers of the connected components that (m, 2) pairs make of `count` things."""
    edges = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(edges, directed=False)[1].astype(np.int64)


def differing_bits(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Hamming distance of uint64 hashes."""
    return np.bitwise_count(one ^ other)


def correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(m,) Pearson correlation of (m, 16, 16) uint8 thumbnails, pair by pair; 0 where one of them is flat."""
    a, b = (_centred(thumbs.reshape(len(thumbs), -1)) for thumbs in (one, other))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.einsum("ij,ij->i", a, b) / np.maximum(norms, 1e-6)


def _centred(pixels: np.ndarray) -> np.ndarray:
    return pixels - pixels.mean(axis=1, keepdims=True, dtype=np.float32)


def _close_hashes(hashes: np.ndarray, bits: int) -> Iterator[np.ndarray]:
    """(m, 2) places of every pair within `bits` of each other, once; m is at most _THUMBS.

    Hashes within 8 bits of each other differ in at most 2 bits of their first window of 16, or in at most 1 bit of one of
    the other three: more everywhere would be 9. So only hashes with such windows are compared, 1 pair of 150 of photographs,
    but nearly all pairs where the pictures are much alike, as scans on one background are (Norouzi et al. 2012, "Fast Search
    in Hamming Space with Multi-Index Hashing").
    """
    windows = _windows(hashes)
    radii = [(bits + _WINDOWS - number) // _WINDOWS - 1 for number in range(_WINDOWS)]
    for number, radius in enumerate(radii):
        for pairs in _close_windows(windows[number], radius):
            one, other = pairs.T
            close = differing_bits(hashes[one], hashes[other]) <= bits
            for before in range(number):  # an earlier window has told of them
                close[close] = differing_bits(*windows[before][pairs[close].T]) > radii[before]
            pairs = pairs[close]
            yield from (pairs[start : start + _THUMBS] for start in range(0, len(pairs), _THUMBS))


def _windows(hashes: np.ndarray) -> np.ndarray:
    """(4, n) uint16: every fourth bit of (n,) uint64, as neighbouring bits of a phash are alike."""
    bits = np.unpackbits(hashes.view(np.uint8).reshape(len(hashes), 8), axis=1)
    return np.stack([np.packbits(bits[:, first::_WINDOWS], axis=1).view(np.uint16)[:, 0] for first in range(_WINDOWS)])


def _close_windows(keys: np.ndarray, radius: int) -> Iterator[np.ndarray]:
    """(m, 2) places of every pair of (n,) uint16 within `radius` bits of each other, once, so many at a time."""
    order = np.argsort(keys)
    keys = keys[order].astype(np.int64)
    first = np.searchsorted(keys, np.arange(2**16 + 1))
    places = np.arange(len(keys))
    for difference in range(2**16):
        if difference.bit_count() > radius:
            continue
        starts, ends = first[keys ^ difference], first[(keys ^ difference) + 1]
        starts = np.maximum(starts, places + 1)  # the other one of a pair stands behind
        yield from (order[pairs] for pairs in _ranges(starts, np.maximum(starts, ends)))


def _ranges(starts: np.ndarray, ends: np.ndarray) -> Iterator[np.ndarray]:
    """(m, 2): each place with every number from its start to before its end; m is about _PAIRS_AT_ONCE, by whole places."""
    counts = ends - starts
    until = np.cumsum(counts)
    cuts = np.searchsorted(until, np.arange(_PAIRS_AT_ONCE, counts.sum(), _PAIRS_AT_ONCE))
    for places in np.split(np.arange(len(counts)), cuts):
        place = np.repeat(places, counts[places])
        passed = np.cumsum(counts[places]) - counts[places]
        yield np.column_stack([place, np.arange(len(place)) + np.repeat(starts[places] - passed, counts[places])])


# Rows

Finding = tuple[int, str, str, int]  # row, kind, detail, row of the twin or -1
_LOOKED_AT = 256  # members of a group that a row is compared with, to tell of the one most like it


def duplicate_findings(rows: pd.DataFrame, facts: np.ndarray, picture: np.ndarray) -> Iterator[Finding]:
    """exact_duplicate, near_duplicate, label_conflict and leak among rows (part, id, path, label, file, numbered through).

    picture: same_picture's numbers of the files. Of k rows with one picture k - 1 are duplicates, each told with the one
    before it that is most like it; in a label conflict every row is told, and in a leak every training row.
    """
    number = pd.Series(picture[rows["file"]], rows.index)
    shared = number[(number >= 0) & number.duplicated(keep=False)]
    test = (rows["part"] == "test").to_numpy()
    label, file = rows["label"].to_numpy(object), rows["file"].to_numpy()
    for _, members in shared.groupby(shared):
        group = members.index.to_numpy()
        training = group[~test[group]]
        yield from _repeats(file, facts, training)
        yield from _repeats(file, facts, group[test[group]])
        for row in training:
            if test[group].any():
                twin, said, _ = _closest(file, facts, row, group[test[group]])
                yield int(row), "leak", said, twin
            if (label[training] != label[row]).any():
                twin, said, _ = _closest(file, facts, row, training[label[training] != label[row]])
                yield int(row), "label_conflict", f"{label[row]!r} here, {label[twin]!r} there: {said}", twin


def merged_groups(training: pd.DataFrame, picture: np.ndarray) -> np.ndarray:
    """(n,) object: the name of each training row's group, made of the table's own groups and of the duplicates; "" alone.

    Where a picture stands in two of the table's groups, they become one, under the first one's name.
    """
    number, own = picture[training["file"]], training["group"].to_numpy(object)
    codes, names = pd.factorize(own)
    rows = np.arange(len(training))
    offset, count = len(rows), len(rows) + len(picture) + len(names)
    by_picture = np.column_stack([rows, offset + number])[number >= 0]
    by_group = np.column_stack([rows, offset + len(picture) + codes])[own != ""]
    member = components(count, np.concatenate([by_picture, by_group]))[: len(rows)]
    # The name that comes first: one of the table's own, or else the first row's id.
    title = pd.Series(np.where(own != "", own, None)).groupby(member).transform("first")
    first = training["id"].reset_index(drop=True).groupby(member).transform("first")
    alone = pd.Series(rows).groupby(member).transform("size") == 1
    return title.where(title.notna(), ("duplicates of " + first).where(~alone, "")).to_numpy(object)


def _repeats(file: np.ndarray, facts: np.ndarray, group: np.ndarray) -> Iterator[Finding]:
    """Rows of one part with one picture: each but the first. A second row of one file is a shared path, told elsewhere."""
    _, first = np.unique(file[group], return_index=True)
    distinct = group[np.sort(first)]
    for place, row in enumerate(distinct[1:], 1):
        twin, said, exact = _closest(file, facts, row, distinct[:place])
        yield int(row), "exact_duplicate" if exact else "near_duplicate", said, twin


def _closest(file: np.ndarray, facts: np.ndarray, row: int, others: np.ndarray) -> tuple[int, str, bool]:
    """(which of the other rows looks most like this one, in words how much, whether their bytes are equal)."""
    others = others[:_LOOKED_AT]
    mine, theirs = facts[file[row]], facts[file[others]]
    same_file = file[others] == file[row]
    exact = (theirs["digest"] == mine["digest"]).all(axis=1)
    alike = correlation(np.broadcast_to(mine["thumb"], theirs["thumb"].shape), theirs["thumb"])
    best = int(np.argmax(alike + 2 * exact + 2 * same_file))
    if same_file[best]:
        return int(others[best]), "the same file", True
    if exact[best]:
        return int(others[best]), "the same bytes", True
    bits = differing_bits(mine["hash"], theirs["hash"][best])
    return int(others[best]), f"{bits} of 64 hash bits differ, correlation {alike[best]:.3f}", False
