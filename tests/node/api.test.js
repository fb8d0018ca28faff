"use strict";
// The built module and its .d.ts against tests/conformance/api.json.

const fs = require("node:fs");
const path = require("node:path");
const kps = require("kps");

const root = path.dirname(require.resolve("kps/package.json"));
const { parse } = require(require.resolve("@babel/parser", { paths: [root] })); // comes with jest
const api = JSON.parse(fs.readFileSync(path.join(__dirname, "..", "conformance", "api.json"), "utf8"));

const camel = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
const nodeName = (entry) => (typeof entry.node === "string" ? entry.node : camel(entry.name));
const ours = (entries = []) => entries.filter((entry) => (entry.only ?? "node") === "node");
const classes = ours(api.classes);

/** Every function and method: where it is, its description, its arguments in order. */
function* callables() {
  for (const entry of api.functions) yield { owner: null, name: nodeName(entry), entry };
  for (const cls of classes) {
    for (const entry of ours(cls.methods)) yield { owner: cls.name, name: nodeName(entry), entry };
    for (const entry of cls.kps?.methods ?? []) yield { owner: cls.name, name: entry.name, entry };
    for (const entry of cls.kps?.static ?? []) yield { owner: cls.name, name: entry.name, entry, isStatic: true };
    for (const entry of cls.kps?.functions ?? []) yield { owner: null, name: entry.name, entry };
  }
  yield { owner: "Server", name: "start", isStatic: true, entry: { async: true, args: [], options: server.options } };
}
const server = classes.find((cls) => cls.name === "Server").constructor;
const all = [...callables()].map((each) => [each.owner ? `${each.owner}.${each.name}` : each.name, each]);
const properties = classes.flatMap((cls) => [
  ...ours(cls.properties).map((entry) => [`${cls.name}.${camel(entry.name)}`, cls.name, camel(entry.name)]),
  ...(cls.kps?.properties ?? []).map((name) => [`${cls.name}.${name}`, cls.name, name]),
]);

describe("the built module", () => {
  test.each(all)("has %s", (_, { owner, name, isStatic }) => {
    const holder = owner === null ? kps : isStatic ? kps[owner] : kps[owner].prototype;
    expect(typeof holder[name]).toBe("function");
  });

  test.each(classes.flatMap((cls) => (cls.protocols?.node ?? []).map((name) => [`${cls.name}: ${name}`, cls.name, name])))(
    "%s",
    (_, owner, name) => {
      const key = name.startsWith("Symbol.") ? (Symbol[name.slice(7)] ?? Symbol.for(name)) : name;
      expect(typeof kps[owner].prototype[key]).toBe("function");
    },
  );

  test("exports nothing that is not described", () => {
    const known = new Set(["KpsError", "default", "module.exports", ...api.functions.map(nodeName)]);
    for (const cls of classes) {
      known.add(cls.name);
      for (const entry of cls.kps?.functions ?? []) known.add(entry.name);
    }
    expect(Object.keys(kps).filter((name) => !known.has(name))).toEqual([]);
  });

  test("is the same in ESM", async () => {
    const { execFileSync } = require("node:child_process");
    const script = 'import * as kps from "kps"; console.log(JSON.stringify(Object.keys(kps)))';
    const output = execFileSync(process.execPath, ["--input-type=module", "-e", script], { cwd: __dirname });
    const names = (keys) => keys.filter((name) => !["default", "module.exports"].includes(name)).sort();
    expect(names(JSON.parse(output))).toEqual(names(Object.keys(kps)));
  });
});

/** Declarations of every .d.ts of the package: classes, interfaces, functions, aliases by name. */
function declarations() {
  const found = new Map();
  const folder = path.join(root, "dist");
  for (const file of fs.readdirSync(folder).filter((name) => name.endsWith(".d.ts"))) {
    const text = fs.readFileSync(path.join(folder, file), "utf8");
    const { program } = parse(text, { sourceType: "module", plugins: [["typescript", { dts: true }]] });
    for (const statement of program.body) {
      const node = statement.declaration ?? statement;
      if (node?.id?.name) found.set(node.id.name, node);
    }
  }
  return found;
}

const declared = declarations();
const membersOf = (node) => node?.body?.body ?? [];

function member(owner, name, isStatic = false) {
  for (let node = declared.get(owner); node; node = declared.get(node.superClass?.name ?? node.extends?.[0]?.expression?.name)) {
    const overloads = membersOf(node).filter((each) => each.key?.name === name && Boolean(each.static) === isStatic);
    if (overloads.length) return overloads;
  }
  return [];
}

const parametersOf = (node) => (node.params ?? node.parameters ?? node.value?.params ?? []).map((each) => ({
  name: each.name ?? each.left?.name,
  optional: Boolean(each.optional || each.left),
  type: each.typeAnnotation?.typeAnnotation,
}));

describe("the declarations", () => {
  test.each(all)("have %s with its arguments", (_, { owner, name, entry, isStatic }) => {
    const overloads = owner === null ? [declared.get(name)] : member(owner, name, isStatic);
    expect(overloads[0]).toBeDefined();
    const wanted = isStatic && name === "NewClient" ? [] : ours(entry.args).map((each) => [nodeName(each), "default" in each]);
    const options = ours(entry.options);
    if (options.length) wanted.push(["options", true]);
    if (name === "NewClient") wanted.push([expect.any(String), expect.any(Boolean)]);
    const longest = overloads.map(parametersOf).sort((a, b) => b.length - a.length)[0];
    expect(longest.map((each) => [each.name, each.optional])).toEqual(wanted);
    if (options.length) optionsAre(longest.at(-1).type, options, name === "start" ? ["listen"] : []);
  });

  /** The interface named as the type of `options` has exactly these keys, each optional, with its `@default`. */
  function optionsAre(type, options, extra) {
    const members = [];
    for (let node = declared.get(type.typeName.name); node; node = declared.get(node.extends?.[0]?.expression?.name)) {
      members.push(...membersOf(node));
    }
    expect(members.map((each) => each.key.name).sort()).toEqual([...extra, ...options.map(nodeName)].sort());
    for (const each of members) expect([each.key.name, each.optional]).toEqual([each.key.name, true]);
    for (const option of options.filter((each) => each.default !== null)) {
      const each = members.find(({ key }) => key.name === nodeName(option));
      const comment = (each.leadingComments ?? []).map(({ value }) => value).join("");
      const value = option.duration ? option.default * 1000 : option.default;
      expect(comment.match(/@default\s+(.*?)\s*(\*|$)/m)?.[1]).toBe(JSON.stringify(value));
    }
  }

  test.each(properties)("have %s", (_, owner, name) => {
    expect(member(owner, name).length).toBeGreaterThan(0);
  });

  test.each(Object.entries(api.enums).filter(([name]) => name !== "about"))("have the union %s", (name, values) => {
    const { typeAnnotation } = declared.get(name);
    expect(typeAnnotation.types.map((each) => each.literal.value)).toEqual(values);
  });

  test("have every error code", () => {
    const { typeAnnotation } = declared.get("ErrorCode");
    expect(typeAnnotation.types.map((each) => each.literal.value).sort()).toEqual(
      api.errors.codes.map((each) => each.code).sort(),
    );
  });
});
