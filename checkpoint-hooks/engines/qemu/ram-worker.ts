/**
 * One guest's RAM worker: a thread of its own, so that the guests of a group are compared side by
 * side while they are stopped, and none of it waits for the engine's event loop.
 *
 *   short requests (capture, write, settle …)   answered at once
 *   long ones (seed, adopt, bringStandby …)     a piece, then a look for other requests, a piece …
 *
 * A capture may so come between two pieces of a standby's first copy: `settle` brings its pages
 * there as well, and the copy goes on from the shadow as it is now.
 */
import { setImmediate as breath } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { Memory } from './memory.ts';
import { Damaged } from './part.ts';
import type { PartPath } from './part.ts';
import { RamImage, readImage } from './ram-image.ts';
import type { Moved } from './ram-image.ts';
import type { RamAnswer, RamAsked, RamRequest, RamWorkerData } from './ram-protocol.ts';

const port = parentPort;
if (port === null) throw new Error('ram-worker is a thread, not a program');
const options = workerData as RamWorkerData;
const image = new RamImage(options.ram, options.ramBytes);

async function pieceByPiece(work: Generator<void, Moved>): Promise<number> {
  for (;;) {
    const next = work.next();
    if (next.done === true) return next.value.movedBytes;
    await breath();
  }
}

function* restore(ram: string, base: string, parts: readonly PartPath[]): Generator<void, Moved> {
  const to = Memory.file(ram, options.ramBytes);
  try {
    yield* readImage(to, base, parts, options.ramBytes);
    return { movedBytes: options.ramBytes };
  } finally {
    to.unmap();
  }
}

function nothing(work: void): number {
  return work ?? 0;
}

function perform(request: RamRequest): number | Promise<number> {
  switch (request.do) {
    case 'seed': return pieceByPiece(image.seed(request.base));
    case 'adopt': return pieceByPiece(image.adopt(request.base, request.parts));
    case 'capture': return image.capture();
    case 'write': return image.writePart(request.part, request.state);
    case 'settle': return nothing(image.settle());
    case 'bringStandby': return pieceByPiece(image.bringStandby(request.ram));
    case 'dropStandby': return nothing(image.dropStandby());
    case 'turnLive': return nothing(image.turnLive(request.ram));
    case 'restore': return pieceByPiece(restore(request.ram, request.base, request.parts));
    case 'close': return nothing(image.close());
  }
}

async function answer({ id, request }: RamAsked): Promise<RamAnswer> {
  const beganMs = performance.now();
  try {
    const done = perform(request);
    const count = typeof done === 'number' ? done : await done;
    return { id, done: { count, tookMs: performance.now() - beganMs } };
  } catch (error) {
    return { id, failed: error instanceof Error ? error.message : String(error), isDamage: error instanceof Damaged };
  }
}

port.on('message', (asked: RamAsked) => {
  void answer(asked).then((said) => {
    port.postMessage(said);
    if (asked.request.do === 'close') port.close();
  });
});
