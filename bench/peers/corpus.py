"""Makes larger inputs and other dimensions from a corpus, with exact neighbours.

--dimension D: D/384 pieces a vector, each the vector of another row (drawn by a fixed seed, the first is the row's own), weighted 1, 1/2,
1/3, ... and brought to length 1; queries likewise, with rows drawn from the queries. So the pieces are real, and the intrinsic
dimension is higher than the corpus's own.

--count N: beyond the corpus's own rows, row + 0.35 * (other row - another row), brought to length 1: a real vector, moved along a
real difference.

--by-topic: the rows in 512 clusters (k-means by faiss), each beside the nearest of those that are left: as notes are that are written topic
by topic.

The neighbours are found by comparing each query with all float16 vectors in 32 bits, and the best 200 of that again in 64.
"""

import argparse
from pathlib import Path

import numpy as np

NEIGHBOURS = 100
CANDIDATES = 200


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def widened(rows, dimension, random):
    pieces = dimension // rows.shape[1]
    assert pieces * rows.shape[1] == dimension, "a multiple of the corpus's dimension"
    order = [np.arange(len(rows))] + [random.permutation(len(rows)) for _ in range(pieces - 1)]
    return unit(np.concatenate([rows[part] / (number + 1) for number, part in enumerate(order)], axis=1))


def lengthened(rows, count, random):
    parts = [rows]
    missing = count - len(rows)
    while missing > 0:
        take = min(missing, 100_000)
        row, to, other = (random.integers(len(rows), size=take) for _ in range(3))
        parts.append(unit(rows[row] + 0.35 * (rows[to] - rows[other])))
        missing -= take
    return np.concatenate(parts)[:count]


def by_topic(rows, clusters=512):
    import faiss

    means = faiss.Kmeans(rows.shape[1], clusters, niter=8, seed=1, max_points_per_centroid=200)
    means.train(rows)
    cluster_of = means.index.search(rows, 1)[1][:, 0]
    left, chain = set(range(1, clusters)), [0]
    while left:
        others = sorted(left)
        chain.append(others[int(np.argmax(means.centroids[others] @ means.centroids[chain[-1]]))])
        left.remove(chain[-1])
    rank = np.argsort(chain)
    return rows[np.argsort(rank[cluster_of], kind="stable")]


def nearest(base, queries):
    found = np.empty((len(queries), NEIGHBOURS), dtype=np.int32)
    best_scores = np.full((len(queries), CANDIDATES), -np.inf, dtype=np.float32)
    best = np.zeros((len(queries), CANDIDATES), dtype=np.int64)
    for start in range(0, len(base), 50_000):
        block = base[start : start + 50_000].astype(np.float32)
        scores = queries.astype(np.float32) @ block.T
        take = min(CANDIDATES, scores.shape[1])
        top = np.argpartition(-scores, take - 1, axis=1)[:, :take]
        all_scores = np.concatenate([best_scores, np.take_along_axis(scores, top, axis=1)], axis=1)
        all_rows = np.concatenate([best, top + start], axis=1)
        keep = np.argpartition(-all_scores, CANDIDATES - 1, axis=1)[:, :CANDIDATES]
        best_scores = np.take_along_axis(all_scores, keep, axis=1)
        best = np.take_along_axis(all_rows, keep, axis=1)
    for number, (query, rows) in enumerate(zip(queries.astype(np.float64), best)):
        scores = base[rows].astype(np.float64) @ query
        found[number] = rows[np.lexsort((rows, -scores))][:NEIGHBOURS]
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--dimension", type=int)
    parser.add_argument("--count", type=int)
    parser.add_argument("--by-topic", action="store_true")
    parser.add_argument("--queries", type=int, default=1000)
    arguments = parser.parse_args()
    folder, out = Path(arguments.corpus), Path(arguments.out)
    base = np.load(folder / "base.f16.npy").astype(np.float32)
    queries = np.load(folder / "queries.f16.npy").astype(np.float32)[: arguments.queries]
    random = np.random.default_rng(1)
    if arguments.dimension:
        base, queries = (widened(rows, arguments.dimension, random) for rows in (base, queries))
    if arguments.count:
        base = lengthened(base, arguments.count, random)
    if arguments.by_topic:
        base = by_topic(base)
    base, queries = base.astype(np.float16), queries.astype(np.float16)
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "base.f16.npy", base)
    np.save(out / "queries.f16.npy", queries)
    np.save(out / "gt100.i32.npy", nearest(base, queries))


if __name__ == "__main__":
    main()
