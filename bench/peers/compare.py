"""Has Cairn and its peers measured in turns on the same files, and writes the tables with the ratios."""

import argparse
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TARGETS = (0.97, 0.99)
CAIRN = "cairn"
NOTES = "## What loses"


class Process:
    """A system in a process of its own."""

    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ready = self.read()
        self.system = self.ready["system"]
        self.settings = self.ready["settings"]

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self.process.wait()}")
        return json.loads(line)

    def measure(self, setting):
        self.process.stdin.write(setting + "\n")
        self.process.stdin.flush()
        return self.read()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def start(arguments, names):
    """Builds one system after the other. Those that cannot be built are named with the reason."""
    systems, missing = [], []
    for name in names:
        common = ["--corpus", arguments.corpus]
        if name == CAIRN:
            command = [arguments.cairn, "serve", *common]
        elif name == "hnsw_rs":
            command = [arguments.hnsw_rs, *common]
        else:
            command = [sys.executable, str(HERE / "serve.py"), name, *common]
        if name != "hnsw_rs":
            command += ["--threads", str(arguments.threads)]
        if arguments.filters:
            command.append("--filters")
        print(f"building {name}", file=sys.stderr, flush=True)
        try:
            systems.append(Process(name, command))
        except (OSError, RuntimeError, ValueError) as error:
            missing.append((name, str(error)))
    return systems, missing


def run(arguments, systems, suffix=""):
    """In every round, every system takes its turn at each place of its list of settings."""
    rounds = []
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}{suffix}", file=sys.stderr, flush=True)
        measured = {system.system: [] for system in systems}
        for place in range(max(len(system.settings) for system in systems)):
            turn = number % len(systems)
            for system in systems[turn:] + systems[:turn]:
                if place < len(system.settings):
                    measured[system.system].append(system.measure(system.settings[place] + suffix))
        rounds.append(measured)
    return rounds


def at_recall(measured, wanted, speed_of):
    """log(queries/s) between the settings around a recall; nothing beyond them."""
    points = sorted((one["recall_at_10"], speed_of(one)) for one in measured)
    best = None
    for (low, low_speed), (high, high_speed) in zip(points, points[1:]):
        if low <= wanted <= high:
            part = 0 if high == low else (wanted - low) / (high - low)
            speed = math.exp(math.log(low_speed) * (1 - part) + math.log(high_speed) * part)
            best = speed if best is None else max(best, speed)
    return best


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) / (1 << 20)
    kernel = ".".join(platform.release().split(".")[:2])
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {kernel}; load {load} at the end"


def median_of(rounds, system, place, field):
    return statistics.median(one[system][place][field] for one in rounds)


def settings_table(rounds, systems):
    lines = [
        "| system | setting | recall@10 | queries/s, one thread | queries/s, all threads | p50 µs | p99 µs |",
        "|---|---|---|---|---|---|---|",
    ]
    for system in systems:
        for place, one in enumerate(rounds[0][system.system]):
            values = [median_of(rounds, system.system, place, field) for field in ("qps_1_thread", "p50_us", "p99_us")]
            speed, p50, p99 = values
            together = "-"
            if one["qps_all_threads"] is not None:
                together = f"{median_of(rounds, system.system, place, 'qps_all_threads'):,.0f}"
            lines.append(
                f"| {system.system} | {one['setting']} | {one['recall_at_10']:.4f} | {speed:,.0f} | {together} "
                f"| {p50:,.0f} | {p99:,.0f} |"
            )
    return lines


def throughput(measured):
    return measured["qps_1_thread"]


def median_speed(measured):
    """What an undisturbed search gives: a busy machine disturbs the median least."""
    return 1e6 / measured["p50_us"]


