// A mix of adds and searches over gRPC, with k6: nine searches for one add by default.
//
//   k6 run -e CAIRN=127.0.0.1:7480 -e SPACE=loadtest -e ADD_SHARE=0.1 --vus 8 --duration 30s loadtest/mixed.js
//
// It makes the space (384 dimensions, cosine) where it is missing, draws vectors around 64 centres, and fails when any call
// fails or when a search returns fewer hits than it must. Figures depend on k6's own cost: use `cairn-bench` to compare.

import { check } from 'k6';
import { Client, StatusAlreadyExists, StatusOK } from 'k6/net/grpc';
import { Counter, Trend } from 'k6/metrics';

const ADDRESS = __ENV.CAIRN || '127.0.0.1:7480';
const SPACE = __ENV.SPACE || 'loadtest';
const ADD_SHARE = Number(__ENV.ADD_SHARE || '0.1');
const DIMENSION = 384;
const CENTRES = 64;
const SEEDED = 200;

const searches = new Trend('cairn_search_duration', true);
const adds = new Trend('cairn_add_duration', true);
const tooFew = new Counter('cairn_searches_with_too_few_hits');

export const options = {
  thresholds: {
    checks: ['rate==1'],
    cairn_searches_with_too_few_hits: ['count==0'],
  },
};

const client = new Client();
client.load(['../proto'], 'cairn/v1/memory_service.proto', 'cairn/v1/space_service.proto');

let connected = false;

function connect() {
  if (!connected) {
    client.connect(ADDRESS, { plaintext: true });
    connected = true;
  }
}

function call(method, request) {
  return client.invoke(`cairn.v1.${method}`, request);
}

/** Mulberry32: small, seeded, good enough to spread vectors. */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

function vectorNear(centre, random) {
  const around = generator(centre + 1);
  const values = [];
  for (let dimension = 0; dimension < DIMENSION; dimension += 1) {
    values.push(around() - 0.5 + 0.25 * (random() - 0.5));
  }
  return { dense: { values } };
}

function memory(random) {
  const centre = Math.floor(random() * CENTRES);
  return {
    scope: { userId: `user-${centre % 16}` },
    kind: 'fact',
    content: `load test memory near centre ${centre}`,
    metadata: { centre: { integerValue: centre } },
    vectors: [vectorNear(centre, random)],
  };
}

export function setup() {
  connect();
  const space = { name: SPACE, embeddings: [{ dense: { dimension: DIMENSION } }] };
  const made = call('SpaceService/CreateSpace', { space });
  if (made.status !== StatusOK && made.status !== StatusAlreadyExists) {
    throw new Error(`the space was not made: ${JSON.stringify(made.error)}`);
  }
  const random = generator(7);
  const memories = Array.from({ length: SEEDED }, () => memory(random));
  const added = call('MemoryService/AddMemories', { space: SPACE, memories });
  if (added.status !== StatusOK) {
    throw new Error(`the first memories were not added: ${JSON.stringify(added.error)}`);
  }
  client.close();
  connected = false;
}

function add(random) {
  const started = Date.now();
  const response = call('MemoryService/AddMemories', { space: SPACE, memories: [memory(random)] });
  adds.add(Date.now() - started);
  check(response, { 'add is ok': (answer) => answer && answer.status === StatusOK });
}

function search(random) {
  const centre = Math.floor(random() * CENTRES);
  const started = Date.now();
  const response = call('MemoryService/SearchMemories', {
    space: SPACE,
    vectors: { vectors: [vectorNear(centre, random)] },
    limit: 10,
  });
  searches.add(Date.now() - started);
  const ok = check(response, { 'search is ok': (answer) => answer && answer.status === StatusOK });
  if (ok && response.message.hits.length !== 10) {
    tooFew.add(1);
  }
}

export default function () {
  connect();
  const random = generator(__VU * 1000003 + __ITER);
  if (random() < ADD_SHARE) {
    add(random);
  } else {
    search(random);
  }
}
