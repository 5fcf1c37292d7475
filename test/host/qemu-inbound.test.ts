/**
 * The engine's record of what outsiders sent to a group: kept from a checkpoint's mark on, forgotten
 * when that is durable, given to the new side's tap in order; frames of members, of others and to
 * others are none of it.
 */
import { expect, test } from 'vitest';
import { Bed } from '../../bench/bed/bed.ts';
import { namespacePath, sleep } from '../../bench/bed/commands.ts';
import { inNamespace } from '../../bench/bed/libc.ts';
import { macBytes, parseProbe, probeFlow } from '../../bench/bed/probe.ts';
import type { GuestSpec } from '../../checkpoint-hooks/engines/qemu/guest.ts';
import { Inbound, plainMac } from '../../checkpoint-hooks/engines/qemu/inbound.ts';
import { UNPRIVILEGED } from './privilege.ts';

const OLD = 0;
const NEW = 1;
const side = (port: string) => ({ argv: ['qemu'], qmp: '/q', pidFile: '/p', ram: '/r', ports: [port] });

test.skipIf(UNPRIVILEGED !== undefined)(`what came from outside since a checkpoint reaches the new side ${UNPRIVILEGED ?? ''}`, async () => {
  const bed = await Bed.create({ members: ['tap', 'tap'] });
  let record: Inbound | undefined;
  try {
    const { mac } = bed.member(OLD);
    const guests: GuestSpec[] = [{ name: 'm', ramBytes: 1 << 20, nics: [{ mac }], sides: [side(bed.member(OLD).port), side(bed.member(NEW).port)] }];
    const inHost = <T>(job: () => T): T => inNamespace(namespacePath(bed.host), job);
    const opened = inHost(() => Inbound.open(guests));
    record = opened;
    const outside = bed.outside();
    const member = { ...bed.member(OLD).address, mac: macBytes(mac) };
    const stranger = { ...bed.outsider.address, mac: macBytes('02:77:00:00:00:09') };
    const say = async (flow: number): Promise<void> => {
      outside.send(probeFlow(bed.outsider.address, member, flow)(1));
      outside.send(probeFlow(bed.outsider.address, stranger, 90)(1));
      outside.send(probeFlow(member, member, 91)(1)); // who claims a member's address is not kept
      await sleep(20);
    };
    const replayed = async (): Promise<number[]> => {
      const heard: number[] = [];
      bed.tap(NEW).drain(() => undefined);
      const sent = inHost(() => opened.replay(new Map([[plainMac(mac), bed.member(NEW).port]])));
      await sleep(20);
      bed.tap(NEW).drain((frame) => void heard.push(parseProbe(frame)?.flow ?? -1));
      expect(heard.filter((flow) => flow >= 0)).toHaveLength(sent);
      return heard.filter((flow) => flow >= 0);
    };
    await say(1);
    const first = opened.mark();
    await say(2);
    expect(await replayed(), 'no checkpoint is durable').toEqual([1, 2]);
    opened.forget(first);
    expect(await replayed(), 'the first one is').toEqual([2]);
    opened.mark(); // one that never becomes durable
    await say(3);
    expect(await replayed(), 'twice is as good as once').toEqual([2, 3]);
    opened.forget(opened.mark());
    expect(await replayed(), 'all is in the state').toEqual([]);
  } finally {
    record?.close();
    await bed.close();
  }
}, 30_000);
