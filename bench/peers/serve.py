"""Builds one library's index over a corpus, then measures: a setting for each line of input, a JSON object for each of output."""

import argparse
import json
import os
import resource
import sys
import time

import numpy as np

from systems import NEIGHBOURS, SYSTEMS


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def recall(found, truth):
    hits = [len(set(row.tolist()) & set(true.tolist())) for row, true in zip(found, truth)]
    return sum(hits) / (len(truth) * truth.shape[1])


def labels_of(count):
    """As `cairn-bench filters` gives them by chance."""
    mixed = (np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(11)
    part = mixed.astype(np.float64) / float(1 << 53)
    return [[f"{percent}%" for percent in (50, 1) if value < percent / 100] for value in part]


def filtered_truth(base, queries, labels, only):
    matching = np.array([row for row, own in enumerate(labels) if only in own])
    scores = queries @ base[matching].T
    best = np.argpartition(-scores, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return matching[best]


def all_threads(system, queries, setting, extra):
    """Queries a second on all cores at once; None where the library has no searches on several threads of one process."""
    if not getattr(system, "is_threaded", True):
        return None
    start = time.perf_counter()
    system.search(queries, setting, threads=os.cpu_count(), **extra)
    return len(queries) / (time.perf_counter() - start)


def measure(system, queries, truth, setting, only):
    extra = {} if only is None else {"only": only}
    system.prepare(setting)
    start = time.perf_counter()
    found = system.search(queries, setting, **extra)
    seconds = time.perf_counter() - start
    times = []
    for number in range(0, len(queries), 4):
        begin = time.perf_counter()
        system.search(queries[number : number + 1], setting, **extra)
        times.append((time.perf_counter() - begin) * 1e6)
    return {
        "setting": str(setting) if only is None else f"{setting} only {only}",
        "recall_at_10": recall(found, truth),
        "qps_1_thread": len(queries) / seconds,
        "qps_all_threads": all_threads(system, queries, setting, extra),
        "p50_us": float(np.percentile(times, 50)),
        "p99_us": float(np.percentile(times, 99)),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--threads", type=int, default=1, help="threads that build")
    parser.add_argument("--filters", action="store_true", help="give labels, and measure the settings with them too")
    arguments = parser.parse_args()
    base = np.ascontiguousarray(np.load(f"{arguments.corpus}/base.f16.npy"), dtype=np.float32)
    queries = np.ascontiguousarray(np.load(f"{arguments.corpus}/queries.f16.npy"), dtype=np.float32)
    truth = np.load(f"{arguments.corpus}/gt100.i32.npy")[:, :NEIGHBOURS]
    labels = labels_of(len(base)) if arguments.filters else None
    system = SYSTEMS[arguments.system]()
    before, cpu_before, start = resident_bytes(), cpu_seconds(), time.perf_counter()
    system.build(base, arguments.threads, labels)
    seconds, cpu, held = time.perf_counter() - start, cpu_seconds() - cpu_before, resident_bytes() - before
    # A system in processes of its own knows better.
    if hasattr(system, "cpu_seconds"):
        cpu += system.cpu_seconds()
    build = {
        "build_seconds": seconds,
        "build_cpu_seconds": cpu,
        "build_threads": arguments.threads,
        "bytes_per_vector": getattr(system, "bytes", held) / len(base),
    }
    common = {"system": system.name, "dimension": base.shape[1], "count": len(base), **build}
    truths = {None: truth}
    if labels is not None:
        truths |= {only: filtered_truth(base, queries, labels, only) for only in ("50%", "1%")}
    del base  # with a million vectors it is 1.5 GB
    print(json.dumps({**common, "settings": [str(setting) for setting in system.settings]}), flush=True)
    try:
        for line in sys.stdin:
            setting, only = (line.split() + [None])[:2]
            print(json.dumps({**common, **measure(system, queries, truths[only], int(setting), only)}), flush=True)
    finally:
        if hasattr(system, "close"):
            system.close()


if __name__ == "__main__":
    main()
