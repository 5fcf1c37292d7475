/**
 * The kernel's arrays and hashes after a start: an older version's daemon fills hashes alone, and a process can
 * die between the two. Whoever opens the pins makes them equal before any program of his is attached.
 */
import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { MAPS, MARK_MASK_DEFAULT, MARK_SHIFT_DEFAULT, NEAR, PROGRAMS, type Program } from '../../classifier/abi.ts';
import { u32Bytes } from '../../classifier/keys.ts';
import { mapCells } from '../../proxy/edge/ffi/bpf.ts';
import { Kernel } from '../../proxy/edge/kernel.ts';
import { enterOwnNamespace, ownPins } from '../support/own-namespace.ts';
import { UNPRIVILEGED } from './privilege.ts';

describe.skipIf(UNPRIVILEGED !== undefined)('arrays beside hashes', () => {
  const pins = ownPins('near');
  const open = (): Kernel<Program> => new Kernel<Program>({
    object: readFileSync('classifier/classify.bpf.o'), maps: MAPS, programs: PROGRAMS,
    mark: { mask: MARK_MASK_DEFAULT, shift: MARK_SHIFT_DEFAULT }, pinDir: pins.dir, attach: 'auto', owner: 'sluice test',
  });
  const cells = (map: 'near' | 'vlans'): DataView => new DataView(mapCells(`${pins.dir}/${map}`).buffer);
  beforeAll(() => enterOwnNamespace());

  test('a row has its cell while it is there, and every look at the hash puts right what differs', () => {
    const kernel = open();
    try {
      const near = cells('near');
      const nic = (): number => near.getUint32(12 * NEAR.size + NEAR.nic, true);
      kernel.put('ports', u32Bytes(12), 3);
      expect(nic()).toBe(3);
      near.setUint32(12 * NEAR.size + NEAR.nic, 0, true);
      expect(kernel.entries('ports').map(({ value }) => value)).toEqual([3]);
      expect(nic()).toBe(3);
      kernel.remove('ports', u32Bytes(12));
      expect([nic(), kernel.entries('ports')]).toEqual([0, []]);
    } finally {
      kernel.close();
    }
  });

  test('what the hashes had is there again, and what they had not is gone', () => {
    try {
      const first = open();
      first.put('ports', u32Bytes(12), 3);
      first.put('devices', u32Bytes(12), 40);
      first.put('wires', u32Bytes(100), 0);
      first.close();
      cells('near').setUint32(12 * NEAR.size + NEAR.nic, 0, true); // an older version's put
      cells('vlans').setUint32(100 * 8, 0, true);
      cells('near').setUint32(13 * NEAR.size + NEAR.nic, 9, true); // and its remove
      const second = open();
      const near = cells('near');
      expect([12, 13].map((ifindex) => [near.getUint32(ifindex * NEAR.size + NEAR.nic, true), near.getUint32(ifindex * NEAR.size + NEAR.bridge, true)]))
        .toEqual([[3, 40], [0, 0]]);
      expect(cells('vlans').getUint32(100 * 8, true)).toBe(1);
      second.close();
    } finally {
      pins.remove();
    }
  });
});
