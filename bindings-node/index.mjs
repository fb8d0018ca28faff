// The ES module is a view of the CommonJS one: both see the same classes and the same bridge.
import kps from "./dist/index.js";

export const { Ack, Client, Gap, KpsError, Message, NewServer, Receipt, Resumed, Server, Subscription, connect } = kps;
export default kps;
