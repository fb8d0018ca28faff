// A film larger than any message: from a file into the server's storage, and back into a file on another machine.
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { connect } from "kps";

const folder = mkdtempSync(join(tmpdir(), "film-"));
const film = join(folder, "film.mp4");
writeFileSync(film, Buffer.alloc(20 << 20));

const target = "server";
const [studio, cinema] = [await connect(process.argv[2]), await connect(process.argv[2])];
const seen = [];
const onProgress = (...step) => seen.push(step);
const saved = await studio.storage.save("film", pathToFileURL(film), { contentType: "video/mp4", target, onProgress });
console.log("saved", saved.size, "bytes of", saved.contentType);
console.log("the last that was told:", ...seen.at(-1));

await cinema.storage.getTo("film", join(folder, "copy.mp4"), { target });
const same = readFileSync(join(folder, "copy.mp4")).equals(readFileSync(film));
console.log("the copy is the same:", same ? "True" : "False");

const digest = createHash("sha256");
for await (const piece of await cinema.storage.stream("film", { target })) digest.update(piece);
console.log("read without a file:", digest.digest("hex").slice(0, 16));

async function* camera() {
  yield Buffer.from("the first scene");
  throw new Error("the camera fell");
}
try {
  await studio.storage.save("film", camera(), { target });
} catch (error) {
  const now = await cinema.storage.stream("film", { target });
  console.log(`${error.message}; the film is as it was:`, now.etag === saved.etag ? "True" : "False");
  now.close();
}
await studio.close();
await cinema.close();

// A client's own storage is in memory, or in a file that says what it holds to nobody without its key.
const storage = { path: join(folder, "notes.db"), key: "correct horse battery staple", versions: 5 };
const writer = await connect("mem://", { storage });
await writer.storage.save("note", "remember the milk");
await writer.close();
try {
  await connect("mem://", { storage: { ...storage, key: "another one" } });
} catch (error) {
  console.log("another key:", error.code);
}
rmSync(folder, { recursive: true });
