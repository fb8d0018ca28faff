// Work for a worker thread.

/** How many steps of 3n + 1 lead to 1. */
export function steps(n) {
  let count = 0;
  for (; n !== 1; count++) n = n % 2 === 0 ? n / 2 : 3 * n + 1;
  return count;
}
