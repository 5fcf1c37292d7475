/**
 * Requests from an OpenAPI document: for each route a path, a query and a body that fit its schema,
 * then, most of the time, one thing turned wrong. Deterministic by its generator.
 */
import type { Asked } from './tcp.ts';
import type { Seeded } from './ring-fixture.ts';

interface Schema {
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly pattern?: string;
}
interface Operation {
  readonly parameters?: readonly { readonly name: string; readonly in: string; readonly required?: boolean; readonly schema: Schema }[];
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: Schema }>> };
}
export interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
}
/** Names that mean something to this daemon, so that not every request ends at "there is no such". */
export interface Names {
  readonly groups: readonly string[];
  readonly members: readonly string[];
  readonly ports: readonly string[];
}

const NASTY: readonly unknown[] = [
  null, true, '', -1, 0, 1.5, 1e308, 2 ** 53, -(2 ** 31), [], {}, [[]], '../..', '%00', '\u0000', '\u202e', 'a'.repeat(5000), '__proto__', 'constructor', '<script>', '1; drop', '02:00:00:00:00:01', 'NaN', { toString: 1 }, { length: 1e9 },
];
/** A body longer than the daemon reads is tried elsewhere; these keep a run short. */
const ITEMS_MAX = 2;

export class Requests {
  readonly #routes: readonly (readonly [string, string, Operation])[];
  readonly #random: Seeded;
  readonly #names: Names;

  constructor(document: Document, random: Seeded, names: Names) {
    this.#random = random;
    this.#names = names;
    this.#routes = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).filter(() => !/\/(events|live)$/.test(path)).map(([method, operation]) => [path, method.toUpperCase(), operation] as const)); // a stream has no end to wait for
    if (this.#routes.length < 10) throw new Error('the document has hardly any routes');
  }

  next(): Asked {
    const [path, method, operation] = this.#random.pick(this.#routes);
    const parameters = operation.parameters ?? [];
    const filled = path.replaceAll(/\{(\w+)\}/g, (_all, name: string) => encodeURIComponent(this.#one(8) ? this.#nastyText() : this.#named(name)));
    const query = parameters.filter((parameter) => parameter.in === 'query' && (parameter.required === true || this.#one(3)))
      .map(({ name, schema }) => `${name}=${encodeURIComponent(this.#one(6) ? this.#nastyText() : String(this.#value(schema, name)))}`);
    if (this.#one(15)) query.push(`${this.#random.pick(['x', 'group', 'token', '__proto__', 'wait'])}=1`);
    const schema = operation.requestBody?.content['application/json']?.schema;
    const body = schema === undefined ? {} : { body: this.#body(schema) };
    return { method: this.#one(40) ? this.#random.pick(['PUT', 'POST', 'DELETE', 'PATCH', 'OPTIONS']) : method, path: `${filled}${query.length === 0 ? '' : `?${query.join('&')}`}`, ...body };
  }

  #one(of: number): boolean {
    return this.#random.below(of) === 0;
  }
  #nasty(): unknown {
    return this.#random.pick(NASTY);
  }
  #nastyText(): string {
    const nasty = this.#nasty();
    return typeof nasty === 'string' ? nasty : JSON.stringify(nasty);
  }
  #named(name: string): string {
    return name === 'group' ? this.#random.pick(this.#names.groups) : this.#random.pick(this.#names.members);
  }

  #body(schema: Schema): string {
    const text = JSON.stringify(this.#mutated(this.#value(schema, ''))) ?? '';
    if (!this.#one(20)) return text;
    const at = this.#random.below(text.length + 1);
    return this.#one(2) ? text.slice(0, at) : `${text.slice(0, at)}${this.#random.pick(['{', ']', '"', '\\u', ',', '\u0000', '1e999'])}${text.slice(at)}`;
  }

  #value(schema: Schema, name: string): unknown {
    if (schema.anyOf !== undefined) return this.#value(this.#random.pick(schema.anyOf), name);
    if (schema.enum !== undefined) return this.#random.pick(schema.enum);
    switch (schema.type) {
      case 'object':
        return this.#object(schema);
      case 'array':
        return Array.from({ length: this.#random.between(1, ITEMS_MAX) }, () => this.#value(schema.items ?? {}, name));
      case 'integer':
      case 'number':
        return Math.min(schema.maximum ?? 9, (schema.minimum ?? 0) + this.#random.below(3));
      case 'boolean':
        return this.#one(2);
      default:
        return this.#text(name);
    }
  }

  /** A member has a port and MAC or a list of NICs; names that stand in the path are mostly left out. */
  #object({ properties = {}, required = [] }: Schema): Record<string, unknown> {
    const several = 'nics' in properties && this.#one(5);
    const wanted = (key: string): boolean => {
      if (required.includes(key)) return true;
      if (key === 'port' || key === 'mac') return !several;
      return key === 'nics' ? several : this.#one(key === 'group' || key === 'name' ? 12 : 4);
    };
    return Object.fromEntries(Object.entries(properties).flatMap(([key, below]) => (wanted(key) ? [[key, this.#value(below, key)]] : [])));
  }

  #text(name: string): string {
    if (name === 'mac') return `02:00:00:00:01:0${this.#random.below(6)}`;
    if (name === 'port') return this.#random.pick(this.#names.ports);
    if (name === 'bytes') return this.#random.pick(['1MiB', '2 MiB', '4096KiB']);
    return name === 'group' ? this.#random.pick(this.#names.groups) : `m${this.#random.below(4)}`;
  }

  /** One place of the value, chosen on a walk from the top, becomes something nasty; or nothing does. */
  #mutated(value: unknown): unknown {
    if (!this.#one(3)) return value;
    if (typeof value !== 'object' || value === null || this.#one(4)) return this.#nasty();
    if (Array.isArray(value)) return value.map((item: unknown, i) => (i === 0 ? this.#mutated(item) : item));
    const entries = Object.entries(value);
    if (entries.length === 0 || this.#one(5)) return { ...value, [this.#random.pick(['extra', '__proto__', 'generation', 'constructor'])]: this.#nasty() };
    const chosen = this.#random.below(entries.length);
    return Object.fromEntries(entries.flatMap(([key, below], i) => (i !== chosen ? [[key, below]] : this.#one(4) ? [] : [[key, this.#mutated(below)]])));
  }
}
