/**
 * libbpf as the edge uses it: load the kernel object over pinned maps, and the older way to attach
 * a program (clsact) where the kernel has no tcx.
 *
 *   bytes ─ open_mem ─ set .rodata ─ set pin paths ─ load ─► programs and maps, by name
 *                                        │
 *                                        └ a map that is pinned there already is taken over as it
 *                                          is (its contents too), else it is made and pinned
 *
 * The library is opened at the first use, so that a machine without it can still be told so in
 * one sentence. libbpf itself prints nothing; what it would have said is in the error.
 */
import koffi from 'koffi';
import type { LibraryHandle } from 'koffi';
import { readdirSync } from 'node:fs';
import { objectGet } from './bpf.ts';
import { SystemError, errno } from './libc.ts';
import { LITTLE, Struct, fixedBytes } from './struct.ts';

/** What is missing on this machine, and what to do about it. */
export class MissingPart extends Error {
  override readonly name = 'MissingPart';
  readonly fix: string;
  constructor(message: string, fix: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.fix = fix;
  }
}

type Pointer = bigint;
type Func = ReturnType<LibraryHandle['func']>;
interface Library {
  readonly open: (bytes: Uint8Array, length: number, options: Uint8Array) => Pointer | null;
  readonly load: (object: Pointer) => number;
  readonly close: (object: Pointer) => void;
  readonly findMap: (object: Pointer, name: string) => Pointer | null;
  readonly findProgram: (object: Pointer, name: string) => Pointer | null;
  readonly mapFd: (map: Pointer) => number;
  readonly setPinPath: (map: Pointer, path: string) => number;
  readonly setInitialValue: (map: Pointer, value: Uint8Array, length: number) => number;
  readonly programFd: (program: Pointer) => number;
  readonly hookCreate: (hook: Uint8Array) => number;
  readonly tcAttach: (hook: Uint8Array, options: Uint8Array) => number;
  readonly tcDetach: (hook: Uint8Array, options: Uint8Array) => number;
  readonly tcQuery: (hook: Uint8Array, options: Uint8Array) => number;
}

function openLibrary(): LibraryHandle {
  try {
    return koffi.load('libbpf.so.1');
  } catch (cause) {
    throw new MissingPart('libbpf.so.1 is not installed', 'apt-get install libbpf1', cause);
  }
}

let opened: Library | undefined;
function library(): Library {
  if (opened !== undefined) return opened;
  const lib = openLibrary();
  const f = (name: string, result: string, args: string[]): Func => lib.func(name, result, args);
  const bytes = 'uint8_t *';
  f('libbpf_set_print', 'void *', ['void *'])(null);
  opened = {
    open: f('bpf_object__open_mem', 'void *', [bytes, 'size_t', bytes]),
    load: f('bpf_object__load', 'int', ['void *']),
    close: f('bpf_object__close', 'void', ['void *']),
    findMap: f('bpf_object__find_map_by_name', 'void *', ['void *', 'str']),
    findProgram: f('bpf_object__find_program_by_name', 'void *', ['void *', 'str']),
    mapFd: f('bpf_map__fd', 'int', ['void *']),
    setPinPath: f('bpf_map__set_pin_path', 'int', ['void *', 'str']),
    setInitialValue: f('bpf_map__set_initial_value', 'int', ['void *', bytes, 'size_t']),
    programFd: f('bpf_program__fd', 'int', ['void *']),
    hookCreate: f('bpf_tc_hook_create', 'int', [bytes]),
    tcAttach: f('bpf_tc_attach', 'int', [bytes, bytes]),
    tcDetach: f('bpf_tc_detach', 'int', [bytes, bytes]),
    tcQuery: f('bpf_tc_query', 'int', [bytes, bytes]),
  };
  return opened;
}

// -------------------------------------------------------------------------------------- object

export interface LoadOptions {
  /** Directory on a bpf file system; maps are pinned there under their names. */
  readonly pinDir: string;
  readonly maps: readonly string[];
  readonly programs: readonly string[];
  /** Contents of .rodata. */
  readonly rodata: Uint8Array;
}
export interface LoadedObject {
  /** Descriptors by name; they stay open until `close`. */
  readonly maps: ReadonlyMap<string, number>;
  readonly programs: ReadonlyMap<string, number>;
  close(): void;
}

const LOG_BYTES = 1 << 16;
const OPEN_OPTIONS = { bytes: 80, objectName: 8, logBuffer: 56, logSize: 64, logLevel: 72 } as const;

interface OpenOptions {
  readonly struct: Struct;
  readonly log: Uint8Array;
}
function openOptions(): OpenOptions {
  const name = fixedBytes(8);
  name.set(Buffer.from('sluice'));
  const log = fixedBytes(LOG_BYTES);
  const { bytes, objectName, logBuffer, logSize } = OPEN_OPTIONS;
  return { struct: new Struct(bytes).u64(0, bytes).pointer(objectName, name).pointer(logBuffer, log).u64(logSize, log.length), log };
}

function must<T extends number>(result: T, call: string): T {
  if (result < 0) throw new SystemError(call, '', errno() || -result);
  return result;
}
function found(pointer: Pointer | null, what: string): Pointer {
  if (pointer === null) throw new Error(`classify.bpf.o has no ${what}: it is of another version`);
  return pointer;
}

