/** What a value cannot be written for; `field` says where. @internal */
export class Refusal extends Error {
  constructor(
    message: string,
    readonly field: string | undefined,
  ) {
    super(message);
  }
}

/** A value on its way to core: JSON text, and what JSON is no good for beside it. @internal */
export interface Written {
  text: string;
  /** `undefined`: nothing in the text stands for something else. */
  parts: Uint8Array[] | undefined;
}

/** Gives a function the number under which core calls it. @internal */
export type Keep = (value: Function) => number;

/** What core needs to be given back. @internal */
export interface Found {
  part(index: number): Buffer;
  fn(number: number): unknown;
}

/** Levels of lists and objects in a value; one more is refused. */
const DEEPEST = 100;
/** A double from here on is read as one, however it is written. */
const BEYOND = 2 ** 64;

/**
 * Writes `value`. Throws a `Refusal` if it cannot.
 * @internal
 */
export function write(value: unknown, keep: Keep): Written {
  let text: string | undefined;
  let parts: Uint8Array[] | undefined;
  if (looksPlain(value)) {
    text = JSON.stringify(value);
  } else {
    const writer = new Writer(keep);
    let copy: unknown;
    try {
      copy = writer.copy(value, "");
    } catch (error) {
      if (error instanceof Refusal) throw error;
      throw writer.refusal(`cannot be read: ${String((error as Error)?.message ?? error)}`);
    }
    text = JSON.stringify(copy);
    parts = writer.parts;
  }
  return { text: text ?? "null", parts };
}

/** Whether `JSON.stringify` writes it as it is. What throws is looked at more closely. */
function looksPlain(value: unknown): boolean {
  try {
    return isPlain(value, 0);
  } catch {
    return false;
  }
}

function isPlain(value: unknown, depth: number): boolean {
  switch (typeof value) {
    case "number":
      return isExact(value);
    case "bigint":
    case "function":
      return false;
    case "object":
      break;
    default:
      return true;
  }
  if (value === null) return true;
  if (depth >= DEEPEST) return false;
  if (Array.isArray(value)) {
    for (let at = 0; at < value.length; at++) if (!isPlain(value[at], depth + 1)) return false;
    return !("toJSON" in value);
  }
  const prototype = Object.getPrototypeOf(value) as unknown;
  if ((prototype !== Object.prototype && prototype !== null) || "toJSON" in value) return false;
  let members = 0;
  let marked = false;
  for (const name in value) {
    const member = (value as Record<string, unknown>)[name];
    if (!isPlain(member, depth + 1)) return false;
    if (member === undefined || typeof member === "symbol") continue;
    members++;
    if (name.charCodeAt(0) === 36) marked = true;
  }
  return members !== 1 || !marked;
}

/** Whether the number is read as the double it is. */
function isExact(number: number): boolean {
  return Number.isSafeInteger(number) || !Number.isInteger(number) || Math.abs(number) >= BEYOND;
}

/** Makes a copy in which objects with one `$` member stand for what JSON has no word for; `src/calls/value.rs` reads it. */
class Writer {
  readonly parts: Uint8Array[] = [];
  private readonly path: string[] = [];
  private readonly above: object[] = [];

  constructor(private readonly keep: Keep) {}

  refusal(what: string): Refusal {
    const field = this.path.join("").replace(/^\./, "");
    return new Refusal(`${field === "" ? "the value" : field} ${what}`, field === "" ? undefined : field);
  }

  copy(given: unknown, key: string): unknown {
    const value = plainly(given, key);
    switch (typeof value) {
      case "bigint":
        return { $int: value.toString() };
      case "number":
        return isExact(value) ? value : { $float: String(value) };
      case "function":
        return { $function: this.keep(value) };
      case "object":
        return value === null ? null : this.object(value);
      default:
        return value;
    }
  }

  private object(value: object): unknown {
    if (ArrayBuffer.isView(value)) return this.view(value);
    if (isBuffer(value)) return { $part: this.part(new Uint8Array(value)) };
    if (this.above.includes(value)) throw this.refusal("contains itself: only trees can travel");
    if (this.above.length >= DEEPEST) throw this.refusal(`is nested too deep: at most ${DEEPEST} levels`);
    this.above.push(value);
    const copy = Array.isArray(value) ? this.list(value) : this.members(value);
    this.above.pop();
    return copy;
  }

  private list(list: unknown[]): unknown[] {
    const copy: unknown[] = [];
    for (let at = 0; at < list.length; at++) {
      this.path.push(`[${at}]`);
      copy.push(this.copy(list[at], String(at)));
      this.path.pop();
    }
    return copy;
  }

