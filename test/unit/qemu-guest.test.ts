import { describe, expect, test } from 'vitest';
import { memberAt, mustGuests } from '../../checkpoint-hooks/engines/qemu/guest.ts';

const side = (n: number, ports = [`tap${n}`]): object => ({ argv: ['qemu-system-x86_64'], qmp: `/run/${n}.qmp`, pidFile: `/run/${n}.pid`, ram: `/dev/shm/${n}`, ports });
const guest = (name: string, more: object = {}): object => ({
  name, ramBytes: 72 << 20, nics: [{ mac: '02:00:00:00:00:01', vlan: 7, addresses: ['10.0.0.1'] }], sides: [side(0), side(1)], ...more,
});
const group = (...guests: object[]): object => ({ group: 'web', guests });

describe('a file of guests', () => {
  test('a guest is the member whose port is the running side\'s tap', () => {
    const [front] = mustGuests(group(guest('front'))).guests;
    if (front === undefined) throw new Error('no guest');
    expect(memberAt(front, 0)).toEqual({ name: 'front', nics: [{ port: 'tap0', mac: '02:00:00:00:00:01', vlan: 7, addresses: ['10.0.0.1'] }] });
    expect(memberAt(front, 1).nics?.[0]?.port).toBe('tap1');
  });

  test.each([
    ['two of one name', group(guest('a'), guest('a')), /one name/],
    ['a side with a port too few', group(guest('a', { sides: [side(0), side(1, ['x', 'y'])] })), /one port for each/],
    ['one side', group(guest('a', { sides: [side(0)] })), /sides/],
    ['half a page', group(guest('a', { ramBytes: (72 << 20) + 1 })), /ramBytes/],
    ['a field nobody knows', group(guest('a', { ram: 1 })), /ram/],
  ])('refused: %s', (_what, file, why) => {
    expect(() => mustGuests(file)).toThrow(why);
  });
});
