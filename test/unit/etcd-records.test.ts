/** What is made of the store's keys and values, whoever wrote them. */
import { expect, test } from 'vitest';
import { committedOf } from '../../proxy/core/hosts.ts';
import { epoch, generation } from '../../proxy/core/types.ts';
import type { Head } from '../../proxy/core/types.ts';
import { Keys } from '../../proxy/edge/etcd-keys.ts';
import { RANGE, textOf } from '../../proxy/edge/etcd-messages.ts';
import { Records } from '../../proxy/edge/etcd-records.ts';
import { specFor } from '../sim/hosts-world.ts';

test('what somebody put into the store that is no text costs nobody else theirs', () => {
  const field = (tag: number, bytes: readonly number[]): number[] => [tag, bytes.length, ...bytes];
  const kv = (key: string, value: readonly number[]): number[] => field(0x12, [...field(0x0a, [...Buffer.from(key)]), 0x18, 7, ...field(0x2a, value)]);
  const { kvs } = RANGE.decode(Buffer.from([...kv('/s/groups/a/ack/0000000000000001/h1', [0xff, 0xc3, 0x28]), ...kv('/s/groups/a/ack/0000000000000001/h2', [...Buffer.from('0000000000000009')]), ...field(0x12, [])]));
  expect(kvs.map(({ value }) => textOf(value))).toEqual(['\ufffd\ufffd(', '0000000000000009', '']);
  const odd: string[] = [];
  const records = new Records((key) => odd.push(key));
  const keys = new Keys('/s/');
  for (const one of kvs) {
    const key = textOf(one.key);
    const place = keys.placeOf(key);
    if (place !== undefined && place.kind !== 'host') records.put(place, key, one);
  }
  expect(odd).toEqual(['/s/groups/a/ack/0000000000000001/h1']);
});

test('a key is ours only where we would have written it so: no host has two acks in one life', () => {
  const keys = new Keys('/s/');
  const ack = '/s/groups/a/ack/0000000000000001/h1/ab';
  for (let time = 0; time < 2; time += 1) { // found, and remembered
    expect(keys.placeOf(ack)).toEqual({ kind: 'ack', group: 'a', generation: 1, host: 'h1', life: 'ab' });
    expect(keys.placeOf('/s/groups/a/head')).toEqual({ kind: 'head', group: 'a' });
    expect(keys.placeOf('/s/hosts/h1')).toEqual({ kind: 'host', host: 'h1' });
    for (const other of ['/s/groups/a/ack/1/h1/ab', `${ack}/`, `${ack}/c`, '/s/groups/a/head/', '/s/hosts/h1/x', '/s/groups/a', '/s/', '/s/groups/a/ack/0000000000000NaN/h1/ab', '/s/groups/a/ack/00000000000001.5/h1/ab', '/s/groups/a/ack/000000000001e+21/h1/ab', '/s/groups/a/ack/0000000000000001/h1/']) expect(keys.placeOf(other), other).toBeUndefined();
  }
});

test('a host may have any name that a file may give it', () => {
  const keys = new Keys('/s/');
  const names = ['__proto__', 'constructor', 'h1'];
  const head: Head = { serial: 1, phase: 'protected', generation: generation(1), life: 'ab', begun: 'protect', from: generation(0), start: epoch(0), held: 'discard', spec: { ...specFor(names), group: 'a' } };
  const records = new Records(() => undefined);
  let revision = 0;
  const put = (key: string, value: string): void => {
    const place = keys.placeOf(key);
    if (place === undefined || place.kind === 'host') throw new Error(`${key} is no record`);
    revision += 1;
    records.put(place, key, { key: Buffer.from(key), value: Buffer.from(value), mod_revision: revision });
  };
  put('/s/groups/a/head', JSON.stringify(head));
  expect(committedOf(head, records.viewOf('a')), 'nobody has acked').toBe(0);
  for (const name of names) put(`/s/groups/a/ack/0000000000000001/${name}/ab`, '0000000000000007');
  expect(committedOf(head, records.viewOf('a'))).toBe(7);
  expect(Object.keys(records.viewOf('a').acks).sort()).toEqual([...names].sort());
});
