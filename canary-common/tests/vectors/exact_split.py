#!/usr/bin/env python3
"""The slow reference of exact splits, and the vectors that the Rust implementation is compared with.

Run it to write `exact_split.txt` beside it. One counter per split gives n. A binary tree of two-way jittered splits maps n
to a version: in a two-way split with weight w of W for the lighter side, the k-th lighter flow sits at a keyed-random place
inside the k-th stratum [ceil(k*W/w), ceil((k+1)*W/w)); the index inside the chosen side goes down the tree."""
import pathlib
import random

SEED = 1
WEIGHTS = (
    [9, 1], [99, 1], [7, 3], [1, 1], [80, 10, 10], [50, 30, 20], [40, 30, 20, 10], [97, 1, 1, 1],
    [64, 16, 8, 4, 4, 2, 1, 1], [5] * 16, [0, 3, 0, 1, 0], [1_000_003, 17], [100, 0], [*range(1, 16), 1000],
    [4_294_967_294, 1], [2_147_483_648, 2_147_483_647], [1] * 64, [3, 1_000_000_000, 7, 999_999_999, 11],
)


def keyed(seed, k):
    m = 2**64 - 1
    x = (k * 0x9E3779B97F4A7C15 + seed * 0xD6E8FEB86659FD93) & m
    x ^= x >> 32
    x = x * 0xD6E8FEB86659FD93 & m
    x ^= x >> 29
    return (x * 0xBF58476D1CE4E5B9 & m) >> 32


def two_way(n, right, total, seed):
    """(is n on the right side, index of n inside its side)"""
    if right in (0, total):
        return right == total, n
    flip = right * 2 > total
    w = total - right if flip else right
    k = n * w // total
    while -(-k * total // w) > n:
        k -= 1
    while -(-(k + 1) * total // w) <= n:
        k += 1
    start, end = -(-k * total // w), -(-(k + 1) * total // w)
    place = start + ((keyed(seed, k) * (end - start)) >> 32)
    if n == place:
        return not flip, k
    return flip, n - k - (n > place)


def tree(weights, ids):
    if len(ids) == 1:
        return ids[0]
    half = len(ids) // 2
    left, right = ids[:half], ids[half:]
    return tree(weights, left), tree(weights, right), sum(weights[i] for i in right), sum(weights[i] for i in ids)


def pick(node, n, seed):
    while isinstance(node, tuple):
        right, n = two_way(n, node[2], node[3], seed)
        node, seed = node[1] if right else node[0], seed * 31 + 7 + right
    return node, n


if __name__ == "__main__":
    dice = random.Random(2)
    lines = ["# Written by exact_split.py. `w` weights; then for each index: index, version, index inside the version."]
    for w in WEIGHTS:
        root = tree(w, sorted(range(len(w)), key=lambda i: -w[i]))
        lines.append("w " + " ".join(map(str, w)))
        large = [2**bits + dice.randrange(-3, 2**bits) for bits in range(12, 50) for _ in range(8)]
        around = [2**32 - 2, 2**32 - 1, 2**32, 2**32 + 1, 2**50]
        for n in [*range(1_000), *around, *large]:
            lines.append("%d %d %d" % (n, *pick(root, n, SEED)))
    pathlib.Path(__file__).with_suffix(".txt").write_text("\n".join(lines) + "\n")
