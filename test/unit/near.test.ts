import { describe, expect, test } from 'vitest';
import { NEAR, NEAR_MAX, VLANS_MAX } from '../../classifier/abi.ts';
import { Near } from '../../proxy/edge/near.ts';

/** The arrays beside the hashes: which cell a row has, and that a mirror leaves nothing of before. */
function made(): { near: Near; places: DataView; vlans: DataView } {
  const [places, vlans] = [new ArrayBuffer(NEAR_MAX * NEAR.size), new ArrayBuffer(VLANS_MAX * 8)];
  return { near: new Near(places, vlans), places: new DataView(places), vlans: new DataView(vlans) };
}
const filled = ({ places, vlans }: { places: DataView; vlans: DataView }): number =>
  [places, vlans].flatMap((view) => [...new Uint8Array(view.buffer)]).filter((byte) => byte !== 0).length;

describe('the arrays beside the hashes', () => {
  test('a port and a device share a cell, and neither takes the other with it', () => {
    const { near, places } = made();
    near.put('ports', { key: 7, value: 11 });
    near.put('devices', { key: 7, value: 300 });
    expect([places.getUint32(7 * NEAR.size + NEAR.nic, true), places.getUint32(7 * NEAR.size + NEAR.bridge, true)]).toEqual([11, 300]);
    near.remove('ports', 7);
    expect([places.getUint32(7 * NEAR.size + NEAR.nic, true), places.getUint32(7 * NEAR.size + NEAR.bridge, true)]).toEqual([0, 300]);
  });

  test('group 0 on a VLAN is not the same as none', () => {
    const { near, vlans } = made();
    near.put('wires', { key: 4094, value: 0 });
    expect(vlans.getUint32(4094 * 8, true)).toBe(1);
    near.remove('wires', 4094);
    expect(vlans.getUint32(4094 * 8, true)).toBe(0);
  });

  test('the last index has a cell; beyond it, and in other tables, nothing is written', () => {
    const all = made();
    all.near.put('ports', { key: NEAR_MAX, value: 1 });
    all.near.put('devices', { key: 2 ** 31, value: 1 });
    all.near.put('vnis', { key: 5, value: 1 });
    all.near.put('macs', { key: 5, value: 1 });
    expect(filled(all)).toBe(0);
    all.near.put('ports', { key: NEAR_MAX - 1, value: 9 });
    expect(all.places.getUint32((NEAR_MAX - 1) * NEAR.size + NEAR.nic, true)).toBe(9);
  });

  test('a mirror makes the cells what the hash says, and leaves the neighbours alone', () => {
    const all = made();
    for (const key of [1, 2, NEAR_MAX - 1]) all.near.put('ports', { key, value: 5 });
    all.near.put('devices', { key: 2, value: 70 });
    all.near.mirror('ports', [{ key: 3, value: 6 }, { key: NEAR_MAX + 3, value: 8 }]);
    expect(filled(all)).toBe(2);
    expect([all.places.getUint32(3 * NEAR.size + NEAR.nic, true), all.places.getUint32(2 * NEAR.size + NEAR.bridge, true)]).toEqual([6, 70]);
  });
});
