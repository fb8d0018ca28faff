import { native } from "./native";

/**
 * Runs the command line under this name; the Rust function is the one that every language runs.
 * @internal
 */
export function main(name: string): void {
  process.exitCode = native.cliMain([name, ...process.argv.slice(2)]);
}
