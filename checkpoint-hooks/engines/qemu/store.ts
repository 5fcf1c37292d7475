/**
 * The directory that stands for the backup: what of a group survives its VMs.
 *
 *     store/lock                       held by the engine that writes here
 *          /takeover                   the generations that went on, or tried to, from which checkpoint (intent.ts)
 *          /base/<member>.<id>         a member's RAM, somewhere between its oldest and newest delta
 *          /epochs/<sequence>/         one checkpoint of the whole group, never changed again
 *                 manifest.json        generation, epoch, members, the checkpoint before
 *                 <member>.part        its device state and changed pages (part.ts)
 *          /epochs/.new-<sequence>/    one being written; nothing until it is renamed
 *
 *   stage ─► parts and manifest written and synced ─► commit: ONE rename ─► directory synced
 *                                                         └ before: the checkpoint does not exist
 *
 * So there is a checkpoint of all members or of none, whenever the engine dies. A member's RAM at
 * the newest checkpoint is its base with every kept delta of that base applied in order. `prune`
 * syncs the bases first, then takes checkpoints away, oldest first.
 *
 * What is named and damaged is an error, never passed over: its output may have left the host, so
 * that an older checkpoint would be a lie. Bound: KEPT_MAX checkpoints, then `shouldPrune`.
 */
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { Type } from '../../../proxy/doors/typebox.ts';
import { Epoch, Generation, GroupName, checker, problemText } from '../../../proxy/api/contract.ts';
import { IntentFile } from './intent.ts';
import { lockFile } from './memory.ts';
import { Damaged } from './part.ts';
import type { PartPath } from './part.ts';

const KEPT_MAX = 64;
const NEW = '.new-';
const GONE = '.gone-';

const ManifestMember = Type.Object({
  base: Type.String({ pattern: '^[A-Za-z0-9._-]+$' }),
  ramBytes: Type.Integer({ minimum: 1 }),
  /** Of which process it is (machine.ts). */
  process: Type.Optional(Type.String()),
  pages: Type.Integer({ minimum: 0 }),
  bytes: Type.Integer({ minimum: 0 }),
});
const Manifest = Type.Object({
  format: Type.Literal(1),
  group: GroupName,
  sequence: Type.Integer({ minimum: 1 }),
  previous: Type.Integer({ minimum: 0 }),
  generation: Generation,
  epoch: Epoch,
  members: Type.Record(Type.String(), ManifestMember),
});
export type Manifest = Type.Static<typeof Manifest>;
export type ManifestMember = Type.Static<typeof ManifestMember>;
const checkManifest = checker(Manifest);

/** Where one member's memory and device state of the newest checkpoint are. */
export interface MemberSource {
  readonly base: string;
  readonly ramBytes: number;
  /** To be applied to the base in this order; the last is the checkpoint's own, with the state. */
  readonly parts: readonly PartPath[];
}

export class Store {
  readonly directory: string;
  readonly group: string;
  /** Bases that a first picture is being written to: `prune` leaves them. */
  readonly seeding = new Set<string>();
  private readonly lockFd: number;
  private kept: readonly Manifest[] = [];
  private intent: IntentFile | undefined;

  private constructor(directory: string, group: string, lockFd: number) {
    this.directory = directory;
    this.group = group;
    this.lockFd = lockFd;
  }

  /** Throws Damaged, or when another engine has it open, or when it is another group's. */
  static open(directory: string, group: string): Store {
    for (const path of ['epochs', 'base']) mkdirSync(join(directory, path), { recursive: true, mode: 0o700 });
    const lockFd = openSync(join(directory, 'lock'), 'w', 0o600);
    try {
      if (!lockFile(lockFd)) throw new Error(`${directory} is in use by another engine`);
      const store = new Store(directory, group, lockFd);
      store.load();
      store.intent = IntentFile.open(join(directory, 'takeover'));
      return store;
    } catch (error) {
      closeSync(lockFd);
      throw error;
    }
  }

  /** The newest checkpoint of the whole group. */
  get newest(): Manifest | undefined {
    return this.kept.at(-1);
  }
  get checkpoints(): number {
    return this.kept.length;
  }
  get shouldPrune(): boolean {
    return this.kept.length > KEPT_MAX;
  }

  /** Name of a base image that is nobody's yet. */
  newBase(member: string): string {
    for (let id = 1; ; id += 1) if (!existsSync(this.basePath(`${member}.${id}`))) return `${member}.${id}`;
  }
  basePath(base: string): string {
    return join(this.directory, 'base', base);
  }

  /** Room for the next checkpoint's parts. What an earlier attempt left is taken away. */
  stage(): number {
    const sequence = (this.newest?.sequence ?? 0) + 1;
    rmSync(this.newPath(sequence), { recursive: true, force: true });
    mkdirSync(this.newPath(sequence), { mode: 0o700 });
    return sequence;
  }
  stagedPart(sequence: number, member: string): PartPath {
    return { path: join(this.newPath(sequence), `${member}.part`), sequence };
  }

