// The ES module is a view of the CommonJS one: both see the same classes and the same bridge. `require` loads it
// in half the time: `import` would first search the file for the names it exports.
import { createRequire } from "node:module";

const kps = createRequire(import.meta.url)("./dist/index.js");

export const { Ack, Client, Document, DocumentStream, EditReceipt, Gap, KpsError, Message, NewServer, Receipt, Response, Retry, Resumed, Server, Storage, StorageStream, Subscription, YjsDocument, YjsReceipt, connect } = kps;
export default kps;