/** Loads fresh programs; maps that are pinned in `pinDir` already are used as they are. */
export function loadObject(object: Uint8Array, options: LoadOptions): LoadedObject {
  const lib = library();
  const elf = fixedBytes(object.length);
  elf.set(object);
  const open = openOptions();
  const handle = lib.open(elf, elf.length, open.struct);
  if (handle === null) throw new SystemError('bpf_object__open_mem', 'classify.bpf.o', errno());
  try {
    for (const name of options.maps) {
      must(lib.setPinPath(found(lib.findMap(handle, name), `map ${name}`), `${options.pinDir}/${name}`), `pin path of ${name}`);
    }
    const rodata = found(lib.findMap(handle, '.rodata'), '.rodata');
    must(lib.setInitialValue(rodata, options.rodata, options.rodata.length), 'setting .rodata');
    if (lib.load(handle) < 0) throw loadFailure(options.pinDir, open.log, errno());
    return loaded(lib, handle, options);
  } catch (error) {
    lib.close(handle);
    throw error;
  }
}

function loaded(lib: Library, handle: Pointer, options: LoadOptions): LoadedObject {
  const maps = new Map<string, number>();
  const programs = new Map<string, number>();
  for (const name of options.maps) maps.set(name, must(lib.mapFd(found(lib.findMap(handle, name), `map ${name}`)), name));
  for (const name of options.programs) {
    programs.set(name, must(lib.programFd(found(lib.findProgram(handle, name), `program ${name}`)), name));
  }
  const close = (): void => {
    // The numbers may be other files' from now on.
    maps.clear();
    programs.clear();
    lib.close(handle);
  };
  return { maps, programs, close };
}

function loadFailure(pinDir: string, log: Uint8Array, code: number): Error {
  const cause = new SystemError('bpf_object__load', 'classify.bpf.o', code);
  if (code === 1) return new MissingPart('no permission to load kernel programs', 'run as root, or grant CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON', cause);
  const end = log.indexOf(0);
  const lines = Buffer.from(log.subarray(0, end < 0 ? log.length : end)).toString('utf8').trim().split('\n');
  const said = lines.slice(-3).join(' | ');
  if (said === '' && readdirSync(pinDir).length > 0) {
    return new MissingPart(`the maps pinned in ${pinDir} are of another version (${cause.message})`,
      `unprotect with the old version first, or remove ${pinDir}: protection ends with it`, cause);
  }
  return new MissingPart(`the kernel refused the classifier: ${said} (${cause.message})`, 'Linux 6.1 or later with BPF is needed', cause);
}

// -------------------------------------------------------------------------------------- clsact

const HOOK_BYTES = 24;
const TC_OPTIONS_BYTES = 32;
/** bpf_tc_attach_point */
export const TC_INGRESS = 1;
export const TC_EGRESS = 2;
const TC_REPLACE = 1;
/** Ours, in a hook that others may use too: first in order, and a handle of its own. */
const TC_HANDLE = 0x51;
const TC_PRIORITY = 1;
const EEXIST = 17;

function hook(ifindex: number, point: number): Uint8Array {
  const bytes = fixedBytes(HOOK_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(HOOK_BYTES), LITTLE);
  view.setUint32(8, ifindex, LITTLE);
  view.setUint32(12, point, LITTLE);
  return bytes;
}
function tcOptions(programFd: number, flags: number): Uint8Array {
  const bytes = fixedBytes(TC_OPTIONS_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(TC_OPTIONS_BYTES), LITTLE);
  view.setUint32(8, programFd, LITTLE);
  view.setUint32(12, flags, LITTLE);
  view.setUint32(20, TC_HANDLE, LITTLE);
  view.setUint32(24, TC_PRIORITY, LITTLE);
  return bytes;
}

/** Attaches or, where ours is there already, replaces it in one step. */
export function clsactAttach(programFd: number, ifindex: number, point: number): void {
  const lib = library();
  const created = lib.hookCreate(hook(ifindex, point));
  if (created < 0 && created !== -EEXIST) throw new SystemError('bpf_tc_hook_create', `device ${ifindex}`, -created);
  const attached = lib.tcAttach(hook(ifindex, point), tcOptions(programFd, TC_REPLACE));
  if (attached < 0) throw new SystemError('bpf_tc_attach', `device ${ifindex}`, -attached);
}
/** What is not there is fine. The qdisc stays: others may use it. */
export function clsactDetach(ifindex: number, point: number): void {
  library().tcDetach(hook(ifindex, point), tcOptions(0, 0));
}
/** Id of our program at this hook, 0 where there is none. */
export function clsactProgram(ifindex: number, point: number): number {
  const options = tcOptions(0, 0);
  if (library().tcQuery(hook(ifindex, point), options) < 0) return 0;
  return new DataView(options.buffer).getUint32(16, LITTLE);
}

/** A descriptor of what is pinned at `path`, or undefined. */
export function pinnedAt(path: string): number | undefined {
  try {
    return objectGet(path);
  } catch (error) {
    if (error instanceof SystemError && error.errno === 2) return undefined;
    throw error;
  }
}
