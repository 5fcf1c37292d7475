/**
 * The gate of the daemon: the classifier's object from the package, the kernel of this namespace,
 * and the errors of both in the words that control understands.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { MAPS, PROGRAMS } from '../classifier/abi.ts';
import { KernelGate } from '../classifier/attach.ts';
import type { Config } from './config.ts';
import { Kernel } from './edge/kernel.ts';
import { EdgeError } from './ports.ts';
import type { Gate } from './ports.ts';

export interface OpenGate {
  /** Watching, clearing away, counters. */
  readonly keeper: KernelGate;
  /** What control sees of it: the same, its operating errors as EdgeError. */
  readonly gate: Gate;
  readonly attachMode: 'tcx' | 'clsact';
  /** Devices of the namespace, for the announcer. */
  readonly devices: { links(): readonly { readonly ifindex: number; readonly master: number }[] };
  /** Pinned maps that the hold worker shares with the kernel. They are there until `settle`. */
  readonly cellPins: { readonly groups: string; readonly nics: string };
}

/** A file of the package, from the sources or from dist/. */
export function packageFile(name: string): string {
  let at = import.meta.dirname;
  while (!existsSync(join(at, 'package.json'))) {
    if (at === dirname(at)) throw new EdgeError('plane_down', `${name} of the package is not found`, 'install sluice again');
    at = dirname(at);
  }
  return join(at, name);
}

export function openGate(config: Config, pins: string): OpenGate {
  const kernel = new Kernel({
    object: readFileSync(packageFile('classifier/classify.bpf.o')),
    maps: MAPS,
    programs: PROGRAMS,
    mark: { mask: config.mark.mask, shift: 31 - Math.clz32(config.mark.mask & -config.mark.mask) },
    pinDir: pins,
    attach: config.attach,
    owner: `sluice ${pins}`,
  });
  const keeper = new KernelGate(kernel, (code, message, fix, cause) => new EdgeError(code, message, fix, cause));
  return {
    keeper,
    gate: guarded(keeper),
    attachMode: kernel.attachMode,
    devices: { links: () => kernel.ports() },
    cellPins: { groups: `${pins}/groups`, nics: `${pins}/nics` },
  };
}

/** A call of the system that failed is an operating error; anything else stays a fault of the program. */
async function understood<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof Error) || error instanceof EdgeError) throw error;
    if ('fix' in error && typeof error.fix === 'string') throw new EdgeError('plane_down', error.message, error.fix, error);
    if (error.name === 'SystemError') throw new EdgeError('plane_down', error.message, 'sluice doctor looks for the cause', error);
    throw error;
  }
}

function guarded(keeper: KernelGate): Gate {
  return {
    attach: (id, spec, colour, members) => understood(keeper.attach(id, spec, colour, members)),
    reattach: (id, spec, members) => understood(keeper.reattach(id, spec, members)),
    detach: (id) => understood(keeper.detach(id)),
    setColour: (id, colour) => keeper.setColour(id, colour),
    setMemberColour: (id, member, colour) => keeper.setMemberColour(id, member, colour),
    setCommit: (id, colour) => keeper.setCommit(id, colour),
    setReady: (id, member) => keeper.setReady(id, member),
    setDraining: (id, member) => keeper.setDraining(id, member),
  };
}