  private members(value: object): object {
    // A member may be called `__proto__`.
    const copy = Object.create(null) as Record<string, unknown>;
    const names: string[] = [];
    for (const name of Object.keys(value)) {
      this.path.push(`.${name}`);
      const member = this.copy((value as Record<string, unknown>)[name], name);
      this.path.pop();
      if (member === undefined || typeof member === "symbol") continue;
      copy[name] = member;
      names.push(name);
    }
    const [only] = names;
    return names.length === 1 && only!.startsWith("$") ? { [`$$${only}`]: copy[only!] } : copy;
  }

  private view(view: ArrayBufferView): unknown {
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    const kind = NAMES[(view as unknown as Record<symbol, string>)[Symbol.toStringTag]!];
    if (kind === undefined) return { $part: this.part(bytes) };
    const { length, shape } = view as unknown as NumberArray;
    if (shape !== undefined && !isShape(shape, length)) {
      throw this.refusal(`has ${length} numbers and the shape [${String(shape)}]`);
    }
    return { $numbers: [this.part(bytes), kind, shape ?? [length]] };
  }

  private part(bytes: Uint8Array): number {
    return this.parts.push(bytes) - 1;
  }
}

/** What `JSON.stringify` would look at instead of `value`. */
function plainly(value: unknown, key: string): unknown {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return value;
  const { toJSON } = value as { toJSON?: unknown };
  if (typeof toJSON === "function") return toJSON.call(value, key) as unknown;
  if (value instanceof Number || value instanceof String || value instanceof Boolean || value instanceof BigInt) return value.valueOf();
  return value;
}

function isBuffer(value: object): value is ArrayBuffer {
  const tag = (value as Record<symbol, unknown>)[Symbol.toStringTag];
  return tag === "ArrayBuffer" || tag === "SharedArrayBuffer";
}

type NumberArray = { readonly length: number; shape?: number[] };

const KINDS = {
  f64: Float64Array,
  f32: Float32Array,
  i64: BigInt64Array,
  i32: Int32Array,
  i16: Int16Array,
  i8: Int8Array,
  u64: BigUint64Array,
  u32: Uint32Array,
  u16: Uint16Array,
  u8: Uint8ClampedArray,
} as const;

/** The kinds by the names of their classes. A Uint8Array is bytes. */
const NAMES: Record<string, string | undefined> = Object.fromEntries(Object.entries(KINDS).map(([kind, { name }]) => [name, kind]));

function isShape(shape: unknown, length: number): boolean {
  if (!Array.isArray(shape) || !shape.every((each) => Number.isSafeInteger(each) && (each as number) >= 0)) return false;
  return (shape as number[]).reduce((all, each) => all * each, 1) === length;
}

/**
 * The value of parsed JSON in which something stands for something else.
 * @internal
 */
export function revive(value: unknown, found: Found): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) {
    for (let at = 0; at < value.length; at++) value[at] = revive(value[at], found);
    return value;
  }
  const members = value as Record<string, unknown>;
  const names = Object.keys(members);
  if (names.length === 1 && names[0]!.startsWith("$")) return marked(names[0]!, members[names[0]!], found);
  for (const name of names) {
    const member = members[name];
    if (typeof member === "object" && member !== null) put(members, name, revive(member, found));
  }
  return members;
}

function put(members: Record<string, unknown>, name: string, value: unknown): void {
  if (name !== "__proto__") members[name] = value;
  else Object.defineProperty(members, name, { value, enumerable: true, configurable: true, writable: true });
}

function marked(name: string, value: unknown, found: Found): unknown {
  switch (name) {
    case "$int":
      return BigInt(value as string);
    case "$part":
      return found.part(value as number);
    case "$numbers":
      return numbers(value as [number, keyof typeof KINDS, number[]], found);
    case "$function":
      return found.fn(value as number);
    default:
      return { [name.slice(1)]: revive(value, found) };
  }
}

function numbers([part, kind, shape]: [number, keyof typeof KINDS, number[]], found: Found): unknown {
  let bytes: Uint8Array = found.part(part);
  const { BYTES_PER_ELEMENT } = KINDS[kind];
  if (bytes.byteOffset % BYTES_PER_ELEMENT !== 0) bytes = new Uint8Array(bytes);
  const array = new KINDS[kind](bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.length / BYTES_PER_ELEMENT) as NumberArray;
  if (shape.length !== 1) Object.defineProperty(array, "shape", { value: shape, configurable: true, writable: true });
  return array;
}
