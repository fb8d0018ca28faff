"use strict";
// What cases write, as Node has it, and whether values are what cases expect.

const { inspect } = require("node:util");
const kps = require("kps");

const ARRAYS = { f64: Float64Array, i64: BigInt64Array, i32: Int32Array, u8: Uint8Array };
const MISSING = Symbol("missing");

const camel = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
const show = (value) => inspect(value, { depth: 4, breakLength: Infinity });
const isObject = (value) => typeof value === "object" && value !== null;

/** The mark of `{"$mark": …}`; `undefined` for everything else. */
function mark(value) {
  if (!isObject(value) || Array.isArray(value)) return undefined;
  const [first] = Object.keys(value);
  return first?.startsWith("$") ? first : undefined;
}

/** An integer as Node has it: beyond 2^53 a bigint. */
function integer(digits) {
  const number = Number(digits);
  return Number.isSafeInteger(number) ? number : BigInt(digits);
}

/** So many bytes: 0 to 250, again and again. */
const ramp = (length) => Buffer.alloc(length, Uint8Array.from({ length: 251 }, (_, n) => n));

function decode(value) {
  if (value?.$ramp !== undefined) return ramp(value.$ramp);
  if (value?.$bytes !== undefined) return Buffer.from(value.$bytes, "base64");
  if (value?.$repeat) return value.$repeat[0].repeat(value.$repeat[1]);
  if (value?.$int) return integer(value.$int);
  return value;
}

/** `{"$array": …}` as a typed array. */
function typedArray({ type, numbers, shape }) {
  const Kind = ARRAYS[type];
  const array = Kind.from(numbers, Kind === BigInt64Array ? BigInt : undefined);
  if (shape) array.shape = shape;
  return array;
}

function isSameArray({ type, numbers, shape }, actual) {
  if (!(actual instanceof ARRAYS[type])) return false;
  return show([...actual].map(Number)) === show(numbers) && show(actual.shape ?? [actual.length]) === show(shape);
}

function expectMatch(expected, actual) {
  if (!matches(expected, actual)) throw new Error(`${show(actual)} is not ${show(expected)}`);
}

const MARKS = {
  $any: (_, actual) => actual !== MISSING && actual !== undefined,
  $not: (expected, actual) => !matches(expected, actual),
  $all: (expected, actual) => expected.every((each) => matches(each, actual)),
  $some: (expected, actual) => Array.isArray(actual) && actual.some((each) => matches(expected, each)),
  $contains: (expected, actual) => typeof actual === "string" && actual.includes(expected),
  $array: isSameArray,
  $as_is: (expected, actual) => show(expected) === show(actual),
};

function matches(expected, actual) {
  if (actual instanceof kps.KpsError && typeof expected === "string") return actual.code === expected;
  const marked = mark(expected);
  if (marked in MARKS) return MARKS[marked](expected[marked], actual);
  const wanted = decode(expected);
  if (Buffer.isBuffer(wanted)) return actual instanceof Uint8Array && wanted.equals(actual);
  if (Array.isArray(wanted)) {
    return Array.isArray(actual) && wanted.length === actual.length && wanted.every((each, i) => matches(each, actual[i]));
  }
  if (isObject(wanted)) {
    return isObject(actual) && Object.entries(wanted).every(([name, each]) => matches(each, field(actual, name)));
  }
  return wanted === (actual ?? null) || wanted === actual;
}

/** A field by Python's name; the keys of payloads and rows by client id stay as they are. */
function field(actual, name) {
  if (name in actual) return actual[name];
  return camel(name) in actual ? actual[camel(name)] : MISSING;
}

module.exports = { MISSING, camel, decode, expectMatch, integer, mark, matches, ramp, show, typedArray };
