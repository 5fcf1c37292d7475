/**
 * A group file from disk to a value of the contract, or one line that says where it is wrong:
 *
 *     web.yaml:4: members[1].mac: "02:00" is not right; expected a MAC address in quotes, …
 *
 *   text ─► yaml document (with positions) ─► plain value ─► contract's parseGroup ─► checked
 *                 └ syntax error: its line        └ problem.path ─► the line of that key
 *
 * JSON is YAML, so both are read. Bound: FILE_BYTES_MAX.
 */
import { open } from 'node:fs/promises';
import { LineCounter, isMap, isScalar, isSeq, parseDocument } from '../proxy/doors/yaml.ts';
import type { Document, Node } from 'yaml';
import { parseGroup, problemText } from '../proxy/api/contract.ts';
import type { GroupFile } from '../proxy/api/contract.ts';

const FILE_BYTES_MAX = 1 << 20;

export type GroupSpec = Extract<ReturnType<typeof parseGroup>, { ok: true }>['value'];

export interface GroupSource {
  /** As the user wrote it: what is sent to the daemon. */
  readonly file: GroupFile;
  /** The same with every default in place. */
  readonly spec: GroupSpec;
}

/** What the user wrote cannot be used; `message` is `file:line: what and what instead`. */
export class FileProblem extends Error {
  override readonly name = 'FileProblem';
}

/** `-` reads standard input. */
export async function readGroupFile(path: string): Promise<GroupSource> {
  return parseGroupText(await readBounded(path), path === '-' ? 'standard input' : path);
}

export function parseGroupText(text: string, name: string): GroupSource {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number): string => `${name}:${lines.linePos(offset).line}`;
  const broken = document.errors[0];
  if (broken !== undefined) throw new FileProblem(`${at(broken.pos[0])}: not YAML: ${broken.message.split('\n')[0]}${hint(broken.code)}`);
  const value: unknown = document.toJS();
  const parsed = parseGroup(value);
  if (!parsed.ok) throw new FileProblem(`${at(offsetOf(document, parsed.problem.path))}: ${problemText(parsed.problem)}`);
  return { file: value as GroupFile, spec: parsed.value };
}

/** Where the key (or list entry) that a problem's path names begins; as deep as the file has it. */
function offsetOf(document: Document.Parsed, path: readonly (string | number)[]): number {
  let node: unknown = document.contents;
  let offset = (node as Node | null)?.range?.[0] ?? 0;
  for (const step of path) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && key.value === step);
      if (pair === undefined) break;
      offset = (pair.key as Node).range?.[0] ?? offset;
      node = pair.value;
    } else if (isSeq(node) && typeof step === 'number') {
      node = node.items[step];
      offset = (node as Node | undefined)?.range?.[0] ?? offset;
    } else break;
  }
  return offset;
}

function hint(code: string): string {
  if (code === 'TAB_AS_INDENT') return '; indent with spaces';
  if (code === 'DUPLICATE_KEY') return '; remove one of the two';
  return '; `sluice group apply --help` has an example';
}

async function readBounded(path: string): Promise<string> {
  try {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const file = path === '-' ? undefined : await open(path);
    for await (const chunk of file === undefined ? process.stdin : file.createReadStream()) {
      chunks.push(chunk as Buffer);
      bytes += (chunk as Buffer).length;
      if (bytes > FILE_BYTES_MAX) throw new FileProblem(`${path}: larger than 1 MiB; this is no group file`);
    }
    return Buffer.concat(chunks).toString('utf8');
  } catch (error) {
    if (error instanceof FileProblem) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw new FileProblem(`${path}: no such file`);
    if (code === 'EACCES') throw new FileProblem(`${path}: may not be read by this user`);
    throw new FileProblem(`${path}: ${message}`);
  }
}
