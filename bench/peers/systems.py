"""How each library is built and asked. Vectors have length 1, and the inner product is the score."""

import os
import tempfile

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
    settings = [16, 24, 32, 48, 64, 96, 128, 192, 256]

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
        for number, query in enumerate(queries):
            request = q.SearchRequest(
                query=q.Query.Nearest(query.tolist()), limit=NEIGHBOURS, params=self.params, filter=chosen
            )
            hits = self.shard.search(request)
            found[number, : len(hits)] = [hit.id for hit in hits]
        return found


SYSTEMS = {
    "hnswlib": Hnswlib,
    "faiss-sq8": lambda: Faiss("sq8"),
    "faiss-fp16": lambda: Faiss("fp16"),
    "usearch": Usearch,
    "qdrant": Qdrant,
}
