/**
 * sch_plug as Remus sets it up: what the VM's port receives is redirected to an ifb, whose queue is
 * a plug; a released frame re-enters the bridge at the port it came from.
 *
 *   port1 ingress ── mirred redirect ──► ifb0: plug  │ epoch 2 │ epoch 1 │──► port1 ──► bridge
 *                                                   block = a cut      release = the oldest goes
 *
 * The kernel counts frames by position: `block` remembers how many came since the last one and
 * forgets the number before, so a `release` with two sealed epochs in flight lets as many frames go
 * as the *younger* has. `perEpoch` is the cure tried here: one ifb with a plug for each epoch in
 * flight, epoch modulo `devices` picks it, a cut moves the redirect to the next device and a commit
 * opens that device alone. A frame is held whatever it is: frames to members too.
 *
 * Commands are netlink messages of one `tc -batch`, kept open. It says nothing of a command that
 * worked, so each is followed by a question (loopback's queue) whose answer shows that it is done.
 */
import type { Bed } from '../bed/bed.ts';
import { ipBatch } from '../bed/commands.ts';
import type { Hold } from './hold.ts';
import { LineProgram } from './lines.ts';

/** Bytes a plug takes; what comes then is dropped. Its own default is 32 frames on an ifb. */
const LIMIT_BYTES = 1 << 30;

export interface PlugHold extends Hold {
  /** The epoch never happened: its frames are dropped. Only with a device per epoch. */
  discard(epoch: number): Promise<void>;
}

export async function plugHold(bed: Bed, devices = 1): Promise<PlugHold> {
  const port = bed.member(0).port;
  await ipBatch(bed.host, ['link set lo up', ...Array.from({ length: devices }, (_, i) => [`link add ifb${i} numtxqueues 1 numrxqueues 1 type ifb`, `link set ifb${i} up`]).flat()]);
  const tc = new LineProgram(bed.host, 'tc', ['-batch', '-']);
  try {
    await done(tc, [
      ...Array.from({ length: devices }, (_, i) => plug(i)), block(0), `qdisc add dev ${port} ingress`,
      `filter add dev ${port} parent ffff: protocol all prio 1 matchall action ${redirect(0)}`,
    ]);
    return devices === 1 ? onePlug(tc) : perEpoch(tc, devices);
  } catch (error) {
    await tc.close();
    throw error;
  }
}

function onePlug(tc: LineProgram): PlugHold {
  return {
    cut: () => done(tc, [block(0)]),
    commit: () => done(tc, ['qdisc change dev ifb0 root plug release']),
    discard: () => Promise.reject(new Error('one plug has no epochs: it can only drop everything')),
    close: () => tc.close(),
  };
}

/** A device is plugged again when its next epoch opens: by then its queue has run empty. */
function perEpoch(tc: LineProgram, devices: number): PlugHold {
  let open = 1;
  let committed = 0;
  const device = (epoch: number): number => (epoch - 1) % devices;
  return {
    cut: () => {
      if (open - committed >= devices) return Promise.reject(new Error(`${devices} devices hold no more than ${devices} epochs`));
      const next = device(++open);
      return done(tc, [block(next), `action change action ${redirect(next)}`]);
    },
    commit: async (epoch) => {
      while (committed < epoch) await done(tc, [`qdisc change dev ifb${device(++committed)} root plug release_indefinite`]);
    },
    discard: (epoch) => done(tc, [`qdisc del dev ifb${device(epoch)} root`, plug(device(epoch))]),
    close: () => tc.close(),
  };
}

const plug = (device: number): string => `qdisc add dev ifb${device} root plug limit ${LIMIT_BYTES}`;

const block = (device: number): string => `qdisc change dev ifb${device} root plug block`;

/** One action with a number of its own: changed in place, for the next frame. */
const redirect = (device: number): string => `mirred egress redirect dev ifb${device} index 1`;

/** Gives the commands in order; returns when the kernel has taken the last. */
async function done(tc: LineProgram, commands: readonly string[]): Promise<void> {
  for (const command of commands) tc.tell(command);
  await tc.ask('qdisc show dev lo');
}