  /** All parts are written and synced. Resolves when the checkpoint is durable; until then it is not there. */
  async commit(sequence: number, what: Pick<Manifest, 'generation' | 'epoch' | 'members'>): Promise<Manifest> {
    const last = this.newest;
    if (last !== undefined && what.generation < last.generation) throw new Error(`generation ${what.generation} is over, the store is at ${last.generation}`);
    const { generation, epoch, members } = what;
    const manifest: Manifest = { format: 1, group: this.group, sequence, previous: last?.sequence ?? 0, generation, epoch, members };
    const staged = this.newPath(sequence);
    await writeSynced(join(staged, 'manifest.json'), JSON.stringify(manifest));
    await syncDirectory(staged);
    await rename(staged, this.epochPath(sequence));
    this.kept = [...this.kept, manifest];
    await syncDirectory(join(this.directory, 'epochs'));
    return manifest;
  }

  /** A takeover from the newest checkpoint begins: whoever finds the group in that generation knows what it began from. */
  intend(generation: number): void {
    const { newest, intent } = this;
    if (newest === undefined || intent === undefined) throw new Error(`${this.directory} has no checkpoint to take over from`);
    const { sequence } = newest;
    const before = intent.value;
    intent.write({ first: before?.sequence === sequence ? before.first : generation, generation, sequence });
  }
  /** The newest checkpoint is of this generation, or what this generation began from. */
  isNewestOf(generation: number): boolean {
    const { newest } = this;
    const intent = this.intent?.value;
    if (newest === undefined || newest.generation === generation) return newest !== undefined;
    return intent?.sequence === newest.sequence && intent.first <= generation && generation <= intent.generation;
  }

  /** Refuses members that the newest checkpoint does not have: they would come up at another epoch. */
  sourcesOf(members: readonly string[]): ReadonlyMap<string, MemberSource> {
    const newest = this.newest;
    if (newest === undefined) throw new Error(`${this.directory} has no checkpoint of group ${this.group} yet`);
    const sources = members.map((name): [string, MemberSource] => {
      const part = newest.members[name];
      if (part === undefined) throw new Error(`member ${name} is not in checkpoint ${newest.epoch} of group ${this.group}: members never come up at different epochs`);
      const parts = this.kept.filter(({ members: of }) => of[name]?.base === part.base)
        .map(({ sequence }) => ({ path: join(this.epochPath(sequence), `${name}.part`), sequence }));
      for (const { path } of parts) if (!existsSync(path)) throw new Damaged(`${path} is missing`);
      return [name, { base: this.basePath(part.base), ramBytes: part.ramBytes, parts }];
    });
    return new Map(sources);
  }

  /** Only the newest checkpoint and the bases it needs stay. */
  async prune(): Promise<void> {
    const newest = this.newest;
    if (newest === undefined) return;
    const old = this.kept.filter(({ sequence }) => sequence < newest.sequence);
    for (const { base } of Object.values(newest.members)) await syncData(this.basePath(base));
    for (const { sequence } of old) {
      const gone = join(this.directory, 'epochs', `${GONE}${sequence}`);
      renameSync(this.epochPath(sequence), gone);
      this.kept = this.kept.filter((kept) => kept.sequence !== sequence);
      rmSync(gone, { recursive: true, force: true });
    }
    this.dropBases();
  }

  close(): void {
    this.intent?.close();
    closeSync(this.lockFd);
  }

  private load(): void {
    const epochs = join(this.directory, 'epochs');
    for (const name of readdirSync(epochs)) if (name.startsWith('.')) rmSync(join(epochs, name), { recursive: true, force: true });
    const names = readdirSync(epochs).sort((a, b) => Number(a) - Number(b));
    const kept = names.map((name) => this.readManifest(join(epochs, name, 'manifest.json'), Number(name)));
    for (const [i, manifest] of kept.entries()) {
      const before = kept[i - 1];
      if (before !== undefined && manifest.previous !== before.sequence) throw new Damaged(`${epochs}: checkpoint ${manifest.previous} is missing before ${manifest.sequence}`);
    }
    this.kept = kept;
    this.dropBases();
    const newest = this.newest;
    if (newest !== undefined) this.sourcesOf(Object.keys(newest.members));
  }

  private readManifest(path: string, sequence: number): Manifest {
    const parsed = checkManifest(parsedJson(path));
    if (!parsed.ok) throw new Damaged(`${path}: ${problemText(parsed.problem)}`);
    const manifest = parsed.value;
    if (manifest.sequence !== sequence) throw new Damaged(`${path} is checkpoint ${manifest.sequence}'s`);
    if (manifest.group !== this.group) throw new Error(`${this.directory} is the store of group ${manifest.group}, not ${this.group}`);
    return manifest;
  }

  /** Bases that no kept checkpoint names: of members that left, or of a first picture that was never finished. */
  private dropBases(): void {
    const used = new Set(this.kept.flatMap(({ members }) => Object.values(members).map(({ base }) => base)));
    for (const name of readdirSync(join(this.directory, 'base'))) if (!used.has(name) && !this.seeding.has(name)) rmSync(this.basePath(name));
  }
  private newPath(sequence: number): string {
    return join(this.directory, 'epochs', `${NEW}${sequence}`);
  }
  private epochPath(sequence: number): string {
    return join(this.directory, 'epochs', String(sequence));
  }
}

function parsedJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new Damaged(`${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}

async function writeSynced(path: string, text: string): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

async function syncData(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}
