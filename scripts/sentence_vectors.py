#!/usr/bin/env python3
"""Makes server/src/embed/local/testdata/sentence_transformers.jsonl: what the library sentence-transformers itself makes of some texts.

The embedder `local` is held to these vectors. They are committed, so nobody needs to run this unless the texts change:

    python3 scripts/sentence_vectors.py          makes them anew
    python3 scripts/sentence_vectors.py --check  makes them and compares them with those that are committed

The model is the one that `make model` fetches. The library comes from PyPI with PyTorch, some five gigabytes, into a virtual
environment in the cache directory, or in the directory that CAIRN_SENTENCE_VENV names; never into the checkout.

The first line says what made the vectors; each other one holds a text and its vector: little-endian f32, in base64.
"""

import base64
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import venv

LIBRARIES = [
    "sentence-transformers==6.2.0",
    "transformers==5.23.0",
    "tokenizers==0.23.3",
    "torch==2.15.0",
    "numpy==2.4.6",
]
ROOT = pathlib.Path(__file__).resolve().parent.parent
VECTORS = ROOT / "server" / "src" / "embed" / "local" / "testdata" / "sentence_transformers.jsonl"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "cairn"
MODEL = pathlib.Path(os.environ.get("CAIRN_MODEL") or CACHE / "models" / "all-MiniLM-L6-v2")
# Of the same library on another machine: sums in another order.
TOLERANCE = 1e-5

STORY = (
    "On the third day of the walk the path left the river and climbed through birch and heather to a pass where somebody had piled "
    "stones into a cairn as tall as a child. Each traveller added one, and nobody took any away. Ada put down her pack, chose a flat "
    "grey slate, and wrote the date on it with a pencil before she laid it on the others. "
)

TEXTS = [
    # Ordinary ones.
    "Ada takes her coffee with oat milk",
    "which milk does Ada take?",
    "The deploy failed because the certificate had expired on Sunday night.",
    "Remember that Tom's daughter Mia turns seven on the 3rd of March.",
    "a",
    "Yes.",
    "42",
    "3.14159 is not 22/7, but -1.5e-7 is close to 0",
    "THE USER PREFERS UPPER CASE!!!",
    "the user prefers upper case",
    # Nothing, or nearly.
    "",
    " ",
    "\n\t \r\n",
    "?",
    "...!?;:,-",
    # Code, markup, addresses.
    "fn main() { println!(\"{}\", 1 + 1); }",
    "{\"kind\": \"preference\", \"topic\": [\"coffee\", null], \"n\": 1e3}",
    "https://example.com/a/b?q=oat%20milk&lang=de#part mail@example.com",
    "SELECT * FROM memories WHERE user_id = 'ada' -- all of them",
    "line one\nline two\n\n\tline three, indented",
    # The tokens that the model itself uses.
    "[CLS] what is [MASK] here [SEP] and [UNK] there [PAD]",
    # Scripts and accents.
    "Zoë's naïve café in Málaga serves crème brûlée; señor Ångström paid 5 €.",
    "Zoe\u0308's nai\u0308ve cafe\u0301, with combining marks",
    "Straße, Übermut und Größe: ÄÖÜ äöü ß ẞ",
    "我喜欢喝燕麦牛奶咖啡。",
    "東京タワーは高さ333メートルです。カタカナとひらがな",
    "안녕하세요, 저는 커피를 좋아합니다",
    "Мария пьёт чёрный кофе без сахара",
    "Η Μαρία πίνει τον καφέ της σκέτο",
    "أحب القهوة بدون سكر",
    "אני אוהב קפה בלי סוכר",
    "मुझे बिना चीनी की कॉफ़ी पसंद है",
    "ฉันชอบกาแฟดำไม่ใส่น้ำตาล",
    "mixed 中文 and English и русский in one line",
    # Emoji and odd characters.
    "☕️🥛😀",
    "great work 👩\u200d💻👍🏽, ship it 🚀🚀🚀",
    "zero\u200bwidth\u200djoined\ufeff soft\u00adhyphen non\u00a0breaking \u2028 separator",
    "control \u0000 \u0007 \u001b[31mred\u001b[0m characters \ufffd",
    "ＦＵＬＬ－ＷＩＤＴＨ ﬁne ﬂigature ½ ² № ℃ ∑(x²) ≤ ∞",
    "private \ue000 use, unassigned \U000e0fff, ancient 𒀀𓀀, maths 𝔸𝓫𝟛",
    # Long ones: a word without an end, just below, at and above the 256 tokens that the model reads, and far above.
    "x" * 99 + " " + "y" * 100 + " " + "z" * 101 + " " + "w" * 500,
    "memory " * 253,
    "memory " * 254,
    "memory " * 255,
    STORY * 4 + "The end is read by nobody: oat milk.",
    STORY * 40,
    "".join(chr(0x4E00 + 7 * place) for place in range(700)),
    "🚀 launch " * 300,
]


def enter_environment():
    """Goes on in the virtual environment, which is made first where it is missing."""
    home = pathlib.Path(os.environ.get("CAIRN_SENTENCE_VENV") or CACHE / "sentence-venv")
    python = home / "bin" / "python"
    if pathlib.Path(sys.prefix) == home.resolve():
        return
    if not (home / "complete").exists():
        print(f"installing sentence-transformers into {home}, some five gigabytes", file=sys.stderr)
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *LIBRARIES], check=True)
        (home / "complete").touch()
    # Nothing is fetched behind our back, and nothing is computed elsewhere than on the processor.
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false")
    os.execv(python, [str(python), *sys.argv])


def make():
    """What made the vectors, and the vector of each text: float32, length 1."""
    import sentence_transformers
    import tokenizers
    import torch
    import transformers

    if not (MODEL / "model.safetensors").exists():
        sys.exit(f"there is no model in {MODEL}; run `make model`")
    model = sentence_transformers.SentenceTransformer(str(MODEL), device="cpu", local_files_only=True)
    # One by one, so that no vector depends on what stands beside it.
    vectors = [model.encode(text, batch_size=1, show_progress_bar=False).astype("<f4") for text in TEXTS]
    made_by = {
        "sentence-transformers": sentence_transformers.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "torch": torch.__version__,
        "model": MODEL.name,
        "weights_sha256": hashlib.sha256((MODEL / "model.safetensors").read_bytes()).hexdigest(),
    }
    return made_by, vectors


def write(made_by, vectors):
    VECTORS.parent.mkdir(exist_ok=True)
    with VECTORS.open("w", encoding="utf-8") as out:
        out.write(json.dumps(made_by) + "\n")
        for text, vector in zip(TEXTS, vectors, strict=True):
            out.write(json.dumps({"text": text, "f32": base64.b64encode(vector.tobytes()).decode("ascii")}) + "\n")
    print(f"{len(vectors)} vectors written by {made_by}")


def check(vectors):
    """Whether the vectors are those that are committed."""
    import numpy

    _, *rows = [json.loads(line) for line in VECTORS.read_text(encoding="utf-8").splitlines()]
    if [row["text"] for row in rows] != TEXTS:
        print("the committed file holds other texts")
        return False
    known = [numpy.frombuffer(base64.b64decode(row["f32"]), "<f4") for row in rows]
    largest = max(float(abs(left - right).max()) for left, right in zip(known, vectors, strict=True))
    print(f"largest difference of {len(known)} vectors: {largest:.2e}")
    return largest <= TOLERANCE


if __name__ == "__main__":
    enter_environment()
    made_by, vectors = make()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if check(vectors) else 1)
    write(made_by, vectors)
