import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import koffi from 'koffi';
import { expect, test } from 'vitest';
import { LITTLE, Struct, fixedBytes } from '../../proxy/edge/ffi/struct.ts';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** A struct, and a look at what it points to that keeps nothing alive. */
function pointing(): { struct: Struct | undefined; readonly target: WeakRef<Uint8Array> } {
  const target = fixedBytes(64).fill(7);
  return { struct: new Struct(16).u32(0, 64).pointer(8, target), target: new WeakRef(target) };
}
async function collected(): Promise<void> {
  await sleep(1); // a WeakRef keeps its target until the turn ends
  collect();
}

test('what a struct points to lives as long as the struct, and no longer', async () => {
  const seen = pointing();
  await collected();
  expect(seen.target.deref()).toEqual(new Uint8Array(64).fill(7));
  seen.struct = undefined;
  await collected();
  expect(seen.target.deref()).toBeUndefined();
});

test('a struct is its bytes, at the address that the call is given', () => {
  const target = fixedBytes(3);
  target.set([1, 2, 3]);
  const struct = new Struct(24).u32(0, 0xffff_fffe).u64(8, 2 ** 40).pointer(16, target);
  expect(struct.read32(0)).toBe(0xffff_fffe);
  expect(struct.cells.getBigUint64(8, LITTLE)).toBe(1n << 40n);
  expect(koffi.decode(struct.cells.getBigUint64(16, LITTLE), 'uint8_t', 3)).toEqual(target);
  expect(struct.pointer(16, undefined).cells.getBigUint64(16, LITTLE)).toBe(0n);
  expect(struct.subarray(0, 4)).not.toBeInstanceOf(Struct);
});
