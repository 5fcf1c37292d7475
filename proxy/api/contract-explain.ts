/**
 * Says in one sentence what is wrong with a value and what to write instead.
 *
 *     Check (compiled, fast) ── true ──► the value is good
 *          └── false ──► explain: walk schema and value together, first problem wins
 *
 * The walk knows the few kinds of schema that the contract uses. Unknown fields come before missing
 * ones, since a misspelt name is usually both. It never runs on good input.
 */
import { Compile } from '../doors/typebox.ts';
import type { Type } from '../doors/typebox.ts';

/** `path` leads to the place ([] = the whole), so that a file's line can be found. */
export interface Problem {
  readonly path: readonly (string | number)[];
  readonly message: string;
}
export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly problem: Problem };

export const bad = (path: Problem['path'], message: string): { readonly ok: false; readonly problem: Problem } => ({
  ok: false,
  problem: { path, message },
});
export const good = <T>(value: T): Parsed<T> => ({ ok: true, value });

/** members[0].nics[1].mac: … */
export function problemText(problem: Problem): string {
  const where = problem.path.map((step) => (typeof step === 'number' ? `[${step}]` : `.${step}`)).join('').replace(/^\./, '');
  return where === '' ? problem.message : `${where}: ${problem.message}`;
}

/** A checker of one schema; compiled once, since compiling costs a thousand times a check. */
export function checker<S extends Type.TSchema>(schema: S): (value: unknown) => Parsed<Type.Static<S>> {
  const compiled = Compile(schema);
  return (value) => {
    if (compiled.Check(value)) return good(value);
    const problem = explain(schema, value, []);
    return problem === undefined ? bad([], 'does not fit the schema') : { ok: false, problem };
  };
}

interface AnySchema {
  readonly type?: string;
  readonly description?: string;
  readonly properties?: Readonly<Record<string, AnySchema>>;
  /** One pattern: a map of names to values of one kind. */
  readonly patternProperties?: Readonly<Record<string, AnySchema>>;
  readonly maxProperties?: number;
  readonly required?: readonly string[];
  readonly additionalProperties?: unknown;
  readonly items?: AnySchema;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly pattern?: string;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly AnySchema[];
}

function explain(schema: AnySchema, value: unknown, path: Problem['path']): Problem | undefined {
  if (schema.anyOf !== undefined) {
    const fits = schema.anyOf.some((one) => explain(one, value, path) === undefined);
    return fits ? undefined : wrong(schema, value, path);
  }
  if (schema.enum !== undefined) return schema.enum.includes(value) ? undefined : wrong(schema, value, path);
  switch (schema.type) {
    case 'object':
      return explainObject(schema, value, path);
    case 'array':
      return explainArray(schema, value, path);
    case 'string':
      return typeof value === 'string' && new RegExp(schema.pattern ?? '').test(value) ? undefined : wrong(schema, value, path);
    case 'integer':
    case 'number':
      return inRange(schema, value) ? undefined : wrong(schema, value, path);
    case 'boolean':
      return typeof value === 'boolean' ? undefined : wrong(schema, value, path);
    default:
      return undefined;
  }
}

function inRange(schema: AnySchema, value: unknown): boolean {
  if (typeof value !== 'number' || !Number.isFinite(value)) return false;
  if (schema.type === 'integer' && !Number.isInteger(value)) return false;
  return value >= (schema.minimum ?? -Infinity) && value <= (schema.maximum ?? Infinity);
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function explainObject(schema: AnySchema, value: unknown, path: Problem['path']): Problem | undefined {
  if (!isRecord(value)) return wrong(schema, value, path);
  if (schema.patternProperties !== undefined) return explainMap(schema, schema.patternProperties, value, path);
  const known = schema.properties ?? {};
  const allowed = Object.keys(known);
  if (schema.additionalProperties === false) {
    const unknown = Object.keys(value).find((key) => !Object.hasOwn(known, key));
    if (unknown !== undefined) {
      const list = allowed.length === 0 ? 'none is allowed here' : `allowed here: ${allowed.join(', ')}`;
      return { path: [...path, unknown], message: `unknown field ${quote(unknown)}; ${list}` };
    }
  }
  const missing = schema.required?.find((key) => value[key] === undefined);
  if (missing !== undefined) {
    return { path, message: `field "${missing}" is missing; expected ${known[missing]?.description ?? known[missing]?.type ?? 'a value'}` };
  }
  for (const [key, child] of Object.entries(known)) {
    if (value[key] === undefined) continue;
    const problem = explain(child, value[key], [...path, key]);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

function explainMap(schema: AnySchema, kinds: NonNullable<AnySchema['patternProperties']>, value: Record<string, unknown>, path: Problem['path']): Problem | undefined {
  const names = Object.keys(value);
  if (names.length > (schema.maxProperties ?? Infinity)) return { path, message: `has ${names.length} entries; expected ${schema.description ?? 'fewer'}` };
  for (const name of names) {
    const [, child] = Object.entries(kinds).find(([pattern]) => new RegExp(pattern).test(name)) ?? [];
    if (child === undefined) return { path: [...path, name], message: `${quote(name)} can't be a name here; expected ${schema.description ?? 'another'}` };
    const problem = explain(child, value[name], [...path, name]);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

function explainArray(schema: AnySchema, value: unknown, path: Problem['path']): Problem | undefined {
  if (!Array.isArray(value)) return wrong(schema, value, path);
  if (value.length < (schema.minItems ?? 0) || value.length > (schema.maxItems ?? Infinity)) {
    return { path, message: `has ${value.length} entries; expected ${schema.description ?? 'another number'}` };
  }
  for (const [index, item] of value.entries()) {
    const problem = schema.items === undefined ? undefined : explain(schema.items, item, [...path, index]);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

function wrong(schema: AnySchema, value: unknown, path: Problem['path']): Problem {
  return { path, message: `${quote(value)} is not right; expected ${schema.description ?? schema.type ?? 'another value'}` };
}

/** The value as the user wrote it, cut short: error messages are one line. */
function quote(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (isRecord(value)) return 'a map';
  const text = value === undefined ? 'nothing' : (JSON.stringify(value) ?? typeof value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