def ratio(rounds, own, other, wanted, speed_of):
    pairs = [(at_recall(one[own], wanted, speed_of), at_recall(one[other], wanted, speed_of)) for one in rounds]
    ratios = [a / b for a, b in pairs if a and b]
    if not ratios:
        return "not reached"
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def ratio_table(rounds, systems, own):
    lines = [
        "| Cairn against | queries/s at .97 | at .99 | by medians at .97 | at .99 | build, CPU time | resident bytes per vector |",
        "|---|---|---|---|---|---|---|",
    ]
    cairn = next(system for system in systems if system.system == own)
    for system in systems:
        if system is cairn:
            continue
        kinds = [(wanted, speed_of) for speed_of in (throughput, median_speed) for wanted in TARGETS]
        speeds = " | ".join(ratio(rounds, own, system.system, *kind) for kind in kinds)
        build = system.ready["build_cpu_seconds"] / cairn.ready["build_cpu_seconds"]
        held = cairn.ready["bytes_per_vector"] / system.ready["bytes_per_vector"]
        lines.append(f"| {system.system} | {speeds} | {build:.2f} | {held:.2f} |")
    return lines


def build_table(systems):
    lines = ["| system | seconds | CPU seconds | threads | resident bytes per vector |", "|---|---|---|---|---|"]
    for system in systems:
        ready = system.ready
        lines.append(
            f"| {system.system} | {ready['build_seconds']:.1f} | {ready['build_cpu_seconds']:.1f} "
            f"| {ready['build_threads']} | {ready['bytes_per_vector']:.0f} |"
        )
    return lines


def plain(arguments, systems, missing, json_file):
    own = next(system.system for system in systems if system.name == CAIRN)
    rounds = run(arguments, systems)
    for one in rounds:
        for measured in one.values():
            for line in measured:
                print(json.dumps(line), file=json_file)
    first = systems[0].ready
    lines = [f"## {first['count']:,} x {first['dimension']:,}", ""]
    lines += [f"{arguments.rounds} rounds in turns; medians, and the smallest and largest ratio of a round.", ""]
    lines += ratio_table(rounds, systems, own) + [""] + build_table(systems) + [""] + settings_table(rounds, systems) + [""]
    lines += [f"Left out: {name} ({reason})." for name, reason in missing]
    return lines


def filtered(arguments, systems, json_file):
    lines = []
    for only in ("50%", "1%"):
        rounds = run(arguments, systems, f" {only}")
        for one in rounds:
            for measured in one.values():
                for line in measured:
                    print(json.dumps(line), file=json_file)
        lines += [f"## Only {only} of {systems[0].ready['count']:,} match, by chance", ""]
        lines += settings_table(rounds, systems) + [""]
    return lines


def place(path, text):
    """Puts sections into a file in the place of those with the same heading; new ones stand before the notes at its end."""
    file = Path(path)
    split = lambda whole: re.split(r"(?m)^(?=## )", whole)
    head, *known = split(file.read_text() if file.exists() else "")
    heading = lambda section: section.partition("\n")[0]
    for section in split(text)[1:]:
        same = [at for at, one in enumerate(known) if heading(one) == heading(section)]
        notes = [at for at, one in enumerate(known) if heading(one).startswith(NOTES)]
        at = (same or notes or [len(known)])[0]
        known[at : at + bool(same)] = [section]
    whole = file.with_suffix(".new")
    whole.write_text(head + "".join(known))
    whole.replace(file)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--cairn", required=True, help="the program cairn-bench")
    parser.add_argument("--hnsw-rs", default="cairn-peer-hnsw-rs", help="the program of bench/peers/hnsw_rs")
    parser.add_argument("--systems", default="cairn,hnswlib,faiss-sq8,faiss-fp16,usearch,qdrant,svs,pgvector,hnsw_rs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="threads that build; hnsw_rs has one")
    parser.add_argument("--filters", action="store_true", help="only Cairn and Qdrant, with 50 and 1 percent matching")
    parser.add_argument("--json", default=os.devnull)
    parser.add_argument("--out", default="-", help="a Markdown file, in which the section of that heading is replaced")
    arguments = parser.parse_args()
    names = [CAIRN, "qdrant"] if arguments.filters else arguments.systems.split(",")
    systems, missing = start(arguments, names)
    with open(arguments.json, "a") as json_file:
        if arguments.filters:
            lines = filtered(arguments, systems, json_file)
        else:
            lines = plain(arguments, systems, missing, json_file)
    for system in systems:
        system.end()
    lines.append(f"Machine: {machine()}.")
    text = "\n".join(lines) + "\n\n"
    if arguments.out == "-":
        sys.stdout.write(text)
    else:
        place(arguments.out, text)


if __name__ == "__main__":
    main()
