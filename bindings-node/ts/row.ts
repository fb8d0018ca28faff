import { KpsError } from "./errors";
import type { Json } from "./json";
import { type Batch, Flag, Float, Int } from "./slab";
import type { AckRow, RowError, RowStatus } from "./types";

const STATUSES: readonly RowStatus[] = ["acked", "failed", "no_handler", "disconnected", "dropped", "timeout", "cancelled"];

/** The payload in a record as a value. Throws `invalid_payload` if it is not what its type says. @internal */
export function readData(batch: Batch, record: number, json: Json): unknown {
  const type = batch.contentType(record);
  if (type === 2) return batch.payload(record);
  const text = batch.payloadText(record);
  if (type === 1) return text;
  if (text === "null") return null;
  try {
    return json.decode(text);
  } catch (error) {
    throw new KpsError("invalid_payload", `${(error as Error).message}; read raw instead`);
  }
}

/** What a recipient sent may not be JSON: then its bytes say more than an error would. */
function data(batch: Batch, record: number, json: Json): unknown {
  if (!batch.flag(record, Flag.Payload)) return null;
  try {
    return readData(batch, record, json);
  } catch {
    return batch.payload(record);
  }
}

/** The row in a record. @internal */
export function readRow(batch: Batch, record: number, json: Json): AckRow {
  const status = STATUSES[batch.int(record, Int.Sub)]!;
  const error = batch.extras(record);
  return {
    clientId: batch.name(batch.int(record, Int.Name)),
    status,
    success: status === "acked",
    error: error === "" ? null : (JSON.parse(error) as RowError),
    data: data(batch, record, json),
    latency: batch.float(record, Float.Time),
  };
}
